package handlers

import (
	"encoding/json"
	"html"
	"net/http"
	"net/url"
	"regexp"
	"strings"
	"testing"

	"resticfleet/agent/protocol"
	"resticfleet/models"
	"resticfleet/views"
)

// plainBrowser runs no scripts: it keeps cookies by their path, posts
// forms and follows a redirect only when it is told to.
type plainBrowser struct {
	*bundle
	session string
	kept    map[string]*http.Cookie
}

func (b *bundle) browser(role models.Role) *plainBrowser {
	return &plainBrowser{b, b.session(role), map[string]*http.Cookie{}}
}

func (p *plainBrowser) send(method, path string, form url.Values, header ...string) *http.Response {
	p.t.Helper()
	r := p.request(method, path, strings.NewReader(form.Encode()), header...)
	if form != nil {
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	}
	r.AddCookie(&http.Cookie{Name: "session", Value: p.session})
	for _, c := range p.kept {
		if strings.HasPrefix(path, c.Path+"/") {
			r.AddCookie(c)
		}
	}
	res := p.serve(r)
	for _, c := range res.Cookies() {
		p.kept[c.Name] = c
		if c.MaxAge < 0 {
			delete(p.kept, c.Name)
		}
	}
	return res
}

// see is the text of a page that must be there.
func (p *plainBrowser) see(path string, header ...string) string {
	p.t.Helper()
	res := p.send("GET", path, nil, header...)
	text := body(p.t, res)
	if res.StatusCode != http.StatusOK {
		p.t.Fatalf("GET %s: %d\n%s", path, res.StatusCode, text)
	}
	return text
}

// post sends a form that must work, and returns where it leads.
func (p *plainBrowser) post(path string, form url.Values) string {
	p.t.Helper()
	res := p.send("POST", path, form)
	if text := body(p.t, res); res.StatusCode != http.StatusSeeOther {
		p.t.Fatalf("POST %s: %d\n%s", path, res.StatusCode, text)
	}
	return res.Header.Get("Location")
}

// wrong sends a form that must come back with what was typed.
func (p *plainBrowser) wrong(path string, form url.Values) string {
	p.t.Helper()
	res := p.send("POST", path, form)
	text := body(p.t, res)
	if res.StatusCode != http.StatusUnprocessableEntity {
		p.t.Fatalf("POST %s: %d\n%s", path, res.StatusCode, text)
	}
	return text
}

// addHost adds one and returns the address of its setup.
func (p *plainBrowser) addHost(name string) string {
	p.t.Helper()
	setup := p.post("/hosts", url.Values{"name": {name}})
	if !regexp.MustCompile(`^/hosts/[0-9a-f-]{36}/enrol$`).MatchString(setup) {
		p.t.Fatalf("a new host leads to %q", setup)
	}
	return setup
}

var (
	shownLine  = regexp.MustCompile(`(?s)<pre id="enrol-command"[^>]*>(.*?)</pre>`)
	tokenInIt  = regexp.MustCompile(`--token (\S+)`)
	currentOne = regexp.MustCompile(`id="step-(\d)"[^>]*aria-current="step"`)
)

// line is the command on a page, "" for none.
func line(page string) string {
	m := shownLine.FindStringSubmatch(page)
	if m == nil {
		return ""
	}
	return html.UnescapeString(m[1])
}

func step(page string) string {
	m := currentOne.FindStringSubmatch(page)
	if m == nil {
		return ""
	}
	return m[1]
}

func (b *bundle) enrols(command string) (hostID string, status int) {
	b.t.Helper()
	token := tokenInIt.FindStringSubmatch(command)
	if token == nil {
		b.t.Fatalf("no token in %q", command)
	}
	raw, err := json.Marshal(protocol.EnrollRequest{Token: token[1], Hostname: "nas", OS: "linux", Arch: "amd64", AgentVersion: "1", Timezone: "Europe/Berlin"})
	if err != nil {
		b.t.Fatal(err)
	}
	res := b.do("POST", "/agent/v1/enroll", strings.NewReader(string(raw)), "Content-Type", "application/json")
	var answer protocol.EnrollResponse
	_ = json.Unmarshal([]byte(body(b.t, res)), &answer)
	return answer.HostID, res.StatusCode
}

// arrives is an agent's first hello.
func (b *bundle) arrives(host string) {
	b.exec("update hosts set last_seen_at = now(), link = 'websocket', link_since = now(), link_closed_at = null, restic_version = '0.19.1' where id = ?", host)
}

