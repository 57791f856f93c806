package agent

import (
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"resticfleet/agent/protocol"
)

// program is a copy of this test's program, in place of what an installation
// puts there.
func (b *bundle) program() string {
	b.t.Helper()
	self, err := os.Open("/proc/self/exe")
	if err != nil {
		b.t.Fatal(err)
	}
	defer self.Close()
	path := filepath.Join(b.dir, "resticfleet-agent")
	next, err := os.OpenFile(path+".new", os.O_CREATE|os.O_WRONLY, 0o700)
	if err != nil {
		b.t.Fatal(err)
	}
	if _, err := io.Copy(next, self); err != nil {
		b.t.Fatal(err)
	}
	if err := next.Close(); err != nil {
		b.t.Fatal(err)
	}
	if err := os.Rename(path+".new", path); err != nil {
		b.t.Fatal(err)
	}
	return path
}

// Between an upgrade on the disk and the restart that ends it, the old agent
// works on with the old program.
func TestAgentWhoseProgramWasReplacedStartsTheNextStep(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.script(`if [ "$1" = cat ]; then touch "$DIR/up"; while [ ! -e "$DIR/go" ]; do sleep 0.02; done; fi
exec "$RESTIC" "$@"`)
	run := b.run(protocol.KindInit)
	program := b.program()
	p := b.spawnProgram(program, agentOrder{Accept: &run})
	eventually(t, "the first step runs", func() bool { return b.exists("up") })
	broken := b.write("broken", "#!/bin/sh\nexit 1\n")
	if err := os.Chmod(broken, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(broken, program); err != nil {
		t.Fatal(err)
	}
	b.write("go", "")
	if s := p.until(t, func(s JobStatus) bool { return s.Result != nil }); s.Result.Outcome != protocol.OutcomeSucceeded || s.Result.RepositoryID == "" {
		t.Errorf("%+v", s.Result)
	}
}

func TestBackupGoesOnThroughAnUpgrade(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.repository()
	b.script(held)
	run := b.run(protocol.KindBackup)
	old := b.spawnProgram(b.program(), agentOrder{Accept: &run})
	old.until(t, func(s JobStatus) bool { return s.State == protocol.JobRunning })
	program := b.program()
	old.stop(t)
	upgraded := b.spawnProgram(program, agentOrder{})
	b.write("go", "")
	end := upgraded.until(t, func(s JobStatus) bool { return s.Result != nil }).Result
	if all := b.snapshots(); end.Outcome != protocol.OutcomeSucceeded || len(all) != 1 || all[0].ID != end.SnapshotID || b.count("starts") != 1 {
		t.Errorf("%+v, %d starts, snapshots %+v", end, b.count("starts"), all)
	}
}

func TestSupervisorKilledWhileTheAgentWatches(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.repository()
	b.script(held)
	b.start()
	run := b.run(protocol.KindBackup)
	b.accept(run)
	b.until("restic runs", func() bool { return b.count("starts") == 1 && exists(b.runDirOf(run.JobID).step(1).pidPath()) })
	b.killSupervisor(run.JobID)
	b.write("go", "")
	b.onceOnly(run.JobID)
}

// A supervisor that dies at once leaves nobody's number.
func TestCancelFindsAResticThatNobodyWroteDown(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.repository()
	b.script(held)
	b.start()
	run := b.run(protocol.KindBackup)
	b.accept(run)
	step := b.runDirOf(run.JobID).step(1)
	b.until("restic runs", func() bool { return b.count("starts") == 1 && exists(step.pidPath()) })
	b.killSupervisor(run.JobID)
	if err := os.Remove(step.pidPath()); err != nil {
		t.Fatal(err)
	}
	if err := b.runner.Cancel(run.JobID); err != nil {
		t.Fatal(err)
	}
	if end := b.result(run.JobID); end.Outcome != protocol.OutcomeCancelled {
		t.Errorf("%+v\n%s", end, b.text(run.JobID))
	}
}

// A process that got the number of a restic that is gone is neither watched nor
// signalled.
func TestAReusedPidFoolsNobody(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.repository()
	b.script(held)
	run := b.run(protocol.KindBackup)
	p := b.spawnAgent(&run, "")
	p.until(t, func(s JobStatus) bool { return s.State == protocol.JobRunning })
	step := b.runDirOf(run.JobID).step(1)
	eventually(t, "restic's process is known", func() bool { return exists(step.pidPath()) })
	p.kill()
	b.killSupervisor(run.JobID)
	if err := step.signalGroup(syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}

	var restic processRecord
	if _, err := readJSON(step.pidPath(), &restic); err != nil {
		t.Fatal(err)
	}
	// No number comes back in the hundredth of a second in which it was given.
	var bystander *exec.Cmd
	eventually(t, "a process has a later start than restic", func() bool {
		bystander = exec.Command("sleep", "600")
		bystander.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
		if err := bystander.Start(); err != nil {
			t.Fatal(err)
		}
		if processStart(bystander.Process.Pid) != restic.StartTime {
			return true
		}
		_ = bystander.Process.Kill()
		_ = bystander.Wait()
		return false
	})
	ended := make(chan string, 1)
	go func() { ended <- fmt.Sprint(bystander.Wait()) }()
	t.Cleanup(func() {
		_ = bystander.Process.Kill() // the test's own
		<-ended
	})
	restic.PID = bystander.Process.Pid
	if err := writeJSONAtomically(step.pidPath(), restic); err != nil {
		t.Fatal(err)
	}
	b.start()
	if err := b.runner.Cancel(run.JobID); err != nil {
		t.Fatal(err)
	}
	if end := b.result(run.JobID); end.Outcome != protocol.OutcomeCancelled {
		t.Errorf("%+v", end)
	}
	if err := step.signalGroup(syscall.SIGKILL); err != nil {
		t.Error(err)
	}
	select {
	case how := <-ended:
		t.Errorf("a process that has nothing to do with it was killed: %s", how)
		ended <- how
	default:
	}
}

// The agent is killed twice: the first time another takes over while restic
// talks on, the second time restic ends with nobody there.
func TestStoryIsToldWithoutGapOrRepeat(t *testing.T) {
	t.Parallel()
	b, s := setup(t), newServer(t)
	b.repository()
	b.script(countedRestic + `say() {
  i=$1; while [ $i -lt $2 ]; do
    echo "{\"message_type\":\"status\",\"percent_done\":0.$i,\"total_files\":1000}"; echo "line $i"; echo "complaint $i" >&2; i=$((i+1))
  done
}
if [ "$1" = backup ]; then
  say 100 200; while [ ! -e "$DIR/more" ]; do sleep 0.02; done
  say 200 300; while [ ! -e "$DIR/go" ]; do sleep 0.02; done
  say 300 400
fi
exec "$RESTIC" "$@"`)
	b.enrolled(s)
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	run := b.run(protocol.KindBackup)
	heard := func(link int, text string) func() bool { // under the server's lock
		return func() bool {
			told, progressed := false, false
			for _, m := range s.of("", run.JobID) {
				told = told || m.Type == protocol.TypeLog && m.link == link && strings.Contains(string(m.Payload), text)
				progressed = progressed || m.Type == protocol.TypeProgress && m.link == link
			}
			return told && progressed
		}
	}
	first := b.spawnProgram(self, agentOrder{Linked: true})
	s.send(protocol.TypeRun, run)
	s.until("the first agent tells", heard(1, "line 150"))
	first.kill()
	second := b.spawnProgram(self, agentOrder{Linked: true})
	if hello := s.linked(2); len(hello.Jobs) != 1 || hello.Jobs[0].State != protocol.JobRunning {
		t.Errorf("hello: %+v", hello.Jobs)
	}
	b.write("more", "")
	s.until("the second agent tells", heard(2, "line 299"))
	second.kill()
	b.write("go", "")
	eventually(t, "restic ends unseen", func() bool { return exists(b.runDirOf(run.JobID).step(1).exitPath()) })
	b.agent()
	end := s.finished(run.JobID)
	if all := b.snapshots(); end.Outcome != protocol.OutcomeSucceeded || len(all) != 1 || all[0].ID != end.SnapshotID || b.count("starts") != 1 {
		t.Errorf("%+v, %d starts, snapshots %+v", end, b.count("starts"), all)
	}

	s.mu.Lock()
	defer s.mu.Unlock()
	lines, progress := map[int64]string{}, int64(0)
	for _, m := range s.of("", run.JobID) {
		switch m.Type {
		case protocol.TypeLog:
			batch, err := protocol.Decode[protocol.Log](m.Envelope)
			if err != nil {
				t.Fatal(err)
			}
			for _, l := range batch.Lines {
				if before, told := lines[l.Seq]; told && before != l.Text {
					t.Errorf("line %d was %q, then %q", l.Seq, before, l.Text)
				}
				lines[l.Seq] = l.Text
			}
		case protocol.TypeProgress:
			p, err := protocol.Decode[protocol.Progress](m.Envelope)
			if err != nil {
				t.Fatal(err)
			}
			// A new agent doesn't know which was the last one told.
			if p.Seq < progress {
				t.Errorf("progress %d behind %d", p.Seq, progress)
			}
			progress = p.Seq
		}
	}
	if int64(len(lines)) != end.LastLogSeq {
		t.Errorf("%d lines told, the last is number %d", len(lines), end.LastLogSeq)
	}
	said := map[string]int{}
	for seq := int64(1); seq <= end.LastLogSeq; seq++ {
		said[lines[seq]]++
	}
	for i := 100; i < 400; i++ {
		for _, text := range []string{fmt.Sprintf("line %d", i), fmt.Sprintf("complaint %d", i)} {
			if said[text] != 1 {
				t.Errorf("%q was told %d times", text, said[text])
			}
		}
	}
}
