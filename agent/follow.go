package agent

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"syscall"
	"time"

	"resticfleet/agent/failpoint"
	"resticfleet/agent/protocol"
	"resticfleet/agent/restic"
)

const (
	// documentLine is the longest line of a step whose output is one answer.
	documentLine = 128 << 20
	// maxSpawns is how often a supervisor may end before restic was started.
	maxSpawns = 3
	// patience is how long restic gets after a SIGINT that isn't a cancel's,
	// and at least after a cancel's.
	patience = 10 * time.Second
)

// follower watches one step: it starts it where nobody has, passes on what
// restic says, and interrupts it when it must.
type follower struct {
	*worker
	n              int
	dir            stepDir
	step           restic.Step
	out            *restic.Output
	stdout, stderr *tail
	moved          bool // something to report since the last report
	progress       *protocol.Progress
	speechless     bool // a line could not be written

	interrupted string // the reason, once there is one
	signal      syscall.Signal
	kill        <-chan time.Time

	failingSince time.Time // begin of the first probe of those that failed in a row
	probeErr     error
}

// follow runs or watches a step until restic has ended. It returns ctx's error
// when that ends first; restic then goes on.
func (w *worker) follow(ctx context.Context, n int, step restic.Step) (restic.StepResult, error) {
	limit := restic.MaxLine
	if step.Document {
		limit = documentLine
	}
	dir := w.j.dir.step(n)
	f := &follower{
		worker: w, n: n, dir: dir, step: step, out: &restic.Output{Document: step.Document},
		stdout: newTail(dir.file(restic.Stdout), limit), stderr: newTail(dir.file(restic.Stderr), restic.MaxLine),
	}
	defer func() {
		_ = f.stdout.close() // only read
		_ = f.stderr.close()
	}()
	watching, stop := context.WithCancel(ctx) // ends the probes with the step
	defer stop()
	exit, state, err := f.watch(watching)
	if err != nil {
		return restic.StepResult{}, err
	}
	return f.result(exit, state)
}

func (f *follower) watch(ctx context.Context) (exitRecord, stepState, error) {
	tick := time.NewTicker(f.r.cfg.TailEvery)
	defer tick.Stop()
	cancel := f.j.cancel
	if f.step.Purpose != restic.PurposeMain {
		cancel = nil // what tells the truth about a cancelled job isn't cancelled
	}
	var deadline <-chan time.Time
	if f.step.Timeout > 0 {
		timer := time.NewTimer(f.step.Timeout)
		defer timer.Stop()
		deadline = timer.C
	}
	var sup supervisor // the zero value: not ours, or gone
	probes := f.startProbes(ctx)

	for spawns := 0; ; {
		if sup.done == nil {
			state, exit, err := f.dir.state()
			if err != nil {
				return exit, state, err
			}
			switch state {
			case stepEnded:
				f.markStarted()
				return exit, state, nil
			case stepLost:
				f.markStarted()
				return exit, state, f.reaped(ctx)
			case stepFresh:
				if spawns == maxSpawns {
					complaint, _ := os.ReadFile(f.dir.complaintPath())
					return exit, state, fmt.Errorf("supervise ended before it started restic: %s", strings.TrimSpace(string(complaint)))
				}
				spawns++
				failpoint.Hit(failpoint.Starting)
				started, err := f.spawn(f.dir)
				if err != nil {
					return exit, state, err
				}
				sup = *started
			case stepRunning:
				f.markStarted()
				if failpoint.Planted(failpoint.KillFound) {
					_ = f.dir.signalGroup(syscall.SIGKILL)
				}
			}
		}
		select {
		case <-ctx.Done():
			return exitRecord{}, stepRunning, ctx.Err()
		case <-sup.ready:
			sup.ready = nil
			f.markStarted()
		case <-sup.done:
			sup = supervisor{}
		case <-cancel:
			cancel = nil
			f.interrupt(restic.InterruptCancel, "", f.killDelay())
		case <-deadline:
			deadline = nil
			f.interrupt(restic.InterruptTimeout, "", patience)
		case <-f.kill:
			f.kill, f.signal = nil, syscall.SIGKILL
		case p := <-probes:
			if f.giveUp(p) {
				f.interrupt(restic.InterruptUnreachable, f.probeErr.Error(), patience)
			}
		case <-tick.C:
		}
		f.deliverSignal(sup.done != nil)
		if err := f.read(); err != nil {
			return exitRecord{}, stepRunning, err
		}
	}
}

// reaped waits, within reason, until the process of a restic that ended unseen
// is gone altogether: as long as nobody has collected it, restic's unlock takes
// its lock for a living one's.
func (f *follower) reaped(ctx context.Context) error {
	patient, stop := context.WithTimeout(ctx, patience)
	defer stop()
	look := time.NewTicker(f.r.cfg.TailEvery)
	defer look.Stop()
	for f.dir.uncollected() {
		select {
		case <-patient.Done():
			return ctx.Err()
		case <-look.C:
		}
	}
	return nil
}

// killDelay is the time left of the cancel's grace; a restart of the agent
// doesn't begin it anew.
func (f *follower) killDelay() time.Duration {
	e, _ := f.r.journal.Get(f.j.id)
	left := e.CancelRequestedAt.Add(f.r.cfg.KillAfter).Sub(f.r.cfg.Now())
	return max(min(left, f.r.cfg.KillAfter), min(patience, f.r.cfg.KillAfter))
}