// From a name to the first backup with plain forms alone: every step leads to
// the next, is there after a reload, and keeps what was typed when it is wrong.
func TestTheSetupWithPlainForms(t *testing.T) {
	t.Parallel()
	b := setup(t)
	p := b.browser(models.RoleAdmin)
	wants(t, p.see("/"), "No hosts yet", `action="/hosts"`)
	wants(t, p.wrong("/hosts", url.Values{"name": {""}, "labels": {"berlin"}}), `id="f-name-error"`, `value="berlin"`)
	setup := p.addHost("nas-02")
	page := p.see(setup)
	host := strings.Split(setup, "/")[2]
	url0 := "/hosts/" + host
	command := line(page)
	if want := "resticfleet-agent enroll --server http://example.com --allow-plain-http --token rfe_"; !strings.HasPrefix(command, want) {
		t.Fatalf("the line is %q", command)
	}
	wants(t, page, "It makes a key for nas-02, exchanges the token for a credential and keeps both in /var/lib/resticfleet-agent; it installs and starts nothing.", "nothing needs to be opened on nas-02")
	wants(t, page, "Waiting for nas-02 to call", "Look again", "Works once, until", "resticfleet-agent run --state-dir", "plain http")
	if again := line(p.see(setup)); again != command {
		t.Errorf("a reload shows another line: %q", again)
	}
	if step(page) != "1" {
		t.Errorf("the step is %s", step(page))
	}
	wants(t, p.see(url0), "Show how to enrol it")

	if id, status := b.enrols(command); status != http.StatusOK || id != host {
		t.Fatalf("the line is refused: %d", status)
	}
	page = p.see(setup)
	wants(t, page, "Start the agent on nas-02", "Waiting for the agent of nas-02 to start", "resticfleet-agent run --state-dir")
	if line(page) != "" || len(p.kept) != 0 {
		t.Error("a used line is still shown, or kept")
	}
	b.arrives(host)
	page = p.see(setup)
	wants(t, page, "nas-02 is here", "restic 0.19.1", `action="/hosts/`+host+`/repository"`)
	lacks(t, page, "Waiting for")
	wants(t, p.see(url0), "Next: where its snapshots go.", "Finish setting up")

	page = p.wrong(url0+"/repository", url.Values{"setup": {"on"}, "url": {"nowhere"}, "password": {"secret"}})
	wants(t, page, "nas-02 is here", `id="f-url-error"`, `value="nowhere"`, `name="setup" value="on"`)
	if to := p.post(url0+"/repository", url.Values{"setup": {"on"}, "url": {"/srv/backup"}, "password": {"secret"}}); to != setup {
		t.Errorf("the repository leads to %q", to)
	}
	page = p.see(setup)
	wants(t, page, "/srv/backup", "Waiting to be set up", `action="/hosts/`+host+`/source-groups"`, "/etc", "/home/*/.cache")
	wants(t, p.see(url0), "Next: what to back up.")

	// The init fails; what to do stands there, and the form again.
	b.exec("update jobs set accepted_at = now(), state = 'failed', error_code = 'wrong_password', error = 'Wrong password. Type the right one.', finished_at = now() where kind = 'init'")
	page = p.see(setup)
	wants(t, page, "Not set up", "Wrong password. Type the right one.", "Set up again", `action="/hosts/`+host+`/repository"`)
	if step(page) != "2" {
		t.Errorf("after a failed init the step is %s", step(page))
	}
	p.post(url0+"/repository", url.Values{"setup": {"on"}, "url": {"/srv/backup"}, "password": {"better"}})
	page = p.see(setup)
	wants(t, page, "Saved since the last try.", "Set up again")
	lacks(t, page, "Type the right one.", `id="f-url"`)
	if to := p.post(url0+"/repository/init", url.Values{"setup": {"on"}}); to != setup {
		t.Errorf("another try leads to %q", to)
	}
	wants(t, p.see(setup), "Waiting to be set up")

	group := url.Values{"setup": {"on"}, "name": {"system"}, "tag": {"system"}, "includes": {"etc"}, "keep_daily": {"7"}}
	page = p.wrong(url0+"/source-groups", group)
	wants(t, page, "nas-02 is here", `id="f-includes-error"`, `name="setup" value="on"`)
	group.Set("includes", "/etc")
	if to := p.post(url0+"/source-groups", group); to != setup {
		t.Errorf("the source group leads to %q", to)
	}
	page = p.see(setup)
	wants(t, page, "Back up now", "Add another")
	if step(page) != "4" {
		t.Errorf("the step is %s", step(page))
	}
	wants(t, p.see(url0), "Next: its first backup.")
	run := regexp.MustCompile(`action="(/hosts/[^"]*/run)"`).FindStringSubmatch(page)
	if run == nil {
		t.Fatalf("no run: %s", page)
	}
	if to := p.post(run[1], url.Values{"setup": {"on"}}); to != setup {
		t.Errorf("the backup leads to %q", to)
	}
	b.exec("update jobs set state = 'running', started_at = now(), progress = ? where kind = 'backup'", `{"percent": 63, "total_files": 18204, "total_bytes": 1048576}`)
	page = p.see(setup)
	wants(t, page, "63", `<progress`, "18,204 files", "Open job")
	lacks(t, page, "Back up now")

	b.exec("update jobs set state = 'failed', finished_at = now() where kind = 'backup'")
	b.exec("update source_groups set last_job_id = (select id from jobs where kind = 'backup'), last_state = 'failed', last_error = 'The disk is full. Free some space.'")
	wants(t, p.see(setup), "The disk is full. Free some space.", "See what to do", "Back up again")
	b.exec("update source_groups set last_state = 'succeeded', last_error = '', good_at = now(), good_snapshot_id = ?, good_bytes = 4096", strings.Repeat("ab", 32))
	page = p.see(setup)
	wants(t, page, "Good", "snapshot abababab", "Back up every day at 02:00", "Europe/Berlin")
	lacks(t, page, "The disk is full")
	if step(page) != "5" {
		t.Errorf("the step is %s", step(page))
	}
	lacks(t, p.see(url0), "Finish setting up")
	id := regexp.MustCompile(`name="source_group_ids" value="([^"]+)"`).FindStringSubmatch(page)
	p.post(url0+"/schedules", url.Values{"cron": {"0 2 * * *"}, "enabled": {"on"}, "source_group_ids": {id[1]}})
	page = p.see(setup)
	wants(t, page, "nas-02 is set up", "Every day at 02:00")
	if step(page) != "" {
		t.Errorf("something is left to do: %s", step(page))
	}
}

