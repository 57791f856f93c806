package handlers

import (
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"

	"resticfleet/models"
)

// post sends a form as a browser without scripts does, or as HTMX.
func (b *bundle) post(path string, form url.Values, header ...string) *http.Response {
	b.t.Helper()
	return b.do("POST", path, strings.NewReader(form.Encode()), append(header, "Content-Type", "application/x-www-form-urlencoded")...)
}

func asHTMX(header ...string) []string {
	return append(slices.Clone(header), "HX-Request", "true", "HX-Request-Type", "partial")
}

// host makes one, and gives the address of its page.
func (b *bundle) host(name string) (*models.Host, string) {
	b.t.Helper()
	h, err := models.AddHost(b.ctx, b.db, models.HostFields{Name: name})
	if err != nil {
		b.t.Fatal(err)
	}
	return h, "/hosts/" + h.ID.String()
}

func (b *bundle) group(h *models.Host, f models.GroupFields) *models.Group {
	b.t.Helper()
	g, err := models.AddGroup(b.ctx, b.db, h.ID, f)
	if err != nil {
		b.t.Fatal(err)
	}
	return g
}

func (b *bundle) schedule(h *models.Host, groups ...*models.Group) *models.Schedule {
	b.t.Helper()
	f := models.ScheduleFields{Cron: "0 2 * * *", Enabled: true}
	for _, g := range groups {
		f.GroupIDs = append(f.GroupIDs, g.ID.String())
	}
	s, err := models.AddSchedule(b.ctx, b.db, h.ID, f)
	if err != nil {
		b.t.Fatal(err)
	}
	return s
}

// want fails the test for another status, for what an answer lacks, and for
// what it must not hold: the parts that begin with an exclamation mark.
func want(t *testing.T, what string, res *http.Response, status int, parts ...string) string {
	t.Helper()
	html := body(t, res)
	if res.StatusCode != status {
		t.Errorf("%s: status %d, want %d", what, res.StatusCode, status)
	}
	for _, part := range parts {
		unwanted, not := strings.CutPrefix(part, "!")
		if not && strings.Contains(html, unwanted) {
			t.Errorf("%s: it holds %q", what, unwanted)
		}
		if !not && !strings.Contains(html, part) {
			t.Errorf("%s: it has no %q", what, part)
		}
	}
	return html
}

// secrets are what is stored for a host's repository.
func (b *bundle) secrets(h *models.Host) (url, password string, env map[string]string) {
	b.t.Helper()
	r, err := models.FindRepository(b.ctx, b.db, h.ID)
	if err != nil {
		b.t.Fatal(err)
	}
	s, err := r.Secrets(b.h.Jobs.Sealer)
	if err != nil {
		b.t.Fatal(err)
	}
	return r.URL, s.Password, s.Env
}

