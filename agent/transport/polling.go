package transport

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"sync"
	"time"

	"resticfleet/agent/protocol"
)

const (
	// maxFailures in a row, of the polls or of the messages, end the link.
	maxFailures = 5
	maxPause    = 5 * time.Second
)

// polling is a Link over plain requests: one goroutine posts what is sent, one
// asks for what the server has to say, and one calls for a new hello.
type polling struct {
	config             Config
	client             *http.Client
	messages, commands *url.URL

	ctx  context.Context // the link's life; its cause is why it ended
	stop context.CancelCauseFunc
	wg   sync.WaitGroup
	in   chan incoming

	mu      sync.Mutex
	moved   chan struct{} // closed and replaced at every change of the state below
	queue   []*post
	queued  int // bytes
	later   []*post
	proven  bool   // some request was answered
	session string // empty until a welcome, and while a hello is under way
	epoch   int    // counts hellos
	drop    context.CancelFunc
	greeted time.Time
	base    time.Duration // what a poll would best last
	grace   time.Duration // what a poll may take beyond its wait
	upward  time.Duration // what a batch may take
	boots   known
	newBoot bool
	heard   map[string]time.Time // when messages came down, by id, since the hello
}

// DialPolling makes the polling link. Nothing is asked before the first
// message, which is hello; its errors show there.
func DialPolling(_ context.Context, c Config) (Link, error) {
	c = c.withDefaults()
	client, err := c.newClient()
	if err != nil {
		return nil, err
	}
	l := &polling{
		config: c, client: client, in: make(chan incoming, 8), moved: make(chan struct{}), heard: map[string]time.Time{},
		base: c.PollWait, grace: c.HandshakeTimeout / 2, upward: c.WriteTimeout,
	}
	if l.messages, err = c.endpoint("messages"); err != nil {
		return nil, err
	}
	if l.commands, err = c.endpoint("commands"); err != nil {
		return nil, err
	}
	l.ctx, l.stop = context.WithCancelCause(context.Background())
	l.wg.Go(l.write)
	l.wg.Go(l.poll)
	l.wg.Go(l.renew)
	return l, nil
}

// change alters the state and wakes whoever waits for it.
func (l *polling) change(f func()) {
	l.mu.Lock()
	defer l.mu.Unlock()
	f()
	close(l.moved)
	l.moved = make(chan struct{})
}

