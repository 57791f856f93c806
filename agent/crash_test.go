package agent

import (
	"bufio"
	"bytes"
	"encoding/json"
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

// agentProcess is an agent in a process of its own, to be killed.
type agentProcess struct {
	cmd   *exec.Cmd
	in    io.Closer
	lines *bufio.Scanner
}

// spawnAgent starts an agent on the bundle's state that takes run.
func (b *bundle) spawnAgent(run *protocol.Run, dieOn string) *agentProcess {
	b.t.Helper()
	self, err := os.Executable()
	if err != nil {
		b.t.Fatal(err)
	}
	return b.spawnProgram(self, agentOrder{Accept: run, DieOn: dieOn})
}

// spawnProgram starts an agent from a copy of this test's program.
func (b *bundle) spawnProgram(program string, order agentOrder) *agentProcess {
	b.t.Helper()
	cmd := exec.Command(program, "test-agent")
	in, err := cmd.StdinPipe()
	if err != nil {
		b.t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		b.t.Fatal(err)
	}
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		b.t.Fatal(err)
	}
	p := &agentProcess{cmd: cmd, in: in, lines: bufio.NewScanner(out)}
	p.lines.Buffer(nil, 1<<20)
	b.t.Cleanup(p.kill)
	order.StateDir, order.Restic, order.Key, order.MinFree = b.state, b.restic, b.private, b.minFree
	if err := json.NewEncoder(in).Encode(order); err != nil {
		b.t.Fatal(err)
	}
	return p
}

// kill is kill -9. Harmless when repeated.
func (p *agentProcess) kill() {
	_ = p.cmd.Process.Kill() // it may have been killed before
	_ = p.cmd.Wait()
}

// stop ends the agent as SIGTERM does.
func (p *agentProcess) stop(t testing.TB) {
	t.Helper()
	_ = p.in.Close() // pipe
	for p.lines.Scan() {
	}
	if err := p.cmd.Wait(); err != nil {
		t.Errorf("the agent's end: %v", err)
	}
}

// until reads the agent's reports until one fits.
func (p *agentProcess) until(t testing.TB, fits func(JobStatus) bool) JobStatus {
	t.Helper()
	for p.lines.Scan() {
		var s JobStatus
		if err := json.Unmarshal(p.lines.Bytes(), &s); err != nil {
			t.Fatalf("%s: %v", p.lines.Bytes(), err)
		}
		if fits(s) {
			return s
		}
	}
	t.Fatal("the agent process ended without the report that was waited for")
	return JobStatus{}
}

const countedRestic = `if [ "$1" = backup ]; then echo started >>"$DIR/starts"; fi
`

// onceOnly checks what must be true after every crash: one start, one
// snapshot, one result that names it.
func (b *bundle) onceOnly(jobID string) {
	b.t.Helper()
	end := b.result(jobID)
	all := b.snapshots()
	if end.Outcome != protocol.OutcomeSucceeded || len(all) != 1 || all[0].ID != end.SnapshotID {
		b.t.Errorf("end %+v, snapshots %+v\n%s", end, all, b.text(jobID))
	}
	if n := b.count("starts"); n != 1 {
		b.t.Errorf("restic started %d times", n)
	}
	if jobs := b.runner.Hello(); len(jobs) != 1 || jobs[0].JobID != jobID || jobs[0].State != protocol.JobFinished {
		b.t.Errorf("hello: %+v", jobs)
	}
}

func TestAgentKilledBetweenJournalAndStart(t *testing.T) {
	t.Parallel()
	t.Run("agent", func(t *testing.T) { killedBetweenJournalAndStart(t, func(*bundle, string) {}) })
	// Of what the machine had not written down only the journal is left.
	t.Run("machine", func(t *testing.T) {
		killedBetweenJournalAndStart(t, func(b *bundle, jobID string) {
			if err := os.RemoveAll(string(b.runDirOf(jobID))); err != nil {
				t.Fatal(err)
			}
		})
	})
}

