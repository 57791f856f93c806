package models_test

import (
	"testing"
	"time"

	"resticfleet/models"
)

var day = models.Silence{Expire: 24 * time.Hour, Lose: 15 * time.Minute}

// listened moves the servers' common clock on, as ticks would.
func (b *bundle) listened(d time.Duration) {
	b.t.Helper()
	b.exec("update hearing set heard = heard + ?::interval", d.String())
}

func (b *bundle) endSilent() []*models.Job {
	b.t.Helper()
	return must[[]*models.Job](b.t)(models.EndSilent(b.ctx, b.db, day))
}

func TestJobOfAHostThatNeverComesExpires(t *testing.T) {
	t.Parallel()
	b := setup(t)
	h := b.host("away")
	b.bind(h, "/srv/repo")
	j := b.run(b.group(h, "www"))

	b.listened(24 * time.Hour)
	if ended := b.endSilent(); len(ended) != 0 {
		t.Fatalf("ended to the second: %v", ended[0].State)
	}
	b.listened(time.Second)
	b.endSilent()
	if got := b.job(j.ID); got.State != models.JobExpired || got.Error == "" || got.FinishedAt == nil {
		t.Errorf("job is %s (%q), want expired with the reason", got.State, got.Error)
	}
}

func TestWaitingJobOfAHostThatIsThereNeverExpires(t *testing.T) {
	t.Parallel()
	b := setup(t)
	h := b.host("busy")
	b.bind(h, "/srv/repo")
	j := b.run(b.group(h, "www"))
	generation := b.link(h)
	for range 5 {
		b.listened(20 * time.Hour)
		if err := models.TouchLink(b.ctx, b.db, h.ID, generation); err != nil {
			t.Fatal(err)
		}
		b.endSilent()
	}
	if got := b.job(j.ID); got.State != models.JobQueued {
		t.Errorf("job is %s although its host was there all the time", got.State)
	}
}

func TestAcceptedJobOfASilentHostIsLostAndComesBack(t *testing.T) {
	t.Parallel()
	b := setup(t)
	h := b.host("silent")
	b.bind(h, "/srv/repo")
	g := b.group(h, "www")
	b.run(g)
	j := b.claim(h, b.link(h))
	b.accept(j)

	b.listened(15*time.Minute + time.Second)
	b.endSilent()
	lost := b.job(j.ID)
	if lost.State != models.JobLost {
		t.Fatalf("job is %s, want lost", lost.State)
	}
	if b.count("select count(*) from jobs where gate is not null") != 0 {
		t.Error("a lost job still holds its gate")
	}
	if got := b.findGroup(g); got.LastState != string(models.JobLost) {
		t.Errorf("the group's last state is %q, want lost", got.LastState)
	}
	if got := b.finish(j, succeeded("a", 10, 1000)); got.State != models.JobSucceeded || !got.Late {
		t.Errorf("a late true result left it %s, late %v", got.State, got.Late)
	}
}

// Accepted jobs never expire; unaccepted ones are never lost.
func TestAcceptanceDecidesBetweenExpiredAndLost(t *testing.T) {
	t.Parallel()
	b := setup(t)
	h := b.host("away")
	b.bind(h, "/srv/repo")
	b.run(b.group(h, "sent"))
	sent := b.claim(h, b.link(h))
	b.listened(time.Hour)
	b.endSilent()
	if got := b.job(sent.ID); got.State != models.JobSent {
		t.Fatalf("after an hour the unaccepted job is %s, want sent", got.State)
	}
	b.listened(24 * time.Hour)
	b.endSilent()
	if got := b.job(sent.ID); got.State != models.JobExpired {
		t.Errorf("after a day the unaccepted job is %s, want expired", got.State)
	}
}

func TestSilenceCountsOnlyWhileAServerListens(t *testing.T) {
	t.Parallel()
	b := setup(t)
	heard := func() time.Duration {
		var seconds float64
		if err := b.db.QueryRowContext(b.ctx, "select extract(epoch from heard) from hearing").Scan(&seconds); err != nil {
			t.Fatal(err)
		}
		return time.Duration(seconds * float64(time.Second))
	}
	tick := func(gap string) {
		b.exec("update hearing set ticked_at = now() - ?::interval", gap)
		if err := models.TickHearing(b.ctx, b.db); err != nil {
			t.Fatal(err)
		}
	}
	tick("5 seconds")
	if got := heard(); got < 5*time.Second || got > 6*time.Second {
		t.Errorf("a tick after 5 s counts %v", got)
	}
	before := heard()
	tick("3 hours")
	if got := heard(); got != before {
		t.Errorf("three hours without a server count %v", got-before)
	}
	tick("-1 hour")
	if got := heard(); got != before {
		t.Errorf("a clock set back counts %v", got-before)
	}
}
