package restic

import (
	"encoding/json"
	"slices"
	"strings"

	"resticfleet/agent/protocol"
)

func nextInit(job Job, results []StepResult) (*Step, *protocol.Finished) {
	look := &Step{Purpose: PurposeMain, Args: catConfigArgs(), Document: true}
	if len(results) == 0 {
		return look, nil
	}
	isClear := func(r StepResult) bool { return r.Purpose == PurposeClear }
	cleared := slices.ContainsFunc(results, isClear)
	results = slices.DeleteFunc(slices.Clone(results), isClear)
	last := results[len(results)-1]
	inited := false
	for _, r := range results {
		inited = inited || r.is("init")
	}
	switch {
	case last.killed() && last.is("init") && !cleared:
		return clearStep(diedNote), nil
	case last.Lost && len(results) < 4 && !job.CancelAsked:
		// Looking again is harmless, and the repository knows what became of
		// an init that nobody saw ending.
		look.Note = "Asking the repository what became of the last step."
		return look, nil
	case last.is("cat") && last.ExitCode == 0 && !cleared:
		// A host that comes back to its repository may have died in it.
		return clearStep(""), nil
	case last.is("cat") && last.ExitCode == 0:
		id := last.Output.configID()
		if id == "" {
			return nil, Fail(job.Run.JobID, protocol.ErrRestic, "The repository's configuration could not be read.",
				"Check the repository with restic check.")
		}
		done := &protocol.Finished{JobID: job.Run.JobID, Outcome: protocol.OutcomeSucceeded, ExitCode: new(int), RepositoryID: id}
		if !inited || initExists(results) {
			done.ErrorCode = protocol.ErrAlreadyExists
			done.Error = "The repository already exists and opens with these credentials. Nothing was changed."
		}
		return nil, done
	case last.is("cat") && last.ExitCode == 10 && !inited:
		if job.CancelAsked {
			return nil, Cancelled(job.Run.JobID)
		}
		return &Step{Purpose: PurposeMain, Args: initArgs()}, nil
	case last.is("cat") && last.ExitCode == 10:
		// Asked after an init that nobody saw ending: it made nothing.
		return nil, end(job, results[len(results)-2], nil)
	case last.is("init") && last.ExitCode == 0:
		return nil, &protocol.Finished{JobID: job.Run.JobID, Outcome: protocol.OutcomeSucceeded, ExitCode: new(int), RepositoryID: last.Output.initialized}
	case last.is("init") && initExists(results):
		// restic says so with a wrong password too: only opening it tells.
		look.Note = "The repository appeared meanwhile: trying these credentials on it."
		return look, nil
	}
	return nil, end(job, last, nil)
}

func initExists(results []StepResult) bool {
	for _, r := range results {
		if r.is("init") && r.ExitCode == 1 && strings.Contains(r.Output.said(), "config file already exists") {
			return true
		}
	}
	return false
}

func (o *Output) configID() string {
	var config struct {
		ID string `json:"id"`
	}
	if json.Unmarshal([]byte(o.text.String()), &config) != nil {
		return ""
	}
	return config.ID
}
