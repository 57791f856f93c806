package handlers

import (
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"testing"

	"resticfleet/models"
)

var href = regexp.MustCompile(`href="(/[^"]*)"`)

// Every page is at most two clicks from the fleet. What asks before one act, and
// the comparison of two snapshots that one marks, come after their page.
func TestEveryPageIsTwoClicksAway(t *testing.T) {
	t.Parallel()
	b := setup(t)
	f := b.fleet("web")
	f.online()
	f.exec("update hosts set agent_protocol = 3, enrolled_at = now() - interval '1 day', snapshots_listed_at = now() where id = ?", f.host.ID)
	b.schedule(f.host, f.group)
	f.snapshot("a", 1, &f.group.ID, "[]")
	f.snapshot("b", 2, &f.group.ID, "[]")
	f.job(f.group, models.KindBackup, models.JobSucceeded, 0)
	cookie := []string{"Cookie", "session=" + b.session(models.RoleAdmin)}
	question := regexp.MustCompile(`/(delete|revoke|forget|init|unlock|owner|remove-snapshots|compare)$`)
	noPage := []string{
		"/healthz", "/readyz", "/metrics", "/static/*", "/login", "/setup", "/hosts", "/events", "/cron-preview", "/retention-words", "/jobs/hosts", "/jobs/:id/log",
	}
	router := b.h.router()
	seen := map[string]bool{}
	at := []string{"/"}
	for clicks := 0; clicks <= 2; clicks++ {
		var next []string
		for _, path := range at {
			u, err := url.Parse(path)
			if err != nil {
				t.Fatal(err)
			}
			found := router.NewContext(nil, nil)
			router.Router().Find(http.MethodGet, u.Path, found)
			seen[found.Path()] = true
			if clicks == 2 || strings.HasPrefix(path, "/static/") {
				continue
			}
			for _, m := range href.FindAllStringSubmatch(b.shown(path, cookie...), -1) {
				if to := strings.ReplaceAll(m[1], "&amp;", "&"); !slices.Contains(at, to) && !slices.Contains(next, to) {
					next = append(next, to)
				}
			}
		}
		at = next
	}
	for _, r := range b.h.routes() {
		if r.method == http.MethodGet && r.who != agent && !seen[r.path] && !slices.Contains(noPage, r.path) && !question.MatchString(r.path) {
			t.Errorf("no way of two clicks to %s", r.path)
		}
	}
}
