package models_test

import (
	"strings"
	"testing"
	"time"

	"resticfleet/agent/protocol"
	"resticfleet/models"
)

// shown is what pages say of a group without looking at a job.
type shown struct {
	health              models.Health
	fresh               bool // the newest good snapshot is the job's
	late                bool // the due time before is still open
	good, warning, fail int  // the strip
}

func (b *bundle) health(g *models.Group) *models.Group {
	b.t.Helper()
	h := must[*models.HostState](b.t)(models.FindHostState(b.ctx, b.db, g.HostID))
	for _, one := range h.Groups {
		if one.ID == g.ID {
			return one
		}
	}
	b.t.Fatal("no such group")
	return nil
}

func (b *bundle) start(j *models.Job) {
	b.t.Helper()
	err := models.Tx(b.ctx, b.db, func(tx models.IDB) error {
		_, err := models.JobStarted(b.ctx, tx, j.HostID, protocol.Started{JobID: j.ID.String()})
		return err
	})
	if err != nil {
		b.t.Fatal(err)
	}
}

// overdue makes a group with a good snapshot of three days ago whose nightly
// schedule has been due since.
func (b *bundle) overdue(h *models.Host, name string) *models.Group {
	b.t.Helper()
	g := b.group(h, name)
	b.schedule(h, g)
	b.exec("update schedules set effective_at = now() - interval '30 days' where host_id = ?", h.ID)
	b.exec("update hosts set timezone_since = now() - interval '30 days'")
	b.exec(`update source_groups set good_at = now() - interval '3 days', good_snapshot_id = ?, good_bytes = 10000000,
		usual_files = 1000, usual_bytes = 10000000 where id = ?`, snapshot("0"), g.ID)
	b.keepLateness(0)
	if got := b.health(g); got.Health != models.HealthLate {
		b.t.Fatalf("an overdue group is %s: due %v", got.Health, got.DueAt)
	}
	return b.findGroup(g)
}

func (b *bundle) keepLateness(jitter time.Duration) {
	b.t.Helper()
	if err := models.KeepLateness(b.ctx, b.db, jitter); err != nil {
		b.t.Fatal(err)
	}
}

