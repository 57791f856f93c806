package handlers

import (
	"context"
	"fmt"
	"mime"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/uptrace/bun"

	"resticfleet/agent/protocol"
	"resticfleet/models"
	"resticfleet/models/modeltest"
)

// fleet is a host with a repository and a group, and what a test does to them.
type fleet struct {
	*bundle
	host  *models.Host
	group *models.Group
}

func (b *bundle) fleet(name string) *fleet {
	b.t.Helper()
	f := &fleet{bundle: b}
	var err error
	if f.host, err = models.AddHost(b.ctx, b.db, models.HostFields{Name: name, ResticHost: uuid.NewString()}); err != nil {
		b.t.Fatal(err)
	}
	if _, err = models.BindRepository(b.ctx, b.db, modeltest.Sealer(b.t), f.host.ID, models.RepositoryFields{URL: "/srv/" + name, Password: "x"}); err != nil {
		b.t.Fatal(err)
	}
	f.group = f.add("www")
	return f
}

func (f *fleet) add(group string) *models.Group {
	f.t.Helper()
	g, err := models.AddGroup(f.ctx, f.db, f.host.ID, models.GroupFields{Name: group, Includes: []string{"/srv"}})
	if err != nil {
		f.t.Fatal(err)
	}
	return g
}

// job makes one of the host's jobs, asked for some time ago.
func (f *fleet) job(g *models.Group, kind models.JobKind, state models.JobState, ago time.Duration) models.JobID {
	f.t.Helper()
	at := time.Now().Add(-ago)
	id := models.JobID(uuid.New())
	ms := at.UnixMilli()
	for i := range 6 {
		id[5-i] = byte(ms >> (8 * i))
	}
	id[6] = 0x70 | id[6]&0x0f
	var group *models.GroupID
	name := ""
	if g != nil {
		group, name = &g.ID, g.Name
	}
	f.exec(`insert into jobs (id, host_id, kind, state, actor_kind, source_group_id, source_group_name, queued_at, repository_id)
		values (?, ?, ?, 'queued', 'system', ?, ?, ?, (select repository_id from repository_urls where url = ?))`, id, f.host.ID, kind, group, name, at, "/srv/"+f.host.Name)
	if state != models.JobQueued {
		f.exec("update jobs set state = 'sent', sent_at = ?, accepted_at = ? where id = ?", at, at, id)
		f.exec(`update jobs set state = ?, snapshot_id = case when ? in ('succeeded', 'warning') then 'aaaaaaaa' else '' end, started_at = case when ? = 'sent' then null else ?::timestamptz end,
			finished_at = case when ? in ('sent', 'running') then null else ?::timestamptz end where id = ?`, state, state, state, at, state, at, id)
	}
	return id
}

// online is a host that was heard of just now.
func (f *fleet) online() {
	f.exec("update hosts set last_seen_at = now(), link = 'websocket' where id = ?", f.host.ID)
}

// get is a page as someone of this role sees it.
func (b *bundle) get(role models.Role, path string, header ...string) (int, string, http.Header) {
	b.t.Helper()
	res := b.do("GET", path, nil, append([]string{"Authorization", "Bearer " + b.token(role), "Accept", "text/html"}, header...)...)
	return res.StatusCode, body(b.t, res), res.Header
}

func (b *bundle) page(path string) string {
	b.t.Helper()
	status, html, _ := b.get(models.RoleAdmin, path)
	if status != http.StatusOK {
		b.t.Fatalf("%s: %d: %s", path, status, html)
	}
	return html
}