// A repository is moved from one kind of place to the next; each gets its own
// variables, keeps what is left empty, and forgets what belongs to another.
func TestARepositoryIsMovedThroughEveryKindOfPlace(t *testing.T) {
	t.Parallel()
	b := setup(t)
	h, at := b.host("web-01")
	at += "/repository"
	cookie := []string{"Cookie", "session=" + b.session(models.RoleAdmin)}
	want(t, "a new one", b.do("GET", at, nil, cookie...), 200, `<option value="local" selected`, "!set; empty keeps it")
	password := "pass-canary-1"
	for _, c := range []struct {
		scheme, url, stored string
		env                 map[string]string
	}{
		{"local", "/srv/backup", "/srv/backup", nil},
		{"rest", "https://backup.example.net:8000/web-01/", "rest:https://backup.example.net:8000/web-01/", map[string]string{"RESTIC_REST_USERNAME": "canary-u", "RESTIC_REST_PASSWORD": "canary-p"}},
		{"s3", "s3:https://s3.example.net/bucket", "s3:https://s3.example.net/bucket", map[string]string{"AWS_ACCESS_KEY_ID": "canary-u", "AWS_SECRET_ACCESS_KEY": "canary-p", "AWS_DEFAULT_REGION": "canary-r", "AWS_SESSION_TOKEN": "canary-t"}},
		{"b2", "bucket:web-01", "b2:bucket:web-01", map[string]string{"B2_ACCOUNT_ID": "canary-u", "B2_ACCOUNT_KEY": "canary-p"}},
		{"azure", "azure:container:/", "azure:container:/", map[string]string{"AZURE_ACCOUNT_NAME": "canary-u", "AZURE_ACCOUNT_KEY": "canary-p"}},
		{"gs", "bucket:/", "gs:bucket:/", map[string]string{"GOOGLE_PROJECT_ID": "canary-u", "GOOGLE_APPLICATION_CREDENTIALS": "/canary-f"}},
		{"swift", "container:/", "swift:container:/", map[string]string{"OS_AUTH_URL": "canary-a", "OS_PASSWORD": "canary-p", "OS_TENANT_ID": "canary-t"}},
		{"sftp", "backup@nas:/srv", "sftp:backup@nas:/srv", nil},
		{"", "rest:http://h/", "rest:http://h/", map[string]string{"RESTIC_REST_USERNAME": "canary-u"}},
	} {
		form := url.Values{"scheme": {c.scheme}, "url": {c.url}, "password": {password}}
		password = "" // kept from the first on
		for _, name := range slices.Sorted(maps.Keys(c.env)) {
			form.Add("env_name", name)
			form.Add("env_value", c.env[name])
		}
		if c.scheme != "b2" { // the fields of a kind that is out of sight come along
			form.Add("env_name", "B2_ACCOUNT_ID")
			form.Add("env_value", "typed before")
		}
		res := b.post(at, form, cookie...)
		want(t, c.stored, res, 303)
		if res.Header.Get("Location") != strings.TrimSuffix(at, "/repository") {
			t.Errorf("%s: sent to %q", c.stored, res.Header.Get("Location"))
		}
		at2, pw, env := b.secrets(h)
		if at2 != c.stored || pw != "pass-canary-1" || !maps.Equal(env, c.env) && len(env)+len(c.env) > 0 {
			t.Errorf("%s: stored %s %q %v", c.stored, at2, pw, env)
		}
		html := want(t, c.stored, b.do("GET", at, nil, cookie...), 200, c.stored, "One is set", "!canary", "!typed before")
		for name := range c.env {
			if !strings.Contains(html, `name="env_remove" value="`+name+`"`) {
				t.Errorf("%s: %s is not said to be set", c.stored, name)
			}
		}
	}

	form := url.Values{"scheme": {"s3"}, "url": {"s3:https://h/b"}, "env_name": {"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"}, "env_value": {"id", "key"}}
	want(t, "two keys", b.post(at, form, cookie...), 303)
	form["env_value"], form["env_remove"] = []string{"", "key 2"}, []string{"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"}
	res := b.post(at, form, asHTMX(cookie...)...)
	if want(t, "one is forgotten, one replaced", res, 200); res.Header.Get("HX-Redirect") == "" {
		t.Error("HTMX isn't led back to the host")
	}
	if _, _, env := b.secrets(h); !maps.Equal(env, map[string]string{"AWS_SECRET_ACCESS_KEY": "key 2"}) {
		t.Errorf("stored %v", env)
	}
	form = url.Values{"scheme": {"s3"}, "url": {"s3:https://h/b"}, "further_s3": {"", "AWS_SESSION_TOKEN"}, "further_value_s3": {"", "token"}, "further_swift": {"OS_TENANT_ID"}, "further_value_swift": {"of another place"}}
	want(t, "a further variable", b.post(at, form, cookie...), 303)
	if _, _, env := b.secrets(h); env["AWS_SESSION_TOKEN"] != "token" || env["OS_TENANT_ID"] != "" {
		t.Errorf("stored %v", env)
	}
}

