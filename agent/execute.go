package agent

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"resticfleet/agent/failpoint"
	"resticfleet/agent/protocol"
	"resticfleet/agent/restic"
)

// execute brings one job to its end, from wherever its files say it stands. It
// returns early, leaving everything as it is, only when ctx ends.
func (r *Runner) execute(ctx context.Context, j *job, turn <-chan struct{}) {
	// A restic that was started is watched at once: no line holds it back.
	if !j.dir.started() && !wait(ctx, turn, j.cancel) && ctx.Err() != nil {
		return
	}
	end := r.work(ctx, j)
	if end == nil {
		return
	}
	r.finish(ctx, j, *end)
}

// work runs or follows the job's steps. nil: ctx ended first.
func (r *Runner) work(ctx context.Context, j *job) *protocol.Finished {
	if diskFull(j.broken) {
		return r.agentFault(j, j.broken)
	}
	if j.broken != nil {
		return restic.Fail(j.id, protocol.ErrInternal, "The agent lost the command of this job: "+j.broken.Error()+".", "Run it again.")
	}
	log, err := j.openLog()
	if err != nil {
		return r.agentFault(j, err)
	}
	secrets, secretsFault := r.openSecrets(j.run)
	w := &worker{r: r, j: j, log: log, secrets: secrets, scrub: restic.NewScrubber(secrets)}
	var results []restic.StepResult
	for n := 1; ; n++ {
		dir := j.dir.step(n)
		state, _, err := dir.state()
		if err != nil {
			return r.agentFault(j, err)
		}
		var step restic.Step
		if state == stepFresh {
			job := restic.Job{Run: j.run, IncludesFile: j.dir.includes(), CancelAsked: j.cancelAsked()}
			next, end := restic.Next(job, results)
			if end != nil {
				return scrubbed(w.scrub, w.concluded(job, results, end))
			}
			if n == 1 {
				end = r.mayStart(ctx, j, secretsFault)
			} else {
				end = secretsFault
				if r.shortage(r.runsDir()) != "" {
					r.reserve.release() // what restic has done is found out with it
				}
			}
			if end != nil {
				return scrubbed(w.scrub, end)
			}
			step = *next
			if err := w.prepare(n, step); err != nil {
				return r.agentFault(j, err)
			}
		} else {
			// What was started is followed as it was written down, even where
			// the plan would decide otherwise by now (a cancel came).
			spec, err := dir.spec()
			if err != nil {
				return r.agentFault(j, err)
			}
			step = spec.step()
		}
		result, err := w.follow(ctx, n, step)
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			return r.agentFault(j, err)
		}
		results = append(results, result)
	}
}

func scrubbed(s *restic.Scrubber, end *protocol.Finished) *protocol.Finished {
	clean := s.Finished(*end)
	return &clean
}

// mayStart is asked before a job's first restic. nil: yes. What only asks for
// the truth about a job is not cancelled.
func (r *Runner) mayStart(ctx context.Context, j *job, secretsFault *protocol.Finished) *protocol.Finished {
	if j.cancelAsked() && !j.run.Settle {
		return restic.Cancelled(j.id)
	}
	if end := r.preflight(ctx, j.run); end != nil {
		return end
	}
	return secretsFault
}

func (r *Runner) openSecrets(run protocol.Run) (protocol.Secrets, *protocol.Finished) {
	fault := func(cause, remedy string) *protocol.Finished {
		return restic.Fail(run.JobID, protocol.ErrNoSecrets, cause, remedy)
	}
	if run.Repository.Sealed == "" {
		return protocol.Secrets{}, fault("The command carried no credentials.",
			"Enter the repository's password in the host's settings; an agent without a key must be enrolled again.")
	}
	key, err := r.cfg.Key()
	if err != nil {
		return protocol.Secrets{}, fault("The agent's own key can't be read: "+err.Error()+".", "Enrol this host again.")
	}
	secrets, err := protocol.OpenSecrets(key, run.JobID, run.Repository.Sealed)
	if err != nil {
		return protocol.Secrets{}, fault("The agent can't open the command's credentials: "+err.Error()+".", "Enrol this host again.")
	}
	if secrets.Password == "" {
		return secrets, fault("The repository has no password.", "Enter it in the host's repository settings.")
	}
	if _, refused := restic.BackendEnv(run.Repository.URL, secrets.Env); len(refused) > 0 {
		return secrets, restic.Fail(run.JobID, protocol.ErrInvalidCommand,
			fmt.Sprintf("The repository's environment sets names that this kind of repository may not have: %q.", refused),
			"Remove them from the host's repository settings.")
	}
	return secrets, nil
}

// agentFault is an end for what the agent itself could not do.
func (r *Runner) agentFault(j *job, err error) *protocol.Finished {
	r.cfg.Logger.Error("a job failed on the agent's side", "job.id", j.id, "err", err)
	if diskFull(err) {
		return restic.Fail(j.id, protocol.ErrNoSpace, "The agent's disk is full: "+err.Error()+".", "Free space on the disk that holds "+r.cfg.StateDir+".")
	}
	return restic.Fail(j.id, protocol.ErrInternal, "The agent could not do its part: "+err.Error()+".", "See the agent's log on the host.")
}

