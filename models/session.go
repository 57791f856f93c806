package models

import (
	"context"
	"fmt"
	"time"

	"github.com/uptrace/bun"
)

// SessionLife is how long a login holds without being used.
const SessionLife = 14 * 24 * time.Hour

// Identity is who asks: a person with a session, or a program with a token.
type Identity struct {
	UserID    UserID    // zero for a token
	SessionID SessionID // zero for a token
	TokenID   TokenID
	Name      string
	Role      Role
}

// Session is one login of a user, in one browser. The browser's token is not
// part of it.
type Session struct {
	bun.BaseModel `bun:"table:sessions"`

	ID        SessionID `bun:",pk"`
	CreatedAt time.Time
	// SeenAt is when it was used last, to the minute.
	SeenAt    time.Time
	Address   string
	UserAgent string
}

// StartSession makes a session and returns its token, which only the browser
// keeps. Nothing of an earlier session is taken over.
func StartSession(ctx context.Context, db IDB, user UserID, address, userAgent string) (string, error) {
	token, hash := NewToken("")
	_, err := db.ExecContext(ctx, `insert into sessions (id, token_hash, user_id, expires_at, address, user_agent)
		values (?, ?, ?, now() + ?::interval, ?, ?)`, NewID[SessionID](), hash, user, interval(SessionLife), address, CleanText(userAgent, 300))
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
	err := db.QueryRowContext(ctx, `select s.id, u.id, u.name, u.role, s.seen_at from sessions s join users u on u.id = s.user_id
		where s.token_hash = ? and s.expires_at > now()`, hash).Scan(&who.SessionID, &who.UserID, &who.Name, &who.Role, &seen)
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

// ListSessions lists a user's sessions, the newest login first.
func ListSessions(ctx context.Context, db IDB, user UserID, page Page) ([]*Session, string, error) {
	var all []*Session
	q := db.NewSelect().Model(&all).Where("user_id = ? and expires_at > now()", user)
	if err := page.apply(q); err != nil {
		return nil, "", err
	}
	if err := q.Scan(ctx); err != nil {
		return nil, "", fmt.Errorf("list sessions: %w", err)
	}
	all, next := cut(all, page, func(s *Session) string { return s.ID.String() })
	return all, next, nil
}

// EndSessionOf ends one session of a user; one that has ended is fine.
func EndSessionOf(ctx context.Context, db IDB, user UserID, id SessionID) error {
	if _, err := db.ExecContext(ctx, "delete from sessions where user_id = ? and id = ?", user, id); err != nil {
		return fmt.Errorf("end session: %w", err)
	}
	return nil
}

// EndOtherSessions ends all sessions of a user but one; the zero id keeps none.
func EndOtherSessions(ctx context.Context, db IDB, user UserID, keep SessionID) error {
	if _, err := db.ExecContext(ctx, "delete from sessions where user_id = ? and id <> ?", user, keep); err != nil {
		return fmt.Errorf("end other sessions: %w", err)
	}
	return nil
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
