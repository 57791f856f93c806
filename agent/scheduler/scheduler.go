// Package scheduler is the agent's clock: robfig/cron over the host's current
// schedule set. It says when a schedule is due and nothing else; the server
// turns that into jobs.
package scheduler

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"github.com/robfig/cron/v3"

	"resticfleet/agent/protocol"
)

// Sender is the live link. Both methods return when the message is handed
// over or ctx ends, whichever is first: the scheduler waits for them.
type Sender interface {
	Fire(ctx context.Context, fire protocol.Fire) error
	Ack(ctx context.Context, ack protocol.ScheduleAck) error
}

// DefaultSendTimeout is the deadline of one fire or acknowledgement, and so
// the longest that a dead link can hold up a new set.
const DefaultSendTimeout = 10 * time.Second

// Config holds the scheduler's settings. Every field may be left zero.
type Config struct {
	// Location is the host's zone, for expressions that name none; UTC if nil.
	Location *time.Location
	// Jitter is the window over which a fleet's ticks are spread; none if zero.
	Jitter time.Duration
	// SendTimeout is DefaultSendTimeout if zero.
	SendTimeout time.Duration
	// Logger gets what no one else hears of: dropped ticks, skipped entries.
	Logger *slog.Logger
}

// Scheduler runs the newest schedule set it was given. Its methods may be
// called from any goroutine.
type Scheduler struct {
	logger      *slog.Logger
	sendTimeout time.Duration

	mu       sync.Mutex
	sender   Sender
	location *time.Location
	jitter   time.Duration
	pending  *protocol.ScheduleSet // the newest set not yet taken up
	stale    bool                  // location, jitter or clock moved since the cron was built
	working  bool                  // a worker runs or is about to
	stopped  bool
	version  int64
	digest   string
	applied  bool // a set was applied: version and digest mean something

	workers sync.WaitGroup

	// The rest belongs to the worker, of which there is one at a time, and to
	// Stop after the last.
	set     protocol.ScheduleSet
	cron    *cron.Cron
	entries map[string]*entry // by schedule id
}

// New returns a scheduler without a set and without a link. It holds no
// goroutine before the first Apply.
func New(cfg Config) *Scheduler {
	s := &Scheduler{
		logger:      cfg.Logger,
		sendTimeout: cfg.SendTimeout,
		location:    cfg.Location,
		jitter:      cfg.Jitter,
	}
	if s.logger == nil {
		s.logger = slog.New(slog.DiscardHandler)
	}
	if s.sendTimeout <= 0 {
		s.sendTimeout = DefaultSendTimeout
	}
	if s.location == nil {
		s.location = time.UTC
	}
	return s
}

// Apply makes the set the current one and returns at once, so that a read loop
// may call it; the set must not be changed afterwards. Sets are applied one at
// a time, whole: the old cron is stopped, its sends in flight are waited for
// (at most the send timeout), the new one started, and then the set is
// acknowledged over the link there is. A set that is overtaken while it waits,
// or older than the applied one, is passed over without acknowledgement. The
// set that already runs is only acknowledged again.
//
// Due times that fall between the old cron and the new are kept for schedules
// that are the same in both. A schedule that is new, changed or enabled again
// owes nothing from before.
func (s *Scheduler) Apply(set protocol.ScheduleSet) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.pending != nil && set.Version < s.pending.Version {
		s.passOver(set)
		return
	}
	s.pending = &set
	s.wake()
}

// SetSender takes the link of a new session; nil when it ends. Without one a
// tick is logged and dropped: the server's sweep finds what is missing.
func (s *Scheduler) SetSender(sender Sender) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.sender = sender
}

// SetLocation changes the host's zone. Schedules that follow it owe nothing
// from before the change. A nil loc is UTC.
func (s *Scheduler) SetLocation(loc *time.Location) {
	if loc == nil {
		loc = time.UTC
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if loc.String() != s.location.String() {
		s.location = loc
		s.rebuild()
	}
}

// SetJitter changes the window of the jitter, as welcome tells it.
func (s *Scheduler) SetJitter(window time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if window != s.jitter {
		s.jitter = window
		s.rebuild()
	}
}

// Applied returns the version and digest of the set that the cron runs, for
// hello and heartbeat: 0 and "" before the first.
func (s *Scheduler) Applied() (version int64, digest string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.version, s.digest
}

// Stop ends the ticks and blocks until every send in flight has ended. It is
// idempotent and safe before the first Apply; later sets are ignored.
func (s *Scheduler) Stop() {
	s.mu.Lock()
	s.stopped = true
	s.mu.Unlock()
	s.workers.Wait()

	// Two calls of Stop may meet here.
	s.mu.Lock()
	running := s.cron
	s.mu.Unlock()
	if running != nil {
		<-running.Stop().Done()
	}
}

// rebuild and wake are called with mu held.
func (s *Scheduler) rebuild() {
	if s.applied || s.working {
		s.stale = true
		s.wake()
	}
}

func (s *Scheduler) wake() {
	if s.working || s.stopped {
		return
	}
	s.working = true
	s.workers.Go(s.work)
}

func (s *Scheduler) passOver(set protocol.ScheduleSet) {
	s.logger.Info("schedule set is older than the current one: ignored", "version", set.Version)
}