func killedBetweenJournalAndStart(t *testing.T, crash func(b *bundle, jobID string)) {
	t.Helper()
	t.Parallel()
	b := setup(t)
	b.repository()
	b.script(countedRestic + `exec "$RESTIC" "$@"`)
	run := b.run(protocol.KindBackup)
	p := b.spawnAgent(&run, "accepted")
	if !p.lines.Scan() || p.lines.Text() != "accepted" {
		t.Fatalf("%q", p.lines.Text())
	}
	p.kill()
	crash(b, run.JobID)
	b.start()
	if state, err := b.runner.Accept(run); err != nil || state == "" {
		t.Errorf("the offer again: %q, %v", state, err)
	}
	b.onceOnly(run.JobID)
}

func TestAgentKilledWhileResticRuns(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.repository()
	b.script(countedRestic + `if [ "$1" = backup ]; then
  i=0; while [ $i -lt 300 ]; do i=$((i+1)); echo "line $i of stderr" >&2; echo "line $i of stdout"; [ $i -eq 200 ] && echo torn >&2 && printf 'half a ' ; done
  touch "$DIR/up"
  while [ ! -e "$DIR/go" ]; do sleep 0.02; done
  echo line
  while [ $i -lt 400 ]; do i=$((i+1)); echo "line $i of stderr" >&2; echo "line $i of stdout"; done
fi
exec "$RESTIC" "$@"`)
	run := b.run(protocol.KindBackup)
	p := b.spawnAgent(&run, "")
	// Killed in the middle of reporting, wherever that is.
	s := p.until(t, func(s JobStatus) bool { return s.LastLogSeq > 0 && s.State == protocol.JobRunning })
	p.kill()
	b.start()
	b.until("it is running again", func() bool {
		now, _ := b.runner.Status(run.JobID)
		return now.State == protocol.JobRunning && now.LastLogSeq >= 600 && now.LastLogSeq >= s.LastLogSeq
	})
	b.write("go", "")
	b.onceOnly(run.JobID)

	seen := map[string]int{}
	for _, l := range b.lines(run.JobID) {
		seen[l.Text]++
	}
	for i := 1; i <= 400; i++ {
		for _, stream := range []string{"stdout", "stderr"} {
			if n := seen[fmt.Sprintf("line %d of %s", i, stream)]; n != 1 && (i != 201 || stream != "stdout") {
				t.Errorf("line %d of %s stands %d times in the log", i, stream, n)
			}
		}
	}
	if seen["half a line 201 of stdout"] != 1 {
		t.Errorf("the torn line: %v", seen)
	}
}

func TestAgentKilledBetweenEndAndAcknowledgement(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.repository()
	b.script(countedRestic + `exec "$RESTIC" "$@"`)
	run := b.run(protocol.KindBackup)
	p := b.spawnAgent(&run, "")
	told := p.until(t, func(s JobStatus) bool { return s.Result != nil })
	p.kill()
	b.start()
	b.onceOnly(run.JobID)
	again := b.result(run.JobID)
	if again.SnapshotID != told.Result.SnapshotID || !again.At.Equal(told.Result.At) || again.LastLogSeq != told.Result.LastLogSeq ||
		int64(len(b.lines(run.JobID))) != again.LastLogSeq {
		t.Errorf("told %+v, then %+v", told.Result, again)
	}
	if err := b.runner.AckFinished(run.JobID); err != nil {
		t.Fatal(err)
	}
	b.runner.Stop()
	b.start()
	if jobs := b.runner.Hello(); len(jobs) != 0 {
		t.Errorf("acknowledged, yet in hello: %+v", jobs)
	}
}