func TestTheListsFilterIsAPlainForm(t *testing.T) {
	t.Parallel()
	b := setup(t)
	web, db := b.fleet("web"), b.fleet("db")
	mail := web.add("mail")
	jobs := map[string]models.JobID{
		"old":     web.job(web.group, models.KindBackup, models.JobSucceeded, 90*24*time.Hour),
		"init":    db.job(nil, models.KindInit, models.JobSucceeded, 3*24*time.Hour),
		"failed":  web.job(web.group, models.KindBackup, models.JobFailed, 2*time.Hour),
		"mail":    web.job(mail, models.KindBackup, models.JobWarning, 30*time.Minute),
		"running": db.job(db.group, models.KindBackup, models.JobRunning, 20*time.Minute),
		"waiting": web.job(web.group, models.KindBackup, models.JobQueued, 10*time.Minute),
	}
	look := web.job(nil, "ls", models.JobSucceeded, time.Minute)
	group, others := "&group="+web.group.ID.String(), "&group="+db.group.ID.String()
	local := func(ago time.Duration) string {
		return url.QueryEscape(time.Now().Add(-ago).In(pageClock(nil).Zone).Format("2006-01-02T15:04"))
	}
	for query, want := range map[string]string{
		"":                              "failed init mail old running waiting",
		"?state=failed":                 "failed",
		"?state=open":                   "running waiting",
		"?state=waiting":                "waiting",
		"?state=nonsense&kind=ls":       "failed init mail old running waiting",
		"?kind=init":                    "init",
		"?host=WEB":                     "failed mail old waiting",
		"?host=web" + group:             "failed old waiting",
		"?host=" + web.host.ID.String(): "failed mail old waiting",
		"?host=web" + others:            "failed mail old waiting", // not its group
		"?host=&" + group[1:]:           "failed init mail old running waiting",
		"?when=1h":                      "mail running waiting",
		"?when=168h":                    "failed init mail running waiting",
		"?when=168h&state=succeeded":    "init",
		"?when=between&from=" + local(25*time.Minute):                           "running waiting",
		"?when=between&from=" + local(24*time.Hour) + "&to=" + local(time.Hour): "failed",
		"?when=1h&from=" + local(24*time.Hour) + "&to=" + local(time.Hour):      "mail running waiting",
		"?host=web&state=failed&kind=backup&when=24h" + group:                   "failed",
		"?when=between&to=2020-01-01":                                           "",
	} {
		html := b.page("/jobs" + query)
		var got []string
		for name, id := range jobs {
			if strings.Contains(html, `id="job-`+id.String()+`"`) {
				got = append(got, name)
			}
		}
		slices.Sort(got)
		if strings.Join(got, " ") != want {
			t.Errorf("%q shows %v, want %s", query, got, want)
		}
		if strings.Contains(html, look.String()) {
			t.Errorf("%q shows a look-up", query)
		}
		if want == "" && !strings.Contains(html, "No job fits this filter.") {
			t.Errorf("%q doesn't say that none fits", query)
		}
		if !strings.Contains(html, "times in "+pageClock(nil).ZoneName()) {
			t.Errorf("%q doesn't say the zone", query)
		}
	}
	html := b.page("/jobs?host=web" + group + "&state=failed&when=between&from=2026-11-01T00:00")
	for _, part := range []string{
		`value="web"`, `<option value="` + web.group.ID.String() + `" selected>www`, `<option value="failed" selected>`, `value="2026-11-01T00:00"`, `method="get"`, "<noscript><button",
	} {
		if !strings.Contains(html, part) {
			t.Errorf("the form doesn't hold %q", part)
		}
	}
	if html := b.page("/hosts/" + db.host.ID.String() + "/jobs?host=web"); strings.Contains(html, `name="host"`) || !strings.Contains(html, jobs["init"].String()) || strings.Contains(html, jobs["failed"].String()) {
		t.Error("a host's own list is not the host's")
	}
}

