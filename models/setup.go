package models

import (
	"context"
	"fmt"
)

// NewSetupLink makes the token of a one-time link for the first administrator:
// one hour, single use. It is refused with EConflict once there are users.
func NewSetupLink(ctx context.Context, db IDB) (string, error) {
	has, err := HasUsers(ctx, db)
	if err != nil {
		return "", err
	}
	if has {
		return "", Conflict("There are users already. Sign in, or add one with `resticfleet user add NAME --role admin`.")
	}
	token, hash := NewToken("")
	if _, err := db.ExecContext(ctx, "insert into setup_links (token_hash, expires_at) values (?, now() + interval '1 hour')", hash); err != nil {
		return "", fmt.Errorf("setup link: %w", err)
	}
	return token, nil
}

// SetupLinkOpen reports whether the token could still be used.
func SetupLinkOpen(ctx context.Context, db IDB, token string) (bool, error) {
	var n int
	err := db.QueryRowContext(ctx, `select count(*) from setup_links
		where token_hash = ? and used_at is null and expires_at > now() and not exists (select from users)`, HashToken(token)).Scan(&n)
	return n > 0, err
}

// SetUp makes the first administrator with a one-time link. Two at once, also
// with two links, end with one administrator: users are added one at a time
// while this looks for them.
func SetUp(ctx context.Context, db *DB, token, name, password string) (*User, error) {
	var user *User
	err := Tx(ctx, db, func(tx IDB) error {
		if _, err := tx.ExecContext(ctx, "lock table users in share row exclusive mode"); err != nil {
			return fmt.Errorf("set up: %w", err)
		}
		res, err := tx.ExecContext(ctx, `update setup_links set used_at = now()
			where token_hash = ? and used_at is null and expires_at > now() and not exists (select from users)`, HashToken(token))
		if err != nil {
			return fmt.Errorf("set up: %w", err)
		}
		if n, _ := res.RowsAffected(); n == 0 {
			return &Error{Code: EGone, Message: "This link was used or is older than an hour. Print a new one with `resticfleet setup-link`."}
		}
		user, err = AddUser(ctx, tx, name, password, RoleAdmin)
		return err
	})
	return user, err
}
