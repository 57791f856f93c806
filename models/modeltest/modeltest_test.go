package modeltest_test

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"testing"

	"github.com/jackc/pgx/v5"

	"resticfleet/models/modeltest"
)

func TestMain(m *testing.M) { modeltest.Main(m) }

func exec(ctx context.Context, databaseURL, sql string) error {
	conn, err := pgx.Connect(ctx, databaseURL)
	if err != nil {
		return err
	}
	defer conn.Close(ctx)
	_, err = conn.Exec(ctx, sql)
	return err
}

func TestEveryTestHasADatabaseOfItsOwn(t *testing.T) {
	t.Parallel()
	var migrations atomic.Int32
	t.Cleanup(func() {
		if n := migrations.Load(); n != 1 {
			t.Errorf("the template was migrated %d times", n)
		}
	})
	for i := range 8 {
		t.Run(fmt.Sprint(i), func(t *testing.T) {
			t.Parallel()
			db := modeltest.Database(t, "own", func(ctx context.Context, databaseURL string) error {
				migrations.Add(1)
				return exec(ctx, databaseURL, `CREATE TABLE one (n int PRIMARY KEY)`)
			})
			if err := exec(t.Context(), db, `INSERT INTO one VALUES (1)`); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestEmptyHasNoTables(t *testing.T) {
	t.Parallel()
	if err := exec(t.Context(), modeltest.Empty(t), `CREATE TABLE one (n int)`); err != nil {
		t.Error(err)
	}
}

// fatal stands for the test that a broken migration fails.
type fatal struct {
	testing.TB
	said string
}

func (f *fatal) Helper() {}

func (f *fatal) Fatalf(format string, args ...any) {
	f.said = fmt.Sprintf(format, args...)
	panic(f)
}

func TestABrokenMigrationFailsTheTest(t *testing.T) {
	t.Parallel()
	f := &fatal{TB: t}
	defer func() {
		if recover() != any(f) || f.said != "making the template database: broken" {
			t.Errorf("said %q", f.said)
		}
	}()
	modeltest.Database(f, "broken", func(context.Context, string) error { return errors.New("broken") })
}
