package jobs_test

import (
	"fmt"
	"reflect"
	"slices"
	"sync"
	"testing"
	"time"

	"resticfleet/agent/protocol"
	"resticfleet/jobs"
	"resticfleet/models"
)

// maintained is a host whose three cadences are on, and have been for long, with
// a group that lets snapshots go.
func (b *bundle) maintained(name, url, cron string) *models.Host {
	b.t.Helper()
	h := b.host(name, url)
	must[*models.Group](b.t)(models.AddGroup(b.ctx, b.db, h.ID, models.GroupFields{
		Name: "www", Includes: []string{"/srv"}, Retention: models.Retention{KeepDaily: 7},
	}))
	b.cadence(h, cron)
	b.exec("update maintenance_states set effective_at = now() - interval '10 years' where host_id = ?", h.ID)
	b.exec("update host_repositories set bound_at = now() - interval '10 years' where host_id = ?", h.ID)
	b.exec("update hosts set timezone_since = now() - interval '10 years' where id = ?", h.ID)
	return h
}

func (b *bundle) cadence(h *models.Host, cron string) {
	b.t.Helper()
	err := models.SaveMaintenance(b.ctx, b.db, &models.Maintenance{
		HostID: h.ID, ForgetCron: cron, ForgetEnabled: true, PruneCron: cron, PruneEnabled: true,
		CheckCron: cron, CheckEnabled: true, CheckReadDataSubset: "1/3",
	})
	if err != nil {
		b.t.Fatal(err)
	}
}

func (b *bundle) linked(hosts ...*models.Host) {
	b.t.Helper()
	for _, h := range hosts {
		b.exec("update hosts set last_seen_at = now(), link_closed_at = null where id = ?", h.ID)
	}
}

func (b *bundle) maintain(server int, now time.Time) {
	b.t.Helper()
	if err := b.servers[server].MaintainOnce(b.ctx, now); err != nil {
		b.t.Fatal(err)
	}
}

// due are a host's rows of due times of one kind, oldest first.
func (b *bundle) due(h *models.Host, kind models.JobKind) []*models.Job {
	b.t.Helper()
	var ids []models.JobID
	if err := b.db.NewRaw("select id from jobs where host_id = ? and kind = ? and scheduled_at is not null order by scheduled_at", h.ID, kind).Scan(b.ctx, &ids); err != nil {
		b.t.Fatal(err)
	}
	all := []*models.Job{}
	for _, id := range ids {
		all = append(all, b.job(id))
	}
	return all
}

func (b *bundle) ends(server int, link *jobs.Link, id models.JobID, f protocol.Finished) {
	b.t.Helper()
	f.JobID = id.String()
	if v := b.say(server, link, protocol.TypeFinished, f); v.Rejected != "" {
		b.t.Fatal(v.Rejected)
	}
}

func (b *bundle) state(h *models.Host, kind models.JobKind) *models.MaintenanceState {
	b.t.Helper()
	return must[map[models.JobKind]*models.MaintenanceState](b.t)(models.ListMaintenanceStates(b.ctx, b.db, h.ID))[kind]
}

// Whoever looks, and however often: each due time of each kind has one row. A
// server that stops in the middle of its look, holding a host, takes nothing
// from the others but that host, until its transaction is gone.
func TestEachDueTimeHasOneRowWhoeverLooks(t *testing.T) {
	t.Parallel()
	b := setup(t)
	hosts := []*models.Host{}
	for n := range 6 {
		hosts = append(hosts, b.maintained(fmt.Sprint("web-", n), fmt.Sprint("/srv/", n), "0 * * * *"))
	}
	b.linked(hosts...)
	third := jobs.New(jobs.Config{DB: b.servers[1].DB, Sealer: b.servers[1].Sealer, Hints: &hints{}, Log: b.servers[1].Log})
	now := time.Now().Truncate(time.Hour)
	for round := range 3 {
		at := now.Add(time.Duration(round) * time.Hour)
		stopped, err := b.db.BeginTx(b.ctx, nil)
		if err != nil {
			t.Fatal(err)
		}
		var id models.HostID
		if err := stopped.NewRaw("select id from hosts where id = ? for update", hosts[round].ID).Scan(b.ctx, &id); err != nil {
			t.Fatal(err)
		}
		var all sync.WaitGroup
		for n := range 6 {
			all.Go(func() {
				s := []*jobs.Service{b.servers[0], b.servers[1], third}[n%3]
				if err := s.MaintainOnce(b.ctx, at.Add(time.Second)); err != nil {
					t.Error(err)
				}
			})
		}
		if err := stopped.Rollback(); err != nil { // killed
			t.Fatal(err)
		}
		all.Wait()
	}
	for _, h := range hosts {
		for _, kind := range models.MaintenanceKinds {
			rows := b.due(h, kind)
			if len(rows) != 3 {
				t.Errorf("%s of %s has %d rows for three due times", kind, h.Name, len(rows))
				continue
			}
			if rows[0].State != models.JobQueued || rows[0].CatchUp || rows[1].State != models.JobSkipped || rows[1].ErrorCode != models.CodeStillBusy || rows[1].Error == "" {
				t.Errorf("%s of %s: %s, then %s %s", kind, h.Name, rows[0].State, rows[1].State, rows[1].ErrorCode)
			}
		}
	}
}

