package jobs_test

import (
	"cmp"
	"slices"
	"strings"
	"testing"
	"time"

	"resticfleet/agent/protocol"
	"resticfleet/jobs"
	"resticfleet/models"
)

// checked is a host whose checks a test lets end as it likes.
type checked struct {
	*bundle
	host  *models.Host
	link  *jobs.Link
	years int
}

func (b *bundle) checked(name, url string) *checked {
	h := b.maintained(name, url, "0 0 1 1 *")
	link, _ := b.hello(0, h)
	b.exec("update host_repo_maintenance set forget_enabled = false, prune_enabled = false where host_id = ?", h.ID)
	b.exec("update hosts set timezone_since = now() - interval '10 years' where id = ?", h.ID)
	return &checked{bundle: b, host: h, link: link}
}

// run lets a prune or check end, one that a person asks for or one that is due,
// and returns its job as it was made.
func (c *checked) run(kind models.JobKind, due bool, f protocol.Finished) *models.Job {
	c.t.Helper()
	var j *models.Job
	if due {
		c.years++
		c.maintain(0, time.Now().AddDate(c.years, 0, 0))
		all := c.due(c.host, kind)
		j = all[len(all)-1]
	} else {
		j = must[*models.Job](c.t)(c.servers[0].RunMaintenance(c.ctx, c.host.ID, kind, models.System))
	}
	c.wantCommands(0, c.link, j.ID)
	c.ends(0, c.link, j.ID, f)
	return j
}

func (c *checked) reads(subset string) {
	c.t.Helper()
	m := must[*models.Maintenance](c.t)(models.FindMaintenance(c.ctx, c.db, c.host.ID))
	m.CheckReadDataSubset = subset
	if err := models.SaveMaintenance(c.ctx, c.db, m); err != nil {
		c.t.Fatal(err)
	}
}

func (c *checked) damage() []models.Damage {
	c.t.Helper()
	return must[models.CheckRound](c.t)(models.FindCheckRound(c.ctx, c.db, c.host.ID)).Damage
}

var damagedEnd = protocol.Finished{Outcome: protocol.OutcomeFailed, ErrorCode: protocol.ErrDamaged, Error: "damaged", Stats: map[string]any{"num_errors": 3}}

// Damage is there from the job that says so until a check has found the same data
// good, whatever happens in between. The damaged part is read first, every other
// time where nobody asks, and is not the round's.
func TestDamageStaysUntilTheSameDataIsFoundGood(t *testing.T) {
	t.Parallel()
	good, locked := protocol.Finished{Outcome: protocol.OutcomeSucceeded}, protocol.Finished{Outcome: protocol.OutcomeFailed, ErrorCode: protocol.ErrLocked, Error: "locked"}
	ends := map[string]protocol.Finished{"good": good, "damaged": damagedEnd, "locked": locked, "cancelled": {Outcome: protocol.OutcomeCancelled}}
	for name, steps := range map[string][]string{
		// "asked" or "due", what it reads, how it ends, and what is damaged then.
		"another part hides nothing":     {"asked 1/3 damaged: 1/3", "due 1/3 damaged: 1/3", "due 2/3 good: 1/3", "due 1/3 damaged: 1/3", "due 3/3 good: 1/3", "due 1/3 good:", "due 2/3 good:"},
		"who mended it sees it at once":  {"due 1/3 damaged: 1/3", "asked 1/3 damaged: 1/3", "asked 1/3 good:", "asked 2/3 good:", "asked 3/3 good:"},
		"what saw nothing hides nothing": {"asked 1/3 damaged: 1/3", "asked 1/3 locked: 1/3", "asked 1/3 cancelled: 1/3", "asked 1/3 good:"},
		"two parts, one after the other": {"asked 1/3 damaged: 1/3", "asked 1/3 damaged: 1/3", "due 2/3 damaged: 1/3 2/3", "asked 1/3 good: 2/3", "asked 2/3 good:", "asked 3/3 good:"},
		"the structure":                  {"reads", "asked - damaged: -", "asked - locked: -", "reads 1/3", "asked 1/3 good:"},
		"found by a prune":               {"prune - damaged: -", "asked 1/3 good:"},
		"other parts begin anew":         {"asked 1/3 damaged: 1/3", "reads 1/2", "asked 1/3 locked: 1/3", "asked 1/3 good:", "asked 1/2 good:", "asked 2/2 good:"},
		"in between other parts":         {"asked 1/3 damaged: 1/3", "reads 1/2", "due 1/3 damaged: 1/3", "due 1/2 good: 1/3", "due 1/3 good:", "due 2/2 good:"},
		"no part any more":               {"asked 1/3 damaged: 1/3", "reads", "asked 1/3 good:", "asked - good:"},
		"chosen at random":               {"reads 10%", "asked 10% damaged: 10%", "asked 10% good: 10%", "reads 500M", "asked 500M good: 10%", "reads 100%", "asked 100% locked: 10%", "asked 100% good:"},
		"everything in one":              {"reads 500M", "asked 500M damaged: 500M", "reads 1/1", "asked 1/1 good:"},
		"a whole new round":              {"reads 10%", "asked 10% damaged: 10%", "reads 1/3", "asked 1/3 good: 10%", "asked 2/3 good: 10%", "asked 3/3 good:"},
		"a round that found more":        {"reads 10%", "asked 10% damaged: 10%", "reads 1/2", "asked 1/2 good: 10%", "asked 2/2 damaged: 10% 2/2", "asked 2/2 good: 10%", "asked 1/2 good: 10%", "asked 2/2 good:"},
		"a round that had begun":         {"asked 1/3 good:", "asked 2/3 good:", "reads 10%", "asked 10% damaged: 10%", "reads 1/3", "asked 3/3 good: 10%", "asked 1/3 good: 10%", "asked 2/3 good:"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := setup(t).checked("web-1", "/srv/repo")
			for _, step := range steps {
				if subset, ok := strings.CutPrefix(step, "reads"); ok {
					c.reads(strings.TrimSpace(subset))
					continue
				}
				does, left, _ := strings.Cut(step, ":")
				words := strings.Fields(does)
				kind := models.KindCheck
				if words[0] == "prune" {
					kind = models.KindPrune
				}
				j := c.run(kind, words[0] == "due", ends[words[2]])
				if subset := strings.TrimPrefix(words[1], "-"); j.Spec.ReadDataSubset != subset {
					t.Fatalf("%s: it reads %q", step, j.Spec.ReadDataSubset)
				}
				said := []string{}
				for _, d := range c.damage() {
					said = append(said, cmp.Or(d.Subset, "-"))
					if d.Errors != 3 || d.FoundAt.After(d.SeenAt) || words[2] == "damaged" && d.Subset == j.Spec.ReadDataSubset && d.JobID != j.ID {
						t.Errorf("%s: %+v", step, d)
					}
				}
				slices.Sort(said)
				if want := strings.Fields(left); !slices.Equal(said, want) {
					t.Fatalf("%s: damaged is %q", step, said)
				}
			}
		})
	}
}