func TestWhatIsWrongWithARepositoryIsSaidBesideItsField(t *testing.T) {
	t.Parallel()
	b := setup(t)
	h, at := b.host("web-01")
	at += "/repository"
	cookie := []string{"Cookie", "session=" + b.session(models.RoleAdmin)}
	for _, c := range []struct {
		what  string
		form  url.Values
		parts []string
	}{
		{"nothing", url.Values{}, []string{`id="f-url-error"`, `id="f-password-error"`}},
		{"a password in the address", url.Values{"scheme": {"rest"}, "url": {"https://anna:pw@h/x"}, "password": {"p"}}, []string{`id="f-url-error"`, "RESTIC_REST_PASSWORD, RESTIC_REST_USERNAME", `<option value="rest" selected`}},
		{"an sftp password", url.Values{"scheme": {"sftp"}, "url": {"sftp:anna:pw@h:/x"}, "password": {"p"}}, []string{`id="f-url-error"`, "ssh key"}},
		{"another kind than chosen", url.Values{"scheme": {"rest"}, "url": {"/srv/backup"}, "password": {"p"}}, []string{"not the kind of place that is chosen", `<option value="rest" selected`, `value="/srv/backup"`}},
		{"rclone", url.Values{"scheme": {"local"}, "url": {"rclone:x:y"}, "password": {"p"}}, []string{`id="f-url-error"`, "runs a program on the host"}},
		{"a variable that runs code", url.Values{"url": {"/srv"}, "password": {"p"}, "env_name": {"LD_PRELOAD"}, "env_value": {"/x.so"}}, []string{`id="f-env-error"`, "LD_PRELOAD is not a variable of this backend", "!/x.so"}},
		{"a value that can't be", url.Values{"scheme": {"s3"}, "url": {"s3:h/b"}, "password": {"p"}, "env_name": {"AWS_ACCESS_KEY_ID"}, "env_value": {"a\x00b"}}, []string{`id="f-env-AWS_ACCESS_KEY_ID-error"`, "!f-env-error"}},
		{"what was typed", url.Values{"scheme": {"rest"}, "url": {""}, "password": {"canary"}, "env_name": {"RESTIC_REST_USERNAME", "RESTIC_REST_PASSWORD"}, "env_value": {"anna", "canary"}}, []string{`value="anna"`, "!canary", "once more"}},
		{"a further variable beside a mistake", url.Values{"scheme": {"s3"}, "url": {"/srv"}, "password": {"p"}, "further_s3": {"", "AWS_SESSION_TOKEN"}, "further_value_s3": {"", "canary"}}, []string{`<details id="further-s3" open>`, `<option value="AWS_SESSION_TOKEN" selected`, "!canary"}},
		{"one without a value", url.Values{"scheme": {"s3"}, "url": {"s3:h/b"}, "password": {"p"}, "further_s3": {"AWS_SESSION_TOKEN"}, "further_value_s3": {""}}, []string{`id="f-further-s31-value-error"`, "has no value", `<option value="AWS_SESSION_TOKEN" selected`}},
		{"one without a name", url.Values{"scheme": {"s3"}, "url": {"s3:h/b"}, "password": {"p"}, "further_s3": {"", ""}, "further_value_s3": {"", "canary"}}, []string{`id="f-further-s32-value-error"`, "has no name", "!canary"}},
		{"one that can't be", url.Values{"scheme": {"s3"}, "url": {"s3:h/b"}, "password": {"p"}, "further_s3": {"AWS_SESSION_TOKEN"}, "further_value_s3": {"a\x00b"}}, []string{`id="f-further-s31-value-error"`, "!f-env-error"}},
		{"one twice", url.Values{"scheme": {"s3"}, "url": {"s3:h/b"}, "password": {"p"}, "env_name": {"AWS_PROFILE"}, "env_value": {"a"}, "further_s3": {"AWS_PROFILE"}, "further_value_s3": {"b"}}, []string{`id="f-further-s31-value-error"`, "given twice"}},
	} {
		want(t, c.what, b.post(at, c.form, cookie...), 422, append(c.parts, "<html")...)
		want(t, c.what+" by HTMX", b.post(at, c.form, asHTMX(cookie...)...), 422, "!<html", "!once more", `id="form"`)
	}
	if _, err := models.FindRepository(b.ctx, b.db, h.ID); models.CodeOf(err) != models.ENotFound {
		t.Errorf("something was stored: %v", err)
	}
}

