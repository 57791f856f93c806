package agent

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"resticfleet/agent/protocol"
)

func TestInitThenBackupMakesTheSnapshotThatWasAskedFor(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.start()
	b.initialised()

	run := b.run(protocol.KindBackup)
	run.Excludes = []string{"*.tmp", "/nowhere"}
	b.write("source/x.tmp", "left out")
	end := b.do(run)
	if end.Outcome != protocol.OutcomeSucceeded || end.ErrorCode != "" || end.ExitCode == nil || *end.ExitCode != 0 || end.StartedAt.IsZero() {
		t.Fatalf("backup: %+v", end)
	}
	if end.Stats["total_files_processed"] != float64(2) {
		t.Errorf("stats: %v", end.Stats)
	}
	all := b.snapshots()
	if len(all) != 1 || all[0].ID != end.SnapshotID || all[0].Hostname != "test-host" ||
		!slices.Equal(all[0].Paths, []string{b.source}) || !slices.Equal(all[0].Tags, []string{"group", "job:" + run.JobID}) ||
		!slices.Equal(all[0].Excludes, run.Excludes) {
		t.Errorf("snapshots: %+v, want the one of %+v", all, end)
	}
	if log := b.text(run.JobID); !strings.Contains(log, "Snapshot "+end.SnapshotID[:8]+" saved") {
		t.Errorf("log:\n%s", log)
	}
	s, _ := b.runner.Status(run.JobID)
	if s.LastLogSeq != end.LastLogSeq || s.LastLogSeq != int64(len(b.lines(run.JobID))) {
		t.Errorf("status: %+v", s)
	}
}

func TestInitOfARepositoryThatExistsLooksAtThePassword(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.start()
	b.initialised()

	again := b.do(b.run(protocol.KindInit))
	if again.Outcome != protocol.OutcomeSucceeded || again.ErrorCode != protocol.ErrAlreadyExists || again.RepositoryID == "" {
		t.Errorf("init again: %+v", again)
	}
	b.password = "another"
	wrong := b.do(b.run(protocol.KindInit))
	if wrong.Outcome != protocol.OutcomeFailed || wrong.ErrorCode != protocol.ErrWrongPassword || wrong.ExitCode == nil || *wrong.ExitCode != 12 {
		t.Errorf("init with a wrong password: %+v", wrong)
	}
	backup := b.do(b.run(protocol.KindBackup))
	if backup.Outcome != protocol.OutcomeFailed || backup.ErrorCode != protocol.ErrWrongPassword {
		t.Errorf("backup with a wrong password: %+v", backup)
	}
}

func TestBackupWithoutARepositoryFailsWithTheRemedy(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.start()
	end := b.do(b.run(protocol.KindBackup))
	if end.ErrorCode != protocol.ErrNoRepository || !strings.Contains(end.Error, b.repo) || !strings.Contains(end.Error, "initialise") {
		t.Errorf("end: %+v", end)
	}
}

func TestParentIsUsedAndDoneWithoutWhereGone(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.repository()
	b.start()
	first := b.do(b.run(protocol.KindBackup))

	run := b.run(protocol.KindBackup)
	run.Parent = first.SnapshotID
	run.Includes = append(run.Includes, b.write("other/c.txt", "gamma"))
	second := b.do(run)
	if all := b.snapshots(); len(all) != 2 || all[1].Parent != first.SnapshotID {
		t.Errorf("snapshots: %+v", all)
	}
	if second.Stats["files_unmodified"] != float64(2) {
		t.Errorf("an edited include list read everything again: %v", second.Stats)
	}

	run = b.run(protocol.KindBackup)
	run.Parent = strings.Repeat("ab", 32)
	third := b.do(run)
	if third.Outcome != protocol.OutcomeSucceeded || third.Error != "" || len(b.snapshots()) != 3 {
		t.Errorf("with a parent that is gone: %+v", third)
	}
	if log := b.text(run.JobID); !strings.Contains(log, "abababab no longer exists") {
		t.Errorf("log:\n%s", log)
	}
}

func TestMissingIncludeFailsByNameBeforeAnythingIsStored(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.repository()
	b.start()
	for _, missing := range []string{filepath.Join(b.dir, "gone"), filepath.Join(b.source, "a.txt", "below-a-file")} {
		run := b.run(protocol.KindBackup)
		run.Includes = append(run.Includes, missing)
		end := b.do(run)
		if end.Outcome != protocol.OutcomeFailed || end.ErrorCode != protocol.ErrMissingInclude || !strings.Contains(end.Error, missing) {
			t.Errorf("%s: %+v", missing, end)
		}
	}
	if all := b.snapshots(); len(all) != 0 {
		t.Errorf("stored: %+v", all)
	}
}

