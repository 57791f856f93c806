package models_test

import (
	"fmt"
	"slices"
	"sync"
	"testing"

	"resticfleet/agent/protocol"
	"resticfleet/models"
)

// learns tells what a job's agent found the repository's own id to be.
func (b *bundle) learns(j *models.Job, id string) {
	b.t.Helper()
	b.finish(j, protocol.Finished{Outcome: protocol.OutcomeSucceeded, RepositoryID: id, SnapshotID: snapshot("a")})
}

func (b *bundle) repository(h *models.Host) *models.HostRepository {
	b.t.Helper()
	return must[*models.HostRepository](b.t)(models.FindRepository(b.ctx, b.db, h.ID))
}

func TestEqualURLsAreOneRepository(t *testing.T) {
	t.Parallel()
	b := setup(t)
	first := b.bind(b.host("web-1"), "/srv/repo")
	for i, url := range []string{"/srv/repo", "/srv/repo/", "local:/srv/repo", "local:/srv/repo//"} {
		if r := b.bind(b.host(string(rune('a'+i))), url); r.RepositoryID != first.RepositoryID {
			t.Errorf("%s is another repository", url)
		}
	}
	if r := b.bind(b.host("web-2"), "/srv/other"); r.RepositoryID == first.RepositoryID {
		t.Error("another URL is the same repository")
	}
}

func TestTwoURLsOfOneRepositoryShareAGate(t *testing.T) {
	t.Parallel()
	b := setup(t)
	id := snapshot("9")
	one, g1, link1 := b.backup("web-1", "rest:http://a/repo")
	two, g2, link2 := b.backup("web-2", "rest:http://b/repo")
	if b.repository(one).RepositoryID == b.repository(two).RepositoryID {
		t.Fatal("two URLs begin as one")
	}
	b.run(g1)
	b.learns(b.claim(one, link1), id)
	b.run(g2)
	running := b.claim(two, link2)
	waiting := b.run(g2) // behind it
	b.learns(running, id)
	if a, c := b.repository(one), b.repository(two); a.RepositoryID != c.RepositoryID || a.ResticID != id || c.ResticID != id {
		t.Fatalf("known as %d %s and %d %s", a.RepositoryID, a.ResticID, c.RepositoryID, c.ResticID)
	}
	if j := b.job(waiting.ID); *j.RepositoryID != b.repository(one).RepositoryID {
		t.Error("what waits goes through the old gate")
	}
	// From now on exclusive work of the one keeps backups of the other waiting.
	exclusive := must[*models.Job](t)(models.RunOnHost(b.ctx, b.db, one.ID, models.KindInit, models.System))
	if j := b.claim(one, link1); j == nil || j.ID != exclusive.ID {
		t.Fatalf("claimed %v", j)
	}
	if j := b.claim(two, link2); j != nil {
		t.Errorf("a backup beside exclusive work: %s", j.ID)
	}
	// The same again changes nothing.
	b.learns(b.job(exclusive.ID), id)
	if j := b.claim(two, link2); j == nil || j.ID != waiting.ID {
		t.Error("the gate stays shut")
	}
	if r := b.bind(b.host("web-3"), "rest:http://b/repo/"); r.ResticID != id {
		t.Error("a third host at the known URL doesn't know the id")
	}
}