func TestTheListSaysWhatIsWrongWithItsFilter(t *testing.T) {
	t.Parallel()
	b := setup(t)
	for _, name := range []string{"web-01", "web-02", "db"} {
		b.fleet(name)
	}
	for query, want := range map[string]string{
		"?host=web":                    "No host is called “web”. There is web-01, web-02.",
		"?host=nas":                    "No host is called “nas”.",
		"?when=between&from=yesterday": "This is not a time.",
		"?when=between&to=2026-13-01":  "This is not a time.",
		"?when=between&from=2026-11-02T00:00&to=2026-11-01T00:00": "This is not after the beginning.",
	} {
		status, html, _ := b.get(models.RoleViewer, "/jobs"+query)
		if status != http.StatusUnprocessableEntity || !strings.Contains(html, want) || !strings.Contains(html, `aria-invalid="true"`) {
			t.Errorf("%s: %d without %q", query, status, want)
		}
		typed, _ := url.ParseQuery(query[1:])
		for name, value := range typed {
			if name != "when" && !strings.Contains(html, `value="`+value[0]+`"`) {
				t.Errorf("%s: what was typed is lost", query)
			}
		}
		if !strings.Contains(html, "Show all jobs") {
			t.Errorf("%s: there is no way out", query)
		}
	}
	if status, _, _ := b.get(models.RoleViewer, "/jobs?cursor=nonsense"); status != http.StatusUnprocessableEntity {
		t.Errorf("a wrong cursor: %d", status)
	}
	_, names, _ := b.get(models.RoleViewer, "/jobs/hosts?host=WEB")
	if names != `<option value="web-01"></option><option value="web-02"></option>` {
		t.Errorf("offered while one types: %s", names)
	}
}

// Someone who is in the list sees the rows change and none come in above.
func TestALiveListKeepsItsPlace(t *testing.T) {
	t.Parallel()
	b := setup(t)
	f := b.fleet("web")
	top := f.job(f.group, models.KindBackup, models.JobFailed, time.Hour)
	newer := f.job(f.group, models.KindBackup, models.JobSucceeded, time.Minute)
	other := f.job(f.group, models.KindBackup, models.JobFailed, 30*time.Second)
	_, html, _ := b.get(models.RoleViewer, "/jobs?state=failed&newest="+top.String(), "HX-Request", "true", "HX-Request-Type", "partial")
	if !strings.HasPrefix(html, `<div id="jobs"`) || !strings.Contains(html, "job-"+top.String()) || strings.Contains(html, other.String()) || strings.Contains(html, newer.String()) {
		t.Errorf("the rows are not those from the newest on: %s", html)
	}
	if !strings.Contains(html, "Show 1 newer job<") || !strings.Contains(html, `data-newest="`+top.String()+`"`) {
		t.Error("that there is a newer one is not said")
	}
	if html := b.page("/jobs?state=failed"); strings.Contains(html, "newer job") || !strings.Contains(html, other.String()) {
		t.Error("the page itself holds something back")
	}
}

func TestTheListGoesOnPageByPage(t *testing.T) {
	t.Parallel()
	b := setup(t)
	f := b.fleet("web")
	for i := range 120 {
		f.job(f.group, models.KindBackup, models.JobFailed, time.Duration(i+1)*time.Minute)
	}
	seen, path, pages := map[string]bool{}, "/jobs?host=web&state=failed", 0
	for path != "" {
		html := b.page(path)
		for _, part := range strings.Split(html, `<tr id="job-`)[1:] {
			if id := part[:36]; seen[id] {
				t.Fatalf("%s stands twice", id)
			} else {
				seen[id] = true
			}
		}
		pages++
		_, rest, found := strings.Cut(html, `rel="next" href="`)
		if path = ""; found {
			next, _, _ := strings.Cut(rest, `"`)
			path = strings.ReplaceAll(next, "&amp;", "&")
		}
	}
	if len(seen) != 120 || pages != 3 {
		t.Errorf("%d jobs on %d pages", len(seen), pages)
	}
	if b.exec("delete from jobs"); !strings.Contains(b.page("/jobs"), "Nothing has run yet.") {
		t.Error("a fleet that never did anything isn't told so")
	}
}

