package jobs

import (
	"context"
	"log/slog"
	"time"

	"resticfleet/agent/failpoint"
	"resticfleet/models"
)

// Config is what a Service needs. Every field but the durations is required.
type Config struct {
	DB     *models.DB
	Sealer *models.Sealer
	Hints  Hints
	Log    *slog.Logger

	// PingInterval is how often both ends of a link ping; 15 s by default.
	PingInterval time.Duration
	// OfferAgain is how long a sent job may stay unaccepted; 10 s by default.
	OfferAgain time.Duration
	// ScheduleJitter is the window in which agents spread their fires; 0 by
	// default.
	ScheduleJitter time.Duration
	// ExpireAfter and LostAfter are how long a host may be silent; 24 h and
	// 15 min by default. See models.Silence.
	ExpireAfter, LostAfter time.Duration
	// SettleAfter is how long a job waits for the agent it was sent to, once
	// another one speaks for the host, before that one is asked about it, or,
	// where it was never accepted, told to run it; 2 min by default, LostAfter
	// while the host counts as cloned.
	SettleAfter time.Duration
	// PreviewWait is how long the preview of a policy waits for its host; 30 s
	// by default.
	PreviewWait time.Duration
	// MaintainEvery is how often a server looks what maintenance is due; 10 s by
	// default.
	MaintainEvery time.Duration
}

// Service does the steps of jobs. Its methods return after the commit; hints
// go out behind it.
type Service struct {
	Config
	polling polling
}

// New makes a Service.
func New(c Config) *Service {
	if c.PingInterval == 0 {
		c.PingInterval = 15 * time.Second
	}
	if c.OfferAgain == 0 {
		c.OfferAgain = 10 * time.Second
	}
	if c.ExpireAfter == 0 {
		c.ExpireAfter = 24 * time.Hour
	}
	if c.LostAfter == 0 {
		c.LostAfter = 15 * time.Minute
	}
	if c.SettleAfter == 0 {
		c.SettleAfter = 2 * time.Minute
	}
	if c.PreviewWait == 0 {
		c.PreviewWait = 30 * time.Second
	}
	if c.MaintainEvery <= 0 {
		c.MaintainEvery = 10 * time.Second
	}
	return &Service{Config: c}
}

// RunGroup asks for a backup of a group now.
func (s *Service) RunGroup(ctx context.Context, host models.HostID, group models.GroupID, actor models.Actor) (*models.Job, error) {
	j, err := models.RunGroup(ctx, s.DB, host, group, actor)
	if err == nil {
		failpoint.Hit(failpoint.Made)
		s.jobChanged(j)
	}
	return j, err
}

// RunOnHost asks for an init or unlock now.
func (s *Service) RunOnHost(ctx context.Context, host models.HostID, kind models.JobKind, actor models.Actor) (*models.Job, error) {
	return s.asked(models.RunOnHost(ctx, s.DB, host, kind, actor))
}

// Cancel ends a waiting job, or asks the agent to end it.
func (s *Service) Cancel(ctx context.Context, id models.JobID) (*models.Job, error) {
	j, err := models.RequestCancel(ctx, s.DB, id)
	if err == nil {
		failpoint.Hit(failpoint.Asked)
		s.jobChanged(j)
	}
	return j, err
}

// BindRepository stores a host's credentials; a linked host initialises the
// repository at once, any other with its next hello.
func (s *Service) BindRepository(ctx context.Context, host models.HostID, f models.RepositoryFields) (*models.HostRepository, error) {
	r, err := models.BindRepository(ctx, s.DB, s.Sealer, host, f)
	if err != nil {
		return nil, err
	}
	failpoint.Hit(failpoint.Bound)
	h, err := models.FindHost(ctx, s.DB, host)
	if err != nil {
		return nil, err
	}
	if h.Online(time.Now()) {
		if _, err := models.AutoInit(ctx, s.DB, host); err != nil {
			return nil, err
		}
	}
	s.HostChanged(host)
	return r, nil
}

// HostChanged hints that a host's groups, schedules or link are not what they
// were: its pages look again, and its link whether there is something to send.
func (s *Service) HostChanged(host models.HostID) {
	s.Hints.Publish(HostTopic(host), FleetTopic, DispatchTopic(host), JobsTopic)
}

func (s *Service) jobChanged(j *models.Job) {
	s.Hints.Publish(JobTopic(j.ID), JobsTopic, HostTopic(j.HostID), FleetTopic, DispatchTopic(j.HostID))
}

// JobsCancelled hints that deleting something ended these waiting jobs.
func (s *Service) JobsCancelled(ids []models.JobID) {
	for _, id := range ids {
		s.Hints.Publish(JobTopic(id))
	}
	s.Hints.Publish(JobsTopic)
}
