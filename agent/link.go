package agent

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"resticfleet/agent/protocol"
	"resticfleet/agent/transport"
)

// How to reach the server.
const (
	LinkAuto      = "auto" // WebSocket where it works, else polling
	LinkWebSocket = protocol.LinkWebSocket
	LinkPolling   = protocol.LinkPolling
)

// maxYoung is how many sockets in a row may die young before polling is the
// better link.
const maxYoung = 3

// maxReason bounds what is told of why an agent polls.
const maxReason = 300

// way is what an agent remembers of its links from one to the next. It belongs
// to the goroutine that keeps the agent linked.
type way struct {
	lessons transport.Lessons
	young   int           // sockets in a row that died young
	death   string        // of the last
	probe   time.Duration // until the next; 0: the first
}

// ended notes how a WebSocket fared.
func (w *way) ended(age, livedAfter time.Duration, err error) {
	switch {
	case age >= livedAfter:
		w.young, w.probe = 0, 0
	case errors.Is(err, transport.ErrBroken), errors.Is(err, errUnwelcome):
		w.young++
		w.death = fmt.Sprintf("WebSockets die young: %d in a row, the last after %s (%v)", w.young, age.Round(time.Second), err)
	}
}

// session is a link whose hello was answered.
type session struct {
	link    transport.Link
	kind    string // protocol.LinkWebSocket or protocol.LinkPolling
	reason  string // why it polls where a WebSocket is preferred
	cfg     Config
	hello   protocol.Hello
	welcome protocol.Welcome
	beats   atomic.Int64 // the time between heartbeats, as the newest welcome has it
}

// open links to the server as the options and the last links suggest.
func (a *Agent) open(ctx context.Context) (*session, error) {
	switch a.opts.Link {
	case LinkWebSocket, LinkPolling:
		return a.connect(ctx, a.opts.Link, "")
	}
	if a.way.young >= maxYoung {
		s, err := a.connect(ctx, LinkPolling, a.way.death)
		if err == nil || !transport.FallsBack(err) {
			return s, err
		}
	}
	began := time.Now()
	s, err := a.connect(ctx, LinkWebSocket, "")
	switch {
	case err == nil || ctx.Err() != nil || errors.Is(err, errSaid):
		return s, err
	case errors.Is(err, errUnwelcome):
		a.way.ended(time.Since(began), a.opts.LivedAfter, err)
		if a.way.young >= maxYoung {
			return a.fall(ctx, a.way.death, err)
		}
		return nil, err
	case transport.FallsBack(err):
		return a.fall(ctx, "no WebSocket: "+err.Error(), err)
	}
	a.way.young = 0 // the server itself is away or refuses: no fault of the sockets
	return nil, err
}

// fall polls because there is no WebSocket. Its error tells of both.
func (a *Agent) fall(ctx context.Context, reason string, because error) (*session, error) {
	s, err := a.connect(ctx, LinkPolling, reason)
	if err != nil {
		return nil, fmt.Errorf("%w; polling was tried because there is no WebSocket: %w", err, because)
	}
	return s, nil
}

var (
	// errUnwelcome is a WebSocket that opened and ended before the welcome.
	errUnwelcome = errors.New("the link ended before the welcome")
	// errSilent is one on which nothing was said: what swallows it may let
	// requests through.
	errSilent = errors.New("the server did not answer hello in time")
	// errSaid is the server's own word, which would be the same by any link.
	errSaid = errors.New("the server refused")
)

// connect opens a link with the enrolment of this moment and says hello.
func (a *Agent) connect(ctx context.Context, kind, reason string) (*session, error) {
	s, err := a.dial(ctx, kind)
	if err != nil {
		return nil, err
	}
	if len(reason) > maxReason {
		reason = strings.ToValidUTF8(reason[:maxReason], "") + "…"
	}
	s.reason = reason
	if err := a.greet(ctx, s); err != nil {
		s.link.Close()
		if kind == LinkWebSocket && !errors.Is(err, errSilent) && !errors.Is(err, errSaid) {
			err = fmt.Errorf("%w: %w", errUnwelcome, err)
		}
		return nil, err
	}
	return s, nil
}