// The second credentials have a form like the first's, never show a secret, and
// go where the repository goes, which is asked once.
func TestCredentialsForForgetAndPruneAreSetReplacedAndRemoved(t *testing.T) {
	t.Parallel()
	b := setup(t)
	h, at := b.host("web-01")
	at += "/repository"
	cookie := []string{"Cookie", "session=" + b.session(models.RoleAdmin)}
	second := at + "/maintenance"
	want(t, "without a repository", b.do("GET", second, nil, cookie...), 409, "no repository yet")
	want(t, "without a repository", b.do("GET", at, nil, cookie...), 200, "!Credentials for forget and prune")
	want(t, "the first", b.post(at, url.Values{"scheme": {"rest"}, "url": {"rest:http://add/x"}, "password": {"p"}}, cookie...), 303)
	want(t, "none yet", b.do("GET", at, nil, cookie...), 200, "None are stored", `href="`+second+`"`, "--append-only", "!Remove credentials")
	want(t, "their form", b.do("GET", second, nil, cookie...), 200, `value="rest:http://add/x"`, "same repository as for every day", "!One is set")
	want(t, "no password", b.post(second, url.Values{"url": {"rest:http://full/x"}}, cookie...), 422, `id="f-password-error"`, `value="rest:http://full/x"`)
	form := url.Values{"scheme": {"rest"}, "url": {"rest:http://full/x"}, "password": {"canary"}, "env_name": {"RESTIC_REST_PASSWORD"}, "env_value": {"canary"}}
	if res := b.post(second, form, cookie...); res.Header.Get("Location") != at {
		t.Errorf("saving leads to %q", res.Header.Get("Location"))
	}
	want(t, "set", b.do("GET", at, nil, cookie...), 200, "rest:http://full/x", "RESTIC_REST_PASSWORD</code>", "Replace credentials", second+"/forget", "!canary")
	want(t, "replaced", b.do("GET", second, nil, cookie...), 200, "One is set", `value="rest:http://full/x"`, "!canary")
	kept := func() bool {
		t.Helper()
		r, err := models.FindRepository(b.ctx, b.db, h.ID)
		if err != nil {
			t.Fatal(err)
		}
		return r.HasMaintenance()
	}
	moved := url.Values{"url": {"rest:http://other/x"}}
	want(t, "another repository", b.post(at, moved, cookie...), 422, `name="drop_maintenance"`, "lead to rest:http://full/x", `value="rest:http://other/x"`)
	want(t, "another one by HTMX", b.post(at, moved, asHTMX(cookie...)...), 422, `name="drop_maintenance"`, "!<html")
	if !kept() {
		t.Error("gone before the answer")
	}
	moved.Set("drop_maintenance", "yes")
	moved.Set("scheme", "sftp")
	want(t, "said beside another mistake", b.post(at, moved, cookie...), 422, `id="f-url-error"`, `id="f-drop_maintenance" type="checkbox" name="drop_maintenance" value="yes" checked`, "!f-drop_maintenance-error")
	moved.Del("scheme")
	if want(t, "said", b.post(at, moved, cookie...), 303); kept() {
		t.Error("still there")
	}
	want(t, "set again", b.post(second, form, cookie...), 303)
	want(t, "asked", b.do("GET", second+"/forget", nil, cookie...), 200, "Remove the credentials for forget and prune?", "rest:http://full/x")
	if want(t, "removed", b.post(second+"/forget", nil, cookie...), 303); kept() {
		t.Error("still there")
	}
}

