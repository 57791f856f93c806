package handlers

import (
	"net/http"
	"strings"
	"testing"

	"github.com/labstack/echo/v4"

	"resticfleet/handlers/api"
	"resticfleet/models"
)

// table is every route with who may use it.
func (b *bundle) table() []entry {
	var all []entry
	for _, r := range b.h.routes() {
		all = append(all, entry{r.method, r.path, r.who})
	}
	for _, r := range api.Routes() {
		all = append(all, entry{r.Method, r.Pattern, access(r.Role)})
	}
	return all
}

func TestEveryRouteStandsInTheTable(t *testing.T) {
	t.Parallel()
	b := setup(t)
	rows := map[string]bool{}
	for _, e := range b.table() {
		if rows[e.String()] {
			t.Errorf("%s stands twice", e)
		}
		rows[e.String()] = true
		switch e.who {
		case public, agent, person, viewer, operator, admin:
		default:
			t.Errorf("%s is for %q", e, e.who)
		}
		if e.who == public && strings.HasPrefix(e.pattern, "/api") || e.who == agent != strings.HasPrefix(e.pattern, "/agent/") {
			t.Errorf("%s is for %s", e, e.who)
		}
		unsafe := e.method != http.MethodGet && e.method != http.MethodHead
		if unsafe && e.who == viewer {
			t.Errorf("%s lets a viewer change something", e)
		}
	}
	for _, r := range b.web.Routes() {
		if !rows[r.Method+" "+r.Path] {
			t.Errorf("%s %s is routed and not in the table", r.Method, r.Path)
		}
	}
	if n := len(b.web.Routes()); n != len(rows) {
		t.Errorf("%d routes, %d rows", n, len(rows))
	}
}

func TestARouteOutsideTheTableIsClosed(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.web.GET("/forgotten", func(c echo.Context) error { return c.String(http.StatusOK, "forgotten but open") })
	b.web.PUT("/jobs", func(c echo.Context) error { return c.String(http.StatusOK, "forgotten but open") })
	bearer := "Bearer " + b.token(models.RoleAdmin)
	for _, r := range [][2]string{{"GET", "/forgotten"}, {"PUT", "/jobs"}} {
		res := b.do(r[0], r[1], nil, "Authorization", bearer)
		if got := body(t, res); res.StatusCode != http.StatusNotFound || strings.Contains(got, "forgotten but open") {
			t.Errorf("%v: %d", r, res.StatusCode)
		}
	}
	res := b.do("DELETE", "/jobs", nil, "Authorization", bearer)
	if body(t, res); res.StatusCode != http.StatusMethodNotAllowed || !strings.Contains(res.Header.Get("Allow"), "GET") {
		t.Errorf("another method: %d, Allow %q", res.StatusCode, res.Header.Get("Allow"))
	}
}

// Every route and every role, as a person with a cookie and as a program with
// a token: who may not is told so before any of the body is read.
func TestRolesAreEnforcedOnEveryRoute(t *testing.T) {
	t.Parallel()
	b := setup(t)
	roles := []models.Role{"", models.RoleViewer, models.RoleOperator, models.RoleAdmin}
	headers := map[models.Role][][]string{"": {{}, {"Cookie", "session=made-up"}, {"Authorization", "Bearer rf_made-up"}, {"Authorization", "Basic eDp5"}}}
	for _, role := range roles[1:] {
		headers[role] = [][]string{{"Cookie", "session=" + b.session(role)}, {"Authorization", "Bearer " + b.token(role)}}
	}
	for _, e := range b.table() {
		if e.who == public || e.who == agent {
			continue
		}
		for _, role := range roles {
			for _, header := range headers[role] {
				what := e.String() + " as " + string(role) + " " + strings.Join(header, " ")
				asJSON := strings.HasPrefix(e.pattern, "/api") || e.pattern == "/metrics"
				asPerson := role != "" && header[0] == "Cookie"
				if role.Allows(models.Role(e.who)) || e.who == person && asPerson {
					res := b.do(e.method, e.path(), strings.NewReader("{"), header...)
					got := body(t, res)
					if res.StatusCode == 401 || res.StatusCode == 403 || res.StatusCode >= 500 || res.Header.Get("Location") == "/login" {
						t.Errorf("%s: %d %s", what, res.StatusCode, got)
					}
					continue
				}
				want := http.StatusForbidden
				switch {
				case role == "" && (asJSON || e.pattern == "/events"):
					want = http.StatusUnauthorized
				case role == "":
					want = http.StatusSeeOther
				}
				res := b.do(e.method, e.path(), untouched{t, what}, header...)
				got := body(t, res)
				if res.StatusCode != want {
					t.Errorf("%s: %d, want %d", what, res.StatusCode, want)
				}
				if asJSON && (res.Header.Get("Content-Type") != "application/problem+json" || !strings.Contains(got, `"detail"`)) {
					t.Errorf("%s: no problem: %s", what, got)
				}
				if want == http.StatusSeeOther && res.Header.Get("Location") != "/login" {
					t.Errorf("%s: sent to %q", what, res.Header.Get("Location"))
				}
				if role == "" && !asJSON {
					res := b.do(e.method, e.path(), untouched{t, what}, append(header, "HX-Request", "true", "HX-Request-Type", "partial")...)
					if body(t, res); res.StatusCode != 401 || res.Header.Get("HX-Redirect") != "/login" {
						t.Errorf("%s by HTMX: %d %q", what, res.StatusCode, res.Header.Get("HX-Redirect"))
					}
				}
			}
		}
	}
}

