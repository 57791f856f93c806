package models_test

import (
	"math"
	"strings"
	"testing"
	"time"

	"resticfleet/agent/protocol"
	"resticfleet/models"
)

// backup is a host with a link and a group, ready to run.
func (b *bundle) backup(name, url string) (*models.Host, *models.Group, int64) {
	b.t.Helper()
	h := b.host(name)
	b.bind(h, url)
	return h, b.group(h, "www"), b.link(h)
}

func TestSucceededMeansASnapshotAndTheMinimums(t *testing.T) {
	t.Parallel()
	b := setup(t)
	h, g, generation := b.backup("web-1", "/srv/repo")
	f := fields("www")
	f.MinFiles, f.MinBytes = 10, 1000
	must[*models.Group](t)(models.UpdateGroup(b.ctx, b.db, h.ID, g.ID, f))
	exit := func(n int) *int { return &n }
	warned := succeeded("c", 10, 1000)
	warned.Outcome, warned.ErrorCode, warned.ExitCode = protocol.OutcomeWarning, protocol.ErrUnreadable, exit(3)
	otherwise := succeeded("d", 10, 1000)
	otherwise.Outcome, otherwise.ErrorCode = protocol.OutcomeWarning, "something_else"
	failedWithSnapshot := succeeded("e", 10, 1000)
	failedWithSnapshot.Outcome = protocol.OutcomeFailed
	for _, c := range []struct {
		name  string
		said  protocol.Finished
		state models.JobState
		code  string
		good  bool
	}{
		{"a snapshot", succeeded("a", 10, 1000), models.JobSucceeded, "", true},
		{"no snapshot", protocol.Finished{Outcome: protocol.OutcomeSucceeded, ExitCode: exit(0)}, models.JobFailed, protocol.ErrSnapshotMissing, false},
		{"no snapshot's id", protocol.Finished{Outcome: protocol.OutcomeSucceeded, SnapshotID: "the newest"}, models.JobFailed, protocol.ErrSnapshotMissing, false},
		{"a warning without snapshot", protocol.Finished{Outcome: protocol.OutcomeWarning, ExitCode: exit(3)}, models.JobFailed, protocol.ErrSnapshotMissing, false},
		{"unreadable files", warned, models.JobWarning, protocol.ErrUnreadable, true},
		{"another warning", otherwise, models.JobWarning, "something_else", false},
		{"too few files", succeeded("1", 9, 1000), models.JobWarning, protocol.ErrBelowMinimum, false},
		{"too few bytes", succeeded("2", 10, 999), models.JobWarning, protocol.ErrBelowMinimum, false},
		{"no figures", protocol.Finished{Outcome: protocol.OutcomeSucceeded, SnapshotID: snapshot("3")}, models.JobWarning, protocol.ErrBelowMinimum, false},
		{"failed", protocol.Finished{Outcome: protocol.OutcomeFailed, ErrorCode: protocol.ErrRestic, Error: "why"}, models.JobFailed, protocol.ErrRestic, false},
		{"failed with a snapshot", failedWithSnapshot, models.JobFailed, "", false},
		{"cancelled", protocol.Finished{Outcome: protocol.OutcomeCancelled}, models.JobCancelled, "", false},
		{"an outcome of a newer agent", protocol.Finished{Outcome: "splendid"}, models.JobFailed, "", false},
	} {
		before := b.findGroup(g)
		b.run(g)
		j := b.finish(b.claim(h, generation), c.said)
		if j.State != c.state || j.ErrorCode != c.code {
			t.Errorf("%s: %s (%s): %s", c.name, j.State, j.ErrorCode, j.Error)
		}
		if c.name == "too few bytes" && !strings.Contains(j.Error, "fewer bytes than the group asks for: 999, and at least 1,000 are wanted") {
			t.Errorf("%s: %s", c.name, j.Error)
		}
		after := b.findGroup(g)
		moved := after.GoodSnapshotID == c.said.SnapshotID && after.GoodAt != nil && (before.GoodAt == nil || after.GoodAt.After(*before.GoodAt))
		stayed := after.GoodSnapshotID == before.GoodSnapshotID && (after.GoodAt == before.GoodAt || after.GoodAt.Equal(*before.GoodAt)) && after.GoodBytes == before.GoodBytes
		if c.good && !moved || !c.good && !stayed {
			t.Errorf("%s: freshness went from %v to %v", c.name, before.GoodAt, after.GoodAt)
		}
	}
	day := must[[]models.DayOutcome](t)(models.ListDays(b.ctx, b.db, []models.GroupID{g.ID}, time.Now().Add(-48*time.Hour)))
	var sum models.DayOutcome
	for _, d := range day {
		sum.Good, sum.Warning, sum.Failed = sum.Good+d.Good, sum.Warning+d.Warning, sum.Failed+d.Failed
	}
	if sum.Good != 1 || sum.Warning != 5 || sum.Failed != 6 {
		t.Errorf("the strip counts %+v", sum)
	}
}