func TestAListOfPathsIsEditedRowByRow(t *testing.T) {
	t.Parallel()
	b := setup(t)
	h, at := b.host("web-01")
	odd := "/srv/two\nlines"
	g := b.group(h, models.GroupFields{Name: "www", Tag: "web", Includes: []string{"/srv/www", odd}, Retention: models.Retention{KeepDaily: 7, KeepTags: []string{"keep"}}, MinFiles: 1200, MinBytes: 10 << 30})
	groups := at + "/source-groups"
	edit := groups + "/" + g.ID.String()
	cookie := []string{"Cookie", "session=" + b.session(models.RoleOperator)}
	want(t, "the form", b.do("GET", edit, nil, cookie...), 200, ">"+odd+"<", `value="1,200"`, `value="10 GiB"`, "Keeps the last 7 daily snapshots, and everything tagged “keep”;", `aria-label="What to back up, path 2"`)

	form := url.Values{"name": {"www"}, "tag": {""}, "includes": {"/srv/www", "/srv/two\r\nlines", "/a b \r\n\r\n/c\r\n"}, "excludes": {""}, "keep_last": {"x"}, "min_files": {"many"}, "min_bytes": {"1,5 GiB"}}
	edited := func(value string) url.Values {
		f := maps.Clone(form)
		f["edit"] = []string{value}
		return f
	}
	want(t, "a row more", b.post(edit, edited("includes+"), cookie...), 200, "<html", "path 5", "autofocus", ">/a b <", ">/c<", `value="1,5 GiB"`, "Each number must be a whole one", "!path 6")
	want(t, "a row less", b.post(edit, edited("includes-0"), asHTMX(cookie...)...), 200, "!<html", "!>/srv/www<", ">"+odd+"<")
	want(t, "an empty list keeps a row", b.post(edit, edited("excludes-0"), cookie...), 200, `id="f-excludes"`)
	if n := b.count("select count(*) from audit_entries"); n != 0 {
		t.Errorf("drawing a form left %d entries in the audit log", n)
	}
	want(t, "numbers", b.post(edit, form, cookie...), 422, `id="f-keep_last-error"`, `id="f-min_files-error"`, `id="f-min_bytes-error"`, `value="many"`)
	form["keep_last"], form["min_files"], form["min_bytes"] = []string{"1,000"}, []string{""}, []string{"1.5 GiB"}
	form["includes"] = append(form["includes"], "srv", "/c")
	want(t, "two wrong rows", b.post(edit, form, cookie...), 422, `id="f-includes-4-error"`, "&#34;srv&#34; is relative: give the absolute path.", `id="f-includes-5-error"`, "stands twice", "!f-includes-error")
	form["includes"] = form["includes"][:3]
	form["excludes"] = []string{"*.tmp\r\n# x"}
	want(t, "saved", b.post(edit, form, cookie...), 303)
	g, err := models.FindGroup(b.ctx, b.db, h.ID, g.ID)
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(g.Includes, []string{"/srv/www", odd, "/a b ", "/c"}) || !slices.Equal(g.Excludes, []string{"*.tmp", "# x"}) || g.Retention.KeepLast != 1000 || g.MinFiles != 0 || g.MinBytes != 3<<29 || g.Tag != "web" {
		t.Errorf("stored %+v", g)
	}

	want(t, "nothing typed", b.post(groups, url.Values{}, cookie...), 422, `id="f-name-error"`, `id="f-includes-error"`, "Name at least one absolute path.")
	want(t, "a tag that is taken", b.post(groups, url.Values{"name": {"x"}, "tag": {"web"}, "includes": {"/x"}}, cookie...), 422, `id="f-tag-error"`, "choose another tag")
	want(t, "no tag takes the name", b.post(groups, url.Values{"name": {"x"}, "includes": {"/x"}}, cookie...), 303)
	want(t, "words as one types", b.do("GET", "/retention-words?keep_daily=7&keep_weekly=4", nil, asHTMX(cookie...)...), 200, "Keeps the last 7 daily and 4 weekly snapshots; everything else is removed when forget runs.", "!<html")
	if n := b.count("select count(*) from audit_entries where action = ?", "POST /hosts/:id/source-groups/:gid"); n != 3 {
		t.Errorf("three tries to change the group left %d entries", n)
	}
	if n := b.count("select count(*) from source_groups"); n != 2 {
		t.Errorf("%d groups", n)
	}
}

