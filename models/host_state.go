package models

import (
	"context"
	"fmt"

	"github.com/uptrace/bun"
)

// HostState is a host with everything that tells whether it is safe.
type HostState struct {
	*Host
	Groups    []*Group // with their Health
	Schedules []*Schedule
	Open      []*Job // not ended, oldest first
}

// FindHostState reads a host with all it has, in four statements; ENotFound
// when it isn't there.
func FindHostState(ctx context.Context, db IDB, id HostID) (*HostState, error) {
	host, err := FindHost(ctx, db, id)
	if err != nil {
		return nil, err
	}
	h := &HostState{Host: host}
	err = db.NewSelect().Model(&h.Groups).ColumnExpr("g.*, ? as health", bun.Safe(groupHealth)).
		Where("host_id = ? and archived_at is null", id).OrderExpr("lower(name)").Scan(ctx)
	if err != nil {
		return nil, fmt.Errorf("groups of host: %w", err)
	}
	var schedules []*struct {
		Schedule `bun:",extend"`
		Linked   []GroupID `bun:",array"`
	}
	err = db.NewSelect().TableExpr("schedules as s").
		ColumnExpr("s.*, array(select sg.source_group_id from schedule_source_groups sg where sg.schedule_id = s.id order by 1) as linked").
		Where("host_id = ? and s.archived_at is null", id).OrderExpr("s.id").Scan(ctx, &schedules)
	if err != nil {
		return nil, fmt.Errorf("schedules of host: %w", err)
	}
	for _, s := range schedules {
		s.GroupIDs = s.Linked
		h.Schedules = append(h.Schedules, &s.Schedule)
	}
	h.Open, err = OpenJobs(ctx, db, id)
	return h, err
}

// Active is the newest open backup of a group, nil for none.
func (h *HostState) Active(g GroupID) *Job {
	var active *Job
	for _, j := range h.Open {
		if j.Kind != KindBackup || j.SourceGroupID == nil || *j.SourceGroupID != g {
			continue
		}
		// A running one says more than the one that waits behind it.
		if active == nil || active.State == JobQueued {
			active = j
		}
	}
	return active
}
