package agent

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"resticfleet/agent/protocol"
)

// mayMount tells whether this process may mount. One that may not runs the test
// once more where it may, and the test itself is done.
func mayMount(t *testing.T) bool {
	t.Helper()
	if os.Getuid() == 0 {
		return true
	}
	cmd := exec.Command("unshare", "--map-root-user", "--mount", os.Args[0], "-test.count=1", "-test.run=^"+t.Name()+"$")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("in a namespace of its own: %v\n%s", err, out)
	}
	return false
}

// smallDisk puts the bundle's state on a disk of 24 MiB.
func (b *bundle) smallDisk() {
	b.t.Helper()
	if err := os.MkdirAll(b.state, 0o700); err != nil {
		b.t.Fatal(err)
	}
	if out, err := exec.Command("mount", "-t", "tmpfs", "-o", "size=24m,mode=0700", "tmpfs", b.state).CombinedOutput(); err != nil {
		b.t.Fatalf("mount: %v\n%s", err, out)
	}
	b.t.Cleanup(func() {
		if out, err := exec.Command("umount", "--lazy", b.state).CombinedOutput(); err != nil {
			b.t.Errorf("umount: %v\n%s", err, out)
		}
	})
	b.minFree = 8 << 20
}

// fill leaves not a byte on the small disk.
func (b *bundle) fill() {
	b.t.Helper()
	f, err := os.Create(filepath.Join(b.state, "somebody-elses"))
	if err != nil {
		b.t.Fatal(err)
	}
	for _, size := range []int{1 << 20, 4 << 10, 1} {
		for chunk := make([]byte, size); err == nil; {
			_, err = f.Write(chunk)
		}
		if !errors.Is(err, syscall.ENOSPC) {
			b.t.Fatal(err)
		}
		err = nil
	}
	if err := f.Close(); err != nil {
		b.t.Fatal(err)
	}
}

// written is a job's entry on the disk.
func (b *bundle) written(jobID string) Entry {
	b.t.Helper()
	var e Entry
	if _, err := readJSON(filepath.Join(b.state, "journal", jobID+entrySuffix), &e); err != nil {
		b.t.Fatal(err)
	}
	return e
}

// savedRestic has made its snapshot when it is held. Then it says more than any
// room that is kept for its words, and its summary is not among it.
const savedRestic = countedRestic + `if [ "$1" = backup ]; then
  "$RESTIC" "$@" >/dev/null || exit
  touch "$DIR/saved"
  while [ ! -e "$DIR/go" ]; do sleep 0.02; done
  i=0; while [ $i -lt 3000 ]; do i=$((i+1)); echo '{"message_type":"status","percent_done":1,"total_files":2}'; done 2>/dev/null
  exit 0
fi
exec "$RESTIC" "$@"`

func TestDiskThatFillsWhileResticRunsLosesNoResult(t *testing.T) {
	t.Parallel()
	if !mayMount(t) {
		return
	}
	b := setup(t)
	b.smallDisk()
	b.repository()
	b.script(savedRestic)
	b.start()
	run := b.run(protocol.KindBackup)
	b.accept(run)
	b.until("the snapshot is made", func() bool { return b.exists("saved") })
	b.fill()
	b.write("go", "")
	b.onceOnly(run.JobID)
	if e := b.written(run.JobID); e.State != protocol.JobFinished || e.Result == nil || e.Result.Outcome != protocol.OutcomeSucceeded {
		t.Errorf("on the disk: %+v", e)
	}
	if b.exists("state/reserve") {
		t.Error("the disk was not full, or the reserve is not used")
	}
	if err := b.runner.AckFinished(run.JobID); err != nil || b.written(run.JobID).AckedAt.IsZero() {
		t.Errorf("acknowledged: %v, %+v", err, b.written(run.JobID))
	}

	refused := b.do(b.run(protocol.KindBackup))
	if refused.ErrorCode != protocol.ErrNoSpace || b.count("starts") != 1 {
		t.Errorf("on a full disk: %+v, %d starts", refused, b.count("starts"))
	}
	if err := os.Remove(filepath.Join(b.state, "somebody-elses")); err != nil {
		t.Fatal(err)
	}
	if end := b.do(b.run(protocol.KindBackup)); end.Outcome != protocol.OutcomeSucceeded {
		t.Errorf("with room again: %+v", end)
	}
	if !b.exists("state/reserve") {
		t.Error("with room again, none is kept")
	}
}

