package models

import (
	"context"
	"errors"
	"fmt"
	"time"

	"resticfleet/agent/protocol"
)

// ErrSuperseded says that a newer link of the same agent exists: what the
// older one sends doesn't count.
var ErrSuperseded = errors.New("a newer link of this agent has taken over")

// OpenLink makes a link the host's only one: the generation it returns is what
// messages and claims are checked against from now on.
func OpenLink(ctx context.Context, db IDB, host HostID, tokenHash []byte, transport, session string) (generation int64, err error) {
	err = db.QueryRowContext(ctx, `update hosts set link_generation = link_generation + 1, link = ?, link_session = ?,
			last_seen_at = now(), heard = `+heardNow+`, link_closed_at = null,
			link_since = case when link = ? and link_closed_at is null and last_seen_at > now() - ?::interval then link_since else now() end
		where id = ? and agent_token_hash = ? and archived_at is null returning link_generation`,
		transport, session, transport, interval(OnlineFor), host, tokenHash).Scan(&generation)
	if isNoRows(err) {
		return 0, ErrSuperseded
	}
	if err != nil {
		return 0, fmt.Errorf("open link: %w", err)
	}
	return generation, nil
}

// CloseLink marks the host as not linked, unless a newer link has taken over.
func CloseLink(ctx context.Context, db IDB, host HostID, generation int64) error {
	_, err := db.ExecContext(ctx, "update hosts set link_closed_at = now() where id = ? and link_generation = ?", host, generation)
	if err != nil {
		return fmt.Errorf("close link: %w", err)
	}
	return nil
}

// TouchLink keeps a link fresh. ErrSuperseded when a newer one has taken over.
func TouchLink(ctx context.Context, db IDB, host HostID, generation int64) error {
	res, err := db.ExecContext(ctx, "update hosts set last_seen_at = now(), heard = "+heardNow+" where id = ? and link_generation = ?", host, generation)
	if err != nil {
		return fmt.Errorf("touch link: %w", err)
	}
	if n, _ := res.RowsAffected(); n == 0 {
		return ErrSuperseded
	}
	return nil
}

// CountPolling estimates how many agents poll. Those of the last hour count,
// so that a server that was away for a while doesn't take its fleet for small.
func CountPolling(ctx context.Context, db IDB) (int, error) {
	n, err := db.NewSelect().Model((*Host)(nil)).Where("link = ? and last_seen_at > now() - interval '1 hour' and archived_at is null", protocol.LinkPolling).Count(ctx)
	if err != nil {
		return 0, fmt.Errorf("count polling agents: %w", err)
	}
	return int(n), nil
}

// HoldGeneration makes sure, until the transaction ends, that this link is
// still the host's newest.
func HoldGeneration(ctx context.Context, tx IDB, host HostID, generation int64) error {
	var current int64
	err := tx.QueryRowContext(ctx, "select link_generation from hosts where id = ? and archived_at is null for no key update", host).Scan(&current)
	if isNoRows(err) || (err == nil && current != generation) {
		return ErrSuperseded
	}
	if err != nil {
		return fmt.Errorf("link generation: %w", err)
	}
	return nil
}

// SaveHello keeps what an agent says of itself. It returns the host as it is
// now.
func SaveHello(ctx context.Context, tx IDB, host HostID, generation int64, hello protocol.Hello, receivedAt time.Time) (*Host, error) {
	var skew int64
	if !hello.SentAt.IsZero() {
		skew = hello.SentAt.Sub(receivedAt).Milliseconds()
	}
	var saved struct {
		Host  `bun:",extend"`
		Moved bool // to another zone
	}
	h := &saved.Host
	err := tx.NewRaw(`update hosts set journal_id = ?, agent_version = ?, restic_version = ?,
		os = coalesce(nullif(?, ''), os), arch = coalesce(nullif(?, ''), arch),
		timezone_since = case when timezone = ? then timezone_since else now() end,
		timezone = ?, timezone_known = ?,
		clock_skew_ms = ?, link_reason = ?, last_seen_at = now(), heard = `+heardNow+`, link_closed_at = null
		where id = ? and link_generation = ? returning *, timezone_since = now() as moved`,
		clip(hello.JournalID), clip(hello.AgentVersion), clip(hello.ResticVersion), clip(hello.OS), clip(hello.Arch),
		zoneOr(hello.Timezone), zoneOr(hello.Timezone), zoneKnown(hello.Timezone),
		skew, clip(hello.LinkReason), host, generation).Scan(ctx, &saved)
	if isNoRows(err) {
		return nil, ErrSuperseded
	}
	if err != nil {
		return nil, fmt.Errorf("save hello: %w", err)
	}
	if saved.Moved {
		err = keepLateness(ctx, tx, host)
	}
	return h, err
}

// ClockMended keeps a smaller difference of an agent's clock than its hello
// showed, and reports whether it is one: a clock that was set right is believed
// at once, and a message that came late accuses none.
func ClockMended(ctx context.Context, tx IDB, host HostID, skew time.Duration) (bool, error) {
	ms := skew.Milliseconds()
	res, err := tx.ExecContext(ctx, "update hosts set clock_skew_ms = ? where id = ? and abs(clock_skew_ms) > abs(?::bigint) + 1000", ms, host, ms)
	if err != nil {
		return false, fmt.Errorf("clock: %w", err)
	}
	n, _ := res.RowsAffected()
	return n > 0, nil
}

// clip bounds a short text that an agent sends, and drops what Postgres can't
// hold.
func clip(s string) string { return CleanText(s, 255) }
