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
	hash, err := argon2id.CreateHash(password, argonParams)
	if err != nil {
		return "", fmt.Errorf("hash password: %w", err)
	}
	return hash, nil
}

func passwordMatches(password, hash string) bool {
	hashing <- struct{}{}
	defer func() { <-hashing }()
	ok, err := argon2id.ComparePasswordAndHash(password, hash)
	return err == nil && ok
}

// noUserHash costs an unknown name as much time as a known one.
const noUserHash = "$argon2id$v=19$m=65536,t=2,p=1$c29tZXNhbHRzb21lc2FsdA$M3dpzd1Xi8vPMvOeS3Lnxc0XHVM3v0q4X3kZ0Rf0bD0"

// checkPassword holds for every password a person chooses.
func checkPassword(p *problems, field, password string) {
	if n := utf8.RuneCountInString(password); n < minPassword || n > 200 {
		p.add(field, "must have between %d and 200 characters", minPassword)
	}
}

// AddUser makes a user. A taken name is EInvalid on "name".
func AddUser(ctx context.Context, db IDB, name, password string, role Role) (*User, error) {
	var p problems
	name = strings.TrimSpace(name)
	checkName(&p, "name", name)
	checkPassword(&p, "password", password)
	if err := p.err(); err != nil {
		return nil, err
	}
	hash, err := hashPassword(password)
	if err != nil {
		return nil, err
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

// FindUser is ENotFound when there is none.
func FindUser(ctx context.Context, db IDB, id UserID) (*User, error) {
	u := &User{}
	err := db.NewSelect().Model(u).Where("id = ?", id).Scan(ctx)
	if isNoRows(err) {
		return nil, NotFound("user", id.String())
	}
	if err != nil {
		return nil, fmt.Errorf("find user: %w", err)
	}
	return u, nil
}

// UserState is a user with what tells whether the account is in use.
type UserState struct {
	User     `bun:",extend"`
	Sessions int
	// SeenAt is the newest use of any session there still is.
	SeenAt *time.Time
}

// ListUsers lists the users whose name contains the query, the newest first.
func ListUsers(ctx context.Context, db IDB, query string, page Page) ([]*UserState, string, error) {
	var all []*UserState
	q := db.NewSelect().Model(&all).ColumnExpr("?TableAlias.id, ?TableAlias.name, ?TableAlias.role, ?TableAlias.created_at, s.*").
		Join("cross join lateral (select count(*) as sessions, max(seen_at) as seen_at from sessions where user_id = ?TableAlias.id and expires_at > now()) s")
	if query != "" {
		q.Where("position(lower(?) in lower(?TableAlias.name)) > 0", query)
	}
	if err := page.apply(q); err != nil {
		return nil, "", err
	}
	if err := q.Scan(ctx); err != nil {
		return nil, "", fmt.Errorf("list users: %w", err)
	}
	all, next := cut(all, page, func(u *UserState) string { return u.ID.String() })
	return all, next, nil
}

// CountUsers counts the users by their role.
func CountUsers(ctx context.Context, db IDB) (map[Role]int, error) {
	var rows []struct {
		Role Role
		N    int
	}
	if err := db.NewSelect().Model((*User)(nil)).ColumnExpr("role, count(*) as n").GroupExpr("role").Scan(ctx, &rows); err != nil {
		return nil, fmt.Errorf("count users: %w", err)
	}
	counts := map[Role]int{}
	for _, r := range rows {
		counts[r.Role] = r.N
	}
	return counts, nil
}

// anotherAdmin is EConflict when this user is the last administrator. It holds
// the rows of all administrators until the transaction ends, always in the same
// order: of two who take each other's role away at once the second waits here,
// and then finds only one.
func anotherAdmin(ctx context.Context, tx IDB, id UserID) error {
	var admins []UserID
	if err := tx.NewRaw("select id from users where role = ? order by id for update", RoleAdmin).Scan(ctx, &admins); err != nil {
		return fmt.Errorf("lock administrators: %w", err)
	}
	if len(admins) == 1 && admins[0] == id {
		return Conflict("This is the last administrator: without one nobody could add users or repositories any more. Make somebody else an administrator first.")
	}
	return nil
}

// ChangeRole gives a user another role, from the next request on. EConflict
// when it would leave nobody who administers.
func ChangeRole(ctx context.Context, db *DB, id UserID, role Role) error {
	return Tx(ctx, db, func(tx IDB) error {
		if role != RoleAdmin {
			if err := anotherAdmin(ctx, tx, id); err != nil {
				return err
			}
		}
		return updateUser(ctx, tx, "update users set role = ? where id = ?", role, id)
	})
}

// DeleteUser ends a user's sessions and forgets the user; what the user did
// keeps the name. EConflict when it would leave nobody who administers.
func DeleteUser(ctx context.Context, db *DB, id UserID) error {
	return Tx(ctx, db, func(tx IDB) error {
		if err := anotherAdmin(ctx, tx, id); err != nil {
			return err
		}
		return updateUser(ctx, tx, "delete from users where id = ?", id)
	})
}

// updateUser runs a statement whose last argument is the user's id.
func updateUser(ctx context.Context, tx IDB, query string, args ...any) error {
	res, err := tx.ExecContext(ctx, query, args...)
	if err != nil {
		return fmt.Errorf("change user: %w", err)
	}
	if n, _ := res.RowsAffected(); n == 0 {
		return NotFound("user", fmt.Sprint(args[len(args)-1]))
	}
	return nil
}

// ResetPassword gives a user a new password and ends all of the user's
// sessions: whoever knew the old one is out.
func ResetPassword(ctx context.Context, db *DB, id UserID, password string) error {
	var p problems
	checkPassword(&p, "password", password)
	if err := p.err(); err != nil {
		return err
	}
	hash, err := hashPassword(password)
	if err != nil {
		return err
	}
	return Tx(ctx, db, func(tx IDB) error {
		if err := updateUser(ctx, tx, "update users set password_hash = ? where id = ?", hash, id); err != nil {
			return err
		}
		return EndOtherSessions(ctx, tx, id, SessionID{})
	})
}

// ChangePassword changes the password of who asks; a wrong current one is
// EInvalid on "current". The session that asks goes on under the new token
// that is returned, all others of the user end.
func ChangePassword(ctx context.Context, db *DB, who *Identity, current, password string) (token string, err error) {
	u, err := FindUser(ctx, db, who.UserID)
	if err != nil {
		return "", err
	}
	var p problems
	if !passwordMatches(current, u.PasswordHash) {
		p.add("current", "is not your password: type the one that you log in with")
	}
	checkPassword(&p, "password", password)
	if err := p.err(); err != nil {
		return "", err
	}
	hash, err := hashPassword(password)
	if err != nil {
		return "", err
	}
	token, tokenHash := NewToken("")
	err = Tx(ctx, db, func(tx IDB) error {
		// Not over a password that was set since: by an administrator, say.
		err := updateUser(ctx, tx, "update users set password_hash = ? where password_hash = ? and id = ?", hash, u.PasswordHash, u.ID)
		if CodeOf(err) == ENotFound {
			return Conflict("Your password was changed a moment ago by somebody else. Log in with the new one.")
		}
		if err != nil {
			return err
		}
		if err := EndOtherSessions(ctx, tx, u.ID, who.SessionID); err != nil {
			return err
		}
		_, err = tx.ExecContext(ctx, "update sessions set token_hash = ? where id = ?", tokenHash, who.SessionID)
		return err
	})
	if err != nil {
		return "", err
	}
	return token, nil
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
