package api_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/labstack/echo/v4"

	"resticfleet/handlers/api"
	"resticfleet/handlers/live"
	"resticfleet/jobs"
	"resticfleet/models"
	"resticfleet/models/modeltest"
)

func TestMain(m *testing.M) { modeltest.Main(m) }

// bundle is a server with the API alone on a database of its own. Requests
// come from an administrator's token.
type bundle struct {
	t    *testing.T
	db   *models.DB
	jobs *jobs.Service
	hub  *live.Hub
	url  string
	// seen is everything the API has said, and logged what the log has.
	seen   *bytes.Buffer
	logged *lockedBuffer
	who    *models.Identity
}

type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

func setup(t *testing.T) *bundle {
	t.Helper()
	b := &bundle{t: t, db: modeltest.DB(t), hub: live.NewHub(), seen: &bytes.Buffer{}, logged: &lockedBuffer{}}
	log := slog.New(slog.NewTextHandler(b.logged, nil))
	b.jobs = jobs.New(jobs.Config{DB: b.db, Sealer: modeltest.Sealer(t), Hints: b.hub, Log: log})
	b.who = &models.Identity{TokenID: models.NewID[models.TokenID](), Name: "ci", Role: models.RoleAdmin}
	e := newEcho(b.who)
	api.Register(e, api.Config{DB: b.db, Jobs: b.jobs, Log: log, BaseURL: func(r *http.Request) string { return "https://" + r.Host + "/" }})
	server := httptest.NewServer(e)
	t.Cleanup(server.Close)
	b.url = server.URL
	return b
}

func newEcho(who *models.Identity) *echo.Echo {
	e := echo.New()
	e.HTTPErrorHandler = func(err error, c echo.Context) { _ = api.WriteProblem(c.Response(), err) }
	e.Use(func(next echo.HandlerFunc) echo.HandlerFunc {
		return func(c echo.Context) error {
			if who != nil {
				c.SetRequest(c.Request().WithContext(api.WithIdentity(c.Request().Context(), who)))
			}
			return next(c)
		}
	})
	return e
}

type object = map[string]any

type reply struct {
	t      *testing.T
	status int
	header http.Header
	raw    string
	body   object
}

// call sends a body: a string as it is, nil as none, anything else as JSON.
func (b *bundle) call(method, path string, body any, header ...string) reply {
	b.t.Helper()
	var payload io.Reader
	switch body := body.(type) {
	case nil:
	case string:
		payload = strings.NewReader(body)
	default:
		raw, err := json.Marshal(body)
		if err != nil {
			b.t.Fatal(err)
		}
		payload = bytes.NewReader(raw)
	}
	req, err := http.NewRequestWithContext(b.t.Context(), method, b.url+path, payload)
	if err != nil {
		b.t.Fatal(err)
	}
	if payload != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	for i := 0; i < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
		if header[i] == "Host" {
			req.Host = header[i+1]
		}
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		b.t.Fatalf("%s %s: %v", method, path, err)
	}
	defer res.Body.Close()
	raw, err := io.ReadAll(res.Body)
	if err != nil {
		b.t.Fatalf("%s %s: %v", method, path, err)
	}
	b.seen.Write(raw)
	fmt.Fprintln(b.seen, res.Header)
	r := reply{t: b.t, status: res.StatusCode, header: res.Header, raw: string(raw)}
	_ = json.Unmarshal(raw, &r.body)
	return r
}

// want checks the status and returns the object.
func (r reply) want(status int) object {
	r.t.Helper()
	if r.status != status {
		r.t.Fatalf("status %d, want %d: %s", r.status, status, r.raw)
	}
	return r.body
}

// refused checks that r is a problem of this status, and that its detail and
// errors name the field.
func (r reply) refused(status int, field string) object {
	r.t.Helper()
	p := r.want(status)
	if got := r.header.Get("Content-Type"); got != "application/problem+json" {
		r.t.Errorf("Content-Type %q: %s", got, r.raw)
	}
	if p["status"] != float64(status) || p["title"] != http.StatusText(status) || p["type"] != "about:blank" || p["detail"] == "" {
		r.t.Errorf("not a whole problem: %s", r.raw)
	}
	if field == "" {
		return p
	}
	list, _ := p["errors"].([]any)
	named := slices.ContainsFunc(list, func(e any) bool {
		one := e.(object)
		return one["field"] == field && one["message"] != "" && strings.HasSuffix(one["location"].(string), "."+field)
	})
	if !named || !strings.Contains(p["detail"].(string), field) {
		r.t.Errorf("does not name %s: %s", field, r.raw)
	}
	return p
}

func (b *bundle) addHost(name string) string {
	b.t.Helper()
	return b.call("POST", "/api/hosts", object{"name": name}).want(201)["id"].(string)
}

func (b *bundle) addGroup(host, name string) string {
	b.t.Helper()
	return b.call("POST", "/api/hosts/"+host+"/source-groups", object{"name": name, "includes": []string{"/srv"}}).want(201)["id"].(string)
}

func (b *bundle) bind(host string) {
	b.t.Helper()
	b.call("PUT", "/api/hosts/"+host+"/repository", object{"url": "/srv/repo", "password": "correct horse"}).want(200)
}

