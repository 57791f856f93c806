package agentapi_test

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gorilla/websocket"
	"github.com/uptrace/bun"

	"resticfleet/agent/protocol"
	"resticfleet/handlers"
	"resticfleet/handlers/agentapi"
	"resticfleet/handlers/live"
	"resticfleet/jobs"
	"resticfleet/models"
	"resticfleet/models/modeltest"
	"resticfleet/static"
)

func TestMain(m *testing.M) { modeltest.Main(m) }

// lines is a log that tests read.
type lines struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(p)
}

// has reports whether a line has this message and this reason.
func (l *lines) has(msg, reason string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	for line := range bytes.Lines(l.buf.Bytes()) {
		var one struct{ Msg, Reason string }
		if json.Unmarshal(line, &one) == nil && one.Msg == msg && one.Reason == reason {
			return true
		}
	}
	return false
}

func (l *lines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.String()
}

// bundle is one whole server on a real socket.
type bundle struct {
	t      testing.TB
	ctx    context.Context
	dbURL  string
	db     *models.DB
	jobs   *jobs.Service
	hub    *live.Hub
	hook   bun.QueryHook // sees every statement, if there is one
	agents *agentapi.Server
	web    *httptest.Server
	log    *lines
}

// setup is a server that offers a command again after a minute: what comes in a
// test came for its own reason.
func setup(t testing.TB) *bundle {
	t.Helper()
	return offering(t, time.Minute)
}

func offering(t testing.TB, again time.Duration) *bundle {
	t.Helper()
	b := &bundle{t: t, ctx: t.Context(), dbURL: modeltest.URL(t), log: &lines{}}
	b.serve(modeltest.Sealer(t), again)
	return b
}

// serve starts the server; what runs in it ends with the test.
func (b *bundle) serve(sealer *models.Sealer, offerAgain time.Duration) {
	b.t.Helper()
	b.db = modeltest.Pool(b.t, b.dbURL)
	if b.hook != nil {
		b.db = b.db.WithQueryHook(b.hook)
	}
	assets, err := static.New()
	if err != nil {
		b.t.Fatal(err)
	}
	log, hub := slog.New(slog.NewJSONHandler(b.log, nil)), live.NewHub()
	b.hub = hub
	b.jobs = jobs.New(jobs.Config{DB: b.db, Sealer: sealer, Hints: hub, Log: log, OfferAgain: offerAgain})
	b.agents = agentapi.New(agentapi.Config{DB: b.db, Jobs: b.jobs, Hub: hub, Log: log})
	b.web = httptest.NewServer(handlers.New(handlers.Config{DB: b.db, Jobs: b.jobs, Hub: hub, Agents: b.agents, Assets: assets, Log: log}))
	b.t.Cleanup(func() {
		b.agents.Close()
		b.web.Close()
	})
}