func (a *Agent) dial(ctx context.Context, kind string) (*session, error) {
	c, err := a.loadConfig()
	if err != nil {
		return nil, err
	}
	dial := a.opts.DialWebSocket
	if kind == LinkPolling {
		dial = a.opts.DialPolling
	}
	link, err := dial(ctx, transport.Config{
		Server: c.Server, Token: string(c.AgentToken), CAFile: c.CAFile,
		UserAgent: userAgent(a.opts.Version), PingInterval: a.opts.PingInterval, Lessons: &a.way.lessons,
	})
	if err != nil {
		return nil, err
	}
	return &session{link: link, kind: kind, cfg: c}, nil
}

// search looks for a WebSocket while the agent polls.
type search struct {
	agent *Agent
	won   func() // called once, with a session to be had from finish

	stop context.CancelFunc
	done chan struct{}
	wait time.Duration // before the next attempt; whoever calls finish may read it then

	mu       sync.Mutex
	greeting bool // hello is under way: the server may already have turned to it
	over     bool
	found    *session
	said     bool // some hello was said
}

// search starts looking.
func (a *Agent) search(ctx context.Context, won func()) *search {
	l := &search{agent: a, won: won, done: make(chan struct{}), wait: a.way.probe}
	ctx, l.stop = context.WithCancel(ctx)
	go l.run(ctx)
	return l
}

func (l *search) run(ctx context.Context) {
	defer close(l.done)
	for {
		o := l.agent.opts
		if l.wait <= 0 {
			l.wait = o.ProbeAfter
		}
		timer := time.NewTimer(jittered(l.wait))
		select {
		case <-ctx.Done():
			timer.Stop()
			return
		case <-timer.C:
		}
		l.wait = min(l.wait*5/4, o.ProbeAtMost)
		s, err := l.attempt(ctx)
		if err != nil {
			if ctx.Err() == nil {
				l.agent.log.DebugContext(ctx, "no WebSocket yet", "err", err)
			}
			continue
		}
		l.mu.Lock()
		l.found = s
		l.mu.Unlock()
		l.won()
		return
	}
}

// attempt opens a socket beside the link there is. The server hears of it only
// once it has stayed open: a hello ends the other link.
func (l *search) attempt(ctx context.Context) (*session, error) {
	s, err := l.agent.dial(ctx, LinkWebSocket)
	if err != nil {
		return nil, err
	}
	stays, stop := context.WithTimeout(ctx, l.agent.opts.ProbeStays)
	_, err = s.link.Receive(stays)
	stop()
	if ctx.Err() == nil && errors.Is(err, context.DeadlineExceeded) {
		err = l.greet(ctx, s)
	} else if err == nil {
		err = errors.New("the server spoke before the hello")
	}
	if err != nil {
		s.link.Close()
		return nil, err
	}
	return s, nil
}

func (l *search) greet(ctx context.Context, s *session) error {
	l.mu.Lock()
	if l.over {
		l.mu.Unlock()
		return context.Canceled
	}
	l.greeting, l.said = true, true
	l.mu.Unlock()
	err := l.agent.greet(ctx, s)
	l.mu.Lock()
	l.greeting = false
	if l.over {
		l.stop() // finish left it to us
	}
	l.mu.Unlock()
	return err
}

// finish ends the search, but lets a hello that is under way be answered. It
// returns the session found, if any, and whether the server was greeted at
// all: then it may have ended the other link for a socket that came to nothing.
func (l *search) finish() (found *session, said bool) {
	l.mu.Lock()
	l.over = true
	if !l.greeting {
		l.stop()
	}
	l.mu.Unlock()
	<-l.done
	l.stop()
	return l.found, l.said
}

// jittered is up to a fifth less, so that a fleet doesn't ask as one.
func jittered(d time.Duration) time.Duration {
	b := transport.Backoff{Base: d / 5, Cap: d / 5}
	return d - b.Next()
}