// exec changes what otherwise only an agent would.
func (b *bundle) exec(query string, args ...any) {
	b.t.Helper()
	if _, err := b.db.ExecContext(b.t.Context(), query, args...); err != nil {
		b.t.Fatal(err)
	}
}

func TestTheTableHasEveryRouteOfTheRouter(t *testing.T) {
	t.Parallel()
	e := echo.New()
	api.Register(e, api.Config{})
	inTable := map[string]models.Role{}
	for _, r := range api.Routes() {
		key := r.Method + " " + r.Pattern
		if _, twice := inTable[key]; twice {
			t.Errorf("%s stands twice", key)
		}
		inTable[key] = r.Role
	}
	for _, r := range e.Routes() {
		if _, ok := inTable[r.Method+" "+r.Path]; !ok {
			t.Errorf("%s %s is routed and has no role", r.Method, r.Path)
		}
	}
	if len(e.Routes()) != len(inTable) {
		t.Errorf("%d routes, %d rows", len(e.Routes()), len(inTable))
	}
}

func TestRoles(t *testing.T) {
	t.Parallel()
	operator := []string{
		"POST /api/hosts/:id/source-groups", "PUT /api/hosts/:id/source-groups/:gid", "DELETE /api/hosts/:id/source-groups/:gid",
		"POST /api/hosts/:id/source-groups/:gid/run", "POST /api/hosts/:id/schedules", "PUT /api/hosts/:id/schedules/:sid",
		"DELETE /api/hosts/:id/schedules/:sid", "POST /api/jobs/:id/cancel",
		"POST /api/hosts/:id/source-groups/:gid/retention-preview", "POST /api/hosts/:id/snapshots/refresh", "PATCH /api/hosts/:id/snapshots/:snap",
		"GET /api/hosts/:id/snapshots/:snap/diff", // it tells what is inside
	}
	for _, r := range api.Routes() {
		want := models.RoleAdmin
		switch {
		case slices.Contains(operator, r.Method+" "+r.Pattern):
			want = models.RoleOperator
		case r.Method == http.MethodGet:
			want = models.RoleViewer
		}
		if r.Role != want {
			t.Errorf("%s %s takes the role %s, want %s", r.Method, r.Pattern, r.Role, want)
		}
	}
}

func TestOpenAPI(t *testing.T) {
	t.Parallel()
	b := setup(t)
	r := b.call("GET", "/api/openapi.json", nil)
	spec := r.want(200)
	if version, _ := spec["openapi"].(string); !strings.HasPrefix(version, "3.1.") {
		t.Errorf("openapi %q", version)
	}
	for _, elsewhere := range []string{"$schema", "http://", "https://"} {
		if strings.Contains(r.raw, elsewhere) {
			t.Errorf("the document holds %s", elsewhere)
		}
	}
	paths := spec["paths"].(object)
	braces := strings.NewReplacer(":id", "{id}", ":gid", "{gid}", ":sid", "{sid}", ":kind", "{kind}", ":snap", "{snap}")
	for _, route := range api.Routes() {
		if route.Pattern == "/api/openapi.json" {
			continue
		}
		item, _ := paths[braces.Replace(route.Pattern)].(object)
		op, _ := item[strings.ToLower(route.Method)].(object)
		if op == nil {
			t.Errorf("%s %s is not in the document", route.Method, route.Pattern)
			continue
		}
		if !strings.Contains(op["description"].(string), string(route.Role)) {
			t.Errorf("%s %s does not say its role", route.Method, route.Pattern)
		}
		errorAnswer, _ := op["responses"].(object)["default"].(object)
		if _, ok := errorAnswer["content"].(object)["application/problem+json"]; !ok {
			t.Errorf("%s %s does not describe its errors", route.Method, route.Pattern)
		}
	}
	// What is read may be sent back.
	fields := spec["components"].(object)["schemas"].(object)["ScheduleFields"].(object)
	properties := fields["properties"].(object)
	if properties["next_runs"].(object)["readOnly"] != true || properties["cron"].(object)["readOnly"] == true || fields["additionalProperties"] != false {
		t.Errorf("schedule fields: %v", fields)
	}
}

func TestUnknownAddressesAndMethods(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.call("GET", "/api/nothing", nil).refused(404, "")
	b.call("DELETE", "/api/jobs", nil).refused(405, "")
	b.call("POST", "/api/hosts/"+b.addHost("web-1")+"/repo-maintenance/backup/run", nil).refused(404, "")
}

func TestAnyAcceptHeaderIsAnswered(t *testing.T) {
	t.Parallel()
	b := setup(t)
	for _, accept := range []string{"", "*/*", "text/html", "application/problem+json", "a;,bbbb", "application/json;,x", "é;q,", ";;,,"} {
		r := b.call("GET", "/api/hosts", nil, "Accept", accept)
		r.want(200)
		if got := r.header.Get("Content-Type"); got != "application/json" {
			t.Errorf("Accept %q: %q", accept, got)
		}
	}
}

func silent() *slog.Logger { return slog.New(slog.DiscardHandler) }
