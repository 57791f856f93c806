package jobs_test

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"resticfleet/agent/protocol"
	"resticfleet/jobs"
	"resticfleet/models"
)

func TestExclusiveWorkWaitsForBackupsAndKeepsNewOnesBehindIt(t *testing.T) {
	t.Parallel()
	b := setup(t)
	runs, waits, late := b.host("runs", "/srv/repo"), b.host("waits", "/srv/repo"), b.host("late", "/srv/repo")
	elsewhere := b.host("elsewhere", "/srv/other")
	runsLink, _ := b.hello(0, runs)
	waitsLink, _ := b.hello(1, waits)
	lateLink, _ := b.hello(1, late)
	elsewhereLink, _ := b.hello(0, elsewhere)

	running := b.run(b.group(runs, "www"))
	b.wantCommands(0, runsLink, running.ID)
	earlier := b.run(b.group(late, "earlier"))
	b.wantCommands(1, lateLink, earlier.ID)
	second := b.run(b.group(late, "second"))
	b.wantCommands(1, lateLink) // behind the host's other one
	forget := b.exclusive(waits, models.KindForget)
	b.wantCommands(1, waitsLink) // behind what runs
	b.finish(1, lateLink, earlier.ID)
	after := b.run(b.group(late, "after"))
	b.wantCommands(1, lateLink) // behind what waits, also what was asked for before it
	other := b.run(b.group(elsewhere, "www"))
	b.wantCommands(0, elsewhereLink, other.ID) // another repository
	again := b.run(b.group(waits, "www"))

	b.finish(0, runsLink, running.ID)
	b.wantCommands(1, lateLink) // it is the forget's turn
	b.wantCommands(1, waitsLink, forget)
	b.wantCommands(1, lateLink)
	b.hints[1].take()
	b.finish(1, waitsLink, forget)
	woken := b.hints[1].take()
	for _, h := range []*models.Host{late, waits} {
		if !slices.Contains(woken, jobs.DispatchTopic(h.ID)) {
			t.Errorf("%s is not woken: %v", h.Name, woken)
		}
	}
	last := b.exclusive(waits, models.KindForget)
	b.wantCommands(1, lateLink, second.ID) // overtaken once, not twice
	b.wantCommands(1, waitsLink, again.ID) // backups of two hosts go together
	b.finish(1, waitsLink, again.ID)
	b.wantCommands(1, waitsLink)
	b.finish(1, lateLink, second.ID)
	b.wantCommands(1, waitsLink)
	b.wantCommands(1, lateLink, after.ID) // it waited for the forget as well
	b.finish(1, lateLink, after.ID)
	b.wantCommands(1, waitsLink, last)
}

func TestExclusiveWorkOfAHostThatIsAwayHoldsNobodyBack(t *testing.T) {
	t.Parallel()
	b := setup(t)
	away, here := b.host("away", "/srv/repo"), b.host("here", "/srv/repo")
	awayLink, _ := b.hello(0, away)
	hereLink, _ := b.hello(0, here)
	b.exclusive(away, "check")
	j := b.run(b.group(here, "www"))
	b.wantCommands(0, hereLink)
	if err := models.CloseLink(b.ctx, b.db, away.ID, awayLink.Generation); err != nil {
		t.Fatal(err)
	}
	b.wantCommands(0, hereLink, j.ID)
}

func TestALostJobFreesTheGateAndCountsAgainWhenItIsBack(t *testing.T) {
	t.Parallel()
	b := setup(t)
	one, two := b.host("one", "/srv/repo"), b.host("two", "/srv/repo")
	oneLink, _ := b.hello(0, one)
	twoLink, _ := b.hello(1, two)
	lost := b.run(b.group(one, "www"))
	b.wantCommands(0, oneLink, lost.ID)
	b.exec("update jobs set state = 'lost', finished_at = now() where id = ?", lost.ID)
	first := b.exclusive(two, models.KindForget)
	b.wantCommands(1, twoLink, first)
	b.finish(1, twoLink, first)
	b.hello(0, one, protocol.HelloJob{JobID: lost.ID.String(), State: protocol.JobRunning})
	if j := b.job(lost.ID); j.State != models.JobRunning {
		t.Fatalf("back, and %s", j.State)
	}
	second := b.exclusive(two, models.KindForget)
	b.wantCommands(1, twoLink) // beside a backup that is back
	b.exec("update jobs set state = 'failed', finished_at = now() where id = ?", lost.ID)
	b.wantCommands(1, twoLink, second)
}

