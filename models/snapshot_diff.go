package models

import (
	"cmp"
	"context"
	"fmt"
	"math"
	"strings"
	"time"

	"github.com/uptrace/bun"

	"resticfleet/agent/protocol"
)

const (
	// maxChanges is how many changes between two snapshots are kept.
	maxChanges = 5000
	// maxDiffs is how many comparisons of a host are kept, the newest.
	maxDiffs = 50
)

// SnapshotDiff is what differs between two snapshots of a host. Stats are
// restic's, whole; More is how many changes there are besides Changes.
type SnapshotDiff struct {
	bun.BaseModel `bun:"table:snapshot_diffs"`

	HostID       HostID `bun:",pk"`
	Older, Newer string
	Stats        map[string]any    `bun:"type:jsonb"`
	Changes      []protocol.Change `bun:"type:jsonb"`
	More         int64
}

// Ordered is two snapshots, the older first.
func Ordered(a, b *Snapshot) (older, newer *Snapshot) {
	if b.At.Before(a.At) || (b.At.Equal(a.At) && b.ID < a.ID) {
		return b, a
	}
	return a, b
}

// FindDiff is what is known of the difference between two snapshots, nil for
// nothing yet.
func FindDiff(ctx context.Context, db IDB, older, newer *Snapshot) (*SnapshotDiff, error) {
	d := &SnapshotDiff{}
	err := db.NewSelect().Model(d).Where("host_id = ? and older = ? and newer = ?", older.HostID, older.ID, newer.ID).Scan(ctx)
	if isNoRows(err) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("find diff: %w", err)
	}
	return d, nil
}

// AskDiff has the host's agent compare two snapshots; a comparison of them that
// has not ended is that one. One that has just failed is not repeated unless
// asked for: it is EUnavailable with the reason, and when to ask again.
func AskDiff(ctx context.Context, db *DB, older, newer *Snapshot, again bool, actor Actor) (*Job, error) {
	if older.ID == newer.ID {
		return nil, Invalid("against", "is the same snapshot: choose another one")
	}
	var made JobID
	err := Tx(ctx, db, func(tx IDB) error {
		h, err := lockHost(ctx, tx, older.HostID)
		if err != nil {
			return err
		}
		repo, err := repositoryToAsk(ctx, tx, h)
		if err != nil {
			return err
		}
		last, err := LastDiffJob(ctx, tx, older, newer)
		switch {
		case err != nil:
			return err
		case last != nil && !last.State.Ended():
			made = last.ID
			return nil
		case last != nil && !again:
			if err := diffFailed(last, time.Now()); err != nil {
				return err
			}
		}
		j := hostJob(h.ID, KindDiff, actor, repo)
		j.Spec.SnapshotIDs = []string{older.ID, newer.ID}
		made = j.ID
		return insertJob(ctx, tx, j)
	})
	if err != nil {
		return nil, err
	}
	return FindJob(ctx, db, made)
}

// diffAgain is how long after a failed comparison the next GET makes another:
// a program that waits for the answer asks every few seconds.
const diffAgain = time.Minute

// diffFailed is nil for a comparison that may be made again.
func diffFailed(last *Job, now time.Time) error {
	if last.State == JobSucceeded || last.FinishedAt == nil {
		return nil
	}
	wait := last.FinishedAt.Add(diffAgain).Sub(now)
	if wait <= 0 {
		return nil
	}
	why := cmp.Or(strings.TrimSpace(last.Error), "It was "+string(last.State)+".")
	return &Error{
		Code: EUnavailable, RetryAfter: wait, Detail: map[string]any{"job_id": last.ID},
		Message: fmt.Sprintf("The two could not be compared. %s The host is asked anew from %d s from now on.", why, int(math.Ceil(wait.Seconds()))),
	}
}

// LastDiffJob is the newest comparison of two snapshots, nil for none.
func LastDiffJob(ctx context.Context, db IDB, older, newer *Snapshot) (*Job, error) {
	j := &Job{}
	err := withNames(db.NewSelect().Model(j).ColumnExpr("j.*")).
		Where("j.host_id = ? and j.kind = 'diff' and j.spec->'snapshot_ids' = ?", older.HostID, jsonb{[]string{older.ID, newer.ID}}).OrderExpr("j.id desc").Limit(1).Scan(ctx)
	if isNoRows(err) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("last comparison: %w", err)
	}
	return j, nil
}

// keepDiff keeps a comparison's answer, and of a host's comparisons the newest.
func keepDiff(ctx context.Context, tx IDB, j *Job) error {
	if len(j.Spec.SnapshotIDs) != 2 {
		return nil
	}
	_, err := tx.ExecContext(ctx, `insert into snapshot_diffs (host_id, older, newer, stats, changes, more)
		select ?0, ?1, ?2, ?3, coalesce(jsonb_agg(item order by seq, n) filter (where at <= ?4), '[]'), greatest(count(*) - ?4, 0)
		from (select a.seq, i.n, i.item, row_number() over (order by a.seq, i.n) as at
			from job_answers a, jsonb_array_elements(a.items) with ordinality as i(item, n) where a.job_id = ?5) x
		on conflict (host_id, older, newer) do update set stats = excluded.stats, changes = excluded.changes, more = excluded.more, made_at = now()`,
		j.HostID, j.Spec.SnapshotIDs[0], j.Spec.SnapshotIDs[1], jsonb{j.Stats}, maxChanges, j.ID)
	if err == nil {
		_, err = tx.ExecContext(ctx, `delete from snapshot_diffs where host_id = ?0 and (older, newer) in (
			select older, newer from snapshot_diffs where host_id = ?0 order by made_at desc offset ?1)`, j.HostID, maxDiffs)
	}
	if err != nil {
		return fmt.Errorf("keep comparison: %w", err)
	}
	return nil
}
