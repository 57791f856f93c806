package restic

import (
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"resticfleet/agent/protocol"
)

// nextUnlock lists the locks, removes those of dead processes of this host
// (restic's plain unlock; never --remove-all), lists them again because unlock
// itself says nothing, and names who holds what is left.
func nextUnlock(job Job, results []StepResult) (*Step, *protocol.Finished) {
	args := [][]string{listLocksArgs(), unlockArgs(), listLocksArgs()}
	for _, r := range results {
		if r.ExitCode != 0 && !r.is("cat") {
			return nil, end(job, r, nil)
		}
	}
	if len(results) < len(args) {
		if job.CancelAsked && len(results) < 2 {
			return nil, Cancelled(job.Run.JobID)
		}
		return &Step{Purpose: PurposeMain, Args: args[len(results)], Document: true}, nil
	}
	before, left := results[0].Output.ids(), results[2].Output.ids()
	const named = 3
	if asked := len(results) - len(args); asked < min(len(left), named) {
		return &Step{Purpose: PurposeSettle, Args: catLockArgs(left[asked]), Document: true, Timeout: asideTimeout}, nil
	}
	removed := 0
	for _, id := range before {
		if !contains(left, id) {
			removed++
		}
	}
	done := &protocol.Finished{
		JobID: job.Run.JobID, Outcome: protocol.OutcomeSucceeded, ExitCode: new(int),
		Stats: map[string]any{"locks_removed": removed, "locks_left": len(left)},
	}
	if len(left) > 0 {
		var owners []string
		for _, r := range results[len(args):] {
			if owner := r.Output.lockOwner(); owner != "" {
				owners = append(owners, owner)
			}
		}
		done.ErrorCode = protocol.ErrLocked
		done.Error = fmt.Sprintf("%d locks removed, %d left because another process may still be working: %s. "+
			"Wait for it to end, or run unlock on the host that holds the lock.", removed, len(left), strings.Join(owners, "; "))
	}
	return nil, done
}

func (o *Output) ids() []string {
	var ids []string
	for _, line := range strings.Fields(o.text.String()) {
		if len(line) == 64 && strings.Trim(line, "0123456789abcdef") == "" {
			ids = append(ids, line)
		}
	}
	return ids
}

func (o *Output) lockOwner() string {
	var lock struct {
		Time      time.Time `json:"time"`
		Exclusive bool      `json:"exclusive"`
		Hostname  string    `json:"hostname"`
		Username  string    `json:"username"`
		PID       int       `json:"pid"`
	}
	if json.Unmarshal([]byte(o.text.String()), &lock) != nil || lock.Hostname == "" {
		return ""
	}
	kind := "shared"
	if lock.Exclusive {
		kind = "exclusive"
	}
	return fmt.Sprintf("%s lock of %s@%s (process %d) since %s", kind, lock.Username, lock.Hostname, lock.PID, lock.Time.UTC().Format(time.RFC3339))
}
