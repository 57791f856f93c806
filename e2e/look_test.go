package e2e

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/playwright-community/playwright-go"

	"resticfleet/e2e/stage"
	"resticfleet/handlers"
)

// look is one way to look at a page, and which of axe's rules apply to it.
type look struct {
	name          string
	scheme        *playwright.ColorScheme
	width, height int
	rules         string
}

// looks are both themes and a telephone. Axe looks at one page of each theme
// and each width: of what it finds, only the colours can be others in the third.
var looks = []look{
	{"light", playwright.ColorSchemeLight, 1280, 900, `{}`},
	{"dark", playwright.ColorSchemeDark, 1280, 900, `{runOnly: ["color-contrast"]}`},
	{"dark-390", playwright.ColorSchemeDark, 390, 844, `{}`},
}

// sight is a page in a state worth looking at.
type sight struct {
	name, path string
	act        func(*page) // what to do there first, if anything
}

// Every page, in both themes and on a small screen: nothing for axe to find,
// nothing that scrolls sideways, and a picture to leaf through in
// results/screens.
func TestEveryPageIsFitToBeSeen(t *testing.T) {
	t.Parallel()
	if err := os.MkdirAll(filepath.Join(suite.results, "screens"), 0o755); err != nil {
		t.Fatal(err)
	}
	s := bareServer(t)
	link, err := s.process.line("within an hour: ", startPatience)
	if err != nil {
		t.Fatal(err)
	}
	first := []sight{{"01-setup", link, nil}, {"02-login", "/login", nil}}
	t.Run("new", func(t *testing.T) {
		p := s.page(t, pageOptions{stranger: true, noTrace: true})
		for _, v := range first {
			p.inspect(v)
		}
	})
	s.setUpIn(t, link)
	sights := s.furnish(t)
	everyPageIsThere(t, append(first, sights...))
	t.Run("abandoned", func(t *testing.T) {
		t.Parallel()
		s := ownServer(t, "--expire-after=30s", "--lost-after=30s")
		p := s.page(t, pageOptions{noTrace: true})
		for _, v := range s.abandon(t) {
			p.inspect(v)
		}
		s.as(t, "vera", "viewer").page(t, pageOptions{noTrace: true}).inspect(sight{"29-forbidden", "/settings/users", nil})
	})
	const tabs = 2
	for tab := range tabs {
		t.Run(fmt.Sprint(tab), func(t *testing.T) {
			t.Parallel()
			p := s.page(t, pageOptions{noTrace: true})
			for i, v := range sights {
				if i%tabs == tab {
					p.inspect(v)
				}
			}
		})
	}
}

// noSight are the pages of the route table that nobody looks at by themselves.
var noSight = []string{
	"/healthz", "/readyz", "/metrics", "/static/*", "/events", // no pages
	"/cron-preview", "/retention-words", "/jobs/hosts", // parts of one
	"/jobs/:id/log", // a plain text
	"/hosts",        // the fleet, by another name
}

// everyPageIsThere finds a sight for each page of the server's own route table.
func everyPageIsThere(t *testing.T, sights []sight) {
	t.Helper()
	web := handlers.New(handlers.Config{})
	seen := map[string]bool{}
	for _, v := range sights {
		u, err := url.Parse(v.path)
		if err != nil {
			t.Fatal(err)
		}
		found := web.NewContext(nil, nil)
		web.Router().Find(http.MethodGet, u.Path, found)
		seen[found.Path()] = true
	}
	for _, r := range web.Routes() {
		program := strings.HasPrefix(r.Path, "/api") || strings.HasPrefix(r.Path, "/agent/")
		if r.Method == http.MethodGet && !program && !seen[r.Path] && !slices.Contains(noSight, r.Path) {
			t.Errorf("no sight of %s", r.Path)
		}
	}
}

