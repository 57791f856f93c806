package agent

import (
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"strings"

	"resticfleet/agent/protocol"
	"resticfleet/agent/restic"
)

// answerBytes is how much of a look-up's answer goes into one message, and the
// most that one item of it may have.
const answerBytes = 256 << 10

// answer writes down what a look-up has found, in the pieces in which it is told,
// and says how many they are. It is done before the job's end is written down;
// after a crash in between the same is found again.
func (w *worker) answer(items []any) (pieces int64, err error) {
	if len(items) == 0 {
		return 0, nil
	}
	var out, piece strings.Builder
	cut := func() {
		if piece.Len() > 0 {
			out.WriteString("[" + piece.String() + "]\n")
			pieces++
			piece.Reset()
		}
	}
	for _, item := range items {
		raw, err := json.Marshal(item)
		if err != nil {
			return 0, err
		}
		if len(raw) > answerBytes {
			continue // no snapshot has that many paths; the rest must arrive
		}
		if piece.Len()+len(raw) > answerBytes {
			cut()
		}
		if piece.Len() > 0 {
			piece.WriteByte(',')
		}
		piece.Write(raw)
	}
	cut()
	return pieces, w.r.reserve.spend(func() error { return writeAtomically(w.j.dir.answer(), []byte(w.scrub.Text(out.String()))) })
}

// Answer reads a piece of what a job that has ended found; nil where it is gone.
func (r *Runner) Answer(jobID string, seq int64) ([]json.RawMessage, error) {
	raw, err := os.ReadFile(r.runDir(jobID).answer())
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	n := int64(0)
	for line := range strings.Lines(string(raw)) {
		if n++; n == seq {
			var items []json.RawMessage
			return items, json.Unmarshal([]byte(line), &items)
		}
	}
	return nil, nil
}

// concluded completes the end of a look-up with what it has found.
func (w *worker) concluded(job restic.Job, results []restic.StepResult, end *protocol.Finished) *protocol.Finished {
	if end.Outcome != protocol.OutcomeSucceeded {
		return end
	}
	pieces, err := w.answer(restic.Found(job, results))
	if err != nil {
		return w.r.agentFault(w.j, err)
	}
	end.LastAnswerSeq = pieces
	return end
}