// After an outage of days the newest due time alone is made up for, marked;
// for a host that is away it waits until it is there.
func TestAnOutageIsMadeUpForOnce(t *testing.T) {
	t.Parallel()
	b := setup(t)
	h := b.maintained("web-1", "/srv/repo", "30 3 * * *")
	now := time.Now()
	b.exec("update hosts set last_seen_at = null where id = ?", h.ID)
	b.maintain(0, now)
	if n := b.count("select count(*) from jobs where scheduled_at is not null"); n != 0 {
		t.Fatalf("%d rows for a host that is away", n)
	}
	b.linked(h)
	b.maintain(0, now)
	b.maintain(1, now)
	for _, kind := range models.MaintenanceKinds {
		rows := b.due(h, kind)
		if len(rows) != 1 || rows[0].State != models.JobQueued || now.Sub(*rows[0].ScheduledAt) > 25*time.Hour || rows[0].CatchUp != (now.Sub(*rows[0].ScheduledAt) > 2*time.Minute) {
			t.Errorf("%s: %d rows, %+v", kind, len(rows), rows)
		}
	}
	// What has no row needs no host: it is told at once.
	b.exec("update jobs set state = 'cancelled', finished_at = now() where state = 'queued'")
	b.exec("update source_groups set retention = '{}'")
	b.exec("update hosts set last_seen_at = null where id = ?", h.ID)
	b.maintain(0, now.Add(24*time.Hour))
	rows := b.due(h, models.KindForget)
	if last := rows[len(rows)-1]; len(rows) != 2 || last.State != models.JobSkipped || last.ErrorCode != models.CodeNothingToDo {
		t.Errorf("nothing to do leaves %d rows, %s %s", len(rows), last.State, last.ErrorCode)
	}
}

// What a forget does is fixed when it is made, by a person or as it is due: each
// live group's policy, for every tag that the group ever had. What a policy
// becomes while the job waits is for the next one.
func TestAForgetIsFixedWhenItIsMade(t *testing.T) {
	t.Parallel()
	for origin, makeIt := range map[string]func(*bundle, *models.Host){
		"run now": func(b *bundle, h *models.Host) {
			must[*models.Job](b.t)(b.servers[0].RunMaintenance(b.ctx, h.ID, models.KindForget, models.System))
		},
		"due": func(b *bundle, h *models.Host) { b.maintain(0, time.Now()) },
	} {
		t.Run(origin, func(t *testing.T) {
			t.Parallel()
			b := setup(t)
			h := b.host("web-1", "/srv/repo")
			add := func(h *models.Host, name string, r models.Retention) *models.Group {
				return must[*models.Group](t)(models.AddGroup(b.ctx, b.db, h.ID, models.GroupFields{Name: name, Includes: []string{"/srv"}, Retention: r}))
			}
			www, gone := add(h, "www", models.Retention{KeepDaily: 7}), add(h, "gone", models.Retention{KeepLast: 2})
			etc := add(h, "etc", models.Retention{KeepWithin: "30d", KeepTags: []string{"keep"}})
			add(h, "for-ever", models.Retention{})
			add(b.host("web-2", "/srv/repo"), "www", models.Retention{KeepLast: 1})
			site := models.GroupFields{Name: "Site", Tag: "site", Includes: []string{"/srv"}, Retention: www.Retention}
			must[*models.Group](t)(models.UpdateGroup(b.ctx, b.db, h.ID, www.ID, site))
			must[[]models.JobID](t)(models.DeleteGroup(b.ctx, b.db, h.ID, gone.ID))
			if origin == "due" {
				if err := models.SaveMaintenance(b.ctx, b.db, &models.Maintenance{HostID: h.ID, ForgetCron: "0 * * * *", ForgetEnabled: true, PruneCron: "@daily", CheckCron: "@daily"}); err != nil {
					t.Fatal(err)
				}
				b.exec("update maintenance_states set effective_at = now() - interval '10 years'")
				b.exec("update host_repositories set bound_at = now() - interval '10 years'")
			}
			link, _ := b.hello(0, h)
			b.exec("update hosts set timezone_since = now() - interval '10 years'")
			makeIt(b, h)
			site.Retention = models.Retention{KeepLast: 1}
			must[*models.Group](t)(models.UpdateGroup(b.ctx, b.db, h.ID, www.ID, site))
			run := b.next(link)
			want := []protocol.ForgetGroup{
				{GroupID: etc.ID.String(), Name: "etc", Tags: []string{"etc"}, Retention: models.Retention{KeepWithin: "30d", KeepTags: []string{"keep"}}},
				{GroupID: www.ID.String(), Name: "Site", Tags: []string{"site", "www"}, Retention: models.Retention{KeepDaily: 7}},
			}
			if run.Kind != protocol.KindForget || run.ResticHost != h.ResticHost || len(run.SnapshotIDs) != 0 || !reflect.DeepEqual(run.Forget, want) {
				t.Errorf("sent %+v, want %+v", run, want)
			}
		})
	}
}