// A host dies just when exclusive work is sent to it: the others wait for it no
// longer than for work that was accepted. When it is back, what it didn't have
// waits for its turn again; what it did have counts.
func TestWorkThatWasSentToADeadHostHoldsNobodyBackForLong(t *testing.T) {
	t.Parallel()
	for _, kind := range []models.JobKind{models.KindForget, models.KindInit, models.KindBackup} {
		t.Run(string(kind), func(t *testing.T) {
			t.Parallel()
			b := setup(t)
			dead, here := b.host("dead", "/srv/repo"), b.host("here", "/srv/repo")
			deadLink, _ := b.hello(0, dead)
			hereLink, _ := b.hello(1, here)
			www := b.group(here, "www")
			var sent models.JobID
			if kind == models.KindBackup {
				sent = b.run(b.group(dead, "www")).ID
			} else {
				sent = b.exclusive(dead, kind)
			}
			b.wantCommands(0, deadLink, sent)
			prune := b.exclusive(here, models.KindForget)
			b.wantCommands(1, hereLink)
			silent := func(d time.Duration) []*models.Job {
				b.exec("update hosts set last_seen_at = now() - interval '1 hour' where id = ?", dead.ID)
				b.listened(d)
				if err := models.TouchLink(b.ctx, b.db, here.ID, hereLink.Generation); err != nil {
					t.Fatal(err)
				}
				return must[[]*models.Job](t)(models.EndSilent(b.ctx, b.db, models.Silence{Expire: 24 * time.Hour, Lose: 15 * time.Minute}))
			}
			if told := silent(15 * time.Minute); len(told) != 0 {
				t.Errorf("too early for %v", told)
			}
			b.wantCommands(1, hereLink)
			if told := silent(time.Second); len(told) != 1 || told[0].ID != sent {
				t.Errorf("told of %v", told)
			}
			if told := silent(time.Second); len(told) != 0 {
				t.Errorf("told again of %v", told)
			}
			if j := b.job(sent); j.State != models.JobSent || j.FinishedAt != nil {
				t.Errorf("it is %s", j.State)
			}
			b.wantCommands(1, hereLink, prune)

			// It is back, without the job, over whichever server: it is not its turn.
			deadLink, first := b.hello(1, dead)
			if got := commands(t, first); len(got) != 0 {
				t.Errorf("beside the other's work %v", got)
			}
			b.wantCommands(1, deadLink)
			backup := b.run(www).ID
			b.hints[1].take()
			b.finish(1, hereLink, prune)
			if woken := b.hints[1].take(); !slices.Contains(woken, jobs.DispatchTopic(dead.ID)) {
				t.Errorf("it is not woken: %v", woken)
			}
			if kind == models.KindBackup {
				b.wantCommands(1, hereLink, backup) // beside it
				b.finish(1, hereLink, backup)
			} else {
				b.wantCommands(1, hereLink) // behind the work that waits
			}
			b.wantCommands(1, deadLink, sent)
			b.wantCommands(1, deadLink)
			alone := b.exclusive(here, models.KindForget)
			b.wantCommands(1, hereLink) // the gate is shut again

			// It dies again, and this time it had the job.
			silent(16 * time.Minute)
			if kind == models.KindForget {
				b.wantCommands(1, hereLink, backup) // overtaken once, not twice
				b.finish(1, hereLink, backup)
			}
			b.wantCommands(1, hereLink, alone)
			deadLink, first = b.hello(0, dead, protocol.HelloJob{JobID: sent.String(), State: protocol.JobRunning})
			if got := commands(t, first); len(got) != 0 || b.job(sent).State != models.JobRunning {
				t.Errorf("back with it, it is %s, offered %v", b.job(sent).State, got)
			}
			b.finish(1, hereLink, alone)
			next := b.exclusive(here, models.KindForget)
			b.wantCommands(1, hereLink) // what came back counts
			b.finish(0, deadLink, sent)
			if kind == models.KindInit {
				b.wantCommands(1, hereLink, backup)
				b.finish(1, hereLink, backup)
			}
			b.wantCommands(1, hereLink, next)
		})
	}
}

