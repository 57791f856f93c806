package models_test

import (
	"errors"
	"strings"
	"sync"
	"testing"

	"resticfleet/agent/protocol"
	"resticfleet/models"
)

func TestRunNowRefreshesTheJobThatWaits(t *testing.T) {
	t.Parallel()
	b := setup(t)
	h := b.host("web-1")
	b.bind(h, "/srv/repo")
	g := b.group(h, "www")
	generation := b.link(h)
	first := b.run(g)
	if again := b.run(g); again.ID != first.ID {
		t.Fatal("a second job waits beside the first")
	}
	f := fields("site")
	f.Tag, f.Includes, f.Excludes, f.MinFiles = "www", []string{"/srv/site"}, []string{"*.tmp"}, 7
	must[*models.Group](t)(models.UpdateGroup(b.ctx, b.db, h.ID, g.ID, f))
	if j := b.job(first.ID); j.Spec.Includes[0] != "/srv/www" || j.SourceGroupName != "www" {
		t.Errorf("an edit changed a job that was made before: %+v", j.Spec)
	}
	if j := b.run(g); j.ID != first.ID || j.Spec.Includes[0] != "/srv/site" || j.Spec.Excludes[0] != "*.tmp" || j.Spec.MinFiles != 7 || j.SourceGroupName != "site" {
		t.Errorf("not refreshed: %+v", j.Spec)
	}

	// Beside a running one, one may wait.
	running := b.claim(h, generation)
	if running == nil || running.ID != first.ID || running.Spec.Includes[0] != "/srv/site" {
		t.Fatalf("claimed %+v", running)
	}
	waiting := b.run(g)
	if waiting.ID == running.ID || waiting.State != models.JobQueued || b.run(g).ID != waiting.ID {
		t.Errorf("beside a running one: %+v", waiting)
	}
	if j := b.claim(h, generation); j != nil {
		t.Errorf("two backups of one host at once: %s", j.ID)
	}
	b.finish(running, succeeded("a", 10, 10))
	if j := b.claim(h, generation); j == nil || j.ID != waiting.ID {
		t.Errorf("the waiting one does not follow: %+v", j)
	}
}

func TestRunNowOfManyAtOnceIsOneJob(t *testing.T) {
	t.Parallel()
	b := setup(t)
	h := b.host("web-1")
	b.bind(h, "/srv/repo")
	g := b.group(h, "www")
	fine, errs := gather(12, func(int) error {
		_, err := models.RunGroup(b.ctx, b.db, h.ID, g.ID, models.System)
		return err
	})
	if n := b.count("select count(*) from jobs"); fine != 12 || n != 1 {
		t.Errorf("%d jobs: %v", n, errs)
	}
}

func TestWithoutARepositoryNothingRuns(t *testing.T) {
	t.Parallel()
	b := setup(t)
	h := b.host("web-1")
	g := b.group(h, "www")
	_, err := models.RunGroup(b.ctx, b.db, h.ID, g.ID, models.System)
	wantCode(t, err, models.EConflict)
	_, err = models.RunOnHost(b.ctx, b.db, h.ID, models.KindUnlock, models.System)
	wantCode(t, err, models.EConflict)
	made := b.fire(b.schedule(h, g), false)
	if len(made) != 1 || made[0].State != models.JobSkipped || made[0].ErrorCode != "no_repository_bound" || made[0].Error == "" || made[0].FinishedAt == nil {
		t.Errorf("fired: %+v", made)
	}
	// One that waits while its repository is taken away says why it can't run.
	b.bind(h, "/srv/repo")
	j := b.run(g)
	if err := models.UnbindRepository(b.ctx, b.db, h.ID); err != nil {
		t.Fatal(err)
	}
	if claimed := b.claim(h, b.link(h)); claimed != nil {
		t.Errorf("claimed %s", claimed.ID)
	}
	if j := b.job(j.ID); j.State != models.JobFailed || j.ErrorCode != "no_repository_bound" || j.Error == "" {
		t.Errorf("the waiting one is %s: %s", j.State, j.Error)
	}
}

// fire runs a schedule for 02:00 and returns the jobs it made.
func (b *bundle) fire(s *models.Schedule, catchUp bool) []*models.Job {
	b.t.Helper()
	var ids []models.JobID
	err := models.Tx(b.ctx, b.db, func(tx models.IDB) (err error) {
		ids, err = models.RunSchedule(b.ctx, tx, models.ScheduledRun{Schedule: s, At: at(2, 0), CatchUp: catchUp})
		return err
	})
	if err != nil {
		b.t.Fatal(err)
	}
	made := []*models.Job{}
	for _, id := range ids {
		made = append(made, b.job(id))
	}
	return made
}

