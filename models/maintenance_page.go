package models

import (
	"context"
	"fmt"

	"resticfleet/agent/protocol"
)

// Maintains reports whether the host's agent knows forget, prune and check. One
// that has never come is not judged.
func (h *Host) Maintains() bool { return h.LastSeenAt == nil || h.AgentProtocol >= lookUpProtocol }

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
