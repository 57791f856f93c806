// Package agent is the program on every host: it keeps a link to the server,
// runs restic as the server asks, each job at most once, and tells what became
// of it until the server has written it down. It never builds commands of its
// own, and nothing that happens to it or to the link ends a running restic.
package agent

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"sync/atomic"
	"time"

	"github.com/google/uuid"

	"resticfleet/agent/protocol"
	"resticfleet/agent/scheduler"
	"resticfleet/agent/transport"
)

// Dial opens a link to the server.
type Dial func(ctx context.Context, c transport.Config) (transport.Link, error)

// Options says how an enrolled agent runs. StateDir is needed; everything else
// has a default.
type Options struct {
	StateDir string
	Version  string
	// Timezone is an IANA name; what the machine says if empty.
	Timezone string
	// BootID tells this start of the machine from any other; what the machine
	// says if empty.
	BootID string
	Logger *slog.Logger
	// Runner holds the runner's settings. StateDir, Key, Logger and Changed
	// are filled in.
	Runner RunnerConfig
	// Link is one of the Link constants; LinkAuto if empty.
	Link string
	// DialWebSocket and DialPolling are the transport's if nil.
	DialWebSocket, DialPolling Dial

	Backoff      transport.Backoff // between attempts to link
	WelcomeAfter time.Duration     // the longest wait for the answer to hello; 15 s
	LivedAfter   time.Duration     // a link that stood so long resets the back-off; 30 s
	PingInterval time.Duration     // until the welcome names one; 15 s
	// GoneEvery is how often a server is asked that has deleted this host; 1 h.
	GoneEvery time.Duration
	// WatchEvery is how often a waiting agent looks for a new enrolment; 2 s.
	WatchEvery time.Duration

	// While auto polls, a WebSocket is tried after ProbeAfter, then at growing
	// intervals up to ProbeAtMost; it must stay open for ProbeStays before it
	// counts. 30 s, 50 s (so that an agent is back within a minute) and 1 s.
	ProbeAfter, ProbeAtMost, ProbeStays time.Duration

	ResendAfter time.Duration // an unacknowledged message goes again; 20 s
}

func (o Options) withDefaults() Options {
	def := func(d *time.Duration, v time.Duration) {
		if *d <= 0 {
			*d = v
		}
	}
	def(&o.WelcomeAfter, 15*time.Second)
	def(&o.LivedAfter, 30*time.Second)
	def(&o.PingInterval, 15*time.Second)
	def(&o.GoneEvery, time.Hour)
	def(&o.WatchEvery, 2*time.Second)
	def(&o.ProbeAfter, 30*time.Second)
	def(&o.ProbeAtMost, 50*time.Second)
	def(&o.ProbeStays, time.Second)
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.Link == "" {
		o.Link = LinkAuto
	}
	if o.DialWebSocket == nil {
		o.DialWebSocket = transport.DialWebSocket
	}
	if o.DialPolling == nil {
		o.DialPolling = transport.DialPolling
	}
	if o.Version == "" {
		o.Version = "dev"
	}
	if o.BootID == "" {
		o.BootID = bootID()
	}
	return o
}

// Agent is the program on a host: it keeps a link to the server, runs what the
// server tells it to and says what became of it.
type Agent struct {
	opts Options
	log  *slog.Logger
	zone string
	// instance tells this process from any other that says it is this host.
	instance string

	runner    *Runner
	scheduler *scheduler.Scheduler
	outbox    *outbox
	way       way
	enrolled  fs.FileInfo // the configuration file as last read

	ignored atomic.Int64 // messages of unknown types or that can't be read
}

// New checks what can be checked without touching the state directory's lock.
func New(o Options) (*Agent, error) {
	o = o.withDefaults()
	if o.StateDir == "" {
		return nil, errors.New("the state directory is missing: name it with --state-dir")
	}
	switch o.Link {
	case LinkAuto, LinkWebSocket, LinkPolling:
	default:
		return nil, fmt.Errorf("%q is no way to link: it is auto, websocket or polling", o.Link)
	}
	dir, err := filepath.Abs(o.StateDir)
	if err != nil {
		return nil, err
	}
	o.StateDir = dir
	zone, err := ZoneName(o.Timezone)
	if err != nil {
		return nil, err
	}
	return &Agent{opts: o, log: o.Logger, zone: zone, instance: uuid.NewString()}, nil
}