// abandon makes a job that its host took and fell silent with, and one that no
// host ever came for.
func (s *server) abandon(t *testing.T) []sight {
	t.Helper()
	c := s.api(t)
	h := s.newHost(t)
	h.bind(localRepo(t))
	h.holdBackups()
	lost := h.run(h.group("www", []string{writeFiles(t, h.dir+"/www", map[string]string{"index.html": "<p>"})}))
	eventually(t, "the backup runs", func() bool { return c.job(lost).State == "running" })
	h.kill()
	expired := h.run(h.group("mail", []string{h.dir}))
	for id, state := range map[string]string{lost: "lost", expired: "expired"} {
		within(t, 3*time.Minute, "a job is "+state, func() bool { return c.job(id).State == state })
	}
	return []sight{{"24-job-lost", "/jobs/" + lost, nil}, {"24-job-expired", "/jobs/" + expired, nil}}
}

// setUpIn makes the first administrator as the one-time link asks.
func (s *server) setUpIn(t *testing.T, link string) {
	t.Helper()
	p := s.page(t, pageOptions{stranger: true})
	p.open(link)
	p.fill("User name", s.user)
	p.fill("Password", s.password)
	p.fill("Password, once more", s.password+"?")
	p.click(p.button("Set up"))
	p.says(p.Locator("#f-password_again-error"), "not the same")
	p.fill("Password", s.password)
	p.fill("Password, once more", s.password)
	p.click(p.button("Set up"))
	p.path("/")
	p.sees(p.button("Add host"))
	p.inspect(sight{name: "03-empty-fleet", path: "/"})
	if res := p.open(link); res.Status() != http.StatusGone {
		t.Errorf("the link answers %d the second time", res.Status())
	}
	var err error
	if s.session, err = login(t.Context(), s.url, s.user, s.password); err != nil {
		t.Fatal(err)
	}
}

