package agent

import (
	"bytes"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"resticfleet/agent/protocol"
)

func openTestJournal(t *testing.T, dir string) (*Journal, *bytes.Buffer) {
	t.Helper()
	var said bytes.Buffer
	j, err := OpenJournal(dir, nil, slog.New(slog.NewTextHandler(&said, nil)))
	if err != nil {
		t.Fatal(err)
	}
	return j, &said
}

func TestJournalRemembersOverARestart(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	at := time.Date(2026, 3, 29, 2, 30, 0, 5000, time.UTC)
	j, _ := openTestJournal(t, dir)
	for i, id := range []string{"job-b", "job-a", "job-c"} {
		if _, known, err := j.Accept(protocol.Run{JobID: id, Kind: protocol.KindBackup}, at.Add(time.Duration(i)*time.Second)); known || err != nil {
			t.Fatal(known, err)
		}
	}
	if e, known, err := j.Accept(protocol.Run{JobID: "job-b", Kind: protocol.KindInit}, at.Add(time.Hour)); !known || err != nil || e.Kind != protocol.KindBackup || !e.AcceptedAt.Equal(at) {
		t.Errorf("duplicate: %+v, %v, %v", e, known, err)
	}
	end := &protocol.Finished{JobID: "job-a", Outcome: protocol.OutcomeSucceeded, SnapshotID: "abc"}
	if _, err := j.Update("job-a", func(e *Entry) { e.State, e.Result = protocol.JobFinished, end }); err != nil {
		t.Fatal(err)
	}
	if _, err := j.Update("job-c", func(e *Entry) { e.State, e.Result, e.AckedAt = protocol.JobFinished, end, at }); err != nil {
		t.Fatal(err)
	}
	if _, err := j.Update("nobody", func(*Entry) {}); !errors.Is(err, ErrUnknownJob) {
		t.Errorf("unknown: %v", err)
	}

	again, _ := openTestJournal(t, dir)
	if again.ID() != j.ID() || again.ID() == "" {
		t.Errorf("id %q, then %q", j.ID(), again.ID())
	}
	open := again.Open()
	if len(open) != 2 || open[0].JobID != "job-b" || open[1].JobID != "job-a" || open[1].Result.SnapshotID != "abc" {
		t.Errorf("open: %+v", open)
	}
	if old := again.AckedBefore(at.Add(time.Second)); len(old) != 1 || old[0] != "job-c" {
		t.Errorf("acked: %v", old)
	}
	if err := again.Forget("job-a"); err == nil {
		t.Error("forgot a job that is not acknowledged")
	}
	if err := again.Forget("job-c"); err != nil || exists(filepath.Join(dir, "job-c.json")) {
		t.Errorf("forget: %v", err)
	}
}

func TestDamagedJournalFilesAreSetAside(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	j, _ := openTestJournal(t, dir)
	if _, _, err := j.Accept(protocol.Run{JobID: "good", Kind: protocol.KindBackup}, time.Now()); err != nil {
		t.Fatal(err)
	}
	for name, content := range map[string]string{
		"torn.json": `{"job_id":"torn"`, "empty.json": "", "renamed.json": `{"job_id":"other","state":"accepted"}`,
		"state.json": `{"job_id":"state","state":"dancing"}`, "resultless.json": `{"job_id":"resultless","state":"finished"}`,
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(dir, journalIDFile), []byte("\x00\x00"), 0o600); err != nil {
		t.Fatal(err)
	}
	again, said := openTestJournal(t, dir)
	if open := again.Open(); len(open) != 1 || open[0].JobID != "good" {
		t.Errorf("open: %+v", open)
	}
	if again.ID() == j.ID() || again.ID() == "" {
		t.Errorf("a lost id came back: %q", again.ID())
	}
	if n := strings.Count(said.String(), "damaged"); n < 5 {
		t.Errorf("said %d times: %s", n, said)
	}
	if _, said := openTestJournal(t, dir); said.Len() != 0 {
		t.Errorf("said again: %s", said)
	}
}

