package models

import (
	"context"
	"fmt"
	"time"

	"github.com/uptrace/bun"

	"resticfleet/models/cronspec"
)

// lateAfter is how long after a due time, and its jitter, a good snapshot may
// be missing.
const lateAfter = time.Hour

// keepLateness works out anew when the groups of these hosts become late: an
// hour and the jitter after the first due time that no good snapshot answers.
// Call it in the transaction that changed what that depends on: a group's
// newest good snapshot, a schedule, a host's zone. Due times before the last
// change of a schedule or a zone don't count, but a group that is late already
// stays so until a good snapshot comes: an edit of its schedule is none.
func keepLateness(ctx context.Context, tx IDB, hosts ...HostID) error {
	var groups []*groupLateness
	// The rows are taken before the schedules are read: whoever changes those
	// meanwhile comes here after us.
	err := tx.NewRaw(`select g.id, h.timezone, h.timezone_since, g.covered_at, g.due_at, g.late_at, g.due_schedule_id, coalesce(g.late_at <= now(), false) as late
		from source_groups g join hosts h on h.id = g.host_id
		where g.host_id in (?) and g.archived_at is null order by g.id for no key update of g`, bun.List(hosts)).Scan(ctx, &groups)
	if err != nil {
		return fmt.Errorf("keep lateness: %w", err)
	}
	if len(groups) == 0 {
		return nil
	}
	var schedules []*groupSchedule
	err = tx.NewRaw(`select sg.source_group_id, s.id, s.cron, s.effective_at, extract(epoch from spread.jitter) * 1000 as jitter_ms
		from schedules s join schedule_source_groups sg on sg.schedule_id = s.id, schedule_spread spread
		where s.host_id in (?) and s.enabled and s.archived_at is null order by s.id`, bun.List(hosts)).Scan(ctx, &schedules)
	if err != nil {
		return fmt.Errorf("keep lateness: %w", err)
	}
	byGroup := map[GroupID][]*groupSchedule{}
	for _, s := range schedules {
		byGroup[s.SourceGroupID] = append(byGroup[s.SourceGroupID], s)
	}
	for _, g := range groups {
		due := g.next(byGroup[g.ID])
		if due.same(g.duty) {
			continue
		}
		_, err := tx.ExecContext(ctx, "update source_groups set due_at = ?, late_at = ?, due_schedule_id = ? where id = ?",
			due.DueAt, due.LateAt, due.DueScheduleID, g.ID)
		if err != nil {
			return fmt.Errorf("keep lateness: %w", err)
		}
	}
	return nil
}

// duty is the due time that a group has to answer with a good snapshot.
type duty struct {
	DueAt, LateAt *time.Time
	DueScheduleID *ScheduleID
}

func (d duty) same(o duty) bool {
	equal := func(a, b *time.Time) bool { return a == b || (a != nil && b != nil && a.Equal(*b)) }
	return equal(d.DueAt, o.DueAt) && equal(d.LateAt, o.LateAt) &&
		(d.DueScheduleID == o.DueScheduleID || (d.DueScheduleID != nil && o.DueScheduleID != nil && *d.DueScheduleID == *o.DueScheduleID))
}

type groupLateness struct {
	ID            GroupID
	Timezone      string
	TimezoneSince time.Time
	CoveredAt     *time.Time
	Late          bool
	duty          `bun:",extend"`
}

type groupSchedule struct {
	SourceGroupID GroupID
	ID            ScheduleID
	Cron          string
	EffectiveAt   time.Time
	JitterMS      float64 `bun:"jitter_ms"`
}

// next is the duty of the schedule that makes the group late first.
func (g *groupLateness) next(schedules []*groupSchedule) duty {
	if len(schedules) > 0 && g.Late && (g.CoveredAt == nil || g.CoveredAt.Before(*g.DueAt)) {
		return g.duty
	}
	var first duty
	for _, s := range schedules {
		spec, err := cronspec.Parse(s.Cron)
		if err != nil {
			continue // stored by a version with other rules
		}
		from := s.EffectiveAt
		for _, t := range []*time.Time{&g.TimezoneSince, g.CoveredAt} {
			if t != nil && t.After(from) {
				from = *t
			}
		}
		due := spec.Next(from, zoneNamed(g.Timezone)).UTC()
		if due.Year() <= 1 {
			continue // never again
		}
		late := due.Add(lateAfter + cronspec.Jitter(s.ID.String(), time.Duration(s.JitterMS)*time.Millisecond))
		if first.LateAt == nil || late.Before(*first.LateAt) {
			first = duty{DueAt: &due, LateAt: &late, DueScheduleID: &s.ID}
		}
	}
	return first
}

// latenessBatch is how many hosts KeepLateness takes at a time, so that it
// holds no row for long.
const latenessBatch = 100

// KeepLateness brings the whole fleet's lateness up to date: after a migration,
// after a change of the window in which schedules are spread, and beside a
// server of an older version, which knows nothing of it. What is right already
// is only read.
func KeepLateness(ctx context.Context, db *DB, jitter time.Duration) error {
	if _, err := db.ExecContext(ctx, "update schedule_spread set jitter = ?::interval where jitter <> ?::interval", interval(jitter), interval(jitter)); err != nil {
		return fmt.Errorf("keep lateness: %w", err)
	}
	var hosts []HostID
	if err := db.NewRaw("select id from hosts where archived_at is null order by id").Scan(ctx, &hosts); err != nil {
		return fmt.Errorf("keep lateness: %w", err)
	}
	for len(hosts) > 0 {
		batch := hosts[:min(latenessBatch, len(hosts))]
		hosts = hosts[len(batch):]
		err := Tx(ctx, db, func(tx IDB) error {
			_, err := tx.ExecContext(ctx, "update source_groups set covered_at = good_at where host_id in (?) and good_at > coalesce(covered_at, '-infinity')", bun.List(batch))
			if err != nil {
				return fmt.Errorf("keep lateness: %w", err)
			}
			return keepLateness(ctx, tx, batch...)
		})
		if err != nil {
			return err
		}
	}
	return nil
}