func TestAWaitingJobSaysWhatItWaitsFor(t *testing.T) {
	t.Parallel()
	b := setup(t)
	web, db := b.fleet("web"), b.fleet("db")
	db.exec("update host_repositories set url_key = '/srv/web' where host_id = ?", db.host.ID)
	waiting := web.job(web.group, models.KindBackup, models.JobQueued, time.Minute)
	says := func(name string, id models.JobID, page, list string) {
		t.Helper()
		if html := b.page("/jobs/" + id.String()); !strings.Contains(html, page) {
			t.Errorf("%s: its page doesn't say %q", name, page)
		}
		html := b.page("/jobs")
		_, row, _ := strings.Cut(html, `id="job-`+id.String()+`"`)
		if row, _, _ = strings.Cut(row, "</tr>"); !strings.Contains(row, list) {
			t.Errorf("%s: the list doesn't say %q", name, list)
		}
	}
	says("never there", waiting, "No agent has come from web yet.", "host is away")
	b.exec("update hosts set last_seen_at = now() - interval '1 hour' where id = ?", web.host.ID)
	says("away", waiting, "web is not connected.", "host is away")
	says("away", waiting, "without a sign of it", "host is away")
	web.online()
	db.online()
	says("free", waiting, "as soon as its turn comes", "")
	running := web.job(web.add("mail"), models.KindBackup, models.JobRunning, 2*time.Minute)
	says("behind a backup", waiting, "one backup at a time", "behind mail")
	says("behind a backup", waiting, `href="/jobs/`+running.String()+`"`, "behind mail")
	b.exec("update jobs set state = 'failed', finished_at = now() where id = ?", running)
	prune := db.job(nil, "prune", models.JobQueued, 3*time.Minute)
	b.exec("update jobs set repository_id = (select repository_id from repository_urls where url = '/srv/web') where id = ?", prune)
	says("behind exclusive work", waiting, "Prune on db", "behind Prune")
	b.exec("update jobs set state = 'cancelled', finished_at = now() where id = ?", prune)
	init := web.job(nil, models.KindInit, models.JobQueued, 3*time.Minute)
	says("behind the init", waiting, "The repository is initialised first.", "behind Init")
	b.exec("update jobs set state = 'sent', sent_at = now() where id = ?", init)
	says("sent", init, "On its way to web", "on its way")
	b.exec("update jobs set accepted_at = now() where id = ?", init)
	says("accepted", init, "web has it and starts it", "host has it")
	b.exec("update hosts set last_seen_at = now() - interval '5 minutes' where id = ?", web.host.ID)
	says("silent", init, "Nothing has been heard of web for 5 min", "host has it")
	b.exec("update jobs set cancel_requested_at = now() where id = ?", init)
	says("to be cancelled", init, "told to stop as soon as it is back", "host has it")
	b.exec("update jobs set settle_after = now() where id = ?", init)
	says("to be settled", init, "asked what the repository knows", "host has it")
}

func TestALogIsDownloadedAsAFile(t *testing.T) {
	t.Parallel()
	b := setup(t)
	f := b.fleet("wéb 01")
	id := f.job(f.group, models.KindBackup, models.JobFailed, time.Hour)
	f.exec("insert into job_log_lines (job_id, seq, at, level, text) select ?, i, '2026-11-20 01:02:03.456+00', 'info', 'line ' || i from generate_series(1, 2500) i", id)
	f.exec("insert into job_log_lines (job_id, seq, at, level, text) values (?, 2501, now(), 'error', E'a name\nof two lines')", id)
	status, log, head := b.get(models.RoleViewer, "/jobs/"+id.String()+"/log")
	kind, params, err := mime.ParseMediaType(head.Get("Content-Disposition"))
	if err != nil || status != http.StatusOK || kind != "attachment" || !strings.HasPrefix(params["filename"], "wéb-01-backup-www-") || !strings.HasSuffix(params["filename"], ".log") {
		t.Errorf("%d, %q: %v", status, head.Get("Content-Disposition"), err)
	}
	if head.Get("Content-Type") != "text/plain; charset=utf-8" || head.Get("X-Content-Type-Options") != "nosniff" {
		t.Errorf("headers %v", head)
	}
	lines := strings.Split(strings.TrimSpace(log), "\n")
	if len(lines) != 2501 || lines[0] != "2026-11-20T01:02:03.456Z info line 1" || lines[2499] != "2026-11-20T01:02:03.456Z info line 2500" || !strings.HasSuffix(lines[2500], ` error a name\nof two lines`) {
		t.Errorf("%d lines from %q to %q", len(lines), lines[0], lines[len(lines)-1])
	}
	if html := b.page("/jobs/" + id.String()); !strings.Contains(html, "2,001 earlier lines are in the download.") || !strings.Contains(html, `href="/jobs/`+id.String()+`/log"`) {
		t.Error("the page doesn't say where the beginning is")
	}
	if status, _, _ := b.get(models.RoleViewer, "/jobs/"+uuid.NewString()+"/log"); status != http.StatusNotFound {
		t.Errorf("the log of no job: %d", status)
	}
}

