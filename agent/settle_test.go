package agent

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"resticfleet/agent/protocol"
)

// asked is the command that asks what became of a job.
func (b *bundle) asked(run protocol.Run) protocol.Run {
	b.t.Helper()
	run.Settle, run.Includes, run.Excludes = true, nil, nil
	return run
}

// A machine's disk is replaced after its backup was stored and before anybody
// heard of it.
func TestAForgottenBackupIsFoundInTheRepository(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.repository()
	b.script(countedRestic + `exec "$RESTIC" "$@"`)
	b.start()
	run := b.run(protocol.KindBackup)
	stored := b.do(run)
	b.runner.Stop()

	b.state = filepath.Join(b.dir, "new-disk")
	b.deadLock()
	b.start()
	end := b.do(b.asked(run))
	if end.Outcome != protocol.OutcomeWarning || end.ErrorCode != protocol.ErrEndUnrecorded || end.SnapshotID != stored.SnapshotID || end.ExitCode != nil ||
		!strings.Contains(end.Error, "how restic ended was not recorded") {
		t.Errorf("%+v", end)
	}
	for _, figure := range []string{"total_files_processed", "total_bytes_processed"} {
		if got, want := end.Stats[figure], stored.Stats[figure]; got != want || got == nil {
			t.Errorf("%s: %v, restic said %v", figure, got, want)
		}
	}
	if took := end.StartedAt.Sub(stored.StartedAt).Abs(); end.StartedAt.IsZero() || took > 10*time.Second {
		t.Errorf("it began at %v, the backup at %v", end.StartedAt, stored.StartedAt)
	}
	if locks := strings.TrimSpace(b.ask("list", "locks")); locks != "" {
		t.Errorf("a dead restic's lock is left: %s", locks)
	}
	s, _ := b.runner.Status(run.JobID)
	if hello := b.runner.Hello(); !s.StartedAt.IsZero() || len(hello) != 1 || hello[0].Kind != run.Kind || hello[0].Tag != run.Tag {
		t.Errorf("told as %+v, hello %+v", s, hello)
	}
	// Asked again, or told to run it after all, it answers what it knows.
	for _, again := range []protocol.Run{b.asked(run), run} {
		if state, err := b.runner.Accept(again); err != nil || state != protocol.JobFinished {
			t.Errorf("again: %s, %v", state, err)
		}
	}
	if n := b.count("starts"); n != 1 || len(b.snapshots()) != 1 {
		t.Errorf("%d backups, %d snapshots", n, len(b.snapshots()))
	}
	if text := b.text(run.JobID); !strings.Contains(text, "does not run it") {
		t.Errorf("the log says %s", text)
	}
}

func TestWhatAForgottenJobLeftDecides(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		kind      string
		repo      bool
		cancelled bool
		outcome   string
		code      string
	}{
		"a backup that left nothing": {protocol.KindBackup, true, false, protocol.OutcomeFailed, protocol.ErrInterrupted},
		"a cancelled one":            {protocol.KindBackup, true, true, protocol.OutcomeCancelled, protocol.ErrCancelled},
		"a backup without its repo":  {protocol.KindBackup, false, false, protocol.OutcomeFailed, protocol.ErrInterrupted},
		"an init that was done":      {protocol.KindInit, true, false, protocol.OutcomeSucceeded, protocol.ErrAlreadyExists},
		"an init that made nothing":  {protocol.KindInit, false, false, protocol.OutcomeFailed, protocol.ErrInterrupted},
		"an unlock":                  {protocol.KindUnlock, true, false, protocol.OutcomeFailed, protocol.ErrInterrupted},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := setup(t)
			if c.repo {
				b.repository()
			}
			b.script(`if [ "$1" = snapshots ]; then while [ ! -e "$DIR/go" ]; do sleep 0.02; done; fi
exec "$RESTIC" "$@"`)
			b.start()
			run := b.run(c.kind)
			b.accept(b.asked(run))
			if c.cancelled {
				if err := b.runner.Cancel(run.JobID); err != nil {
					t.Fatal(err)
				}
			}
			b.write("go", "")
			end := b.result(run.JobID)
			if end.Outcome != c.outcome || end.ErrorCode != c.code || end.SnapshotID != "" {
				t.Errorf("%+v\n%s", end, b.text(run.JobID))
			}
			if exists(b.repo) != c.repo {
				t.Error("it touched the repository")
			}
		})
	}
}

// Asking is a job as any other: an agent that dies over it goes on with it.
func TestAskingSurvivesTheAgent(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.repository()
	b.script(countedRestic + `if [ "$1" = snapshots ]; then echo asked >>"$DIR/asked"; while [ ! -e "$DIR/go" ]; do sleep 0.02; done; fi
exec "$RESTIC" "$@"`)
	run := b.asked(b.run(protocol.KindBackup))
	p := b.spawnAgent(&run, "")
	b.settled(func() bool { return b.count("asked") == 1 })
	p.kill()
	b.start()
	b.write("go", "")
	if end := b.result(run.JobID); end.Outcome != protocol.OutcomeFailed || end.ErrorCode != protocol.ErrInterrupted {
		t.Errorf("%+v", end)
	}
	if n := b.count("asked"); n != 1 || b.count("starts") != 0 {
		t.Errorf("asked %d times, backed up %d times", n, b.count("starts"))
	}
}

// A copy of a state directory neither runs nor settles what the original has
// under way.
func TestACopiedStateDirectoryLeavesJobsToTheOriginal(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.repository()
	b.script(countedRestic + `if [ "$1" = backup ]; then while [ ! -e "$DIR/go" ]; do sleep 0.02; done; fi; exec "$RESTIC" "$@"`)
	b.start()
	running, waiting := b.run(protocol.KindBackup), b.run(protocol.KindBackup)
	b.accept(running)
	b.until("it runs", func() bool {
		s, _ := b.runner.Status(running.JobID)
		return s.State == protocol.JobRunning && b.count("starts") == 1
	})
	b.accept(waiting)
	twin := *b
	twin.state, twin.changes = filepath.Join(b.dir, "copy"), make(chan struct{}, 1)
	if err := os.CopyFS(twin.state, os.DirFS(b.state)); err != nil {
		t.Fatal(err)
	}
	twin.start()
	if jobs := twin.runner.Hello(); len(jobs) != 0 || twin.runner.JournalID() == b.runner.JournalID() {
		raw, _ := json.Marshal(jobs)
		t.Errorf("the copy, journal %s of %s, knows %s", twin.runner.JournalID(), b.runner.JournalID(), raw)
	}
	twin.runner.Stop()
	twin.start()
	if jobs := twin.runner.Hello(); len(jobs) != 0 {
		t.Errorf("at its next start it knows %+v", jobs)
	}
	b.write("go", "")
	for _, run := range []protocol.Run{running, waiting} {
		if end := b.result(run.JobID); end.Outcome != protocol.OutcomeSucceeded {
			t.Errorf("%+v", end)
		}
	}
	if n := b.count("starts"); n != 2 {
		t.Errorf("%d starts", n)
	}
}