func TestAResultCountsOnceAndInWhateverOrder(t *testing.T) {
	t.Parallel()
	b := setup(t)
	h, g, generation := b.backup("web-1", "/srv/repo")
	other := b.group(h, "etc")
	b.run(g)
	older := b.claim(h, generation)
	b.exec(moveJob, models.JobLost, false, older.ID)
	b.run(g)
	newer := b.finish(b.claim(h, generation), succeeded("b", 1, 1))
	fresh := b.findGroup(g)

	// The older one's result comes late: true for its job, no news of the group.
	b.exec("update jobs set started_at = ? where id = ?", at(1, 0), older.ID)
	late := b.finish(older, succeeded("a", 1, 1))
	if late.State != models.JobSucceeded || !late.Late {
		t.Errorf("the late one is %s", late.State)
	}
	now := b.findGroup(g)
	if now.GoodSnapshotID != snapshot("b") || !now.GoodAt.Equal(*fresh.GoodAt) || now.NewestSnapshotID != snapshot("b") || *now.LastJobID != newer.ID {
		t.Errorf("the older result changed the group: good %s, newest %s, last %s", now.GoodSnapshotID, now.NewestSnapshotID, now.LastJobID)
	}
	// Repeated, or contradicted: the first word counts.
	if j := b.finish(newer, protocol.Finished{Outcome: protocol.OutcomeFailed, Error: "no"}); j.State != models.JobSucceeded || j.Error != "" || j.Late {
		t.Errorf("a second result made it %s", j.State)
	}
	if o := b.findGroup(other); o.GoodAt != nil || o.LastJobID != nil {
		t.Error("another group's job moved this group")
	}
	if n := b.count("select coalesce(sum(good + warning + failed), 0) from source_group_days"); n != 2 {
		t.Errorf("the strip counts %d", n)
	}
}

// What Postgres can't hold must not come back for ever.
func TestAnyResultCanBeStored(t *testing.T) {
	t.Parallel()
	b := setup(t)
	h, g, generation := b.backup("web-1", "/srv/repo")
	huge := math.MaxInt
	for _, said := range []protocol.Finished{
		{Outcome: "failed\x00", ErrorCode: "a\x00b", Error: "nul \x00 and \xff bytes", SnapshotID: "\x00"},
		{Outcome: protocol.OutcomeFailed, ExitCode: &huge},
		{Outcome: protocol.OutcomeFailed, SnapshotID: strings.Repeat("x", 1<<20)},
		{Outcome: protocol.OutcomeFailed, Stats: map[string]any{"a\x00": "b\x00", "deep": map[string]any{"list": []any{"\x00"}}}},
		{Outcome: protocol.OutcomeFailed, Unreadable: []string{"/a\x00b", strings.Repeat("ü", 5000)}},
		{Outcome: protocol.OutcomeFailed, RepositoryID: "\x00"},
		{Outcome: protocol.OutcomeSucceeded, SnapshotID: snapshot("a"), Stats: map[string]any{"total_files_processed": math.MaxFloat64, "total_bytes_processed": -1.0}},
	} {
		b.run(g)
		j := b.finish(b.claim(h, generation), said)
		if !j.State.Ended() {
			t.Errorf("%+v: %s", said, j.State)
		}
	}
}

func TestLateResultsReplaceLostAndExpired(t *testing.T) {
	t.Parallel()
	b := setup(t)
	h, g, generation := b.backup("web-1", "/srv/repo")
	for _, state := range []models.JobState{models.JobLost, models.JobExpired} {
		b.run(g)
		j := b.claim(h, generation)
		b.exec(moveJob, state, false, j.ID)
		if j := b.finish(j, succeeded("a", 1, 1)); j.State != models.JobSucceeded || !j.Late {
			t.Errorf("%s became %s, late %v", state, j.State, j.Late)
		}
	}
}

