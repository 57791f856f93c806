package models

import (
	"context"
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/uptrace/bun"
)

// Snapshot is one of restic's in the repository that its host has now, as the
// newest list says.
type Snapshot struct {
	bun.BaseModel `bun:"table:snapshots,alias:s"`

	HostID        HostID `bun:",pk"`
	ID            string `bun:",pk"`
	At            time.Time
	Hostname      string
	Username      string
	Paths         []string `bun:"type:jsonb"`
	Tags          []string `bun:"type:jsonb"`
	SourceGroupID *GroupID
	// JobID is what its tag says; KnownJob whether there is such a job here.
	JobID    *JobID
	KnownJob bool `bun:",scanonly"`
	// SizeBytes and FileCount are nil where restic didn't tell.
	SizeBytes *int64
	FileCount *int64

	Held      bool   `bun:",scanonly"`
	GroupName string `bun:",scanonly"`
	// PathCount is how many paths there are, where a list reads only the first.
	PathCount int `bun:",scanonly"`
}

// ShortID is as much of the id as restic shows.
func (s *Snapshot) ShortID() string { return s.ID[:8] }

// Cursor is the snapshot's place in a list. Microseconds are all that the
// database keeps of a time.
func (s *Snapshot) Cursor() string { return fmt.Sprintf("%d-%s", s.At.UnixMicro(), s.ID) }

// readSnapshotCursor is false for what isn't one.
func readSnapshotCursor(text string) (at time.Time, id string, ok bool) {
	micro, id, _ := strings.Cut(text, "-")
	n, err := strconv.ParseInt(micro, 10, 64)
	return within(time.UnixMicro(n)), id, err == nil && resticID.MatchString(id)
}

// SnapshotFilter narrows a list; zero fields don't.
type SnapshotFilter struct {
	HostID        HostID
	SourceGroupID GroupID
	// NoGroup asks for those that belong to no source group.
	NoGroup     bool
	Tag         string
	From, Until time.Time
	HeldOnly    bool
	// Newest is the Cursor of the first to be listed; what came after it isn't.
	Newest string
}

const snapshotColumns = `s.host_id, s.id, s.at, s.hostname, s.username, s.tags, s.source_group_id, s.job_id, s.size_bytes, s.file_count,
	exists (select from snapshot_holds k where k.host_id = s.host_id and k.snapshot_id = s.id) as held,
	exists (select from jobs j where j.id = s.job_id and j.host_id = s.host_id) as known_job,
	coalesce((select g.name from source_groups g where g.id = s.source_group_id), '') as group_name`

// ListSnapshots returns a page of a host's snapshots, newest first, and the
// cursor of the next page, which is the last one's id: it has to be there still.
func ListSnapshots(ctx context.Context, db IDB, f SnapshotFilter, page Page) ([]*Snapshot, string, error) {
	q := db.NewSelect().TableExpr("snapshots as s").ColumnExpr(snapshotColumns).ColumnExpr("s.paths")
	return f.list(ctx, q, page)
}

// ListSnapshotRows is ListSnapshots with the first path alone of each.
func ListSnapshotRows(ctx context.Context, db IDB, f SnapshotFilter, page Page) ([]*Snapshot, string, error) {
	q := db.NewSelect().TableExpr("snapshots as s").ColumnExpr(snapshotColumns).
		ColumnExpr("jsonb_path_query_array(s.paths, '$[0]') as paths, jsonb_array_length(s.paths) as path_count")
	return f.list(ctx, q, page)
}

func (f SnapshotFilter) list(ctx context.Context, q *bun.SelectQuery, page Page) ([]*Snapshot, string, error) {
	snapshots := []*Snapshot{}
	q.OrderExpr("s.at desc, s.id desc").Limit(int64(page.limit() + 1))
	f.apply(q)
	if at, id, ok := readSnapshotCursor(page.Cursor); ok {
		q.Where("(s.at, s.id) < (?, ?)", at, id)
	} else if page.Cursor != "" {
		return nil, "", Invalid("cursor", "is not one of ours: use next_cursor of the page before, or none for the first page")
	}
	if at, id, ok := readSnapshotCursor(f.Newest); ok {
		q.Where("(s.at, s.id) <= (?, ?)", at, id)
	}
	if err := q.Scan(ctx, &snapshots); err != nil {
		return nil, "", fmt.Errorf("list snapshots: %w", err)
	}
	snapshots, next := cut(snapshots, page, (*Snapshot).Cursor)
	return snapshots, next, nil
}