func TestAFireMakesOneJobPerGroupOnce(t *testing.T) {
	t.Parallel()
	b := setup(t)
	h := b.host("web-1")
	b.bind(h, "/srv/repo")
	idle, busy, gone := b.group(h, "idle"), b.group(h, "busy"), b.group(h, "gone")
	s := b.schedule(h, idle, busy, gone)
	b.exec("delete from schedule_source_groups where source_group_id = ?", gone.ID)
	must[[]models.JobID](t)(models.DeleteGroup(b.ctx, b.db, h.ID, gone.ID))
	before := b.run(busy)

	made := b.fire(s, true)
	if len(made) != 2 {
		t.Fatalf("made %d jobs", len(made))
	}
	for _, j := range made {
		if j.ActorKind != models.ActorSchedule || j.ScheduledID == nil || *j.ScheduledID != s.ID || !j.ScheduledAt.Equal(at(2, 0)) || !j.CatchUp || j.ScheduledCron != s.Cron {
			t.Errorf("not the schedule's: %+v", j)
		}
		switch *j.SourceGroupID {
		case idle.ID:
			if j.State != models.JobQueued {
				t.Errorf("the idle group's is %s", j.State)
			}
		case busy.ID:
			if j.State != models.JobSkipped || j.ErrorCode != "still_busy" || !strings.Contains(j.Error, "had not ended yet") {
				t.Errorf("the busy group's is %s: %s", j.State, j.Error)
			}
		}
	}
	if again := b.fire(s, false); len(again) != 0 {
		t.Errorf("the same due time made %d more", len(again))
	}
	if j := b.job(before.ID); j.State != models.JobQueued {
		t.Errorf("the one before is %s", j.State)
	}
}

func TestOneFireFromManyMakesOneJob(t *testing.T) {
	t.Parallel()
	b := setup(t)
	h := b.host("web-1")
	b.bind(h, "/srv/repo")
	s := b.schedule(h, b.group(h, "www"), b.group(h, "etc"))
	fine, errs := gather(8, func(int) error {
		return models.Tx(b.ctx, b.db, func(tx models.IDB) error {
			_, err := models.RunSchedule(b.ctx, tx, models.ScheduledRun{Schedule: s, At: at(2, 0)})
			return err
		})
	})
	if n := b.count("select count(*) from jobs"); fine != 8 || n != 2 {
		t.Errorf("%d jobs: %v", n, errs)
	}
}

func TestDeletingCancelsWhatWaitsAndKeepsHistory(t *testing.T) {
	t.Parallel()
	for name, remove := range map[string]func(*bundle, *models.Host, *models.Group, *models.Schedule) ([]models.JobID, error){
		"group": func(b *bundle, h *models.Host, g *models.Group, s *models.Schedule) ([]models.JobID, error) {
			b.exec("delete from schedule_source_groups where schedule_id = ?", s.ID)
			return models.DeleteGroup(b.ctx, b.db, h.ID, g.ID)
		},
		"schedule": func(b *bundle, h *models.Host, _ *models.Group, s *models.Schedule) ([]models.JobID, error) {
			return models.DeleteSchedule(b.ctx, b.db, h.ID, s.ID)
		},
		"host": func(b *bundle, h *models.Host, _ *models.Group, _ *models.Schedule) ([]models.JobID, error) {
			return models.DeleteHost(b.ctx, b.db, h.ID)
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := setup(t)
			h := b.host("web-1")
			b.bind(h, "/srv/repo")
			g, other := b.group(h, "www"), b.group(h, "etc")
			s := b.schedule(h, g)
			generation := b.link(h)
			ended := b.run(g)
			b.finish(b.claim(h, generation), succeeded("a", 1, 1))
			b.run(g)
			running := b.claim(h, generation)
			waiting := b.jobBy(s, g)
			untouched := b.run(other)

			cancelled, err := remove(b, h, g, s)
			if err != nil {
				t.Fatal(err)
			}
			if name == "host" {
				if len(cancelled) != 2 {
					t.Errorf("cancelled %v", cancelled)
				}
			} else if len(cancelled) != 1 || cancelled[0] != waiting {
				t.Errorf("cancelled %v, want %s", cancelled, waiting)
			} else if j := b.job(untouched.ID); j.State != models.JobQueued {
				t.Errorf("another group's job is %s", j.State)
			}
			if j := b.job(waiting); j.State != models.JobCancelled || j.FinishedAt == nil || j.Error == "" {
				t.Errorf("the waiting one is %s: %q", j.State, j.Error)
			}
			if j := b.job(running.ID); j.State != models.JobSent || j.CancelRequestedAt != nil {
				t.Errorf("the running one is %s", j.State)
			}
			if j := b.job(ended.ID); j.State != models.JobSucceeded || j.SnapshotID != snapshot("a") || j.HostName != "web-1" || j.SourceGroupName != "www" {
				t.Errorf("history: %+v", j)
			}
			if _, err := remove(b, h, g, s); models.CodeOf(err) != models.ENotFound {
				t.Errorf("deleted twice: %v", err)
			}
		})
	}
}

