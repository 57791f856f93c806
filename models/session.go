package models

import (
	"context"
	"fmt"
	"time"
)

// SessionLife is how long a login holds without being used.
const SessionLife = 14 * 24 * time.Hour

// Identity is who asks: a person with a session, or a program with a token.
type Identity struct {
	UserID  UserID // zero for a token
	TokenID TokenID
	Name    string
	Role    Role
}

// StartSession makes a session and returns its token, which only the browser
// keeps. Nothing of an earlier session is taken over.
func StartSession(ctx context.Context, db IDB, user UserID, address, userAgent string) (string, error) {
	token, hash := NewToken("")
	if len(userAgent) > 300 {
		userAgent = userAgent[:300]
	}
	_, err := db.ExecContext(ctx, `insert into sessions (token_hash, user_id, expires_at, address, user_agent)
		values (?, ?, now() + ?::interval, ?, ?)`, hash, user, interval(SessionLife), address, userAgent)
	if err != nil {
		return "", fmt.Errorf("start session: %w", err)
	}
	return token, nil
}

// SessionIdentity finds who a session's token belongs to, and keeps the
// session alive; it writes at most once a minute. EUnauthorized when there is none.
func SessionIdentity(ctx context.Context, db IDB, token string) (*Identity, error) {
	who := &Identity{}
	var seen time.Time
	hash := HashToken(token)
	err := db.QueryRowContext(ctx, `select u.id, u.name, u.role, s.seen_at from sessions s join users u on u.id = s.user_id
		where s.token_hash = ? and s.expires_at > now()`, hash).Scan(&who.UserID, &who.Name, &who.Role, &seen)
	if isNoRows(err) {
		return nil, &Error{Code: EUnauthorized, Message: "Your session has ended. Sign in again."}
	}
	if err != nil {
		return nil, fmt.Errorf("find session: %w", err)
	}
	if time.Since(seen) > time.Minute {
		_, err = db.ExecContext(ctx, "update sessions set seen_at = now(), expires_at = now() + ?::interval where token_hash = ?", interval(SessionLife), hash)
		if err != nil {
			return nil, fmt.Errorf("keep session: %w", err)
		}
	}
	return who, nil
}

// EndSession forgets one session; one that isn't there is fine.
func EndSession(ctx context.Context, db IDB, token string) error {
	_, err := db.ExecContext(ctx, "delete from sessions where token_hash = ?", HashToken(token))
	return err
}

// SweepExpired removes sessions, links and tokens that can't be used any more.
func SweepExpired(ctx context.Context, db IDB) error {
	for _, q := range []string{
		"delete from sessions where expires_at < now()",
		"delete from setup_links where expires_at < now()",
		"delete from enrollment_tokens where expires_at < now() - interval '1 day'",
	} {
		if _, err := db.ExecContext(ctx, q); err != nil {
			return fmt.Errorf("sweep: %w", err)
		}
	}
	return nil
}

// interval writes a duration for Postgres.
func interval(d time.Duration) string { return fmt.Sprintf("%d microseconds", d.Microseconds()) }
