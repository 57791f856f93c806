package restic

import (
	"encoding/json"
	"errors"
	"slices"
	"strings"

	"resticfleet/agent/protocol"
)

// maxChanges is how many lines of a diff an answer has.
const maxChanges = 5000

// nextSnapshots lists the host's snapshots, or asks what a policy would do.
func nextSnapshots(job Job, results []StepResult) (*Step, *protocol.Finished) {
	preview := job.Run.Preview
	if preview == nil {
		return look(job, results, listArgs(job.Run))
	}
	if i := slices.IndexFunc(results, StepResult.keepsNothing); i >= 0 {
		return look(job, results[i+1:], listArgs(job.Run, preview.Tags...)) // all of these would go
	}
	return look(job, results, planArgs(job.Run, *preview))
}

// nextDiff compares two snapshots.
func nextDiff(job Job, results []StepResult) (*Step, *protocol.Finished) {
	return look(job, results, diffArgs(job.Run))
}

func look(job Job, results []StepResult, args []string) (*Step, *protocol.Finished) {
	s := script{job: job, results: results}
	r, step, cancelled := s.look(Step{Purpose: PurposeMain, Args: args, Document: true})
	switch {
	case step != nil || cancelled != nil:
		return step, cancelled
	case r.ExitCode != 0:
		return nil, end(job, *r, nil)
	}
	_, stats, err := found(job, *r)
	if err != nil {
		return nil, Fail(job.Run.JobID, protocol.ErrRestic, err.Error(), "Ask again; see the job's log if it happens again.")
	}
	return nil, &protocol.Finished{JobID: job.Run.JobID, Outcome: protocol.OutcomeSucceeded, ExitCode: new(int), Stats: stats}
}

// Found is what a look-up that succeeded has to answer, item by item; nil for
// any other job. Like Next it gives the same for the same results.
func Found(job Job, results []StepResult) []any {
	if !LooksUp(job.Run) || len(results) == 0 {
		return nil
	}
	items, _, err := found(job, results[len(results)-1])
	if err != nil {
		return nil // the job has failed by it
	}
	return items
}

// LooksUp says whether a command only looks, beside whatever else is done.
func LooksUp(run protocol.Run) bool {
	return !run.Settle && onlyLooks(run.Kind)
}

func found(job Job, r StepResult) (items []any, stats map[string]any, err error) {
	switch {
	case job.Run.Kind == protocol.KindDiff:
		return r.Output.changes()
	case job.Run.Preview != nil && r.is("forget"):
		plan, err := r.Output.plan()
		return anys(plan), nil, err
	}
	list, err := r.Output.snapshots()
	if job.Run.Preview != nil {
		var plan []protocol.PlanItem
		for _, s := range list {
			plan = append(plan, protocol.PlanItem{Snapshot: s})
		}
		return anys(plan), nil, err
	}
	return anys(list), nil, err
}

func anys[T any](list []T) []any {
	out := make([]any, len(list))
	for i, one := range list {
		out[i] = one
	}
	return out
}

// changes reads restic diff --json. The statistics are restic's, with the number
// of changes that are left out.
func (o *Output) changes() (items []any, stats map[string]any, err error) {
	if o.overflowed {
		return nil, nil, o.read(nil)
	}
	left := 0
	for line := range strings.Lines(o.text.String()) {
		var m struct {
			Type     string `json:"message_type"`
			Path     string `json:"path"`
			Modifier string `json:"modifier"`
		}
		if json.Unmarshal([]byte(line), &m) != nil {
			continue // restic's words to people
		}
		switch {
		case m.Type == "statistics":
			if err := json.Unmarshal([]byte(line), &stats); err != nil {
				return nil, nil, err
			}
			delete(stats, "message_type")
		case m.Type == "change" && len(items) >= maxChanges:
			left++
		case m.Type == "change":
			items = append(items, protocol.Change{Path: clip(m.Path, false), Modifier: m.Modifier})
		}
	}
	if stats == nil {
		return nil, nil, errors.New("restic's comparison came without its end.") //nolint:staticcheck // a sentence for a person
	}
	if left > 0 {
		stats["changes_left_out"] = left
	}
	return items, stats, nil
}