// Run works until ctx ends, and then returns nil: restic goes on, the next Run
// takes its jobs up again. An error is one that no repetition would mend: not
// enrolled, or another agent on the same state directory.
func (a *Agent) Run(ctx context.Context) error {
	if _, err := a.loadConfig(); err != nil {
		return err
	}
	if err := privateDir(a.opts.StateDir); err != nil {
		return err
	}
	a.outbox = newOutbox(a.log, outboxLimits{resendAfter: a.opts.ResendAfter})
	cfg := a.opts.Runner
	cfg.StateDir, cfg.Logger, cfg.Key = a.opts.StateDir, a.log, a.key
	cfg.Changed = func(string) { a.outbox.wake() }
	runner, err := NewRunner(cfg)
	if err != nil {
		return err
	}
	defer runner.Stop()
	a.runner, a.outbox.runner = runner, runner
	if err := runner.Resume(); err != nil {
		return err
	}
	a.scheduler = scheduler.New(scheduler.Config{Location: location(a.zone), Logger: a.log})
	defer a.scheduler.Stop()

	if a.zone == "" {
		a.log.WarnContext(ctx, "the machine can't name its time zone, schedules follow UTC: name it with --timezone")
	}
	a.log.InfoContext(ctx, "the agent runs", "version", a.opts.Version, "restic", a.resticVersion(ctx), "timezone", a.zone)
	a.keepLinked(ctx)
	a.log.InfoContext(context.WithoutCancel(ctx), "the agent stops; a running restic goes on", "jobs", len(runner.Pending()))
	return nil
}

// keepLinked opens one link after the other until ctx ends.
func (a *Agent) keepLinked(ctx context.Context) {
	backoff := a.opts.Backoff
	for {
		lived, err := a.linked(ctx)
		if ctx.Err() != nil {
			return
		}
		if lived {
			backoff.Reset()
		}
		wait := backoff.Next()
		log := a.log.WarnContext
		var refused *transport.RefusedError
		if errors.As(err, &refused) {
			log = a.log.ErrorContext
			switch refused.Status {
			case http.StatusGone:
				if refused.Foreign {
					break
				}
				wait += a.opts.GoneEvery
			case http.StatusTooManyRequests, http.StatusServiceUnavailable:
				wait += min(refused.RetryAfter, a.opts.GoneEvery)
			}
		}
		log(ctx, "no link to the server", "err", err, "next_try_in", wait.Round(time.Millisecond))
		if !a.rest(ctx, wait) {
			return
		}
	}
}

// rest waits, but not beyond a new enrolment; false when ctx ends.
func (a *Agent) rest(ctx context.Context, wait time.Duration) bool {
	over := time.NewTimer(wait)
	defer over.Stop()
	look := time.NewTicker(a.opts.WatchEvery)
	defer look.Stop()
	for {
		select {
		case <-ctx.Done():
			return false
		case <-over.C:
			return true
		case <-look.C:
			now, err := os.Stat(configPath(a.opts.StateDir))
			if err == nil && (!os.SameFile(now, a.enrolled) || !now.ModTime().Equal(a.enrolled.ModTime())) {
				a.log.InfoContext(ctx, "the host was enrolled anew")
				return true
			}
		}
	}
}

// loadConfig reads the enrolment there is now: one made while the agent runs
// counts from the next link on.
func (a *Agent) loadConfig() (Config, error) {
	info, err := os.Stat(configPath(a.opts.StateDir))
	if err == nil {
		a.enrolled = info
	}
	return LoadConfig(a.opts.StateDir)
}

func (a *Agent) key() ([]byte, error) {
	c, err := LoadConfig(a.opts.StateDir)
	return c.PrivateKey, err
}

// resticVersion is restic's version, or empty where there is no usable one:
// then jobs fail and say why, and the host shows it before that.
func (a *Agent) resticVersion(ctx context.Context) string {
	version, err := a.runner.ResticVersion(ctx)
	if err != nil && ctx.Err() == nil {
		a.log.WarnContext(ctx, "there is no usable restic: install 0.17 or newer, or name it with --restic", "err", err)
	}
	return version
}

// hello says who this agent is and what it knows, and why it polls where it
// would rather not.
func (a *Agent) hello(ctx context.Context, reason string) protocol.Hello {
	version, digest := a.scheduler.Applied()
	return protocol.Hello{
		Protocol: protocol.Version, JournalID: a.runner.JournalID(), Instance: a.instance, BootID: a.opts.BootID,
		AgentVersion: a.opts.Version, ResticVersion: a.resticVersion(ctx),
		OS: runtime.GOOS, Arch: runtime.GOARCH, Timezone: a.zone,
		AppliedScheduleVersion: version, ScheduleDigest: digest,
		Jobs: a.runner.Hello(), SentAt: time.Now().UTC(), LinkReason: reason,
	}
}