// A check that was made before the damage was found, and tells its end after it,
// clears nothing.
func TestALateSuccessHidesNoDamage(t *testing.T) {
	t.Parallel()
	b := setup(t)
	c := b.checked("web-1", "/srv/repo")
	late := must[*models.Job](t)(b.servers[0].RunMaintenance(b.ctx, c.host.ID, models.KindCheck, models.System))
	b.wantCommands(0, c.link, late.ID)
	b.exec("update jobs set state = 'lost', finished_at = now() where id = ?", late.ID)
	c.run(models.KindCheck, false, damagedEnd)
	b.ends(0, c.link, late.ID, protocol.Finished{Outcome: protocol.OutcomeSucceeded})
	if d := c.damage(); b.job(late.ID).State != models.JobSucceeded || len(d) != 1 {
		t.Errorf("%+v", d)
	}
}

// Damage is the repository's: told of it by whatever address, it is known to all
// who share it, and stays there when a host is bound elsewhere.
func TestDamageIsTheRepositorys(t *testing.T) {
	t.Parallel()
	b := setup(t)
	id := strings.Repeat("ab", 32)
	one, two := b.checked("web-1", "/srv/repo"), b.checked("web-2", "rest:http://backup/repo")
	one.run(models.KindCheck, false, protocol.Finished{Outcome: protocol.OutcomeSucceeded, RepositoryID: id})
	two.run(models.KindCheck, false, damagedEnd)
	if d := one.damage(); len(d) > 0 {
		t.Errorf("not known to be one: %+v", d)
	}
	two.run(models.KindCheck, false, protocol.Finished{Outcome: protocol.OutcomeFailed, ErrorCode: protocol.ErrLocked, Error: "locked", RepositoryID: id})
	if d := one.damage(); len(d) != 1 || d[0].Subset != "1/3" {
		t.Errorf("known to be one: %+v", d)
	}
	must[*models.HostRepository](t)(b.servers[0].BindRepository(b.ctx, two.host.ID, models.RepositoryFields{URL: "/srv/other", Password: "correct horse"}))
	if d := two.damage(); len(d) > 0 {
		t.Errorf("another repository: %+v", d)
	}
	one.run(models.KindCheck, false, protocol.Finished{Outcome: protocol.OutcomeSucceeded})
	if d := one.damage(); len(d) > 0 {
		t.Errorf("mended: %+v", d)
	}
}