// Removing a group from its last schedules leads on to the question itself,
// however often and late a button is pressed.
func TestAGroupLeavesItsSchedules(t *testing.T) {
	t.Parallel()
	b := setup(t)
	h, at := b.host("web-01")
	www := b.group(h, models.GroupFields{Name: "www", Includes: []string{"/srv"}})
	etc := b.group(h, models.GroupFields{Name: "etc", Includes: []string{"/etc"}})
	both, alone := b.schedule(h, www, etc), b.schedule(h, www)
	group := at + "/source-groups/" + www.ID.String()
	cookie := []string{"Cookie", "session=" + b.session(models.RoleOperator)}
	htmx := asHTMX(cookie...)
	want(t, "nothing is known of", b.do("GET", group+"/delete", nil, cookie...), 409, "Its snapshots stay in the repository")
	b.exec(`insert into snapshots (host_id, id, at, hostname, source_group_id) select ?, lpad(to_hex(n), 64, '0'), now(), 'x', ? from generate_series(1, 1041) n`, h.ID, www.ID)
	for range 2 {
		want(t, "in the way", b.post(group+"/delete", nil, htmx...), 409, "is still in two schedules", "with etc", "the schedule goes too", "Its 1,041 snapshots stay in the repository", "!<html")
		want(t, "asked on a page", b.do("GET", group+"/delete", nil, cookie...), 409, "is still in two schedules", "<html")
	}
	version := b.count("select schedule_version from hosts")
	for range 2 {
		want(t, "the first", b.post(group+"/leave/"+both.ID.String(), nil, htmx...), 409, "is still in one schedule", "autofocus", "!with etc")
	}
	for range 2 {
		want(t, "the last", b.post(group+"/leave/"+alone.ID.String(), nil, htmx...), 200, "Delete “www”?", "Its 1,041 snapshots stay in the repository under the tag “www”")
	}
	if n := b.count("select schedule_version from hosts") - version; n != 2 {
		t.Errorf("two changes raised the schedule version by %d", n)
	}
	res := b.post(group+"/leave/"+alone.ID.String(), nil, cookie...)
	if want(t, "without scripts", res, 303); res.Header.Get("Location") != group+"/delete" {
		t.Errorf("sent to %q", res.Header.Get("Location"))
	}
	if s, err := models.FindSchedule(b.ctx, b.db, h.ID, both.ID); err != nil || !slices.Equal(s.GroupIDs, []models.GroupID{etc.ID}) {
		t.Errorf("the schedule of both: %+v, %v", s, err)
	}
	if _, err := models.FindSchedule(b.ctx, b.db, h.ID, alone.ID); models.CodeOf(err) != models.ENotFound {
		t.Errorf("the schedule without groups is still there: %v", err)
	}
	want(t, "deleted", b.post(group+"/delete", nil, cookie...), 303)
	want(t, "gone", b.do("GET", group, nil, cookie...), 404)
}