// interrupt writes down why, then asks restic to end, and kills it after a
// delay. A second reason changes nothing.
func (f *follower) interrupt(reason, detail string, killAfter time.Duration) {
	if f.interrupted != "" {
		return
	}
	f.interrupted = reason
	record := interruptRecord{Reason: reason, Detail: f.scrub.Text(detail), At: f.r.cfg.Now().UTC()}
	if !exists(f.dir.interruptPath()) {
		if err := f.r.reserve.spend(func() error { return writeJSONDurably(f.dir.interruptPath(), record) }); err != nil {
			f.r.cfg.Logger.Error("the reason of an interrupt can't be written down", "job.id", f.j.id, "err", err)
		}
	}
	failpoint.Hit(failpoint.Interrupting)
	f.signal = syscall.SIGINT
	f.kill = time.After(killAfter)
}

// deliverSignal signals restic as soon as its process is known.
func (f *follower) deliverSignal(supervised bool) {
	if f.signal == 0 || (supervised && !exists(f.dir.pidPath())) {
		return
	}
	err := f.dir.signalGroup(f.signal)
	if errors.Is(err, errUnknownProcess) {
		return // at the next look
	}
	if err != nil {
		f.r.cfg.Logger.Error("restic can't be signalled", "job.id", f.j.id, "err", err)
	}
	f.signal = 0
}

// markStarted journals that restic was started, once per job. What only asks
// about a job doesn't start it.
func (f *follower) markStarted() {
	if f.j.run.Settle {
		return
	}
	info, err := os.Stat(f.dir.startedPath())
	if e, ok := f.r.journal.Get(f.j.id); err != nil || !ok || e.State != protocol.JobAccepted {
		return
	}
	_, err = f.r.journal.Update(f.j.id, func(e *Entry) {
		e.State, e.StartedAt = protocol.JobRunning, info.ModTime().UTC()
	})
	if err != nil {
		f.r.cfg.Logger.Error("a job's start can't be written down", "job.id", f.j.id, "err", err)
	}
	failpoint.Hit(failpoint.Running)
	f.r.cfg.Changed(f.j.id)
}

// read passes on what restic has said since the last time.
func (f *follower) read() error {
	err := f.stderr.read(func(l restic.Line) { f.line(restic.Stderr, l) })
	if err == nil {
		err = f.stdout.read(func(l restic.Line) { f.line(restic.Stdout, l) })
	}
	f.report()
	return err
}

// report passes on the newest progress of what was read at once: whoever takes a
// running restic up reads its whole story, and must not tell it backwards.
func (f *follower) report() {
	if p := f.progress; p != nil {
		for i := range p.CurrentFiles {
			p.CurrentFiles[i] = f.scrub.Text(p.CurrentFiles[i])
		}
		f.j.setProgress(*p)
		f.progress = nil
	}
	if f.moved {
		f.moved = false
		f.r.cfg.Changed(f.j.id)
	}
}

func (f *follower) line(stream string, l restic.Line) {
	event := f.out.Feed(stream, l)
	if p := event.Progress; p != nil {
		p.JobID = f.j.id
		// Grows within the job, and is the same when the file is read again.
		p.Seq = int64(f.n)<<44 + l.End
		f.progress, f.moved = p, true
	}
	if event.Level == "" {
		return
	}
	f.moved = true
	err := f.log.add(fmt.Sprintf("%d/%s", f.n, stream), l.End, event.Level, f.scrub.Text(event.Text))
	if err != nil && !f.speechless {
		f.speechless = true // one complaint: the next goes to a full disk too
		f.r.cfg.Logger.Error("log lines are lost", "job.id", f.j.id, "err", err)
	}
}

// result reads the rest of the output and tells how the step ended.
func (f *follower) result(exit exitRecord, state stepState) (restic.StepResult, error) {
	if err := f.stderr.end(func(l restic.Line) { f.line(restic.Stderr, l) }); err != nil {
		return restic.StepResult{}, err
	}
	if err := f.stdout.end(func(l restic.Line) { f.line(restic.Stdout, l) }); err != nil {
		return restic.StepResult{}, err
	}
	f.report()
	result := restic.StepResult{
		Purpose: f.step.Purpose, Args: f.step.Args, Output: f.out,
		ExitCode: exit.Code, Signal: exit.Signal, StartError: exit.StartError, Lost: state == stepLost,
	}
	if result.Lost {
		result.ExitCode = -1
	}
	var record interruptRecord
	if _, err := readJSON(f.dir.interruptPath(), &record); err != nil {
		f.r.cfg.Logger.Error("the reason of an interrupt can't be read", "job.id", f.j.id, "err", err)
	}
	result.Interrupt, result.Detail = record.Reason, record.Detail
	return result, nil
}

// startProbes begins, where the repository is on a network, to try its backend
// for as long as restic is silent. The channel is nil where there is nothing
// to try.
func (f *follower) startProbes(ctx context.Context) <-chan probeResult {
	env := restic.BaseEnv(os.Environ())
	p := newProber(restic.EndpointOf(f.j.run.Repository.URL, f.secrets.Env), env)
	if p == nil {
		return nil
	}
	return f.r.probeLoop(ctx, p)
}