// A claim that meets the learning of an address waits for it, and takes the gate
// of the repository that it leads to.
func TestAClaimWaitsForWhatIsLearnt(t *testing.T) {
	t.Parallel()
	b := setup(t)
	id := snapshot("9")
	one, g1, link1 := b.backup("web-1", "rest:http://a/repo")
	two, g2, link2 := b.backup("web-2", "rest:http://b/repo")
	three, g3, link3 := b.backup("web-3", "rest:http://b/repo")
	b.run(g1)
	b.learns(b.claim(one, link1), id)
	b.run(g2)
	running := b.claim(two, link2)
	b.run(g3)
	claimed := make(chan *models.Job, 1)
	err := models.Tx(b.ctx, b.db, func(tx models.IDB) error {
		end := protocol.Finished{JobID: running.ID.String(), Outcome: protocol.OutcomeSucceeded, RepositoryID: id, SnapshotID: snapshot("a")}
		if _, err := models.JobFinished(b.ctx, tx, two, end); err != nil {
			return err
		}
		go func() {
			j, err := models.Claim(b.ctx, b.db, three.ID, link3)
			if err != nil {
				t.Error(err)
			}
			claimed <- j
		}()
		for b.count("select count(*) from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'") == 0 {
			if len(claimed) > 0 {
				t.Error("the claim waits for nothing")
				break
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if j := <-claimed; j == nil || *j.RepositoryID != b.repository(one).RepositoryID {
		t.Errorf("claimed through the old gate: %+v", j)
	}
}

func TestARepositoryMadeAnewIsAnother(t *testing.T) {
	t.Parallel()
	b := setup(t)
	h, g, generation := b.backup("web-1", "/srv/repo")
	for _, id := range []string{snapshot("1"), snapshot("2"), "nonsense", ""} {
		b.run(g)
		b.learns(b.claim(h, generation), id)
	}
	if r := b.repository(h); r.ResticID != snapshot("2") {
		t.Errorf("known as %s", r.ResticID)
	}
}

// One URL leads two hosts to repositories of their own, as a path on each or an
// address behind each does: they are one until their ids are known, and two from
// then on, whoever is there first and whatever is bound anew; both keep what is
// theirs.
func TestOneURLLeadsHostsToRepositoriesOfTheirOwn(t *testing.T) {
	t.Parallel()
	b := setup(t)
	one, g1, link1 := b.backup("web-1", "/mnt/backup")
	two, g2, link2 := b.backup("web-2", "/mnt/backup/")
	three, g3, link3 := b.backup("web-3", "/mnt/backup")
	b.run(g1)
	b.learns(b.claim(one, link1), snapshot("1"))
	b.exec("insert into repository_damage (repository_id, subset, found_at, job_id, seen_at) values (?, '', now(), gen_random_uuid(), now())", b.repository(one).RepositoryID)
	b.run(g2)
	running := b.claim(two, link2)
	waiting := b.run(g2)
	same := func(a, c *models.Host, id string) {
		t.Helper()
		if x, y := b.repository(a), b.repository(c); x.RepositoryID != y.RepositoryID || x.ResticID != id || y.ResticID != id {
			t.Errorf("%s and %s are at %d %.2s and %d %.2s", a.Name, c.Name, x.RepositoryID, x.ResticID, y.RepositoryID, y.ResticID)
		}
	}
	apart := func() {
		t.Helper()
		if x, y := b.repository(one), b.repository(two); x.RepositoryID == y.RepositoryID || x.ResticID != snapshot("1") || y.ResticID != snapshot("2") {
			t.Errorf("at %d %.2s and %d %.2s", x.RepositoryID, x.ResticID, y.RepositoryID, y.ResticID)
		}
		for _, h := range []*models.Host{one, two} {
			if o := must[*models.Owner](t)(models.FindOwner(b.ctx, b.db, h.ID)); o.HostID != h.ID {
				t.Errorf("the owner of %s's repository is %s", h.Name, o.Name)
			}
		}
	}
	damaged := func(h *models.Host) int {
		return must[models.CheckRound](t)(models.FindCheckRound(b.ctx, b.db, h.ID)).Damaged
	}
	b.learns(running, snapshot("2"))
	apart()
	same(one, three, snapshot("1")) // as far as that is known
	if damaged(one) != 1 || damaged(two) != 0 {
		t.Errorf("damaged: %d of the one, %d of the other", damaged(one), damaged(two))
	}
	// Exclusive work of the one stands before no backup of the other.
	exclusive := must[*models.Job](t)(models.RunOnHost(b.ctx, b.db, one.ID, models.KindInit, models.System))
	if j := b.claim(one, link1); j == nil || j.ID != exclusive.ID {
		t.Fatalf("claimed %v", j)
	}
	j := b.claim(two, link2)
	if j == nil || j.ID != waiting.ID {
		t.Fatal("the other's gate is shut")
	}
	b.learns(j, snapshot("2"))
	b.learns(b.job(exclusive.ID), snapshot("1"))
	apart()
	// What a check finds is told of its own.
	check := must[*models.Job](t)(models.RunMaintenance(b.ctx, b.db, two.ID, models.KindCheck, models.System))
	if j := b.claim(two, link2); j == nil || j.ID != check.ID {
		t.Fatalf("claimed %v", j)
	}
	b.finish(check, protocol.Finished{Outcome: protocol.OutcomeFailed, ErrorCode: protocol.ErrDamaged, RepositoryID: snapshot("2"), Stats: map[string]any{"num_errors": 3}})
	if damaged(one) != 1 || damaged(two) != 1 {
		t.Errorf("damaged: %d of the one, %d of the other", damaged(one), damaged(two))
	}
	// Bound again, after another or none, it stays where it was.
	must[*models.HostRepository](t)(models.BindMaintenance(b.ctx, b.db, b.seal, two.ID, models.MaintenanceFields{URL: "/mnt/second", Password: "correct horse"}))
	for _, url := range []string{"/mnt/backup", "local:/mnt/backup/"} {
		b.bind(two, url)
		apart()
	}
	if r := b.repository(two); !r.HasMaintenance() {
		t.Error("its second credentials are lost")
	}
	b.bind(two, "/mnt/other")
	b.bind(two, "/mnt/backup")
	apart()
	if err := models.UnbindRepository(b.ctx, b.db, two.ID); err != nil {
		t.Fatal(err)
	}
	b.bind(two, "/mnt/backup")
	apart()

	// One that several share after all is made anew: whoever has seen it first, in
	// the end they share it.
	next := func(h *models.Host, g *models.Group, link int64, id string) {
		t.Helper()
		b.run(g)
		b.learns(b.claim(h, link), id)
	}
	next(three, g3, link3, snapshot("1"))
	next(one, g1, link1, snapshot("3"))
	if b.repository(three).ResticID != snapshot("1") {
		t.Error("what the third host has is not known yet")
	}
	next(three, g3, link3, snapshot("3"))
	same(one, three, snapshot("3"))
	next(two, g2, link2, snapshot("3"))
	same(one, two, snapshot("3"))
	next(three, g3, link3, snapshot("4")) // alone at the URL now
	if b.repository(three).ResticID != snapshot("4") {
		t.Errorf("known as %.2s", b.repository(three).ResticID)
	}
	same(one, two, snapshot("3"))
}

// A URL of a server that all reach is one place: what one host finds made anew
// there is made anew for all.
func TestASharedServersRepositoryIsMadeAnewForAll(t *testing.T) {
	t.Parallel()
	for url, apart := range map[string]bool{
		"rest:http://nas:8000/x": false, "rest:https://127.example.net/x": false, "sftp:backup@nas:/srv": false, "s3:https://localhost.example.net/b": false, "b2:bucket:x": false,
		"rest:http://localhost:8000/x": true, "rest:http://127.0.0.1/x": true, "rest:https://[::1]:8000/": true, "sftp:backup@localhost:/srv": true, "sftp://backup@127.0.0.1//srv": true, "/mnt/backup": true,
	} {
		t.Run(url, func(t *testing.T) {
			t.Parallel()
			b := setup(t)
			one, g1, link1 := b.backup("web-1", url)
			two, _, _ := b.backup("web-2", url)
			for _, id := range []string{snapshot("1"), snapshot("2")} {
				b.run(g1)
				b.learns(b.claim(one, link1), id)
			}
			if x, y := b.repository(one), b.repository(two); x.ResticID != snapshot("2") || (x.RepositoryID != y.RepositoryID) != apart {
				t.Errorf("at %d %.2s and %d %.2s", x.RepositoryID, x.ResticID, y.RepositoryID, y.ResticID)
			}
		})
	}
}

// Two hosts tell two ids of one URL at the same time.
func TestTwoIDsOfOneURLAtOnce(t *testing.T) {
	t.Parallel()
	b := setup(t)
	hosts, running := make([]*models.Host, 6), make([]*models.Job, 6)
	for n := range hosts {
		var g *models.Group
		var link int64
		hosts[n], g, link = b.backup(fmt.Sprint("web-", n), "/mnt/backup")
		b.run(g)
		running[n] = b.claim(hosts[n], link)
	}
	var all sync.WaitGroup
	for n, h := range hosts {
		all.Go(func() {
			var err error
			for range len(hosts) { // an agent repeats what could not be stored
				err = models.Tx(b.ctx, b.db, func(tx models.IDB) error {
					_, err := models.JobFinished(b.ctx, tx, h, protocol.Finished{
						JobID: running[n].ID.String(), Outcome: protocol.OutcomeSucceeded, RepositoryID: snapshot(fmt.Sprint(n % 3)), SnapshotID: snapshot("a"),
					})
					return err
				})
				if err == nil {
					return
				}
			}
			t.Error(err)
		})
	}
	all.Wait()
	for n, h := range hosts {
		r := b.repository(h)
		if r.ResticID != snapshot(fmt.Sprint(n%3)) {
			t.Errorf("%s is at %.2s, want %d", h.Name, r.ResticID, n%3)
		}
		o := must[*models.Owner](t)(models.FindOwner(b.ctx, b.db, h.ID))
		if len(o.Sharers) != 2 || !slices.ContainsFunc(o.Sharers, func(s models.Sharer) bool { return s.ID == o.HostID }) {
			t.Errorf("%s's repository is owned by %s, shared by %v", h.Name, o.Name, o.Sharers)
		}
	}
}

// Credentials that are bound again while jobs wait: what waits goes where the
// new ones lead, and one init is made for it.
func TestRebindingWhileJobsWait(t *testing.T) {
	t.Parallel()
	b := setup(t)
	h, g, generation := b.backup("web-1", "/srv/old")
	must[bool](t)(models.AutoInit(b.ctx, b.db, h.ID))
	waiting := b.run(g)
	old := b.repository(h).RepositoryID
	b.bind(h, "/srv/new")
	if made := must[bool](t)(models.AutoInit(b.ctx, b.db, h.ID)); !made {
		t.Error("no init for the new repository")
	}
	init := b.claim(h, generation)
	if init == nil || init.Kind != models.KindInit || init.RepositoryURL != "/srv/new" {
		t.Fatalf("claimed %+v", init)
	}
	if j := b.claim(h, generation); j != nil {
		t.Errorf("a %s runs beside the init", j.Kind)
	}
	b.finish(init, protocol.Finished{Outcome: protocol.OutcomeSucceeded})
	if j := b.claim(h, generation); j == nil || j.ID != waiting.ID || j.RepositoryURL != "/srv/new" || *j.RepositoryID == old {
		t.Errorf("claimed %+v", j)
	}
	if n := b.count("select count(*) from jobs where state = 'queued'"); n != 0 {
		t.Errorf("%d jobs still wait", n)
	}
	if n := b.count("select count(*) from jobs where repository_id = ? and state = 'queued'", old); n != 0 {
		t.Error("something waits before the old repository")
	}
}

func TestOneSystemInitPerHostAndURL(t *testing.T) {
	t.Parallel()
	b := setup(t)
	h := b.host("web-1")
	b.bind(h, "/srv/repo")
	fine, errs := gather(8, func(int) error { _, err := models.AutoInit(b.ctx, b.db, h.ID); return err })
	if n := b.count("select count(*) from jobs where kind = 'init'"); fine != 8 || n != 1 {
		t.Fatalf("%d inits: %v", n, errs)
	}
	generation := b.link(h)
	j := b.claim(h, generation)
	b.accept(j)
	b.finish(j, protocol.Finished{Outcome: protocol.OutcomeFailed, ErrorCode: protocol.ErrWrongPassword})
	if made := must[bool](t)(models.AutoInit(b.ctx, b.db, h.ID)); made {
		t.Error("a failed init is retried by itself")
	}
	person := models.Actor{Kind: models.ActorUser, Name: "ops"}
	again := must[*models.Job](t)(models.RunOnHost(b.ctx, b.db, h.ID, models.KindInit, person))
	if twice := must[*models.Job](t)(models.RunOnHost(b.ctx, b.db, h.ID, models.KindInit, person)); twice.ID != again.ID {
		t.Error("the button makes two that wait")
	}
	// One that never reached the agent doesn't count.
	other := b.host("web-2")
	b.bind(other, "/srv/repo2")
	must[bool](t)(models.AutoInit(b.ctx, b.db, other.ID))
	b.exec("update jobs set state = 'cancelled', finished_at = now() where host_id = ?", other.ID)
	if made := must[bool](t)(models.AutoInit(b.ctx, b.db, other.ID)); !made {
		t.Error("an init that never reached the agent is not made again")
	}
}
