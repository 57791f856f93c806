package models

import (
	"context"
	"fmt"
	"time"

	"github.com/google/uuid"
	"github.com/uptrace/bun"
)

// JobFilter narrows a list; zero fields don't.
type JobFilter struct {
	HostID        HostID
	SourceGroupID GroupID
	Kind          JobKind
	// States are any of these.
	States []JobState
	// From and Until bound when jobs were asked for: from the first on, before
	// the second.
	From, Until time.Time
	// NotAfter leaves out what was made after this job: a list that is looked at
	// can be read again without anything coming in above it.
	NotAfter JobID
}

// lookUps are the kinds of jobs that serve a page rather than a person: they
// stand in no list.
const (
	lookUps    = "j.kind in ('snapshots', 'ls', 'diff', 'find')"
	notLookUps = "not " + lookUps
)

// clockSlack is how far an id's time may be from queued_at: the one is a
// server's clock, the other the database's.
const clockSlack = time.Hour

// apply narrows a query over jobs as j. Ids begin with the time of asking, so
// that the indices, which all end in the id, find a span of time as well.
func (f JobFilter) apply(q *bun.SelectQuery) {
	if !f.HostID.IsZero() {
		q.Where("j.host_id = ?", f.HostID)
	}
	if !f.SourceGroupID.IsZero() {
		q.Where("j.source_group_id = ?", f.SourceGroupID)
	}
	if f.Kind != "" {
		q.Where("j.kind = ?", f.Kind)
	} else {
		q.Where(notLookUps)
	}
	switch len(f.States) {
	case 0:
	case 1:
		q.Where("j.state = ?", f.States[0])
	default:
		q.Where("j.state in (?)", bun.List(f.States))
	}
	if !f.From.IsZero() {
		q.Where("j.queued_at >= ? and j.id >= ?", f.From, firstID(f.From.Add(-clockSlack)))
	}
	if !f.Until.IsZero() {
		q.Where("j.queued_at < ? and j.id < ?", f.Until, firstID(f.Until.Add(clockSlack)))
	}
	if !f.NotAfter.IsZero() {
		q.Where("j.id <= ?", f.NotAfter)
	}
}

// firstID is the least id that is made at a time.
func firstID(at time.Time) uuid.UUID {
	var id uuid.UUID
	ms := max(at.UnixMilli(), 0)
	for i := range 6 {
		id[5-i] = byte(ms >> (8 * i))
	}
	return id
}

// ListJobs returns a page of jobs, newest first, without the look-ups that
// serve a page rather than a person, and without their specs, each of which may
// be megabytes of paths.
func ListJobs(ctx context.Context, db IDB, f JobFilter, page Page) ([]*Job, string, error) {
	var jobs []*Job
	q := withNames(db.NewSelect().Model(&jobs).ExcludeColumn("spec"))
	f.apply(q)
	if err := page.apply(q); err != nil {
		return nil, "", err
	}
	if err := q.Scan(ctx); err != nil {
		return nil, "", fmt.Errorf("list jobs: %w", err)
	}
	jobs, next := cut(jobs, page, func(j *Job) string { return j.ID.String() })
	return jobs, next, nil
}

// MaxCounted is where counting stops: no page counts all jobs.
const MaxCounted = 1000

// CountNewer is how many jobs that fit the filter, its NotAfter apart, were
// made after one, up to MaxCounted.
func CountNewer(ctx context.Context, db IDB, f JobFilter, than JobID) (int, error) {
	f.NotAfter = JobID{}
	q := db.NewSelect().TableExpr("jobs as j").ColumnExpr("1").Where("j.id > ?", than).Limit(MaxCounted)
	f.apply(q)
	return countUpTo(ctx, db, q)
}

// UnderWay is how many jobs have not ended, of one host or of all; it counts
// rows of a small partial index and stops at MaxCounted.
func UnderWay(ctx context.Context, db IDB, host HostID) (int, error) {
	q := db.NewSelect().TableExpr("jobs as j").ColumnExpr("1").Where("j.state in ('queued', 'sent', 'running')").Limit(MaxCounted)
	JobFilter{HostID: host}.apply(q)
	return countUpTo(ctx, db, q)
}

func countUpTo(ctx context.Context, db IDB, q *bun.SelectQuery) (int, error) {
	var n int
	if err := db.NewSelect().TableExpr("(?) as counted", q).ColumnExpr("count(*)").Scan(ctx, &n); err != nil {
		return 0, fmt.Errorf("count jobs: %w", err)
	}
	return n, nil
}
