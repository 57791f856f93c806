package jobs_test

import (
	"io"
	"log/slog"
	"testing"
	"time"

	"resticfleet/jobs"
	"resticfleet/models"
	"resticfleet/models/modeltest"
)

// BenchmarkMaintainOnce: 2,000 hosts with all three cadences on, and nothing is
// due. It reports how much longer a tick takes than the database needs to read
// the same rows.
func BenchmarkMaintainOnce(b *testing.B) {
	ctx, db := b.Context(), modeltest.DB(b)
	for _, q := range []string{
		`insert into hosts (id, name, restic_host) select gen_random_uuid(), 'h-' || n, 'h-' || n from generate_series(1, 2000) n`,
		`insert into host_repo_maintenance (host_id, forget_cron, forget_enabled, prune_cron, prune_enabled, check_cron, check_enabled, check_read_data_subset)
			select id, '30 3 * * *', true, '30 4 * * 0', true, '30 5 * * 0', true, '1/12' from hosts on conflict do nothing`,
		`insert into maintenance_states (host_id, kind) select h.id, k from hosts h, unnest(array['forget', 'prune', 'check']) k on conflict do nothing`,
		`with r as (insert into repositories (restic_id) select null from hosts returning id)
			insert into repository_urls (url, repository_id) select 'u' || row_number() over (), id from r`,
		`insert into host_repositories (host_id, url, url_key, password_sealed)
			select h.id, 'u' || row_number() over (), 'u' || row_number() over (), '' from hosts h`,
		`analyze`,
	} {
		if _, err := db.ExecContext(ctx, q); err != nil {
			b.Fatal(err)
		}
	}
	s := jobs.New(jobs.Config{DB: db, Hints: &hints{}, Log: slog.New(slog.NewTextHandler(io.Discard, nil))})
	tick := func() {
		if err := s.MaintainOnce(ctx, time.Now()); err != nil {
			b.Fatal(err)
		}
	}
	tick() // gives the repositories their owners
	var whole, bare time.Duration
	for b.Loop() {
		begin := time.Now()
		tick()
		whole += time.Since(begin)
		begin = time.Now()
		if _, err := models.OwnRepositories(ctx, db); err != nil {
			b.Fatal(err)
		}
		var n int
		err := db.QueryRowContext(ctx, `select count(*) from (select s.*, m.*, h.timezone, hr.bound_at from maintenance_states s join host_repo_maintenance m using (host_id)
			join hosts h on h.id = s.host_id join host_repositories hr on hr.host_id = h.id join repository_urls u on u.url = hr.url_key join repositories r on r.id = u.repository_id
			offset 0) x`).Scan(&n)
		if err != nil || n != 6000 {
			b.Fatal(n, err)
		}
		bare += time.Since(begin)
	}
	b.ReportMetric(float64(whole)/float64(bare), "times-bare-sql")
	b.ReportMetric(float64(whole.Milliseconds())/float64(b.N), "ms/tick")
}
