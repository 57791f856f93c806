package jobs

import (
	"context"
	"time"

	"resticfleet/models"
)

// Watcher is what Hints may be besides: it wakes who waits for a topic.
type Watcher interface {
	// Watch returns a channel that has a value whenever the topic was published
	// since, and what ends the watching.
	Watch(topic Topic) (wake <-chan struct{}, stop func())
}

// previewPoll is the slow look that stands behind the hint of a preview's end.
const previewPoll = time.Second

// PreviewRetention asks a host's restic what a policy would do with a group's
// snapshots, and waits for the answer, whichever server gets it. Who stops
// waiting, or has waited for PreviewWait, cancels the look-up. EUnavailable
// where the host isn't there, doesn't answer in time or can't.
func (s *Service) PreviewRetention(ctx context.Context, host models.HostID, group models.GroupID, policy models.Retention, actor models.Actor) (*models.RetentionPlan, error) {
	j, plan, err := models.AskPreview(ctx, s.DB, host, group, policy, actor)
	if err != nil || plan != nil {
		return plan, err
	}
	var wake <-chan struct{}
	if w, ok := s.Hints.(Watcher); ok {
		var stop func()
		wake, stop = w.Watch(JobTopic(j.ID))
		defer stop()
	}
	s.Hints.Publish(DispatchTopic(host))
	end := time.NewTimer(s.PreviewWait)
	defer end.Stop()
	poll := time.NewTicker(previewPoll)
	defer poll.Stop()
	for {
		if plan, err := models.PreviewAnswer(ctx, s.DB, j.ID); plan != nil || err != nil && ctx.Err() == nil {
			return plan, err
		}
		select {
		case <-wake:
			continue
		case <-poll.C:
			continue
		case <-ctx.Done():
			err = ctx.Err()
		case <-end.C:
			err = &models.Error{Code: models.EUnavailable, Message: "The host did not say in time what this policy would do: it may be busy, or its repository slow. Look again in a while; the policy can be saved without."}
		}
		s.stopPreview(context.WithoutCancel(ctx), j)
		return nil, err
	}
}

// stopPreview cancels a look-up whose answer nobody waits for any more.
func (s *Service) stopPreview(ctx context.Context, j *models.Job) {
	if _, err := s.Cancel(ctx, j.ID); err != nil && models.CodeOf(err) != models.EConflict {
		s.Log.WarnContext(ctx, "a preview that nobody waits for is not cancelled", "job.id", j.ID, "err", err)
	}
}

// RemoveSnapshots forgets all of a group's snapshots that are known and not held.
func (s *Service) RemoveSnapshots(ctx context.Context, host models.HostID, group models.GroupID, actor models.Actor) (*models.Job, error) {
	return s.asked(models.RemoveSnapshots(ctx, s.DB, host, group, actor))
}