func TestOldJobsArePruned(t *testing.T) {
	t.Parallel()
	b := setup(t)
	now := time.Now()
	at := func(c *RunnerConfig) { c.Now = func() time.Time { return now } }
	b.start(at)
	run := b.run(protocol.KindBackup)
	run.Repository.URL = filepath.Join(b.dir, "nowhere")
	b.do(run)
	if err := b.runner.AckFinished(run.JobID); err != nil {
		t.Fatal(err)
	}
	look := func(after time.Duration, folder, entry bool) {
		t.Helper()
		b.runner.Stop()
		now = now.Add(after)
		b.start(at)
		if _, known := b.runner.journal.Get(run.JobID); known != entry || exists(string(b.runDirOf(run.JobID))) != folder {
			t.Errorf("after %s: entry %v, folder %v", after, known, !folder)
		}
	}
	look(48*time.Hour, true, true)
	look(48*time.Hour, false, true)
	look(27*24*time.Hour, false, false)
}

// A copy of a journal is another journal, and leaves alone what the original
// had under way.
func TestACopiedJournalIsAnotherOne(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	original, copied := filepath.Join(root, "original"), filepath.Join(root, "copy")
	j, _ := openTestJournal(t, original)
	for _, id := range []string{"waits", "runs", "ended"} {
		if _, _, err := j.Accept(protocol.Run{JobID: id, Kind: protocol.KindBackup}, time.Now()); err != nil {
			t.Fatal(err)
		}
	}
	for id, change := range map[string]func(*Entry){
		"runs":  func(e *Entry) { e.State = protocol.JobRunning },
		"ended": func(e *Entry) { e.State, e.Result = protocol.JobFinished, &protocol.Finished{JobID: "ended"} },
	} {
		if _, err := j.Update(id, change); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.CopyFS(copied, os.DirFS(original)); err != nil {
		t.Fatal(err)
	}
	again, said := openTestJournal(t, copied)
	if open := again.Open(); again.ID() == j.ID() || len(open) != 1 || open[0].JobID != "ended" || !strings.Contains(said.String(), "is a copy") {
		t.Errorf("id %s of %s, open %+v, said %s", again.ID(), j.ID(), open, said)
	}
	if !again.setAside("runs") || again.setAside("ended") {
		t.Error("what was set aside is not known as that")
	}
	third, said := openTestJournal(t, copied)
	if third.ID() != again.ID() || said.Len() != 0 {
		t.Errorf("at its next start it is another one again: %s", said)
	}
	if same, said := openTestJournal(t, original); same.ID() != j.ID() || len(same.Open()) != 3 || said.Len() != 0 {
		t.Errorf("the original became %s with %d jobs: %s", same.ID(), len(same.Open()), said)
	}
}

func TestAJournalKnowsItsHome(t *testing.T) {
	t.Parallel()
	here := placeOf(t.TempDir())
	if here.Inode == 0 || here != (place{Machine: here.Machine, Firmware: here.Firmware, Inode: here.Inode}) {
		t.Errorf("%+v", here)
	}
	full := place{Machine: "m", Firmware: "f", Inode: 7}
	for name, c := range map[string]struct {
		home place
		now  place
		same bool
	}{
		"the same":                          {full, full, true},
		"none was written yet":              {place{}, full, true},
		"the firmware can't be read now":    {full, place{Machine: "m", Inode: 7}, true},
		"the firmware could not be read":    {place{Machine: "m", Inode: 7}, full, true},
		"another machine":                   {full, place{Machine: "n", Firmware: "f", Inode: 7}, false},
		"another firmware, a cloned system": {full, place{Machine: "m", Firmware: "g", Inode: 7}, false},
		"another folder":                    {full, place{Machine: "m", Firmware: "f", Inode: 8}, false},
	} {
		if why := c.home.differs(c.now); (why == "") != c.same {
			t.Errorf("%s: %q", name, why)
		}
	}
	if kept := (place{Inode: 7}).and(full); kept != full {
		t.Errorf("what can't be read any more is forgotten: %+v", kept)
	}
}

// The journal of a version that didn't write down its place keeps its name.
func TestAnOldJournalKeepsItsName(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	j, _ := openTestJournal(t, dir)
	if err := os.Remove(filepath.Join(dir, placeFile)); err != nil {
		t.Fatal(err)
	}
	again, said := openTestJournal(t, dir)
	if again.ID() != j.ID() || said.Len() != 0 || !exists(filepath.Join(dir, placeFile)) {
		t.Errorf("%s became %s: %s", j.ID(), again.ID(), said)
	}
}

func TestAJournalForgetsUnfinishedWrites(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	left := filepath.Join(dir, ".tmp-123")
	if err := os.WriteFile(left, []byte(`{"job_id":`), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, said := openTestJournal(t, dir); said.Len() != 0 || exists(left) {
		t.Errorf("%s is there: %v; said: %s", left, exists(left), said)
	}
}
