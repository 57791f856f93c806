package handlers

import (
	"bufio"
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"regexp"
	"strings"
	"testing"
	"time"

	"resticfleet/jobs"
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
		{regexp.MustCompile(`^/settings/(password|sessions/.*)$`), person},              // one's own
		{regexp.MustCompile(`^/hosts/:id/source-groups/:gid/remove-snapshots$`), admin}, // the danger zone
		{regexp.MustCompile(`^(/api)?/hosts/:id/(source-groups|schedules)(/.*)?$`), operator},
		{regexp.MustCompile(`^(/api)?/hosts/:id/snapshots/refresh$`), operator},
		{regexp.MustCompile(`^/hosts/:id/snapshots/:snap/hold$`), operator}, // a note; a deletion is the danger zone
		{regexp.MustCompile(`^(/api)?/jobs/:id/(cancel|again)$`), operator},
		{regexp.MustCompile(`^/`), admin},
	}
	// One path, two matters: a hold is a note, a deletion is the danger zone.
	hold := "PATCH /api/hosts/:id/snapshots/:snap"
	pages := map[string]access{}
	for _, e := range b.unsafe() {
		for _, m := range matters {
			if m.pattern.MatchString(e.pattern) {
				if e.String() == hold {
					m.who = operator
				}
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

// tap is the stream of a page, as its browser reads it.
type tap struct {
	status int
	lines  chan string // closed at its end
	close  context.CancelFunc
}

// tap opens a stream on a real socket and reads the first thing it sends.
func (b *bundle) tap(web *httptest.Server, on string, header ...string) *tap {
	b.t.Helper()
	ctx, cancel := context.WithCancel(b.ctx)
	req, err := http.NewRequestWithContext(ctx, "GET", web.URL+"/events?on="+on, nil)
	if err != nil {
		b.t.Fatal(err)
	}
	for i := 0; i < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	res, err := web.Client().Do(req)
	if err != nil {
		b.t.Fatal(err)
	}
	s := &tap{status: res.StatusCode, lines: make(chan string, 10_000), close: cancel}
	go func() {
		defer close(s.lines)
		defer res.Body.Close()
		for scanner := bufio.NewScanner(res.Body); scanner.Scan(); {
			s.lines <- scanner.Text()
		}
	}()
	b.t.Cleanup(func() { // nothing goes on reading when the test has ended
		cancel()
		for range s.lines {
		}
	})
	return s
}

// event reads to the end of one event; false at the end of the stream.
func (s *tap) event() (text string, ok bool) {
	for line := range s.lines {
		if line == "" {
			return text, true
		}
		text += line + "\n"
	}
	return text, false
}

// A stream is authorised at its start, and nothing is sent any more once its
// session has ended, its role has changed, or its host is deleted.
func TestAStreamEndsWithWhatItWasOpenedBy(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.h.pingEvery = time.Hour // long enough to tell what ends by itself
	web := httptest.NewServer(b.web)
	t.Cleanup(web.Close)
	host, err := models.AddHost(b.ctx, b.db, models.HostFields{Name: "web-1"})
	if err != nil {
		t.Fatal(err)
	}
	for _, on := range []string{"fleet", "host:" + host.ID.String()} {
		if s := b.tap(web, on); s.status != http.StatusUnauthorized {
			t.Errorf("%s for a stranger: %d", on, s.status)
		}
	}
	cookie := func(role models.Role) []string { return []string{"Cookie", "session=" + b.session(role)} }
	admin := cookie(models.RoleAdmin)
	if s := b.tap(web, "host:"+models.NewID[models.HostID]().String(), admin...); s.status != http.StatusNotFound {
		t.Errorf("a host that isn't there: %d", s.status)
	}
	viewer := cookie(models.RoleViewer)
	program := []string{"Authorization", "Bearer " + b.token(models.RoleViewer)}
	b.exec("update users set name = 'chief' where name = 'admin'")
	chief := admin
	admin = cookie(models.RoleAdmin)
	whoIs := func(name string) (id string) {
		if err := b.db.NewRaw("select id::text from users where name = ?", name).Scan(b.ctx, &id); err != nil {
			t.Fatal(err)
		}
		return id
	}
	// Each stream is told that something has changed after it ought to have
	// ended; or it ends without that, where the server knows of it.
	again := func(on string) func() { return func() { b.h.Hub.Publish(jobs.Topic(on)) } }
	byItself := func() {}
	for _, c := range []struct {
		name, on string
		header   []string
		end      func()
		wake     func()
	}{
		{"the role changes", "fleet", cookie(models.RoleOperator), func() { b.exec("update users set role = 'viewer' where name = 'operator'") }, again("fleet")},
		{"the session is removed", "jobs", viewer, func() {
			b.exec("update sessions set expires_at = now() where user_id = (select id from users where name = 'viewer')")
		}, again("jobs")},
		{"the token is revoked", "fleet", program, func() { b.exec("update api_tokens set revoked_at = now()") }, again("fleet")},
		{"the host is deleted", "host:" + host.ID.String(), admin, func() {
			if res := b.do("DELETE", "/api/hosts/"+host.ID.String(), nil, admin...); res.StatusCode != http.StatusNoContent {
				t.Errorf("deleting the host: %d", res.StatusCode)
			}
		}, byItself},
		{"an administrator changes a role", "jobs", admin, func() {
			form := url.Values{"role": {"operator"}}
			res := b.do("POST", "/settings/users/"+whoIs("admin")+"/role", strings.NewReader(form.Encode()), append(chief, "Content-Type", "application/x-www-form-urlencoded")...)
			if body(t, res); res.StatusCode != http.StatusSeeOther {
				t.Errorf("changing the role: %d", res.StatusCode)
			}
		}, byItself},
		{"somebody logs out", "jobs", admin, func() { body(t, b.do("POST", "/logout", nil, admin...)) }, byItself},
	} {
		s := b.tap(web, c.on, c.header...)
		if first, ok := s.event(); !ok || s.status != http.StatusOK {
			t.Fatalf("%s: %d %q", c.name, s.status, first)
		}
		c.end()
		c.wake()
		select {
		case line, ok := <-s.lines:
			if ok {
				t.Errorf("%s, and yet it is sent %q", c.name, line)
			}
		case <-time.After(time.Minute):
			t.Errorf("%s, and yet it goes on", c.name)
		}
		s.close()
	}
}

// Whose address counts: that of the peer, and behind a proxy that is trusted
// the right-most one that isn't.
func TestWhoseAddressCounts(t *testing.T) {
	t.Parallel()
	networks := func(texts ...string) (all []*net.IPNet) {
		for _, text := range texts {
			_, n, err := net.ParseCIDR(text)
			if err != nil {
				t.Fatal(err)
			}
			all = append(all, n)
		}
		return all
	}
	trusted := networks("10.0.0.0/8", "fd00::/8")
	for _, c := range []struct {
		trusted      []*net.IPNet
		remote, want string
		forwarded    []string
	}{
		{nil, "192.0.2.1:1", "192.0.2.1", []string{"203.0.113.9"}},
		{nil, "127.0.0.1:1", "127.0.0.1", []string{"203.0.113.9"}}, // nobody is trusted unasked
		{trusted, "192.0.2.1:1", "192.0.2.1", []string{"203.0.113.9"}},
		{trusted, "127.0.0.1:1", "127.0.0.1", []string{"203.0.113.9"}},
		{trusted, "192.168.0.1:1", "192.168.0.1", []string{"203.0.113.9"}},
		{trusted, "169.254.0.1:1", "169.254.0.1", []string{"203.0.113.9"}},
		{trusted, "10.0.0.1:1", "203.0.113.9", []string{"203.0.113.9"}},
		{trusted, "10.0.0.1:1", "203.0.113.9", []string{"198.51.100.1, 203.0.113.9"}},
		{trusted, "10.0.0.1:1", "203.0.113.9", []string{"198.51.100.1", "203.0.113.9"}},
		{trusted, "10.0.0.1:1", "203.0.113.9", []string{"10.0.0.5, 203.0.113.9, 10.0.0.2"}},
		{trusted, "10.0.0.1:1", "203.0.113.9", []string{"garbage, 203.0.113.9"}},
		{trusted, "10.0.0.1:1", "10.0.0.1", []string{"203.0.113.9, garbage"}},
		{trusted, "10.0.0.1:1", "10.0.0.1", nil},
		{trusted, "10.0.0.1:1", "127.0.0.1", []string{"203.0.113.9, 127.0.0.1"}},
		{trusted, "[fd00::1]:1", "2001:db8::9", []string{"2001:db8::9"}},
		{trusted, "[2001:db8::1]:1", "2001:db8::1", []string{"203.0.113.9"}},
	} {
		r := httptest.NewRequestWithContext(t.Context(), "GET", "/", nil)
		r.RemoteAddr = c.remote
		r.Header["X-Forwarded-For"] = c.forwarded
		r.Header.Set("X-Real-Ip", "198.51.100.99")
		r.Header.Set("Forwarded", "for=198.51.100.99")
		if got := clientAddress(c.trusted)(r); got != c.want {
			t.Errorf("from %s for %q: %s, want %s", c.remote, c.forwarded, got, c.want)
		}
	}
}

// A made-up address doesn't buy further tries, and neither does another one of
// the same IPv6 network.
func TestAMadeUpAddressBuysNoTries(t *testing.T) {
	t.Parallel()
	b := setup(t)
	try := func(from, forwarded, name string) int {
		res := b.login(name, "wrong", "X-From", from, "X-Forwarded-For", forwarded)
		body(t, res)
		return res.StatusCode
	}
	for i := range triesPerAddress - 1 {
		b.h.throttle.begin("192.0.2.9", fmt.Sprint(i))
	}
	if status := try("192.0.2.9", "203.0.113.200", "the last"); status != http.StatusUnauthorized {
		t.Errorf("the last try: %d", status)
	}
	if status := try("192.0.2.9", "203.0.113.200", "another"); status != http.StatusTooManyRequests {
		t.Errorf("with an address nobody believes: %d", status)
	}
	if status := try(trustedProxy, "192.0.2.9", "another"); status != http.StatusTooManyRequests {
		t.Errorf("the same one by a proxy: %d", status)
	}
	if status := try(trustedProxy, "192.0.2.9, 203.0.113.1", "another"); status != http.StatusUnauthorized {
		t.Errorf("somebody else by the proxy: %d", status)
	}
	if n := b.count("select count(distinct address) from audit_entries"); n != 2 {
		t.Errorf("%d addresses in the audit log", n)
	}
	th := newThrottle()
	th.now = func() time.Time { return time.Date(2026, 11, 20, 2, 0, 0, 0, time.UTC) }
	for i := range triesPerAddress {
		th.begin(fmt.Sprintf("2001:db8:1:2:%x::1", i), fmt.Sprint(i))
	}
	if th.begin("2001:db8:1:2:ffff::", "another") == 0 || th.begin("2001:db8:1:3::1", "another") != 0 {
		t.Error("an IPv6 network is not one address")
	}
}

// Every kind of answer tells a browser that nothing but what we serve may run
// there, and that it is to be kept nowhere.
func TestEveryAnswerIsStrict(t *testing.T) {
	t.Parallel()
	b := setup(t)
	cookie := "session=" + b.session(models.RoleAdmin)
	viewer := "session=" + b.session(models.RoleViewer)
	page, hx := []string{"Accept", "text/html"}, []string{"HX-Request", "true", "HX-Request-Type", "partial"}
	check := func(what string, res *http.Response, status int) {
		t.Helper()
		body(t, res)
		if res.StatusCode != status {
			t.Errorf("%s: %d, want %d", what, res.StatusCode, status)
		}
		for name, want := range map[string]string{
			"Content-Security-Policy": csp, "X-Content-Type-Options": "nosniff", "X-Frame-Options": "DENY", "Referrer-Policy": "same-origin",
			"Cross-Origin-Opener-Policy": "same-origin", "Cross-Origin-Resource-Policy": "same-origin", "Strict-Transport-Security": "max-age=31536000",
		} {
			if got := res.Header.Values(name); len(got) != 1 || got[0] != want {
				t.Errorf("%s: %s is %q", what, name, got)
			}
		}
		if kept := res.Header.Get("Cache-Control"); kept != "no-store" && !strings.HasPrefix(what, "GET /static/") {
			t.Errorf("%s: Cache-Control is %q", what, kept)
		}
		for _, c := range res.Cookies() {
			if !c.Secure || c.SameSite != http.SameSiteLaxMode || c.Path != "/" || c.Domain != "" || !c.HttpOnly && c.Name != "theme" {
				t.Errorf("%s: %s", what, c)
			}
		}
	}
	for _, c := range []struct {
		method, path, cookie string
		header               []string
		status               int
	}{
		{"GET", "/", cookie, page, 200}, {"GET", "/", cookie, hx, 200}, {"GET", "/api/hosts", cookie, nil, 200}, {"GET", "/healthz", "", nil, 200},
		{"GET", "/login", "", page, 200}, {"GET", "/jobs", "", page, 303}, {"GET", "/jobs", "", hx, 401}, {"GET", "/api/hosts", "", nil, 401},
		{"GET", b.h.Assets.Path("app.js"), "", nil, 200}, {"GET", "/static/nothing", "", nil, 404}, {"GET", "/nowhere", cookie, page, 404}, {"GET", "/nowhere", cookie, hx, 404},
		{"DELETE", "/jobs", cookie, page, 405}, {"POST", "/hosts", viewer, page, 403}, {"POST", "/hosts", viewer, hx, 403}, {"POST", "/api/hosts", viewer, nil, 403},
		{"POST", "/hosts", cookie, page, 422}, {"POST", "/api/hosts", cookie, nil, 422}, {"GET", "/hosts/x", cookie, page, 404}, {"GET", "/hosts/x/run-backup", "", page, 410},
		{"POST", "/hosts", cookie, append([]string{"Sec-Fetch-Site", "cross-site"}, page...), 403}, {"POST", "/theme", "", page, 303}, {"POST", "/logout", "", page, 303},
		{"GET", "/setup?token=x", "", page, 410}, {"POST", "/login", "", page, 401},
	} {
		r := b.request(c.method, c.path, strings.NewReader("{}"), append(c.header, "X-Forwarded-Proto", "https", "Cookie", "__Host-"+c.cookie)...)
		r.RemoteAddr = trustedProxy + ":1"
		check(c.method+" "+c.path, b.serve(r), c.status)
	}
	large := b.request("POST", "/hosts", strings.NewReader(strings.Repeat("x", 2<<20)), "X-Forwarded-Proto", "https", "Cookie", "__Host-"+cookie)
	large.RemoteAddr = trustedProxy + ":1"
	check("too much", b.serve(large), 413)
	direct := b.request("GET", "/jobs", nil, "Accept", "text/html")
	direct.TLS = &tls.ConnectionState{}
	check("GET /jobs by our own TLS", b.serve(direct), 303)
	b.exec("alter table hosts rename to hosts_elsewhere")
	gone, cancel := context.WithCancel(b.ctx)
	cancel()
	for _, path := range []string{"/", "/api/hosts"} {
		for _, header := range [][]string{page, hx} {
			r := b.request("GET", path, nil, append(header, "X-Forwarded-Proto", "https", "Cookie", "__Host-"+cookie)...)
			r.RemoteAddr = trustedProxy + ":1"
			check("broken: GET "+path, b.serve(r), 500)
			check("not there: GET "+path, b.serve(r.WithContext(gone)), 503)
		}
	}
}

// With an Authorization header nobody looks at the cookie, on any route.
func TestAHeaderDecidesOverACookie(t *testing.T) {
	t.Parallel()
	b := setup(t)
	cookie := "session=" + b.session(models.RoleAdmin)
	program := "Bearer " + b.token(models.RoleViewer)
	for _, e := range b.table() {
		if e.who == public || e.who == agent {
			continue
		}
		res := b.do(e.method, e.path(), untouched{t, e.String()}, "Cookie", cookie, "Authorization", "Bearer rf_made-up")
		if body(t, res); res.StatusCode != http.StatusUnauthorized && res.Header.Get("Location") != "/login" {
			t.Errorf("%s with a made-up token: %d", e, res.StatusCode)
		}
		if e.who != viewer {
			res := b.do(e.method, e.path(), untouched{t, e.String()}, "Cookie", cookie, "Authorization", program)
			if body(t, res); res.StatusCode != http.StatusForbidden {
				t.Errorf("%s with a viewer's token: %d", e, res.StatusCode)
			}
		}
	}
}
