package jobs_test

import (
	"slices"
	"strings"
	"testing"
	"time"

	"resticfleet/agent/protocol"
	"resticfleet/jobs"
	"resticfleet/models"
)

func (b *bundle) maintainNow(h *models.Host, kind models.JobKind) models.JobID {
	b.t.Helper()
	return must[*models.Job](b.t)(b.servers[0].RunMaintenance(b.ctx, h.ID, kind, models.System)).ID
}

// passedOn checks that a job ended before it was sent, because a host owns its
// repository now, and says so.
func (b *bundle) passedOn(id models.JobID, to *models.Host) {
	b.t.Helper()
	j := b.job(id)
	if j.State != models.JobCancelled || j.ErrorCode != models.CodeNotOwner || j.SentAt != nil || !strings.Contains(j.Error, "“"+to.Name+"” prunes and checks") || !strings.Contains(j.Error, "Run it there") {
		b.t.Errorf("the %s is %s %s, sent %v: %s", j.Kind, j.State, j.ErrorCode, j.SentAt, j.Error)
	}
}

func (b *bundle) owner(of, want *models.Host, reason string) {
	b.t.Helper()
	if o := must[*models.Owner](b.t)(models.FindOwner(b.ctx, b.db, of.ID)); o.HostID != want.ID || o.Reason != reason {
		b.t.Errorf("%s's repository is owned by %s (%s), want %s (%s)", of.Name, o.Name, o.Reason, want.Name, reason)
	}
}

// What waits for the owner before never begins, however the owner changed; what
// it has begun ends, and its forget is its own.
func TestWhatWaitsForTheOwnerBeforeEnds(t *testing.T) {
	t.Parallel()
	b := setup(t)
	one, two, other := b.maintained("web-1", "/srv/repo", "0 0 1 1 *"), b.maintained("web-2", "/srv/repo", "0 0 1 1 *"), b.maintained("web-3", "/srv/repo", "0 0 1 1 *")
	link1, _ := b.hello(0, one)
	link2, _ := b.hello(1, two)
	link3, _ := b.hello(1, other)
	backup := b.run(b.group(other, "db")).ID
	b.wantCommands(1, link3, backup)

	// A person chooses another.
	prune, check, forget := b.maintainNow(one, models.KindPrune), b.maintainNow(one, models.KindCheck), b.maintainNow(one, models.KindForget)
	next := b.run(b.group(two, "db")).ID
	b.wantCommands(1, link2) // behind the prune
	b.hints[0].take()
	if err := b.servers[0].OwnRepository(b.ctx, two.ID); err != nil {
		t.Fatal(err)
	}
	hinted := b.hints[0].take()
	for _, topic := range []jobs.Topic{jobs.JobTopic(prune), jobs.JobTopic(check), jobs.HostTopic(one.ID), jobs.HostTopic(two.ID), jobs.HostTopic(other.ID), jobs.DispatchTopic(two.ID)} {
		if !slices.Contains(hinted, topic) {
			t.Errorf("no hint for %s", topic)
		}
	}
	b.passedOn(prune, two)
	b.passedOn(check, two)
	if s := b.state(one, models.KindPrune); s.LastState != models.JobCancelled || s.Failures != 0 {
		t.Errorf("the last prune is kept as %+v", s)
	}
	if j := b.job(forget); j.State != models.JobQueued {
		t.Errorf("the forget is %s", j.State)
	}
	must[*models.Job](t)(b.servers[0].Cancel(b.ctx, forget))
	b.wantCommands(1, link2, next) // nothing stands before it any more
	b.finish(1, link2, next)
	b.finish(1, link3, backup)
	b.wantCommands(0, link1)

	// One that is under way ends.
	begun := b.maintainNow(two, models.KindPrune)
	b.wantCommands(1, link2, begun)
	waits := b.maintainNow(two, models.KindCheck)
	if err := b.servers[1].OwnRepository(b.ctx, one.ID); err != nil {
		t.Fatal(err)
	}
	b.passedOn(waits, one)
	b.say(1, link2, protocol.TypeStarted, protocol.Started{JobID: begun.String()})
	b.ends(1, link2, begun, protocol.Finished{Outcome: protocol.OutcomeSucceeded})
	if j := b.job(begun); j.State != models.JobSucceeded {
		t.Errorf("what was begun is %s", j.State)
	}

	// One is gone for long, and another is there.
	waits = b.maintainNow(one, models.KindPrune)
	b.exec("update hosts set last_seen_at = now() - interval '1 hour' where id = ?", one.ID)
	b.listened(73 * time.Hour)
	b.exec("update hosts set heard = (select heard from hearing) where id <> ?", one.ID)
	b.linked(other)
	b.exec("update hosts set last_seen_at = now() - interval '1 hour' where id = ?", two.ID)
	b.hints[1].take()
	b.maintain(1, time.Now())
	b.owner(one, other, "taken")
	b.passedOn(waits, other)
	if hinted := b.hints[1].take(); !slices.Contains(hinted, jobs.JobTopic(waits)) || !slices.Contains(hinted, jobs.HostTopic(other.ID)) {
		t.Errorf("hints %v", hinted)
	}
	b.linked(one, two)
	b.wantCommands(0, link1)

	// A host that binds the repository of an owner that is gone takes it over.
	waits = b.maintainNow(other, models.KindCheck)
	b.exec("update hosts set last_seen_at = now() - interval '1 hour'")
	b.listened(73 * time.Hour)
	fourth := b.host("web-4", "")
	b.linked(fourth)
	b.exec("update hosts set heard = (select heard from hearing) where id = ?", fourth.ID)
	must[*models.HostRepository](t)(b.servers[0].BindRepository(b.ctx, fourth.ID, models.RepositoryFields{URL: "/srv/repo", Password: "correct horse"}))
	b.owner(one, fourth, "taken")
	b.passedOn(waits, fourth)

	// The owner changes just when one is asked for.
	b.exec("update repositories set owner_host_id = ?", one.ID)
	b.linked(one)
	waits = b.maintainNow(one, models.KindPrune)
	b.exec("update repositories set owner_host_id = ?", two.ID)
	if out := commands(t, must[[]protocol.Envelope](t)(b.servers[0].Outgoing(b.ctx, link1))); len(out) != 0 {
		t.Errorf("%v is sent to a host that is not the owner", out)
	}
	b.passedOn(waits, two)
}