// A form that is open stays open when the page looks again, and each step can
// be gone back to.
func TestTheSetupsOpenFormIsKept(t *testing.T) {
	t.Parallel()
	b := setup(t)
	p := b.browser(models.RoleAdmin)
	setup := p.addHost("nas-02")
	host := strings.Split(setup, "/")[2]
	page := p.see(setup + "?step=2")
	wants(t, page, `hx-get="`+setup+`?step=2"`, `id="f-url"`, "Waiting for nas-02 to call")
	if line(page) == "" {
		t.Error("another step hides the line")
	}
	_, _ = b.enrols(line(page))
	b.arrives(host)
	p.post("/hosts/"+host+"/repository", url.Values{"url": {"/srv/backup"}, "password": {"secret"}})
	hx := []string{"HX-Request", "true", "HX-Request-Type", "partial"}
	page = p.see(setup+"?step=2", hx...)
	wants(t, page, `id="f-url"`, "nas-02 is here")
	lacks(t, page, "<html", `id="f-includes"`)
	page = p.see(setup, hx...)
	wants(t, page, `hx-get="`+setup+`?step=3"`, `id="f-includes"`)
	lacks(t, page, `id="f-url"`)
	wants(t, p.see(setup+"?step=2"), "One is set")
	// After every look at what is new, htmx gives the focus to who asks for it.
	for _, path := range []string{setup, setup + "?step=2", setup + "?step=3"} {
		lacks(t, p.see(path), " autofocus")
	}
}

