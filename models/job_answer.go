package models

import (
	"context"
	"encoding/json"
	"fmt"
	"regexp"
	"strings"
	"time"

	"resticfleet/agent/protocol"
)

// The bounds of a look-up's answer. An agent cuts pieces below a frame; of one
// snapshot no more is kept than a page and a filter need.
const (
	maxAnswers       = 1000
	maxAnswerItems   = 20_000 // in a piece
	maxSnapshotPaths = 1000
	maxSnapshotTags  = 200
	maxSnapshotText  = 400
)

// answerBound is how much of one job's answer is kept until it ends.
type answerBound struct{ items, bytes int }

// A list of 100,000 snapshots has about 50 MiB, one of each hour for ten years 40.
// A plan is one group's, and one server reads it whole.
var (
	listBound = answerBound{items: 1_000_000, bytes: 256 << 20}
	planBound = answerBound{items: 50_000, bytes: 32 << 20}
)

// JobAnswer keeps a piece of what a look-up found, once, until the job ends.
// Whatever an agent sends, only what can be stored and shown comes through; a
// piece with something in it that can't be a snapshot or a change is refused, and
// so is one beyond what is kept of an answer: it is incomplete without.
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
	if len(m.Items) > maxAnswerItems {
		return Invalid("items", "are more than %d: send smaller pieces", maxAnswerItems)
	}
	read, most := anyItem, listBound
	switch {
	case j.Spec.Preview != nil:
		read, most = planItem, planBound
	case j.Kind == KindSnapshots:
		read = snapshotItem
	case j.Kind == KindDiff:
		read = changeItem
	}
	items := make([]any, 0, len(m.Items))
	for _, raw := range m.Items {
		item, err := read(raw)
		if err != nil {
			return err
		}
		items = append(items, item)
	}
	text, err := json.Marshal(items)
	if err != nil {
		return fmt.Errorf("job answer: %w", err)
	}
	var has answerBound
	err = tx.QueryRowContext(ctx, "select coalesce(sum(item_count), 0), coalesce(sum(bytes), 0) from job_answers where job_id = ? and seq <> ?", j.ID, m.Seq).Scan(&has.items, &has.bytes)
	if err != nil {
		return fmt.Errorf("job answer: %w", err)
	}
	if has.items+len(items) > most.items || has.bytes+len(text) > most.bytes {
		return Invalid("items", "are too many: an answer may have %s items and %d MiB in all", english.Sprint(most.items), most.bytes>>20)
	}
	_, err = tx.ExecContext(ctx, "insert into job_answers (job_id, seq, items, item_count, bytes) values (?, ?, ?::jsonb, ?, ?) on conflict do nothing",
		j.ID, m.Seq, string(text), len(items), len(text))
	if err != nil {
		return fmt.Errorf("job answer: %w", err)
	}
	return nil
}

func anyItem(raw json.RawMessage) (any, error) {
	var item any
	if err := json.Unmarshal(raw, &item); err != nil {
		return nil, Invalid("items", "are not JSON")
	}
	return cleanJSON(item), nil
}

func planItem(raw json.RawMessage) (any, error) {
	if err := json.Unmarshal(raw, &protocol.PlanItem{}); err != nil {
		return nil, Invalid("items", "hold something that is not part of a plan")
	}
	return anyItem(raw)
}

// listedSnapshot is a snapshot as reconcile reads it.
type listedSnapshot struct {
	ID        string    `json:"id"`
	At        time.Time `json:"at"`
	Hostname  string    `json:"hostname"`
	Username  string    `json:"username"`
	Paths     []string  `json:"paths"`
	Tags      []string  `json:"tags"`
	JobID     *JobID    `json:"job_id"`
	SizeBytes *int64    `json:"size_bytes"`
	FileCount *int64    `json:"file_count"`
}

func snapshotItem(raw json.RawMessage) (any, error) {
	var m protocol.Snapshot
	if err := json.Unmarshal(raw, &m); err != nil || !resticID.MatchString(m.ID) {
		return nil, Invalid("items", "hold something that is not a snapshot")
	}
	s := listedSnapshot{
		ID: m.ID, At: within(m.Time), Hostname: CleanText(m.Hostname, maxSnapshotText), Username: CleanText(m.Username, maxSnapshotText),
		Paths: cleanTexts(m.Paths, maxSnapshotPaths, maxPathLength), Tags: cleanTexts(m.Tags, maxSnapshotTags, maxSnapshotText),
		SizeBytes: atLeastZero(m.SizeBytes), FileCount: atLeastZero(m.FileCount),
	}
	for _, tag := range s.Tags {
		if id, ok := strings.CutPrefix(tag, protocol.JobTagPrefix); ok {
			if job, err := ParseID[JobID](id); err == nil {
				s.JobID = &job
			}
		}
	}
	return s, nil
}

