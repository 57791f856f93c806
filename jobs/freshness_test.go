package jobs_test

import (
	"fmt"
	"testing"
	"time"

	"resticfleet/agent/protocol"
	"resticfleet/jobs"
	"resticfleet/models"
)

// fresh is a host with a group whose snapshots come and go.
type fresh struct {
	*bundle
	host  *models.Host
	link  *jobs.Link
	group *models.Group
}

// backup makes the snapshot n, and lies a while back.
func (f *fresh) backup(n int, outcome, code string, ago time.Duration) *models.Job {
	f.t.Helper()
	j := f.run(f.group)
	run := f.next(f.link)
	f.say(0, f.link, protocol.TypeStarted, protocol.Started{JobID: run.JobID, At: time.Now()})
	v := f.say(0, f.link, protocol.TypeFinished, protocol.Finished{
		JobID: run.JobID, Outcome: outcome, ErrorCode: code, SnapshotID: snapshotNo(f.host, n).ID,
		Stats: map[string]any{"total_files_processed": n, "total_bytes_processed": 1000 * n},
	})
	if v.Rejected != "" {
		f.t.Fatal(v.Rejected)
	}
	back := fmt.Sprintf("%d seconds", int(ago.Seconds()))
	f.exec(`update jobs set queued_at = queued_at - ?0::interval, sent_at = sent_at - ?0::interval, accepted_at = accepted_at - ?0::interval,
		started_at = started_at - ?0::interval, finished_at = finished_at - ?0::interval where id = ?1`, back, j.ID)
	f.exec("update source_groups set good_at = good_at - ?0::interval, covered_at = covered_at - ?0::interval where good_snapshot_id = ?1", back, snapshotNo(f.host, n).ID)
	return f.job(j.ID)
}

// of is the snapshot n that a job made.
func (f *fresh) of(n int, j *models.Job) protocol.Snapshot {
	return snapshotNo(f.host, n, "www", "job:"+j.ID.String())
}

// wants that the group's newest good snapshot is this one, of that time, and its
// newest one that.
func (f *fresh) wants(when string, good int, at time.Time, newest int, health models.Health) {
	f.t.Helper()
	g := must[*models.Group](f.t)(models.FindGroup(f.ctx, f.db, f.host.ID, f.group.ID))
	id := func(n int) string {
		if n == 0 {
			return ""
		}
		return snapshotNo(f.host, n).ID
	}
	if g.GoodSnapshotID != id(good) || g.NewestSnapshotID != id(newest) || (g.GoodAt == nil) != at.IsZero() || g.GoodAt != nil && !g.GoodAt.Equal(at) {
		f.t.Errorf("%s: the newest good snapshot is %q of %v, want %d of %v; the newest is %q, want %d", when, g.GoodSnapshotID, g.GoodAt, good, at, g.NewestSnapshotID, newest)
	}
	if got := must[*models.HostState](f.t)(models.FindHostState(f.ctx, f.db, f.host.ID)).Groups[0].Health; got != health {
		f.t.Errorf("%s: the group is %s, want %s", when, got, health)
	}
}

// What is removed, by whatever, is no group's newest good snapshot: that is the
// newest of those that are left, and the group is as late as that makes it.
func TestFreshnessIsThatOfTheNewestGoodSnapshotThatIsLeft(t *testing.T) {
	t.Parallel()
	b := setup(t)
	h, link := b.snapshotHost("web-1")
	f := &fresh{bundle: b, host: h, link: link, group: b.group(h, "www")}
	b.schedule(h, true, f.group)
	b.exec("update schedules set effective_at = now() - interval '20 days'")
	b.exec("update hosts set timezone_since = now() - interval '20 days'")
	must[[]protocol.Envelope](t)(b.servers[0].Outgoing(b.ctx, link)) // the schedule
	const day = 24 * time.Hour
	found := func(all ...protocol.Snapshot) { b.answers(link, b.next(link), raw(all...)) }
	asked := func(all ...protocol.Snapshot) { b.refreshed(h, link, all...) }

	one := f.backup(1, protocol.OutcomeSucceeded, "", 9*day)
	s1 := f.of(1, one)
	found(s1)
	two := f.backup(2, protocol.OutcomeWarning, protocol.ErrUnreadable, 5*day)
	s2 := f.of(2, two)
	found(s1, s2)
	s3 := f.of(3, f.backup(3, protocol.OutcomeWarning, "something_else", 3*day))
	found(s1, s2, s3)
	four := f.backup(4, protocol.OutcomeSucceeded, "", time.Minute)
	s4 := f.of(4, four)
	adopted := snapshotNo(h, 5, "www")
	adopted.Time = adopted.Time.Add(-10 * day)
	found(adopted, s1, s2, s3, s4)
	f.wants("all are there", 4, *four.StartedAt, 4, models.HealthGood)

	asked(adopted, s1, s2, s3)
	f.wants("the newest is gone", 2, *two.StartedAt, 3, models.HealthLate)
	g := must[*models.Group](t)(models.FindGroup(b.ctx, b.db, h.ID, f.group.ID))
	if g.GoodBytes != 2000 || g.UsualFiles != 2 || g.UsualBytes != 2000 || g.CoveredAt == nil || !g.CoveredAt.Equal(*two.StartedAt) {
		t.Errorf("what belongs to it is %+v", g)
	}

	// A list that was asked for before a backup ended says nothing of its snapshot.
	must[*models.Job](t)(b.servers[0].RefreshSnapshots(b.ctx, h.ID, models.System))
	before := b.next(link)
	six := f.backup(6, protocol.OutcomeSucceeded, "", 0)
	b.answers(link, before, raw(adopted, s1, s2, s3))
	f.wants("made since the list", 6, *six.StartedAt, 6, models.HealthGood)
	found(adopted, s1, s2, s3)
	f.wants("not there afterwards", 2, *two.StartedAt, 3, models.HealthLate)

	asked(adopted, s3)
	f.wants("only an adopted one is left", 5, adopted.Time, 3, models.HealthLate)
	asked()
	f.wants("none is left", 0, time.Time{}, 0, models.HealthNever)
	asked(adopted, s1, s3)
	f.wants("one was only out of sight", 1, *one.StartedAt, 0, models.HealthLate)

	// One in a former repository is elsewhere, and still the newest good one. As a
	// parent it is of no use.
	b.exec("update source_groups set newest_snapshot_id = good_snapshot_id where id = ?", f.group.ID)
	bind := func(url string) {
		must[*models.HostRepository](t)(b.servers[0].BindRepository(b.ctx, h.ID, models.RepositoryFields{URL: url, Password: "correct horse"}))
		b.exec("update jobs set state = 'succeeded', accepted_at = now(), finished_at = now() where host_id = ? and kind = 'init' and state = 'queued'", h.ID)
	}
	bind("/srv/other")
	asked()
	f.wants("in a former repository", 1, *one.StartedAt, 0, models.HealthLate)
	bind("/srv/web-1")
	asked()
	f.wants("back there, and gone", 0, time.Time{}, 0, models.HealthNever)
}