// furnish makes a small fleet with a bit of everything, and lists what to see.
func (s *server) furnish(t *testing.T) []sight {
	t.Helper()
	h := s.newHost(t, slowly(64)...)
	c := s.api(t)
	c.call("PATCH", "/api/hosts/"+h.id, map[string]any{"name": "web-01", "labels": []string{"production", "berlin"}}, http.StatusOK, nil)
	r := localRepo(t)
	h.bind(r)
	www := h.group("www", []string{writeFiles(t, h.dir+"/www", map[string]string{"index.html": "<p>"})}, "*.tmp")
	gone := h.group("mail", []string{h.dir + "/var/mail"})
	films := h.group("films", []string{writeFiles(t, h.dir+"/films", map[string]string{"film.mkv": noise(40 << 20)})})
	nightly := h.schedule("30 2 * * *", true, www, gone)
	h.schedule("CRON_TZ=America/New_York 0 */6 * * 1-5", false, www)
	good, failed := c.end(h.run(www)), c.end(h.run(gone))
	writeFiles(t, h.dir+"/www", map[string]string{"news.html": "<p>"})
	c.end(h.run(www))
	snaps := h.listed(2)
	c.call("PATCH", "/api/hosts/"+h.id+"/snapshots/"+snaps[1].ID, map[string]any{"held": true}, http.StatusOK, nil)
	if good.State != "succeeded" || failed.State != "failed" {
		t.Fatalf("want a good and a failed job: %+v %+v", good, failed)
	}
	var small struct{ ID string }
	c.call("POST", "/api/hosts/"+h.id+"/source-groups", map[string]any{"name": "small", "includes": []string{h.dir + "/www"}, "min_files": 1000}, http.StatusCreated, &small)
	warned := c.end(h.run(small.ID))
	running := h.run(films)
	eventually(t, "the long backup tells its progress", func() bool {
		p := c.job(running).Progress
		return len(p) > 0 && string(p) != "null"
	})
	often := h.schedule("@every 1s", true, films)
	var skipped []job
	eventually(t, "a backup is left out because of the long one", func() bool {
		skipped = c.jobs("state=skipped&host_id=" + h.id)
		return len(skipped) > 0
	})
	c.call("DELETE", "/api/hosts/"+h.id+"/schedules/"+often, nil, http.StatusNoContent, nil)

	var away struct{ ID string }
	c.call("POST", "/api/hosts", map[string]any{"name": "db-with-a-rather-long-name-02.example.net", "labels": []string{"production"}}, http.StatusCreated, &away)
	at := "/api/hosts/" + away.ID
	var etc struct{ ID string }
	c.call("POST", at+"/source-groups", map[string]any{"name": "etc", "includes": []string{"/etc"}}, http.StatusCreated, &etc)
	c.call("PUT", at+"/repository", map[string]any{
		"url": "s3:s3.eu-central-1.amazonaws.com/a-long-bucket-name/a/long/path/within/it", "password": "x",
		"env": map[string]string{"AWS_ACCESS_KEY_ID": "x", "AWS_SECRET_ACCESS_KEY": "y"},
	}, http.StatusOK, nil)
	c.call("PUT", at+"/repository/maintenance-credential", map[string]any{
		"url": "s3:s3.eu-central-1.amazonaws.com/a-long-bucket-name/a/long/path/within/it", "password": "x",
		"env": map[string]string{"AWS_ACCESS_KEY_ID": "x", "AWS_SECRET_ACCESS_KEY": "y"},
	}, http.StatusOK, nil)
	var cancelled, waiting job
	c.call("POST", at+"/source-groups/"+etc.ID+"/run", nil, http.StatusAccepted, &cancelled)
	c.call("POST", "/api/jobs/"+cancelled.ID+"/cancel", nil, http.StatusAccepted, nil)
	c.call("POST", at+"/source-groups/"+etc.ID+"/run", nil, http.StatusAccepted, &waiting)

	maintained := s.furnishMaintenance(t, h, r, www)

	s.as(t, "otto-with-a-name-that-nobody-thought-of-when-the-buttons-were-drawn", "operator")
	otto := s.found(t, "/settings/users?q=otto", `/settings/users/[0-9a-f-]{36}`)
	c.send("POST", "/settings/tokens", url.Values{"name": {"a script with a name"}, "role": {"viewer"}})
	revoke := s.found(t, "/settings/tokens", `/settings/tokens/[0-9a-f-]{36}/revoke`)

	host, other := "/hosts/"+h.id, "/hosts/"+away.ID
	setup := s.furnishSetup(t)
	return []sight{
		{"04-fleet", "/", nil},
		{"05-fleet-filtered", "/?q=nothing", nil},
		{"06-add-host", "/hosts/new", nil},
		{"07-enrol", other + "/enrol", nil},
		{"07-enrol-line", other + "/enrol", func(p *page) {
			p.click(p.button("Make the line"))
			p.sees(p.Locator("#enrol-command"))
			p.click(p.Locator("summary").GetByText("No agent on"))
			p.click(p.Locator("summary").GetByText("Keep it running"))
			p.click(p.Locator("summary").GetByText("Nothing happens?"))
		}},
		{"07-setup-repository", setup.repository, nil},
		{"07-setup-refused", setup.refused, func(p *page) { p.says(p.Locator("#step-2"), "Not set up") }},
		{"07-setup-group", setup.group, nil},
		{"07-setup-running", setup.running, func(p *page) { p.sees(p.Locator("#step-4 progress")) }},
		{"07-setup-good", setup.good, nil},
		{"08-host", host, func(p *page) {
			p.sees(p.Locator("#groups progress"))
			if moved := p.script(progressMoves); moved != 0 {
				p.t.Errorf("a running backup's progress moves what is below it by %v px", moved)
			}
		}},
		{"09-host-not-enrolled", other, nil},
		{"10-repository", other + "/repository", nil},
		{"10-repository-second", other + "/repository/maintenance", nil},
		{"10-repository-wrong", host + "/repository", func(p *page) {
			p.choose("Kind of place", "swift")
			p.fill("Place", "swift://anna:secret@cloud.example.net/container")
			p.click(p.Locator("#further-swift summary"))
			p.click(p.button("Save repository"))
			p.sees(p.Locator("#f-url-error"))
		}},
		{"11-group-new", host + "/source-groups/new", nil},
		{"12-group-wrong", host + "/source-groups/" + www, func(p *page) {
			p.fill("Name", "mail")
			p.fill("Daily", "7")
			p.says(p.Locator("#retention-words"), "the last 7 daily")
			p.click(p.button("Add path"))
			p.fill("What to back up, path 2", "srv")
			p.click(p.button("Save “www”"))
			p.sees(p.Locator("#f-includes-1-error"))
		}},
		{"13-group-delete", host + "/source-groups/" + small.ID + "/delete", nil},
		{"13-group-remove-first", host + "/source-groups/" + www + "/delete", nil},
		{"14-group-delete-dialog", host + "/source-groups/" + www, func(p *page) {
			p.click(p.link("Delete this source group"))
			p.sees(p.heading("“www” is still in two schedules"))
		}},
		{"14-group-preview", host + "/source-groups/" + www, func(p *page) {
			p.fill("Daily", "3")
			p.says(p.Locator("#retention-preview"), "Would keep 4, remove 3 of 7.")
		}},
		{"14-group-remove-snapshots", host + "/source-groups/" + www + "/remove-snapshots", nil},
		{"15-schedule", host + "/schedules/" + nightly, nil},
		{"15-schedule-delete", host + "/schedules/" + nightly + "/delete", nil},
		{"16-schedule-daylight", host + "/schedules/new", func(p *page) {
			p.fill("When", "CRON_TZ=Europe/Berlin 30 2 * 3,10 0")
			p.says(p.Locator("#cron-preview"), "March and October")
		}},
		{"17-schedule-wrong", host + "/schedules/new", func(p *page) {
			p.fill("When", "0 0 2 * * *")
			p.click(p.button("Add schedule"))
			p.sees(p.Locator("#f-source_group_ids-error"))
		}},
		{"18-host-edit", host + "/edit", nil},
		{"18-host-danger", host + "/danger", nil},
		{"18-host-danger-dialog", host + "/danger", func(p *page) {
			p.click(p.Locator("#danger").GetByRole(*playwright.AriaRoleLink, playwright.LocatorGetByRoleOptions{Name: "Forget the repository"}))
			p.sees(p.heading("Forget the repository of “web-01”?"))
		}},
		{"18-host-delete", host + "/delete", nil},
		{"18-repository-init", host + "/repository/init", nil},
		{"18-repository-unlock", host + "/repository/unlock", nil},
		{"18-repository-forget", host + "/repository/forget", nil},
		{"18-repository-second-forget", other + "/repository/maintenance/forget", nil},
		{"19-jobs", "/jobs", nil},
		{"20-host-jobs", host + "/jobs?state=failed", nil},
		{"20-jobs-between", "/jobs?host=web-01&when=between&from=2026-01-01T00:00", nil},
		{"20-jobs-no-such-host", "/jobs?host=web", nil},
		{"20-jobs-none-fits", "/jobs?state=lost", nil},
		{"20-snapshots", host + "/snapshots", func(p *page) { p.sees(p.button("Compare the two")) }},
		{"20-snapshots-none-fits", host + "/snapshots?tag=nothing&when=between", nil},
		{"20-snapshots-none", other + "/snapshots", nil},
		{"20-snapshot-delete", host + "/snapshots/" + snaps[0].ID + "/delete", nil},
		{"20-snapshots-compared", host + "/snapshots/compare?a=" + snaps[0].ID + "&b=" + snaps[1].ID, func(p *page) { p.sees(p.Locator("#compared tbody")) }},
		{"21-job-good", "/jobs/" + good.ID, nil},
		{"22-job-failed", "/jobs/" + failed.ID, nil},
		{"22-job-warned", "/jobs/" + warned.ID, nil},
		{"22-job-init", "/jobs/" + h.init(), nil},
		{"23-job-running", "/jobs/" + running, nil},
		{"24-job-waiting", "/jobs/" + waiting.ID, nil},
		{"24-job-cancelled", "/jobs/" + cancelled.ID, nil},
		{"24-job-skipped", "/jobs/" + skipped[0].ID, nil},
		{"25-menu", "/", func(p *page) { p.click(p.Locator("header summary")) }},
		{"26-not-there", "/hosts/nobody", nil},
		{"27-retired", host + "/run-backup", nil},
		{"30-maintenance", host + "/maintenance", func(p *page) { p.says(p.Locator("#maintenance-prune"), "It waits for the") }},
		{"31-maintenance-elsewhere", maintained.shared + "/maintenance", nil},
		{"32-maintenance-broken", maintained.broken + "/maintenance", func(p *page) { p.says(p.Locator("#maintenance-check"), "doesn’t run by itself any more") }},
		{"33-maintenance-off", "/hosts/" + away.ID + "/maintenance", nil},
		{"34-cadence", host + "/maintenance/check", nil},
		{"35-cadence-wrong", host + "/maintenance/check", func(p *page) {
			p.fill("When", "0 0 30 2 *")
			p.fill("How much of the data it reads", "13/12")
			p.click(p.button("Save"))
			p.sees(p.Locator("#f-read_data_subset-error"))
		}},
		{"36-owner", maintained.shared + "/maintenance/owner", nil},
		{"36-owner-dialog", maintained.shared + "/maintenance", func(p *page) {
			p.click(p.Locator("#owner").GetByRole(*playwright.AriaRoleLink, playwright.LocatorGetByRoleOptions{Name: "Make this host"}))
			p.sees(p.Locator("dialog h2"))
		}},
		{"60-settings", "/settings", nil},
		{"61-password-wrong", "/settings/password", func(p *page) {
			p.fill("Current password", "not it")
			p.fill("New password", "short")
			p.fill("New password, once more", "short")
			p.click(p.button("Change password"))
			p.sees(p.Locator("#f-current-error"))
		}},
		{"62-sessions", "/settings/sessions", nil},
		{"63-users", "/settings/users", nil},
		{"64-user-wrong", "/settings/users/new", func(p *page) {
			p.fill("User name", s.user)
			p.fill("New password", "long enough")
			p.fill("New password, once more", "long enough")
			p.click(p.button("Add user"))
			p.sees(p.Locator("#f-name-error"))
		}},
		{"65-user", otto, nil},
		{"66-user-delete", otto + "/delete", nil},
		{"66-user-delete-dialog", otto, func(p *page) {
			p.click(p.GetByRole(*playwright.AriaRoleLink, playwright.PageGetByRoleOptions{Name: "Delete otto"}))
			p.sees(p.GetByRole(*playwright.AriaRoleHeading, playwright.PageGetByRoleOptions{Name: "Delete “otto"}))
		}},
		{"67-token", "/settings/tokens/new", nil},
		{"67-token-made", "/settings/tokens/new", func(p *page) {
			p.fill("What it is for", "monitoring")
			p.click(p.button("Make token"))
			p.sees(p.Locator("#token"))
		}},
		{"68-tokens", "/settings/tokens", nil},
		{"68-token-revoke", revoke, nil},
		{"69-audit", "/settings/audit", nil},
		{"70-audit-nothing", "/settings/audit?who=nobody&outcome=failed", nil},
	}
}

