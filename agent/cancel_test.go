package agent

import (
	"bufio"
	"context"
	"errors"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"resticfleet/agent/protocol"
)

// restServer serves the bundle's folder "served" and gives its address.
func (b *bundle) restServer(args ...string) string {
	b.t.Helper()
	path := filepath.Join(filepath.Dir(resticPath(b.t)), "rest-server")
	ctx, stop := context.WithCancel(context.Background())
	cmd := exec.CommandContext(ctx, path, append([]string{"--listen", "127.0.0.1:0", "--no-auth", "--path", filepath.Join(b.dir, "served")}, args...)...)
	out, err := cmd.StdoutPipe()
	if err != nil {
		b.t.Fatal(err)
	}
	cmd.Stderr = cmd.Stdout
	if err := cmd.Start(); err != nil {
		b.t.Fatalf("rest-server: %v; run `make tools`", err)
	}
	b.t.Cleanup(func() {
		stop()
		_ = cmd.Wait() // killed
	})
	address := regexp.MustCompile(`127\.0\.0\.1:[1-9]\d*`)
	lines := bufio.NewScanner(out)
	for lines.Scan() {
		if found := address.FindString(lines.Text()); found != "" {
			return found
		}
	}
	b.t.Fatal("rest-server named no address")
	return ""
}

// bigFile fills a file with what neither compresses nor repeats.
func (b *bundle) bigFile(name string, size int) {
	var seed [32]byte
	copy(seed[:], name)
	content := make([]byte, size)
	_, _ = rand.NewChaCha8(seed).Read(content) // never fails
	b.write(name, string(content))
}

func TestCancelOfARunningBackupLeavesNeitherSnapshotNorLock(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.repository()
	if err := os.CopyFS(filepath.Join(b.dir, "served"), os.DirFS(b.repo)); err != nil {
		t.Fatal(err)
	}
	b.repo = "rest:http://" + b.restServer() + "/"
	b.bigFile("source/big", 8<<20)
	b.script(`if [ "$1" = backup ]; then exec "$RESTIC" "$@" --limit-upload=100; fi
exec "$RESTIC" "$@"`)
	b.start()
	run := b.run(protocol.KindBackup)
	b.accept(run)
	b.until("the backup is on its way", func() bool {
		s, _ := b.runner.Status(run.JobID)
		return s.Progress != nil && s.Progress.TotalBytes >= 8<<20
	})
	if err := b.runner.Cancel(run.JobID); err != nil {
		t.Fatal(err)
	}
	end := b.result(run.JobID)
	if end.Outcome != protocol.OutcomeCancelled || end.ErrorCode != protocol.ErrCancelled || end.SnapshotID != "" {
		t.Errorf("%+v\n%s", end, b.text(run.JobID))
	}
	if all, locks := b.snapshots(), strings.TrimSpace(b.ask("list", "locks")); len(all) != 0 || locks != "" {
		t.Errorf("left: %+v, locks %q", all, locks)
	}
	if err := b.runner.Cancel(run.JobID); err != nil {
		t.Errorf("cancel of a finished job: %v", err)
	}
	if again := b.result(run.JobID); again.Outcome != protocol.OutcomeCancelled || !again.At.Equal(end.At) {
		t.Errorf("a later cancel changed the end: %+v", again)
	}
	if err := b.runner.Cancel("never-seen"); !errors.Is(err, ErrUnknownJob) {
		t.Errorf("cancel of an unknown job: %v", err)
	}
}

func TestCancelBeforeTheStartStartsNothing(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.repository()
	b.script(`if [ "$1" = backup ]; then
  echo started >>"$DIR/starts"
  while [ ! -e "$DIR/go" ]; do sleep 0.02; done
fi
exec "$RESTIC" "$@"`)
	b.start()
	first, second := b.run(protocol.KindBackup), b.run(protocol.KindBackup)
	b.accept(first)
	b.until("the first runs", func() bool { return b.count("starts") == 1 })
	b.accept(second)
	if err := b.runner.Cancel(second.JobID); err != nil {
		t.Fatal(err)
	}
	if end := b.result(second.JobID); end.Outcome != protocol.OutcomeCancelled || !end.StartedAt.IsZero() {
		t.Errorf("%+v", end)
	}
	b.write("go", "")
	if end := b.result(first.JobID); end.Outcome != protocol.OutcomeSucceeded {
		t.Errorf("%+v", end)
	}
	if n := b.count("starts"); n != 1 {
		t.Errorf("%d starts", n)
	}
}

