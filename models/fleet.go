package models

import (
	"context"
	"fmt"
	"time"

	"github.com/uptrace/bun"

	"resticfleet/models/cronspec"
)

// HostState is a host with everything that tells whether it is safe.
type HostState struct {
	*Host
	Groups    []*Group
	Schedules []*Schedule
	Open      []*Job // not ended, oldest first
}

// LoadFleet reads the given hosts, or all without any, ordered by name, in
// four statements.
func LoadFleet(ctx context.Context, db IDB, only ...HostID) ([]*HostState, error) {
	var hosts []*Host
	q := db.NewSelect().Model(&hosts).Where("archived_at is null").OrderExpr("lower(name)")
	if len(only) > 0 {
		q.Where("id in (?)", bun.List(only))
	}
	if err := q.Scan(ctx); err != nil {
		return nil, fmt.Errorf("load fleet: %w", err)
	}
	all := make([]*HostState, len(hosts))
	byID := map[HostID]*HostState{}
	for i, h := range hosts {
		all[i] = &HostState{Host: h}
		byID[h.ID] = all[i]
	}
	narrow := func(q *bun.SelectQuery) *bun.SelectQuery {
		if len(only) > 0 {
			q.Where("host_id in (?)", bun.List(only))
		}
		return q
	}
	var groups []*Group
	if err := narrow(db.NewSelect().Model(&groups).Where("archived_at is null")).OrderExpr("lower(name)").Scan(ctx); err != nil {
		return nil, fmt.Errorf("load fleet: %w", err)
	}
	for _, g := range groups {
		if h := byID[g.HostID]; h != nil {
			h.Groups = append(h.Groups, g)
		}
	}
	var schedules []*struct {
		Schedule `bun:",extend"`
		Linked   []GroupID `bun:",array"`
	}
	sq := db.NewSelect().TableExpr("schedules as s").
		ColumnExpr("s.*, array(select sg.source_group_id from schedule_source_groups sg where sg.schedule_id = s.id order by 1) as linked").
		Where("s.archived_at is null").OrderExpr("s.id")
	if err := narrow(sq).Scan(ctx, &schedules); err != nil {
		return nil, fmt.Errorf("load fleet: %w", err)
	}
	for _, s := range schedules {
		if h := byID[s.HostID]; h != nil {
			s.GroupIDs = s.Linked
			h.Schedules = append(h.Schedules, &s.Schedule)
		}
	}
	var open []*Job
	if err := narrow(db.NewSelect().Model(&open).Where("state in ('queued', 'sent', 'running')")).OrderExpr("id").Scan(ctx); err != nil {
		return nil, fmt.Errorf("load fleet: %w", err)
	}
	for _, j := range open {
		if h := byID[j.HostID]; h != nil {
			h.Open = append(h.Open, j)
		}
	}
	return all, nil
}

// FindHostState is LoadFleet for one host; ENotFound when it isn't there.
func FindHostState(ctx context.Context, db IDB, id HostID) (*HostState, error) {
	all, err := LoadFleet(ctx, db, id)
	if err != nil {
		return nil, err
	}
	if len(all) == 0 {
		return nil, NotFound("host", id.String())
	}
	return all[0], nil
}

// Health is the state of a group or host as people are shown it.
type Health string

// The states, worst first as a host takes them over from its groups.
const (
	HealthFailed  Health = "failed"
	HealthLate    Health = "late"
	HealthNever   Health = "never"
	HealthWarning Health = "warning"
	HealthRunning Health = "running"
	HealthWaiting Health = "waiting"
	HealthOffline Health = "offline"
	HealthGood    Health = "good"
)

// lateAfter is how long after a due time a good snapshot may be missing.
const lateAfter = time.Hour

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

// GroupHealth says how a group is, apart from what is under way.
func (h *HostState) GroupHealth(g *Group, now time.Time) Health {
	switch {
	case g.LastState == string(JobFailed) || g.LastState == string(JobLost):
		return HealthFailed
	case g.GoodAt == nil && g.LastState != string(JobWarning):
		return HealthNever
	case !h.LateSince(g, now).IsZero():
		return HealthLate
	case g.LastState == string(JobWarning):
		return HealthWarning
	}
	return HealthGood
}

// LateSince is the due time that passed more than an hour ago without a good
// snapshot since, the earliest of the group's schedules; zero for none.
func (h *HostState) LateSince(g *Group, now time.Time) time.Time {
	var late time.Time
	for _, s := range h.Schedules {
		if !s.Enabled || !s.runs(g.ID) {
			continue
		}
		from := s.EffectiveAt
		if g.GoodAt != nil && g.GoodAt.After(from) {
			from = *g.GoodAt
		}
		spec, err := cronspec.Parse(s.Cron)
		if err != nil {
			continue
		}
		due := spec.Next(from, h.Location())
		if now.Sub(due) > lateAfter && (late.IsZero() || due.Before(late)) {
			late = due
		}
	}
	return late
}

func (s *Schedule) runs(g GroupID) bool {
	for _, id := range s.GroupIDs {
		if id == g {
			return true
		}
	}
	return false
}

// NextRun is the schedule's next due time in the host's zone, zero when it is
// disabled.
func (h *HostState) NextRun(s *Schedule, now time.Time) time.Time {
	if !s.Enabled {
		return time.Time{}
	}
	spec, err := cronspec.Parse(s.Cron)
	if err != nil {
		return time.Time{}
	}
	return spec.Next(now, h.Location())
}

// Next is the earliest next run of all schedules, zero for none.
func (h *HostState) Next(now time.Time) time.Time {
	var next time.Time
	for _, s := range h.Schedules {
		if at := h.NextRun(s, now); !at.IsZero() && (next.IsZero() || at.Before(next)) {
			next = at
		}
	}
	return next
}

// Today is what became of a day's backups, of one host or of all.
type Today struct{ Good, Warning, Failed int }

// CountToday sums the strips' newest day: no page counts jobs.
func CountToday(ctx context.Context, db IDB, host HostID, day time.Time) (Today, error) {
	var t Today
	q := db.NewSelect().TableExpr("source_group_days as d").
		ColumnExpr("coalesce(sum(good), 0), coalesce(sum(warning), 0), coalesce(sum(failed), 0)").
		Where("d.day = ?", day.Format(time.DateOnly))
	if !host.IsZero() {
		q.Join("join source_groups g on g.id = d.source_group_id").Where("g.host_id = ?", host)
	}
	if err := q.Scan(ctx, &t.Good, &t.Warning, &t.Failed); err != nil {
		return Today{}, fmt.Errorf("count today: %w", err)
	}
	return t, nil
}
