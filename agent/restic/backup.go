package restic

import (
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"resticfleet/agent/failpoint"
	"resticfleet/agent/protocol"
)

func nextBackup(job Job, results []StepResult) (*Step, *protocol.Finished) {
	var main *StepResult
	var settled, cleared *StepResult
	mains, asks := 0, 0
	for i := range results {
		switch results[i].Purpose {
		case PurposeMain:
			main, mains = &results[i], mains+1
		case PurposeSettle:
			settled, asks = &results[i], asks+1
		case PurposeClear:
			cleared = &results[i]
		}
	}
	if main == nil {
		return &Step{Purpose: PurposeMain, Args: backupArgs(job.Run, job.IncludesFile, job.Run.Parent)}, nil
	}
	if mains == 1 && job.Run.Parent != "" && parentGone(*main) && !job.CancelAsked {
		return &Step{
			Purpose: PurposeMain, Args: backupArgs(job.Run, job.IncludesFile, ""),
			Note: "The parent snapshot " + short(job.Run.Parent) + " no longer exists: backing up without it.",
		}, nil
	}

	if main.died() && cleared == nil {
		return clearStep(diedNote), nil
	}
	var found *snapshot
	if main.Output.snapshotID == "" {
		if (settled == nil && inDoubt(*main)) || askAgain(settled, asks) {
			return &Step{Purpose: PurposeSettle, Args: settleArgs(job.Run), Document: true, Timeout: asideTimeout,
				Note: "Asking the repository whether the snapshot of this job exists."}, nil
		}
		if settled != nil {
			found = settled.snapshotOf(job.Run.JobID)
		}
	}
	if found == nil && main.Output.snapshotID == "" && failpoint.Planted(failpoint.InventSnapshot) {
		main.Output.snapshotID = strings.Repeat("0", 64)
	}
	return nil, backupEnd(job, *main, settled, found)
}

// maxAsks is how often the repository is asked about a job.
const maxAsks = 3

// askAgain: the restic that asked died, which tells nothing of the job.
func askAgain(answer *StepResult, asks int) bool {
	return answer != nil && answer.died() && asks < maxAsks
}

// inDoubt: a snapshot may exist that nobody heard of. restic opened the
// repository and didn't come to a plain end, or it says that all went well and
// its summary is missing, as where the disk with its output was full. Not so
// where the agent gave up on a backend that never answered, though restic says
// a word when it is interrupted: asking would only wait as long once more.
func inDoubt(r StepResult) bool {
	if r.StartError != "" || (r.Interrupt == InterruptUnreachable && !r.Output.answered) {
		return false
	}
	return r.Lost || r.ExitCode == 0 || r.ExitCode == 3 || ((r.killed() || r.ExitCode == 130) && r.Output.spoke)
}

// backupEnd makes the end of a backup. found is the snapshot that only the
// repository tells of: restic itself never said that it was done.
func backupEnd(job Job, main StepResult, settled *StepResult, found *snapshot) *protocol.Finished {
	end := &protocol.Finished{JobID: job.Run.JobID, SnapshotID: main.Output.snapshotID, Stats: main.Output.summary, Unreadable: main.Output.unreadable}
	if found != nil {
		end.SnapshotID, end.Stats = found.ID, found.Summary
	}
	if !main.Lost && !main.killed() && main.StartError == "" {
		code := main.ExitCode
		end.ExitCode = &code
	}
	known := end.SnapshotID != "" && (main.ExitCode == 0 || main.ExitCode == 3 ||
		main.Lost || main.killed() || main.ExitCode == 130)
	switch {
	case known && (main.ExitCode == 3 || main.Output.errorCount > 0):
		end.Outcome, end.ErrorCode = protocol.OutcomeWarning, protocol.ErrUnreadable
		end.Error = unreadableText(main.Output)
	// Not where a cancel met it: a snapshot that came first is a success.
	case known && found != nil && main.ExitCode != 0 && !job.CancelAsked:
		end.Outcome, end.ErrorCode = protocol.OutcomeWarning, protocol.ErrEndUnrecorded
		end.Error = unrecordedText(*found)
	case known:
		end.Outcome = protocol.OutcomeSucceeded
	case job.CancelAsked && !main.failedByItself():
		cancelled := Cancelled(job.Run.JobID)
		end.Outcome, end.ErrorCode, end.Error = cancelled.Outcome, cancelled.ErrorCode, cancelled.Error
	case main.ExitCode == 0:
		end.Outcome, end.ErrorCode = protocol.OutcomeFailed, protocol.ErrSnapshotMissing
		end.Error = "restic ended without an error but named no snapshot. Read the job's log, and check the repository before relying on this backup."
	default:
		end.Outcome = protocol.OutcomeFailed
		end.ErrorCode, end.Error = explain(job.Run, main)
	}
	if end.Outcome == protocol.OutcomeFailed && settled != nil && (settled.ExitCode != 0 || settled.Lost) {
		_, why := explain(job.Run, *settled)
		end.Error += " The repository could not be asked whether the snapshot exists: " + why
	}
	return end
}

// failedByItself: restic came to an end of its own that isn't the cancel's. A
// cancel that found the job already failing doesn't hide the reason.
func (r StepResult) failedByItself() bool {
	return r.Interrupt != InterruptCancel && !r.Lost && !r.killed() && r.ExitCode != 130
}

// parentGone: restic says so in two ways, for an id that nothing begins with
// and for a full one whose file isn't there.
func parentGone(r StepResult) bool {
	said := r.Output.said()
	return r.ExitCode == 1 && r.Output.snapshotID == "" &&
		(strings.Contains(said, "no matching ID found") || strings.Contains(said, "failed to load snapshot"))
}

func unreadableText(o *Output) string {
	names := o.unreadable
	count := fmt.Sprintf("%d files or folders", len(names))
	switch {
	case len(names) == 0:
		return "Some files could not be read; the snapshot holds everything else. " +
			"See the job's log for their names, make them readable for the agent's account, or exclude them."
	case len(names) == 1:
		count = "One file or folder"
	case len(names) == maxUnreadable:
		count = "At least " + count
	}
	shown := strings.Join(names[:min(len(names), 3)], ", ")
	if len(names) > 3 {
		shown += " and others"
	}
	return fmt.Sprintf("%s could not be read; the snapshot holds everything else: %s. "+
		"Make them readable for the agent's account, or exclude them.", count, shown)
}

// snapshot is one of restic's, as a settle step finds it. Summary are the
// figures that restic 0.17 and newer keep in it, under their own names.
type snapshot struct {
	ID      string         `json:"id"`
	Time    time.Time      `json:"time"`
	Tags    []string       `json:"tags"`
	Summary map[string]any `json:"summary"`
}

// snapshotOf reads a settle step's answer: the job's snapshot, nil for none. The
// filter's answer is checked again, since success hangs on it.
func (r StepResult) snapshotOf(jobID string) *snapshot {
	var snapshots []snapshot
	if r.ExitCode != 0 || json.Unmarshal([]byte(r.Output.text.String()), &snapshots) != nil {
		return nil
	}
	for _, s := range snapshots {
		if contains(s.Tags, protocol.JobTagPrefix+jobID) {
			return &s
		}
	}
	return nil
}