// maintained are hosts whose maintenance tab is worth a look.
type maintained struct{ shared, broken string }

// furnishMaintenance keeps a repository small and checked whose prune waits for
// a backup, shares it with a host that leaves that to the first, and damages the
// repository of a third until its check gives up.
func (s *server) furnishMaintenance(t *testing.T, h *host, r *repo, www string) (v maintained) {
	t.Helper()
	c := s.api(t)
	var named struct {
		ResticHost string `json:"restic_host"`
	}
	at := "/api/hosts/" + h.id
	c.call("GET", at, nil, http.StatusOK, &named)
	var made []stage.Forged
	for day := range 5 {
		made = append(made, stage.Forged{Hostname: named.ResticHost, Tags: []string{"www"}, Time: time.Now().AddDate(0, 0, -day-1)})
	}
	if _, err := stage.Forge(t.Context(), suite.restic, r.url, []string{"RESTIC_REPOSITORY=" + r.url, "RESTIC_PASSWORD=" + r.password}, made); err != nil {
		t.Fatal(err)
	}
	c.call("PUT", at+"/repo-maintenance", map[string]any{
		"forget": map[string]any{"cron": "30 3 * * *", "enabled": true}, "prune": map[string]any{"cron": "30 4 * * 0", "enabled": true},
		"check": map[string]any{"cron": "30 5 * * 0", "enabled": false, "read_data_subset": "1/12"},
	}, http.StatusOK, nil)
	c.call("POST", at+"/repo-maintenance/prune/run", nil, http.StatusAccepted, nil)

	var shared struct{ ID string }
	c.call("POST", "/api/hosts", map[string]any{"name": "web-with-a-rather-long-name-02.example.net"}, http.StatusCreated, &shared)
	c.call("PUT", "/api/hosts/"+shared.ID+"/repository", map[string]any{"url": r.url, "password": r.password}, http.StatusOK, nil)

	broken := s.bareHost(t, "nas-06")
	broken.join()
	damaged := localRepo(t)
	broken.bind(damaged)
	c.end(broken.run(broken.group("system", []string{writeFiles(t, broken.dir+"/etc", map[string]string{"fstab": noise(1 << 10)})})))
	damaged.losePacks()
	c.call("PUT", "/api/hosts/"+broken.id+"/repo-maintenance", map[string]any{
		"forget": map[string]any{"cron": "30 3 * * *", "enabled": true}, "prune": map[string]any{"cron": "30 4 * * 0", "enabled": true},
		"check": map[string]any{"cron": "30 5 * * 0", "enabled": true, "read_data_subset": "1/12"},
	}, http.StatusOK, nil)
	for range 5 {
		if j := c.end(broken.maintain("check")); j.State != "failed" {
			t.Fatalf("a check of what is gone: %+v", j)
		}
	}
	return maintained{"/hosts/" + shared.ID, "/hosts/" + broken.id}
}

