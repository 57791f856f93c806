package models

import (
	"context"
	"fmt"
	"time"

	"github.com/uptrace/bun/dialect/pgdialect"
)

// AgentWatch finds, again and again, the hosts whose agents may be told
// something else than before: another schedule version, or nothing any more.
// It misses no commit: each look begins at the oldest transaction that was
// still open at the look before.
type AgentWatch struct{ since string }

// Look returns the hosts that changed since the last look; the first look
// returns none. One statement, by an index.
func (w *AgentWatch) Look(ctx context.Context, db IDB) ([]HostID, error) {
	var rows []struct {
		Horizon string
		ID      *HostID
	}
	since := w.since
	if since == "" {
		since = "9223372036854775807"
	}
	err := db.NewRaw(`select pg_snapshot_xmin(pg_current_snapshot())::text as horizon, h.id
		from (select 1) one left join hosts h on h.changed_xid >= ?::xid8`, since).Scan(ctx, &rows)
	if err != nil {
		return nil, fmt.Errorf("watch agents: %w", err)
	}
	var changed []HostID
	for _, r := range rows {
		w.since = r.Horizon
		if r.ID != nil {
			changed = append(changed, *r.ID)
		}
	}
	return changed, nil
}

// TouchHosts keeps when agents were heard, by this server's clock: what came
// before a link's end doesn't bring the host back by being written after it.
func TouchHosts(ctx context.Context, db *DB, heard map[HostID]time.Time) error {
	if len(heard) == 0 {
		return nil
	}
	var ids, ages []string
	for id, at := range heard {
		ids, ages = append(ids, id.String()), append(ages, interval(time.Since(at)))
	}
	err := Tx(ctx, db, func(tx IDB) error { // servers may touch the same hosts in another order
		_, err := tx.ExecContext(ctx, `update hosts set last_seen_at = greatest(last_seen_at, now() - c.age), heard = `+heardNow+`
			from unnest(?::uuid[], ?::interval[]) c (id, age) where hosts.id = c.id and archived_at is null`,
			pgdialect.Array(ids), pgdialect.Array(ages))
		return err
	})
	if err != nil {
		return fmt.Errorf("touch hosts: %w", err)
	}
	return nil
}