// newer are those that fit the filter and came after its Newest, up to
// MaxCounted; nothing without one.
func (f SnapshotFilter) newer(db IDB) *bun.SelectQuery {
	q := db.NewSelect().TableExpr("snapshots as s").ColumnExpr("1").Limit(MaxCounted)
	f.apply(q)
	if at, id, ok := readSnapshotCursor(f.Newest); ok {
		return q.Where("(s.at, s.id) > (?, ?)", at, id)
	}
	return q.Where("false")
}

func (f SnapshotFilter) apply(q *bun.SelectQuery) {
	q.Where("s.host_id = ?", f.HostID)
	if !f.SourceGroupID.IsZero() {
		q.Where("s.source_group_id = ?", f.SourceGroupID)
	}
	if f.NoGroup {
		q.Where("s.source_group_id is null")
	}
	if f.Tag != "" {
		q.Where("s.tags @> ?", jsonb{[]string{CleanText(f.Tag, maxSnapshotText)}})
	}
	if !f.From.IsZero() {
		q.Where("s.at >= ?", f.From)
	}
	if !f.Until.IsZero() {
		q.Where("s.at < ?", f.Until)
	}
	if f.HeldOnly {
		q.Where("exists (select from snapshot_holds k where k.host_id = s.host_id and k.snapshot_id = s.id)")
	}
}

var snapshotPrefix = regexp.MustCompile(`^[0-9a-f]{8,64}$`)

// FindSnapshot reads a snapshot of this host by its id, or by as much of it, 8
// digits or more, as only one of them begins with.
func FindSnapshot(ctx context.Context, db IDB, host HostID, id string) (*Snapshot, error) {
	if !snapshotPrefix.MatchString(id) {
		return nil, noSnapshot(id)
	}
	var found []*Snapshot
	err := db.NewSelect().TableExpr("snapshots as s").ColumnExpr(snapshotColumns).ColumnExpr("s.paths, jsonb_array_length(s.paths) as path_count").
		Where("s.host_id = ? and s.id >= ? and s.id <= ?", host, id, id+strings.Repeat("f", 64-len(id))).Limit(2).Scan(ctx, &found)
	switch {
	case err != nil:
		return nil, fmt.Errorf("find snapshot: %w", err)
	case len(found) == 0:
		return nil, noSnapshot(id)
	case len(found) > 1:
		return nil, &Error{Code: ENotFound, Message: fmt.Sprintf("More than one snapshot begins with %s. Give more of its id.", id)}
	}
	return found[0], nil
}

func noSnapshot(id string) *Error {
	e := NotFound("snapshot of this host", id)
	e.Message += " Choose one of the host's list, or refresh the list."
	return e
}

// HeldSnapshots are the full ids, sorted, of a host's snapshots that must never be
// forgotten.
func HeldSnapshots(ctx context.Context, db IDB, host HostID) ([]string, error) {
	var ids []string
	err := db.NewRaw("select snapshot_id from snapshot_holds where host_id = ? order by snapshot_id", host).Scan(ctx, &ids)
	if err != nil {
		return nil, fmt.Errorf("held snapshots: %w", err)
	}
	return ids, nil
}

// mayStillRun is SQL for a job that its agent has, or may have. One that ended
// for its host's silence may run until a hello doesn't name it.
const mayStillRun = `(state in ('sent', 'running') or (state = 'lost' and finished_at > now() - interval '1 day')
	or (error_code in (?, ?) and sent_at is not null and claim_generation = (select link_generation from hosts where hosts.id = host_id)))`