// jobBy makes a schedule's waiting job beside a running one, as a fire that
// came just before its end does.
func (b *bundle) jobBy(s *models.Schedule, g *models.Group) models.JobID {
	b.t.Helper()
	id := models.NewID[models.JobID]()
	b.exec("insert into jobs (id, host_id, kind, state, actor_kind, source_group_id, source_group_name, scheduled_id, scheduled_at) values (?, ?, 'backup', 'queued', 'schedule', ?, ?, ?, ?)",
		id, g.HostID, g.ID, g.Name, s.ID, at(2, 0))
	return id
}

// Deleting and running at once: whichever comes first, nothing waits for ever
// on a host that is no more.
func TestNothingIsMadeOnADeletedHost(t *testing.T) {
	t.Parallel()
	b := setup(t)
	for range 25 {
		h := b.host(models.NewID[models.HostID]().String())
		b.bind(h, "/srv/repo")
		g := b.group(h, "www")
		begin := make(chan struct{})
		var wg sync.WaitGroup
		for _, f := range []func() error{
			func() error { _, err := models.RunGroup(b.ctx, b.db, h.ID, g.ID, models.System); return err },
			func() error {
				_, err := models.RunOnHost(b.ctx, b.db, h.ID, models.KindUnlock, models.System)
				return err
			},
			func() error { _, err := models.AutoInit(b.ctx, b.db, h.ID); return err },
			func() error { _, err := models.DeleteHost(b.ctx, b.db, h.ID); return err },
		} {
			wg.Go(func() {
				<-begin
				if err := f(); err != nil && models.CodeOf(err) != models.ENotFound {
					t.Error(err)
				}
			})
		}
		close(begin)
		wg.Wait()
		_, err := models.RunGroup(b.ctx, b.db, h.ID, g.ID, models.System)
		wantCode(t, err, models.ENotFound)
		if made, err := models.AutoInit(b.ctx, b.db, h.ID); made || err != nil {
			t.Fatalf("an init of a deleted host: %v", err)
		}
		if n := b.count("select count(*) from jobs where host_id = ? and state = 'queued'", h.ID); n != 0 {
			t.Fatalf("%d jobs wait on a deleted host", n)
		}
	}
}

func TestCancel(t *testing.T) {
	t.Parallel()
	b := setup(t)
	h := b.host("web-1")
	b.bind(h, "/srv/repo")
	g := b.group(h, "www")
	generation := b.link(h)
	j := must[*models.Job](t)(models.RequestCancel(b.ctx, b.db, b.run(g).ID))
	if j.State != models.JobCancelled || j.CancelRequestedAt == nil || j.SentAt != nil {
		t.Errorf("a waiting one is %s", j.State)
	}
	_, err := models.RequestCancel(b.ctx, b.db, j.ID)
	if e := wantError(t, err, models.EConflict); e.Detail["state"] != models.JobCancelled {
		t.Errorf("twice: %v", e.Detail)
	}
	b.run(g)
	sent := b.claim(h, generation)
	asked := must[*models.Job](t)(models.RequestCancel(b.ctx, b.db, sent.ID))
	if asked.State != models.JobSent || asked.CancelRequestedAt == nil {
		t.Errorf("a claimed one is %s", asked.State)
	}
	if ids := must[[]models.JobID](t)(models.CancelsFor(b.ctx, b.db, h.ID)); len(ids) != 1 || ids[0] != sent.ID {
		t.Errorf("to be told: %v", ids)
	}
	again := must[*models.Job](t)(models.RequestCancel(b.ctx, b.db, sent.ID))
	if !again.CancelRequestedAt.Equal(*asked.CancelRequestedAt) {
		t.Error("asking again moved the time")
	}
	// A snapshot that came first is the truth.
	if j := b.finish(sent, succeeded("b", 1, 1)); j.State != models.JobSucceeded {
		t.Errorf("the agent's answer made it %s", j.State)
	}
	_, err = models.RequestCancel(b.ctx, b.db, models.NewID[models.JobID]())
	wantCode(t, err, models.ENotFound)
}

