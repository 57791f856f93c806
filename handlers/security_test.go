package handlers

import (
	"fmt"
	"net/http"
	"regexp"
	"strings"
	"testing"

	"resticfleet/models"
)

// unsafe are the routes of the table that change something.
func (b *bundle) unsafe() []entry {
	var all []entry
	for _, e := range b.table() {
		if !safe(e.method) {
			all = append(all, e)
		}
	}
	return all
}

// Who may change what, in the words of the roles: a route of the table that no
// line here knows is for administrators.
func TestARouteHasTheRoleThatItsMatterAsksFor(t *testing.T) {
	t.Parallel()
	b := setup(t)
	matters := []struct {
		pattern *regexp.Regexp
		who     access
	}{
		{regexp.MustCompile(`^/(login|logout|setup|theme)$`), public},
		{regexp.MustCompile(`^/agent/v1/`), agent},
		{regexp.MustCompile(`^/settings/(password|sessions/.*)$`), "person"}, // one's own
		{regexp.MustCompile(`^(/api)?/hosts/:id/(source-groups|schedules)(/.*)?$`), operator},
		{regexp.MustCompile(`^(/api)?/jobs/:id/(cancel|again)$`), operator},
		{regexp.MustCompile(`^/`), admin},
	}
	pages := map[string]access{}
	for _, e := range b.unsafe() {
		for _, m := range matters {
			if m.pattern.MatchString(e.pattern) {
				if e.who != m.who {
					t.Errorf("%s is for %s, want %s", e, e.who, m.who)
				}
				break
			}
		}
		pages[e.pattern] = e.who
	}
	// A form is shown to who may send it.
	for _, e := range b.table() {
		action := strings.TrimSuffix(e.pattern, "/new")
		form := action != e.pattern || strings.HasSuffix(e.pattern, "/delete") || strings.HasSuffix(e.pattern, "/revoke")
		if who, ok := pages[action]; safe(e.method) && form && (!ok || who != e.who) {
			t.Errorf("%s is for %s, its form for %q", e, e.who, who)
		}
	}
}

// Every request to every unsafe route leaves one entry, whatever became of it:
// by somebody who may, who may not, whom nobody knows, and from another site.
// It says who it was, and nothing of what was sent.
func TestEveryChangeIsAudited(t *testing.T) {
	t.Parallel()
	b := setup(t)
	const canary = "canary-in-the-request"
	sent := func() *strings.Reader {
		return strings.NewReader(`{"name":"` + canary + `","password":"` + canary + `","username":"` + canary + `","token":"` + canary + `"}`)
	}
	viewer, bearer := b.session(models.RoleViewer), b.token(models.RoleViewer)
	for _, e := range b.unsafe() {
		address := 0
		try := func(kind, name string, header ...string) {
			t.Helper()
			r := b.request(e.method, e.path()+"?token="+canary, sent(), append(header, "User-Agent", canary)...)
			address++
			r.RemoteAddr = fmt.Sprintf("192.0.2.%d:4711", address)
			res := b.serve(r)
			body(t, res)
			want := 1
			if unaudited[e.String()] {
				want = 0
			}
			n := b.count("select count(*) from audit_entries where action = ? and target = ? and outcome = ? and address = ? and actor_kind = ? and actor_name = ?",
				e.String(), r.URL.Path, auditedAs(res), strings.TrimSuffix(r.RemoteAddr, ":4711"), kind, name)
			all := b.count("select count(*) from audit_entries where target = ?", r.URL.Path)
			b.exec("delete from audit_entries where audit_entries::text not like ?", "%"+canary+"%")
			if n != want || all != want {
				t.Errorf("%s by %s %q (%d) left %d entries that fit, and %d", e, kind, name, res.StatusCode, n, all)
			}
		}
		stranger := "system"
		if e.who == agent {
			stranger = "agent"
		}
		try(stranger, "", "Sec-Fetch-Site", "cross-site", "Cookie", "session="+viewer)
		try(stranger, "", "Authorization", "Bearer rf_"+canary)
		try(stranger, "")
		if e.who != public && e.who != agent {
			try("user", "viewer", "Cookie", "session="+viewer)
			try("token", "viewer", "Authorization", "Bearer "+bearer)
			// It may end the session, or the user.
			b.exec("delete from users where name = 'admin'")
			try("user", "admin", "Cookie", "session="+b.session(models.RoleAdmin))
		}
	}
	if n := b.count("select count(*) from audit_entries"); n != 0 {
		t.Errorf("%d entries hold what was sent", n)
	}
	// What only looks, and what leads nowhere, leaves none.
	cookie := "session=" + b.session(models.RoleOperator)
	for _, e := range b.table() {
		if safe(e.method) && e.pattern != "/events" {
			body(t, b.do(e.method, e.path(), nil, "Cookie", cookie))
		}
	}
	body(t, b.do("POST", "/nowhere", sent(), "Cookie", cookie))
	body(t, b.do("DELETE", "/jobs", sent(), "Cookie", cookie))
	if n := b.count("select count(*) from audit_entries"); n != 0 {
		t.Errorf("looking left %d entries", n)
	}
	for _, path := range []string{"/jobs/%00/cancel", "/jobs/%ff%fe/cancel", "/jobs/" + strings.Repeat("ü", 400) + "/cancel"} {
		before := b.count("select count(*) from audit_entries")
		body(t, b.do("POST", path, nil, "Cookie", cookie))
		if n := b.count("select count(*) from audit_entries"); n != before+1 {
			t.Errorf("%.20s left %d entries", path, n-before)
		}
	}
}

