package modeltest

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"io/fs"
	"testing"

	"resticfleet/models"
	"resticfleet/models/migrations"
)

// DB returns a pool on a database of the test's own, migrated, closed and
// dropped after the test.
func DB(t testing.TB) *models.DB {
	t.Helper()
	return Pool(t, URL(t))
}

// URL returns the address of a migrated database of the test's own.
func URL(t testing.TB) string {
	t.Helper()
	return Database(t, schemaVersion(t), func(ctx context.Context, databaseURL string) error {
		db, err := models.Open(databaseURL)
		if err != nil {
			return err
		}
		defer func() { _ = db.Close() }()
		return models.Migrate(ctx, db)
	})
}

// Pool opens another pool on a database, as a second server would.
func Pool(t testing.TB, url string) *models.DB {
	t.Helper()
	db, err := models.Open(url)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close() })
	return db
}

// schemaVersion is a hash of all migrations.
func schemaVersion(t testing.TB) string {
	t.Helper()
	sum := sha256.New()
	files, err := fs.Glob(migrations.Files, "*.sql")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range files {
		raw, err := migrations.Files.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		sum.Write([]byte(name))
		sum.Write(raw)
	}
	return hex.EncodeToString(sum.Sum(nil))[:16]
}

// Sealer returns a sealer with a key of its own.
func Sealer(t testing.TB) *models.Sealer {
	t.Helper()
	key, err := models.GenerateKey()
	if err != nil {
		t.Fatal(err)
	}
	s, err := models.NewSealer(key)
	if err != nil {
		t.Fatal(err)
	}
	return s
}
