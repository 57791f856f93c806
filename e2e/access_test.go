package e2e

import (
	"encoding/json"
	"net/http"
	"strings"
	"testing"

	"github.com/playwright-community/playwright-go"
)

// What is gone says what came instead, to everybody and in each one's language.
func TestRetiredRoutesSayWhatReplacedThem(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	stranger := suite.target
	stranger.session = nil
	for _, path := range []string{"/hosts/" + h.id + "/run-backup", "/hosts/nowhere/init-repo"} {
		for _, method := range []string{"GET", "POST", "DELETE"} {
			for _, api := range []string{"", "/api"} {
				a := stranger.api(t).send(method, api+path, nil, "Accept", "application/json")
				var problem struct{ Replacement string }
				if err := json.Unmarshal(a.body, &problem); err != nil || a.status != http.StatusGone || !strings.HasPrefix(problem.Replacement, "POST /api/hosts/{id}/") {
					t.Errorf("%s %s: status %d, %v: %s", method, api+path, a.status, err, a.body)
				}
			}
		}
	}
	a := stranger.api(t).send("POST", "/hosts/"+h.id+"/run-backup", nil, "Accept", "text/html", "HX-Request", "true", "HX-Request-Type", "partial")
	if a.status != http.StatusGone || strings.Contains(string(a.body), "<html") || !strings.Contains(string(a.body), "Run now") {
		t.Errorf("HTMX: status %d: %s", a.status, a.body)
	}

	p := newPage(t)
	if res := p.open("/hosts/" + h.id + "/run-backup"); res.Status() != http.StatusGone {
		t.Errorf("the page answers %d", res.Status())
	}
	p.says(p.GetByRole(*playwright.AriaRoleAlert), "Each source group has a Run now of its own")
	p.click(p.link("Open the host"))
	p.path("/hosts/" + h.id)
}

// Whoever is not logged in gets to the login, and from there to where they
// wanted to go; also when the session ends under an open page.
func TestLoginLeadsBack(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	p := suite.target.page(t, pageOptions{stranger: true})
	logIn := func() {
		p.path("/login")
		p.fill("User name", suite.target.user)
		p.fill("Password", suite.target.password)
		p.click(p.button("Log in"))
	}
	p.open("/hosts/" + h.id + "/source-groups/new")
	logIn()
	p.path("/hosts/" + h.id + "/source-groups/new")

	p.fill("Name", "etc")
	p.fill("Tag", "etc")
	p.fill("What to back up", "/etc")
	p.must(p.Context().ClearCookies())
	p.click(p.button("Add source group"))
	logIn()
	p.path("/hosts/" + h.id + "/source-groups/new")
	p.click(p.GetByText(suite.target.user).First())
	p.click(p.button("Log out"))
	p.path("/login")
	p.open("/jobs")
	p.path("/login")
}

// A viewer sees everything and can change nothing, in the browser or past it.
func TestViewerChangesNothing(t *testing.T) {
	t.Parallel()
	s := ownServer(t)
	admin := s.api(t)
	viewer := s.as(t, "vera", "viewer")
	operator := s.as(t, "otto", "operator")
	var host, group, schedule struct{ ID string }
	admin.call("POST", "/api/hosts", map[string]any{"name": "web-01"}, http.StatusCreated, &host)
	at := "/api/hosts/" + host.ID
	admin.call("POST", at+"/source-groups", map[string]any{"name": "www", "includes": []string{"/srv/www"}}, http.StatusCreated, &group)
	admin.call("PUT", at+"/repository", map[string]any{"url": "/srv/repo", "password": "x"}, http.StatusOK, nil)
	admin.call("POST", at+"/schedules", map[string]any{"cron": "0 2 * * *", "source_group_ids": []string{group.ID}}, http.StatusCreated, &schedule)
	admin.call("POST", "/api/hosts", map[string]any{"name": "web-02"}, http.StatusCreated, nil)
	var waiting job
	admin.call("POST", at+"/source-groups/"+group.ID+"/run", nil, http.StatusAccepted, &waiting)

	p := viewer.page(t, pageOptions{})
	for _, path := range []string{"/", "/hosts/" + host.ID, "/hosts/" + host.ID + "/jobs", "/jobs", "/jobs/" + waiting.ID} {
		p.open(path)
		p.sees(p.Locator("main :text('web-01'):visible").First())
		if forms := p.script(`[...document.querySelectorAll("main form[method=post], main [hx-post]")].map(e => e.outerHTML).join("\n")`); forms != "" {
			t.Errorf("%s shows a viewer ways to change something: %s", path, forms)
		}
		for _, link := range p.script(`[...document.querySelectorAll("main a")].map(a => a.getAttribute("href"))`).([]any) {
			if a := viewer.api(t).send("GET", link.(string), nil, "Accept", "text/html"); a.status != http.StatusOK {
				t.Errorf("%s leads a viewer to %s, which answers %d", path, link, a.status)
			}
		}
	}
	page := "/hosts/" + host.ID
	for _, path := range []string{"/hosts/new", page + "/source-groups/new", page + "/schedules/new", page + "/repository", page + "/delete"} {
		if res := p.open(path); res.Status() != http.StatusForbidden {
			t.Errorf("GET %s answers a viewer %d, want 403", path, res.Status())
		}
	}
	p.sees(p.heading("You may not do this"))

	for _, post := range []string{
		page + "/source-groups/" + group.ID + "/run", page + "/source-groups", page + "/schedules",
		page + "/schedules/" + schedule.ID + "/enabled", page + "/schedules/" + schedule.ID + "/delete",
		page + "/source-groups/" + group.ID + "/delete", "/jobs/" + waiting.ID + "/cancel",
		at + "/source-groups/" + group.ID + "/run", at + "/source-groups", at + "/schedules", "/api/jobs/" + waiting.ID + "/cancel",
	} {
		if a := viewer.api(t).send("POST", post, nil); a.status != http.StatusForbidden {
			t.Errorf("POST %s answers a viewer %d, want 403", post, a.status)
		}
	}
	for _, post := range []string{"/hosts", page + "/delete", page + "/enrol", page + "/repository", page + "/repository/init", "/api/hosts", at + "/enrollment-tokens"} {
		for name, role := range map[string]target{"a viewer": viewer, "an operator": operator} {
			if a := role.api(t).send("POST", post, nil); a.status != http.StatusForbidden {
				t.Errorf("POST %s answers %s %d, want 403", post, name, a.status)
			}
		}
	}
	if j := admin.job(waiting.ID); j.State != "queued" {
		t.Errorf("the job is %s", j.State)
	}
}

// Another site can't make a logged-in browser post here.
func TestForeignSiteIsRefused(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	group := h.group("docs", []string{"/srv"})
	for _, header := range [][]string{{"Sec-Fetch-Site", "cross-site"}, {"Sec-Fetch-Site", "same-site"}, {"Origin", "https://evil.example"}} {
		a := h.api().send("POST", "/hosts/"+h.id+"/source-groups/"+group+"/run", nil, header...)
		if a.status != http.StatusForbidden {
			t.Errorf("%s: status %d, want 403", header, a.status)
		}
	}
	if jobs := h.api().jobs("kind=backup&host_id=" + h.id); len(jobs) != 0 {
		t.Errorf("another site made jobs: %+v", jobs)
	}
}