func (b *bundle) settle(h *models.Host, reported ...protocol.HelloJob) []models.JobID {
	b.t.Helper()
	var cancels []models.JobID
	err := models.Tx(b.ctx, b.db, func(tx models.IDB) error {
		now, err := models.FindHost(b.ctx, tx, h.ID)
		if err != nil {
			return err
		}
		settled, err := models.Settle(b.ctx, tx, now, reported, models.Patience{})
		if err != nil {
			return err
		}
		cancels = settled.Cancels
		return nil
	})
	if err != nil {
		b.t.Fatal(err)
	}
	return cancels
}

func (b *bundle) accept(j *models.Job) {
	b.t.Helper()
	err := models.Tx(b.ctx, b.db, func(tx models.IDB) error {
		_, err := models.JobAccepted(b.ctx, tx, j.HostID, protocol.Accepted{JobID: j.ID.String(), JournalID: "j1"})
		return err
	})
	if err != nil {
		b.t.Fatal(err)
	}
}

func TestHelloSettlesEverything(t *testing.T) {
	t.Parallel()
	b := setup(t)
	h, g, generation := b.backup("web-1", "/srv/repo")
	claimed := func() *models.Job {
		b.run(g)
		return b.claim(h, generation)
	}
	said := func(j *models.Job, state string) protocol.HelloJob {
		return protocol.HelloJob{JobID: j.ID.String(), State: state}
	}
	end := func(j *models.Job) { b.exec(moveJob, models.JobFailed, false, j.ID) }
	want := func(what string, j *models.Job, state models.JobState) *models.Job {
		t.Helper()
		now := b.job(j.ID)
		if now.State != state {
			t.Errorf("%s: %s, want %s", what, now.State, state)
		}
		return now
	}

	j := claimed()
	b.settle(h)
	if now := want("sent, never seen there", j, models.JobSent); now.AcceptedAt != nil {
		t.Error("taken for accepted")
	}
	b.settle(h, said(j, protocol.JobAccepted))
	if now := want("accepted, the answer was lost", j, models.JobSent); now.AcceptedAt == nil {
		t.Error("not taken for accepted")
	}
	b.settle(h, said(j, protocol.JobRunning))
	if now := want("started meanwhile", j, models.JobRunning); now.StartedAt == nil {
		t.Error("no start")
	}
	must[*models.Job](t)(models.RequestCancel(b.ctx, b.db, j.ID))
	if cancels := b.settle(h, said(j, protocol.JobRunning)); len(cancels) != 1 || cancels[0] != j.ID {
		t.Errorf("cancelled meanwhile: %v", cancels)
	}
	if cancels := b.settle(h, said(j, protocol.JobFinished)); len(cancels) != 0 {
		t.Errorf("ended there, cancelled here: %v", cancels)
	}
	want("ended there", j, models.JobRunning)
	b.exec(moveJob, models.JobLost, false, j.ID)
	b.settle(h, said(j, protocol.JobRunning))
	if now := want("lost and back", j, models.JobRunning); now.FinishedAt != nil || now.Error != "" {
		t.Errorf("it still says %q", now.Error)
	}
	end(j)
	b.settle(h, said(j, protocol.JobRunning))
	want("ended here for good", j, models.JobFailed)

	j = claimed()
	b.accept(j)
	b.settle(h)
	if now := want("accepted once, unknown there now", j, models.JobLost); now.ErrorCode != "journal_lost" || now.Error == "" || now.Gate != nil {
		t.Errorf("lost: %q, gate %v", now.Error, now.Gate)
	}

	// Another host's jobs, unknown ones and nonsense are not this host's.
	stranger := b.host("web-2")
	j = claimed()
	b.settle(stranger, said(j, protocol.JobRunning), protocol.HelloJob{JobID: "nonsense", State: "?"},
		protocol.HelloJob{JobID: models.NewID[models.JobID]().String(), State: protocol.JobFinished})
	want("said by another host", j, models.JobSent)
}

