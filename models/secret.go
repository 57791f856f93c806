package models

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"log/slog"
)

// Secret is text that redacts itself in logs and in every format verb.
type Secret string

func (Secret) String() string       { return "[redacted]" }
func (Secret) GoString() string     { return "[redacted]" }
func (Secret) LogValue() slog.Value { return slog.StringValue("[redacted]") }

// MarshalText keeps a Secret out of JSON as well.
func (Secret) MarshalText() ([]byte, error) { return []byte("[redacted]"), nil }

// NewToken makes a bearer secret of 256 random bits with a prefix that says
// what it is for, and the hash that is stored in its place.
func NewToken(prefix string) (token string, hash []byte) {
	raw := make([]byte, 32)
	_, _ = rand.Read(raw) // never fails: Go ends the program instead
	token = prefix + base64.RawURLEncoding.EncodeToString(raw)
	return token, HashToken(token)
}

// HashToken is what the database keeps of a token. A plain SHA-256 is enough:
// the token itself has 256 random bits.
func HashToken(token string) []byte {
	sum := sha256.Sum256([]byte(token))
	return sum[:]
}
