package models_test

import (
	"testing"
	"time"

	"resticfleet/models"
	"resticfleet/models/cronspec"
)

// effective makes a daily schedule at 02:00 UTC old enough to have missed
// something.
func (b *bundle) effective(s *models.Schedule, since time.Time) {
	b.t.Helper()
	b.exec("update schedules set effective_at = ? where id = ?", since, s.ID)
	b.exec("update host_repositories set bound_at = ? where host_id = ?", since, s.HostID)
	b.exec("update hosts set timezone_since = ? where id = ?", since, s.HostID)
}

func (b *bundle) missed(h *models.Host, now time.Time) []time.Time {
	b.t.Helper()
	runs := must[[]models.MissedRun](b.t)(models.MissedRuns(b.ctx, b.db, []models.HostID{h.ID}, 0, now))
	times := []time.Time{}
	for _, r := range runs {
		times = append(times, r.At)
	}
	return times
}

func TestMissedRuns(t *testing.T) {
	t.Parallel()
	b := setup(t)
	h := b.host("laptop")
	b.bind(h, "/srv/repo")
	s := b.schedule(h, b.group(h, "www"))
	b.effective(s, at(0, 0))

	for _, c := range []struct {
		name string
		now  time.Time
		want int
	}{
		{"not due yet", at(1, 59), 0},
		{"its agent has two minutes", at(2, 1), 0},
		{"missed", at(2, 2), 1},
		{"three days stand as one", at(2, 2).AddDate(0, 0, 3), 1},
	} {
		got := b.missed(h, c.now)
		if len(got) != c.want {
			t.Errorf("%s: %v, want %d", c.name, got, c.want)
		}
		if c.want == 1 && !got[0].Equal(time.Date(c.now.Year(), c.now.Month(), c.now.Day(), 2, 0, 0, 0, time.UTC)) {
			t.Errorf("%s: caught up for %v, want the newest", c.name, got[0])
		}
	}
}

func TestCatchUpHappensOnceAndSettlesWhatWasBefore(t *testing.T) {
	t.Parallel()
	b := setup(t)
	h := b.host("laptop")
	b.bind(h, "/srv/repo")
	s := b.schedule(h, b.group(h, "www"))
	b.effective(s, at(0, 0).AddDate(0, 0, -7))
	now := at(9, 0)
	due := b.missed(h, now)
	if len(due) != 1 {
		t.Fatalf("missed %v, want one", due)
	}
	made := must[[]models.JobID](t)(models.RunSchedule(b.ctx, b.db, models.ScheduledRun{Schedule: s, At: due[0], CatchUp: true}))
	if j := b.job(made[0]); !j.CatchUp || !j.ScheduledAt.Equal(at(2, 0)) {
		t.Errorf("catch_up %v for %v", j.CatchUp, j.ScheduledAt)
	}
	if again := b.missed(h, now); len(again) != 0 {
		t.Errorf("caught up again for %v", again)
	}
}

// Nothing is caught up that was due before the schedule was made, changed or
// enabled, before the zone changed, or before the repository was bound.
func TestNothingIsMissedBeforeItCouldRun(t *testing.T) {
	t.Parallel()
	for name, since := range map[string]string{
		"change of the schedule": "update schedules set effective_at = ?",
		"change of the zone":     "update hosts set timezone_since = ?",
		"repository":             "update host_repositories set bound_at = ?",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := setup(t)
			h := b.host("laptop")
			b.bind(h, "/srv/repo")
			s := b.schedule(h, b.group(h, "www"))
			b.effective(s, at(0, 0))
			b.exec(since, at(2, 1))
			if got := b.missed(h, at(9, 0)); len(got) != 0 {
				t.Errorf("caught up for %v", got)
			}
		})
	}
}

