package jobs

import (
	"context"
	"errors"
	"time"

	"resticfleet/agent/failpoint"
	"resticfleet/models"
)

// Maintain dispatches what maintenance is due, until ctx ends. Any number of
// servers may: each due time has one row.
func (s *Service) Maintain(ctx context.Context) {
	tick := time.NewTicker(s.MaintainEvery)
	defer tick.Stop()
	for {
		if err := s.MaintainOnce(ctx, time.Now()); err != nil && ctx.Err() == nil {
			s.Log.WarnContext(ctx, "maintenance is not dispatched just now", "err", err)
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// MaintainOnce makes the rows of everything that is due at a time.
func (s *Service) MaintainOnce(ctx context.Context, now time.Time) error {
	change, err := models.OwnRepositories(ctx, s.DB)
	if err != nil {
		return err
	}
	s.ownersChanged(ctx, change)
	if err := models.ForgetStale(ctx, s.DB); err != nil {
		return err
	}
	due, err := models.ListDueMaintenance(ctx, s.DB, now)
	if err != nil {
		return err
	}
	var failed []error
	for _, d := range due {
		if d.Skip == "" && !d.Linked {
			continue // when it is there again
		}
		j, err := models.RunDueMaintenance(ctx, s.DB, d.HostID, d.Kind, now)
		if err != nil {
			failed = append(failed, err) // the other hosts' work is due all the same
			continue
		}
		if j == nil {
			continue
		}
		failpoint.Hit(failpoint.Maintained)
		s.Log.InfoContext(ctx, "maintenance is due", "host.id", d.HostID, "kind", d.Kind, "scheduled_at", d.At, "state", j.State, "code", j.ErrorCode)
		s.jobChanged(j)
	}
	return errors.Join(failed...)
}

// OwnRepository makes a host the owner of its repository's prune and check.
func (s *Service) OwnRepository(ctx context.Context, host models.HostID) error {
	change, err := models.OwnRepository(ctx, s.DB, host)
	if err == nil {
		s.ownersChanged(ctx, change)
	}
	return err
}

// ownersChanged tells the pages of all that share a repository that has another
// owner, and wakes who waited behind what ended with the one before.
func (s *Service) ownersChanged(ctx context.Context, c models.OwnerChange) {
	for _, h := range c.Hosts {
		s.HostChanged(h)
	}
	for _, j := range c.Ended {
		s.Log.InfoContext(ctx, "maintenance that waited ends: its repository has another owner", "job.id", j.ID, "host.id", j.HostID, "kind", j.Kind)
		s.wakeWaiting(ctx, j)
	}
}

// RunMaintenance asks for a forget, prune or check now.
func (s *Service) RunMaintenance(ctx context.Context, host models.HostID, kind models.JobKind, actor models.Actor) (*models.Job, error) {
	j, err := models.RunMaintenance(ctx, s.DB, host, kind, actor)
	if err == nil {
		failpoint.Hit(failpoint.Made)
		s.jobChanged(j)
	}
	return j, err
}
