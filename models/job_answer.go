package models

import (
	"context"
	"encoding/json"
	"fmt"

	"resticfleet/agent/protocol"
)

// maxAnswers bounds the pieces of one look-up's answer; an agent cuts them just
// below a frame.
const maxAnswers = 1000

// JobAnswer keeps a piece of what a look-up found, once, until the job ends.
func JobAnswer(ctx context.Context, tx IDB, host HostID, m protocol.Answer) error {
	j, err := agentJob(ctx, tx, host, m.JobID)
	if err != nil {
		return err
	}
	if j.State.Ended() && j.State != JobLost && j.State != JobExpired {
		return nil // repeated after its end
	}
	if m.Seq < 1 || m.Seq > maxAnswers {
		return Invalid("seq", "is out of bounds: an answer has at most %d pieces", maxAnswers)
	}
	items := make([]any, 0, len(m.Items))
	for _, raw := range m.Items {
		var item any
		if err := json.Unmarshal(raw, &item); err != nil {
			return Invalid("items", "are not JSON")
		}
		items = append(items, cleanJSON(item))
	}
	_, err = tx.ExecContext(ctx, "insert into job_answers (job_id, seq, items) values (?, ?, ?) on conflict do nothing", j.ID, m.Seq, jsonb{items})
	if err != nil {
		return fmt.Errorf("job answer: %w", err)
	}
	return nil
}
