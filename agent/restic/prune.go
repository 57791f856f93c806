package restic

import (
	"maps"
	"regexp"
	"strconv"

	"resticfleet/agent/protocol"
)

// nextPrune removes from the repository what no snapshot needs any more. What a
// killed one left is for the next one to take away: restic deletes nothing
// before a new index is stored.
func nextPrune(job Job, results []StepResult) (*Step, *protocol.Finished) {
	s := script{job: job, results: results}
	if step, end := sameRepository(&s); step != nil || end != nil {
		return step, end
	}
	return alone(&s, pruneArgs())
}

// nextCheck verifies the repository, and reads of its data what the command
// names.
func nextCheck(job Job, results []StepResult) (*Step, *protocol.Finished) {
	return alone(&script{job: job, results: results}, checkArgs(job.Run))
}

// alone runs the one restic that the job is.
func alone(s *script, args []string) (*Step, *protocol.Finished) {
	r, step, cancelled := s.unlessCancelled(s.take(Step{Purpose: PurposeMain, Args: args}))
	if step != nil || cancelled != nil {
		return step, cancelled
	}
	if r.died() {
		if _, step := s.take(*clearStep(diedNote)); step != nil {
			return step, nil
		}
	}
	stats := r.Output.figures
	if r.ExitCode != 0 {
		stats = nil // what it was about to do
	}
	if s.job.Run.ReadDataSubset != "" {
		stats = map[string]any{"read_data_subset": s.job.Run.ReadDataSubset}
	}
	if r.ExitCode == 0 {
		return nil, &protocol.Finished{JobID: s.job.Run.JobID, Outcome: protocol.OutcomeSucceeded, ExitCode: new(int), Stats: stats}
	}
	finished := end(s.job, *r, stats)
	if n := r.Output.found; n > 0 && finished.ErrorCode == protocol.ErrDamaged && r.is("check") {
		finished.Stats = maps.Clone(finished.Stats)
		if finished.Stats == nil {
			finished.Stats = map[string]any{}
		}
		finished.Stats["num_errors"] = n
	}
	return nil, finished
}

// checkError is a line by which check tells of one error, as its JSON summary
// would count them in num_errors. That form of its output has no progress.
var checkError = regexp.MustCompile(`^(?:error: |pack [0-9a-f]{64}[ :]|  \S|download error: |check successful on second attempt)`)

// restic says how far it is, and what it has done, in plain lines.
var (
	progressLine = regexp.MustCompile(`^\[(?:\d+:)?\d+:\d\d\]\s+(\d+(?:\.\d+)?)%\s+(\d+) / (\d+) (\S.*)$`)
	figureLine   = regexp.MustCompile(`^(to repack|this removes|to delete|total prune|remaining|unused size after prune):\s+(?:(\d+) blobs / )?(\d+(?:\.\d+)? (?:B|KiB|MiB|GiB|TiB))\b`)
	bytesText    = regexp.MustCompile(`^(\d+(?:\.\d+)?) (B|KiB|MiB|GiB|TiB)$`)
)

// plainProgress reads a line like "[0:01] 50.00%  1 / 2 packs repacked".
func plainProgress(line string) *protocol.Progress {
	m := progressLine.FindStringSubmatch(line)
	if m == nil {
		return nil
	}
	percent, err := strconv.ParseFloat(m[1], 64)
	if err != nil {
		return nil
	}
	return &protocol.Progress{Percent: min(percent, 100), CurrentFiles: []string{m[4] + ": " + m[2] + " of " + m[3]}}
}

// figure keeps what prune says of its work, under plain names, in bytes.
func (o *Output) figure(line string) {
	m := figureLine.FindStringSubmatch(line)
	if m == nil {
		return
	}
	name := map[string]string{"to repack": "repacked_bytes", "total prune": "removed_bytes", "remaining": "remaining_bytes", "unused size after prune": "unused_bytes"}[m[1]]
	n, ok := parseBytes(m[3])
	if name == "" || !ok {
		return
	}
	if o.figures == nil {
		o.figures = map[string]any{}
	}
	o.figures[name] = n
}

func parseBytes(text string) (int64, bool) {
	m := bytesText.FindStringSubmatch(text)
	if m == nil {
		return 0, false
	}
	f, err := strconv.ParseFloat(m[1], 64)
	if err != nil {
		return 0, false
	}
	shift := map[string]int{"B": 0, "KiB": 10, "MiB": 20, "GiB": 30, "TiB": 40}[m[2]]
	f *= float64(int64(1) << shift)
	if f > 1<<62 {
		return 0, false
	}
	return int64(f), true
}
