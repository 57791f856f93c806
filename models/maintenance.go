package models

import (
	"context"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"time"

	"github.com/uptrace/bun"

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

// Validate checks cadences and the subset; an error names each bad field.
func (m *Maintenance) Validate() error {
	var p problems
	for _, c := range []struct{ field, cron string }{
		{"forget.cron", m.ForgetCron}, {"prune.cron", m.PruneCron}, {"check.cron", m.CheckCron},
	} {
		if _, err := cronspec.Parse(c.cron); err != nil {
			p.add(c.field, "%s", err)
		}
	}
	if !validSubset(m.CheckReadDataSubset) {
		p.add("check.read_data_subset", "%q is not a subset: use n/t with n between 1 and t (\"1/12\"), a percentage (\"10%%\"), a size (\"500M\"), or nothing to read no data", m.CheckReadDataSubset)
	}
	return p.err()
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
// where it changed, and where a person saved just that.
func SaveMaintenance(ctx context.Context, db *DB, m *Maintenance, saved ...JobKind) error {
	if err := m.Validate(); err != nil {
		return err
	}
	return Tx(ctx, db, func(tx IDB) error {
		if _, err := lockHost(ctx, tx, m.HostID); err != nil {
			return err
		}
		before, err := FindMaintenance(ctx, tx, m.HostID)
		if err != nil {
			return err
		}
		for _, kind := range MaintenanceKinds {
			wasCron, wasEnabled := before.Cadence(kind)
			cron, enabled := m.Cadence(kind)
			due := cron != wasCron || enabled != wasEnabled
			other := due || kind == KindCheck && m.CheckReadDataSubset != before.CheckReadDataSubset
			if !other && !slices.Contains(saved, kind) {
				continue
			}
			_, err := tx.ExecContext(ctx, `update maintenance_states set failures = 0, failed_at = null, stale_at = null,
				effective_at = case when ? then now() else effective_at end where host_id = ? and kind = ?`, due, m.HostID, kind)
			if err != nil {
				return fmt.Errorf("save maintenance: %w", err)
			}
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

var (
	subsetFraction = regexp.MustCompile(`^([0-9]{1,4})/([0-9]{1,4})$`)
	subsetPercent  = regexp.MustCompile(`^([0-9]{1,3}(?:\.[0-9]{1,4})?)%$`)
	subsetSize     = regexp.MustCompile(`^[1-9][0-9]{0,9}[KMGT]?$`)
)

// validSubset knows the three forms of restic's --read-data-subset.
func validSubset(s string) bool {
	if s == "" {
		return true
	}
	if _, _, ok := subsetParts(s); ok {
		return true
	}
	if m := subsetPercent.FindStringSubmatch(s); m != nil {
		f, _ := strconv.ParseFloat(m[1], 64)
		return f > 0 && f <= 100
	}
	return subsetSize.MatchString(s)
}