// A cancel may come in the same breath as its command, or an instant later:
// before, while or after restic is started.
func TestCancelAroundTheStart(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.repository()
	b.bigFile("source/big", 8<<20)
	b.script(slowRestic)
	b.start()
	begun := []func(protocol.Run) bool{
		func(protocol.Run) bool { return true },
		func(run protocol.Run) bool { return exists(string(b.runDirOf(run.JobID).step(1))) },
		func(run protocol.Run) bool { return b.runDirOf(run.JobID).started() },
		func(run protocol.Run) bool { return exists(b.runDirOf(run.JobID).step(1).pidPath()) },
	}
	for i, met := range begun {
		run := b.run(protocol.KindBackup)
		b.accept(run)
		b.until("it has begun that far", func() bool { return met(run) })
		if err := b.runner.Cancel(run.JobID); err != nil {
			t.Fatal(err)
		}
		if end := b.result(run.JobID); end.Outcome != protocol.OutcomeCancelled || end.ErrorCode != protocol.ErrCancelled {
			t.Errorf("%d: %+v\n%s", i, end, b.text(run.JobID))
		}
	}
	if all, locks := b.snapshots(), b.locks(); len(all) != 0 || len(locks) != 0 {
		t.Errorf("left: %+v, locks %q", all, locks)
	}
}

func TestSnapshotThatCameBeforeTheCancelIsASuccess(t *testing.T) {
	t.Parallel()
	for name, stdout := range map[string]string{"told": "", "untold": ">/dev/null"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := setup(t)
			b.repository()
			b.script(`if [ "$1" = backup ]; then
  "$RESTIC" "$@" ` + stdout + `
  echo '{"message_type":"status","percent_done":1}'
  trap 'exit 130' INT
  touch "$DIR/up"
  while :; do sleep 0.02; done
fi
exec "$RESTIC" "$@"`)
			b.start()
			run := b.run(protocol.KindBackup)
			b.accept(run)
			b.until("the snapshot is made", func() bool { return b.exists("up") })
			if err := b.runner.Cancel(run.JobID); err != nil {
				t.Fatal(err)
			}
			end := b.result(run.JobID)
			if all := b.snapshots(); end.Outcome != protocol.OutcomeSucceeded || end.ErrorCode != "" || len(all) != 1 || all[0].ID != end.SnapshotID {
				t.Errorf("%+v, snapshots %+v\n%s", end, all, b.text(run.JobID))
			}
		})
	}
}

const deafRestic = `if [ "$1" = backup ]; then
  trap '' INT
  echo '{"message_type":"status","percent_done":0.1}'
  touch "$DIR/up"
  while :; do sleep 0.02; done
fi
echo "$1" >>"$DIR/calls"
exec "$RESTIC" "$@"`

func TestCancelKillsWhatDoesNotListenAndClearsItsLock(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.repository()
	b.deadLock()
	b.script(deafRestic)
	b.start(func(c *RunnerConfig) { c.KillAfter = 300 * time.Millisecond })
	run := b.run(protocol.KindBackup)
	b.accept(run)
	b.until("it runs", func() bool { return b.exists("up") })
	if err := b.runner.Cancel(run.JobID); err != nil {
		t.Fatal(err)
	}
	end := b.result(run.JobID)
	if end.Outcome != protocol.OutcomeCancelled || end.ExitCode != nil {
		t.Errorf("%+v\n%s", end, b.text(run.JobID))
	}
	if locks := strings.TrimSpace(b.ask("list", "locks")); locks != "" {
		t.Errorf("locks left: %s", locks)
	}
	if calls, _ := os.ReadFile(filepath.Join(b.dir, "calls")); string(calls) != "unlock\nsnapshots\n" {
		t.Errorf("afterwards: %q", calls)
	}
}

func TestCancelOutlivesTheAgent(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.repository()
	b.script(deafRestic)
	b.start()
	run := b.run(protocol.KindBackup)
	b.accept(run)
	b.until("it runs", func() bool { return b.exists("up") })
	if err := b.runner.Cancel(run.JobID); err != nil {
		t.Fatal(err)
	}
	b.runner.Stop()
	b.start(func(c *RunnerConfig) { c.KillAfter = 50 * time.Millisecond })
	if end := b.result(run.JobID); end.Outcome != protocol.OutcomeCancelled {
		t.Errorf("%+v", end)
	}
}
