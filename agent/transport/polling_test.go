package transport_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"resticfleet/agent/protocol"
	"resticfleet/agent/transport"
)

func TestPollingCarriesMessagesBothWays(t *testing.T) {
	t.Parallel()
	o, c := newOffice(t)
	l := polls(t, c)
	o.with(func() {
		o.decide = func(e protocol.Envelope) string { return map[string]string{"2": "never"}[e.ID] }
		o.down = []protocol.Envelope{protocol.Seal("run-1", protocol.TypeRun, protocol.Run{JobID: "1"}), {ID: "x"}}
	})
	if e, err := receive(t, l); err != nil || e.ID != "run-1" {
		t.Fatalf("%+v, %v", e, err)
	}
	var malformed *transport.MalformedError
	if e, err := receive(t, l); !errors.As(err, &malformed) {
		t.Fatalf("%+v, %v", e, err)
	}
	o.with(func() { o.down = nil })
	for _, id := range []string{"1", "2", "3"} {
		if err := l.Send(t.Context(), beat(id)); err != nil {
			t.Fatal(err)
		}
	}
	var acked []string
	var rejected []protocol.Rejection
	for len(acked)+len(rejected) < 3 {
		e, err := receive(t, l)
		if err != nil {
			t.Fatal(err)
		}
		if e.Type != protocol.TypeAck {
			continue // the command once more
		}
		ack, err := protocol.Decode[protocol.Ack](e)
		if err != nil {
			t.Fatal(err)
		}
		acked, rejected = append(acked, ack.Acknowledged...), append(rejected, ack.Rejected...)
	}
	if !slices.Equal(acked, []string{"1", "3"}) || !slices.Equal(rejected, []protocol.Rejection{{ID: "2", Reason: "never"}}) {
		t.Errorf("%v, %v", acked, rejected)
	}
}

func TestWhatIsSentDuringARequestGoesTogetherInOrderWithinBounds(t *testing.T) {
	t.Parallel()
	o, c := newOffice(t)
	l := polls(t, c)
	release, underWay := make(chan struct{}), make(chan struct{}, 100)
	o.with(func() {
		o.fault = func(_ int, _ http.ResponseWriter, r *http.Request) bool {
			if hasPath(r, "/messages") {
				underWay <- struct{}{}
				<-release
			}
			return false
		}
	})
	send := func(ids ...string) {
		for _, id := range ids {
			if err := l.Send(t.Context(), beat(id)); err != nil {
				t.Fatal(err)
			}
		}
	}
	send("first")
	<-underWay // a poll may be asked before it
	var want []string
	for i := range 200 {
		want = append(want, fmt.Sprint(i))
	}
	send(want...)
	send("0", "1") // said again: goes once
	large := strings.Repeat("x", 200<<10)
	for i := range 2 {
		if err := l.Send(t.Context(), protocol.Seal(fmt.Sprint("large", i), protocol.TypeLog, protocol.Log{JobID: large})); err != nil {
			t.Fatal(err)
		}
	}
	want = append(want, "large0", "large1")
	if err := l.Send(t.Context(), protocol.Seal("huge", protocol.TypeLog, protocol.Log{JobID: large + large})); err != nil {
		t.Fatal(err)
	}
	if err := l.Send(within(t, 20*time.Millisecond), beat("too much")); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Send must wait while the line is long: %v", err)
	}
	if err := l.Send(t.Context(), protocol.Seal("endless", protocol.TypeLog, protocol.Log{JobID: strings.Repeat("x", protocol.MaxFrame)})); !errors.Is(err, transport.ErrTooLarge) {
		t.Error(err)
	}
	close(release)
	want = append(want, "huge")
	var got []string
	o.until("all came", func() bool {
		got = nil
		for _, batch := range o.posts[min(2, len(o.posts)):] {
			for _, e := range batch {
				got = append(got, e.ID)
			}
		}
		return len(got) >= len(want)
	})
	if !slices.Equal(got, want) {
		t.Errorf("came: %v", got)
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	if n := len(o.posts); n > 6 {
		t.Errorf("%d requests for what fits into four", n)
	}
}

func TestUndecidedAndFailedMessagesGoAgain(t *testing.T) {
	t.Parallel()
	o, c := newOffice(t)
	seen := map[string]int{}
	o.decide = func(e protocol.Envelope) string {
		if seen[e.ID]++; e.ID == "undecided" && seen[e.ID] < 3 {
			return "undecided"
		}
		return ""
	}
	l := polls(t, c)
	faults := 0
	o.with(func() {
		o.fault = func(_ int, w http.ResponseWriter, r *http.Request) bool {
			if !hasPath(r, "/messages") {
				return false
			}
			o.mu.Lock()
			faults++
			n := faults
			o.mu.Unlock()
			switch n {
			case 1:
				hangUp(w)
			case 2, 3:
				http.Error(w, "bad gateway", map[int]int{2: 502, 3: 504}[n])
			default:
				return false
			}
			return true
		}
	})
	for _, id := range []string{"undecided", "behind it"} {
		if err := l.Send(t.Context(), beat(id)); err != nil {
			t.Fatal(err)
		}
	}
	var acked []string
	for len(acked) < 2 {
		e, err := receive(t, l)
		if err != nil {
			t.Fatal(err)
		}
		ack, err := protocol.Decode[protocol.Ack](e)
		if err != nil {
			t.Fatal(err)
		}
		acked = append(acked, ack.Acknowledged...)
	}
	if !slices.Equal(acked, []string{"behind it", "undecided"}) {
		t.Error(acked)
	}
}

