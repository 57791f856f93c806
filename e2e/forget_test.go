package e2e

import (
	"encoding/json"
	"net/http"
	"slices"
	"testing"
	"time"

	"resticfleet/e2e/stage"
)

// Two hosts share a repository with hundreds of snapshots in three groups, and
// with some that a person made by hand. Forget removes exactly what a plain
// restic with the same filter says, and nothing else.
func TestForgetRemovesWhatResticWould(t *testing.T) {
	t.Parallel()
	r := localRepo(t)
	db, web := newHost(t), newHost(t)
	db.bind(r)
	web.bind(r)
	docs := writeFiles(t, db.dir+"/docs", map[string]string{"a": "1"})
	// Two groups on one host, and one of the same name and tag on the other.
	policy := map[string]any{"keep_last": 3, "keep_daily": 7, "keep_weekly": 4, "keep_monthly": 6}
	hourly := db.keeping("docs", docs, policy)
	db.keeping("www", docs, map[string]any{"keep_within": "30d"})
	web.keeping("docs", docs, policy)
	h := db.api()
	h.state(db.run(hourly), "succeeded")

	name := func(h *host) string {
		var v struct {
			ResticHost string `json:"restic_host"`
		}
		h.api().call("GET", "/api/hosts/"+h.id, nil, http.StatusOK, &v)
		return v.ResticHost
	}
	var forged []stage.Forged
	for n := range 120 {
		at := time.Now().Add(-time.Duration(n*11+1) * time.Hour)
		for _, s := range []stage.Forged{
			{Hostname: name(db), Tags: []string{"docs", "job:00000000-0000-7000-8000-000000000000"}},
			{Hostname: name(db), Tags: []string{"www"}},
			{Hostname: name(web), Tags: []string{"docs"}},
			{Hostname: name(db), Tags: []string{"by-hand"}},
			{Hostname: name(db)},
		} {
			s.Time = at
			forged = append(forged, s)
		}
	}
	if _, err := stage.Forge(t.Context(), suite.restic, r.url, []string{"RESTIC_REPOSITORY=" + r.url, "RESTIC_PASSWORD=" + r.password}, forged); err != nil {
		t.Fatal(err)
	}

	before := r.snapshots()
	want := r.wouldForget("--host", name(db), "--tag", "docs", "--keep-last=3", "--keep-daily=7", "--keep-weekly=4", "--keep-monthly=6")
	want = append(want, r.wouldForget("--host", name(db), "--tag", "www", "--keep-within=30d")...)
	if len(want) < 100 || len(want) > 240 {
		t.Fatalf("restic would remove %d of %d", len(want), len(before))
	}
	var forget job
	h.call("POST", "/api/hosts/"+db.id+"/repo-maintenance/forget/run", nil, http.StatusAccepted, &forget)
	h.state(forget.ID, "succeeded")
	left := map[string]bool{}
	for _, s := range r.snapshots() {
		left[s.ID] = true
	}
	var gone []string
	for _, s := range before {
		if !left[s.ID] {
			gone = append(gone, s.ID)
		}
	}
	slices.Sort(gone)
	slices.Sort(want)
	if !slices.Equal(gone, want) {
		t.Errorf("forget removed %d of %d snapshots, restic would have removed %d", len(gone), len(before), len(want))
	}
}

// keeping makes a group of one folder with a policy.
func (h *host) keeping(name, dir string, policy map[string]any) string {
	h.t.Helper()
	var made struct{ ID string }
	h.api().call("POST", "/api/hosts/"+h.id+"/source-groups", map[string]any{
		"name": name, "includes": []string{dir}, "excludes": []string{}, "retention": policy,
	}, http.StatusCreated, &made)
	return made.ID
}

// wouldForget are the ids that a plain restic would remove.
func (r *repo) wouldForget(args ...string) []string {
	r.t.Helper()
	var groups []struct{ Remove []snapshot }
	if err := json.Unmarshal(r.restic(append([]string{"forget", "--dry-run", "--json", "--group-by=host"}, args...)...), &groups); err != nil {
		r.t.Fatal(err)
	}
	var ids []string
	for _, g := range groups {
		for _, s := range g.Remove {
			ids = append(ids, s.ID)
		}
	}
	return ids
}