func TestAgentAndResticKilled(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		script  string // what restic's stand-in does once up
		restic  bool   // kill it as well
		outcome string
		code    string
	}{
		"supervise dies, restic ends well": {`while [ ! -e "$DIR/go" ]; do sleep 0.02; done; exec "$RESTIC" "$@"`, false, protocol.OutcomeSucceeded, ""},
		"both die, nothing saved":          {`while :; do sleep 0.02; done`, true, protocol.OutcomeFailed, protocol.ErrInterrupted},
		"both die, snapshot saved":         {`"$RESTIC" "$@" >/dev/null; touch "$DIR/saved"; while :; do sleep 0.02; done`, true, protocol.OutcomeWarning, protocol.ErrEndUnrecorded},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := setup(t)
			b.repository()
			b.script(countedRestic + `if [ "$1" = backup ]; then echo $PPID >"$DIR/supervise.tmp"; mv "$DIR/supervise.tmp" "$DIR/supervise"
` + c.script + `
fi
exec "$RESTIC" "$@"`)
			run := b.run(protocol.KindBackup)
			p := b.spawnAgent(&run, "")
			p.until(t, func(s JobStatus) bool { return s.State == protocol.JobRunning })
			b.runner = nil
			b.settled(func() bool {
				return b.exists("supervise") && (!strings.Contains(c.script, "saved") || b.exists("saved"))
			})
			p.kill()
			var supervise int
			raw, err := os.ReadFile(b.dir + "/supervise")
			if err != nil {
				t.Fatal(err)
			}
			if _, err := fmt.Sscan(string(raw), &supervise); err != nil {
				t.Fatal(err)
			}
			if err := syscall.Kill(supervise, syscall.SIGKILL); err != nil {
				t.Fatal(err)
			}
			if c.restic {
				if err := b.runDirOf(run.JobID).step(1).signalGroup(syscall.SIGKILL); err != nil {
					t.Fatal(err)
				}
			}
			b.start()
			b.write("go", "")
			end := b.result(run.JobID)
			if end.Outcome != c.outcome || end.ErrorCode != c.code || (end.SnapshotID == "") != (c.outcome == protocol.OutcomeFailed) {
				t.Errorf("%+v\n%s", end, b.text(run.JobID))
			}
			if n := b.count("starts"); n != 1 {
				t.Errorf("%d starts", n)
			}
		})
	}
}

func TestDamagedJournalEntryOfARunningJob(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.repository()
	b.script(countedRestic + `if [ "$1" = backup ]; then while [ ! -e "$DIR/go" ]; do sleep 0.02; done; fi; exec "$RESTIC" "$@"`)
	run := b.run(protocol.KindBackup)
	p := b.spawnAgent(&run, "")
	p.until(t, func(s JobStatus) bool { return s.State == protocol.JobRunning })
	p.kill()
	b.write("state/journal/"+run.JobID+".json", "{torn")
	b.start()
	b.write("go", "")
	b.onceOnly(run.JobID)
}

// What hello tells of a job lets a server make it again that has lost it, also
// where an agent before this one wrote the entry.
func TestHelloTellsWhatAJobWas(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.start()
	run := b.run(protocol.KindBackup)
	b.do(run)
	tell := func() protocol.HelloJob {
		t.Helper()
		jobs := b.runner.Hello()
		if len(jobs) != 1 {
			t.Fatalf("%+v", jobs)
		}
		return jobs[0]
	}
	e, _ := b.runner.journal.Get(run.JobID)
	want := protocol.HelloJob{
		JobID: run.JobID, State: protocol.JobFinished, Kind: protocol.KindBackup, Tag: run.Tag, AcceptedAt: e.AcceptedAt, StartedAt: e.StartedAt,
	}
	if got := tell(); got != want {
		t.Errorf("told %+v, want %+v", got, want)
	}
	path := filepath.Join(b.state, "journal", run.JobID+".json")
	raw, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	b.runner.Stop()
	old := bytes.Replace(raw, []byte(`"tag":"group",`), nil, 1)
	if err := os.WriteFile(path, old, 0o600); err != nil || len(old) == len(raw) {
		t.Fatal(err)
	}
	b.start()
	if got := tell(); got != want {
		t.Errorf("of an old entry it tells %+v, want %+v", got, want)
	}
}
