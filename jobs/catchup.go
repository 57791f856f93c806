package jobs

import (
	"context"
	"time"

	"resticfleet/agent/failpoint"
	"resticfleet/models"
)

// CatchUp runs once, marked, what the schedules of these linked hosts missed.
// Any server may do it at any time: (schedule, due time, group) is unique.
func (s *Service) CatchUp(ctx context.Context, linked ...models.HostID) error {
	missed, err := models.MissedRuns(ctx, s.DB, linked, s.ScheduleJitter, time.Now())
	if err != nil {
		return err
	}
	for _, run := range missed {
		var made []models.JobID
		err := models.Tx(ctx, s.DB, func(tx models.IDB) error {
			schedule, err := models.FindSchedule(ctx, tx, run.HostID, run.ScheduleID)
			if err != nil {
				return err
			}
			made, err = models.RunSchedule(ctx, tx, models.ScheduledRun{Schedule: schedule, At: run.At, CatchUp: true})
			return err
		})
		if models.CodeOf(err) == models.ENotFound {
			continue // deleted since
		}
		if err != nil {
			return err
		}
		failpoint.Hit(failpoint.CaughtUp)
		s.Log.InfoContext(ctx, "missed run caught up", "host.id", run.HostID, "schedule.id", run.ScheduleID, "scheduled_at", run.At)
		for _, id := range made {
			s.Hints.Publish(JobTopic(id))
		}
		s.HostChanged(run.HostID)
	}
	return nil
}