// losePacks damages the repository: its data is gone, its snapshots are not. It
// comes back with what is returned.
func (r *repo) losePacks() (back func()) {
	r.t.Helper()
	packs, err := filepath.Glob(filepath.Join(r.url, "data", "*", "*"))
	if err != nil || len(packs) == 0 {
		r.t.Fatalf("%d packs: %v", len(packs), err)
	}
	away := r.url + ".packs"
	move := func(path func(pack string) (from, to string)) {
		r.t.Helper()
		for _, pack := range packs {
			if err := os.Rename(path(pack)); err != nil {
				r.t.Fatal(err)
			}
		}
	}
	if err := os.Mkdir(away, 0o700); err != nil {
		r.t.Fatal(err)
	}
	move(func(pack string) (string, string) { return pack, filepath.Join(away, filepath.Base(pack)) })
	return func() {
		r.t.Helper()
		move(func(pack string) (string, string) { return filepath.Join(away, filepath.Base(pack)), pack })
	}
}

// found is the first path of this form on a page.
func (s *server) found(t *testing.T, on, form string) string {
	t.Helper()
	a := s.api(t).send("GET", on, nil, "Accept", "text/html")
	path := regexp.MustCompile(form).Find(a.body)
	if path == nil {
		t.Fatalf("no %s on %s: status %d", form, on, a.status)
	}
	return string(path)
}