// Nothing is due before a cadence's last change, its enabling, or a change of
// the host's zone.
func TestNothingIsDueFromBeforeAChange(t *testing.T) {
	t.Parallel()
	b := setup(t)
	h := b.maintained("web-1", "/srv/repo", "0 * * * *")
	b.linked(h)
	made := func(what string, want int) {
		t.Helper()
		if n := b.count("select count(*) from jobs where scheduled_at is not null"); n != want {
			t.Errorf("%s: %d rows, want %d", what, n, want)
		}
	}
	b.exec("update host_repo_maintenance set forget_enabled = false, prune_enabled = false, check_enabled = false")
	b.maintain(0, time.Now())
	made("off", 0)
	b.cadence(h, "0 * * * *")
	b.maintain(0, time.Now())
	made("switched on just now", 0)
	b.maintain(0, time.Now().Add(time.Hour))
	made("an hour later", 3)
	b.exec("update jobs set state = 'cancelled', finished_at = now() where state = 'queued'")
	b.exec("update hosts set timezone = 'Asia/Kolkata', timezone_since = now() + interval '3 hours'")
	b.maintain(0, time.Now().Add(2*time.Hour))
	made("before the zone's change", 3)
	b.maintain(0, time.Now().Add(5*time.Hour))
	made("after it", 6)
}

// A daily cadence is due once on each local day, whatever the clocks do.
func TestADailyCadenceThroughAYearOfClockChanges(t *testing.T) {
	t.Parallel()
	b := setup(t)
	zones := []string{"Europe/Vienna", "America/New_York", "Australia/Lord_Howe", "Asia/Kolkata"}
	begin := time.Date(2027, 1, 1, 12, 0, 0, 0, time.UTC)
	hosts := []*models.Host{}
	for n, zone := range zones {
		h := b.maintained(fmt.Sprint("web-", n), fmt.Sprint("/srv/", n), "30 2 * * *")
		b.exec("update hosts set timezone = ? where id = ?", zone, h.ID)
		hosts = append(hosts, h)
	}
	b.exec("update maintenance_states set effective_at = ?", begin)
	b.exec("update host_repo_maintenance set prune_enabled = false, check_enabled = false")
	b.exec("update source_groups set retention = '{}'") // a row is all that it takes
	const days = 365
	for day := range days {
		b.maintain(day%2, begin.Add(time.Duration(day+1)*24*time.Hour))
	}
	for n, h := range hosts {
		zone := must[*time.Location](t)(time.LoadLocation(zones[n]))
		seen := map[string]bool{}
		rows := b.count("select count(*) from jobs where host_id = ? and scheduled_at is not null", h.ID)
		var at []time.Time
		if err := b.db.NewRaw("select scheduled_at from jobs where host_id = ? and scheduled_at is not null", h.ID).Scan(b.ctx, &at); err != nil {
			t.Fatal(err)
		}
		for _, a := range at {
			seen[a.In(zone).Format(time.DateOnly)] = true
		}
		if rows != days || len(seen) != days {
			t.Errorf("%s: %d rows on %d days of %d", zones[n], rows, len(seen), days)
		}
	}
}

