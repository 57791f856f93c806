package models

import "context"

// HostPatch changes what is not nil.
type HostPatch struct {
	Name   *string
	Labels *[]string
}

// PatchHost changes some of what UpdateHost changes. Two patches of different
// fields at once both stay.
func PatchHost(ctx context.Context, db *DB, id HostID, patch HostPatch) (*Host, error) {
	var h *Host
	err := Tx(ctx, db, func(tx IDB) error {
		old, err := lockHost(ctx, tx, id)
		if err != nil {
			return err
		}
		f := HostFields{Name: old.Name, Labels: old.Labels}
		if patch.Name != nil {
			f.Name = *patch.Name
		}
		if patch.Labels != nil {
			f.Labels = *patch.Labels
		}
		h, err = UpdateHost(ctx, tx, id, f)
		return err
	})
	return h, err
}