// finish completes the log, then writes the end down. Where the disk refuses,
// the end is told all the same and writing is tried again until it works.
func (r *Runner) finish(ctx context.Context, j *job, end protocol.Finished) {
	e, _ := r.journal.Get(j.id)
	end.At = r.cfg.Now().UTC()
	if !e.StartedAt.IsZero() || !j.run.Settle {
		end.StartedAt = e.StartedAt
	}
	if l, err := j.openLog(); err != nil {
		r.cfg.Logger.Error("a job's log can't be completed", "job.id", j.id, "err", err)
	} else {
		err := l.finish()
		if end.Error != "" {
			level := protocol.LevelError
			if end.Outcome == protocol.OutcomeSucceeded || end.Outcome == protocol.OutcomeCancelled {
				level = protocol.LevelInfo
			}
			err = errors.Join(err, l.note("end", level, end.Error))
		}
		if err != nil {
			r.cfg.Logger.Error("a job's log can't be completed", "job.id", j.id, "err", err)
		}
		end.LastLogSeq = l.last()
	}
	failpoint.Hit(failpoint.Ended)
	for {
		_, err := r.journal.Update(j.id, func(e *Entry) { e.State, e.Result, e.Command = protocol.JobFinished, &end, nil })
		if err == nil || errors.Is(err, ErrUnknownJob) {
			failpoint.Hit(failpoint.Concluded)
			r.dropOutput(j)
			r.dropCheckCache(j)
			break
		}
		r.cfg.Logger.Error("a job's result can't be written down yet", "job.id", j.id, "err", err)
		j.mu.Lock()
		j.unsaved = &end
		j.mu.Unlock()
		r.cfg.Changed(j.id)
		retry := time.NewTimer(5 * time.Second)
		select {
		case <-retry.C:
		case <-ctx.Done():
			retry.Stop()
			return
		}
	}
	r.cfg.Logger.Info("job ended", "job.id", j.id, "kind", e.Kind, "outcome", end.Outcome, "code", end.ErrorCode)
	r.cfg.Changed(j.id)
}

// dropCheckCache removes the caches that checks left which died. Not beside
// another check, whose own cache can't be told from theirs.
func (r *Runner) dropCheckCache(j *job) {
	r.mu.Lock()
	other := false
	for _, o := range r.jobs {
		other = other || (o != j && o.run.Kind == protocol.KindCheck && r.stateOf(o) != protocol.JobFinished)
	}
	r.mu.Unlock()
	if j.run.Kind == protocol.KindCheck && !other {
		left, _ := filepath.Glob(filepath.Join(r.cacheDir(), "restic-check-cache-*")) // the pattern is fine
		for _, dir := range left {
			if err := os.RemoveAll(dir); err != nil {
				r.cfg.Logger.Error("the cache of a check can't be removed", "job.id", j.id, "err", err)
			}
		}
	}
}

// dropOutput removes what restic printed, once the job's log and result hold
// what is to be kept of it: a server that is away for weeks must not fill the
// disk with it.
func (r *Runner) dropOutput(j *job) {
	for n := 1; exists(string(j.dir.step(n))); n++ {
		for _, name := range []string{restic.Stdout, restic.Stderr} {
			if err := os.Remove(j.dir.step(n).file(name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
				r.cfg.Logger.Error("restic's output can't be removed", "job.id", j.id, "err", err)
			}
		}
	}
}

// worker is what the steps of one job share.
type worker struct {
	r       *Runner
	j       *job
	log     *jobLog
	secrets protocol.Secrets
	scrub   *restic.Scrubber
}

// prepare writes the next step down and says so in the job's log.
func (w *worker) prepare(n int, step restic.Step) error {
	program, err := exec.LookPath(w.r.cfg.Restic)
	if err != nil {
		program = w.r.cfg.Restic // its start will fail and say why
	}
	note := step.Note
	if n == 1 {
		version, _ := w.r.version.read(w.r.ctx) // preflight has read it
		note = fmt.Sprintf("restic %s starts: %s.", version, w.j.run.Kind)
		if w.j.run.Settle {
			note = "The agent does not know this job and does not run it: asking the repository what became of it."
		}
	}
	if note != "" {
		if err := w.log.note(fmt.Sprintf("step%d", n), protocol.LevelInfo, note); err != nil {
			return err
		}
	}
	return w.j.dir.step(n).prepare(stepSpec{
		Purpose: step.Purpose, Document: step.Document, TimeoutMS: step.Timeout.Milliseconds(),
		Program: program, Args: step.Args,
		Env: append(restic.BaseEnv(os.Environ()), restic.SettingsEnv(w.r.cacheDir())...),
	})
}
