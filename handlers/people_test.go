package handlers

import (
	"fmt"
	"net/http"
	"net/url"
	"regexp"
	"strings"
	"testing"
	"time"

	"resticfleet/models"
)

// visitor is somebody logged in, who looks at pages and sends their forms.
type visitor struct {
	*bundle
	*models.User
	cookie string
}

func (b *bundle) visitor(name string, role models.Role) *visitor {
	b.t.Helper()
	u, err := models.AddUser(b.ctx, b.db, name, password, role)
	if err != nil {
		b.t.Fatal(err)
	}
	return &visitor{b, u, b.sessionOf(u)}
}

func (b *bundle) sessionOf(u *models.User) string {
	b.t.Helper()
	token, err := models.StartSession(b.ctx, b.db, u.ID, "192.0.2.7", "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0")
	if err != nil {
		b.t.Fatal(err)
	}
	return token
}

// get looks at a page that must answer with status.
func (p *visitor) get(path string, status int) string {
	p.t.Helper()
	res := p.do("GET", path, nil, "Cookie", "session="+p.cookie)
	got := body(p.t, res)
	if res.StatusCode != status {
		p.t.Fatalf("GET %s: %d, want %d", path, res.StatusCode, status)
	}
	return got
}

// post sends a form that must be answered with status.
func (p *visitor) post(path string, form map[string]string, status int) (*http.Response, string) {
	p.t.Helper()
	values := url.Values{}
	for name, value := range form {
		values.Set(name, value)
	}
	res := p.do("POST", path, strings.NewReader(values.Encode()), "Content-Type", "application/x-www-form-urlencoded", "Cookie", "session="+p.cookie)
	got := body(p.t, res)
	if res.StatusCode != status {
		p.t.Fatalf("POST %s: %d, want %d: %s", path, res.StatusCode, status, got)
	}
	return res, got
}

// loggedIn reports whether a session's token still opens a page.
func (b *bundle) loggedIn(token string) bool {
	b.t.Helper()
	res := b.do("GET", "/settings", nil, "Cookie", "session="+token)
	body(b.t, res)
	return res.StatusCode == http.StatusOK
}

func wants(t *testing.T, html string, parts ...string) {
	t.Helper()
	for _, part := range parts {
		if !strings.Contains(html, part) {
			t.Errorf("the page has no %q", part)
		}
	}
}

func lacks(t *testing.T, html string, parts ...string) {
	t.Helper()
	for _, part := range parts {
		if strings.Contains(html, part) {
			t.Errorf("the page has %q", part)
		}
	}
}

func TestTheSettingsShowWhatARoleMayUse(t *testing.T) {
	t.Parallel()
	b := setup(t)
	shared := []string{`href="/settings/users"`, `href="/settings/tokens"`, `href="/settings/audit"`}
	for _, role := range []models.Role{models.RoleViewer, models.RoleOperator} {
		p := b.visitor("some "+string(role), role)
		html := p.get("/settings", http.StatusOK)
		wants(t, html, `href="/settings/password"`, `href="/settings/sessions"`, "some "+string(role))
		lacks(t, html, shared...)
		for _, path := range []string{"/settings/users", "/settings/users/new", "/settings/tokens", "/settings/tokens/new", "/settings/audit"} {
			wants(t, p.get(path, http.StatusForbidden), "You may not do this", "Ask an administrator")
		}
		for _, path := range []string{"/settings/users", "/settings/users/" + p.ID.String() + "/role", "/settings/tokens"} {
			p.post(path, map[string]string{"role": "admin", "name": "mine"}, http.StatusForbidden)
		}
	}
	if n := b.count("select count(*) from users where role = 'admin'") + b.count("select count(*) from api_tokens"); n != 0 {
		t.Errorf("%d rights were taken", n)
	}
	anna := b.visitor("anna", models.RoleAdmin)
	wants(t, anna.get("/settings", http.StatusOK), append(shared, "1 administrator, 1 operator, 1 viewer")...)
	// Two clicks from the fleet: there, then here.
	wants(t, anna.get("/", http.StatusOK), `href="/settings"`)

	// A program has no account of its own, whatever its role.
	bearer := "Bearer " + b.token(models.RoleAdmin)
	html := body(t, b.do("GET", "/settings", nil, "Authorization", bearer))
	lacks(t, html, "/settings/password")
	if res := b.do("POST", "/settings/password", nil, "Authorization", bearer); res.StatusCode != http.StatusForbidden {
		t.Errorf("a program changes a password: %d", res.StatusCode)
	}
}

