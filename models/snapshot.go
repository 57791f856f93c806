package models

import (
	"context"
	"fmt"
)

// HeldSnapshots are the full ids of a host's snapshots that must never be
// forgotten.
func HeldSnapshots(ctx context.Context, db IDB, host HostID) ([]string, error) {
	var ids []string
	err := db.NewRaw("select snapshot_id from snapshot_holds where host_id = ? order by snapshot_id", host).Scan(ctx, &ids)
	if err != nil {
		return nil, fmt.Errorf("held snapshots: %w", err)
	}
	return ids, nil
}