// until waits for a state, looked at under the lock. A look that is false may
// give a time at which to look again. The error is ctx's or the link's.
func (l *polling) until(ctx context.Context, look func() (ok bool, again time.Duration)) error {
	for {
		l.mu.Lock()
		ok, again := look()
		moved := l.moved
		l.mu.Unlock()
		if ok {
			return nil
		}
		var timer *time.Timer
		var over <-chan time.Time
		if again > 0 {
			timer = time.NewTimer(again)
			over = timer.C
		}
		select {
		case <-moved:
		case <-over:
		case <-ctx.Done():
		case <-l.ctx.Done():
		}
		if timer != nil {
			timer.Stop()
		}
		if l.ctx.Err() != nil {
			return context.Cause(l.ctx)
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
	}
}

// Send puts the message into the line of what leaves next, and waits only
// while that is long.
func (l *polling) Send(ctx context.Context, e protocol.Envelope) error {
	frame, err := json.Marshal(e)
	if err != nil {
		return fmt.Errorf("message %s: %w", e.Type, err)
	}
	if len(frame) > protocol.MaxFrame-len(openBatch)-len(closeBatch) {
		return ErrTooLarge
	}
	if l.ctx.Err() != nil {
		return context.Cause(l.ctx)
	}
	p := &post{id: e.ID, hello: e.Type == protocol.TypeHello, frame: frame}
	// A hello doesn't wait: who says it again is who takes what comes down.
	err = l.until(ctx, func() (bool, time.Duration) { return l.queued < maxQueued || p.hello, 0 })
	if err != nil {
		return err
	}
	l.change(func() {
		// Said again meanwhile: once is enough.
		same := func(q *post) bool { return q.id == p.id }
		l.later = slices.DeleteFunc(l.later, same)
		if i := slices.IndexFunc(l.queue, same); i >= 0 {
			l.queued += len(frame) - len(l.queue[i].frame)
			l.queue[i] = p
			return
		}
		l.queue = append(l.queue, p)
		l.queued += len(frame)
	})
	return nil
}

// Receive gives the next message. ErrHelloAgain asks for a new hello.
func (l *polling) Receive(ctx context.Context) (protocol.Envelope, error) {
	select { // what came before the end is still heard
	case m := <-l.in:
		return m.envelope, m.err
	default:
	}
	select {
	case m := <-l.in:
		return m.envelope, m.err
	case <-ctx.Done():
		return protocol.Envelope{}, ctx.Err()
	case <-l.ctx.Done():
	}
	select {
	case m := <-l.in:
		return m.envelope, m.err
	default:
		return protocol.Envelope{}, context.Cause(l.ctx)
	}
}

// Welcomed takes how long a poll should last, and how soon a dead line must be
// noticed.
func (l *polling) Welcomed(w protocol.Welcome) {
	ping := min(time.Duration(w.PingIntervalMS)*time.Millisecond, maxPingInterval)
	base := min(time.Duration(w.PollIntervalMS)*time.Millisecond, maxPingInterval)
	if base <= 0 {
		base = min(l.config.PollWait, 2*ping)
	}
	l.change(func() {
		if base > 0 {
			l.base = base
		}
		if ping > 0 {
			l.grace = min(l.config.HandshakeTimeout/2, max(ping/2, 500*time.Millisecond))
			l.upward = min(l.config.WriteTimeout, max(ping*5/2, 2*time.Second))
		}
	})
}

// Close ends the link. What still stands in line is told again over the next.
func (l *polling) Close() {
	l.stop(ErrClosed)
	l.wg.Wait()
	l.client.CloseIdleConnections()
}

// hand gives a message to Receive; false when the link has ended.
func (l *polling) hand(m incoming) bool {
	select {
	case l.in <- m:
		return true
	case <-l.ctx.Done():
		return false
	}
}

// deliver hands messages on, and counts those that didn't come before. What
// came a moment ago is left out: it crossed with our answer to it.
func (l *polling) deliver(messages []json.RawMessage) (news int, ok bool) {
	for _, frame := range messages {
		e, err := protocol.Open(frame)
		m := incoming{envelope: e}
		if err != nil {
			m = incoming{err: &MalformedError{err}}
		}
		fresh, due := l.hears(e.ID)
		if fresh && err == nil {
			news++
		}
		if due && !l.hand(m) {
			return news, false
		}
	}
	return news, true
}

const maxHeard = 1000

// hears notes a message by its id: whether it is new, and whether it is due to
// be handed on.
func (l *polling) hears(id string) (fresh, due bool) {
	if id == "" {
		return false, true
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	at, known := l.heard[id]
	if known && time.Since(at) < 2*l.config.RetryPause {
		return false, false
	}
	if len(l.heard) >= maxHeard {
		clear(l.heard)
	}
	l.heard[id] = time.Now()
	return !known, true
}

// answeredBy notes which process answered. A new one knows nothing of this
// link; behind one address there may be many, so each counts once.
func (l *polling) answeredBy(boot string) {
	l.config.Lessons.answeredBy(boot)
	l.change(func() {
		l.proven = true
		if fresh, first := l.boots.add(boot); fresh && !first {
			l.newBoot = true
		}
	})
}

// renew calls for a new hello when the server's process is another, or the
// last one is old.
func (l *polling) renew() {
	for {
		epoch := 0 // of the hello that is to be followed by another
		err := l.until(l.ctx, func() (bool, time.Duration) {
			if epoch = l.epoch; l.session == "" {
				return false, 0
			}
			left := time.Until(l.greeted.Add(l.config.HelloEvery))
			return l.newBoot || left <= 0, left
		})
		if err != nil || !l.hand(incoming{err: ErrHelloAgain}) {
			return
		}
		if l.until(l.ctx, func() (bool, time.Duration) { return l.epoch > epoch && l.session != "", 0 }) != nil {
			return
		}
	}
}

// pause rests for a duration; false when the link has ended.
func (l *polling) pause(d time.Duration) bool {
	over := time.NewTimer(d)
	defer over.Stop()
	select {
	case <-over.C:
		return true
	case <-l.ctx.Done():
		return false
	}
}

// failed counts a request that failed and rests before the next; false when
// that was one too many. A link that never worked has no second try: whoever
// dials decides.
func (l *polling) failed(err error, inARow int) bool {
	var line *lineError
	l.mu.Lock()
	proven := l.proven
	l.mu.Unlock()
	if !errors.As(err, &line) || !proven || inARow >= maxFailures {
		if errors.As(err, &line) {
			err = fmt.Errorf("%w: %w", ErrBroken, line.err)
		}
		l.stop(err)
		return false
	}
	return l.pause(growing(l.config.RetryPause, inARow))
}

// growing doubles a pause with each time in a row, the first being 1.
func growing(base time.Duration, inARow int) time.Duration {
	return min(base<<min(max(inARow-1, 0), 16), maxPause)
}

// write posts one batch after the other: whatever has come together while the
// one before was under way.
func (l *polling) write() {
	failures := 0
	var batch []*post
	for {
		if batch == nil {
			if l.until(l.ctx, func() (bool, time.Duration) { return l.take(&batch) }) != nil {
				return
			}
			l.change(func() {}) // there is room again
		}
		to, body, timeout := l.prepare(batch)
		hello, began := batch[0].hello, time.Now()
		a, err := l.exchange(l.ctx, http.MethodPost, to, body, timeout, 0)
		if l.ctx.Err() != nil {
			return
		}
		if err == nil && a == nil {
			err = &lineError{errors.New("the answer to messages is empty: something between changes it"), true, false}
		}
		session := ""
		if err == nil && hello {
			session, err = l.welcome(a)
		}
		if err != nil {
			failures++
			if !l.failed(err, failures) {
				return
			}
			continue
		}
		failures = 0
		l.settle(batch, a)
		batch = nil
		if !hello && len(a.Acknowledged)+len(a.Rejected) > 0 {
			ack := protocol.Seal("", protocol.TypeAck, protocol.Ack{Acknowledged: a.Acknowledged, Rejected: a.Rejected})
			if !l.hand(incoming{envelope: ack}) {
				return
			}
		}
		if _, ok := l.deliver(a.Messages); !ok {
			return
		}
		if hello {
			// Only now: what a poll brings must not come before the welcome.
			l.change(func() { l.session, l.greeted, l.newBoot = session, began, false })
		}
	}
}

// welcome gives the session that the answer to hello names.
func (l *polling) welcome(a *answer) (session string, err error) {
	for _, frame := range a.Messages {
		e, err := protocol.Open(frame)
		if err != nil || e.Type != protocol.TypeWelcome {
			continue
		}
		w, err := protocol.Decode[protocol.Welcome](e)
		if err != nil {
			return "", err
		}
		if w.Session == "" {
			return "", errors.New("the server's welcome names no session")
		}
		l.Welcomed(w) // the first poll goes by it
		return w.Session, nil
	}
	if len(a.Rejected) > 0 {
		return "", fmt.Errorf("the server refused hello: %s", oneLine(a.Rejected[0].Reason))
	}
	return "", &lineError{errors.New("the server took hello and sent no welcome"), true, false}
}
