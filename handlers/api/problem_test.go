package api_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/labstack/echo/v4"

	"resticfleet/handlers/api"
	"resticfleet/models"
)

func TestProblem(t *testing.T) {
	t.Parallel()
	gone := &models.Error{Code: models.EGone, Message: "This is retired.", Detail: map[string]any{"replacement": "POST /x", "status": "faked"}}
	for _, c := range []struct {
		err        error
		status     int
		detail     string
		header     string
		headerText string
	}{
		{gone, 410, "This is retired.", "", ""},
		{fmt.Errorf("find: %w", models.NotFound("host", "x")), 404, `There is no host "x".`, "", ""},
		{&models.Error{Code: models.EUnauthorized, Message: "Who?"}, 401, "Who?", "Www-Authenticate", "Bearer"},
		{&models.Error{Code: models.EForbidden, Message: "No."}, 403, "No.", "", ""},
		{&models.Error{Code: models.EUnavailable, Message: "Later."}, 503, "Later.", "Retry-After", "5"},
		{models.Invalid("cron", "is bad: mend it"), 422, "cron: is bad: mend it", "", ""},
		{echo.ErrNotFound, 404, "/api/openapi.json", "", ""},
		{echo.ErrMethodNotAllowed, 405, "/api/openapi.json", "", ""},
		{errors.New("canary: pq exploded"), 500, "log", "", ""},
		{&models.Error{Code: models.EInternal, Message: "canary"}, 500, "log", "", ""},
	} {
		w := httptest.NewRecorder()
		if err := api.WriteProblem(w, c.err); err != nil {
			t.Fatal(err)
		}
		raw := w.Body.String()
		var p object
		if err := json.Unmarshal(w.Body.Bytes(), &p); err != nil {
			t.Fatalf("%v: %s", err, raw)
		}
		if w.Code != c.status || p["status"] != float64(c.status) || !strings.Contains(p["detail"].(string), c.detail) {
			t.Errorf("%v: %d %s", c.err, w.Code, raw)
		}
		if got := w.Header().Get("Content-Type"); got != "application/problem+json" {
			t.Errorf("Content-Type %q", got)
		}
		if c.header != "" && !strings.Contains(w.Header().Get(c.header), c.headerText) {
			t.Errorf("%v: %v", c.err, w.Header())
		}
		if strings.Contains(raw, "canary") {
			t.Errorf("told: %s", raw)
		}
		if status, _ := api.Problem(c.err); status != c.status {
			t.Errorf("Problem says %d", status)
		}
	}
	_, body := api.Problem(gone)
	raw, err := json.Marshal(body)
	if err != nil || !strings.Contains(string(raw), `"replacement":"POST /x"`) {
		t.Errorf("%s: %v", raw, err)
	}
}

// A database that is away is a 503, and a fault of ours is told to the log
// alone.
func TestWhenTheDatabaseIsAway(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.exec("alter table hosts rename to elsewhere")
	b.call("GET", "/api/hosts", nil).refused(500, "")
	if log := b.logged.String(); strings.Count(log, "\n") != 1 || !strings.Contains(log, `relation \"hosts\" does not exist`) {
		t.Errorf("log: %s", log)
	}
	if strings.Contains(b.seen.String(), "relation") {
		t.Error("the answer tells of the inside")
	}

	// A server that is being stopped ends its connections.
	_, err := b.db.ExecContext(t.Context(), "select pg_terminate_backend(pg_backend_pid())")
	if status, _ := api.Problem(err); status != 503 || !models.Unavailable(err) {
		t.Errorf("a connection that was ended is %d: %v", status, err)
	}
	if models.Unavailable(context.DeadlineExceeded) || models.Unavailable(nil) {
		t.Error("being slow is not being away")
	}

	away, err := models.Open("postgres://u:canary@/db?host=" + t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = away.Close() })
	e := newEcho(b.who)
	api.Register(e, api.Config{DB: away, Jobs: b.jobs, Log: silent()})
	server := httptest.NewServer(e)
	t.Cleanup(server.Close)
	b.url = server.URL
	r := b.call("GET", "/api/hosts", nil)
	r.refused(503, "")
	if r.header.Get("Retry-After") == "" {
		t.Error("no Retry-After")
	}
	if strings.Contains(b.seen.String(), "canary") {
		t.Error("the answer holds the database's password")
	}
}

// Work is somebody's: without an identity there is none.
func TestWorkNeedsSomebody(t *testing.T) {
	t.Parallel()
	b := setup(t)
	host := b.addHost("web-1")
	b.bind(host)
	e := newEcho(nil)
	api.Register(e, api.Config{DB: b.db, Jobs: b.jobs, Log: silent()})
	server := httptest.NewServer(e)
	t.Cleanup(server.Close)
	b.url = server.URL
	b.call("POST", "/api/hosts/"+host+"/repository/unlock", nil).refused(401, "")
}
