package handlers

import (
	"encoding/json"
	"net/http"
	"strings"
	"testing"

	"github.com/google/uuid"
)

func TestRetiredRoutesAreGoneForAnyMethodBeforeLogin(t *testing.T) {
	t.Parallel()
	b := setup(t)
	id := uuid.NewString()
	for name, replacement := range map[string]string{
		"run-backup": "POST /api/hosts/{id}/source-groups/{gid}/run", "init-repo": "POST /api/hosts/{id}/repository/init",
	} {
		for _, host := range []string{id, "nonsense", "%22%3E%3Cscript%3E"} {
			for _, method := range []string{"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "PROPFIND"} {
				for _, path := range []string{"/hosts/" + host + "/" + name, "/api/hosts/" + host + "/" + name, "/hosts/" + host + "/" + name + "/"} {
					what := method + " " + path
					page, partialPage := "text/html,application/xhtml+xml", []string{"HX-Request", "true", "HX-Request-Type", "partial", "Accept", "text/html, text/event-stream"}
					if strings.HasPrefix(path, "/api") {
						page = "application/json"
					}
					full := b.do(method, path, untouched{t, what}, "Accept", page)
					banner := b.do(method, path, untouched{t, what}, partialPage...)
					program := b.do(method, path, untouched{t, what}, "Accept", "application/json")
					fullBody, bannerBody, problem := body(t, full), body(t, banner), body(t, program)
					for _, res := range []*http.Response{full, banner, program} {
						if res.StatusCode != http.StatusGone || res.Header.Get("Content-Security-Policy") == "" {
							t.Errorf("%s: %d", what, res.StatusCode)
						}
					}
					var p struct {
						Status      int
						Replacement string
					}
					if err := json.Unmarshal([]byte(problem), &p); err != nil || p.Status != 410 || p.Replacement != replacement || program.Header.Get("Content-Type") != "application/problem+json" {
						t.Errorf("%s for a program: %s", what, problem)
					}
					if strings.HasPrefix(path, "/api") {
						continue
					}
					if !strings.Contains(fullBody, "<html") || strings.Contains(bannerBody, "<html") || !strings.Contains(fullBody, bannerBody) {
						t.Errorf("%s: the page and the banner differ", what)
					}
					if strings.Contains(bannerBody, "<script>") || host == id && !strings.Contains(bannerBody, `href="/hosts/`+id+`"`) {
						t.Errorf("%s: %s", what, bannerBody)
					}
				}
			}
		}
	}
	if n := b.count("select count(*) from audit_entries"); n != 0 {
		t.Errorf("%d audit entries", n)
	}
	for _, path := range []string{"/hosts/run-backup", "/hosts/" + id + "/run-backup/now", "/run-backup", "/jobs/" + id + "/run-backup"} {
		if res := b.do("GET", path, nil); res.StatusCode == http.StatusGone {
			t.Errorf("%s is gone too", path)
		}
	}
}
