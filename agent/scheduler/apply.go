package scheduler

import (
	"context"
	"time"

	"github.com/robfig/cron/v3"

	"resticfleet/agent/protocol"
	"resticfleet/models/cronspec"
)

const (
	// clockCheck is how often the cron looks at the wall clock although nothing
	// is due: timers don't see a machine sleep or its clock be set.
	clockCheck = 30 * time.Second
	// clockTolerance is how far a clock may be set back without anything being
	// evaluated anew, which could fire a due time a second time.
	clockTolerance = 10 * time.Minute
)

// work applies what is pending, until nothing is.
func (s *Scheduler) work() {
	for {
		s.mu.Lock()
		set, stale := s.pending, s.stale
		s.pending, s.stale = nil, false
		if s.stopped || set == nil && !stale {
			s.working = false
			s.mu.Unlock()
			return
		}
		if set != nil && s.applied && set.Version < s.version {
			s.passOver(*set)
			set = nil
		}
		same := set != nil && s.applied && set.Version == s.version && set.Digest() == s.digest
		s.mu.Unlock()

		if set != nil && !same {
			s.set, stale = *set, true
		}
		if stale {
			s.replaceCron()
		}
		if set != nil {
			s.acknowledge()
		}
	}
}

// replaceCron stops the old cron and starts one over the current set.
func (s *Scheduler) replaceCron() {
	s.mu.Lock()
	old, location, jitter := s.cron, s.location, s.jitter
	s.mu.Unlock()
	if old != nil {
		<-old.Stop().Done()
	}

	fresh := cron.New(cron.WithLocation(time.UTC), cron.WithLogger(cron.DiscardLogger))
	entries := s.build(location, jitter)
	for _, e := range entries {
		fresh.Schedule(e, e)
	}
	fresh.Schedule(cron.Every(clockCheck), &clockWatch{scheduler: s, last: time.Now().Round(0)})

	s.mu.Lock()
	s.cron, s.entries = fresh, entries
	s.version, s.digest, s.applied = s.set.Version, s.set.Digest(), true
	s.mu.Unlock()
	fresh.Start()
}

// build makes the entries of the current set. One that goes on unchanged takes
// over how far its due times are settled.
func (s *Scheduler) build(location *time.Location, jitter time.Duration) map[string]*entry {
	now := time.Now().Round(0) // due times follow the wall clock
	entries := make(map[string]*entry, len(s.set.Schedules))
	for _, schedule := range s.set.Schedules {
		if !schedule.Enabled {
			continue
		}
		spec, err := cronspec.Parse(schedule.Cron)
		if err != nil {
			s.logger.Error("schedule can't be read: it will not run until it is corrected on the server",
				"schedule.id", schedule.ID, "cron", schedule.Cron, "err", err)
			continue
		}
		e := &entry{
			scheduler: s,
			id:        schedule.ID,
			spec:      spec,
			location:  spec.Location(location),
			jitter:    cronspec.Jitter(schedule.ID, jitter),
			settled:   now,
		}
		if before := s.entries[e.id]; before != nil && before.continuesAs(e) {
			if settled := before.settledUntil(); settled.Before(now.Add(clockTolerance)) {
				e.settled = settled
			}
		}
		entries[e.id] = e
	}
	return entries
}

// acknowledge tells the server which set runs.
func (s *Scheduler) acknowledge() {
	ctx, cancel := context.WithTimeout(context.Background(), s.sendTimeout)
	defer cancel()
	s.mu.Lock()
	sender, ack := s.sender, protocol.ScheduleAck{Version: s.version, Digest: s.digest}
	s.mu.Unlock()
	if sender == nil {
		return // the next hello says the same
	}
	if err := sender.Ack(ctx, ack); err != nil {
		s.logger.WarnContext(ctx, "schedule set is applied, telling the server failed: the next hello or heartbeat repeats it",
			"version", ack.Version, "err", err)
	}
}

// clockWatch notices a clock that was set back: what the cron waits for by the
// old clock would come much too late.
type clockWatch struct {
	scheduler *Scheduler
	last      time.Time // without monotonic reading
}

// Run is called every clockCheck, by a clock that can't be set.
func (w *clockWatch) Run() {
	s := w.scheduler
	s.mu.Lock()
	defer s.mu.Unlock()
	now := time.Now().Round(0)
	if now.Before(w.last.Add(-clockTolerance)) {
		s.logger.Warn("the clock was set back: due times are worked out anew", "from", w.last, "to", now)
		s.rebuild()
	}
	w.last = now
}