// A polling agent that comes back doesn't say hello: it has its job when it is
// its turn, and no later.
func TestASilentPollersWorkIsOfferedAgainInItsTurn(t *testing.T) {
	t.Parallel()
	b := setup(t)
	polls, here := b.host("polls", "/srv/repo"), b.host("here", "/srv/repo")
	link, _, err := b.servers[0].Hello(b.ctx, polls, protocol.LinkPolling, protocol.Hello{JournalID: "j"})
	if err != nil {
		t.Fatal(err)
	}
	hereLink, _ := b.hello(1, here)
	sent := b.exclusive(polls, models.KindForget)
	b.wantCommands(0, link, sent)
	b.listened(16 * time.Minute)
	must[[]*models.Job](t)(models.EndSilent(b.ctx, b.db, models.Silence{Expire: 24 * time.Hour, Lose: 15 * time.Minute}))
	backup := b.run(b.group(here, "www")).ID
	b.wantCommands(1, hereLink) // it is there, and waits
	b.exec("update hosts set last_seen_at = now() - interval '1 hour' where id = ?", polls.ID)
	b.wantCommands(1, hereLink, backup)
	if err := models.TouchLink(b.ctx, b.db, polls.ID, link.Generation); err != nil {
		t.Fatal(err)
	}
	if work := must[[]models.HostID](t)(models.HostsWithWork(b.ctx, b.db, []models.HostID{polls.ID})); len(work) != 1 {
		t.Error("nobody looks whether it is its turn")
	}
	b.wantCommands(0, link)
	b.finish(1, hereLink, backup)
	b.wantCommands(0, link, sent)
	b.wantCommands(0, link, sent) // until it is accepted
	b.say(0, link, protocol.TypeAccepted, protocol.Accepted{JobID: sent.String()})
	b.wantCommands(0, link)
}