func TestAJobThatIsNotThereLeadsToTheOthers(t *testing.T) {
	t.Parallel()
	b := setup(t)
	for _, id := range []string{uuid.NewString(), "17", "%00"} {
		status, html, _ := b.get(models.RoleViewer, "/jobs/"+id)
		if status != http.StatusNotFound || !strings.Contains(html, "There is no such job") || !strings.Contains(html, `href="/jobs" class="btn`) {
			t.Errorf("%s: %d: %s", id, status, html)
		}
	}
}

func TestRunningAgainLeadsToTheNewJob(t *testing.T) {
	t.Parallel()
	b := setup(t)
	f := b.fleet("web")
	failed := f.job(f.group, models.KindBackup, models.JobFailed, time.Hour)
	post := func(id models.JobID, header ...string) *http.Response {
		return b.do("POST", "/jobs/"+id.String()+"/again", nil, append([]string{"Authorization", "Bearer " + b.token(models.RoleOperator)}, header...)...)
	}
	res := post(failed)
	if to := res.Header.Get("Location"); res.StatusCode != http.StatusSeeOther || !strings.HasPrefix(to, "/jobs/") || to == "/jobs/"+failed.String() {
		t.Fatalf("%d to %q", res.StatusCode, to)
	}
	again := post(failed, "HX-Request", "true", "HX-Request-Type", "partial")
	if to := again.Header.Get("HX-Redirect"); to != res.Header.Get("Location") {
		t.Errorf("the second click leads to %q, want the one that waits", to)
	}
	if n := b.count("select count(*) from jobs where state = 'queued' and actor_kind = 'user'"); n != 1 {
		t.Errorf("%d jobs wait", n)
	}
	if res := post(f.job(nil, models.KindInit, models.JobFailed, time.Hour)); res.StatusCode != http.StatusConflict {
		t.Errorf("an init: %d", res.StatusCode)
	}
	if _, err := models.DeleteGroup(b.ctx, b.db, f.host.ID, f.group.ID); err != nil {
		t.Fatal(err)
	}
	if res := post(failed); res.StatusCode != http.StatusNotFound {
		t.Errorf("a deleted group: %d", res.StatusCode)
	}
	html := b.page("/jobs/" + failed.String())
	if strings.Contains(html, "/again") || !strings.Contains(html, "Backup of www") {
		t.Error("the page of a deleted group's job")
	}
	if _, html, _ := b.get(models.RoleViewer, "/jobs/"+failed.String()); strings.Contains(html, `method="post" action="/jobs`) {
		t.Error("a viewer is offered to change something")
	}
}

