package models

import (
	"context"
	"fmt"
	"time"

	"github.com/uptrace/bun"

	"resticfleet/models/cronspec"
)

// missedAfter is how long after its (jittered) time a run counts as missed: by
// then an agent that was there has fired.
const missedAfter = 2 * time.Minute

// MissedRun is the newest due time of a schedule that made no job.
type MissedRun struct {
	HostID     HostID
	ScheduleID ScheduleID
	At         time.Time
}

// MissedRuns finds what the schedules of the given hosts missed until now, at
// most one run each: the newest stands for all before it. Nothing is missed
// that was due before the schedule's last change, the host's zone, or its
// repository's binding.
func MissedRuns(ctx context.Context, db IDB, hosts []HostID, jitter time.Duration, now time.Time) ([]MissedRun, error) {
	if len(hosts) == 0 {
		return nil, nil
	}
	var rows []struct {
		ID       ScheduleID
		HostID   HostID
		Cron     string
		Timezone string
		Since    time.Time
	}
	err := db.NewRaw(`select s.id, s.host_id, s.cron, h.timezone,
			greatest(s.effective_at, h.timezone_since, hr.bound_at,
				(select max(j.scheduled_at) from jobs j where j.scheduled_id = s.id)) as since
		from schedules s join hosts h on h.id = s.host_id join host_repositories hr on hr.host_id = s.host_id
		where s.host_id in (?) and s.enabled and s.archived_at is null and h.archived_at is null`, bun.List(hosts)).Scan(ctx, &rows)
	if err != nil {
		return nil, fmt.Errorf("missed runs: %w", err)
	}
	var missed []MissedRun
	for _, r := range rows {
		spec, err := cronspec.Parse(r.Cron)
		if err != nil {
			continue // stored by a version with other rules
		}
		until := now.Add(-missedAfter - cronspec.Jitter(r.ID.String(), jitter))
		if at, ok := spec.Latest(r.Since, until, zoneNamed(r.Timezone)); ok {
			missed = append(missed, MissedRun{HostID: r.HostID, ScheduleID: r.ID, At: at.UTC()})
		}
	}
	return missed, nil
}