// setups are hosts somewhere on their way to the first backup.
type setups struct{ repository, refused, group, running, good string }

func (s *server) furnishSetup(t *testing.T) setups {
	t.Helper()
	at := func(name string, resticArgs ...string) (*host, string) {
		h := s.bareHost(t, name, resticArgs...)
		h.join()
		return h, "/hosts/" + h.id + "/enrol"
	}
	var v setups
	var h *host
	_, v.repository = at("nas-01")
	h, v.refused = at("nas-02")
	r := localRepo(t)
	r.initialize()
	wrong := *r
	wrong.password = "something else"
	h.store(&wrong)
	h, v.group = at("nas-03")
	h.bind(localRepo(t))
	h, v.running = at("nas-04", slowly(64)...)
	h.bind(localRepo(t))
	h.run(h.group("films", []string{writeFiles(t, h.dir+"/films", map[string]string{"film.mkv": noise(40 << 20)})}))
	h, v.good = at("nas-05")
	h.bind(localRepo(t))
	h.api().end(h.run(h.group("system", []string{writeFiles(t, h.dir+"/etc", map[string]string{"fstab": "none"})})))
	return v
}

// inspect goes to a sight, takes its pictures and finds fault with it.
func (p *page) inspect(v sight) {
	p.t.Helper()
	p.look(looks[0])
	p.open(v.path)
	if v.act != nil {
		v.act(p)
	}
	source, err := os.ReadFile(filepath.Join(filepath.Dir(filepath.Dir(suite.results)), "bin", "axe.min.js"))
	p.must(err)
	p.script(string(source)) // not a script element: the page's policy refuses those
	// What is behind a dialog is dimmed for one window's height.
	dialog := p.script(`document.querySelector("dialog[open]") !== null`).(bool)
	for _, l := range looks {
		p.look(l)
		file := filepath.Join(suite.results, "screens", v.name+"-"+l.name+".png")
		_, err := p.Screenshot(playwright.PageScreenshotOptions{Path: playwright.String(file), FullPage: playwright.Bool(!dialog)})
		p.must(err)
		if beyond := p.script(beyondTheEdge).([]any); len(beyond) > 0 {
			p.t.Errorf("%s scrolls sideways at %d px because of %v", v.name, l.width, beyond)
		}
		p.axe(v.name+" "+l.name, l.rules)
	}
}