// Failures put the next runs off, longer each time, and from the fifth on only
// a person's successful run brings them back. What isn't a failure doesn't count.
func TestFailuresBackOffAndOpenTheBreaker(t *testing.T) {
	t.Parallel()
	b := setup(t)
	h := b.maintained("web-1", "/srv/repo", "0 0 1 1 *")
	link, _ := b.hello(0, h) // tells the host's zone
	b.exec("update hosts set timezone_since = now() - interval '10 years'")
	run := func(f protocol.Finished) {
		t.Helper()
		j := must[*models.Job](t)(b.servers[0].RunMaintenance(b.ctx, h.ID, models.KindPrune, models.System))
		if again := must[*models.Job](t)(b.servers[1].RunMaintenance(b.ctx, h.ID, models.KindPrune, models.System)); again.ID != j.ID {
			t.Error("a waiting run is not that run")
		}
		b.wantCommands(0, link, j.ID)
		b.ends(0, link, j.ID, f)
		if s := b.state(h, models.KindPrune); s.LastJobID == nil || *s.LastJobID != j.ID {
			t.Errorf("the last run is %v", s.LastJobID)
		}
	}
	failed := protocol.Finished{Outcome: protocol.OutcomeFailed, ErrorCode: protocol.ErrAppendOnly, Error: "why"}
	for n, wait := range []time.Duration{10 * time.Minute, 20 * time.Minute, 40 * time.Minute, 80 * time.Minute} {
		run(failed)
		run(protocol.Finished{Outcome: protocol.OutcomeCancelled})
		s := b.state(h, models.KindPrune)
		if s.Failures != n+1 || s.BreakerOpen() || s.BacksOffUntil().Sub(*s.FailedAt) != wait {
			t.Errorf("after %d failures: %d, until %v", n+1, s.Failures, s.BacksOffUntil())
		}
	}
	saved := func(what string, m models.Maintenance, want int, kinds ...models.JobKind) {
		t.Helper()
		if err := models.SaveMaintenance(b.ctx, b.db, &m, kinds...); err != nil {
			t.Fatal(err)
		}
		if s := b.state(h, models.KindPrune); s.Failures != want {
			t.Errorf("%s, and %d failures", what, s.Failures)
		}
	}
	m := *must[*models.Maintenance](t)(models.FindMaintenance(b.ctx, b.db, h.ID))
	saved("saved as it was", m, 4)
	m.CheckCron, m.ForgetEnabled, m.CheckReadDataSubset = "0 * * * *", false, "1/4"
	saved("the others changed", m, 4, models.KindForget)
	saved("saved on its own", m, 0, models.KindPrune)
	run(failed)
	m.PruneCron = "0 * * * *"
	saved("changed", m, 0)
	run(failed)
	at := time.Now().Truncate(time.Hour)
	b.exec("update maintenance_states set effective_at = now() - interval '1 day', due_at = null, failed_at = now()")
	b.maintain(0, at.Add(time.Second))
	if rows := b.due(h, models.KindPrune); len(rows) != 1 || rows[0].ErrorCode != models.CodeBackingOff {
		t.Errorf("backing off: %+v", rows)
	}
	b.exec("update jobs set state = 'cancelled', finished_at = now() where state = 'queued'")
	for range 4 {
		run(failed)
	}
	b.maintain(0, at.Add(48*time.Hour))
	if rows := b.due(h, models.KindPrune); len(rows) != 2 || rows[1].ErrorCode != models.CodeBreakerOpen || !b.state(h, models.KindPrune).BreakerOpen() {
		t.Errorf("open: %+v", rows)
	}
	b.exec("update jobs set state = 'cancelled', finished_at = now() where state = 'queued'")
	run(protocol.Finished{Outcome: protocol.OutcomeSucceeded})
	if s := b.state(h, models.KindPrune); s.Failures != 0 || s.BreakerOpen() || s.GoodAt == nil {
		t.Errorf("mended: %+v", s)
	}
}

