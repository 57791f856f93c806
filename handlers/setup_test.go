package handlers

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"

	"github.com/google/uuid"
	"github.com/labstack/echo/v4"

	"resticfleet/handlers/agentapi"
	"resticfleet/handlers/live"
	"resticfleet/jobs"
	"resticfleet/models"
	"resticfleet/models/modeltest"
	"resticfleet/static"
)

func TestMain(m *testing.M) { modeltest.Main(m) }

// bundle is the whole HTTP side on a database of its own.
type bundle struct {
	t     testing.TB
	ctx   context.Context
	db    *models.DB
	asked *statements // of the database
	h     *Handlers
	web   *echo.Echo
}

// trustedProxy is believed, anybody else isn't.
const trustedProxy = "10.9.8.7"

func setup(t testing.TB) *bundle {
	t.Helper()
	return setupOn(t, modeltest.DB(t))
}

func setupOn(t testing.TB, db *models.DB) *bundle {
	t.Helper()
	b := &bundle{t: t, ctx: t.Context(), asked: &statements{}}
	b.db = db.WithQueryHook(b.asked)
	assets, err := static.New()
	if err != nil {
		t.Fatal(err)
	}
	log, hub := slog.New(slog.DiscardHandler), live.NewHub()
	service := jobs.New(jobs.Config{DB: b.db, Sealer: modeltest.Sealer(t), Hints: hub, Log: log})
	agents := agentapi.New(agentapi.Config{DB: b.db, Jobs: service, Hub: hub, Log: log})
	t.Cleanup(agents.Close)
	config := Config{
		DB: b.db, Jobs: service, Hub: hub, Agents: agents, Assets: assets, Log: log,
		TrustedProxies: []*net.IPNet{{IP: net.ParseIP(trustedProxy).To4(), Mask: net.CIDRMask(32, 32)}},
	}
	b.h = newHandlers(config)
	b.web = b.h.router()
	return b
}

// token is a program's credential.
func (b *bundle) token(role models.Role) string {
	b.t.Helper()
	token, _, err := models.AddAPIToken(b.ctx, b.db, string(role), role)
	if err != nil {
		b.t.Fatal(err)
	}
	return token
}

const password = "correct horse"

// session is a person who has signed in, without the cost of a password.
func (b *bundle) session(role models.Role) string {
	b.t.Helper()
	user := models.NewID[models.UserID]()
	b.exec("insert into users (id, name, role, password_hash) values (?, ?, ?, '')", user, string(role), role)
	token, err := models.StartSession(b.ctx, b.db, user, "", "")
	if err != nil {
		b.t.Fatal(err)
	}
	return token
}

func (b *bundle) exec(query string, args ...any) {
	b.t.Helper()
	if _, err := b.db.ExecContext(b.ctx, query, args...); err != nil {
		b.t.Fatalf("%s: %v", query, err)
	}
}

func (b *bundle) count(query string, args ...any) int {
	b.t.Helper()
	var n int
	if err := b.db.QueryRowContext(b.ctx, query, args...).Scan(&n); err != nil {
		b.t.Fatalf("%s: %v", query, err)
	}
	return n
}

func (b *bundle) request(method, path string, body io.Reader, header ...string) *http.Request {
	b.t.Helper()
	r := httptest.NewRequestWithContext(b.ctx, method, path, body)
	for i := 0; i < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	if ip := r.Header.Get("X-From"); ip != "" {
		r.RemoteAddr = ip + ":4711"
	}
	return r
}

func (b *bundle) do(method, path string, body io.Reader, header ...string) *http.Response {
	b.t.Helper()
	return b.serve(b.request(method, path, body, header...))
}

func (b *bundle) serve(r *http.Request) *http.Response {
	w := httptest.NewRecorder()
	b.web.ServeHTTP(w, r)
	return w.Result()
}

func (b *bundle) login(name, password string, header ...string) *http.Response {
	b.t.Helper()
	form := url.Values{"username": {name}, "password": {password}}
	r := b.request("POST", "/login", strings.NewReader(form.Encode()), header...)
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	return b.serve(r)
}

// entry is one line of the table, as requests meet it.
type entry struct {
	method, pattern string
	who             access
}

func (e entry) String() string { return e.method + " " + e.pattern }

// path is the pattern with ids of things that aren't there.
func (e entry) path() string {
	parts := strings.Split(e.pattern, "/")
	for i, p := range parts {
		if strings.HasPrefix(p, ":") {
			parts[i] = uuid.NewString()
		}
	}
	return strings.Join(parts, "/")
}

func body(t testing.TB, res *http.Response) string {
	t.Helper()
	defer res.Body.Close()
	raw, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(raw)
}

// untouched is a body that nobody may read.
type untouched struct {
	t    testing.TB
	what string
}

func (u untouched) Read([]byte) (int, error) {
	u.t.Errorf("%s: the body was read", u.what)
	return 0, fmt.Errorf("read")
}
