package models

import (
	"context"
	"fmt"

	"github.com/uptrace/bun/migrate"

	"resticfleet/models/migrations"
)

// migrationLock is the advisory lock that lets one server migrate while the
// others wait; the number only has to be ours.
const migrationLock = 7_402_115_209

// Migrate brings the schema up to this program's version. Servers that start
// together do it once: an advisory lock makes the others wait.
func Migrate(ctx context.Context, db *DB) error {
	all := migrate.NewMigrations()
	if err := all.Discover(migrations.Files); err != nil {
		return fmt.Errorf("migrations: %w", err)
	}
	conn, err := db.Conn(ctx)
	if err != nil {
		return fmt.Errorf("database: %w", err)
	}
	defer func() { _ = conn.Close() }()
	if _, err := conn.ExecContext(ctx, "select pg_advisory_lock(?)", migrationLock); err != nil {
		return fmt.Errorf("migrations: %w", err)
	}
	defer func() {
		_, _ = conn.ExecContext(context.WithoutCancel(ctx), "select pg_advisory_unlock(?)", migrationLock)
	}()
	m := migrate.NewMigrator(db, all, migrate.WithMarkAppliedOnSuccess(true))
	if err := m.Init(ctx); err != nil {
		return fmt.Errorf("migrations: %w", err)
	}
	if err := newerSchema(ctx, m, all); err != nil {
		return err
	}
	if _, err := m.Migrate(ctx); err != nil {
		return fmt.Errorf("migrations: %w", err)
	}
	return nil
}

// newerSchema refuses a database that a newer Resticfleet has migrated: this
// one would write rows which that one can't read.
func newerSchema(ctx context.Context, m *migrate.Migrator, all *migrate.Migrations) error {
	applied, err := m.AppliedMigrations(ctx)
	if err != nil {
		return fmt.Errorf("migrations: %w", err)
	}
	known := map[string]bool{}
	for _, one := range all.Sorted() {
		known[one.Name] = true
	}
	for _, one := range applied {
		if !known[one.Name] {
			return fmt.Errorf("the database was migrated by a newer Resticfleet (%s): start that version, or restore a backup made before it", one.Name)
		}
	}
	return nil
}
