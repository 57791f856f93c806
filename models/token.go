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
	CreatedAt time.Time  `bun:",nullzero"`
	RevokedAt *time.Time `bun:",nullzero"`
}

// AddAPIToken makes a token and returns its text.
func AddAPIToken(ctx context.Context, db IDB, name string, role Role) (string, *APIToken, error) {
	var p problems
	name = strings.TrimSpace(name)
	checkName(&p, "name", name)
	if err := p.err(); err != nil {
		return "", nil, err
	}
	token, hash := NewToken("rf_")
	t := &APIToken{ID: NewID[TokenID](), Name: name, Role: role, TokenHash: hash}
	if _, err := db.NewInsert().Model(t).Returning("created_at").Exec(ctx); err != nil {
		return "", nil, fmt.Errorf("add token: %w", err)
	}
	return token, t, nil
}

// TokenIdentity finds who a token belongs to; EUnauthorized when nobody.
func TokenIdentity(ctx context.Context, db IDB, token string) (*Identity, error) {
	var t APIToken
	err := db.NewSelect().Model(&t).Where("token_hash = ? and revoked_at is null", HashToken(token)).Scan(ctx)
	if isNoRows(err) {
		return nil, &Error{Code: EUnauthorized, Message: "This API token is not known or was revoked. Make one with `resticfleet token create`."}
	}
	if err != nil {
		return nil, fmt.Errorf("find token: %w", err)
	}
	return &Identity{TokenID: t.ID, Name: t.Name, Role: t.Role}, nil
}
