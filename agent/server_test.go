package agent

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gorilla/websocket"

	"resticfleet/agent/protocol"
	"resticfleet/agent/transport"
)

const testToken = "canary-agent-token-9Z"

// got is one message a server took, and the number of the link it came by.
type got struct {
	link int
	protocol.Envelope
}

// server speaks the server's half of the link, and can be told to fail.
type server struct {
	t    testing.TB
	http *httptest.Server

	mu       sync.Mutex
	moved    chan struct{} // closed and replaced at every change
	refusal  int           // answered to an upgrade instead of one
	detail   string
	asked    int // upgrades asked for
	enrolled []protocol.EnrollRequest
	links    int
	conn     *websocket.Conn
	deaf     bool // reads no more and answers no ping
	hellos   []protocol.Hello
	kinds    []string // the links they came by
	// wsFault may answer an upgrade, afterUpgrade spoil it: "close" at once,
	// "swallow" the answer to hello.
	wsFault      func(http.ResponseWriter, *http.Request) bool
	afterUpgrade string
	poll         polled
	pollRefusal  int
	messages     []got
	first        []protocol.Envelope // sent behind every welcome
	// verdict: "" acknowledges, "drop" says nothing, else the reason of a
	// rejection.
	verdict func(n got) string
	ping    time.Duration
	writing sync.Mutex
	serving sync.WaitGroup
}

func newServer(t testing.TB) *server {
	t.Helper()
	s := &server{t: t, moved: make(chan struct{}), ping: 500 * time.Millisecond, poll: polled{boot: "boot"}, verdict: func(got) string { return "" }}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /agent/v1/ws", s.upgrade)
	mux.HandleFunc("POST /agent/v1/enroll", s.enroll)
	s.pollable(mux)
	s.http = httptest.NewServer(mux)
	t.Cleanup(func() {
		s.cut()
		s.http.Close()
		s.serving.Wait()
	})
	return s
}

// with changes the server under its lock.
func (s *server) with(f func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f()
	close(s.moved)
	s.moved = make(chan struct{})
}

// until waits for a state of affairs, asked under the lock.
func (s *server) until(what string, met func() bool) {
	s.t.Helper()
	timeout := time.NewTimer(60 * time.Second)
	defer timeout.Stop()
	for {
		s.mu.Lock()
		ok, moved := met(), s.moved
		s.mu.Unlock()
		if ok {
			return
		}
		select {
		case <-moved:
		case <-timeout.C:
			s.mu.Lock()
			defer s.mu.Unlock()
			s.t.Fatalf("waited in vain until %s; messages: %s", what, s.told())
		}
	}
}

func (s *server) told() string {
	var all []string
	for _, m := range s.messages {
		all = append(all, fmt.Sprintf("%d:%s", m.link, m.ID))
	}
	return strings.Join(all, " ")
}

// of gives a job's messages of a type, or of all, under the lock.
func (s *server) of(typ, jobID string) []got {
	var found []got
	for _, m := range s.messages {
		if (typ == "" || m.Type == typ) && strings.HasPrefix(m.ID, jobID) {
			found = append(found, m)
		}
	}
	return found
}

