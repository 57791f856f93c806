package restic

import (
	"fmt"
	"strings"
	"time"

	"resticfleet/agent/protocol"
)

// Purposes of a step: what it is run for, beside the command it runs.
const (
	PurposeMain   = "main"   // the job itself: a cancel interrupts it
	PurposeSettle = "settle" // asks the repository what became of the job
	PurposeClear  = "clear"  // takes away what dead processes of this host have locked
)

// Step is one restic invocation.
type Step struct {
	Purpose  string
	Args     []string
	Document bool          // stdout is an answer, not a log
	Timeout  time.Duration // 0: as long as it takes
	// Note is a line for the job's log, said before the step.
	Note string
}

// asideTimeout bounds the small steps around a job: they must never keep it
// from ending.
const asideTimeout = 5 * time.Minute

// Reasons why the agent itself interrupted a step.
const (
	InterruptCancel      = "cancel"
	InterruptUnreachable = "unreachable"
	InterruptTimeout     = "timeout"
)

// StepResult is how a step ended, as the files of its directory tell.
type StepResult struct {
	Purpose string
	Args    []string
	Output  *Output
	// ExitCode is -1 when restic ended by a signal, never started, or Lost.
	ExitCode int
	// Signal is the number of the signal that ended restic, else 0.
	Signal int
	// StartError says why restic could not be started at all.
	StartError string
	// Lost: restic was started, is gone, and nobody recorded how it ended.
	Lost bool
	// Interrupt is the agent's reason for having interrupted it, if it did,
	// and Detail what it saw (the last failed probe).
	Interrupt string
	Detail    string
}

func (r StepResult) killed() bool { return r.Signal != 0 }

// goCrash is the exit code of a Go program that its runtime ended; restic
// gives it no other meaning.
const goCrash = 2

// died: restic ended without the chance to take its lock away, or nobody knows
// better. It is surely gone.
func (r StepResult) died() bool { return r.killed() || r.Lost || r.ExitCode == goCrash }

// Job is what a plan needs to know.
type Job struct {
	Run          protocol.Run
	IncludesFile string
	CancelAsked  bool
}

// Next tells, from what the finished steps left, the next step or the job's
// end; exactly one of the two is non-nil. The end still lacks its times and its
// last log line. It is a pure function: the same results give the same answer
// after a restart. An unknown kind ends at once, unknown_kind.
func Next(job Job, results []StepResult) (*Step, *protocol.Finished) {
	if job.Run.Settle {
		return nextSettle(job, results)
	}
	plans := map[string]plan{
		protocol.KindBackup: {next: nextBackup},
		// Not marked exclusive: it looks before it knows of a repository to
		// clear, and then does so itself.
		protocol.KindInit:   {next: nextInit},
		protocol.KindUnlock: {next: nextUnlock},
		protocol.KindForget: {next: nextForget, exclusive: true},
		protocol.KindPrune:  {next: nextPrune, exclusive: true},
		protocol.KindCheck:  {next: nextCheck, exclusive: true},

		protocol.KindSnapshots: {next: nextSnapshots},
		protocol.KindDiff:      {next: nextDiff},
	}
	p, known := plans[job.Run.Kind]
	if !known {
		return nil, Fail(job.Run.JobID, protocol.ErrUnknownKind,
			fmt.Sprintf("This agent does not know jobs of kind %q.", job.Run.Kind),
			"Update the agent on this host to the server's version.")
	}
	return p.step(job, results)
}

// plan is how jobs of one kind are done.
type plan struct {
	next func(Job, []StepResult) (*Step, *protocol.Finished)
	// exclusive work is refused as long as any lock is there, so it begins
	// with taking away those that dead processes of this host left. next
	// doesn't see that step, and is asked whatever became of it: a lock that
	// is still there says so itself.
	exclusive bool
}

func (p plan) step(job Job, results []StepResult) (*Step, *protocol.Finished) {
	if p.exclusive {
		if len(results) == 0 {
			if end := anyRepository(job); end != nil {
				return nil, end
			}
			return clearStep(""), nil
		}
		results = results[1:]
	}
	return p.next(job, results)
}

// clearStep is restic's plain unlock: it removes the locks of this host's dead
// processes, never one of a process that lives or of another host.
func clearStep(note string) *Step {
	return &Step{Purpose: PurposeClear, Args: unlockArgs(), Document: true, Timeout: asideTimeout, Note: note}
}

// diedNote goes before the clearStep of a restic that died.
const diedNote = "restic died: removing the lock it may have left."

// Fail makes a failed end: a code for programs, cause and remedy for people.
func Fail(jobID, code, cause, remedy string) *protocol.Finished {
	return &protocol.Finished{JobID: jobID, Outcome: protocol.OutcomeFailed, ErrorCode: code, Error: sentences(cause, remedy)}
}

// Cancelled makes the end of a job that was asked to end and left nothing.
func Cancelled(jobID string) *protocol.Finished {
	return &protocol.Finished{
		JobID: jobID, Outcome: protocol.OutcomeCancelled, ErrorCode: protocol.ErrCancelled,
		Error: "The job was cancelled before it was done. Run it again when it suits.",
	}
}

func sentences(cause, remedy string) string { return strings.TrimSpace(cause + " " + remedy) }

// end turns a step that didn't do its work into the job's end.
func end(job Job, r StepResult, stats map[string]any) *protocol.Finished {
	if job.CancelAsked && !r.failedByItself() {
		return Cancelled(job.Run.JobID)
	}
	code, text := explain(job.Run, r)
	f := &protocol.Finished{JobID: job.Run.JobID, Outcome: protocol.OutcomeFailed, ErrorCode: code, Error: text, Stats: stats}
	if !r.Lost && !r.killed() && r.StartError == "" {
		exit := r.ExitCode
		f.ExitCode = &exit
	}
	return f
}

func (r StepResult) is(command string) bool { return len(r.Args) > 0 && r.Args[0] == command }

// Spoke says whether restic has said anything yet but that it tries again; one
// that has not may still be trying to reach its repository.
func (o *Output) Spoke() bool { return o.spoke }

// said is what restic gave as its reason: the JSON message, else plain stderr.
func (o *Output) said() string {
	if o.exitMessage != "" {
		return o.exitMessage
	}
	return strings.TrimSpace(o.stderrTail)
}
