package models

import (
	"context"
	"fmt"

	"github.com/uptrace/bun"
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

// TouchHosts keeps the last contact of agents that were answered from memory.
func TouchHosts(ctx context.Context, db IDB, ids []HostID) error {
	if len(ids) == 0 {
		return nil
	}
	_, err := db.NewUpdate().Table("hosts").Set("last_seen_at = now(), heard = "+heardNow).
		Where("id in (?) and archived_at is null", bun.List(ids)).Exec(ctx)
	if err != nil {
		return fmt.Errorf("touch hosts: %w", err)
	}
	return nil
}
