package models_test

import (
	"testing"

	"resticfleet/models"
)

// A repository's upkeep is told before anybody has looked at it, and by whom it
// is done; what is on and failed too often needs a hand.
func TestARepositorysUpkeep(t *testing.T) {
	t.Parallel()
	b := setup(t)
	owner, sharer := b.host("web-1"), b.host("web-2")
	b.bind(owner, "/srv/repo")
	b.bind(sharer, "/srv/repo")
	upkeep := func(h *models.Host) map[models.JobKind]models.Upkeep {
		t.Helper()
		kept := map[models.JobKind]models.Upkeep{}
		for _, k := range must[*models.KeptRepository](t)(models.FindKeptRepository(b.ctx, b.db, h.ID)).Upkeep {
			kept[k.Kind] = k
		}
		if len(kept) != len(models.MaintenanceKinds) {
			t.Fatalf("%+v", kept)
		}
		return kept
	}
	for kind, k := range upkeep(owner) {
		if k.Cron == "" || k.Enabled || k.Broken || !k.Elsewhere.IsZero() {
			t.Errorf("%s of a new host: %+v", kind, k)
		}
	}
	for kind, k := range upkeep(sharer) {
		if (kind == models.KindForget) != k.Elsewhere.IsZero() || kind != models.KindForget && k.Elsewhere != owner.ID {
			t.Errorf("%s of a sharer: %+v", kind, k)
		}
	}
	if _, err := models.FindMaintenance(b.ctx, b.db, owner.ID); err != nil {
		t.Fatal(err)
	}
	b.exec("update maintenance_states set failures = 5 where host_id = ? and kind in ('forget', 'prune')", owner.ID)
	b.exec("update host_repo_maintenance set prune_enabled = true where host_id = ?", owner.ID)
	if k := upkeep(owner); k[models.KindForget].Broken || !k[models.KindPrune].Broken || !k[models.KindPrune].Enabled || k[models.KindCheck].Broken {
		t.Errorf("after failures: %+v", k)
	}
	_, err := models.FindKeptRepository(b.ctx, b.db, b.host("web-3").ID)
	wantCode(t, err, models.ENotFound)
}