func TestAScheduleIsExplainedWithoutScripts(t *testing.T) {
	t.Parallel()
	b := setup(t)
	h, at := b.host("web-01")
	at += "/schedules"
	cookie := []string{"Cookie", "session=" + b.session(models.RoleOperator)}
	want(t, "no groups", b.do("GET", at+"/new", nil, cookie...), 200, "no source group yet", "/source-groups/new")
	g := b.group(h, models.GroupFields{Name: "www", Includes: []string{"/srv"}})
	form := url.Values{"cron": {"30 4 * * 1-5"}, "enabled": {"on"}, "source_group_ids": {g.ID.String()}, "edit": {""}}
	checked := `value="` + g.ID.String() + `" checked`
	want(t, "explained", b.post(at, form, cookie...), 200, "Monday to Friday at 04:30", "UTC", checked)
	form["cron"] = []string{"CRON_TZ=Europe/Berlin 30 2 * 3,10 0"} // both changes of the clocks, one of them within five runs
	want(t, "what the clocks do", b.post(at, form, cookie...), 200, "Europe/Berlin", "clocks go ")
	form["edit"] = []string{"0 * * * *"}
	want(t, "a preset", b.post(at, form, cookie...), 200, `value="0 * * * *"`, "Every hour", checked)
	delete(form, "enabled")
	form["cron"] = []string{"0 0 30 2 *"}
	delete(form, "edit")
	want(t, "never due", b.post(at, form, cookie...), 422, "never", `value="0 0 30 2 *"`, checked, "!name=\"enabled\" value=\"on\" checked")
	if n := b.count("select count(*) from schedules"); n != 0 {
		t.Errorf("%d schedules were stored", n)
	}
}

// Every act of the danger zone asks once, for an administrator alone.
func TestTheDangerZoneAsksFirst(t *testing.T) {
	t.Parallel()
	b := setup(t)
	_, at := b.host("web-01")
	cookie := []string{"Cookie", "session=" + b.session(models.RoleAdmin)}
	operator := []string{"Cookie", "session=" + b.session(models.RoleOperator)}
	want(t, "without a repository", b.do("GET", at+"/danger", nil, cookie...), 200, "Delete web-01", "!Unlock", "!Forget")
	for _, path := range []string{"/repository/init", "/repository/unlock", "/repository/forget"} {
		want(t, path, b.do("GET", at+path, nil, cookie...), 409, "no repository yet")
	}
	want(t, "set", b.post(at+"/repository", url.Values{"url": {"/srv/repo"}, "password": {"p"}}, cookie...), 303)
	want(t, "with a repository", b.do("GET", at+"/danger", nil, cookie...), 200, "Set up again", "Unlock", "Forget the repository", "Delete “web-01”")
	want(t, "an operator", b.do("GET", at+"/danger", nil, operator...), 403)
	want(t, "an operator's host page", b.do("GET", at, nil, operator...), 200, "!/danger", "!/repository\"", "!/edit", "/source-groups/new")

	for path, kind := range map[string]models.JobKind{"/repository/init": models.KindInit, "/repository/unlock": models.KindUnlock} {
		want(t, path, b.do("GET", at+path, nil, cookie...), 200, "/srv/repo", `action="`+at+path+`"`, "<html")
		want(t, path, b.do("GET", at+path, nil, asHTMX(cookie...)...), 200, `hx-post="`+at+path+`"`, "!<html")
		if n := b.count("select count(*) from jobs where kind = ?", kind); n != 0 {
			t.Errorf("asking made %d jobs", n)
		}
		res := b.post(at+path, nil, asHTMX(cookie...)...)
		if want(t, path, res, 200); b.count("select count(*) from jobs where kind = ? and state = 'queued' and actor_name = 'admin' and '/jobs/' || id = ?", kind, res.Header.Get("HX-Redirect")) != 1 {
			t.Errorf("%s leads to %q", path, res.Header.Get("HX-Redirect"))
		}
	}

	for _, c := range []struct{ path, left, then string }{
		{"/repository/forget", "select count(*) from host_repositories", at},
		{"/delete", "select count(*) from hosts where archived_at is null", "/"},
	} {
		want(t, c.path, b.do("GET", at+c.path, nil, cookie...), 200, "Type “web-01” to go on")
		want(t, c.path, b.post(at+c.path, url.Values{"name": {"web-02"}}, cookie...), 422, "That is not its name", `value="web-02"`, `aria-invalid="true"`)
		if b.count(c.left) != 1 {
			t.Errorf("%s: gone by another name", c.path)
		}
		res := b.post(at+c.path, url.Values{"name": {" web-01 "}}, cookie...)
		if want(t, c.path, res, 303); b.count(c.left) != 0 || res.Header.Get("Location") != c.then {
			t.Errorf("%s: still there, or sent to %q", c.path, res.Header.Get("Location"))
		}
	}
	want(t, "the deleted host", b.do("GET", at, nil, cookie...), 404)
}