// Who comes before the first administrator was set up is told the way.
func TestTheFirstLoginSaysHowToBegin(t *testing.T) {
	t.Parallel()
	b := setup(t)
	wants(t, body(t, b.do("GET", "/login", nil)), "Nobody can log in yet", "setup-link")
	b.visitor("anna", models.RoleAdmin)
	lacks(t, body(t, b.do("GET", "/login", nil)), "Nobody can log in yet")
}

func TestAUserFormKeepsWhatWasTyped(t *testing.T) {
	t.Parallel()
	b := setup(t)
	anna := b.visitor("anna", models.RoleAdmin)
	for _, c := range []struct {
		form  map[string]string
		field string
		says  string
	}{
		{map[string]string{"name": "ANNA", "role": "operator", "password": "long enough", "password_again": "long enough"}, "name", "choose another name"},
		{map[string]string{"name": "otto", "role": "operator", "password": "short", "password_again": "short"}, "password", "between 8 and 200"},
		{map[string]string{"name": "otto", "role": "operator", "password": "long enough", "password_again": "long enough?"}, "password_again", "type both again"},
		{map[string]string{"name": "otto", "role": "root", "password": "long enough", "password_again": "long enough"}, "role", "use viewer, operator or admin"},
	} {
		_, html := anna.post("/settings/users", c.form, http.StatusUnprocessableEntity)
		wants(t, html, `id="f-`+c.field+`-error"`, c.says, `value="`+c.form["name"]+`"`)
		lacks(t, html, "long enough")
		if c.form["role"] == "operator" {
			wants(t, html, `value="operator" required checked`)
		}
	}
	res, _ := anna.post("/settings/users", map[string]string{"name": "otto", "role": "operator", "password": "long enough", "password_again": "long enough"}, http.StatusSeeOther)
	if res.Header.Get("Location") != "/settings/users" {
		t.Errorf("sent to %s", res.Header.Get("Location"))
	}
	otto, err := models.Authenticate(b.ctx, b.db, "otto", "long enough")
	if err != nil || otto.Role != models.RoleOperator {
		t.Errorf("%+v, %v", otto, err)
	}
	// What came of it is said once.
	said := cookieOf(t, res, saidCookie)
	res = b.do("GET", "/settings/users", nil, "Cookie", "session="+anna.cookie+"; said="+said.Value)
	wants(t, body(t, res), "Added “otto”")
	if again := cookieOf(t, res, saidCookie); again.MaxAge >= 0 {
		t.Errorf("it will be said again: %v", again)
	}
	lacks(t, anna.get("/settings/users?q=ANN", http.StatusOK), ">otto<")
	wants(t, anna.get("/settings/users?q=nobody", http.StatusOK), "Show all users")
}

