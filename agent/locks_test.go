package agent

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"resticfleet/agent/protocol"
)

// locks are the ids of the repository's locks, sorted.
func (b *bundle) locks() []string {
	b.t.Helper()
	ids := strings.Fields(b.ask("list", "locks", "--no-lock"))
	slices.Sort(ids)
	return ids
}

// lockFiles counts the locks without restic.
func (b *bundle) lockFiles() int {
	files, err := os.ReadDir(filepath.Join(b.repo, "locks"))
	if err != nil {
		return 0
	}
	n := 0
	for _, f := range files {
		if !strings.Contains(f.Name(), "tmp") {
			n++
		}
	}
	return n
}

// lockHolder is a restic that isn't the agent's and keeps its lock. Killed, it
// leaves it.
type lockHolder struct {
	lock string
	kill func()
}

// holdLock takes a lock, in the name of another machine where hostname isn't
// empty.
func (b *bundle) holdLock(hostname string) lockHolder {
	b.t.Helper()
	before := b.locks()
	// A backup from a command's output that never comes stays in its lock.
	cmd := exec.Command(resticPath(b.t), "backup", "--stdin", "--json")
	if hostname != "" {
		namespace := []string{"--uts", "sh", "-c", `hostname "$1" && shift && exec "$@"`, "sh", hostname}
		if os.Getuid() != 0 {
			namespace = append([]string{"--map-root-user"}, namespace...)
		}
		cmd = exec.Command("unshare", append(namespace, cmd.Args...)...)
	}
	cmd.Env = append(os.Environ(), "RESTIC_PASSWORD="+b.password, "RESTIC_REPOSITORY="+b.repo, "RESTIC_CACHE_DIR="+filepath.Join(b.dir, "own-cache"))
	cmd.Stderr = b.t.Output()
	in, err := cmd.StdinPipe()
	if err != nil {
		b.t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		b.t.Fatal(err)
	}
	killed := false
	kill := func() {
		if !killed {
			killed = true
			_ = cmd.Process.Kill() // it may have failed by itself
			_ = cmd.Wait()
			_ = in.Close()
		}
	}
	b.t.Cleanup(kill)
	b.until("a lock is there", func() bool { return b.lockFiles() > len(before) })
	now := slices.DeleteFunc(b.locks(), func(id string) bool { return slices.Contains(before, id) })
	if len(now) != 1 {
		b.t.Fatalf("new locks: %q", now)
	}
	return lockHolder{lock: now[0], kill: kill}
}

// deadLock leaves the lock of a restic that was killed.
func (b *bundle) deadLock() string {
	b.t.Helper()
	holder := b.holdLock("")
	holder.kill()
	return holder.lock
}

// A backup that is slow enough to be killed in its lock.
const slowRestic = `if [ "$1" = backup ]; then exec "$RESTIC" "$@" --limit-upload=50; fi
exec "$RESTIC" "$@"`

func TestOnlyLocksOfThisHostsDeadAreCleared(t *testing.T) {
	t.Parallel()
	running := func(s JobStatus) bool { return s.Progress != nil && s.Progress.TotalBytes >= 8<<20 }
	kill := func(b *bundle, run protocol.Run) {
		b.t.Helper()
		if err := b.runDirOf(run.JobID).step(1).signalGroup(syscall.SIGKILL); err != nil {
			b.t.Fatal(err)
		}
	}
	begin := func(b *bundle, change ...func(*RunnerConfig)) protocol.Run {
		b.start(change...)
		run := b.run(protocol.KindBackup)
		b.accept(run)
		b.until("restic works", func() bool { s, _ := b.runner.Status(run.JobID); return running(s) })
		return run
	}
	for name, c := range map[string]struct {
		end     func(b *bundle) (jobID string)
		outcome string
		code    string
	}{
		"restic killed": {func(b *bundle) string {
			run := begin(b)
			kill(b, run)
			return run.JobID
		}, protocol.OutcomeFailed, protocol.ErrInterrupted},
		"agent, supervisor and restic killed": {func(b *bundle) string {
			run := b.run(protocol.KindBackup)
			p := b.spawnAgent(&run, "")
			p.until(b.t, running)
			p.kill()
			b.killSupervisor(run.JobID)
			kill(b, run)
			b.start()
			return run.JobID
		}, protocol.OutcomeFailed, protocol.ErrInterrupted},
		"cancelled, and killed after the grace": {func(b *bundle) string {
			// A rate-limited write makes restic deaf for a while.
			run := begin(b, func(c *RunnerConfig) { c.KillAfter = 50 * time.Millisecond })
			if err := b.runner.Cancel(run.JobID); err != nil {
				b.t.Fatal(err)
			}
			return run.JobID
		}, protocol.OutcomeCancelled, protocol.ErrCancelled},
		"exclusive work begins": {func(b *bundle) string {
			b.start()
			run := b.run(protocol.KindInit)
			b.accept(run)
			return run.JobID
		}, protocol.OutcomeSucceeded, protocol.ErrAlreadyExists},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := setup(t)
			b.repository()
			b.bigFile("source/big", 8<<20)
			b.script(slowRestic)
			live, foreign, dead := b.holdLock(""), b.holdLock("another-machine"), b.deadLock()
			foreign.kill() // dead, but who on this host could know?
			want := []string{live.lock, foreign.lock}
			slices.Sort(want)
			if all := b.locks(); len(all) != 3 || !slices.Contains(all, dead) {
				t.Fatalf("before: %q", all)
			}
			end := b.result(c.end(b))
			if end.Outcome != c.outcome || end.ErrorCode != c.code || end.SnapshotID != "" {
				t.Errorf("%+v\n%s", end, b.text(end.JobID))
			}
			if left := b.locks(); !slices.Equal(left, want) {
				t.Errorf("left %q, want the live one %q and the other machine's %q\n%s", left, live.lock, foreign.lock, b.text(end.JobID))
			}
		})
	}
}

// killSupervisor is kill -9 of the parent of the job's newest restic.
func (b *bundle) killSupervisor(jobID string) {
	b.t.Helper()
	var restic processRecord
	n := 1
	for exists(b.runDirOf(jobID).step(n + 1).pidPath()) {
		n++
	}
	if found, err := readJSON(b.runDirOf(jobID).step(n).pidPath(), &restic); err != nil || !found {
		b.t.Fatalf("restic's process: %v, %v", found, err)
	}
	raw, err := os.ReadFile("/proc/" + strconv.Itoa(restic.PID) + "/stat")
	if err != nil {
		b.t.Fatal(err)
	}
	const parentField = 4 - 3 // behind the name, as in processStart
	parent, err := strconv.Atoi(strings.Fields(string(raw)[strings.LastIndexByte(string(raw), ')')+1:])[parentField])
	if err != nil || parent <= 1 {
		b.t.Fatalf("restic's parent: %d, %v", parent, err)
	}
	if err := syscall.Kill(parent, syscall.SIGKILL); err != nil {
		b.t.Fatal(err)
	}
}