func TestALineThatNoLongerWorksIsSaid(t *testing.T) {
	t.Parallel()
	b := setup(t)
	p := b.browser(models.RoleAdmin)
	setup := p.addHost("nas-02")
	host := strings.Split(setup, "/")[2]
	page := p.see(setup)
	wants(t, page, "every 60s") // it expires without an event
	old := line(page)
	if n := b.count("select count(*) from enrollment_tokens"); n != 1 {
		t.Errorf("looking at the page left %d tokens", n)
	}

	b.exec("update enrollment_tokens set expires_at = now() - interval '1 second'")
	page = p.see(setup)
	wants(t, page, "expired", "was not used", "Make the line")
	lacks(t, page, "every 60s")
	if line(page) != "" {
		t.Error("an expired line is still shown")
	}
	if _, status := b.enrols(old); status != http.StatusUnauthorized {
		t.Errorf("an expired token: %d", status)
	}
	if to := p.post(setup, url.Values{}); to != setup {
		t.Errorf("a new line leads to %q", to)
	}
	fresh := line(p.see(setup))
	if fresh == "" || fresh == old {
		t.Fatalf("the new line is %q", fresh)
	}

	// Nobody else's browser is shown it, and no other host's page.
	wants(t, (&plainBrowser{b, p.session, map[string]*http.Cookie{}}).see(setup), "shown only in the browser that made it", "Make the line")
	other := p.addHost("nas-03")
	p.kept[lineCookie] = &http.Cookie{Name: lineCookie, Value: tokenInIt.FindStringSubmatch(fresh)[1], Path: "/hosts"}
	if got := line(p.see(other)); got != "" {
		t.Errorf("another host's page shows %q", got)
	}
	if got := line(p.see(setup)); got != fresh {
		t.Errorf("its own page shows %q", got)
	}

	if _, status := b.enrols(fresh); status != http.StatusOK {
		t.Errorf("the new line: %d", status)
	}
	if _, status := b.enrols(fresh); status != http.StatusUnauthorized {
		t.Errorf("the same line a second time: %d", status)
	}
	b.arrives(host)
	page = p.see(setup)
	wants(t, page, "nas-02 is here", "Enrol it anew")
	// Anew: the host is there until the new line is used, and waits again then.
	p.post(setup, url.Values{})
	page = p.see(setup)
	wants(t, page, "nas-02 is here", "Its present agent goes on until this line is used")
	if _, status := b.enrols(line(page)); status != http.StatusOK {
		t.Errorf("enrolled anew: %d", status)
	}
	wants(t, p.see(setup), "Start the agent on nas-02")
}

func TestWhoSeesWhatOfTheSetup(t *testing.T) {
	t.Parallel()
	b := setup(t)
	admin := b.browser(models.RoleAdmin)
	setup := admin.addHost("nas-02")
	host := strings.Split(setup, "/")[2]
	operator := b.browser(models.RoleOperator)
	operator.kept = admin.kept // the same browser, another person
	page := operator.see(setup)
	wants(t, page, "An administrator makes the line", "An administrator says where")
	lacks(t, page, "rfe_", "Make the line", "Make a new line", "Set repository")
	_, _ = b.enrols(line(admin.see(setup)))
	b.arrives(host)
	for _, path := range []string{setup, setup + "?step=2"} {
		lacks(t, operator.see(path), `id="f-url"`, "Enrol it anew")
	}
	wants(t, operator.see(setup+"?step=3"), `id="f-includes"`)
	if to := operator.post("/hosts/"+host+"/source-groups", url.Values{"setup": {"on"}, "name": {"etc"}, "includes": {"/etc"}}); to != setup {
		t.Errorf("the source group leads to %q", to)
	}
	wants(t, operator.see(setup), "It needs a repository first.")
	wants(t, operator.see("/hosts/"+host), "Finish setting up")
	lacks(t, b.browser(models.RoleViewer).see("/hosts/"+host), "Finish setting up")
}

// The line is the browser's that made it, for as long as it works.
func TestTheLinesCookie(t *testing.T) {
	t.Parallel()
	b := setup(t)
	p := b.browser(models.RoleAdmin)
	for _, c := range []struct {
		from, scheme string
		secure       bool
	}{{"192.0.2.1", "https", false}, {trustedProxy, "https", true}, {trustedProxy, "http", false}} {
		r := b.request("POST", "/hosts", strings.NewReader(url.Values{"name": {"nas " + c.from + c.scheme}}.Encode()), "Content-Type", "application/x-www-form-urlencoded", "X-Forwarded-Proto", c.scheme)
		r.RemoteAddr = c.from + ":4711"
		name := "session"
		if c.secure {
			name = "__Host-session"
		}
		r.AddCookie(&http.Cookie{Name: name, Value: p.session})
		res := b.serve(r)
		body(t, res)
		cookie := cookieOf(t, res, lineCookie)
		host := strings.Split(res.Header.Get("Location"), "/")[2]
		if !cookie.HttpOnly || cookie.SameSite != http.SameSiteStrictMode || cookie.Secure != c.secure || cookie.Path != "/hosts/"+host || cookie.MaxAge != 3600 {
			t.Errorf("%v: %s", c, cookie)
		}
		if n := b.count("select count(*) from enrollment_tokens where token_hash = ?", []byte(cookie.Value)); n != 0 {
			t.Error("the token stands in the database")
		}
	}
}