func TestAnAdministratorManagesUsers(t *testing.T) {
	t.Parallel()
	b := setup(t)
	anna, otto := b.visitor("anna", models.RoleAdmin), b.visitor("otto", models.RoleOperator)
	self, his := "/settings/users/"+anna.ID.String(), "/settings/users/"+otto.ID.String()

	wants(t, anna.get(his, http.StatusOK), `value="operator" required checked`, "/delete")
	anna.post(his+"/role", map[string]string{"role": "viewer"}, http.StatusSeeOther)
	wants(t, otto.get("/hosts/"+otto.ID.String()+"/source-groups/new", http.StatusForbidden), "Your role (viewer)")
	_, html := anna.post(his+"/role", map[string]string{"role": "emperor"}, http.StatusUnprocessableEntity)
	wants(t, html, `id="f-role-error"`)

	// The last administrator stays one, and is told why beside the form.
	_, html = anna.post(self+"/role", map[string]string{"role": "viewer"}, http.StatusConflict)
	wants(t, html, `id="f-role-error"`, "last administrator")
	_, html = anna.post(self+"/delete", nil, http.StatusConflict)
	wants(t, html, "last administrator", "Keep “anna”")

	// A new password ends the sessions under the old one.
	_, html = anna.post(his+"/password", map[string]string{"password": "another one", "password_again": "another"}, http.StatusUnprocessableEntity)
	wants(t, html, `id="f-password_again-error"`)
	if !b.loggedIn(otto.cookie) {
		t.Fatal("a form with a mistake ended a session")
	}
	anna.post(his+"/password", map[string]string{"password": "another one", "password_again": "another one"}, http.StatusSeeOther)
	if b.loggedIn(otto.cookie) {
		t.Error("the session under the old password goes on")
	}
	if res := b.login("otto", "another one"); res.StatusCode != http.StatusSeeOther {
		t.Errorf("login with the new one: %d", res.StatusCode)
	}
	// Nobody gets past the old password this way.
	_, html = anna.post(self+"/password", map[string]string{"password": "another one", "password_again": "another one"}, http.StatusConflict)
	wants(t, html, "This is your own password")
	lacks(t, anna.get(self, http.StatusOK), "Set new password")

	otto.cookie = b.sessionOf(otto.User)
	wants(t, anna.get(his+"/delete", http.StatusOK), "Delete “otto”?", "stays in the jobs and in the audit log")
	anna.post(his+"/delete", nil, http.StatusSeeOther)
	if b.loggedIn(otto.cookie) {
		t.Error("a deleted user is still logged in")
	}
	anna.get(his, http.StatusNotFound)
	anna.post(his+"/role", map[string]string{"role": "admin"}, http.StatusNotFound)
}

func TestChangingThePasswordKeepsThisSessionAlone(t *testing.T) {
	t.Parallel()
	b := setup(t)
	otto := b.visitor("otto", models.RoleViewer)
	other := b.sessionOf(otto.User)
	change := func(current, next, again string, status int) (*http.Response, string) {
		return otto.post("/settings/password", map[string]string{"current": current, "password": next, "password_again": again}, status)
	}
	_, html := change("wrong", "long enough", "long enough", http.StatusUnprocessableEntity)
	wants(t, html, `id="f-current-error"`)
	lacks(t, html, "long enough", `"wrong"`)
	_, html = change(password, "short", "short", http.StatusUnprocessableEntity)
	wants(t, html, `id="f-password-error"`)
	_, html = change(password, "long enough", "long", http.StatusUnprocessableEntity)
	wants(t, html, `id="f-password_again-error"`)
	if !b.loggedIn(other) {
		t.Fatal("a form with a mistake ended a session")
	}
	res, _ := change(password, "long enough", "long enough", http.StatusSeeOther)
	cookie := cookieOf(t, res, "session")
	if b.loggedIn(other) || b.loggedIn(otto.cookie) || !b.loggedIn(cookie.Value) {
		t.Error("want this session alone, under a new token")
	}
	// A browser left open is no way to guess the password.
	otto.cookie = cookie.Value
	for range triesPerName - 1 { // and the one above
		change("guess", "long enough", "long enough", http.StatusUnprocessableEntity)
	}
	res, html = change("long enough", "long enough", "long enough", http.StatusTooManyRequests)
	wants(t, html, "Too many tries")
	if res.Header.Get("Retry-After") == "" {
		t.Error("it doesn't say when")
	}
}