// A job that its host never told the end of is the kind's last one all the
// same, and no failure.
func TestWhatEndsWithoutAWordIsTheLastRunAndNoFailure(t *testing.T) {
	t.Parallel()
	b := setup(t)
	h := b.maintained("web-1", "/srv/repo", "0 0 1 1 *")
	for _, want := range []models.JobState{models.JobCancelled, models.JobExpired} {
		j := must[*models.Job](t)(b.servers[0].RunMaintenance(b.ctx, h.ID, models.KindCheck, models.System))
		if want == models.JobCancelled {
			must[*models.Job](t)(b.servers[0].Cancel(b.ctx, j.ID))
		} else {
			b.listened(48 * time.Hour)
			must[[]*models.Job](t)(models.EndSilent(b.ctx, b.db, models.Silence{Expire: time.Hour, Lose: time.Hour}))
		}
		if s := b.state(h, models.KindCheck); s.LastState != want || s.LastJobID == nil || *s.LastJobID != j.ID || s.Failures != 0 {
			t.Errorf("%s is kept as %+v", want, s)
		}
	}
}

// The rotating check goes round: each part once, whatever is asked for beside
// it. A part that was found damaged is read again first, which is not its turn.
func TestTheRotatingCheckReadsEachPartOnce(t *testing.T) {
	t.Parallel()
	b := setup(t)
	h := b.maintained("web-1", "/srv/repo", "0 0 1 1 *")
	link, _ := b.hello(0, h)
	parts := []string{}
	for n, f := range []protocol.Finished{
		{Outcome: protocol.OutcomeSucceeded},
		{Outcome: protocol.OutcomeFailed, ErrorCode: protocol.ErrLocked, Error: "locked"},
		{Outcome: protocol.OutcomeFailed, ErrorCode: protocol.ErrDamaged, Error: "damaged"},
		{Outcome: protocol.OutcomeSucceeded},
		{Outcome: protocol.OutcomeSucceeded},
		{Outcome: protocol.OutcomeSucceeded},
	} {
		j := must[*models.Job](t)(b.servers[0].RunMaintenance(b.ctx, h.ID, models.KindCheck, models.System))
		parts = append(parts, j.Spec.ReadDataSubset)
		b.wantCommands(0, link, j.ID)
		var beside *models.Job
		if n == 0 { // made before the first one ended: the same part again
			beside = must[*models.Job](t)(b.servers[0].RunMaintenance(b.ctx, h.ID, models.KindCheck, models.System))
		}
		b.ends(0, link, j.ID, f)
		if beside != nil {
			b.wantCommands(0, link, beside.ID)
			b.ends(0, link, beside.ID, f)
		}
	}
	if want := []string{"1/3", "2/3", "2/3", "2/3", "3/3", "1/3"}; !slices.Equal(parts, want) {
		t.Errorf("parts %v, want %v", parts, want)
	}
	if c := must[models.CheckRound](t)(models.FindCheckRound(b.ctx, b.db, h.ID)); c.Read != 1 || c.Parts != 3 || c.Next != 2 || c.WholeAt == nil {
		t.Errorf("round %+v", c)
	}
}

// One host prunes and checks a shared repository: who bound it first, until it
// is gone or a person says otherwise.
func TestASharedRepositoryHasOneOwner(t *testing.T) {
	t.Parallel()
	b := setup(t)
	one, two, three := b.maintained("web-1", "/srv/repo", "0 * * * *"), b.maintained("web-2", "/srv/repo", "0 * * * *"), b.maintained("web-3", "/srv/repo", "0 * * * *")
	b.exec("update host_repositories set bound_at = bound_at + interval '1 hour' where host_id = ?", two.ID)
	b.linked(one, three)
	owner := func(want *models.Host, reason string) {
		t.Helper()
		if o := must[*models.Owner](t)(models.FindOwner(b.ctx, b.db, three.ID)); o.HostID != want.ID || o.Reason != reason || len(o.Sharers) == 0 {
			t.Errorf("owner %s (%s), want %s (%s)", o.Name, o.Reason, want.Name, reason)
		}
	}
	owner(one, "bound")
	b.maintain(0, time.Now())
	for _, kind := range []models.JobKind{models.KindPrune, models.KindCheck} {
		if rows := b.due(three, kind); len(rows) != 1 || rows[0].ErrorCode != models.CodeNotOwner {
			t.Errorf("%s of another: %+v", kind, rows)
		}
		if _, err := b.servers[0].RunMaintenance(b.ctx, three.ID, kind, models.System); models.CodeOf(err) != models.EConflict {
			t.Errorf("run %s: %v", kind, err)
		}
	}
	if rows := b.due(three, models.KindForget); len(rows) != 1 || rows[0].State != models.JobQueued {
		t.Errorf("forget is each host's own: %+v", rows)
	}
	// Silent for long, while servers listened. The next one that is there takes
	// over, not the one that bound it before and is away.
	b.exec("update hosts set last_seen_at = now() - interval '1 hour' where id in (?, ?)", one.ID, two.ID)
	b.listened(73 * time.Hour)
	b.exec("update hosts set heard = (select heard from hearing) where id in (?, ?)", two.ID, three.ID)
	b.maintain(0, time.Now())
	owner(three, "taken")
	b.linked(one)
	b.maintain(0, time.Now())
	owner(three, "taken") // and keeps it
	if err := b.servers[0].OwnRepository(b.ctx, two.ID); err != nil {
		t.Fatal(err)
	}
	owner(two, "chosen")
	if err := models.UnbindRepository(b.ctx, b.db, two.ID); err != nil {
		t.Fatal(err)
	}
	b.maintain(0, time.Now())
	owner(one, "taken")
}

