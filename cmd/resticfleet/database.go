package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"time"

	"resticfleet/models"
	"resticfleet/models/postgres"
)

// databaseFlags say where the database is; every command that needs it has
// them.
type databaseFlags struct {
	DataDir         string `help:"Where the server keeps its files." default:"/var/lib/resticfleet/server" env:"RESTICFLEET_DATA_DIR" type:"path"`
	DatabaseURL     string `help:"PostgreSQL to use; without one the server runs its own in the data directory." env:"RESTICFLEET_DATABASE_URL"`
	DatabaseURLFile string `help:"File that holds the database URL." env:"RESTICFLEET_DATABASE_URL_FILE" type:"path"`
}

// url is the database that was asked for, "" for our own.
func (f databaseFlags) url() (string, error) {
	if f.DatabaseURL != "" || f.DatabaseURLFile == "" {
		return f.DatabaseURL, nil
	}
	raw, err := os.ReadFile(f.DatabaseURLFile)
	if err != nil {
		return "", fmt.Errorf("--database-url-file: %w", err)
	}
	return strings.TrimSpace(string(raw)), nil
}

// open connects for a short command, also beside a running server, and
// migrates. The caller must call release.
func (f databaseFlags) open(ctx context.Context) (db *models.DB, release func(), err error) {
	url, err := f.url()
	if err != nil {
		return nil, nil, err
	}
	stop := func() {}
	if url == "" {
		log := slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelWarn}))
		if url, stop, err = postgres.Open(ctx, postgres.Config{DataDir: f.DataDir, Logger: log}); err != nil {
			return nil, nil, err
		}
	}
	db, err = connect(ctx, url)
	if err != nil {
		stop()
		return nil, nil, err
	}
	return db, func() { _ = db.Close(); stop() }, nil
}

// patience is how long a start waits for a database that isn't up yet.
const patience = 30 * time.Second

// connect opens a pool, waits until the database answers, and migrates.
func connect(ctx context.Context, url string) (*models.DB, error) {
	db, err := models.Open(url)
	if err != nil {
		return nil, err
	}
	fail := func(err error) (*models.DB, error) {
		_ = db.Close()
		return nil, err
	}
	deadline := time.Now().Add(patience)
	for {
		err := models.Ping(ctx, db)
		if err == nil {
			break
		}
		if time.Now().After(deadline) || ctx.Err() != nil {
			return fail(errors.Join(errors.New("the database does not answer: check --database-url and that PostgreSQL runs"), err))
		}
		select {
		case <-ctx.Done():
		case <-time.After(200 * time.Millisecond):
		}
	}
	if err := models.Migrate(ctx, db); err != nil {
		return fail(err)
	}
	return db, nil
}