func TestSessionsAreEndedOneByOneOrAllOthers(t *testing.T) {
	t.Parallel()
	b := setup(t)
	otto, vera := b.visitor("otto", models.RoleViewer), b.visitor("vera", models.RoleViewer)
	second, third := b.sessionOf(otto.User), b.sessionOf(otto.User)
	html := otto.get("/settings/sessions", http.StatusOK)
	wants(t, html, "Firefox on Linux", "192.0.2.7", "this one", "End all others")
	ends := regexp.MustCompile(`/settings/sessions/[0-9a-f-]{36}/end`).FindAllString(html, -1)
	if len(ends) != 2 {
		t.Fatalf("%d can be ended", len(ends))
	}
	vera.post(ends[0], nil, http.StatusSeeOther) // not hers
	if !b.loggedIn(third) {
		t.Error("somebody else ended the session")
	}
	otto.post(ends[0], nil, http.StatusSeeOther) // the newest comes first
	if b.loggedIn(third) || !b.loggedIn(second) {
		t.Error("the wrong session ended")
	}
	otto.post("/settings/sessions/end-others", nil, http.StatusSeeOther)
	if b.loggedIn(second) || !b.loggedIn(otto.cookie) || !b.loggedIn(vera.cookie) {
		t.Error("not all others ended, or too many")
	}
	lacks(t, otto.get("/settings/sessions", http.StatusOK), "End all others")
}

func TestATokenIsShownOnce(t *testing.T) {
	t.Parallel()
	b := setup(t)
	anna := b.visitor("anna", models.RoleAdmin)
	wants(t, anna.get("/settings/tokens", http.StatusOK), "No program has a token yet")
	id := regexp.MustCompile(`name="id" value="([0-9a-f-]{36})"`).FindStringSubmatch(anna.get("/settings/tokens/new", http.StatusOK))[1]
	form := map[string]string{"id": id, "name": "", "role": "operator"}
	_, html := anna.post("/settings/tokens", form, http.StatusUnprocessableEntity)
	wants(t, html, `id="f-name-error"`, `value="operator" required checked`, id)
	form["name"] = "monitoring"
	_, html = anna.post("/settings/tokens", form, http.StatusCreated)
	token := regexp.MustCompile(`rf_[A-Za-z0-9_-]{43}`).FindString(html)
	use := func(want int) {
		t.Helper()
		if res := b.do("GET", "/api/hosts", nil, "Authorization", "Bearer "+token); res.StatusCode != want {
			t.Errorf("the token is answered %d, want %d", res.StatusCode, want)
		}
	}
	use(http.StatusOK)
	_, html = anna.post("/settings/tokens", form, http.StatusConflict) // a reload
	wants(t, html, "shown only once")
	html = anna.get("/settings/tokens", http.StatusOK)
	wants(t, html, "monitoring", "operator", "just now", "/settings/tokens/"+id+"/revoke")
	lacks(t, html, token)

	wants(t, anna.get("/settings/tokens/"+id+"/revoke", http.StatusOK), "Revoke “monitoring”?", "can&#39;t be undone")
	anna.post("/settings/tokens/"+id+"/revoke", nil, http.StatusSeeOther)
	use(http.StatusUnauthorized)
	lacks(t, anna.get("/settings/tokens", http.StatusOK), "monitoring")
	html = anna.get("/settings/tokens?show=revoked", http.StatusOK)
	wants(t, html, "monitoring")
	lacks(t, html, "/revoke\"")
}

// Every act that is audited has its words; the log doesn't show routes.
func TestEveryActHasItsWords(t *testing.T) {
	t.Parallel()
	b := setup(t)
	used := map[string]bool{}
	for _, a := range acts {
		used[a.subject] = true
	}
	for _, s := range subjects {
		if !used[s] {
			t.Errorf("the filter offers %s, and nothing belongs there", s)
		}
		delete(used, s)
	}
	if len(used) > 0 {
		t.Errorf("the filter doesn't offer %v", used)
	}
	for _, e := range b.unsafe() {
		if audited := !unaudited[e.String()]; audited != (acts[e.String()].words != "") {
			t.Errorf("%s is audited: %v, and has the words %q in acts", e, audited, acts[e.String()].words)
		}
	}
}