func TestResticCanSayThatTheDiskIsFull(t *testing.T) {
	t.Parallel()
	if !mayMount(t) {
		return
	}
	b := setup(t)
	b.smallDisk()
	b.repository()
	b.script(countedRestic + `if [ "$1" = backup ]; then while [ ! -e "$DIR/go" ]; do sleep 0.02; done; fi
exec "$RESTIC" "$@"`)
	b.start()
	run := b.run(protocol.KindBackup)
	b.accept(run)
	// Writing down that it runs would take the reserve, and leave restic its room.
	b.until("restic runs, and that is written down", func() bool {
		return b.count("starts") == 1 && b.written(run.JobID).State == protocol.JobRunning
	})
	b.fill()
	b.write("go", "")
	// It wants to make its cache, and can't.
	if end := b.result(run.JobID); end.ErrorCode != protocol.ErrNoSpace || !strings.Contains(end.Error, "no space left on device") {
		t.Errorf("%+v", end)
	}
	if e := b.written(run.JobID); e.State != protocol.JobFinished || b.exists("state/reserve") {
		t.Errorf("on the disk: %+v, or the reserve was not needed", e)
	}
}

func TestAgentKilledOnADiskThatFillsStillTellsTheResultOnce(t *testing.T) {
	t.Parallel()
	if !mayMount(t) {
		return
	}
	b, s := setup(t), newServer(t)
	b.smallDisk()
	b.repository()
	b.script(savedRestic)
	b.enrolled(s)
	run := b.run(protocol.KindBackup)
	p := b.spawnAgent(&run, "")
	p.until(t, func(s JobStatus) bool { return s.State == protocol.JobRunning })
	eventually(t, "the snapshot is made", func() bool { return b.exists("saved") })
	p.kill()
	b.fill()
	b.write("go", "")
	eventually(t, "restic's end is written down though nobody lives to make room", func() bool {
		return exists(b.runDirOf(run.JobID).step(1).exitPath())
	})
	if !b.exists("state/reserve") {
		t.Error("the reserve is gone before it was needed")
	}

	_, stop := b.agent()
	if hello := s.linked(1); len(hello.Jobs) != 1 {
		t.Errorf("hello: %+v", hello.Jobs)
	}
	end := s.finished(run.JobID)
	if all := b.snapshots(); end.Outcome != protocol.OutcomeSucceeded || len(all) != 1 || all[0].ID != end.SnapshotID {
		t.Errorf("%+v, snapshots %+v", end, all)
	}
	b.acknowledged(run.JobID)
	stop()
	b.agent()
	if hello := s.linked(2); len(hello.Jobs) != 0 {
		t.Errorf("told and acknowledged, yet in hello: %+v", hello.Jobs)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if told := s.of(protocol.TypeFinished, run.JobID); len(told) != 1 || b.count("starts") != 1 {
		t.Errorf("told %d times, started %d times", len(told), b.count("starts"))
	}
}

func TestWhatResticPrintedGoesWithTheResult(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.repository()
	b.script(`if [ "$1" = backup ]; then echo "a word before" >&2; fi
exec "$RESTIC" "$@"`)
	b.start()
	run := b.run(protocol.KindBackup)
	b.accept(run)
	b.result(run.JobID)
	step := b.runDirOf(run.JobID).step(1)
	b.until("the output is removed", func() bool {
		return !exists(step.file("stdout")) && !exists(step.file("stderr"))
	})
	before := b.lines(run.JobID)
	b.runner.Stop()
	// What a crash between the two would leave.
	if err := os.WriteFile(step.file("stdout"), []byte("left"), 0o600); err != nil {
		t.Fatal(err)
	}
	b.write("state/journal/"+unfinished+"1", "torn")
	b.start()
	if exists(step.file("stdout")) || b.exists("state/journal/"+unfinished+"1") {
		t.Error("the rest of a crash stays for ever")
	}
	after := b.lines(run.JobID)
	if len(after) < 3 || !slices.Equal(before, after) {
		t.Errorf("the log was %+v, then %+v", before, after)
	}
}