// Reading /proc/self/mem from its beginning is an I/O error for everybody,
// root too.
func TestUnreadableFileIsAWarningThatNamesIt(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.repository()
	b.start()
	run := b.run(protocol.KindBackup)
	run.Includes = append(run.Includes, "/proc/self/mem")
	end := b.do(run)
	if end.Outcome != protocol.OutcomeWarning || end.ErrorCode != protocol.ErrUnreadable || end.SnapshotID == "" ||
		end.ExitCode == nil || *end.ExitCode != 3 || len(end.Unreadable) != 1 || !strings.HasPrefix(end.Unreadable[0], "/proc/") {
		t.Fatalf("end: %+v", end)
	}
	if !strings.Contains(end.Error, end.Unreadable[0]) || !strings.Contains(b.text(run.JobID), end.Unreadable[0]) {
		t.Errorf("not named: %q\n%s", end.Error, b.text(run.JobID))
	}
}

func TestDuplicateIsAnsweredAndNeverRunAgain(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.script(`echo "$@" >>"$DIR/calls"; exec "$RESTIC" "$@"`)
	b.repository()
	b.start()
	before := b.count("calls")
	run := b.run(protocol.KindBackup)
	b.accept(run)
	for range 5 {
		if _, err := b.runner.Accept(run); err != nil {
			t.Fatal(err)
		}
	}
	b.result(run.JobID)
	if state, err := b.runner.Accept(run); err != nil || state != protocol.JobFinished {
		t.Errorf("duplicate of a finished job: %q, %v", state, err)
	}
	if err := b.runner.AckFinished(run.JobID); err != nil {
		t.Fatal(err)
	}
	if _, pending := b.runner.Status(run.JobID); pending {
		t.Error("an acknowledged job is still reported")
	}
	// A server that offers it again has forgotten the result: it hears it anew.
	if state, err := b.runner.Accept(run); err != nil || state != protocol.JobFinished {
		t.Errorf("duplicate of an acknowledged job: %q, %v", state, err)
	}
	if s, pending := b.runner.Status(run.JobID); !pending || s.Result == nil || s.Result.SnapshotID == "" || len(b.lines(run.JobID)) == 0 {
		t.Errorf("not reported anew: %+v", s)
	}
	if n := b.count("calls") - before; n != 1 {
		t.Errorf("restic ran %d times", n)
	}
}

func TestUnknownKindAndBrokenCommandsAreRefused(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.start()
	refuse := func(name, code string, change func(*protocol.Run)) {
		run := b.run(protocol.KindBackup)
		change(&run)
		if end := b.do(run); end.Outcome != protocol.OutcomeFailed || end.ErrorCode != code || end.Error == "" {
			t.Errorf("%s: %+v", name, end)
		}
	}
	refuse("kind", protocol.ErrUnknownKind, func(r *protocol.Run) { r.Kind = "dance" })
	refuse("relative include", protocol.ErrInvalidCommand, func(r *protocol.Run) { r.Includes = []string{"etc"} })
	refuse("no includes", protocol.ErrInvalidCommand, func(r *protocol.Run) { r.Includes = nil })
	refuse("comma in the tag", protocol.ErrInvalidCommand, func(r *protocol.Run) { r.Tag = "a,b" })
	refuse("job tag", protocol.ErrInvalidCommand, func(r *protocol.Run) { r.Tag = "job:x" })
	refuse("no restic host", protocol.ErrInvalidCommand, func(r *protocol.Run) { r.ResticHost = "" })
	refuse("ssh option", protocol.ErrInvalidCommand, func(r *protocol.Run) { r.Repository.URL = "sftp://-oProxyCommand=x/y" })
	refuse("rclone", protocol.ErrRefusedByPolicy, func(r *protocol.Run) { r.Repository.URL = "rclone:x:y" })
	refuse("no secrets", protocol.ErrNoSecrets, func(r *protocol.Run) { r.Repository.Sealed = "" })
	refuse("foreign secrets", protocol.ErrNoSecrets, func(r *protocol.Run) { r.Repository.Sealed = b.run("init").Repository.Sealed })
	b.env = map[string]string{"LD_PRELOAD": "/tmp/x.so"}
	refuse("dangerous name", protocol.ErrInvalidCommand, func(r *protocol.Run) { b.seal(r) })
	if _, err := b.runner.Accept(protocol.Run{JobID: "../../etc/x", Kind: "backup"}); err == nil {
		t.Error("accepted a job id that leads out of the state directory")
	}
	if b.exists("repo") {
		t.Error("a refused command touched the repository")
	}
}