func TestAHostIsRenamedByHand(t *testing.T) {
	t.Parallel()
	b := setup(t)
	h, at := b.host("web-01")
	b.host("web-02")
	cookie := []string{"Cookie", "session=" + b.session(models.RoleAdmin)}
	want(t, "the form", b.do("GET", at+"/edit", nil, cookie...), 200, `value="web-01"`, "carry the name “web-01”")
	form := url.Values{"name": {"web-02"}, "labels": {"a, b", "prod\r\nweb"}}
	want(t, "a taken name", b.post(at+"/edit", form, cookie...), 422, `id="f-name-error"`, "choose another name", ">a, b<", ">prod<", ">web<")
	form["edit"] = []string{"labels+"}
	want(t, "a label more", b.post(at+"/edit", form, cookie...), 200, "label 4")
	delete(form, "edit")
	form["labels"] = append(form["labels"], strings.Repeat("x", 101))
	want(t, "a long label", b.post(at+"/edit", form, cookie...), 422, "longer than 100")
	form["name"], form["labels"] = []string{"db-01"}, form["labels"][:2]
	want(t, "saved", b.post(at+"/edit", form, cookie...), 303)
	if h, err := models.FindHost(b.ctx, b.db, h.ID); err != nil || h.Name != "db-01" || h.ResticHost != "web-01" || !slices.Equal(h.Labels, []string{"a, b", "prod", "web"}) {
		t.Errorf("%+v, %v", h, err)
	}
}

func TestAFormThatCameInPiecesIsNoFaultOfOurs(t *testing.T) {
	t.Parallel()
	b := setup(t)
	_, at := b.host("web-01")
	cookie := "session=" + b.session(models.RoleAdmin)
	for _, path := range []string{"/repository", "/source-groups", "/schedules", "/edit"} {
		res := b.do("POST", at+path, strings.NewReader("name=%zz"), "Cookie", cookie, "Content-Type", "application/x-www-form-urlencoded")
		want(t, path, res, 422, "did not arrive whole")
	}
}

// The lag of a host's schedules says since when.
func TestAScheduleLagHasItsTime(t *testing.T) {
	t.Parallel()
	b := setup(t)
	h, at := b.host("web-01")
	cookie := "session=" + b.session(models.RoleViewer)
	b.exec("update hosts set enrolled_at = now(), last_seen_at = now() where id = ?", h.ID)
	want(t, "never changed", b.do("GET", at, nil, "Cookie", cookie), 200, "!Schedules changed")
	s := b.schedule(h, b.group(h, models.GroupFields{Name: "www", Includes: []string{"/srv"}}))
	want(t, "made", b.do("GET", at, nil, "Cookie", cookie), 200, "Schedules changed", "just now", "applies version 1; 0 is in force")
	b.exec("update schedules set effective_at = now() - interval '3 days', archived_at = now() - interval '2 hours' where id = ?", s.ID)
	want(t, "deleted", b.do("GET", at, nil, "Cookie", cookie), 200, "2 h ago")
}