func TestPollingEndsWithTheReason(t *testing.T) {
	t.Parallel()
	problem := func(status int) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "application/problem+json")
			w.Header().Set("Retry-After", "7")
			w.WriteHeader(status)
			_, _ = io.WriteString(w, `{"detail":"For this reason."}`)
		}
	}
	page := func(status int, kind, body string) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", kind)
			w.WriteHeader(status)
			_, _ = io.WriteString(w, body)
		}
	}
	tests := map[string]struct {
		answer http.HandlerFunc
		status int
		says   string
	}{
		"superseded":   {problem(409), 409, "For this reason."},
		"replaced":     {problem(401), 401, "For this reason."},
		"deleted":      {problem(410), 410, "For this reason."},
		"busy":         {problem(503), 503, "For this reason."},
		"a portal":     {page(200, "text/html; charset=utf-8", "<title>Sign in</title>"), 200, "“Sign in”"},
		"interception": {page(403, "text/html", "<title>Blocked by policy</title>"), 403, "“Blocked by policy”"},
		"other JSON":   {page(200, "application/json", `{"hello":"world"}`), 200, "JSON that is none"},
		"broken JSON":  {page(200, "application/json", `{"messages":[`), 200, "JSON that is none"},
		"something":    {page(200, "image/gif", "GIF89a"), 200, "image/gif"},
		"somewhere": {func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, "https://else.example/", http.StatusFound)
		}, 302, "https://else.example/"},
		"without a way": {func(w http.ResponseWriter, r *http.Request) { http.NotFound(w, r) }, 404, "404"},
	}
	for name, test := range tests {
		for _, where := range []string{"hello", "/messages", "/commands"} {
			t.Run(name+" at "+where, func(t *testing.T) {
				t.Parallel()
				o, c := newOffice(t)
				fault := func(_ int, w http.ResponseWriter, r *http.Request) bool {
					if where == "hello" || hasPath(r, where) {
						test.answer(w, r)
						return true
					}
					return false
				}
				var l transport.Link
				if where == "hello" {
					o.fault = fault
					var err error
					if l, err = transport.DialPolling(t.Context(), c); err != nil {
						t.Fatal(err)
					}
					t.Cleanup(l.Close)
					_ = l.Send(t.Context(), hello())
				} else {
					o.welcome.PollIntervalMS = 100
					l = polls(t, c)
					o.with(func() { o.fault = fault })
					_ = l.Send(t.Context(), beat("1"))
				}
				var refused *transport.RefusedError
				for {
					e, err := receive(t, l)
					if err == nil {
						continue
					}
					if !errors.As(err, &refused) {
						t.Fatalf("%+v, %v", e, err)
					}
					if refused.Status != test.status || !strings.Contains(err.Error(), test.says) {
						t.Errorf("%v", err)
					}
					break
				}
				if test.status == 503 && refused.RetryAfter != 7*time.Second {
					t.Error(refused.RetryAfter)
				}
				if err := l.Send(t.Context(), beat("2")); !errors.As(err, &refused) {
					t.Errorf("Send must give the link's reason: %v", err)
				}
			})
		}
	}
}

func TestAServerThatIsGoneEndsThePolling(t *testing.T) {
	t.Parallel()
	o, c := newOffice(t)
	c.RetryPause = time.Millisecond
	l := polls(t, c)
	o.with(func() {
		// For connections that are accepted but not yet known to be closed.
		o.fault = func(_ int, w http.ResponseWriter, _ *http.Request) bool { hangUp(w); return true }
	})
	_ = o.http.Listener.Close()
	o.http.CloseClientConnections()
	if _, err := receive(t, l); !errors.Is(err, transport.ErrBroken) || !strings.Contains(err.Error(), "can't be reached") {
		t.Error(err)
	}
	l.Close()
	again, err := transport.DialPolling(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(again.Close)
	_ = again.Send(t.Context(), hello())
	if _, err := receive(t, again); !errors.Is(err, transport.ErrBroken) || transport.FallsBack(err) {
		t.Error(err)
	}
}

func TestClosingAPollingLinkEndsItsRequests(t *testing.T) {
	t.Parallel()
	o, c := newOffice(t)
	l := polls(t, c)
	o.until("a poll waits", func() bool { return len(o.polls) == 1 })
	began := time.Now()
	l.Close()
	l.Close()
	if took := time.Since(began); took > 5*time.Second {
		t.Errorf("took %v", took)
	}
	if err := l.Send(t.Context(), beat("1")); !errors.Is(err, transport.ErrClosed) {
		t.Error(err)
	}
	if _, err := receive(t, l); !errors.Is(err, transport.ErrClosed) {
		t.Error(err)
	}
}

// What a poll brings goes to somebody who has heard the welcome.
func TestNothingComesBeforeTheWelcome(t *testing.T) {
	t.Parallel()
	o, c := newOffice(t)
	o.with(func() {
		o.down = []protocol.Envelope{protocol.Seal("run-1", protocol.TypeRun, protocol.Run{JobID: "1"})}
	})
	for range 50 {
		l, err := transport.DialPolling(t.Context(), c)
		if err != nil {
			t.Fatal(err)
		}
		if err := l.Send(t.Context(), protocol.Seal("hello", protocol.TypeHello, protocol.Hello{})); err != nil {
			t.Fatal(err)
		}
		for _, want := range []string{protocol.TypeWelcome, protocol.TypeRun} {
			if e, err := receive(t, l); err != nil || e.Type != want {
				t.Errorf("%s came instead of %s, %v", e.Type, want, err)
			}
		}
		l.Close()
	}
}
