package models

import (
	"context"
	"fmt"
	"time"

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
	// Target is the path that was asked for.
	Target string
	// Outcome is the HTTP status.
	Outcome int
	Address string
}

// Audit keeps one entry.
func Audit(ctx context.Context, db IDB, e AuditEntry) error {
	e.ID = NewID[AuditID]()
	e.Target = CleanText(e.Target, 300)
	if _, err := db.NewInsert().Model(&e).Exec(ctx); err != nil {
		return fmt.Errorf("audit: %w", err)
	}
	return nil
}