// look turns to a theme and a size.
func (p *page) look(l look) {
	p.t.Helper()
	p.must(p.EmulateMedia(playwright.PageEmulateMediaOptions{ColorScheme: l.scheme}))
	p.must(p.SetViewportSize(l.width, l.height))
}

// beyondTheEdge lists what makes a page wider than its window.
const beyondTheEdge = `() => {
	const width = document.documentElement.clientWidth;
	if (document.documentElement.scrollWidth <= width) return [];
	return [...document.body.querySelectorAll("*")].filter(e => e.getBoundingClientRect().right > width)
		.slice(-3).map(e => e.outerHTML.slice(0, 200));
}`

// progressMoves is by how much a group's progress moves the schedules below.
const progressMoves = `() => {
	const line = document.querySelector("#groups progress").parentElement;
	const top = () => document.querySelector("#schedules").getBoundingClientRect().top;
	const there = top();
	line.style.display = "none";
	const moved = there - top();
	line.style.display = "";
	return moved;
}`

// axe fails the test for everything that axe-core, which the page has, finds on
// it by these rules.
func (p *page) axe(where, rules string) {
	p.t.Helper()
	raw := p.script(`async () => JSON.stringify((await axe.run(document, {resultTypes: ["violations"], ...` + rules + `})).violations)`)
	var violations []struct {
		ID, Help string
		Nodes    []struct {
			HTML           string
			FailureSummary string
		}
	}
	p.must(json.Unmarshal([]byte(raw.(string)), &violations))
	for _, v := range violations {
		for _, n := range v.Nodes {
			p.t.Errorf("%s: %s: %s\n%s\n%s", where, v.ID, v.Help, n.HTML, n.FailureSummary)
		}
	}
}