func TestADeletedHostKeepsItsHistory(t *testing.T) {
	t.Parallel()
	b := setup(t)
	f := b.fleet("web")
	f.exec("update hosts set timezone = 'Asia/Tokyo' where id = ?", f.host.ID)
	id := f.job(f.group, models.KindBackup, models.JobFailed, time.Hour)
	f.exec("update jobs set error_code = ?, error = 'why' where id = ?", protocol.ErrWrongPassword, id)
	if _, err := models.DeleteHost(b.ctx, b.db, f.host.ID); err != nil {
		t.Fatal(err)
	}
	b.fleet("web") // another takes its name
	history := "/hosts/" + f.host.ID.String() + "/jobs"
	html := b.page("/jobs/" + id.String())
	for _, part := range []string{"web (deleted)", `href="` + history + `"`, "Asia/Tokyo", "The repository refused the password"} {
		if !strings.Contains(html, part) {
			t.Errorf("the job's page has no %q", part)
		}
	}
	if strings.Contains(html, `href="/hosts/`+f.host.ID.String()+`"`) || strings.Contains(html, "/repository\"") {
		t.Error("the job's page leads to what is gone")
	}
	if html := b.page(history); !strings.Contains(html, id.String()) || !strings.Contains(html, "web (deleted)") {
		t.Error("its own list is not there")
	}
	if html := b.page("/jobs"); !strings.Contains(html, `href="`+history+`"`) || !strings.Contains(html, "(deleted)") {
		t.Error("the list leads to what is gone")
	}
	if html := b.page("/jobs?host=web"); strings.Contains(html, id.String()) {
		t.Error("the name is another host's now")
	}
}

func TestTheNewestGoodSnapshotIsNamedWithItsPlace(t *testing.T) {
	t.Parallel()
	b := setup(t)
	f := b.fleet("web")
	good := f.job(f.group, models.KindBackup, models.JobSucceeded, 27*time.Hour)
	f.exec("update jobs set repository_url = '/srv/web' where id = ?", good)
	f.exec("update source_groups set good_snapshot_id = 'aaaaaaaa', good_at = now() - interval '27 hours' where id = ?", f.group.ID)
	failed := f.job(f.group, models.KindBackup, models.JobFailed, time.Hour)
	html := b.page("/jobs/" + failed.String())
	for _, part := range []string{"The newest good snapshot of www is still", `href="/jobs/` + good.String() + `"`, "aaaaaaaa", "1 d 3 h"} {
		if !strings.Contains(html, part) {
			t.Errorf("the page has no %q", part)
		}
	}
	if strings.Contains(html, "not in the repository") {
		t.Error("it is in the host's repository")
	}
	if _, err := models.BindRepository(b.ctx, b.db, modeltest.Sealer(t), f.host.ID, models.RepositoryFields{URL: "/srv/new", Password: "x"}); err != nil {
		t.Fatal(err)
	}
	if html := b.page("/jobs/" + failed.String()); !strings.Contains(html, "not in the repository that web has now") || !strings.Contains(html, "/srv/web") {
		t.Error("that it is elsewhere is not said")
	}
}

// counter counts statements.
type counter struct{ n int }

func (c *counter) BeforeQuery(ctx context.Context, _ *bun.QueryEvent) context.Context {
	c.n++
	return ctx
}

func (*counter) AfterQuery(context.Context, *bun.QueryEvent) {}

// However much there is to show, a page asks the database a fixed number of
// times; one of them is for who asks.
func TestJobPagesAskTheDatabaseSeldom(t *testing.T) {
	t.Parallel()
	b := setup(t)
	f := b.fleet("web")
	var last models.JobID
	for i := range 30 {
		last = f.job(f.add(fmt.Sprintf("group-%d", i)), models.KindBackup, models.JobQueued, time.Duration(i)*time.Minute)
	}
	c := &counter{}
	config := b.h.Config
	config.DB = b.db.WithQueryHook(c)
	web := New(config)
	session := b.session(models.RoleAdmin)
	for path, want := range map[string]int{"/jobs": 5, "/jobs?host=web&state=open": 7, "/hosts/" + f.host.ID.String() + "/jobs": 7, "/jobs/" + last.String(): 7} {
		c.n = 0
		r := b.request("GET", path, nil, "Cookie", "session="+session)
		w := httptest.NewRecorder()
		web.ServeHTTP(w, r)
		if w.Code != http.StatusOK || c.n > want {
			t.Errorf("%s: %d, %d statements, want at most %d", path, w.Code, c.n, want)
		}
		t.Logf("%s: %d statements", path, c.n)
	}
}
