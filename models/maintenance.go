package models

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/uptrace/bun"

	"resticfleet/agent/protocol"
	"resticfleet/models/cronspec"
)

// Maintenance is when a host's repository is kept small and checked. It does
// not touch the schedule version: the server reads it when it makes jobs.
type Maintenance struct {
	bun.BaseModel `bun:"table:host_repo_maintenance"`

	HostID              HostID `bun:",pk"`
	ForgetCron          string
	ForgetEnabled       bool
	PruneCron           string
	PruneEnabled        bool
	CheckCron           string
	CheckEnabled        bool
	CheckReadDataSubset string
	UpdatedAt           time.Time `bun:",nullzero"`
}

// defaultMaintenance is what a host begins with. Everything is off until a
// person turns it on.
func defaultMaintenance(host HostID) *Maintenance {
	return &Maintenance{
		HostID:     host,
		ForgetCron: "30 3 * * *", PruneCron: "30 4 * * 0", CheckCron: "30 5 * * 0",
		CheckReadDataSubset: "1/12",
	}
}

// FindMaintenance reads a host's cadences, and makes the rows of them and of what
// becomes of each kind where they are missing.
func FindMaintenance(ctx context.Context, db IDB, host HostID) (*Maintenance, error) {
	m := &Maintenance{}
	err := db.NewSelect().Model(m).Where("host_id = ? and (select count(*) from maintenance_states where host_id = ?) = ?", host, host, len(MaintenanceKinds)).Scan(ctx)
	if err == nil {
		return m, nil
	}
	if !isNoRows(err) {
		return nil, fmt.Errorf("find maintenance: %w", err)
	}
	if _, err := FindHost(ctx, db, host); err != nil {
		return nil, err
	}
	if _, err := db.NewInsert().Model(defaultMaintenance(host)).On("conflict do nothing").Exec(ctx); err != nil {
		return nil, fmt.Errorf("seed maintenance: %w", err)
	}
	if err := knowMaintenanceStates(ctx, db, host); err != nil {
		return nil, err
	}
	if err := db.NewSelect().Model(m).Where("host_id = ?", host).Scan(ctx); err != nil {
		return nil, fmt.Errorf("find maintenance: %w", err)
	}
	return m, nil
}

// judge names what is wrong with a kind's cadence, and with check's subset.
func (m *Maintenance) judge(kind JobKind, p *problems) {
	cron, _ := m.Cadence(kind)
	if _, err := cronspec.Parse(cron); err != nil {
		p.add(string(kind)+".cron", "%s", err)
	}
	if why := m.SubsetProblem(); kind == KindCheck && why != "" {
		p.add("check.read_data_subset", "%s", why)
	}
}

// SubsetProblem is why no check can work, "" if one can: an older server stored
// parts of the data that restic refuses.
func (m *Maintenance) SubsetProblem() string {
	if protocol.ValidSubset(m.CheckReadDataSubset) {
		return ""
	}
	return fmt.Sprintf("%q is no part of the data that restic can read: use %s", m.CheckReadDataSubset, protocol.SubsetForms)
}

// knowMaintenanceStates makes the rows of what becomes of each kind where they
// are missing.
func knowMaintenanceStates(ctx context.Context, db IDB, host HostID) error {
	_, err := db.ExecContext(ctx, "insert into maintenance_states (host_id, kind) select ?, k from unnest(array['forget', 'prune', 'check']) k on conflict do nothing", host)
	if err != nil {
		return fmt.Errorf("seed maintenance: %w", err)
	}
	return nil
}

// Cadence is when a kind of maintenance runs, and whether it does.
func (m *Maintenance) Cadence(kind JobKind) (cron string, enabled bool) {
	switch kind {
	case KindForget:
		return m.ForgetCron, m.ForgetEnabled
	case KindPrune:
		return m.PruneCron, m.PruneEnabled
	}
	return m.CheckCron, m.CheckEnabled
}

// MaintenanceKinds are the kinds of work that have a cadence.
var MaintenanceKinds = []JobKind{KindForget, KindPrune, KindCheck}

// SaveMaintenance validates and stores a host's cadences. Of what has changed
// nothing is due before now; what failed again and again gets another chance
// where it changed, and where a person saved just that. What an older server
// stored is not judged where it stays and is off, or somebody saves another kind.
func SaveMaintenance(ctx context.Context, db *DB, m *Maintenance, saved ...JobKind) error {
	return Tx(ctx, db, func(tx IDB) error {
		if _, err := lockHost(ctx, tx, m.HostID); err != nil {
			return err
		}
		before, err := FindMaintenance(ctx, tx, m.HostID)
		if err != nil {
			return err
		}
		var p problems
		for _, kind := range MaintenanceKinds {
			wasCron, wasEnabled := before.Cadence(kind)
			cron, enabled := m.Cadence(kind)
			due := cron != wasCron || enabled != wasEnabled
			subset := kind == KindCheck && m.CheckReadDataSubset != before.CheckReadDataSubset
			touched := due || subset || slices.Contains(saved, kind)
			if cron != wasCron || subset || enabled && (touched || len(saved) == 0) {
				m.judge(kind, &p)
			}
			if !touched {
				continue
			}
			_, err := tx.ExecContext(ctx, `update maintenance_states set failures = 0, failed_at = null, stale_at = null,
				effective_at = case when ? then now() else effective_at end where host_id = ? and kind = ?`, due, m.HostID, kind)
			if err != nil {
				return fmt.Errorf("save maintenance: %w", err)
			}
		}
		if err := p.err(); err != nil {
			return err
		}
		return saveMaintenance(ctx, tx, m)
	})
}

func saveMaintenance(ctx context.Context, db IDB, m *Maintenance) error {
	_, err := db.NewInsert().Model(m).ExcludeColumn("updated_at").
		On("conflict (host_id) do update").
		Set("forget_cron = excluded.forget_cron, forget_enabled = excluded.forget_enabled").
		Set("prune_cron = excluded.prune_cron, prune_enabled = excluded.prune_enabled").
		Set("check_cron = excluded.check_cron, check_enabled = excluded.check_enabled").
		Set("check_read_data_subset = excluded.check_read_data_subset, updated_at = now()").
		Returning("updated_at").Exec(ctx)
	if err != nil {
		return fmt.Errorf("save maintenance: %w", err)
	}
	return nil
}