// HoldSnapshot keeps that a snapshot is never forgotten, or may be again. A
// forget that was sent has read what is held: beside it a new hold would promise
// too much, and is EConflict.
func HoldSnapshot(ctx context.Context, db *DB, host HostID, id string, held bool, actor Actor) (*Snapshot, error) {
	var s *Snapshot
	err := Tx(ctx, db, func(tx IDB) error {
		_, err := lockHost(ctx, tx, host) // as a claim does
		if err != nil {
			return err
		}
		if s, err = FindSnapshot(ctx, tx, host, id); err != nil || s.Held == held {
			return err
		}
		if !held {
			_, err = tx.ExecContext(ctx, "delete from snapshot_holds where host_id = ? and snapshot_id = ?", host, s.ID)
		} else {
			var forgets bool
			err = tx.QueryRowContext(ctx, "select exists (select from jobs where host_id = ? and kind = 'forget' and "+mayStillRun+")", host, CodeHostSilent, CodeExpired).Scan(&forgets)
			if err == nil && forgets {
				return Conflict("Snapshots of this host are being removed just now, or will be when the host is back, perhaps this one too. Hold it when that has ended.")
			}
			if err == nil {
				_, err = tx.ExecContext(ctx, "insert into snapshot_holds (host_id, snapshot_id, held_by) values (?, ?, ?) on conflict do nothing", host, s.ID, actor.Name)
			}
		}
		if err != nil {
			return fmt.Errorf("hold snapshot: %w", err)
		}
		s.Held = held
		return nil
	})
	if err != nil {
		return nil, err
	}
	return s, nil
}

// DeleteSnapshot makes the job that has restic forget one snapshot. One that is
// held is EConflict. A waiting job for the same snapshot is that job.
func DeleteSnapshot(ctx context.Context, db *DB, host HostID, id string, actor Actor) (*Job, error) {
	var made JobID
	err := Tx(ctx, db, func(tx IDB) error {
		h, err := lockHost(ctx, tx, host)
		if err != nil {
			return err
		}
		s, err := FindSnapshot(ctx, tx, host, id)
		if err != nil {
			return err
		}
		if s.Held {
			return Conflict("This snapshot is held. Let it go first, then delete it.")
		}
		made, err = forgetThese(ctx, tx, h, "", []string{s.ID}, actor)
		return err
	})
	if err != nil {
		return nil, err
	}
	return FindJob(ctx, db, made)
}

// forgetThese makes the job that removes these snapshots, by their full ids, or
// returns the one that waits to do just that. The name of their group, if they
// are one's, is for whoever reads of the job.
func forgetThese(ctx context.Context, tx IDB, h *Host, group string, ids []string, actor Actor) (made JobID, err error) {
	repo, err := repositoryToAsk(ctx, tx, h)
	if err != nil {
		return made, err
	}
	err = tx.NewRaw("select id from jobs where host_id = ? and kind = 'forget' and state = 'queued' and spec->'snapshot_ids' = ? limit 1", h.ID, jsonb{ids}).Scan(ctx, &made)
	if err == nil || !isNoRows(err) {
		return made, err
	}
	j := hostJob(h.ID, KindForget, actor, repo)
	j.SourceGroupName, j.Spec.SnapshotIDs = group, ids
	return j.ID, insertJob(ctx, tx, j)
}

// lookUpProtocol is the protocol version from which on agents can be asked for
// their snapshots, and know forget, prune and check.
const lookUpProtocol = 3

// repositoryToAsk is the repository that the host's agent can be asked about,
// or EConflict with what is missing.
func repositoryToAsk(ctx context.Context, tx IDB, h *Host) (*HostRepository, error) {
	repo, err := neededRepository(ctx, tx, h.ID)
	if err != nil {
		return nil, err
	}
	if h.AgentProtocol < lookUpProtocol {
		if !h.Arrived() {
			return nil, Conflict("No agent has come from %s yet. Enrol one first.", h.Name)
		}
		return nil, Conflict("The agent of %s is too old for this. Update it first.", h.Name)
	}
	return repo, nil
}