func TestNoResticNoSpace(t *testing.T) {
	t.Parallel()
	t.Run("missing", func(t *testing.T) {
		t.Parallel()
		b := setup(t)
		b.restic = filepath.Join(b.dir, "no-such-restic")
		b.start()
		if end := b.do(b.run(protocol.KindBackup)); end.ErrorCode != protocol.ErrNoRestic || !strings.Contains(end.Error, "Install restic") {
			t.Errorf("%+v", end)
		}
	})
	t.Run("old", func(t *testing.T) {
		t.Parallel()
		b := setup(t)
		b.restic = b.write("old", "#!/bin/sh\necho restic 0.16.5 compiled with go1.21\n")
		if err := os.Chmod(b.restic, 0o700); err != nil {
			t.Fatal(err)
		}
		b.start()
		if end := b.do(b.run(protocol.KindBackup)); end.ErrorCode != protocol.ErrNoRestic || !strings.Contains(end.Error, "0.16.5") {
			t.Errorf("%+v", end)
		}
	})
	t.Run("bytes", func(t *testing.T) {
		t.Parallel()
		b := setup(t)
		b.start(func(c *RunnerConfig) { c.MinFreeBytes = 1 << 60 })
		if end := b.do(b.run(protocol.KindBackup)); end.ErrorCode != protocol.ErrNoSpace || !strings.Contains(end.Error, b.state) {
			t.Errorf("%+v", end)
		}
	})
	t.Run("inodes", func(t *testing.T) {
		t.Parallel()
		b := setup(t)
		b.start(func(c *RunnerConfig) { c.MinFreeInodes = 1 << 60 })
		if end := b.do(b.run(protocol.KindBackup)); end.ErrorCode != protocol.ErrNoSpace || !strings.Contains(end.Error, "inodes") {
			t.Errorf("%+v", end)
		}
	})
	t.Run("journal", func(t *testing.T) {
		t.Parallel()
		b := setup(t)
		b.start()
		// A file in the run folder's place: writing the job down can't work.
		if err := os.RemoveAll(b.runner.runsDir()); err != nil {
			t.Fatal(err)
		}
		b.write("state/run", "")
		run := b.run(protocol.KindBackup)
		if end := b.do(run); end.ErrorCode != protocol.ErrNoSpace || !strings.Contains(end.Error, b.state) {
			t.Errorf("%+v", end)
		}
		if err := b.runner.AckFinished(run.JobID); err != nil || len(b.runner.Pending()) != 0 {
			t.Errorf("acknowledging a refusal: %v, %+v", err, b.runner.Pending())
		}
	})
}

func TestUnlockRemovesADeadLockAndSaysSo(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.repository()
	b.start()
	if end := b.do(b.run(protocol.KindUnlock)); end.Outcome != protocol.OutcomeSucceeded || end.Stats["locks_removed"] != 0 {
		t.Fatalf("nothing to unlock: %+v", end)
	}
	b.deadLock()
	end := b.do(b.run(protocol.KindUnlock))
	if end.Outcome != protocol.OutcomeSucceeded || end.Stats["locks_removed"] != 1 || end.Stats["locks_left"] != 0 {
		t.Errorf("a dead lock: %+v", end)
	}
	if left := strings.TrimSpace(b.ask("list", "locks")); left != "" {
		t.Errorf("left: %s", left)
	}
}

func TestOneBackupAtATimePerRepository(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.repository()
	b.script(`if [ "$1" = backup ]; then
  mkdir "$DIR/busy" || echo twice >>"$DIR/clash"
  "$RESTIC" "$@"; code=$?
  rmdir "$DIR/busy"; exit $code
fi
exec "$RESTIC" "$@"`)
	b.start()
	var ids []string
	for range 3 {
		run := b.run(protocol.KindBackup)
		if len(ids) == 1 {
			run.Repository.URL = "local:" + b.repo + "/"
		}
		b.accept(run)
		ids = append(ids, run.JobID)
	}
	for _, id := range ids {
		if end := b.result(id); end.Outcome != protocol.OutcomeSucceeded {
			t.Errorf("%+v", end)
		}
	}
	if b.exists("clash") {
		t.Error("two backups ran at once")
	}
}