// A shared repository is kept up whoever owns it: a new owner takes over the
// cadences of the one before, where its own are off.
func TestANewOwnerTakesTheCadencesOver(t *testing.T) {
	t.Parallel()
	b := setup(t)
	first, heir, third := b.maintained("web-1", "/srv/repo", "0 1 * * *"), b.maintained("web-2", "/srv/repo", "0 2 * * *"), b.maintained("web-3", "/srv/repo", "0 3 * * *")
	b.linked(first, heir, third)
	b.exec("update host_repositories set bound_at = bound_at + interval '1 hour' where host_id <> ?", first.ID)
	plan := must[*models.Maintenance](t)(models.FindMaintenance(b.ctx, b.db, heir.ID))
	plan.ForgetEnabled, plan.PruneEnabled = false, false
	if err := models.SaveMaintenance(b.ctx, b.db, plan); err != nil {
		t.Fatal(err)
	}
	b.exec("update maintenance_states set effective_at = now() - interval '10 years' where host_id = ?", heir.ID)
	has := func(h *models.Host, prune, check string) {
		t.Helper()
		m := must[*models.Maintenance](t)(models.FindMaintenance(b.ctx, b.db, h.ID))
		if got := fmt.Sprint(m.PruneCron, " ", m.PruneEnabled); got != prune+" true" {
			t.Errorf("%s prunes at %s", h.Name, got)
		}
		if got := fmt.Sprint(m.CheckCron, " ", m.CheckEnabled, " ", m.CheckReadDataSubset); got != check+" true 1/3" {
			t.Errorf("%s checks at %s", h.Name, got)
		}
	}
	if err := b.servers[0].OwnRepository(b.ctx, heir.ID); err != nil {
		t.Fatal(err)
	}
	has(heir, "0 1 * * *", "0 2 * * *") // prune was off, check is its own
	if m := must[*models.Maintenance](t)(models.FindMaintenance(b.ctx, b.db, heir.ID)); m.ForgetEnabled {
		t.Error("forget is each host's own")
	}
	b.maintain(0, time.Now())
	if n := len(b.due(heir, models.KindPrune)); n != 0 {
		t.Errorf("%d prunes of the time before it was taken over", n)
	}
	// Off here, on there: also when the owner is gone.
	plan = must[*models.Maintenance](t)(models.FindMaintenance(b.ctx, b.db, third.ID))
	plan.PruneEnabled, plan.CheckEnabled, plan.CheckReadDataSubset = false, false, ""
	if err := models.SaveMaintenance(b.ctx, b.db, plan); err != nil {
		t.Fatal(err)
	}
	if err := models.UnbindRepository(b.ctx, b.db, first.ID); err != nil {
		t.Fatal(err)
	}
	if err := models.UnbindRepository(b.ctx, b.db, heir.ID); err != nil {
		t.Fatal(err)
	}
	b.maintain(0, time.Now())
	has(third, "0 1 * * *", "0 2 * * *")
}

