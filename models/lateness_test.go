package models_test

import (
	"testing"
	"time"

	"resticfleet/agent/protocol"
	"resticfleet/models"
	"resticfleet/models/cronspec"
)

// hello says hello from a zone.
func (b *bundle) hello(h *models.Host, generation int64, zone string) {
	b.t.Helper()
	err := models.Tx(b.ctx, b.db, func(tx models.IDB) error {
		_, err := models.SaveHello(b.ctx, tx, h.ID, generation, protocol.Hello{Timezone: zone}, time.Now())
		return err
	})
	if err != nil {
		b.t.Fatal(err)
	}
}

func (b *bundle) updateSchedule(s *models.Schedule, cron string, enabled bool, groups ...*models.Group) {
	b.t.Helper()
	f := models.ScheduleFields{Cron: cron, Enabled: enabled}
	for _, g := range groups {
		f.GroupIDs = append(f.GroupIDs, g.ID.String())
	}
	must[*models.Schedule](b.t)(models.UpdateSchedule(b.ctx, b.db, s.HostID, s.ID, f))
}

// nextDue is what the database should hold: an hour after the next due time.
func nextDue(t *testing.T, cron, zone string, after time.Time) time.Time {
	t.Helper()
	spec := must[cronspec.Spec](t)(cronspec.Parse(cron))
	return spec.Next(after, must[*time.Location](t)(cronspec.LoadZone(zone)))
}