// within keeps a time where databases, pages and people can follow: restic
// takes any from its user.
func within(t time.Time) time.Time {
	first, last := time.Unix(0, 0), time.Date(9000, 1, 1, 0, 0, 0, 0, time.UTC)
	switch {
	case t.Before(first):
		return first.UTC()
	case t.After(last):
		return last
	}
	return t.UTC().Truncate(time.Microsecond)
}

func cleanTexts(texts []string, most, limit int) []string {
	out := []string{}
	for _, t := range texts[:min(len(texts), most)] {
		out = append(out, CleanText(t, limit))
	}
	return out
}

func atLeastZero(n *int64) *int64 {
	if n == nil || *n < 0 {
		return nil
	}
	return n
}

var modifier = regexp.MustCompile(`^[-+MTUC?]{1,8}$`)

func changeItem(raw json.RawMessage) (any, error) {
	var c protocol.Change
	if err := json.Unmarshal(raw, &c); err != nil || !modifier.MatchString(c.Modifier) {
		return nil, Invalid("items", "hold something that is not a change")
	}
	c.Path = CleanText(c.Path, maxPathLength)
	return c, nil
}

// completeAnswer makes a failure of a look-up's good end where pieces of its
// answer are missing: what isn't in half a list is not gone.
func completeAnswer(ctx context.Context, tx IDB, j *Job, m *protocol.Finished) error {
	if !j.looksUp() || outcomeOf(j, *m) != protocol.OutcomeSucceeded {
		return nil
	}
	var pieces, last int64
	err := tx.QueryRowContext(ctx, "select count(*), coalesce(max(seq), 0) from job_answers where job_id = ?", j.ID).Scan(&pieces, &last)
	if err != nil {
		return fmt.Errorf("complete answer: %w", err)
	}
	if pieces != m.LastAnswerSeq || last != m.LastAnswerSeq {
		m.Outcome, m.ErrorCode = protocol.OutcomeFailed, protocol.ErrAnswerIncomplete
		m.Error = fmt.Sprintf("The host sent %d pieces of its answer and %d of them could be kept. What was known before stays. Ask again.", m.LastAnswerSeq, pieces)
	}
	return nil
}

// looksUp reports whether a job only answers a question.
func (j *Job) looksUp() bool { return j.Kind == KindSnapshots || j.Kind == KindDiff }

// keepAnswer makes what was asked for of a look-up's answer, and drops the
// answer.
func keepAnswer(ctx context.Context, tx IDB, host *Host, j *Job) error {
	if !j.looksUp() || j.Spec.Preview != nil {
		return nil
	}
	repo, err := FindRepository(ctx, tx, host.ID)
	if err != nil && CodeOf(err) != ENotFound {
		return err
	}
	// An answer about a former repository says nothing of this one.
	if j.State == JobSucceeded && repo != nil && j.InItsRepository(repo) {
		if j.Kind == KindDiff {
			err = keepDiff(ctx, tx, j)
		} else {
			err = reconcileSnapshots(ctx, tx, host, repo, j)
		}
		if err != nil {
			return err
		}
	}
	if _, err := tx.ExecContext(ctx, "delete from job_answers where job_id = ?", j.ID); err != nil {
		return fmt.Errorf("drop answer: %w", err)
	}
	return nil
}

// lookUpKept is how long a look-up stays that another one came after.
const lookUpKept = 7 * 24 * time.Hour

// SweepLookUps removes ended look-ups, which stand in no list and of which one
// follows every backup. The newest of each host and kind stays: pages say how
// it went.
func SweepLookUps(ctx context.Context, db IDB) error {
	for {
		res, err := db.ExecContext(ctx, `delete from jobs where id in (
			select j.id from jobs j where `+lookUps+` and j.id < ? and j.finished_at < now() - ?::interval
				and exists (select from jobs n where n.host_id = j.host_id and n.kind = j.kind and n.id > j.id)
			limit ?)`, firstID(time.Now().Add(clockSlack-lookUpKept)), interval(lookUpKept), sweptAtOnce)
		if err != nil {
			return fmt.Errorf("sweep look-ups: %w", err)
		}
		if n, _ := res.RowsAffected(); n < sweptAtOnce {
			return nil
		}
	}
}

// sweptAtOnce keeps a delete's transaction short.
const sweptAtOnce = 5000
