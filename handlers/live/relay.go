package live

import (
	"context"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"resticfleet/jobs"
)

const (
	// channel is what all servers of one database listen to.
	channel = "resticfleet"
	// gather is how long hints wait for company before they are sent as one
	// NOTIFY: inside the writing transactions they would cost far more.
	gather = 10 * time.Millisecond
	// maxPayload is below NOTIFY's limit of 8000 bytes.
	maxPayload = 7000
	// reconnect is how long a lost connection is left alone.
	reconnect = 500 * time.Millisecond
	// slowLook is how often everybody looks while nothing can be heard.
	slowLook = time.Second
	// stillThere bounds how long a dead connection looks alive.
	stillThere = 10 * time.Second
)

// Relay carries hints between the servers of one database, by NOTIFY after the
// commit. Losing them costs latency, never truth: a slow look stands behind
// every hint.
type Relay struct {
	hub *Hub
	url string
	log *slog.Logger
	// self marks our own hints, which the hub has delivered already.
	self string

	listening atomic.Bool
	wake      chan struct{}
	mu        sync.Mutex
	pending   map[jobs.Topic]struct{}
}

// NewRelay joins hub to the hubs of all servers on the database; call Run.
func NewRelay(hub *Hub, databaseURL string, log *slog.Logger) *Relay {
	r := &Relay{hub: hub, url: databaseURL, log: log, self: uuid.NewString(), wake: make(chan struct{}, 1), pending: map[jobs.Topic]struct{}{}}
	hub.relay = r.forward
	return r
}

// Listening reports whether hints of other servers arrive just now.
func (r *Relay) Listening() bool { return r.listening.Load() }

func (r *Relay) forward(topics []jobs.Topic) {
	r.mu.Lock()
	for _, t := range topics {
		r.pending[t] = struct{}{}
	}
	r.mu.Unlock()
	select {
	case r.wake <- struct{}{}:
	default:
	}
}

// Run relays until ctx ends; both connections come back by themselves.
func (r *Relay) Run(ctx context.Context) {
	var wg sync.WaitGroup
	wg.Go(func() { r.again(ctx, "listening to other servers", r.listen) })
	wg.Go(func() { r.again(ctx, "telling other servers", r.tell) })
	wg.Go(func() { r.lookMeanwhile(ctx) })
	wg.Wait()
}

// lookMeanwhile makes everybody look now and then while other servers can't be
// heard.
func (r *Relay) lookMeanwhile(ctx context.Context) {
	tick := time.NewTicker(slowLook)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			if !r.Listening() {
				r.hub.wakeAll()
			}
		}
	}
}

// again runs f over a connection, and over a new one when that is lost.
func (r *Relay) again(ctx context.Context, what string, f func(context.Context, *pgx.Conn) error) {
	for ctx.Err() == nil {
		conn, err := pgx.Connect(ctx, r.url)
		if err == nil {
			err = f(ctx, conn)
			closing, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
			_ = conn.Close(closing)
			cancel()
		}
		if ctx.Err() == nil {
			r.log.WarnContext(ctx, what+" was interrupted; the slow look carries on", "err", err)
		}
		select {
		case <-ctx.Done():
		case <-time.After(reconnect):
		}
	}
}

func (r *Relay) listen(ctx context.Context, conn *pgx.Conn) error {
	if _, err := conn.Exec(ctx, "listen "+channel); err != nil {
		return err
	}
	r.listening.Store(true)
	defer r.listening.Store(false)
	// What was said while nobody listened is unknown: everybody looks.
	r.hub.wakeAll()
	for {
		waiting, cancel := context.WithTimeout(ctx, stillThere)
		n, err := conn.WaitForNotification(waiting)
		quiet := waiting.Err() != nil && ctx.Err() == nil
		cancel()
		switch {
		case err == nil:
			r.hear(n.Payload)
		case !quiet:
			return err
		case conn.IsClosed():
			return err
		default:
			if err := conn.Ping(ctx); err != nil {
				return err
			}
		}
	}
}

func (r *Relay) hear(payload string) {
	from, rest, _ := strings.Cut(payload, " ")
	if from == r.self {
		return
	}
	var topics []jobs.Topic
	for t := range strings.FieldsSeq(rest) {
		topics = append(topics, jobs.Topic(t))
	}
	r.hub.deliver(topics)
}

func (r *Relay) tell(ctx context.Context, conn *pgx.Conn) error {
	// A hint needn't outlive a crash: nobody's commit waits for its flush.
	if _, err := conn.Exec(ctx, "set synchronous_commit = off"); err != nil {
		return err
	}
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-r.wake:
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(gather):
		}
		for _, payload := range r.take() {
			if _, err := conn.Exec(ctx, "select pg_notify($1, $2)", channel, payload); err != nil {
				return err
			}
		}
	}
}

// take empties what is pending into as few payloads as fit.
func (r *Relay) take() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	var out []string
	var b strings.Builder
	for t := range r.pending {
		if b.Len() > maxPayload {
			out = append(out, b.String())
			b.Reset()
		}
		if b.Len() == 0 {
			b.WriteString(r.self)
		}
		b.WriteString(" " + string(t))
	}
	if b.Len() > 0 {
		out = append(out, b.String())
	}
	clear(r.pending)
	return out
}