// Whatever changes when a group is due changes, in the same commit, when it
// becomes late.
func TestWhatMovesLateness(t *testing.T) {
	t.Parallel()
	b := setup(t)
	h := b.host("web-1")
	b.bind(h, "/srv/repo")
	generation := b.link(h)
	b.hello(h, generation, "UTC")
	g, other := b.group(h, "www"), b.group(h, "etc")
	want := func(what string, g *models.Group, due time.Time) {
		t.Helper()
		now := b.findGroup(g)
		switch {
		case due.IsZero() && (now.DueAt != nil || now.LateAt != nil || now.DueScheduleID != nil):
			t.Errorf("%s: due %v, late %v, want neither", what, now.DueAt, now.LateAt)
		case due.IsZero():
		case now.DueAt == nil || !now.DueAt.Equal(due) || now.LateAt == nil || !now.LateAt.Equal(due.Add(time.Hour)):
			t.Errorf("%s: due %v, late %v, want %v and an hour more", what, now.DueAt, now.LateAt, due)
		}
	}
	none := time.Time{}
	today := time.Now()

	want("no schedule", g, none)
	s := b.schedule(h, g)
	want("scheduled", g, nextDue(t, "0 2 * * *", "UTC", today))
	want("another group", other, none)
	b.updateSchedule(s, "0 14 * * *", true, g)
	want("another expression", g, nextDue(t, "0 14 * * *", "UTC", today))
	b.hello(h, generation, "Asia/Kathmandu")
	want("another zone", g, nextDue(t, "0 14 * * *", "Asia/Kathmandu", today))
	b.updateSchedule(s, "CRON_TZ=UTC 0 14 * * *", true, g)
	want("an expression with its own zone", g, nextDue(t, "0 14 * * *", "UTC", today))
	b.updateSchedule(s, "0 14 * * *", true, other)
	want("it left the schedule", g, none)
	want("it joined the schedule", other, nextDue(t, "0 14 * * *", "Asia/Kathmandu", today))
	b.updateSchedule(s, "0 14 * * *", true, g, other)
	hourly := must[*models.Schedule](t)(models.AddSchedule(b.ctx, b.db, h.ID, models.ScheduleFields{Cron: "@every 1h", Enabled: true, GroupIDs: []string{g.ID.String()}}))
	want("the first of two schedules", g, nextDue(t, "@every 1h", "UTC", today))
	b.updateSchedule(hourly, "@every 1h", false, g)
	want("one of them disabled", g, nextDue(t, "0 14 * * *", "Asia/Kathmandu", today))
	b.updateSchedule(hourly, "@every 1h", true, g)
	must[[]models.JobID](t)(models.DeleteSchedule(b.ctx, b.db, h.ID, hourly.ID))
	want("one of them deleted", g, nextDue(t, "0 14 * * *", "Asia/Kathmandu", today))
	must[[]models.JobID](t)(models.LeaveSchedule(b.ctx, b.db, h.ID, other.ID, s.ID))
	want("another group left", other, none)
	want("another group left", g, nextDue(t, "0 14 * * *", "Asia/Kathmandu", today))
	b.updateSchedule(s, "0 14 * * *", false, g)
	want("all disabled", g, none)

	// By a clock that is ahead a run may begin before it is due. It still is
	// the answer to that due time.
	b.updateSchedule(s, "0 14 * * *", true, g)
	due := *b.findGroup(g).DueAt
	full := must[*models.Schedule](t)(models.FindSchedule(b.ctx, b.db, h.ID, s.ID))
	err := models.Tx(b.ctx, b.db, func(tx models.IDB) error {
		_, err := models.RunSchedule(b.ctx, tx, models.ScheduledRun{Schedule: full, At: due})
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	b.finish(b.claim(h, generation), succeeded("a", 1, 1))
	want("a good snapshot", g, nextDue(t, "0 14 * * *", "Asia/Kathmandu", due))
}

// An edit is no snapshot.
func TestALateGroupStaysLateUntilAGoodSnapshot(t *testing.T) {
	t.Parallel()
	b := setup(t)
	h := b.host("web-1")
	b.bind(h, "/srv/repo")
	generation := b.link(h)
	g := b.overdue(h, "www")
	s := must[[]*models.Schedule](t)(listSchedules(b, h))[0]
	b.updateSchedule(s, "0 3 * * *", true, g)
	b.hello(h, generation, "Asia/Tokyo")
	if now := b.health(g); now.Health != models.HealthLate || !now.DueAt.Equal(*g.DueAt) {
		t.Errorf("after an edit of its schedule and of its zone it is %s, due %v, was due %v", now.Health, now.DueAt, g.DueAt)
	}
	b.run(g)
	b.finish(b.claim(h, generation), succeeded("a", 1000, 10_000_000))
	if now := b.health(g); now.Health != models.HealthGood || !now.LateAt.After(time.Now()) {
		t.Errorf("after a good snapshot it is %s, late at %v", now.Health, now.LateAt)
	}
	b.exec("update source_groups set last_state = ''")
	b.updateSchedule(s, "0 3 * * *", false, g)
	if now := b.health(g); now.LateAt != nil {
		t.Errorf("without a schedule it is late at %v", now.LateAt)
	}
}

func listSchedules(b *bundle, h *models.Host) ([]*models.Schedule, error) {
	list, _, err := models.ListSchedules(b.ctx, b.db, h.ID, models.Page{})
	return list, err
}

// Rows that a migration or an older server left as they were are repaired, and
// the window of the jitter counts.
func TestLatenessIsRepaired(t *testing.T) {
	t.Parallel()
	b := setup(t)
	var groups []*models.Group
	for _, name := range []string{"web-1", "web-2", "web-3"} {
		h := b.host(name)
		g := b.group(h, "www")
		b.schedule(h, g)
		groups = append(groups, b.findGroup(g))
	}
	b.exec("update source_groups set due_at = null, late_at = null, due_schedule_id = null")
	const window = 6 * time.Hour
	b.keepLateness(window)
	for _, g := range groups {
		now := b.findGroup(g)
		if now.LateAt == nil {
			t.Fatal("not repaired")
		}
		late := now.DueAt.Add(time.Hour + cronspec.Jitter(now.DueScheduleID.String(), window))
		if !now.DueAt.Equal(*g.DueAt) || !now.LateAt.Equal(late) {
			t.Errorf("repaired to due %v and late %v, want %v and %v", now.DueAt, now.LateAt, g.DueAt, late)
		}
	}
	// From here on changes know the window too.
	h := b.host("web-4")
	g := b.group(h, "www")
	s := b.schedule(h, g)
	if now := b.findGroup(g); !now.LateAt.Equal(now.DueAt.Add(time.Hour + cronspec.Jitter(s.ID.String(), window))) {
		t.Errorf("a new schedule forgets the jitter: due %v, late %v", now.DueAt, now.LateAt)
	}
	// A snapshot that an older server kept answers what was due before it.
	b.exec("update source_groups set good_at = now() + interval '30 days' where id = ?", g.ID)
	b.keepLateness(0)
	if now := b.findGroup(g); now.DueAt.Before(time.Now().Add(29 * 24 * time.Hour)) {
		t.Errorf("due %v in spite of a later good snapshot", now.DueAt)
	}
}
