package models

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/stdlib"
	"github.com/uptrace/bun"
	"github.com/uptrace/bun/dialect/pgdialect"
)

// DB is a pool of connections, IDB anything that runs SQL: the pool or a
// transaction. Other packages pass them on and write no SQL of their own.
type (
	DB  = bun.DB
	IDB = bun.IDB
)

// Open makes a pool for url; it connects with the first query. The url holds
// the database's password: it is never part of an error.
func Open(url string) (*DB, error) {
	cfg, err := pgx.ParseConfig(url)
	if err != nil {
		return nil, errors.New("the database URL can't be read; it has the form postgres://user:password@host:5432/name")
	}
	cfg.RuntimeParams["application_name"] = "resticfleet"
	cfg.RuntimeParams["timezone"] = "UTC"
	// A server that died must not hold a gate's row for hours.
	cfg.RuntimeParams["idle_in_transaction_session_timeout"] = "30s"
	if cfg.ConnectTimeout == 0 {
		cfg.ConnectTimeout = 5 * time.Second
	}
	pool := stdlib.OpenDB(*cfg)
	pool.SetMaxOpenConns(24)
	pool.SetMaxIdleConns(12)
	pool.SetConnMaxIdleTime(5 * time.Minute)
	// An older server beside a newer one must not trip over a new column.
	return bun.NewDB(pool, pgdialect.New(), bun.WithDiscardUnknownColumns()), nil
}

// Tx runs f in a transaction and commits when f returns nil. A deadlock or a
// serialization failure is tried again, so f must have no effect outside the
// database; hints go out after Tx has returned.
func Tx(ctx context.Context, db *DB, f func(tx IDB) error) error {
	for attempt := 0; ; attempt++ {
		err := db.RunInTx(ctx, &sql.TxOptions{}, func(_ context.Context, tx bun.Tx) error { return f(tx) })
		again := violated(err, pgSerialization, "") || violated(err, pgDeadlock, "")
		if err == nil || !again || attempt == 4 {
			return err
		}
	}
}

// Ping reports whether the database answers.
func Ping(ctx context.Context, db *DB) error {
	if _, err := db.ExecContext(ctx, "select 1"); err != nil {
		return fmt.Errorf("database: %w", err)
	}
	return nil
}
