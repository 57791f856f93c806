package models

import (
	"context"
	"fmt"
	"time"

	"github.com/google/uuid"
	"github.com/uptrace/bun"
)

// AuditEntry is who did what, to what, from where, and how it ended.
type AuditEntry struct {
	bun.BaseModel `bun:"table:audit_entries"`

	ID        AuditID   `bun:",pk"`
	At        time.Time `bun:",nullzero"`
	ActorKind string
	ActorID   *ActorID `bun:",nullzero"`
	ActorName string
	// Action is the route: method and pattern, as in the router's table.
	Action string
	// Target is the path that was asked for, or of what was made there.
	Target string
	// About is the name of what it was done to, as it was then; "" where the
	// target's ids tell.
	About string
	// Outcome is the HTTP status.
	Outcome int
	Address string
}

// Audit keeps one entry.
func Audit(ctx context.Context, db IDB, e AuditEntry) error {
	e.ID = NewID[AuditID]()
	e.Target, e.About = CleanText(e.Target, 300), CleanText(e.About, 300)
	if _, err := db.NewInsert().Model(&e).Exec(ctx); err != nil {
		return fmt.Errorf("audit: %w", err)
	}
	return nil
}

// AuditFilter narrows a list of entries; zero fields don't.
type AuditFilter struct {
	// Actors are the kinds of actor to show.
	Actors []string
	// Name is a part of the actor's name, in any case.
	Name string
	// Actions are the routes to show.
	Actions []string
	// From and Until bound the time, Until excluded.
	From, Until time.Time
	// Least and Most bound the outcome, a HTTP status.
	Least, Most int
}

// ListAudit lists entries, the newest first.
func ListAudit(ctx context.Context, db IDB, f AuditFilter, page Page) ([]*AuditEntry, string, error) {
	var all []*AuditEntry
	q := db.NewSelect().Model(&all)
	if len(f.Actors) > 0 {
		q.Where("actor_kind in (?)", bun.List(f.Actors))
	}
	if f.Name != "" {
		q.Where("position(lower(?) in lower(actor_name)) > 0", f.Name)
	}
	if len(f.Actions) > 0 {
		q.Where("action in (?)", bun.List(f.Actions))
	}
	if !f.From.IsZero() {
		q.Where("at >= ?", f.From)
	}
	if !f.Until.IsZero() {
		q.Where("at < ?", f.Until)
	}
	if f.Least > 0 {
		q.Where("outcome >= ?", f.Least)
	}
	if f.Most > 0 {
		q.Where("outcome <= ?", f.Most)
	}
	if err := page.apply(q); err != nil {
		return nil, "", err
	}
	if err := q.Scan(ctx); err != nil {
		return nil, "", fmt.Errorf("list audit: %w", err)
	}
	all, next := cut(all, page, func(e *AuditEntry) string { return e.ID.String() })
	return all, next, nil
}

// Named is what a thing is called.
type Named struct {
	ID   uuid.UUID
	Name string
	// Gone means a host that was deleted and has no page any more.
	Gone bool
}

// NamesOf finds what the things with these ids are called, in one statement;
// those that left nothing behind are missing.
func NamesOf(ctx context.Context, db IDB, ids []uuid.UUID) (map[uuid.UUID]Named, error) {
	out := map[uuid.UUID]Named{}
	if len(ids) == 0 {
		return out, nil
	}
	var rows []Named
	err := db.NewRaw(`with wanted as (select unnest(array[?]::uuid[]) as id)
		select id, name, archived_at is not null as gone from hosts join wanted using (id)
		union all select id, name, false from source_groups join wanted using (id)
		union all select id, cron, false from schedules join wanted using (id)
		union all select id, kind || coalesce(' of ' || nullif(source_group_name, ''), ''), false from jobs join wanted using (id)
		union all select id, name, false from users join wanted using (id)
		union all select id, name, false from api_tokens join wanted using (id)`, bun.List(ids)).Scan(ctx, &rows)
	if err != nil {
		return nil, fmt.Errorf("find names: %w", err)
	}
	for _, r := range rows {
		out[r.ID] = r
	}
	return out, nil
}
