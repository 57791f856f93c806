package models

import (
	"context"
	"fmt"
	"maps"
	"slices"

	"resticfleet/agent/protocol"
)

// MaintenanceFields is what a person says of a repository's second credentials:
// the same as of the first.
type MaintenanceFields = RepositoryFields

// HasMaintenance reports whether forget and prune have credentials of their own.
func (r *HostRepository) HasMaintenance() bool { return r.MaintenanceURL != "" }

// MaintenanceEnvNames are the names of the second credentials' environment,
// sorted.
func (r *HostRepository) MaintenanceEnvNames() []string {
	return append([]string{}, slices.Sorted(maps.Keys(r.MaintenanceEnvSealed))...)
}

// MaintenanceSecrets opens the second credentials; see Secrets.
func (r *HostRepository) MaintenanceSecrets(seal *Sealer) (protocol.Secrets, error) {
	return seal.openSecrets(maintenancePlace(r.HostID), r.MaintenancePasswordSealed, r.MaintenanceEnvSealed)
}

func (r *HostRepository) sealMaintenance(key sealingKey, secrets protocol.Secrets) (err error) {
	r.MaintenancePasswordSealed, r.MaintenanceEnvSealed, err = key.sealSecrets(maintenancePlace(r.HostID), secrets)
	return err
}

// SecretsFor is what a job of this kind opens the repository with: its URL, and
// the second credentials for what removes, where there are any.
func (r *HostRepository) SecretsFor(kind JobKind, seal *Sealer) (url string, second bool, secrets protocol.Secrets, err error) {
	if r.HasMaintenance() && kind.removes() {
		secrets, err = r.MaintenanceSecrets(seal)
		return r.MaintenanceURL, true, secrets, err
	}
	secrets, err = r.Secrets(seal)
	return r.URL, false, secrets, err
}

// BindMaintenance seals and stores a host's second credentials. EConflict where
// the host has none for every day: there is nothing yet to maintain. That both
// open the same repository is for the host to find out, before it removes
// anything.
func BindMaintenance(ctx context.Context, db *DB, seal *Sealer, host HostID, f MaintenanceFields) (*HostRepository, error) {
	if f.Keep {
		if err := f.fillKept(ctx, db, host, func(r *HostRepository) (protocol.Secrets, error) { return r.maintenanceKept(seal) }); err != nil {
			return nil, err
		}
	}
	if err := f.validate(); err != nil {
		return nil, err
	}
	err := Tx(ctx, db, func(tx IDB) error {
		key, err := seal.current(ctx, tx)
		if err != nil {
			return err
		}
		if _, err := lockHost(ctx, tx, host); err != nil {
			return err
		}
		r, err := FindRepository(ctx, tx, host)
		if CodeOf(err) == ENotFound {
			return Conflict("This host has no repository yet. Set one up first, with the credentials for every day; then those for forget and prune.")
		}
		if err != nil {
			return err
		}
		r.MaintenanceURL = f.URL
		if err := r.sealMaintenance(key, f.secrets()); err != nil {
			return err
		}
		_, err = tx.NewUpdate().Model(r).Column("maintenance_url", "maintenance_password_sealed", "maintenance_env_sealed").
			Set("maintenance_bound_at = now()").WherePK().Exec(ctx)
		if err != nil {
			return fmt.Errorf("bind maintenance credentials: %w", err)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return FindRepository(ctx, db, host)
}

// maintenanceKept is what a form that leaves secrets as they are keeps.
func (r *HostRepository) maintenanceKept(seal *Sealer) (protocol.Secrets, error) {
	if !r.HasMaintenance() {
		return protocol.Secrets{}, nil
	}
	return r.MaintenanceSecrets(seal)
}

// FindMaintenanceCredentials is FindRepository for a host that has second
// credentials; ENotFound where it has none.
func FindMaintenanceCredentials(ctx context.Context, db IDB, host HostID) (*HostRepository, error) {
	r, err := FindRepository(ctx, db, host)
	if err == nil && !r.HasMaintenance() {
		return nil, &Error{Code: ENotFound, Message: "This host has no credentials of their own for forget and prune: those for every day do it all."}
	}
	return r, err
}

// UnbindMaintenance forgets a host's second credentials: forget and prune use
// those for every day again.
func UnbindMaintenance(ctx context.Context, db IDB, host HostID) error {
	res, err := db.ExecContext(ctx, "update host_repositories set "+noMaintenance+" where host_id = ? and maintenance_url is not null", host)
	if err != nil {
		return fmt.Errorf("unbind maintenance credentials: %w", err)
	}
	if n, _ := res.RowsAffected(); n == 0 {
		return &Error{Code: ENotFound, Message: "This host has no credentials for forget and prune to remove."}
	}
	return nil
}

// noMaintenance is SQL that takes the second credentials out of a row.
const noMaintenance = "maintenance_url = null, maintenance_password_sealed = null, maintenance_env_sealed = null, maintenance_bound_at = null"

// dropMaintenance takes away second credentials that were for another
// repository than the one that the host's row names now. Somebody who has not
// said that they may go is asked (EInvalid on drop_maintenance), and nothing is
// stored.
func dropMaintenance(ctx context.Context, tx IDB, was *HostRepository, f RepositoryFields) error {
	if was == nil || !was.HasMaintenance() {
		return nil
	}
	now, err := FindRepository(ctx, tx, was.HostID)
	if err != nil || now.RepositoryID == was.RepositoryID {
		return err
	}
	if f.Keep && !f.DropMaintenance {
		return Invalid("drop_maintenance", "is not ticked: this place is another repository, and the credentials for forget and prune, which lead to %s, go with the old one; say that they may, then save again", was.MaintenanceURL)
	}
	return UnbindMaintenance(ctx, tx, was.HostID)
}

func maintenancePlace(host HostID) string { return hostPlace(host) + "/maintenance" }