// Nobody's typing is taken away because somebody else added a host meanwhile.
func TestTheEmptyFleetIsNotLive(t *testing.T) {
	t.Parallel()
	b := setup(t)
	admin, viewer := b.browser(models.RoleAdmin), b.browser(models.RoleViewer)
	lacks(t, admin.see("/"), "/events?on=fleet", "fleet from:body")
	wants(t, viewer.see("/"), "/events?on=fleet", "fleet from:body", "An administrator can")
	wants(t, admin.see("/", "HX-Request", "true", "HX-Request-Type", "partial"), "There is no host any more.", `href="/hosts/new"`)
	admin.addHost("nas-02")
	wants(t, admin.see("/"), "/events?on=fleet", "fleet from:body")
}

// The same line by the page and by the API, whatever the server's address.
func TestThePagesLineIsTheAPIs(t *testing.T) {
	t.Parallel()
	for base, flag := range map[string]string{
		"https://backup.example.net": "", "https://10.0.0.2:8443/fleet": "", "http://127.0.0.1:8080": "", "http://127.0.0.9": "",
		"http://localhost": "", "http://10.0.0.2:8080": " --allow-plain-http", "http://backup.example.net": " --allow-plain-http",
	} {
		b := setup(t)
		config := b.h.Config
		config.BaseURL = base
		b.web = New(config)
		p := b.browser(models.RoleAdmin)
		setup := p.addHost("nas-02")
		page := p.see(setup)
		var answer struct{ Command string }
		raw := body(t, b.do("POST", strings.TrimSuffix("/api"+setup, "/enrol")+"/enrollment-tokens", nil, "Authorization", "Bearer "+b.token(models.RoleAdmin)))
		if err := json.Unmarshal([]byte(raw), &answer); err != nil {
			t.Fatalf("%v: %s", err, raw)
		}
		without := func(s string) string { return tokenInIt.ReplaceAllString(s, "--token T") }
		want := "resticfleet-agent enroll --server " + base + flag + " --token T --state-dir /var/lib/resticfleet-agent"
		if got := without(line(page)); got != want {
			t.Errorf("the page's line is %q, want %q", got, want)
		}
		if got := without(answer.Command); got != want {
			t.Errorf("the API's command is %q, want %q", got, want)
		}
		if said := strings.Contains(page, "is plain http"); said != (flag != "") {
			t.Errorf("%s: plain http is spoken of: %v", base, said)
		}
	}
}

// What is offered for a first source group is what the host has.
func TestTheFirstGroupFitsTheHost(t *testing.T) {
	t.Parallel()
	for os, want := range map[string]string{"linux": "/etc /root /home", "darwin": "/Users", "freebsd": "/etc /usr/local/etc /root /home", "": "/etc /root /home"} {
		if got := firstGroup(&views.Enrolment{OS: os}); strings.Join(got.Includes, " ") != want || got.Name == "" || !got.Setup {
			t.Errorf("%s: %+v", os, got)
		}
	}
}

// A host whose snapshots are older than its place here takes their name over,
// which no other host may have.
func TestAHostAdoptsItsOldSnapshots(t *testing.T) {
	t.Parallel()
	b := setup(t)
	p := b.browser(models.RoleAdmin)
	old := url.Values{"name": {"nas-02"}, "labels": {"berlin, old ,berlin"}, "restic_host": {" nas.example.net "}}
	p.post("/hosts", old)
	if n := b.count(`select count(*) from hosts where name = 'nas-02' and restic_host = 'nas.example.net' and labels = '["berlin", "old"]'`); n != 1 {
		t.Error("the host has not what was typed")
	}
	old.Set("name", "nas-03")
	wants(t, p.wrong("/hosts", old), `id="f-restic_host-error"`, `<details id="adopt" open`, `value="nas-03"`, `value="berlin, old ,berlin"`)
}
