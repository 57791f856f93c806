package agent

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"os"

	"resticfleet/agent/protocol"
	"resticfleet/agent/restic"
)

// answerBytes is how much of a look-up's answer goes into one message, and the
// most that one item of it may have.
const answerBytes = 256 << 10

// answer writes down what a look-up has found, in the pieces in which it is told,
// and says how many they are. It is done before the job's end is written down;
// after a crash in between the same is found again.
func (w *worker) answer(items []any) (pieces int64, left int, err error) {
	if len(items) == 0 {
		return 0, 0, nil
	}
	var out, piece bytes.Buffer
	cut := func() {
		if piece.Len() > 0 {
			out.WriteByte('[')
			out.Write(piece.Bytes())
			out.WriteString("]\n")
			pieces++
			piece.Reset()
		}
	}
	for _, item := range items {
		raw, err := json.Marshal(w.scrub.Item(item))
		if err != nil {
			return 0, 0, err
		}
		if len(raw) > answerBytes {
			left++ // the rest must arrive
			continue
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
	return pieces, left, w.r.reserve.spend(func() error { return writeDurably(w.j.dir.answer(), out.Bytes()) })
}

// Answer reads a piece of what a job that has ended found; nil where it is gone.
func (r *Runner) Answer(jobID string, seq int64) ([]json.RawMessage, error) {
	f, err := os.Open(r.runDir(jobID).answer())
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }() // only read
	for lines, n := bufio.NewReader(f), int64(1); ; n++ {
		line, err := lines.ReadBytes('\n')
		switch {
		case errors.Is(err, io.EOF):
			return nil, nil
		case err != nil:
			return nil, err
		case n == seq:
			var items []json.RawMessage
			return items, json.Unmarshal(line, &items)
		}
	}
}

// concluded completes the end of a look-up with what it has found.
func (w *worker) concluded(job restic.Job, results []restic.StepResult, end *protocol.Finished) *protocol.Finished {
	if end.Outcome != protocol.OutcomeSucceeded {
		return end
	}
	pieces, left, err := w.answer(restic.Found(job, results))
	if err != nil {
		return w.r.agentFault(w.j, err)
	}
	if left > 0 {
		if end.Stats == nil {
			end.Stats = map[string]any{}
		}
		end.Stats["items_left_out"] = left
	}
	end.LastAnswerSeq = pieces
	return end
}