// A job that is made just while another learns that its repository is one that
// was known already waits at that one's gate like every other.
func TestWhatIsMadeWhileItsRepositoryMovesWaitsAtTheRightGate(t *testing.T) {
	t.Parallel()
	b := setup(t)
	known, moves, shares := b.host("known", "rest:http://a/repo"), b.host("moves", "rest:http://b/repo"), b.host("shares", "rest:http://b/repo")
	knownLink, _ := b.hello(0, known)
	movesLink, _ := b.hello(1, moves)
	sharesLink, _ := b.hello(1, shares)
	learnt := func(id models.JobID) protocol.Finished {
		return protocol.Finished{JobID: id.String(), Outcome: protocol.OutcomeSucceeded, RepositoryID: strings.Repeat("9", 64)}
	}
	look := b.exclusive(known, models.KindSnapshots)
	b.wantCommands(0, knownLink, look)
	b.say(0, knownLink, protocol.TypeFinished, learnt(look))
	prune := b.exclusive(known, models.KindPrune)
	b.wantCommands(0, knownLink, prune)
	look = b.exclusive(moves, models.KindSnapshots)
	b.wantCommands(1, movesLink, look)
	group := b.group(shares, "www")
	var made models.JobID
	err := models.Tx(b.ctx, b.db, func(tx models.IDB) error {
		_, err := models.JobFinished(b.ctx, tx, moves, learnt(look))
		made = b.run(group).ID
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	repo := must[*models.HostRepository](t)(models.FindRepository(b.ctx, b.db, known.ID)).RepositoryID
	if *b.job(made).RepositoryID == repo {
		t.Fatal("it was made too late for what this is about")
	}
	b.wantCommands(1, sharesLink) // behind the prune
	if now := b.job(made); *now.RepositoryID != repo {
		t.Errorf("it waits in repository %d, want %d", *now.RepositoryID, repo)
	}
	b.hints[0].take()
	b.finish(0, knownLink, prune)
	if woken := b.hints[0].take(); !slices.Contains(woken, jobs.DispatchTopic(shares.ID)) {
		t.Errorf("who waits is not woken: %v", woken)
	}
	b.wantCommands(1, sharesLink, made)
}

// Most looks find nothing to claim: those write nothing.
func TestALookWithoutWorkLocksNoAddress(t *testing.T) {
	t.Parallel()
	b := setup(t)
	h := b.host("web-1", "/srv/repo")
	link, _ := b.hello(0, h)
	locked := func() string {
		var by string
		if err := b.db.QueryRowContext(b.ctx, "select xmax::text from repository_urls").Scan(&by); err != nil {
			t.Fatal(err)
		}
		return by
	}
	before := locked()
	b.wantCommands(0, link)
	if after := locked(); after != before {
		t.Errorf("its address was locked by %s, before by %s", after, before)
	}
	j := b.run(b.group(h, "www"))
	b.wantCommands(0, link, j.ID)
	if after := locked(); after == before {
		t.Error("a claim keeps no address, or this test sees no lock")
	}
}

func TestAtMostTwoJobsRunBesideTheGate(t *testing.T) {
	t.Parallel()
	b := setup(t)
	h := b.host("web-1", "/srv/repo")
	link, _ := b.hello(0, h)
	backup := b.run(b.group(h, "www"))
	first, second, third := b.exclusive(h, "unlock"), b.exclusive(h, "unlock"), b.exclusive(h, "unlock")
	b.wantCommands(0, link, backup.ID, first, second)
	b.finish(0, link, first)
	b.wantCommands(0, link, third)
}

func TestEverythingWaitsBehindTheHostsInit(t *testing.T) {
	t.Parallel()
	b := setup(t)
	h, other := b.host("web-1", ""), b.host("web-2", "")
	hLink, _ := b.hello(0, h)
	otherLink, _ := b.hello(1, other)
	for _, one := range []*models.Host{h, other} {
		// Bound while linked: the init is made at once.
		must[*models.HostRepository](t)(b.servers[1].BindRepository(b.ctx, one.ID, models.RepositoryFields{URL: "/srv/repo", Password: "correct horse"}))
	}
	inits := func(host models.HostID) models.JobID {
		list, _, err := models.ListJobs(b.ctx, b.db, models.JobFilter{HostID: host, Kind: models.KindInit}, models.Page{})
		if err != nil || len(list) != 1 {
			t.Fatalf("%d inits, %v", len(list), err)
		}
		return list[0].ID
	}
	backup := b.run(b.group(h, "www"))
	b.wantCommands(0, hLink, inits(h.ID))
	b.wantCommands(1, otherLink) // one init per repository at a time
	b.finish(0, hLink, inits(h.ID))
	b.wantCommands(0, hLink) // behind the other's init, which is older
	b.wantCommands(1, otherLink, inits(other.ID))
	b.finish(1, otherLink, inits(other.ID))
	b.wantCommands(0, hLink, backup.ID)
}

// watch checks, from what agents see, what must never happen.
type watch struct {
	t       *testing.T
	mu      sync.Mutex
	inside  map[models.JobID]*models.Job
	claimed map[models.JobID]int
}

func (w *watch) enter(j *models.Job) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.claimed[j.ID]++
	if w.claimed[j.ID] > 1 {
		w.t.Errorf("%s %s was claimed %d times", j.Kind, j.ID, w.claimed[j.ID])
	}
	for _, other := range w.inside {
		if *other.RepositoryID != *j.RepositoryID {
			continue
		}
		if j.Kind != models.KindBackup || other.Kind != models.KindBackup || other.HostID == j.HostID {
			w.t.Errorf("%s of %s runs beside %s of %s", j.Kind, j.HostName, other.Kind, other.HostName)
		}
	}
	w.inside[j.ID] = j
}

func (w *watch) leave(j *models.Job) {
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.inside, j.ID)
}

