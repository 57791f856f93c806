package models

import (
	"context"
	"fmt"
	"runtime"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/alexedwards/argon2id"
	"github.com/uptrace/bun"
)

// Role is what a person or token may do; each includes the one before it.
type Role string

// The roles. See the table in handlers for what each may do.
const (
	RoleViewer   Role = "viewer"
	RoleOperator Role = "operator"
	RoleAdmin    Role = "admin"
)

// ParseRole reads a role's name.
func ParseRole(s string) (Role, error) {
	switch r := Role(s); r {
	case RoleViewer, RoleOperator, RoleAdmin:
		return r, nil
	}
	return "", Invalid("role", "%q is not a role: use viewer, operator or admin", s)
}

// Allows reports whether r includes want.
func (r Role) Allows(want Role) bool {
	rank := map[Role]int{RoleViewer: 1, RoleOperator: 2, RoleAdmin: 3}
	return rank[r] >= rank[want] && rank[want] > 0
}

// User is a person who signs in.
type User struct {
	bun.BaseModel `bun:"table:users"`

	ID           UserID `bun:",pk"`
	Name         string
	Role         Role
	PasswordHash string
	CreatedAt    time.Time `bun:",nullzero"`
}

// minPassword is in characters; there are no other rules, length is what counts.
const minPassword = 8

// hashing limits argon2id to a few at a time: each takes 64 MiB, and a flood
// of logins must not take the machine's memory.
var hashing = make(chan struct{}, max(2, runtime.NumCPU()))

var argonParams = &argon2id.Params{Memory: 64 * 1024, Iterations: 2, Parallelism: 1, SaltLength: 16, KeyLength: 32}

func hashPassword(password string) (string, error) {
	hashing <- struct{}{}
	defer func() { <-hashing }()
	return argon2id.CreateHash(password, argonParams)
}

func passwordMatches(password, hash string) bool {
	hashing <- struct{}{}
	defer func() { <-hashing }()
	ok, err := argon2id.ComparePasswordAndHash(password, hash)
	return err == nil && ok
}

// noUserHash costs an unknown name as much time as a known one.
const noUserHash = "$argon2id$v=19$m=65536,t=2,p=1$c29tZXNhbHRzb21lc2FsdA$M3dpzd1Xi8vPMvOeS3Lnxc0XHVM3v0q4X3kZ0Rf0bD0"

// AddUser makes a user. A taken name is EInvalid on "name".
func AddUser(ctx context.Context, db IDB, name, password string, role Role) (*User, error) {
	var p problems
	name = strings.TrimSpace(name)
	checkName(&p, "name", name)
	if n := utf8.RuneCountInString(password); n < minPassword || n > 200 {
		p.add("password", "must have between %d and 200 characters", minPassword)
	}
	if err := p.err(); err != nil {
		return nil, err
	}
	hash, err := hashPassword(password)
	if err != nil {
		return nil, fmt.Errorf("hash password: %w", err)
	}
	u := &User{ID: NewID[UserID](), Name: name, Role: role, PasswordHash: hash}
	if _, err := db.NewInsert().Model(u).Returning("created_at").Exec(ctx); err != nil {
		if violated(err, pgUniqueViolation, "users_name") {
			return nil, Invalid("name", "there is a user %q already: choose another name", name)
		}
		return nil, fmt.Errorf("add user: %w", err)
	}
	return u, nil
}

// SetPassword replaces a user's password and ends all of the user's sessions.
func SetPassword(ctx context.Context, db *DB, name, password string) error {
	if n := utf8.RuneCountInString(password); n < minPassword || n > 200 {
		return Invalid("password", "must have between %d and 200 characters", minPassword)
	}
	hash, err := hashPassword(password)
	if err != nil {
		return fmt.Errorf("hash password: %w", err)
	}
	return Tx(ctx, db, func(tx IDB) error {
		var id UserID
		err := tx.QueryRowContext(ctx, "update users set password_hash = ? where lower(name) = lower(?) returning id", hash, name).Scan(&id)
		if isNoRows(err) {
			return NotFound("user", name)
		}
		if err != nil {
			return fmt.Errorf("set password: %w", err)
		}
		_, err = tx.ExecContext(ctx, "delete from sessions where user_id = ?", id)
		return err
	})
}

// Authenticate finds the user with this name and password, or EUnauthorized
// with one message for both mistakes.
func Authenticate(ctx context.Context, db IDB, name, password string) (*User, error) {
	var u User
	err := db.NewSelect().Model(&u).Where("lower(name) = lower(?)", strings.TrimSpace(name)).Scan(ctx)
	if err != nil && !isNoRows(err) {
		return nil, fmt.Errorf("find user: %w", err)
	}
	hash := u.PasswordHash
	if isNoRows(err) {
		hash = noUserHash
	}
	if !passwordMatches(password, hash) || isNoRows(err) {
		return nil, &Error{Code: EUnauthorized, Message: "This name and password don't go together. Check both, or ask an administrator for a new password."}
	}
	return &u, nil
}

// HasUsers reports whether anyone can sign in yet.
func HasUsers(ctx context.Context, db IDB) (bool, error) {
	return db.NewSelect().Model((*User)(nil)).Limit(1).Exists(ctx)
}

// checkName holds for every name a person gives a thing.
func checkName(p *problems, field, s string) {
	switch {
	case s == "":
		p.add(field, "is missing: give a name")
	case !utf8.ValidString(s):
		p.add(field, "is not UTF-8 text")
	case utf8.RuneCountInString(s) > 100:
		p.add(field, "is longer than 100 characters: shorten it")
	case strings.ContainsFunc(s, unicode.IsControl):
		p.add(field, "has a control character: remove it")
	}
}