// What is due again and again while its host is there, and never succeeds, is
// stale after three of its periods, and not before three days.
func TestWhatNeverSucceedsIsStale(t *testing.T) {
	t.Parallel()
	b := setup(t)
	const day = 24 * time.Hour
	for _, c := range []struct {
		cron  string
		after time.Duration // its first due time that had no success
	}{
		{"0 * * * *", 3 * day}, {"30 3 * * *", 2*day + time.Hour}, {"30 4 * * 0", 14*day + time.Hour}, {"@every 2s", 3*day + time.Hour - 2*time.Second},
	} {
		h := b.maintained("web "+c.cron, "/srv/"+c.cron, c.cron)
		b.exec("update hosts set timezone = 'UTC' where id = ?", h.ID)
		b.linked(h)
		now := time.Now().Add(-20 * day)
		b.maintain(0, now)
		for _, kind := range models.MaintenanceKinds {
			s, at := b.state(h, kind), *b.due(h, kind)[0].ScheduledAt
			if s.StaleAt == nil || s.StaleAt.Sub(at) != c.after || s.Stale(at.Add(c.after-time.Second)) || !s.Stale(at.Add(c.after)) {
				t.Errorf("%s by %s: due %s, stale %v", kind, c.cron, at, s.StaleAt)
			}
		}
		first := b.state(h, models.KindPrune).StaleAt
		b.maintain(1, now.Add(8*day)) // due again, still busy
		if s := b.state(h, models.KindPrune); !s.StaleAt.Equal(*first) {
			t.Errorf("%s: the next due time moves it from %s to %s", c.cron, first, s.StaleAt)
		}
	}
}

// Staleness begins anew with a success, a changed cadence, another repository
// and a host that was away; where there is nothing to succeed it doesn't begin.
func TestStalenessBeginsAnew(t *testing.T) {
	t.Parallel()
	b := setup(t)
	c := b.checked("web-1", "/srv/repo")
	stale := func(what string, want bool) {
		t.Helper()
		if s := b.state(c.host, models.KindCheck); (s.StaleAt != nil) != want {
			t.Errorf("%s: stale at %v", what, s.StaleAt)
		}
	}
	failed := protocol.Finished{Outcome: protocol.OutcomeFailed, ErrorCode: protocol.ErrLocked, Error: "locked"}
	c.run(models.KindCheck, true, failed)
	stale("failed", true)
	c.run(models.KindCheck, false, protocol.Finished{Outcome: protocol.OutcomeCancelled})
	stale("cancelled", true)
	c.run(models.KindCheck, true, protocol.Finished{Outcome: protocol.OutcomeSucceeded})
	stale("succeeded", false)
	c.run(models.KindCheck, true, failed)
	c.reads("1/4")
	stale("changed", false)
	c.run(models.KindCheck, true, failed)
	must[*models.HostRepository](t)(b.servers[0].BindRepository(b.ctx, c.host.ID, models.RepositoryFields{URL: "/srv/other", Password: "correct horse"}))
	stale("another repository", false)
	b.exec("update host_repositories set bound_at = now() - interval '10 years'")
	b.exec("update jobs set state = 'cancelled', finished_at = now() where state = 'queued'") // the init
	c.run(models.KindCheck, true, failed)
	stale("failed there", true)
	b.exec("update hosts set last_seen_at = now() - interval '23 hours'")
	b.maintain(0, time.Now())
	stale("away for less than a day", true)
	b.exec("update hosts set last_seen_at = now() - interval '25 hours'")
	b.maintain(0, time.Now())
	stale("away", false)
	b.exec("update maintenance_states set failures = 5, failed_at = now()")
	b.maintain(0, time.Now().AddDate(c.years+1, 0, 0)) // a row that needs no host
	stale("a skipped row of one that is away", false)
	b.linked(c.host)
	b.maintain(0, time.Now().AddDate(c.years+2, 0, 0))
	stale("a skipped row", true)
	if b.state(c.host, models.KindCheck).Stale(time.Now().AddDate(100, 0, 0)) {
		t.Error("what the breaker says is said twice")
	}
	other := b.checked("web-2", "/srv/other")
	b.exec("update host_repo_maintenance set forget_enabled = true")
	b.exec("update source_groups set retention = '{}'")
	b.maintain(0, time.Now().AddDate(c.years+3, 0, 0))
	if s := b.state(other.host, models.KindCheck); s.DueAt == nil || s.StaleAt != nil {
		t.Errorf("another host's check: %+v", s)
	}
	if s := b.state(c.host, models.KindForget); s.DueAt == nil || s.StaleAt != nil {
		t.Errorf("a forget with nothing to do: %+v", s)
	}
}
