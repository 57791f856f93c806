package scheduler

import (
	"context"
	"sync"
	"time"

	"resticfleet/agent/protocol"
	"resticfleet/models/cronspec"
)

// entry is one enabled schedule: what robfig/cron asks for the next time, and
// what it runs then. It keeps its own account of which due times are settled,
// because the cron knows neither nominal times nor the cron before it.
type entry struct {
	scheduler *Scheduler
	id        string
	spec      cronspec.Spec
	location  *time.Location // the one that counts: the expression's or the host's
	jitter    time.Duration

	mu      sync.Mutex
	settled time.Time // due times up to here are fired, dropped or not owed
	started bool      // Next was asked once
}

// continuesAs reports whether next is the same schedule as far as its due
// times go.
func (e *entry) continuesAs(next *entry) bool {
	return e.spec.String() == next.spec.String() && e.location.String() == next.location.String()
}

func (e *entry) settledUntil() time.Time {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.settled
}

// Next implements cron.Schedule. The first answer may lie in the past: then
// the cron runs the entry at once, and what came due while no cron ran is not
// lost. Later it is asked beside a Run that settles all up to now.
func (e *entry) Next(now time.Time) time.Time {
	e.mu.Lock()
	defer e.mu.Unlock()
	from := now.Add(-e.jitter)
	if !e.started {
		e.started, from = true, e.settled
	}
	due := e.spec.Next(from, e.location)
	if due.IsZero() {
		return due
	}
	return due.Add(e.jitter)
}

// Run implements cron.Job: it fires the newest due time that isn't settled,
// and settles those before it with it.
func (e *entry) Run() {
	e.mu.Lock()
	due, ok := e.spec.Latest(e.settled, time.Now().Add(-e.jitter), e.location)
	if ok {
		e.settled = due
	}
	e.mu.Unlock()
	if ok {
		e.scheduler.fire(e.id, due.UTC())
	}
}

// fire tells the server, by the link of this moment and within the deadline.
func (s *Scheduler) fire(id string, due time.Time) {
	ctx, cancel := context.WithTimeout(context.Background(), s.sendTimeout)
	defer cancel()
	s.mu.Lock()
	sender := s.sender
	s.mu.Unlock()
	if sender == nil {
		s.logger.WarnContext(ctx, "schedule is due and there is no link: dropped", "schedule.id", id, "scheduled_at", due)
		return
	}
	if err := sender.Fire(ctx, protocol.Fire{ScheduleID: id, ScheduledAt: due}); err != nil {
		s.logger.WarnContext(ctx, "schedule is due and telling the server failed: dropped", "schedule.id", id, "scheduled_at", due, "err", err)
	}
}
