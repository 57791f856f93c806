package models

import (
	"context"
	"fmt"
	"time"

	"github.com/uptrace/bun"
)

// HostState is a host with everything that tells whether it is safe.
type HostState struct {
	*Host
	Groups    []*Group // with their Health
	Schedules []*Schedule
	Open      []*Job // not ended, oldest first
	Waits     map[JobID]Wait
	// SchedulesChangedAt is when somebody last made, changed or deleted a
	// schedule; zero where nobody ever did.
	SchedulesChangedAt time.Time
}

// FindHostState reads a host with all it has, in four statements, and
// a fifth while jobs are queued; ENotFound when it isn't there.
func FindHostState(ctx context.Context, db IDB, id HostID) (*HostState, error) {
	var host struct {
		Host               `bun:",extend"`
		SchedulesChangedAt time.Time
	}
	err := db.NewSelect().TableExpr("hosts as h").
		ColumnExpr("h.*, (select max(greatest(effective_at, archived_at)) from schedules where host_id = h.id) as schedules_changed_at").
		Where("h.id = ? and h.archived_at is null", id).Scan(ctx, &host)
	if isNoRows(err) {
		return nil, NotFound("host", id.String())
	}
	if err != nil {
		return nil, fmt.Errorf("state of host: %w", err)
	}
	h := &HostState{Host: &host.Host, SchedulesChangedAt: host.SchedulesChangedAt}
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
	if h.Open, err = OpenJobs(ctx, db, id); err != nil {
		return nil, err
	}
	h.Waits, err = Waits(ctx, db, h.Open)
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
