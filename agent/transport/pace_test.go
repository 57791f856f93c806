package transport_test

import (
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"testing"
	"time"

	"resticfleet/agent/protocol"
	"resticfleet/agent/transport"
)

// A middle box that cuts what says nothing for a while.
func TestPollsAdaptToWhatCutsThem(t *testing.T) {
	t.Parallel()
	const limit = 400 * time.Millisecond
	for name, cut := range map[string]func(http.ResponseWriter, *http.Request){
		"hangs up": func(w http.ResponseWriter, _ *http.Request) { hangUp(w) },
		"bad gateway": func(w http.ResponseWriter, _ *http.Request) {
			http.Error(w, "<html><title>Bad gateway</title>", http.StatusBadGateway)
		},
		"gateway timeout": func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "", http.StatusGatewayTimeout) },
		"swallows":        func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			o, c := newOffice(t)
			o.welcome = protocol.Welcome{PingIntervalMS: 800, PollIntervalMS: 1400}
			n := 0
			o.fault = func(_ int, w http.ResponseWriter, r *http.Request) bool {
				if !hasPath(r, "/commands") {
					return false
				}
				var number int
				o.with(func() { n++; number = n })
				seconds, err := strconv.ParseFloat(r.URL.Query().Get("wait"), 64)
				if err != nil || seconds < limit.Seconds() {
					return false
				}
				o.with(func() { o.failed = append(o.failed, number); o.polls = append(o.polls, 0) })
				over := time.NewTimer(limit)
				defer over.Stop()
				select {
				case <-over.C:
					cut(w, r)
				case <-r.Context().Done():
				}
				return true
			}
			c.Lessons = new(transport.Lessons)
			l := polls(t, c)
			o.until("it was polled often", func() bool { return len(o.polls) >= 12 })
			o.with(func() {
				if len(o.failed) == 0 || o.failed[len(o.failed)-1] > 3 || o.polls[11] < limit/4 {
					t.Errorf("polls %v failed, the waits were %v", o.failed, o.polls)
				}
				o.down = []protocol.Envelope{protocol.Seal("run-1", protocol.TypeRun, protocol.Run{JobID: "1"})}
			})
			if e, err := receive(t, l); err != nil || e.ID != "run-1" {
				t.Fatalf("%+v, %v", e, err)
			}
			// An attempt at a WebSocket that is refused takes nothing of it back.
			if _, err := transport.DialWebSocket(within(t, 10*time.Second), c); !transport.FallsBack(err) {
				t.Error(err)
			}
			// The next link knows it from the beginning.
			l.Close()
			var before int
			o.with(func() { o.down, before = nil, len(o.failed) })
			polls(t, c)
			o.until("it was polled again", func() bool { return len(o.polls) >= 18 })
			o.with(func() {
				if len(o.failed) != before {
					t.Errorf("polls %v failed", o.failed)
				}
			})
		})
	}
}

func TestRepeatedCommandsAndEarlyAnswersAreNoBusyLoop(t *testing.T) {
	t.Parallel()
	for name, down := range map[string][]protocol.Envelope{
		"a command that is not accepted": {protocol.Seal("run-1", protocol.TypeRun, protocol.Run{JobID: "1"})},
		"nothing, at once":               nil,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			o, c := newOffice(t)
			o.down = down
			if down == nil {
				o.fault = func(_ int, w http.ResponseWriter, r *http.Request) bool {
					if hasPath(r, "/commands") {
						o.with(func() { o.polls = append(o.polls, 0) })
						w.WriteHeader(http.StatusNoContent)
						return true
					}
					return false
				}
			}
			l := polls(t, c)
			began := time.Now()
			delivered := 0
			for time.Since(began) < time.Second {
				if _, err := l.Receive(within(t, 200*time.Millisecond)); err == nil {
					delivered++
				}
			}
			o.mu.Lock()
			defer o.mu.Unlock()
			// 5, 10, 20 … ms between them.
			if n := len(o.polls); n < 4 || n > 12 {
				t.Errorf("%d polls in a second", n)
			}
			if down != nil && (delivered < 2 || delivered > 8) {
				t.Errorf("delivered %d times", delivered)
			}
		})
	}
}

func TestNewsComeWithoutARest(t *testing.T) {
	t.Parallel()
	o, c := newOffice(t)
	c.RetryPause = time.Minute // any rest would show
	l := polls(t, c)
	for i := range 10 {
		o.with(func() {
			o.down = []protocol.Envelope{protocol.Seal(fmt.Sprint("run-", i), protocol.TypeRun, protocol.Run{JobID: "1"})}
		})
		if e, err := receive(t, l); err != nil || e.ID != fmt.Sprint("run-", i) {
			t.Fatalf("%+v, %v", e, err)
		}
		o.with(func() { o.down = nil })
		o.until("another poll waits", func() bool { return len(o.polls) >= i+2 })
		if t.Failed() {
			return
		}
	}
}

func TestANewServerProcessGetsANewHelloOverTheSameLink(t *testing.T) {
	t.Parallel()
	o, c := newOffice(t)
	l := polls(t, c)
	again := func() {
		t.Helper()
		for {
			e, err := receive(t, l)
			if errors.Is(err, transport.ErrHelloAgain) {
				return
			}
			if err != nil || e.Type != protocol.TypeAck {
				t.Fatalf("%+v, %v", e, err)
			}
		}
	}
	o.until("a poll waits", func() bool { return len(o.polls) == 1 })
	o.with(func() { o.boot = "boot-2" })
	if err := l.Send(t.Context(), beat("1")); err != nil {
		t.Fatal(err)
	}
	again()
	// The poll that waits belongs to the old session; its end is nothing.
	greet(t, l)
	o.until("the new session is polled", func() bool { return len(o.polls) == 2 })
	// Both processes stand behind one address: they are known by now.
	for _, boot := range []string{"boot-1", "boot-2", "boot-1"} {
		o.with(func() { o.boot = boot })
		if err := l.Send(t.Context(), beat(boot)); err != nil {
			t.Fatal(err)
		}
		if e, err := receive(t, l); err != nil || e.Type != protocol.TypeAck {
			t.Fatalf("%+v, %v", e, err)
		}
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.hellos != 2 {
		t.Errorf("%d hellos", o.hellos)
	}
}

func TestHelloIsSaidAgainFromTimeToTime(t *testing.T) {
	t.Parallel()
	o, c := newOffice(t)
	c.HelloEvery = 50 * time.Millisecond
	l := polls(t, c)
	for range 3 {
		if e, err := receive(t, l); !errors.Is(err, transport.ErrHelloAgain) {
			t.Fatalf("%+v, %v", e, err)
		}
		greet(t, l)
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.hellos != 4 {
		t.Errorf("%d hellos", o.hellos)
	}
}
