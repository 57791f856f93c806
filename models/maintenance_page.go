package models

import (
	"context"
	"fmt"

	"resticfleet/agent/protocol"
)

// Maintains reports whether the host's agent knows forget, prune and check. One
// that has never come is not judged.
func (h *Host) Maintains() bool { return h.LastSeenAt == nil || h.AgentProtocol >= lookUpProtocol }

// KeptRepository is a host's repository with what keeps it small and checked.
type KeptRepository struct {
	HostRepository `bun:",extend"`
	Upkeep         []Upkeep `bun:"type:jsonb"`
}

// Upkeep is one kind of a host's maintenance in brief. Elsewhere is the host that
// does it for the repository that they share, zero for this one; Broken says that
// it is on and needs a hand.
type Upkeep struct {
	Kind      JobKind `json:"kind"`
	Cron      string  `json:"cron"`
	Enabled   bool    `json:"enabled"`
	Elsewhere HostID  `json:"elsewhere"`
	Broken    bool    `json:"broken"`
}

// FindKeptRepository is FindRepository with its upkeep, in one statement.
func FindKeptRepository(ctx context.Context, db IDB, host HostID) (*KeptRepository, error) {
	r := &KeptRepository{}
	err := repositoryOf(db, host).ColumnExpr(`(select jsonb_agg(jsonb_build_object('kind', k.kind,
				'cron', case k.kind when 'forget' then m.forget_cron when 'prune' then m.prune_cron else m.check_cron end,
				'enabled', case k.kind when 'forget' then m.forget_enabled when 'prune' then m.prune_enabled else m.check_enabled end,
				'elsewhere', case when k.kind <> 'forget' and r.owner_host_id <> hr.host_id then r.owner_host_id end,
				'broken', coalesce(?, false)) order by k.n)
			from unnest(array['forget', 'prune', 'check']) with ordinality k(kind, n) join host_repo_maintenance m on m.host_id = hr.host_id
				left join maintenance_states ms on ms.host_id = hr.host_id and ms.kind = k.kind) as upkeep`, maintenanceBroken).Scan(ctx, r)
	if err != nil {
		return nil, repositoryError(err)
	}
	return r, nil
}

// CheckParts is in how many parts the check reads the data, one after the other;
// 0 where it doesn't go round.
func (m *Maintenance) CheckParts() int {
	_, parts, _ := protocol.SubsetPart(m.CheckReadDataSubset)
	return parts
}

// SetCadence changes one kind's; the other two stay.
func (m *Maintenance) SetCadence(kind JobKind, cron string, enabled bool) {
	switch kind {
	case KindForget:
		m.ForgetCron, m.ForgetEnabled = cron, enabled
	case KindPrune:
		m.PruneCron, m.PruneEnabled = cron, enabled
	case KindCheck:
		m.CheckCron, m.CheckEnabled = cron, enabled
	}
}

// ListMaintenanceJobs returns the newest runs of a host's forget, prune and
// check, those that were skipped too; it reads limit rows of each kind at most.
func ListMaintenanceJobs(ctx context.Context, db IDB, host HostID, limit int) ([]*Job, error) {
	var jobs []*Job
	err := withNames(db.NewSelect().Model(&jobs).ExcludeColumn("spec").
		Where(`j.id in (select r.id from unnest(array['forget', 'prune', 'check']) k
			cross join lateral (select id from jobs where host_id = ? and kind = k order by id desc limit ?) r)`, host, limit)).
		OrderExpr("j.id desc").Limit(int64(limit)).Scan(ctx)
	if err != nil {
		return nil, fmt.Errorf("list maintenance: %w", err)
	}
	return jobs, nil
}

// ListPolicies returns what a forget on a host would go by: the names and
// policies of its groups, those that keep everything too.
func ListPolicies(ctx context.Context, db IDB, host HostID) ([]*Group, error) {
	var groups []*Group
	err := db.NewSelect().Model(&groups).Column("id", "name", "retention").Where("host_id = ? and archived_at is null", host).
		OrderExpr("lower(name)").Limit(MaxLimit).Scan(ctx)
	if err != nil {
		return nil, fmt.Errorf("list policies: %w", err)
	}
	return groups, nil
}