// Five hosts share a repository and two another one; each host's agent moves
// between two servers, its old link still asking for work. All is done, each
// job once, and nothing overlaps that must not.
func TestTwoServersShareOneGate(t *testing.T) {
	t.Parallel()
	b := setup(t)
	w := &watch{t: t, inside: map[models.JobID]*models.Job{}, claimed: map[models.JobID]int{}}
	const rounds = 5
	var wg sync.WaitGroup
	kinds := []models.JobKind{"prune", "check", "forget", models.KindInit}
	for n := range 7 {
		url := "/srv/repo"
		if n > 4 {
			url = "/srv/other"
		}
		h := b.host(fmt.Sprintf("host-%d", n), url)
		groups := []*models.Group{b.group(h, "a"), b.group(h, "b")}
		wg.Go(func() {
			server := n % 2
			link, first := b.hello(server, h)
			for round := range rounds {
				for _, g := range groups {
					b.run(g)
				}
				if round%2 == n%2 {
					kind := kinds[(n+round)%len(kinds)]
					if owns := n == 0 || n == 5; !owns && kind != models.KindInit {
						kind = models.KindForget // the others are its owner's
					}
					b.exclusive(h, kind)
				}
				b.work(w, server, link, first)
				// The same agent comes to the other server.
				stale, staleServer := link, server
				server = 1 - server
				link, first = b.hello(server, h)
				if out, err := b.servers[staleServer].Outgoing(b.ctx, stale); !errors.Is(err, models.ErrSuperseded) || len(commands(t, out)) > 0 {
					t.Errorf("an older link got %v, %v", types(out), err)
				}
				if _, err := b.servers[staleServer].Receive(b.ctx, stale, protocol.Seal("m", protocol.TypeHeartbeat, protocol.Heartbeat{})); !errors.Is(err, models.ErrSuperseded) {
					t.Errorf("an older link's message counts: %v", err)
				}
			}
			b.work(w, server, link, first)
		})
	}
	wg.Wait()
	made := b.count("select count(*) from jobs where not (kind = 'init' and actor_kind = 'system')")
	ended := b.count("select count(*) from jobs where state = 'succeeded' and not (kind = 'init' and actor_kind = 'system')")
	if made != ended || made != len(w.claimed) {
		t.Errorf("%d jobs made, %d claimed, %d ended", made, len(w.claimed), ended)
	}
}

// work does everything its host has to do, waiting for its turn.
func (b *bundle) work(w *watch, server int, link *jobs.Link, out []protocol.Envelope) {
	for {
		for _, id := range commands(b.t, out) {
			jobID, err := models.ParseID[models.JobID](id)
			if err != nil {
				b.t.Error(err)
				return
			}
			j := b.job(jobID)
			w.enter(j)
			exit := 0
			for _, m := range []struct {
				typ     string
				payload any
			}{
				{protocol.TypeAccepted, protocol.Accepted{JobID: id}},
				{protocol.TypeStarted, protocol.Started{JobID: id}},
				{protocol.TypeProgress, protocol.Progress{JobID: id, Seq: 1}},
			} {
				b.say(server, link, m.typ, m.payload)
			}
			w.leave(j)
			b.say(server, link, protocol.TypeFinished, protocol.Finished{
				JobID: id, Outcome: protocol.OutcomeSucceeded, ExitCode: &exit, SnapshotID: "abcdef1234567890",
			})
		}
		if b.count("select count(*) from jobs where host_id = ? and state in ('queued', 'sent', 'running')", link.HostID) == 0 {
			return
		}
		var err error
		if out, err = b.servers[server].Outgoing(b.ctx, link); err != nil {
			b.t.Error(err)
			return
		}
	}
}