func TestOtherSitesCantMakeABrowserAct(t *testing.T) {
	t.Parallel()
	b := setup(t)
	cookie := "session=" + b.session(models.RoleAdmin)
	for _, e := range b.table() {
		if e.method == http.MethodGet || e.method == http.MethodHead {
			continue
		}
		for _, header := range [][]string{
			{"Sec-Fetch-Site", "cross-site"}, {"Sec-Fetch-Site", "same-site"},
			{"Origin", "https://evil.example"}, {"Origin", "null"},
		} {
			res := b.do(e.method, e.path(), untouched{t, e.String()}, append(header, "Cookie", cookie)...)
			if body(t, res); res.StatusCode != http.StatusForbidden {
				t.Errorf("%s with %v: %d", e, header, res.StatusCode)
			}
		}
	}
	if n := b.count("select count(*) from audit_entries where outcome <> 403"); n != 0 {
		t.Errorf("%d changes came through", n)
	}
	for _, header := range [][]string{{"Sec-Fetch-Site", "same-origin"}, {"Sec-Fetch-Site", "none"}, {"Origin", "http://example.com"}, {}} {
		res := b.do("POST", "/api/hosts", strings.NewReader("{}"), append(header, "Cookie", cookie, "Content-Type", "application/json")...)
		if body(t, res); res.StatusCode != http.StatusUnprocessableEntity {
			t.Errorf("with %v: %d", header, res.StatusCode)
		}
	}
	// A browser that another site sends is refused with a token as well.
	bearer := "Bearer " + b.token(models.RoleAdmin)
	for _, c := range []struct {
		header []string
		status int
	}{{[]string{}, 422}, {[]string{"Sec-Fetch-Site", "cross-site"}, 403}, {[]string{"Origin", "https://evil.example"}, 403}} {
		res := b.do("POST", "/api/hosts", strings.NewReader("{}"), append(c.header, "Authorization", bearer, "Content-Type", "application/json")...)
		if body(t, res); res.StatusCode != c.status {
			t.Errorf("a program with %v: %d", c.header, res.StatusCode)
		}
	}
	// Looking is fine from anywhere: a link in a mail.
	res := b.do("GET", "/jobs", nil, "Cookie", cookie, "Sec-Fetch-Site", "cross-site")
	if body(t, res); res.StatusCode != http.StatusOK {
		t.Errorf("a link from elsewhere: %d", res.StatusCode)
	}
}

// A browser is told how to treat what it may get; agents are spared what only
// a browser understands.
func TestWhichHeadersProtectAnAnswer(t *testing.T) {
	t.Parallel()
	b := setup(t)
	for _, c := range []struct {
		path    string
		browser bool
	}{{"/login", true}, {"/", true}, {"/api/hosts", true}, {"/healthz", true}, {"/nowhere", true}, {"/agent/v1/nowhere", true}, {"/agent/v1/schedule", false}} {
		res := b.do("GET", c.path, nil, "X-Forwarded-Proto", "https")
		_ = body(t, res)
		for _, name := range []string{"X-Content-Type-Options", "Cache-Control"} {
			if res.Header.Get(name) == "" {
				t.Errorf("%s: no %s", c.path, name)
			}
		}
		for _, name := range []string{"Content-Security-Policy", "X-Frame-Options", "Referrer-Policy", "Cross-Origin-Opener-Policy", "Cross-Origin-Resource-Policy", "Vary"} {
			if got := res.Header.Get(name) != ""; got != c.browser {
				t.Errorf("%s: %s is there: %v", c.path, name, got)
			}
		}
	}
}
