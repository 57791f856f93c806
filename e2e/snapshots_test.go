package e2e

import (
	"net/http"
	"slices"
	"testing"
	"time"
)

// apiSnapshot is one as the API tells it.
type apiSnapshot struct {
	ID            string
	Tags          []string
	SourceGroupID *string `json:"source_group_id"`
	JobID         *string `json:"job_id"`
	FileCount     *int64  `json:"file_count"`
	Held          bool
}

// listed are the host's snapshots as the API tells them, the newest first, once
// the list is of so many.
func (h *host) listed(many int) []apiSnapshot {
	h.t.Helper()
	var list struct{ Items []apiSnapshot }
	eventually(h.t, "the list is up to date", func() bool {
		list.Items = nil
		h.api().call("GET", "/api/hosts/"+h.id+"/snapshots", nil, http.StatusOK, &list)
		return len(list.Items) == many
	})
	return list.Items
}

// A repository from before Resticfleet: its snapshots are there with their
// groups, a backup adds its own, two are compared, a held one is not deleted, and
// a deleted one is gone from the repository, alone: by the API, and by clicks.
func TestSnapshotsOfARepositoryFromBefore(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	r := localRepo(t)
	r.initialize()
	docs := writeFiles(t, h.dir+"/docs", map[string]string{"a": "a"})
	var host struct {
		ResticHost string `json:"restic_host"`
	}
	at := "/api/hosts/" + h.id
	h.api().call("GET", at, nil, http.StatusOK, &host)
	day := time.Date(2026, 10, 1, 12, 0, 0, 0, time.UTC)
	for i, of := range []string{host.ResticHost, host.ResticHost, "somebody-else"} {
		r.restic("backup", "--quiet", "--host", of, "--tag", "by-hand", "--time", day.AddDate(0, 0, i).Format(time.DateTime), docs)
	}
	before := r.snapshots()
	group := h.group("docs", []string{docs})
	h.bind(r)

	list := h.listed(2)
	for i, s := range list {
		if s.ID != before[1-i].ID || s.SourceGroupID == nil || *s.SourceGroupID != group || s.JobID != nil || s.FileCount == nil || *s.FileCount != 1 {
			t.Errorf("adopted: %+v", s)
		}
	}

	writeFiles(t, docs, map[string]string{"b": "bb"})
	var job struct{ ID string }
	h.api().call("POST", at+"/source-groups/"+group+"/run", nil, http.StatusAccepted, &job)
	list = h.listed(3)
	if newest := list[0]; newest.JobID == nil || *newest.JobID != job.ID || newest.SourceGroupID == nil || *newest.SourceGroupID != group {
		t.Errorf("backed up: %+v", newest)
	}

	var diff struct {
		Statistics map[string]any
		Changes    []struct{ Path, Modifier string }
	}
	eventually(t, "two are compared", func() bool {
		res := h.api().send("GET", at+"/snapshots/"+list[0].ID+"/diff?against="+list[2].ID[:12], nil)
		return res.status == http.StatusOK
	})
	h.api().call("GET", at+"/snapshots/"+list[0].ID+"/diff?against="+list[2].ID, nil, http.StatusOK, &diff)
	if !slices.Contains(diff.Changes, struct{ Path, Modifier string }{docs + "/b", "+"}) || len(diff.Statistics) == 0 {
		t.Errorf("compared: %+v", diff)
	}

	// Made behind Resticfleet's back: there when it looks.
	r.restic("backup", "--quiet", "--host", host.ResticHost, "--tag", "docs", docs)
	p := newPage(t)
	p.open("/hosts/" + h.id + "/snapshots")
	p.mark()
	p.click(p.button("Refresh the list of snapshots"))
	list = h.listed(4)
	held, gone := list[2].ID, list[3].ID
	p.sees(p.Locator("#snapshot-" + list[0].ID))
	p.must(p.Locator("#a-" + held).Check()) // and it stays, whatever is updated
	p.click(p.Locator("#hold-" + held))
	p.says(p.Locator("#snapshot-"+held), "Held: nothing removes it")
	p.hidden(p.link("Delete the snapshot " + held[:8]))
	h.api().call("DELETE", at+"/snapshots/"+held, nil, http.StatusConflict, nil)

	// One comes while the pointer is on the button: it waits until that is gone.
	writeFiles(t, docs, map[string]string{"c": "ccc"})
	h.run(group)
	list = h.listed(5)
	p.says(p.Locator("#snapshots-newer"), "Show 1 newer snapshot")
	p.hidden(p.Locator("#snapshot-" + list[0].ID))
	p.must(p.Mouse().Move(1, 1))
	p.sees(p.Locator("#snapshot-" + list[0].ID))
	p.hidden(p.Locator("#snapshots-newer"))
	p.unreloaded()

	// What is marked goes along through a filter that it doesn't fit.
	p.choose("Source group", "none")
	p.says(p.Locator("#compare"), "Marked as the older:")
	p.choose("Source group", "")
	p.must(p.expect.Locator(p.Locator("#a-" + held)).ToBeChecked())
	p.must(p.Locator("#b-" + list[0].ID).Check())
	p.click(p.button("Compare the two"))
	p.sees(p.heading("2 files new"))
	p.says(p.Locator("#compared tbody"), docs+"/b")

	p.click(p.link("All snapshots of " + h.name))
	p.click(p.link("Delete the snapshot " + gone[:8]))
	p.sees(p.heading("Delete the snapshot " + gone[:8] + "?"))
	p.fill("Type “"+gone[:8]+"” to go on", gone[:8])
	p.click(p.button("Delete " + gone[:8]))
	p.sees(p.heading("Forget"))
	list = h.listed(4)
	if list[3].ID != held || !list[3].Held {
		t.Errorf("after the deletion: %+v", list)
	}
	left := r.snapshots()
	if len(left) != 5 || slices.ContainsFunc(left, func(s snapshot) bool { return s.ID == gone }) {
		t.Errorf("the repository has %d snapshots", len(left))
	}
}