func problem(w http.ResponseWriter, status int, detail string) {
	w.Header().Set("Content-Type", "application/problem+json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(map[string]any{"status": status, "detail": detail})
}

func (s *server) enroll(w http.ResponseWriter, r *http.Request) {
	var req protocol.EnrollRequest
	err := json.NewDecoder(r.Body).Decode(&req)
	s.mu.Lock()
	refusal, detail := s.refusal, s.detail
	s.mu.Unlock()
	if err != nil || refusal != 0 {
		problem(w, refusal, detail)
		return
	}
	s.with(func() { s.enrolled = append(s.enrolled, req) })
	_ = json.NewEncoder(w).Encode(protocol.EnrollResponse{HostID: "host-1", AgentToken: testToken})
}

func (s *server) upgrade(w http.ResponseWriter, r *http.Request) {
	s.serving.Add(1)
	defer s.serving.Done()
	s.mu.Lock()
	refusal, detail, fault, spoil := s.refusal, s.detail, s.wsFault, s.afterUpgrade
	s.mu.Unlock()
	s.with(func() { s.asked++ })
	if fault != nil && fault(w, r) {
		return
	}
	if refusal != 0 {
		problem(w, refusal, detail)
		return
	}
	if r.Header.Get("Authorization") != "Bearer "+testToken {
		problem(w, http.StatusUnauthorized, "The credential is not known.")
		return
	}
	conn, err := new(websocket.Upgrader).Upgrade(w, r, nil)
	if err != nil {
		return
	}
	defer conn.Close()
	conn.SetReadLimit(protocol.MaxFrame)
	if spoil == "close" {
		return
	}
	_, frame, err := conn.ReadMessage()
	if err != nil {
		return
	}
	e, err := protocol.Open(frame)
	if err != nil || e.Type != protocol.TypeHello {
		s.t.Errorf("the first message is %s, %v", e.Type, err)
		return
	}
	hello, err := protocol.Decode[protocol.Hello](e)
	if err != nil {
		s.t.Error(err)
		return
	}
	if spoil == "swallow" {
		s.with(func() {
			s.links++
			s.poll.session = s.links
			s.hellos, s.kinds = append(s.hellos, hello), append(s.kinds, "swallowed")
		})
		return
	}
	var link int
	var first []protocol.Envelope
	s.with(func() {
		s.links++
		link = s.links
		s.poll.session = link
		first = append(first, s.welcome(link))
		first = append(first, s.first...)
	})
	for _, e := range first {
		s.write(conn, e)
	}
	s.with(func() {
		s.conn, s.deaf = conn, false
		s.hellos = append(s.hellos, hello)
		s.kinds = append(s.kinds, protocol.LinkWebSocket)
	})
	s.read(conn, link)
	s.with(func() {
		if s.conn == conn {
			s.conn = nil
		}
	})
}

func (s *server) welcome(link int) protocol.Envelope {
	return protocol.Seal("w", protocol.TypeWelcome, protocol.Welcome{
		Protocol: protocol.Version, Session: fmt.Sprint("s", link), ServerTime: time.Now(), PingIntervalMS: s.ping.Milliseconds(),
	})
}

func (s *server) read(conn *websocket.Conn, link int) {
	for {
		_, frame, err := conn.ReadMessage()
		if err != nil {
			return
		}
		e, err := protocol.Open(frame)
		if err != nil {
			s.t.Errorf("the agent sent a malformed frame: %v", err)
			return
		}
		m := got{link, e}
		var verdict string
		s.with(func() {
			s.messages = append(s.messages, m)
			verdict = s.verdict(m)
		})
		switch verdict {
		case "":
			s.write(conn, protocol.Seal("a", protocol.TypeAck, protocol.Ack{Acknowledged: []string{e.ID}}))
		case "drop":
		default:
			s.write(conn, protocol.Seal("a", protocol.TypeAck, protocol.Ack{Rejected: []protocol.Rejection{{ID: e.ID, Reason: verdict}}}))
		}
		for {
			s.mu.Lock()
			deaf, moved := s.deaf, s.moved
			gone := s.conn != conn
			s.mu.Unlock()
			if !deaf || gone {
				break
			}
			<-moved
		}
	}
}

func (s *server) write(conn *websocket.Conn, e protocol.Envelope) {
	s.writing.Lock()
	defer s.writing.Unlock()
	_ = conn.WriteJSON(e) // a link that has ended shows elsewhere
}

// send sends to the agent by the link there is.
func (s *server) send(typ string, payload any) { s.raw(protocol.Seal("x", typ, payload)) }

func (s *server) raw(v any) {
	s.t.Helper()
	var conn *websocket.Conn
	s.until("an agent is linked", func() bool { conn = s.conn; return conn != nil })
	s.writing.Lock()
	defer s.writing.Unlock()
	if text, ok := v.(string); ok {
		_ = conn.WriteMessage(websocket.TextMessage, []byte(text))
		return
	}
	_ = conn.WriteJSON(v)
}

// cut ends the link there is without a word.
func (s *server) cut() {
	s.with(func() {
		if s.conn != nil {
			_ = s.conn.NetConn().Close()
			s.conn = nil
		}
	})
}

// linked waits for the nth link.
func (s *server) linked(n int) protocol.Hello {
	s.t.Helper()
	var hello protocol.Hello
	s.until(fmt.Sprintf("link %d", n), func() bool {
		if len(s.hellos) < n {
			return false
		}
		hello = s.hellos[n-1]
		return true
	})
	return hello
}

// finished waits for a job's result and gives the first.
func (s *server) finished(jobID string) protocol.Finished {
	s.t.Helper()
	var e protocol.Envelope
	s.until("job "+jobID+" has ended", func() bool {
		all := s.of(protocol.TypeFinished, jobID)
		if len(all) > 0 {
			e = all[0].Envelope
		}
		return len(all) > 0
	})
	f, err := protocol.Decode[protocol.Finished](e)
	if err != nil {
		s.t.Fatal(err)
	}
	return f
}

// acknowledged waits until the agent has written down that a result arrived.
func (b *bundle) acknowledged(jobID string) {
	b.t.Helper()
	eventually(b.t, "the acknowledgement is written down", func() bool {
		var e Entry
		_, err := readJSON(filepath.Join(b.state, "journal", jobID+entrySuffix), &e)
		return err == nil && !e.AckedAt.IsZero()
	})
}

// eventually waits for what gives no signal to a test: a file, a line of a log.
func eventually(t testing.TB, what string, met func() bool) {
	t.Helper()
	timeout := time.NewTimer(60 * time.Second)
	defer timeout.Stop()
	again := time.NewTicker(10 * time.Millisecond)
	defer again.Stop()
	for !met() {
		select {
		case <-again.C:
		case <-timeout.C:
			t.Fatalf("waited in vain until %s", what)
		}
	}
}

// logText is what tests read of an agent's log.
type logText struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (l *logText) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(p)
}

