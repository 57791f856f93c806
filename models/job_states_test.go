package models_test

import (
	"testing"

	"resticfleet/models"
)

var allStates = []models.JobState{
	models.JobQueued, models.JobSent, models.JobRunning, models.JobSucceeded, models.JobWarning,
	models.JobFailed, models.JobCancelled, models.JobSkipped, models.JobExpired, models.JobLost,
}

// mayGo is the life of a job: forward only, except that a returning host makes
// a lost job running again, and a late true result replaces lost and expired.
func mayGo(from, to models.JobState, late bool) bool {
	result := to == models.JobSucceeded || to == models.JobWarning || to == models.JobFailed || to == models.JobCancelled
	switch from {
	case models.JobQueued:
		return result || to == models.JobSent || to == models.JobRunning || to == models.JobSkipped || to == models.JobExpired
	case models.JobSent:
		return result || to == models.JobRunning || to == models.JobExpired || to == models.JobLost
	case models.JobRunning:
		return result || to == models.JobLost
	case models.JobLost:
		return to == models.JobRunning || (result && late)
	case models.JobExpired:
		return result && late
	}
	return false
}

// moveJob writes a state with everything else that belongs to it, so that a
// refusal can only be about the step itself.
const moveJob = `update jobs set state = ?0, late = ?1, snapshot_id = 'x', sent_at = coalesce(sent_at, now()),
	finished_at = case when ?0 in ('queued', 'sent', 'running') then null else now() end where id = ?2`

func (b *bundle) jobIn(g *models.Group, state models.JobState) models.JobID {
	b.t.Helper()
	id := models.NewID[models.JobID]()
	b.exec("insert into jobs (id, host_id, kind, state, actor_kind, source_group_id) values (?, ?, 'backup', 'queued', 'user', ?)", id, g.HostID, g.ID)
	switch state {
	case models.JobQueued:
	case models.JobLost:
		b.exec(moveJob, models.JobRunning, false, id)
		b.exec(moveJob, state, false, id)
	default:
		b.exec(moveJob, state, false, id)
	}
	return id
}

func TestTheDatabaseRefusesEveryForbiddenStep(t *testing.T) {
	t.Parallel()
	b := setup(t)
	g := b.group(b.host("web-1"), "www")
	for _, from := range allStates {
		for _, to := range allStates {
			for _, late := range []bool{false, true} {
				if from == to {
					continue // nothing moves
				}
				id := b.jobIn(g, from)
				if mayGo(from, to, late) {
					b.exec(moveJob, to, late, id)
				} else {
					b.refused(check, moveJob, to, late, id)
				}
				b.exec("delete from jobs where id = ?", id)
			}
		}
	}
}

func TestAJobBeginsQueuedOrSkipped(t *testing.T) {
	t.Parallel()
	b := setup(t)
	g := b.group(b.host("web-1"), "www")
	for _, state := range allStates {
		id := models.NewID[models.JobID]()
		const insert = `insert into jobs (id, host_id, kind, state, actor_kind, source_group_id, sent_at, snapshot_id, finished_at)
			values (?0, ?1, 'backup', ?2, 'user', ?3, now(), 'x', case when ?2 in ('queued', 'sent', 'running') then null else now() end)`
		if state == models.JobQueued || state == models.JobSkipped {
			b.exec(insert, id, g.HostID, state, g.ID)
			continue
		}
		b.refused(check, insert, id, g.HostID, state, g.ID)
	}
}

func TestAJobStaysWhatItIs(t *testing.T) {
	t.Parallel()
	b := setup(t)
	h := b.host("web-1")
	g, other := b.group(h, "www"), b.group(h, "etc")
	id := b.jobIn(g, models.JobQueued)
	b.refused(check, "update jobs set host_id = ? where id = ?", b.host("web-2").ID, id)
	b.refused(check, "update jobs set kind = 'init' where id = ?", id)
	b.refused(check, "update jobs set source_group_id = ? where id = ?", other.ID, id)
	b.refused(check, "update jobs set scheduled_id = ?, scheduled_at = now() where id = ?", models.NewID[models.ScheduleID](), id)
	b.refused(check, "update jobs set finished_at = now() where id = ?", id)
	b.refused(check, "update jobs set state = 'sent' where id = ?", id)
	b.refused(check, "update jobs set state = 'failed' where id = ?", id)
	b.refused(check, "update jobs set state = 'succeeded', finished_at = now() where id = ?", id)
	b.refused(unique, "insert into jobs (id, host_id, kind, state, actor_kind, source_group_id) values (?, ?, 'backup', 'queued', 'user', ?)",
		models.NewID[models.JobID](), h.ID, g.ID)
}

func TestAJobGivesItsGateBackWhateverEndsIt(t *testing.T) {
	t.Parallel()
	b := setup(t)
	h := b.host("web-1")
	b.bind(h, "/srv/repo")
	g := b.group(h, "www")
	for _, state := range []models.JobState{models.JobSucceeded, models.JobWarning, models.JobFailed, models.JobCancelled, models.JobExpired, models.JobLost} {
		generation := b.link(h)
		b.run(g)
		j := b.claim(h, generation)
		if j == nil || j.Gate == nil {
			t.Fatalf("before %s: claimed %+v", state, j)
		}
		b.exec(moveJob, state, false, j.ID)
		if n := b.count("select count(*) from jobs where gate is not null"); n != 0 {
			t.Errorf("%s keeps its gate", state)
		}
	}
}

func TestTwoGatesNeverOverlap(t *testing.T) {
	t.Parallel()
	b := setup(t)
	g := b.group(b.host("web-1"), "www")
	held := b.jobIn(g, models.JobSent)
	waiting := b.jobIn(g, models.JobSent)
	b.exec("update jobs set gate = '[5,5]' where id = ?", held)
	b.refused(exclusion, "update jobs set gate = '[5,5]' where id = ?", waiting)
	b.refused(exclusion, "update jobs set gate = '[0,10)' where id = ?", waiting)
	b.exec("update jobs set gate = '[6,6]' where id = ?", waiting)
}