// What was asked for one repository isn't done in another.
func TestWaitingMaintenanceDoesNotFollowToAnotherRepository(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.maintained("web-1", "/srv/other", "0 0 1 1 *")
	h := b.maintained("web-2", "/srv/repo", "0 0 1 1 *")
	j := must[*models.Job](t)(b.servers[0].RunMaintenance(b.ctx, h.ID, models.KindPrune, models.System))
	must[*models.HostRepository](t)(b.servers[0].BindRepository(b.ctx, h.ID, models.RepositoryFields{URL: "/srv/other", Password: "correct horse"}))
	if now := b.job(j.ID); now.State != models.JobCancelled || now.Error == "" {
		t.Errorf("the prune is %s: %s", now.State, now.Error)
	}
}

// What became of maintenance is told of the data that is there, also where a host
// was without a repository in between.
func TestTheStoryOfMaintenanceGoesWithItsRepository(t *testing.T) {
	t.Parallel()
	c := setup(t).checked("web-1", "/srv/repo")
	c.run(models.KindCheck, false, protocol.Finished{Outcome: protocol.OutcomeSucceeded})
	c.run(models.KindPrune, false, protocol.Finished{Outcome: protocol.OutcomeFailed, Error: "locked", ErrorCode: protocol.ErrLocked})
	c.exec("update maintenance_states set stale_at = now() where host_id = ?", c.host.ID)
	if err := models.UnbindRepository(c.ctx, c.db, c.host.ID); err != nil {
		t.Fatal(err)
	}
	must[*models.HostRepository](t)(c.servers[0].BindRepository(c.ctx, c.host.ID, models.RepositoryFields{URL: "/srv/other", Password: "correct horse"}))
	for _, kind := range models.MaintenanceKinds {
		if s := c.state(c.host, kind); s.Failures != 0 || s.FailedAt != nil || s.LastJobID != nil || s.LastState != "" || s.LastCode != "" || s.LastError != "" ||
			s.LastEndedAt != nil || s.GoodAt != nil || s.StaleAt != nil {
			t.Errorf("%s of the new repository: %+v", kind, s)
		}
	}
}

// Neither side starves: a prune waits for the backups that run, and the backups
// asked for after it wait for it; a backup asked for before the second of two
// exclusive jobs isn't held back by it.
func TestNeitherBackupsNorExclusiveWorkStarve(t *testing.T) {
	t.Parallel()
	b := setup(t)
	hosts := make([]*models.Host, 5)
	links := make([]*jobs.Link, 5)
	running := make([]models.JobID, 5)
	for n := range hosts {
		hosts[n] = b.host(fmt.Sprint("web-", n), []string{"/srv/repo", "local:/srv/repo/"}[n%2])
		links[n], _ = b.hello(n%2, hosts[n])
		running[n] = b.run(b.group(hosts[n], "www")).ID
		b.wantCommands(n%2, links[n], running[n])
	}
	prune := must[*models.Job](t)(b.servers[0].RunMaintenance(b.ctx, hosts[0].ID, models.KindPrune, models.System)).ID
	next := make([]models.JobID, 5)
	for n, h := range hosts {
		next[n] = b.run(b.group(h, "db")).ID
	}
	for n := range hosts {
		b.wantCommands(n%2, links[n])
		b.finish(n%2, links[n], running[n])
		if n < 4 {
			b.wantCommands(0, links[0]) // another's backup still runs
		}
	}
	forget := b.exclusive(hosts[1], models.KindForget)
	for n := 1; n < 5; n++ {
		b.wantCommands(n%2, links[n])
	}
	b.wantCommands(0, links[0], prune)
	b.finish(0, links[0], prune)
	// The forget was asked for after the backups: its host's goes first.
	b.wantCommands(1, links[1], next[1])
	b.finish(1, links[1], next[1])
	b.wantCommands(1, links[1])
	for _, n := range []int{0, 2, 3, 4} {
		b.wantCommands(n%2, links[n], next[n])
		b.finish(n%2, links[n], next[n])
	}
	b.wantCommands(1, links[1], forget)
	b.finish(1, links[1], forget)
	// A waiting prune of a host that goes away holds nobody back.
	must[*models.Job](t)(b.servers[0].RunMaintenance(b.ctx, hosts[0].ID, models.KindPrune, models.System))
	last := b.run(b.group(hosts[1], "etc")).ID
	b.wantCommands(1, links[1])
	b.exec("update hosts set last_seen_at = now() - interval '1 hour' where id = ?", hosts[0].ID)
	b.wantCommands(1, links[1], last)
}