// Every state a backup can be in, and what each of them moves: a group is as
// fresh as its newest good snapshot and nothing else, and late until there is
// one.
func TestWhatAJobMoves(t *testing.T) {
	t.Parallel()
	b := setup(t)
	h := b.host("web-1")
	b.bind(h, "/srv/repo")
	generation := b.link(h)
	ended := func(f protocol.Finished) func(*models.Group) *models.Job {
		return func(g *models.Group) *models.Job {
			b.run(g)
			return b.finish(b.claim(h, generation), f)
		}
	}
	sent := func(g *models.Group) *models.Job {
		b.run(g)
		j := b.claim(h, generation)
		b.accept(j)
		return j
	}
	silent := func(state models.JobState) func(*models.Group) *models.Job {
		return func(g *models.Group) *models.Job {
			b.run(g)
			j := b.claim(h, generation)
			if state == models.JobLost {
				b.accept(j)
			}
			b.exec("update hearing set heard = heard + interval '30 hours'")
			must[[]*models.Job](t)(models.EndSilent(b.ctx, b.db, models.Silence{Expire: 24 * time.Hour, Lose: 15 * time.Minute}))
			return j
		}
	}
	exit3 := succeeded("c", 1000, 10_000_000)
	exit3.Outcome, exit3.ErrorCode, exit3.Unreadable = protocol.OutcomeWarning, protocol.ErrUnreadable, []string{"/etc/shadow"}
	failed := protocol.Finished{Outcome: protocol.OutcomeFailed, ErrorCode: protocol.ErrLocked, Error: "Locked."}
	nothing := shown{health: models.HealthLate, late: true}

	for _, c := range []struct {
		name  string
		do    func(*models.Group) *models.Job
		state models.JobState
		want  shown
	}{
		{"queued", func(g *models.Group) *models.Job { return b.run(g) }, models.JobQueued, nothing},
		{"sent", sent, models.JobSent, nothing},
		{"running", func(g *models.Group) *models.Job { j := sent(g); b.start(j); return j }, models.JobRunning, nothing},
		{"succeeded", ended(succeeded("a", 1000, 10_000_000)), models.JobSucceeded, shown{health: models.HealthGood, fresh: true, good: 1}},
		{"warning, unreadable files", ended(exit3), models.JobWarning, shown{health: models.HealthWarning, fresh: true, warning: 1}},
		{"warning, below its minimum", func(g *models.Group) *models.Job {
			f := fields(g.Name)
			f.MinFiles = 2000
			must[*models.Group](t)(models.UpdateGroup(b.ctx, b.db, h.ID, g.ID, f))
			return ended(succeeded("a", 1999, 10_000_000))(g)
		}, models.JobWarning, shown{health: models.HealthLate, late: true, warning: 1}},
		{"warning, far below its history", ended(succeeded("a", 99, 10_000_000)), models.JobWarning, shown{health: models.HealthLate, late: true, warning: 1}},
		{"failed", ended(failed), models.JobFailed, shown{health: models.HealthFailed, late: true, fail: 1}},
		{"failed before it was sent", func(g *models.Group) *models.Job {
			b.run(g)
			j := b.claim(h, generation)
			if err := models.FailUnsendable(b.ctx, b.db, j.ID, protocol.ErrNoSecrets, "why"); err != nil {
				t.Fatal(err)
			}
			return j
		}, models.JobFailed, shown{health: models.HealthFailed, late: true, fail: 1}},
		{"cancelled", ended(protocol.Finished{Outcome: protocol.OutcomeCancelled}), models.JobCancelled, nothing},
		{"cancelled before it was sent", func(g *models.Group) *models.Job {
			return must[*models.Job](t)(models.RequestCancel(b.ctx, b.db, b.run(g).ID))
		}, models.JobCancelled, nothing},
		{"skipped", func(g *models.Group) *models.Job {
			s := b.schedule(h, g)
			b.run(g)
			made := must[[]models.JobID](t)(models.RunSchedule(b.ctx, b.db, models.ScheduledRun{Schedule: s, At: time.Now()}))
			return b.job(made[0])
		}, models.JobSkipped, nothing},
		{"expired", silent(models.JobExpired), models.JobExpired, nothing},
		{"lost", silent(models.JobLost), models.JobLost, shown{health: models.HealthFailed, late: true}},
		{"lost, and running again", func(g *models.Group) *models.Job {
			j := silent(models.JobLost)(g)
			b.start(j)
			return j
		}, models.JobRunning, nothing},
		{"lost, a good result came late", func(g *models.Group) *models.Job {
			return b.finish(silent(models.JobLost)(g), succeeded("a", 1000, 10_000_000))
		}, models.JobSucceeded, shown{health: models.HealthGood, fresh: true, good: 1}},
		{"expired, a failure came late", func(g *models.Group) *models.Job {
			return b.finish(silent(models.JobExpired)(g), failed)
		}, models.JobFailed, shown{health: models.HealthFailed, late: true, fail: 1}},
		{"an older job's good result after a newer failure", func(g *models.Group) *models.Job {
			older := silent(models.JobLost)(g)
			ended(failed)(g)
			return b.finish(older, succeeded("a", 1000, 10_000_000))
		}, models.JobSucceeded, shown{health: models.HealthFailed, fresh: true, good: 1, fail: 1}},
		{"another group's", func(g *models.Group) *models.Job {
			return ended(succeeded("a", 1, 1))(b.group(h, g.Name+" too"))
		}, models.JobSucceeded, nothing},
	} {
		g := b.overdue(h, strings.ReplaceAll(c.name, ",", ""))
		j := b.job(c.do(g).ID)
		if j.State != c.state {
			t.Errorf("%s: the job is %s (%s)", c.name, j.State, j.Error)
		}
		now := b.health(g)
		got := shown{
			health: now.Health, fresh: j.SnapshotID != "" && now.GoodSnapshotID == j.SnapshotID,
			late: now.DueAt != nil && now.DueAt.Equal(*g.DueAt),
		}
		for _, d := range must[[]models.DayOutcome](t)(models.ListDays(b.ctx, b.db, []models.GroupID{g.ID}, time.Now().Add(-48*time.Hour))) {
			got.good, got.warning, got.fail = got.good+d.Good, got.warning+d.Warning, got.fail+d.Failed
		}
		if got != c.want {
			t.Errorf("%s: %+v, want %+v", c.name, got, c.want)
		}
		if !got.fresh && !now.GoodAt.Equal(*g.GoodAt) || got.fresh && now.GoodAt.Before(*g.GoodAt) {
			t.Errorf("%s: the newest good snapshot is of %v, was of %v", c.name, now.GoodAt, g.GoodAt)
		}
		// The next one begins with an empty host.
		b.exec("delete from jobs where host_id = ?", h.ID)
	}
}