func TestTheAuditLogSaysWhoDidWhat(t *testing.T) {
	t.Parallel()
	b := setup(t)
	anna, otto := b.visitor("anna", models.RoleAdmin), b.visitor("otto", models.RoleOperator)
	wants(t, anna.get("/settings/audit", http.StatusOK), "Nothing was changed yet.")
	host, err := models.AddHost(b.ctx, b.db, models.HostFields{Name: "web-01"})
	if err != nil {
		t.Fatal(err)
	}
	group, err := models.AddGroup(b.ctx, b.db, host.ID, models.GroupFields{Name: "www", Includes: []string{"/srv"}})
	if err != nil {
		t.Fatal(err)
	}
	run := fmt.Sprintf("/hosts/%s/source-groups/%s/run", host.ID, group.ID)
	otto.post(run, nil, http.StatusConflict) // it has no repository
	body(t, b.login("otto", "wrong"))
	body(t, b.do("POST", "/api/hosts", strings.NewReader(`{"name":"db-01"}`), "Content-Type", "application/json", "Authorization", "Bearer "+b.token(models.RoleAdmin)))
	body(t, b.do("POST", "/agent/v1/enroll", strings.NewReader("{}")))
	anna.post("/settings/users/"+otto.ID.String()+"/delete", nil, http.StatusSeeOther)

	words := regexp.MustCompile(`<span class="font-semibold" title="[^"]+">([^<]+)</span>`)
	shown := func(query string) string {
		t.Helper()
		var out []string
		for _, m := range words.FindAllStringSubmatch(anna.get("/settings/audit"+query, http.StatusOK), -1) {
			out = append(out, m[1])
		}
		return strings.Join(out, ", ")
	}
	today, tomorrow := time.Now().In(pageClock(nil).Zone).Format(time.DateOnly), time.Now().In(pageClock(nil).Zone).AddDate(0, 0, 1).Format(time.DateOnly)
	for query, want := range map[string]string{
		"":                             "Delete a user, Add a host, Log in, Run a source group now",
		"?actors=user":                 "Delete a user, Run a source group now",
		"?actors=token":                "Add a host",
		"?actors=system":               "Log in",
		"?actors=agent":                "Enrol an agent",
		"?what=Agents":                 "Enrol an agent",
		"?who=OTT":                     "Run a source group now",
		"?what=Users":                  "Delete a user",
		"?outcome=done":                "Delete a user, Add a host",
		"?outcome=refused":             "Log in, Run a source group now",
		"?outcome=failed":              "",
		"?from=" + tomorrow:            "",
		"?until=" + today:              "Delete a user, Add a host, Log in, Run a source group now",
		"?from=" + today + "&who=anna": "Delete a user",
		"?what=nonsense&outcome=odd":   "Delete a user, Add a host, Log in, Run a source group now",
	} {
		if got := shown(query); got != want {
			t.Errorf("%s shows %s", query, got)
		}
	}
	html := anna.get("/settings/audit", http.StatusOK)
	wants(t, html, "192.0.2.1", "nobody logged in", "API token", ">otto<",
		`href="/hosts/`+host.ID.String()+`" class="underline-offset-2 hover:underline">web-01</a>`, ">www<", ">db-01<")
	html = anna.get("/settings/audit?from=yesterday", http.StatusUnprocessableEntity)
	wants(t, html, `id="audit-from-error"`, "Write it as "+today)

	anna.post("/logout", nil, http.StatusSeeOther)
	if n := b.count("select count(*) from audit_entries where action = 'POST /logout' and actor_name = 'anna'"); n != 1 {
		t.Errorf("%d entries say who logged out", n)
	}
}