func TestACancelledJobThatRunsThereIsCancelledThere(t *testing.T) {
	t.Parallel()
	b := setup(t)
	h, g, _ := b.backup("web-1", "/srv/repo")
	j := b.run(g)
	must[*models.Job](t)(models.RequestCancel(b.ctx, b.db, j.ID))
	if cancels := b.settle(h, protocol.HelloJob{JobID: j.ID.String(), State: protocol.JobAccepted}); len(cancels) != 1 || cancels[0] != j.ID {
		t.Errorf("cancels %v", cancels)
	}
}

func TestReportsOfAnotherHostsJobAreRejected(t *testing.T) {
	t.Parallel()
	b := setup(t)
	h, g, generation := b.backup("web-1", "/srv/repo")
	stranger := b.host("web-2")
	b.run(g)
	j := b.claim(h, generation)
	id := j.ID.String()
	for what, report := range map[string]func(tx models.IDB) error{
		"accepted": func(tx models.IDB) error {
			_, err := models.JobAccepted(b.ctx, tx, stranger.ID, protocol.Accepted{JobID: id})
			return err
		},
		"started": func(tx models.IDB) error {
			_, err := models.JobStarted(b.ctx, tx, stranger.ID, protocol.Started{JobID: id})
			return err
		},
		"progress": func(tx models.IDB) error {
			_, _, err := models.JobProgress(b.ctx, tx, stranger.ID, protocol.Progress{JobID: id, Seq: 1})
			return err
		},
		"log": func(tx models.IDB) error {
			_, err := models.JobLog(b.ctx, tx, stranger.ID, protocol.Log{JobID: id, Lines: []protocol.LogLine{{Seq: 1}}})
			return err
		},
		"finished": func(tx models.IDB) error {
			_, err := models.JobFinished(b.ctx, tx, stranger, protocol.Finished{JobID: id, Outcome: protocol.OutcomeSucceeded, SnapshotID: snapshot("a")})
			return err
		},
	} {
		err := models.Tx(b.ctx, b.db, report)
		if models.CodeOf(err) != models.ENotFound {
			t.Errorf("%s: %v", what, err)
		}
	}
	if j := b.job(j.ID); j.State != models.JobSent || j.AcceptedAt != nil || j.Progress != nil {
		t.Errorf("it moved: %+v", j)
	}
}

func TestProgressAndLogAreIdempotent(t *testing.T) {
	t.Parallel()
	b := setup(t)
	h, g, generation := b.backup("web-1", "/srv/repo")
	b.run(g)
	j := b.claim(h, generation)
	progress := func(p protocol.Progress) bool {
		p.JobID = j.ID.String()
		_, newer, err := models.JobProgress(b.ctx, b.db, h.ID, p)
		if err != nil {
			t.Fatal(err)
		}
		return newer
	}
	if !progress(protocol.Progress{Seq: 5, Percent: 250, FilesDone: -3, CurrentFiles: []string{"/a\x00", "2", "3", "4", "5"}}) || progress(protocol.Progress{Seq: 5, Percent: 1}) || progress(protocol.Progress{Seq: 4, Percent: 1}) {
		t.Error("an older progress counts")
	}
	if p := b.job(j.ID).Progress; p.Percent != 100 || p.FilesDone != 0 || len(p.CurrentFiles) != 4 {
		t.Errorf("kept %+v", p)
	}
	lines := func(from, to int64) {
		m := protocol.Log{JobID: j.ID.String()}
		for seq := from; seq <= to; seq++ {
			m.Lines = append(m.Lines, protocol.LogLine{Seq: seq, At: at(2, 0), Level: "loud", Text: "line \x00\xff"})
		}
		must[*models.Job](t)(models.JobLog(b.ctx, b.db, h.ID, m))
	}
	lines(3, 4)
	lines(1, 3)
	lines(1, 4)
	kept := must[[]models.LogLine](t)(models.ListLog(b.ctx, b.db, j.ID, 0, 100))
	if len(kept) != 4 || kept[0].Seq != 1 || kept[3].Seq != 4 || kept[0].Level != "info" || strings.ContainsRune(kept[0].Text, 0) {
		t.Errorf("kept %+v", kept)
	}
	_, err := models.JobLog(b.ctx, b.db, h.ID, protocol.Log{JobID: j.ID.String(), Lines: []protocol.LogLine{{Seq: math.MaxInt64}}})
	wantCode(t, err, models.EInvalid)
}
