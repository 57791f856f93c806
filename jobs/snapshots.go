package jobs

import (
	"context"

	"resticfleet/models"
)

// RefreshSnapshots asks a host's agent for the list of its snapshots.
func (s *Service) RefreshSnapshots(ctx context.Context, host models.HostID, actor models.Actor) (*models.Job, error) {
	return s.asked(models.RefreshSnapshots(ctx, s.DB, host, actor))
}

// HoldSnapshot keeps that a snapshot is never forgotten, or may be again.
func (s *Service) HoldSnapshot(ctx context.Context, host models.HostID, id string, held bool, actor models.Actor) (*models.Snapshot, error) {
	snapshot, err := models.HoldSnapshot(ctx, s.DB, host, id, held, actor)
	if err == nil {
		s.Hints.Publish(HostTopic(host))
	}
	return snapshot, err
}

// DeleteSnapshot has restic forget one snapshot.
func (s *Service) DeleteSnapshot(ctx context.Context, host models.HostID, id string, actor models.Actor) (*models.Job, error) {
	return s.asked(models.DeleteSnapshot(ctx, s.DB, host, id, actor))
}

// CompareSnapshots has a host's agent compare two of its snapshots, again also
// where that has just failed.
func (s *Service) CompareSnapshots(ctx context.Context, older, newer *models.Snapshot, again bool, actor models.Actor) (*models.Job, error) {
	return s.asked(models.AskDiff(ctx, s.DB, older, newer, again, actor))
}

func (s *Service) asked(j *models.Job, err error) (*models.Job, error) {
	if err == nil {
		s.jobChanged(j)
	}
	return j, err
}
