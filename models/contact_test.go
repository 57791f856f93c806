package models_test

import (
	"testing"
	"time"

	"resticfleet/models"
)

// Contacts answered from memory are written later: one that came before the
// link's end must not make the host look linked after it.
func TestALateWrittenContactBringsNobodyBack(t *testing.T) {
	t.Parallel()
	b := setup(t)
	h := b.host("web-01")
	generation := b.link(h)
	contact := time.Now().Add(-30 * time.Second) // its writing takes a while
	b.exec("update hosts set last_seen_at = now() - interval '1 minute'")
	if err := models.CloseLink(b.ctx, b.db, h.ID, generation); err != nil {
		t.Fatal(err)
	}
	b.touch(h, contact)
	if must[*models.Host](t)(models.FindHost(b.ctx, b.db, h.ID)).Online(time.Now()) {
		t.Error("online by a contact from before the link's end")
	}
	b.touch(h, time.Now())
	if !must[*models.Host](t)(models.FindHost(b.ctx, b.db, h.ID)).Online(time.Now()) {
		t.Error("a contact after the link's end doesn't count")
	}
}

func (b *bundle) touch(h *models.Host, at time.Time) {
	b.t.Helper()
	if err := models.TouchHosts(b.ctx, b.db, map[models.HostID]time.Time{h.ID: at}); err != nil {
		b.t.Fatal(err)
	}
}