// auditedAs is the outcome of an entry: a stranger's page is a redirect to the
// login, and yet it was refused. Logging out takes the cookie away.
func auditedAs(res *http.Response) int {
	if res.StatusCode == http.StatusSeeOther && res.Header.Get("Location") == "/login" && len(res.Cookies()) == 0 {
		return http.StatusUnauthorized
	}
	return res.StatusCode
}

// A panic is a failure like others: a 500 that is audited.
func TestAPanicIsAudited(t *testing.T) {
	t.Parallel()
	b := setup(t)
	broken := b.h.Config
	broken.Jobs = nil
	b.web = New(broken)
	res := b.do("POST", "/jobs/"+models.NewID[models.JobID]().String()+"/cancel", nil, "Cookie", "session="+b.session(models.RoleAdmin))
	if got := body(t, res); res.StatusCode != 500 || res.Header.Get("Content-Security-Policy") == "" || strings.Contains(got, "nil pointer") {
		t.Errorf("%d %s", res.StatusCode, got)
	}
	if n := b.count("select count(*) from audit_entries where outcome = 500 and actor_name = 'admin'"); n != 1 {
		t.Errorf("%d entries", n)
	}
}

// Somebody unknown can't fill the database with refusals; whoever is known is
// audited always.
func TestStrangersCantFillTheAuditLog(t *testing.T) {
	t.Parallel()
	b := setup(t)
	try := func(remote string, header ...string) {
		r := b.request("POST", "/api/hosts", strings.NewReader("{}"), header...)
		r.RemoteAddr = remote
		body(t, b.serve(r))
	}
	for i := range refusalsPerAddress + 20 {
		try("192.0.2.1:1", "Sec-Fetch-Site", "cross-site")
		try(fmt.Sprintf("[2001:db8::%x]:1", i+1))
	}
	if n := b.count("select count(*) from audit_entries"); n != 2*refusalsPerAddress {
		t.Errorf("%d entries of two strangers", n)
	}
	try("192.0.2.2:1")
	try("192.0.2.1:1", "Authorization", "Bearer "+b.token(models.RoleViewer))
	if n := b.count("select count(*) from audit_entries"); n != 2*refusalsPerAddress+2 {
		t.Errorf("%d entries with another's and a known one's", n)
	}
}