func (l *logText) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.String()
}

// enrolled writes the bundle's enrolment with a server.
func (b *bundle) enrolled(s *server) {
	b.t.Helper()
	if err := privateDir(b.state); err != nil {
		b.t.Fatal(err)
	}
	c := Config{Server: s.http.URL, HostID: "host-1", AgentToken: testToken, PrivateKey: b.private}
	if err := c.save(b.state); err != nil {
		b.t.Fatal(err)
	}
}

// agent runs an agent of the bundle until stop; its log is the first result.
func (b *bundle) agent(change ...func(*Options)) (log *logText, stop func()) {
	b.t.Helper()
	log = &logText{}
	o := Options{
		StateDir: b.state, Version: "test", Timezone: "Europe/Berlin",
		Logger: slog.New(slog.NewTextHandler(log, nil)), Runner: b.config(), Link: LinkWebSocket,
		Backoff:    transport.Backoff{Base: 5 * time.Millisecond, Cap: 50 * time.Millisecond},
		WatchEvery: 10 * time.Millisecond,
	}
	for _, c := range change {
		c(&o)
	}
	a, err := New(o)
	if err != nil {
		b.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.WithoutCancel(b.t.Context()))
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := a.Run(ctx); err != nil {
			b.t.Errorf("Run: %v", err)
		}
	}()
	stop = sync.OnceFunc(func() { cancel(); <-done })
	b.t.Cleanup(func() {
		stop()
		if b.t.Failed() {
			b.t.Logf("the agent's log:\n%s", log)
		}
	})
	return log, stop
}