func TestCancelOfARunningJobWaitsForTheAgentsAnswer(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		answer protocol.Finished
		want   models.JobState
	}{
		"nothing was saved":         {protocol.Finished{Outcome: protocol.OutcomeCancelled, ErrorCode: protocol.ErrCancelled}, models.JobCancelled},
		"the snapshot came first":   {succeeded("a", 1, 1), models.JobSucceeded},
		"it was failing already":    {protocol.Finished{Outcome: protocol.OutcomeFailed, ErrorCode: protocol.ErrWrongPassword, Error: "no"}, models.JobFailed},
		"the host was lost and had": {protocol.Finished{Outcome: protocol.OutcomeCancelled, ErrorCode: protocol.ErrCancelled}, models.JobCancelled},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := setup(t)
			h, g, generation := b.backup("web-1", "/srv/repo")
			b.run(g)
			j := b.claim(h, generation)
			b.exec(moveJob, models.JobRunning, false, j.ID)
			if j := must[*models.Job](t)(models.RequestCancel(b.ctx, b.db, j.ID)); j.State != models.JobRunning || j.CancelRequestedAt == nil {
				t.Errorf("asked for, it is %s", j.State)
			}
			if strings.Contains(name, "lost") {
				b.exec(moveJob, models.JobLost, false, j.ID)
				// It comes back running, and must still hear of the cancel.
				b.settle(h, protocol.HelloJob{JobID: j.ID.String(), State: protocol.JobRunning})
				if ids := must[[]models.JobID](t)(models.CancelsFor(b.ctx, b.db, h.ID)); len(ids) != 1 || ids[0] != j.ID {
					t.Errorf("to be told: %v", ids)
				}
			}
			if j := b.finish(j, c.answer); j.State != c.want {
				t.Errorf("the answer made it %s, want %s", j.State, c.want)
			}
		})
	}
}

func TestCancelOfWhatHasEndedNamesItsState(t *testing.T) {
	t.Parallel()
	b := setup(t)
	h := b.host("web-1")
	g := b.group(h, "www")
	for _, state := range []models.JobState{
		models.JobSucceeded, models.JobWarning, models.JobFailed, models.JobCancelled, models.JobSkipped, models.JobExpired, models.JobLost,
	} {
		id := models.NewID[models.JobID]()
		b.exec("insert into jobs (id, host_id, kind, state, actor_kind, source_group_id, source_group_name) values (?, ?, 'backup', 'queued', 'user', ?, ?)",
			id, h.ID, g.ID, g.Name)
		if state == models.JobLost {
			b.exec(moveJob, models.JobRunning, false, id)
		}
		b.exec(moveJob, state, false, id)
		_, err := models.RequestCancel(b.ctx, b.db, id)
		if e := wantError(t, err, models.EConflict); e.Detail["state"] != state {
			t.Errorf("%s: %v", state, e.Detail)
		}
		if j := b.job(id); j.State != state || j.CancelRequestedAt != nil {
			t.Errorf("%s became %s, asked for at %v", state, j.State, j.CancelRequestedAt)
		}
	}
}

// A cancel that comes while the same job is claimed: either is fine, an error
// that keeps the host's other jobs waiting is not.
func TestCancelAndClaimAtOnce(t *testing.T) {
	t.Parallel()
	b := setup(t)
	h := b.host("web-1")
	b.bind(h, "/srv/repo")
	g := b.group(h, "www")
	generation := b.link(h)
	for range 60 {
		j := b.run(g)
		begin := make(chan struct{})
		var wg sync.WaitGroup
		var claimed *models.Job
		var claimErr, cancelErr error
		wg.Go(func() { <-begin; claimed, claimErr = models.Claim(b.ctx, b.db, h.ID, generation) })
		wg.Go(func() { <-begin; _, cancelErr = models.RequestCancel(b.ctx, b.db, j.ID) })
		close(begin)
		wg.Wait()
		if err := errors.Join(claimErr, cancelErr); err != nil {
			t.Fatal(err)
		}
		state := b.job(j.ID).State
		if (claimed == nil) != (state == models.JobCancelled) {
			t.Fatalf("claimed %v, and it is %s", claimed != nil, state)
		}
		if claimed != nil {
			b.exec(moveJob, models.JobFailed, false, j.ID)
		}
	}
}
