package transport_test

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"resticfleet/agent/protocol"
	"resticfleet/agent/transport"
)

// office is a server that is polled. Its fields may be changed under with.
type office struct {
	t    testing.TB
	http *httptest.Server

	mu      sync.Mutex
	moved   chan struct{}
	boot    string
	hellos  int // also the number in the session
	posts   [][]protocol.Envelope
	polls   []time.Duration // the waits asked for
	failed  []int           // the numbers of polls that were failed on purpose
	down    []protocol.Envelope
	welcome protocol.Welcome
	// decide tells of a message: "" acknowledges, "undecided" says nothing,
	// else it is the reason of a rejection.
	decide func(protocol.Envelope) string
	// fault may answer a request itself.
	fault func(n int, w http.ResponseWriter, r *http.Request) bool
	asked int
}

func newOffice(t testing.TB) (*office, transport.Config) {
	t.Helper()
	o := &office{
		t: t, moved: make(chan struct{}), boot: "boot-1",
		decide: func(protocol.Envelope) string { return "" },
		fault:  func(int, http.ResponseWriter, *http.Request) bool { return false },
	}
	mux := http.NewServeMux()
	mux.HandleFunc("POST /below/agent/v1/messages", o.messages)
	mux.HandleFunc("GET /below/agent/v1/commands", o.commands)
	o.http = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		o.mu.Lock()
		o.asked++
		n, fault := o.asked, o.fault
		w.Header().Set("Resticfleet-Boot", o.boot)
		o.mu.Unlock()
		if r.Header.Get("Authorization") != "Bearer tok" || r.UserAgent() != "resticfleet-agent/test" {
			t.Errorf("headers: %v", r.Header)
		}
		if !fault(n, w, r) {
			mux.ServeHTTP(w, r)
		}
	}))
	t.Cleanup(o.http.Close)
	return o, transport.Config{
		Server: o.http.URL + "/below/", Token: "tok", UserAgent: "resticfleet-agent/test",
		PollWait: 20 * time.Second, RetryPause: 20 * time.Millisecond,
	}
}

func (o *office) with(f func()) {
	o.mu.Lock()
	defer o.mu.Unlock()
	f()
	close(o.moved)
	o.moved = make(chan struct{})
}

func (o *office) until(what string, met func() bool) {
	o.t.Helper()
	over := time.NewTimer(20 * time.Second)
	defer over.Stop()
	for {
		o.mu.Lock()
		ok, moved := met(), o.moved
		o.mu.Unlock()
		if ok {
			return
		}
		select {
		case <-moved:
		case <-over.C:
			o.t.Fatalf("waited in vain until %s", what)
		}
	}
}

func (o *office) session() string { return fmt.Sprint("session-", o.hellos) }

func (o *office) messages(w http.ResponseWriter, r *http.Request) {
	var batch struct{ Messages []protocol.Envelope }
	raw, err := io.ReadAll(r.Body)
	if err != nil || json.Unmarshal(raw, &batch) != nil || len(raw) > protocol.MaxFrame {
		o.t.Errorf("a batch of %d bytes: %v", len(raw), err)
	}
	answer := struct {
		Acknowledged []string             `json:"acknowledged"`
		Rejected     []protocol.Rejection `json:"rejected"`
		Messages     []protocol.Envelope  `json:"messages"`
	}{[]string{}, []protocol.Rejection{}, []protocol.Envelope{}}
	superseded := false
	o.with(func() {
		o.posts = append(o.posts, batch.Messages)
		for _, e := range batch.Messages {
			if e.Type == protocol.TypeHello {
				o.hellos++
				o.welcome.Session = o.session()
				answer.Messages = append(answer.Messages, protocol.Seal("w", protocol.TypeWelcome, o.welcome))
			} else if r.URL.Query().Get("session") != o.session() {
				superseded = true
			}
			switch verdict := o.decide(e); verdict {
			case "":
				answer.Acknowledged = append(answer.Acknowledged, e.ID)
			case "undecided":
			default:
				answer.Rejected = append(answer.Rejected, protocol.Rejection{ID: e.ID, Reason: verdict})
			}
		}
	})
	if superseded {
		conflict(w)
		return
	}
	w.Header().Set("Content-Type", "application/json; charset=utf-8")
	_ = json.NewEncoder(w).Encode(answer)
}

func conflict(w http.ResponseWriter) {
	w.Header().Set("Content-Type", "application/problem+json")
	w.WriteHeader(http.StatusConflict)
	_, _ = io.WriteString(w, `{"detail":"A newer link has taken over."}`)
}

func (o *office) commands(w http.ResponseWriter, r *http.Request) {
	session := r.URL.Query().Get("session")
	seconds, err := strconv.ParseFloat(r.URL.Query().Get("wait"), 64)
	if err != nil {
		o.t.Error(err)
	}
	wait := time.Duration(seconds * float64(time.Second))
	o.with(func() { o.polls = append(o.polls, wait) })
	over := time.NewTimer(wait)
	defer over.Stop()
	for {
		o.mu.Lock()
		current, down, moved := session == o.session(), slices.Clone(o.down), o.moved
		o.mu.Unlock()
		switch {
		case !current:
			conflict(w)
			return
		case len(down) > 0:
			w.Header().Set("Content-Type", "application/json")
			_ = json.NewEncoder(w).Encode(map[string]any{"messages": down})
			return
		}
		select {
		case <-moved:
		case <-over.C:
			w.WriteHeader(http.StatusNoContent)
			return
		case <-r.Context().Done():
			return
		}
	}
}

func hello() protocol.Envelope {
	return protocol.Seal("hello", protocol.TypeHello, protocol.Hello{Protocol: protocol.Version})
}

// polls opens a polling link and says hello.
func polls(t testing.TB, c transport.Config) transport.Link {
	t.Helper()
	l, err := transport.DialPolling(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(l.Close)
	greet(t, l)
	return l
}

func greet(t testing.TB, l transport.Link) {
	t.Helper()
	if err := l.Send(t.Context(), hello()); err != nil {
		t.Fatal(err)
	}
	e, err := receive(t, l)
	for err == nil && e.Type == protocol.TypeAck {
		e, err = receive(t, l) // of what was said before, over the session that ends
	}
	if err != nil || e.Type != protocol.TypeWelcome {
		t.Fatalf("%+v, %v", e, err)
	}
	w, err := protocol.Decode[protocol.Welcome](e)
	if err != nil {
		t.Fatal(err)
	}
	l.Welcomed(w)
}

func hasPath(r *http.Request, end string) bool { return strings.HasSuffix(r.URL.Path, end) }

// hangUp ends a request's connection without an answer.
func hangUp(w http.ResponseWriter) {
	conn, _, err := w.(http.Hijacker).Hijack()
	if err == nil {
		_ = conn.Close()
	}
}
