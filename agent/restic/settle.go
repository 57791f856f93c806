package restic

import (
	"fmt"

	"resticfleet/agent/protocol"
)

// nextSettle tells from the repository what became of a job that may have been
// run where this agent doesn't know of it. It starts nothing anew: it looks,
// and takes away the lock that a dead restic of this host may have left.
func nextSettle(job Job, results []StepResult) (*Step, *protocol.Finished) {
	var look, cleared *StepResult
	looks := 0
	for i := range results {
		if results[i].Purpose == PurposeClear {
			cleared = &results[i]
		} else {
			look, looks = &results[i], looks+1
		}
	}
	switch {
	case job.Run.Kind == protocol.KindBackup && (look == nil || askAgain(look, looks)):
		return &Step{Purpose: PurposeSettle, Args: settleArgs(job.Run), Document: true, Timeout: asideTimeout}, nil
	case job.Run.Kind == protocol.KindInit && (look == nil || askAgain(look, looks)):
		return &Step{Purpose: PurposeSettle, Args: catConfigArgs(), Document: true, Timeout: asideTimeout}, nil
	case cleared == nil && job.Run.Kind != protocol.KindUnlock && !onlyLooks(job.Run.Kind) && (look == nil || look.ExitCode == 0):
		return clearStep(""), nil
	}
	switch {
	case look != nil && look.ExitCode == 0 && look.is("cat"):
		return nil, initSettled(job, *look)
	case look != nil && look.ExitCode == 0:
		if s := look.snapshotOf(job.Run.JobID); s != nil {
			return nil, unrecorded(job, *s)
		}
	case look != nil && look.is("cat") && look.ExitCode == 10:
	case look != nil:
		_, why := explain(job.Run, *look)
		return nil, Fail(job.Run.JobID, protocol.ErrInterrupted,
			"The agent's memory of this job was lost, and the repository could not be asked what became of it: "+why, "")
	}
	if job.CancelAsked {
		return nil, Cancelled(job.Run.JobID)
	}
	if left := leaves[job.Run.Kind]; left != "" {
		return nil, Fail(job.Run.JobID, protocol.ErrInterrupted,
			"The agent's memory of this job was lost (its state directory was replaced or rolled back). "+left, "Run it again.")
	}
	return nil, Fail(job.Run.JobID, protocol.ErrInterrupted,
		"The agent's memory of this job was lost (its state directory was replaced or rolled back), and the job left nothing in the repository: nothing was stored.",
		"Run it again.")
}

// leaves says what a job whose end nobody knows may have done. Doing it again is
// harmless: the next one goes on where it ended.
var leaves = map[string]string{
	protocol.KindForget:    "What it has removed stays removed; the next one does the rest.",
	protocol.KindPrune:     "What it has removed stays removed; the next one does the rest.",
	protocol.KindCheck:     "What it has found is not known.",
	protocol.KindSnapshots: "It has changed nothing.",
	protocol.KindDiff:      "It has changed nothing.",
}

func onlyLooks(kind string) bool { return kind == protocol.KindSnapshots || kind == protocol.KindDiff }

func initSettled(job Job, look StepResult) *protocol.Finished {
	return &protocol.Finished{
		JobID: job.Run.JobID, Outcome: protocol.OutcomeSucceeded, ExitCode: new(int), RepositoryID: look.Output.configID(),
		ErrorCode: protocol.ErrAlreadyExists, Error: "The repository exists and opens with these credentials. Nothing was changed.",
	}
}

// unrecorded is the end of a backup whose snapshot is in the repository while
// nothing tells how restic ended.
func unrecorded(job Job, s snapshot) *protocol.Finished {
	return &protocol.Finished{
		JobID: job.Run.JobID, Outcome: protocol.OutcomeWarning, SnapshotID: s.ID, Stats: s.Summary, StartedAt: s.Time,
		ErrorCode: protocol.ErrEndUnrecorded, Error: unrecordedText(s),
	}
}

func unrecordedText(s snapshot) string {
	return fmt.Sprintf("Snapshot %s is in the repository, but how restic ended was not recorded: whether some files could not be read is not known. "+
		"Look at the job's log, or run the backup again to be sure.", short(s.ID))
}