// A slot is missed two minutes after its jitter, not before.
func TestJitteredSlotsAreMissedLater(t *testing.T) {
	t.Parallel()
	b := setup(t)
	h := b.host("laptop")
	b.bind(h, "/srv/repo")
	s := b.schedule(h, b.group(h, "www"))
	b.effective(s, at(0, 0))
	const window = time.Hour
	slot := at(2, 0).Add(cronspec.Jitter(s.ID.String(), window))
	for _, c := range []struct {
		now  time.Time
		want int
	}{{slot.Add(2*time.Minute - time.Second), 0}, {slot.Add(2 * time.Minute), 1}} {
		runs := must[[]models.MissedRun](t)(models.MissedRuns(b.ctx, b.db, []models.HostID{h.ID}, window, c.now))
		if len(runs) != c.want || c.want == 1 && !runs[0].At.Equal(at(2, 0)) {
			t.Errorf("at %s: %v, want %d for the nominal time", c.now, runs, c.want)
		}
	}
}

func TestEnablingOrChangingOwesNothing(t *testing.T) {
	t.Parallel()
	for name, change := range map[string]func(*models.ScheduleFields){
		"enabled again": func(*models.ScheduleFields) {},
		"changed":       func(f *models.ScheduleFields) { f.Cron = "1 2 * * *" },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := setup(t)
			h := b.host("laptop")
			b.bind(h, "/srv/repo")
			g := b.group(h, "www")
			s := b.schedule(h, g)
			if got := b.missed(h, time.Now()); len(got) != 0 {
				t.Errorf("new, and caught up for %v", got)
			}
			b.effective(s, time.Now().AddDate(0, 0, -7))
			if got := b.missed(h, time.Now()); len(got) != 1 {
				t.Errorf("missed %v, want one", got)
			}
			f := models.ScheduleFields{Cron: s.Cron, Enabled: false, GroupIDs: []string{g.ID.String()}}
			must[*models.Schedule](t)(models.UpdateSchedule(b.ctx, b.db, h.ID, s.ID, f))
			f.Enabled = true
			change(&f)
			must[*models.Schedule](t)(models.UpdateSchedule(b.ctx, b.db, h.ID, s.ID, f))
			if got := b.missed(h, time.Now()); len(got) != 0 {
				t.Errorf("caught up for %v", got)
			}
		})
	}
}

func TestDisabledSchedulesMissNothing(t *testing.T) {
	t.Parallel()
	b := setup(t)
	h := b.host("laptop")
	b.bind(h, "/srv/repo")
	s := b.schedule(h, b.group(h, "www"))
	b.effective(s, at(0, 0))
	b.exec("update schedules set enabled = false where id = ?", s.ID)
	if got := b.missed(h, at(9, 0)); len(got) != 0 {
		t.Errorf("caught up for %v", got)
	}
}

func TestAgentWatchMissesNoCommit(t *testing.T) {
	t.Parallel()
	b := setup(t)
	h := b.host("web-01")
	var w models.AgentWatch
	if first := must[[]models.HostID](t)(w.Look(b.ctx, b.db)); len(first) != 0 {
		t.Fatalf("the first look returns %v", first)
	}
	// A transaction that began before a look and commits after it.
	tx, err := b.db.BeginTx(b.ctx, nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := tx.ExecContext(b.ctx, "update hosts set schedule_version = schedule_version + 1 where id = ?", h.ID); err != nil {
		t.Fatal(err)
	}
	must[[]models.HostID](t)(w.Look(b.ctx, b.db))
	other := b.host("web-02")
	b.schedule(other, b.group(other, "mail")) // a younger transaction that commits first
	must[[]models.HostID](t)(w.Look(b.ctx, b.db))
	if err := tx.Commit(); err != nil {
		t.Fatal(err)
	}
	found := false
	for _, id := range must[[]models.HostID](t)(w.Look(b.ctx, b.db)) {
		found = found || id == h.ID
	}
	if !found {
		t.Error("a commit behind the look was missed")
	}
}
