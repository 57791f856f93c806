package models_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"resticfleet/agent/protocol"
	"resticfleet/models"
	"resticfleet/models/modeltest"
)

func TestMain(m *testing.M) { modeltest.Main(m) }

// bundle is a database of the test's own, used as servers use it and, by exec,
// as a person at a psql prompt does.
type bundle struct {
	t    testing.TB
	ctx  context.Context
	db   *models.DB
	seal *models.Sealer
}

func setup(t testing.TB) *bundle {
	t.Helper()
	return &bundle{t: t, ctx: t.Context(), db: modeltest.DB(t), seal: modeltest.Sealer(t)}
}

// must fails the test on an error.
func must[T any](t testing.TB) func(T, error) T {
	return func(v T, err error) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

func (b *bundle) host(name string) *models.Host {
	b.t.Helper()
	return must[*models.Host](b.t)(models.AddHost(b.ctx, b.db, models.HostFields{Name: name}))
}

func (b *bundle) bind(h *models.Host, url string) *models.HostRepository {
	b.t.Helper()
	return must[*models.HostRepository](b.t)(models.BindRepository(b.ctx, b.db, b.seal, h.ID, models.RepositoryFields{URL: url, Password: "correct horse"}))
}

func (b *bundle) group(h *models.Host, name string) *models.Group {
	b.t.Helper()
	return must[*models.Group](b.t)(models.AddGroup(b.ctx, b.db, h.ID, fields(name)))
}

func fields(name string) models.GroupFields {
	return models.GroupFields{Name: name, Includes: []string{"/srv/" + name}}
}

func (b *bundle) schedule(h *models.Host, groups ...*models.Group) *models.Schedule {
	b.t.Helper()
	f := models.ScheduleFields{Cron: "0 2 * * *", Enabled: true}
	for _, g := range groups {
		f.GroupIDs = append(f.GroupIDs, g.ID.String())
	}
	return must[*models.Schedule](b.t)(models.AddSchedule(b.ctx, b.db, h.ID, f))
}

func (b *bundle) run(g *models.Group) *models.Job {
	b.t.Helper()
	return must[*models.Job](b.t)(models.RunGroup(b.ctx, b.db, g.HostID, g.ID, models.System))
}

// link opens a link with a credential of its own and returns its generation.
func (b *bundle) link(h *models.Host) int64 {
	b.t.Helper()
	_, hash := models.NewToken("rfa_")
	b.exec("update hosts set agent_token_hash = ? where id = ?", hash, h.ID)
	return must[int64](b.t)(models.OpenLink(b.ctx, b.db, h.ID, hash, protocol.LinkWebSocket, "session"))
}

func (b *bundle) claim(h *models.Host, generation int64) *models.Job {
	b.t.Helper()
	return must[*models.Job](b.t)(models.Claim(b.ctx, b.db, h.ID, generation))
}

// finish tells the end of a job as its agent does.
func (b *bundle) finish(j *models.Job, f protocol.Finished) *models.Job {
	b.t.Helper()
	f.JobID = j.ID.String()
	err := models.Tx(b.ctx, b.db, func(tx models.IDB) error {
		h, err := models.FindHost(b.ctx, tx, j.HostID)
		if err != nil {
			return err
		}
		_, err = models.JobFinished(b.ctx, tx, h, f)
		return err
	})
	if err != nil {
		b.t.Fatal(err)
	}
	return b.job(j.ID)
}

func (b *bundle) job(id models.JobID) *models.Job {
	b.t.Helper()
	return must[*models.Job](b.t)(models.FindJob(b.ctx, b.db, id))
}

func (b *bundle) findGroup(g *models.Group) *models.Group {
	b.t.Helper()
	return must[*models.Group](b.t)(models.FindGroup(b.ctx, b.db, g.HostID, g.ID))
}

// succeeded is a backup's good end with a snapshot named by one digit.
func succeeded(digit string, files, bytes float64) protocol.Finished {
	exit := 0
	return protocol.Finished{
		Outcome: protocol.OutcomeSucceeded, SnapshotID: strings.Repeat(digit, 64), ExitCode: &exit,
		Stats: map[string]any{"total_files_processed": files, "total_bytes_processed": bytes},
	}
}

// exec is what must work.
func (b *bundle) exec(query string, args ...any) {
	b.t.Helper()
	if _, err := b.db.ExecContext(b.ctx, query, args...); err != nil {
		b.t.Fatalf("%s: %v", query, err)
	}
}

// count answers one number.
func (b *bundle) count(query string, args ...any) int {
	b.t.Helper()
	var n int
	if err := b.db.QueryRowContext(b.ctx, query, args...).Scan(&n); err != nil {
		b.t.Fatalf("%s: %v", query, err)
	}
	return n
}

// refused is what the database must not let pass, with one of these SQLSTATEs.
func (b *bundle) refused(states, query string, args ...any) {
	b.t.Helper()
	_, err := b.db.ExecContext(b.ctx, query, args...)
	var pg *pgconn.PgError
	switch {
	case err == nil:
		b.t.Errorf("not refused: %s %v", query, args)
	case !errors.As(err, &pg) || !strings.Contains(states, pg.Code):
		b.t.Errorf("%s: refused for another reason: %v", query, err)
	}
}

// SQLSTATEs.
const (
	unique     = "23505"
	foreignKey = "23503"
	check      = "23514"
	exclusion  = "23P01"
)

// wantCode checks what kind of error err is.
func wantCode(t testing.TB, err error, code models.Code) {
	t.Helper()
	_ = wantError(t, err, code)
}

// wantError is wantCode for those who read on.
func wantError(t testing.TB, err error, code models.Code) *models.Error {
	t.Helper()
	var e *models.Error
	if !errors.As(err, &e) || e.Code != code {
		t.Fatalf("got %v, want an error of code %d", err, code)
	}
	return e
}

// at is a time of a fixed day, in microseconds as the database keeps them.
func at(hour, minute int) time.Time { return time.Date(2026, 11, 20, hour, minute, 0, 0, time.UTC) }

func snapshot(digit string) string { return strings.Repeat(digit, 64) }
