package jobs_test

import (
	"fmt"
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

// Two addresses that turn out to be one repository: of two owners the first one
// stays, and the gate is one from then on, whatever the other has begun or waits
// with, and whichever of the two is known first.
func TestTwoOwnersOfOneRepositoryBecomeOne(t *testing.T) {
	t.Parallel()
	for _, firstKnown := range []int{0, 1} {
		for _, pruning := range []models.JobState{"", models.JobQueued, models.JobRunning} {
			t.Run(fmt.Sprintf("known first %d, pruning %q", firstKnown, pruning), func(t *testing.T) {
				t.Parallel()
				b := setup(t)
				hosts := [2]*models.Host{b.maintained("web-1", "rest:http://a/repo", "0 * * * *"), b.maintained("web-2", "rest:http://b/repo", "0 * * * *")}
				var links [2]*jobs.Link
				for n, h := range hosts {
					links[n], _ = b.hello(n, h)
					b.exec("update hosts set timezone_since = now() - interval '10 years'") // it told its zone
					b.owner(h, h, "bound")
				}
				// A look-up goes beside whatever runs.
				learns := func(n int) {
					t.Helper()
					id := b.exclusive(hosts[n], models.KindSnapshots)
					b.wantCommands(n, links[n], id)
					b.ends(n, links[n], id, protocol.Finished{Outcome: protocol.OutcomeSucceeded, RepositoryID: strings.Repeat("9", 64)})
				}
				learns(firstKnown)
				var prune, running models.JobID
				switch pruning {
				case models.JobQueued:
					running = b.run(b.group(hosts[1], "db")).ID
					b.wantCommands(1, links[1], running)
					prune = b.maintainNow(hosts[1], models.KindPrune)
					b.wantCommands(1, links[1])
				case models.JobRunning:
					prune = b.maintainNow(hosts[1], models.KindPrune)
					b.wantCommands(1, links[1], prune)
					running = prune
				}
				learns(1 - firstKnown)

				for _, h := range hosts {
					b.owner(h, hosts[0], "bound")
				}
				if pruning == models.JobQueued {
					b.passedOn(prune, hosts[0])
				}
				if pruning != "" {
					alone := b.maintainNow(hosts[0], models.KindPrune)
					b.wantCommands(0, links[0]) // what the other has begun goes on
					b.ends(1, links[1], running, protocol.Finished{Outcome: protocol.OutcomeSucceeded, SnapshotID: strings.Repeat("a", 64)})
					b.wantCommands(0, links[0], alone)
					b.ends(0, links[0], alone, protocol.Finished{Outcome: protocol.OutcomeSucceeded})
				}

				// From now on its cadences are the owner's, and the gate is one.
				b.linked(hosts[:]...)
				b.maintain(1, time.Now())
				for _, kind := range []models.JobKind{models.KindPrune, models.KindCheck} {
					if rows := b.due(hosts[0], kind); len(rows) != 1 || rows[0].State != models.JobQueued {
						t.Errorf("%s of the owner: %+v", kind, rows)
					}
					if rows := b.due(hosts[1], kind); len(rows) != 1 || rows[0].State != models.JobSkipped || rows[0].ErrorCode != models.CodeNotOwner || !strings.Contains(rows[0].Error, "“web-1”") {
						t.Errorf("%s of the other: %+v", kind, rows)
					}
					if _, err := b.servers[1].RunMaintenance(b.ctx, hosts[1].ID, kind, models.System); models.CodeOf(err) != models.EConflict {
						t.Errorf("run %s on the other: %v", kind, err)
					}
				}
				b.exec("update jobs set state = 'cancelled', finished_at = now() where state = 'queued'")
				for n := range hosts {
					backup := b.run(b.group(hosts[1-n], "www of "+hosts[n].Name)).ID
					b.wantCommands(1-n, links[1-n], backup)
					alone := b.maintainNow(hosts[n], models.KindForget)
					b.wantCommands(n, links[n])
					b.finish(1-n, links[1-n], backup)
					b.wantCommands(n, links[n], alone)
					next := b.run(b.group(hosts[1-n], "db of "+hosts[n].Name)).ID
					b.wantCommands(1-n, links[1-n])
					b.finish(n, links[n], alone)
					b.wantCommands(1-n, links[1-n], next)
					b.finish(1-n, links[1-n], next)
				}
			})
		}
	}
}

// Of two owners the one that stays goes on with the work of the one that goes,
// whichever of them had it on and whichever is known first; and who waited hears
// of it.
func TestTheOwnerThatStaysTakesTheWorkOfTheOtherOver(t *testing.T) {
	t.Parallel()
	for _, off := range []int{0, 1} {
		for _, firstKnown := range []int{0, 1} {
			t.Run(fmt.Sprintf("off on %d, known first %d", off, firstKnown), func(t *testing.T) {
				t.Parallel()
				b := setup(t)
				hosts := [2]*models.Host{b.maintained("web-1", "rest:http://a/repo", "7 3 * * *"), b.maintained("web-2", "rest:http://b/repo", "7 3 * * *")}
				on := 1 - off
				b.exec(`update host_repo_maintenance set prune_enabled = false, check_enabled = false, prune_cron = '0 1 1 1 *', check_cron = '0 1 1 1 *',
					check_read_data_subset = '' where host_id = ?`, hosts[off].ID)
				learns := func(n int, during func()) {
					t.Helper()
					link, _ := b.hello(n, hosts[n])
					id := b.exclusive(hosts[n], models.KindSnapshots)
					b.wantCommands(n, link, id)
					during()
					b.hints[n].take()
					b.ends(n, link, id, protocol.Finished{Outcome: protocol.OutcomeSucceeded, RepositoryID: strings.Repeat("9", 64)})
				}
				learns(firstKnown, func() {})
				var waits models.JobID
				learns(1-firstKnown, func() { waits = b.maintainNow(hosts[1], models.KindPrune) })
				hinted := b.hints[1-firstKnown].take()
				for _, topic := range []jobs.Topic{jobs.JobTopic(waits), jobs.HostTopic(hosts[0].ID), jobs.HostTopic(hosts[1].ID)} {
					if !slices.Contains(hinted, topic) {
						t.Errorf("no hint for %s", topic)
					}
				}
				b.passedOn(waits, hosts[0])
				for n := range hosts {
					b.owner(hosts[n], hosts[0], "bound")
				}
				had := must[*models.Maintenance](t)(models.FindMaintenance(b.ctx, b.db, hosts[on].ID))
				has := must[*models.Maintenance](t)(models.FindMaintenance(b.ctx, b.db, hosts[0].ID))
				if !has.PruneEnabled || !has.CheckEnabled || has.PruneCron != "7 3 * * *" || has.CheckCron != "7 3 * * *" || has.CheckReadDataSubset != had.CheckReadDataSubset {
					t.Errorf("the owner's cadences are %+v, the other one had %+v", has, had)
				}
			})
		}
	}
}
