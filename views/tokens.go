package views

import (
	"time"

	"resticfleet/views/ui"
)

// Tokens is the list of /settings/tokens.
type Tokens struct {
	Clock ui.Clock
	// Revoked shows those that are worth nothing any more, and no others.
	Revoked    bool
	Rows       []TokenRow
	NextCursor string
}

// TokenRow is one token. Its text is stored nowhere.
type TokenRow struct {
	ID, Name, Role        string
	CreatedAt, LastUsedAt time.Time
	RevokedAt             time.Time
}

// TokenForm makes a token: POST /settings/tokens with id, name and role.
type TokenForm struct {
	ID, Name, Role string
	Errors         Errors
}

// TokenMade shows a token, this once.
type TokenMade struct {
	Name, Role, Text string
	// BaseURL is the server's, for an example.
	BaseURL string
}

func (t Tokens) show() string {
	if t.Revoked {
		return "revoked"
	}
	return ""
}

func (t Tokens) olderURL() string {
	return olderURL(t.NextCursor, "/settings/tokens", "show", t.show())
}