func must[T any](t testing.TB) func(T, error) T {
	return func(v T, err error) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

func (b *bundle) exec(query string, args ...any) {
	b.t.Helper()
	if _, err := b.db.ExecContext(b.ctx, query, args...); err != nil {
		b.t.Fatalf("%s: %v", query, err)
	}
}

// enrolled is a host with a repository, its init behind it, and its agent's
// credential.
func (b *bundle) enrolled(name string) (*models.Host, string) {
	b.t.Helper()
	h := must[*models.Host](b.t)(models.AddHost(b.ctx, b.db, models.HostFields{Name: name}))
	must[*models.HostRepository](b.t)(b.jobs.BindRepository(b.ctx, h.ID, models.RepositoryFields{URL: "/srv/" + name, Password: "correct horse"}))
	must[bool](b.t)(models.AutoInit(b.ctx, b.db, h.ID))
	b.exec("update jobs set state = 'succeeded', accepted_at = now(), finished_at = now() where host_id = ?", h.ID)
	return h, b.enroll(h)
}

func (b *bundle) enroll(h *models.Host) string {
	b.t.Helper()
	token, _, err := models.NewEnrollmentToken(b.ctx, b.db, h.ID)
	if err != nil {
		b.t.Fatal(err)
	}
	status, body := b.request("POST", "/agent/v1/enroll", "", protocol.EnrollRequest{Token: token, Hostname: h.Name})
	var granted protocol.EnrollResponse
	if err := json.Unmarshal(body, &granted); err != nil || status != 200 || granted.HostID != h.ID.String() {
		b.t.Fatalf("enrolment: %d %s", status, body)
	}
	return granted.AgentToken
}

func (b *bundle) request(method, path, token string, body any, header ...string) (int, []byte) {
	b.t.Helper()
	res := b.do(method, path, token, body, header...)
	defer res.Body.Close()
	return res.StatusCode, must[[]byte](b.t)(io.ReadAll(res.Body))
}

// do leaves the answer's body to the caller.
func (b *bundle) do(method, path, token string, body any, header ...string) *http.Response {
	b.t.Helper()
	var payload io.Reader
	switch body := body.(type) {
	case nil:
	case string:
		payload = strings.NewReader(body)
	default:
		payload = bytes.NewReader(must[[]byte](b.t)(json.Marshal(body)))
	}
	req := must[*http.Request](b.t)(http.NewRequestWithContext(b.ctx, method, b.web.URL+path, payload))
	req.Header.Set("Content-Type", "application/json")
	if token != "" {
		req.Header.Set("Authorization", "Bearer "+token)
	}
	for i := 0; i < len(header); i += 2 {
		req.Header.Add(header[i], header[i+1])
	}
	return must[*http.Response](b.t)(b.web.Client().Do(req))
}

func (b *bundle) group(h *models.Host, name string) *models.Group {
	b.t.Helper()
	return must[*models.Group](b.t)(models.AddGroup(b.ctx, b.db, h.ID, models.GroupFields{Name: name, Includes: []string{"/srv/" + name}}))
}

func (b *bundle) run(g *models.Group) *models.Job {
	b.t.Helper()
	return must[*models.Job](b.t)(b.jobs.RunGroup(b.ctx, g.HostID, g.ID, models.System))
}

func (b *bundle) job(id models.JobID) *models.Job {
	b.t.Helper()
	return must[*models.Job](b.t)(models.FindJob(b.ctx, b.db, id))
}

// client is an agent's end of a socket.
type client struct {
	b    *bundle
	conn *websocket.Conn
	got  chan protocol.Envelope
	// closed is how the server closed, once got is closed.
	closed error
}

const patience = 20 * time.Second

func (b *bundle) wsURL() string { return "ws" + strings.TrimPrefix(b.web.URL, "http") + "/agent/v1/ws" }

// dial opens a socket without saying anything.
func (b *bundle) dial(token string) *client {
	b.t.Helper()
	conn, res, err := websocket.DefaultDialer.DialContext(b.ctx, b.wsURL(), http.Header{"Authorization": {"Bearer " + token}})
	if err != nil {
		b.t.Fatal(err)
	}
	_ = res.Body.Close()
	c := &client{b: b, conn: conn, got: make(chan protocol.Envelope, 256)}
	done := make(chan struct{})
	go func() {
		defer close(done)
		defer close(c.got)
		for {
			var e protocol.Envelope
			if c.closed = conn.ReadJSON(&e); c.closed != nil {
				return
			}
			c.got <- e
		}
	}()
	b.t.Cleanup(func() {
		_ = conn.Close()
		<-done
	})
	return c
}

// link dials and says hello; the welcome has been read.
func (b *bundle) link(token string, known ...protocol.HelloJob) *client {
	b.t.Helper()
	c := b.dial(token)
	c.say("hello", protocol.TypeHello, protocol.Hello{Protocol: 1, JournalID: "j", Timezone: "UTC", Jobs: known, SentAt: time.Now()})
	c.next(protocol.TypeWelcome)
	return c
}

func (c *client) say(id, typ string, payload any) {
	c.b.t.Helper()
	if err := c.conn.WriteJSON(protocol.Seal(id, typ, payload)); err != nil {
		c.b.t.Fatal(err)
	}
}

// next is the next message, which must be of this type.
func (c *client) next(typ string) protocol.Envelope {
	c.b.t.Helper()
	select {
	case e, ok := <-c.got:
		if !ok {
			c.b.t.Fatalf("waiting for %s: the server closed: %v", typ, c.closed)
		}
		if e.Type != typ {
			c.b.t.Fatalf("waiting for %s: got %s %s", typ, e.Type, e.Payload)
		}
		return e
	case <-time.After(patience):
		c.b.t.Fatalf("no %s", typ)
	}
	panic("unreachable")
}

// until skips to the next message of this type.
func (c *client) until(typ string) protocol.Envelope {
	c.b.t.Helper()
	for {
		select {
		case e, ok := <-c.got:
			if !ok {
				c.b.t.Fatalf("waiting for %s: the server closed: %v", typ, c.closed)
			}
			if e.Type == typ {
				return e
			}
		case <-time.After(patience):
			c.b.t.Fatalf("no %s", typ)
		}
	}
}

// ended waits for the server's close, and returns what it said last and with
// which code it closed.
func (c *client) ended() (said protocol.Error, code int, all []protocol.Envelope) {
	c.b.t.Helper()
	for {
		select {
		case e, ok := <-c.got:
			if !ok {
				var closed *websocket.CloseError
				if websocket.IsUnexpectedCloseError(c.closed) {
					closed = c.closed.(*websocket.CloseError) //nolint:errorlint // gorilla returns it bare
					code = closed.Code
				}
				return said, code, all
			}
			all = append(all, e)
			if e.Type == protocol.TypeError {
				said = must[protocol.Error](c.b.t)(protocol.Decode[protocol.Error](e))
			}
		case <-time.After(patience):
			c.b.t.Fatal("the server doesn't close")
		}
	}
}

// eventually waits for something that another goroutine brings about.
func (b *bundle) eventually(what string, so func() bool) {
	b.t.Helper()
	deadline := time.After(patience)
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for !so() {
		select {
		case <-tick.C:
		case <-deadline:
			b.t.Fatalf("not so: %s\n%s", what, b.log)
		}
	}
}
