package models_test

import (
	"testing"
	"time"

	"resticfleet/agent/protocol"
	"resticfleet/models"
)

// News that waited for the link says when it happened, by the agent's clock;
// the measured difference is taken off, and nothing lies in the future.
func TestLateNewsKeepsItsTime(t *testing.T) {
	t.Parallel()
	b := setup(t)
	h := b.host("web-01")
	b.bind(h, "/srv/repo")
	g := b.group(h, "www")
	b.run(g)
	j := b.claim(h, b.link(h))
	b.accept(j)
	skew := time.Hour
	b.exec("update hosts set clock_skew_ms = ? where id = ?", skew.Milliseconds(), h.ID)
	b.exec("update jobs set queued_at = now() - interval '6 hours', sent_at = now() - interval '6 hours', accepted_at = now() - interval '6 hours' where id = ?", j.ID)

	now := time.Now()
	started, ended := now.Add(-5*time.Hour), now.Add(-4*time.Hour)
	f := succeeded("a", 10, 1000)
	f.StartedAt, f.At = started.Add(skew), ended.Add(skew)
	j = b.finish(j, f)
	if d := j.StartedAt.Sub(started).Abs(); d > time.Second {
		t.Errorf("started %v off", d)
	}
	if d := j.FinishedAt.Sub(ended).Abs(); d > time.Second {
		t.Errorf("finished %v off", d)
	}
	if good := b.findGroup(g).GoodAt; good == nil || good.Sub(started).Abs() > time.Second {
		t.Errorf("the group is good since %v, want %v", good, started)
	}
}

func TestNewsFromTheFutureIsNow(t *testing.T) {
	t.Parallel()
	b := setup(t)
	h := b.host("web-01")
	b.bind(h, "/srv/repo")
	b.run(b.group(h, "www"))
	j := b.claim(h, b.link(h))
	b.accept(j)
	err := models.Tx(b.ctx, b.db, func(tx models.IDB) error {
		_, err := models.JobStarted(b.ctx, tx, h.ID, protocol.Started{JobID: j.ID.String(), At: time.Now().AddDate(1, 0, 0)})
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	if got := b.job(j.ID); got.StartedAt == nil || time.Until(*got.StartedAt) > time.Second {
		t.Errorf("started at %v", got.StartedAt)
	}
}
