package models_test

import (
	"fmt"
	"strings"
	"testing"

	"resticfleet/models"
)

// listed puts snapshots of a group into the list, the oldest first.
func (b *bundle) listed(g *models.Group, n int, tags string) {
	b.t.Helper()
	b.exec(`insert into snapshots (host_id, id, at, hostname, tags, source_group_id)
		select ?, lpad(to_hex(n), 64, '0'), '2026-11-01'::timestamptz + n * interval '1 day', 'web-1', ?, ? from generate_series(1, ?) n`, g.HostID, tags, g.ID, n)
}

// Only what is certain without restic is refused at save: no span at all, and
// tags that nothing has. Any number, and any span, keeps the newest.
func TestAPolicyThatKeepsNothingIsRefused(t *testing.T) {
	t.Parallel()
	b := setup(t)
	h := b.host("web-1")
	g := b.group(h, "www")
	save := func(r models.Retention) error {
		f := fields("www")
		f.Retention = r
		_, err := models.UpdateGroup(b.ctx, b.db, h.ID, g.ID, f)
		return err
	}
	tagged := models.Retention{KeepTags: []string{"keep"}}
	if err := save(tagged); err != nil {
		t.Errorf("without any snapshot: %v", err)
	}
	b.listed(g, 3, `["www", "job:1"]`)
	for name, c := range map[string]struct {
		r    models.Retention
		says string
	}{
		"no span":       {models.Retention{KeepWithin: "0h"}, "retention.keep_within: keeps nothing"},
		"no spans":      {models.Retention{KeepWithin: "0y00m0d"}, "danger zone"},
		"no such tag":   {tagged, "retention.keep_tags: would remove all the group's 3 snapshots"},
		"nor within it": {models.Retention{KeepTags: []string{"keep"}, KeepWithin: "0d"}, "danger zone"},
	} {
		err := save(c.r)
		wantCode(t, err, models.EInvalid)
		if !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: %v", name, err)
		}
	}
	for _, r := range []models.Retention{
		{}, {KeepLast: 1}, {KeepTags: []string{"keep"}, KeepYearly: 1}, {KeepWithin: "1h"}, {KeepWithin: "0y1h"}, {KeepWithin: "0h", KeepLast: 1},
		{KeepTags: []string{"keep"}, KeepWithin: "1h"}, {KeepTags: []string{"keep", "www"}},
	} {
		if err := save(r); err != nil {
			t.Errorf("%+v: %v", r, err)
		}
	}
}

func TestAnEmptyPolicyKeepsAllThatIsKnown(t *testing.T) {
	t.Parallel()
	b := setup(t)
	h := b.host("web-1")
	g := b.group(h, "www")
	b.listed(g, 3, `["former", "job:1"]`)
	b.exec("insert into source_group_tags (host_id, tag, source_group_id) values (?, 'former', ?)", h.ID, g.ID)
	b.exec("insert into snapshot_holds (host_id, snapshot_id) values (?, ?)", h.ID, fmt.Sprintf("%064x", 2))
	_, _, err := models.AskPreview(b.ctx, b.db, h.ID, g.ID, models.Retention{}, models.System)
	wantCode(t, err, models.EConflict) // nothing was listed, and there is no repository to ask
	b.exec("update hosts set snapshots_listed_at = now() where id = ?", h.ID)
	// One that is the group's by its paths alone is none that a policy is for.
	b.exec("insert into snapshots (host_id, id, at, hostname, tags, source_group_id) values (?, ?, now(), 'web-1', ?, ?)", h.ID, strings.Repeat("f", 64), `["by-hand"]`, g.ID)
	j, plan, err := models.AskPreview(b.ctx, b.db, h.ID, g.ID, models.Retention{}, models.System)
	if err != nil || j != nil || len(plan.Keep) != 3 || len(plan.Remove) != 0 || !plan.Keep[1].Held || plan.Keep[0].ID != fmt.Sprintf("%064x", 3) || plan.Keep[0].Reasons[0] == "" {
		t.Errorf("%+v %+v %v", j, plan, err)
	}
	_, _, err = models.AskPreview(b.ctx, b.db, h.ID, g.ID, models.Retention{KeepLast: 1}, models.System)
	wantCode(t, err, models.EConflict) // no repository
	_, _, err = models.AskPreview(b.ctx, b.db, h.ID, g.ID, models.Retention{KeepWithin: "soon"}, models.System)
	wantCode(t, err, models.EInvalid)
	_, _, err = models.AskPreview(b.ctx, b.db, b.host("web-2").ID, g.ID, models.Retention{}, models.System)
	wantCode(t, err, models.ENotFound)
}

func TestAllSnapshotsOfAGroupAreRemovedButTheHeldOnes(t *testing.T) {
	t.Parallel()
	b := setup(t)
	h := b.host("web-1")
	g, other := b.group(h, "www"), b.group(h, "mail")
	_, err := models.RemoveSnapshots(b.ctx, b.db, h.ID, g.ID, models.System)
	wantCode(t, err, models.EConflict) // no repository
	b.bind(h, "/srv/repo")
	_, err = models.RemoveSnapshots(b.ctx, b.db, h.ID, g.ID, models.System)
	wantCode(t, err, models.EConflict)
	b.listed(g, 3, "[]")
	b.exec("insert into snapshots (host_id, id, at, hostname, source_group_id) values (?, ?, now(), 'web-1', ?)", h.ID, strings.Repeat("f", 64), other.ID)
	b.exec("insert into snapshot_holds (host_id, snapshot_id) values (?, ?)", h.ID, fmt.Sprintf("%064x", 2))
	counts := must[[]models.GroupSnapshots](t)(models.CountSnapshots(b.ctx, b.db, h.ID))
	if len(counts) != 2 || counts[0].GroupID != other.ID || counts[1].Count != 3 || counts[1].Held != 1 || counts[1].Newest.Sub(counts[1].Oldest).Hours() != 48 {
		t.Errorf("%+v", counts)
	}
	b.exec("update hosts set agent_protocol = 2, enrolled_at = now(), last_seen_at = now() where id = ?", h.ID)
	if _, err = models.RemoveSnapshots(b.ctx, b.db, h.ID, g.ID, models.System); err == nil || !strings.Contains(err.Error(), "too old") {
		t.Errorf("asked of an agent that can't: %v", err)
	}
	b.exec("update hosts set agent_protocol = 3 where id = ?", h.ID)
	j := must[*models.Job](t)(models.RemoveSnapshots(b.ctx, b.db, h.ID, g.ID, models.System))
	want := fmt.Sprint([]string{fmt.Sprintf("%064x", 1), fmt.Sprintf("%064x", 3)})
	if j = b.job(j.ID); j.Kind != models.KindForget || fmt.Sprint(j.Spec.SnapshotIDs) != want || len(j.Spec.Forget) != 0 || j.SourceGroupName != "www" {
		t.Errorf("%+v", j.Spec)
	}
	if again := must[*models.Job](t)(models.RemoveSnapshots(b.ctx, b.db, h.ID, g.ID, models.System)); again.ID != j.ID {
		t.Error("asked for twice, it is done twice")
	}
}
