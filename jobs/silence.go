package jobs

import (
	"context"
	"time"

	"resticfleet/agent/failpoint"
	"resticfleet/models"
)

// tickEvery is how often a server says that it listens; well within the gap
// that models.TickHearing bridges.
const tickEvery = 5 * time.Second

// Listen says that this server listens, and ends the jobs of hosts that have
// been silent for too long, until ctx ends.
func (s *Service) Listen(ctx context.Context) {
	tick := time.NewTicker(tickEvery)
	defer tick.Stop()
	for {
		if err := s.listenOnce(ctx); err != nil && ctx.Err() == nil {
			s.Log.WarnContext(ctx, "silent hosts are not judged just now", "err", err)
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

func (s *Service) listenOnce(ctx context.Context) error {
	if err := models.TickHearing(ctx, s.DB); err != nil {
		return err
	}
	if err := models.SweepPreviews(ctx, s.DB); err != nil {
		return err
	}
	ended, err := models.EndSilent(ctx, s.DB, models.Silence{Expire: s.ExpireAfter, Lose: s.LostAfter})
	for _, j := range ended {
		failpoint.Hit(failpoint.Judged)
		if j.State.Ended() {
			s.Log.WarnContext(ctx, "job ended by its host's silence", "job.id", j.ID, "host.id", j.HostID, "state", j.State)
		} else {
			s.Log.WarnContext(ctx, "a host fell silent just when a job was sent to it: the others don't wait for that any more", "job.id", j.ID, "host.id", j.HostID)
		}
		s.wakeWaiting(ctx, j)
	}
	return err
}
