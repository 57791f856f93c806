package models

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/uptrace/bun"
)

// APIToken is a program's credential. The token itself is shown once.
type APIToken struct {
	bun.BaseModel `bun:"table:api_tokens"`

	ID        TokenID `bun:",pk"`
	Name      string
	Role      Role
	TokenHash []byte
	CreatedAt time.Time `bun:",nullzero"`
	// LastUsedAt is true to the minute.
	LastUsedAt *time.Time `bun:",nullzero"`
	RevokedAt  *time.Time `bun:",nullzero"`
}

// AddAPIToken makes a token and returns its text.
func AddAPIToken(ctx context.Context, db IDB, name string, role Role) (string, *APIToken, error) {
	return AddAPITokenAs(ctx, db, NewID[TokenID](), name, role)
}

// AddAPITokenAs is AddAPIToken under an id that the caller chose before, so
// that a form sent twice makes one token: the second time is EConflict.
func AddAPITokenAs(ctx context.Context, db IDB, id TokenID, name string, role Role) (string, *APIToken, error) {
	var p problems
	name = strings.TrimSpace(name)
	checkName(&p, "name", name)
	if err := p.err(); err != nil {
		return "", nil, err
	}
	token, hash := NewToken("rf_")
	t := &APIToken{ID: id, Name: name, Role: role, TokenHash: hash}
	if _, err := db.NewInsert().Model(t).Returning("created_at").Exec(ctx); err != nil {
		if violated(err, pgUniqueViolation, "api_tokens_pkey") {
			return "", nil, Conflict("This token was made already, and its text is shown only once. If you don't have it, revoke it and make another.")
		}
		return "", nil, fmt.Errorf("add token: %w", err)
	}
	return token, t, nil
}

// ListAPITokens lists the tokens, the newest first; revoked ones only when
// asked for, and then no others.
func ListAPITokens(ctx context.Context, db IDB, revoked bool, page Page) ([]*APIToken, string, error) {
	var all []*APIToken
	q := db.NewSelect().Model(&all).Where("(revoked_at is not null) = ?", revoked)
	if err := page.apply(q); err != nil {
		return nil, "", err
	}
	if err := q.Scan(ctx); err != nil {
		return nil, "", fmt.Errorf("list tokens: %w", err)
	}
	all, next := cut(all, page, func(t *APIToken) string { return t.ID.String() })
	return all, next, nil
}

// FindAPIToken is ENotFound when there is none.
func FindAPIToken(ctx context.Context, db IDB, id TokenID) (*APIToken, error) {
	t := &APIToken{}
	err := db.NewSelect().Model(t).Where("id = ?", id).Scan(ctx)
	if isNoRows(err) {
		return nil, NotFound("token", id.String())
	}
	if err != nil {
		return nil, fmt.Errorf("find token: %w", err)
	}
	return t, nil
}

// RevokeAPIToken makes a token worthless from the next request on, for good;
// one that was revoked keeps its time.
func RevokeAPIToken(ctx context.Context, db IDB, id TokenID) error {
	if _, err := db.ExecContext(ctx, "update api_tokens set revoked_at = now() where id = ? and revoked_at is null", id); err != nil {
		return fmt.Errorf("revoke token: %w", err)
	}
	return nil
}

// TokenIdentity finds who a token belongs to; EUnauthorized when nobody. That
// it was used is written at most once a minute.
func TokenIdentity(ctx context.Context, db IDB, token string) (*Identity, error) {
	var t APIToken
	err := db.NewSelect().Model(&t).Where("token_hash = ? and revoked_at is null", HashToken(token)).Scan(ctx)
	if isNoRows(err) {
		return nil, &Error{Code: EUnauthorized, Message: "This API token is not known or was revoked. An administrator makes one in the settings."}
	}
	if err != nil {
		return nil, fmt.Errorf("find token: %w", err)
	}
	if t.LastUsedAt == nil || time.Since(*t.LastUsedAt) > time.Minute {
		if _, err := db.ExecContext(ctx, "update api_tokens set last_used_at = now() where id = ?", t.ID); err != nil {
			return nil, fmt.Errorf("note the token's use: %w", err)
		}
	}
	return &Identity{TokenID: t.ID, Name: t.Name, Role: t.Role}, nil
}
