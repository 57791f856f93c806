package handlers

import (
	"context"
	"net/http"
	"net/http/httptest"
	"slices"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"resticfleet/models"
	"resticfleet/models/modeltest"
)

const (
	benchHosts = 2000
	benchJobs  = 500_000
	// benchSnapshots are those of one host.
	benchSnapshots = 5000
	// A page is asked for at least benchRounds times, and a quick one for about
	// benchTime: a p99 of few is one bad moment of the machine.
	benchRounds = 300
	benchTime   = 5 * time.Second
	// maxOverSQL is how long a page may take, compared with its statements alone.
	maxOverSQL = 2.0
)

// Pages of a big fleet, from the request to the last compressed byte, against
// the statements that they ask, as they are, read into values on a bare
// connection. Both take turns, so that what else the machine does hits both.
func BenchmarkPages(b *testing.B) {
	url := modeltest.URL(b)
	s := setupOn(b, modeltest.Pool(b, url))
	s.seedFleet()
	bare, err := pgx.Connect(b.Context(), url)
	if err != nil {
		b.Fatal(err)
	}
	defer func() { _ = bare.Close(context.WithoutCancel(b.Context())) }()
	if _, err := bare.Exec(b.Context(), "set timezone = 'UTC'"); err != nil {
		b.Fatal(err)
	}
	var host, job string
	if err := bare.QueryRow(b.Context(), "select id from hosts where name = 'web-0042'").Scan(&host); err != nil {
		b.Fatal(err)
	}
	if err := bare.QueryRow(b.Context(), "select job_id from job_log_lines limit 1").Scan(&job); err != nil {
		b.Fatal(err)
	}
	var cursor string
	if err := bare.QueryRow(b.Context(), "select (extract(epoch from at) * 1000000)::bigint || '-' || id from snapshots where host_id = $1 order by at desc, id desc limit 1 offset 1000", host).Scan(&cursor); err != nil {
		b.Fatal(err)
	}
	cookie := []string{"Cookie", "session=" + s.session(models.RoleAdmin), "Accept-Encoding", "gzip"}
	for _, page := range []struct {
		name, path string
		partial    bool
	}{
		{"fleet", "/", false},
		{"fleet-partial", "/", true},
		{"fleet-typed", "/?q=web-07", true},
		{"fleet-hand", "/?show=hand", false},
		{"fleet-further", "/?cursor=web-1000", false},
		{"host", "/hosts/" + host, false},
		{"host-partial", "/hosts/" + host, true},
		{"host-jobs", "/hosts/" + host + "/jobs", false},
		{"host-snapshots", "/hosts/" + host + "/snapshots", false},
		{"host-snapshots-further", "/hosts/" + host + "/snapshots?tag=www&cursor=" + cursor, true},
		{"jobs", "/jobs", false},
		{"jobs-failed", "/jobs?state=failed", true},
		{"jobs-host-kind", "/jobs?kind=backup&state=warning&host=" + host, true},
		{"job", "/jobs/" + job, false},
		{"job-partial", "/jobs/" + job, true},
	} {
		b.Run(page.name, func(b *testing.B) {
			header := cookie
			if page.partial {
				header = append(slices.Clone(cookie), partialHeader...)
			}
			ask := func() {
				w := httptest.NewRecorder()
				s.web.ServeHTTP(w, s.request("GET", page.path, nil, header...))
				if w.Code != http.StatusOK {
					b.Fatalf("%d: %s", w.Code, w.Body)
				}
			}
			ask() // the session is touched at most once a minute
			s.asked.take()
			ask()
			asked := s.asked.take()
			for b.Loop() {
				var whole, alone []time.Duration
				for start := time.Now(); len(whole) < benchRounds || time.Since(start) < benchTime; {
					began := time.Now()
					ask()
					whole = append(whole, time.Since(began))
					began = time.Now()
					for _, sql := range asked {
						readAll(b, bare, sql)
					}
					alone = append(alone, time.Since(began))
				}
				p99, sql := percentile(whole, 99), percentile(alone, 99)
				b.ReportMetric(float64(p99.Microseconds())/1000, "p99-ms")
				b.ReportMetric(float64(sql.Microseconds())/1000, "sql-p99-ms")
				b.ReportMetric(float64(percentile(whole, 50).Microseconds())/1000, "p50-ms")
				b.ReportMetric(float64(percentile(alone, 50).Microseconds())/1000, "sql-p50-ms")
				ratio := float64(p99) / float64(sql)
				b.ReportMetric(ratio, "times-sql")
				b.ReportMetric(float64(len(asked)-1), "statements")
				if ratio > maxOverSQL {
					b.Errorf("p99 of %s is %v, %.2f times the %v of its statements alone (the middle: %v and %v)", page.path, p99, ratio, sql, percentile(whole, 50), percentile(alone, 50))
				}
			}
		})
	}
}

// readAll is a statement with all its rows as values.
func readAll(b *testing.B, conn *pgx.Conn, sql string) {
	rows, err := conn.Query(b.Context(), sql)
	if err != nil {
		b.Fatal(err)
	}
	for rows.Next() {
		if _, err := rows.Values(); err != nil {
			b.Fatal(err)
		}
	}
	if err := rows.Err(); err != nil {
		b.Fatalf("%s: %v", sql, err)
	}
}

func percentile(times []time.Duration, p int) time.Duration {
	slices.Sort(times)
	return times[min(len(times)*p/100, len(times)-1)]
}

// seedFleet makes a fleet of two groups and schedules a host, whose backups of
// the last two months are mostly good. Some hosts are away, some groups failed
// last, were never backed up or are late; a few backups run or wait.
func (b *bundle) seedFleet() {
	b.t.Helper()
	for _, q := range []string{
		"alter table jobs disable trigger user",
		`insert into hosts (id, name, restic_host, labels, os, arch, timezone, timezone_known, enrolled_at, link, link_since, last_seen_at, timezone_since)
			select gen_random_uuid(), n, n, jsonb_build_array(case when i % 3 = 0 then 'production' else 'staging' end, 'rack-' || i % 40), 'Debian 12', 'amd64',
				(array['UTC', 'Europe/Berlin', 'America/New_York', 'Asia/Tokyo'])[i % 4 + 1], true, now() - interval '1 year',
				case when i % 5 = 0 then 'polling' else 'websocket' end, now() - interval '3 days',
				case when i % 40 = 0 then now() - interval '1 day' else now() + interval '1 day' end, now() - interval '1 year'
			from generate_series(1, ?0) i, lateral (select 'web-' || lpad(i::text, 4, '0') as n) x`,
		"insert into repositories (restic_id) select md5(i::text) || md5(i::text) from generate_series(1, ?0) i",
		`insert into repository_urls (url, repository_id) select 'rest:https://backup.example.net/' || id, id from repositories`,
		`insert into host_repositories (host_id, url, url_key, password_sealed, env_sealed)
			select h.id, u.url, u.url, 'sealed', '{"RESTIC_REST_USERNAME": "", "RESTIC_REST_PASSWORD": ""}' from hosts h join repository_urls u on u.repository_id = h.no`,
		`with g as (insert into source_groups (id, host_id, name, tag, includes, excludes, retention)
			select gen_random_uuid(), h.id, n, n, jsonb_build_array('/srv/' || n, '/var/lib/' || n), '["*.tmp", "cache"]', '{"keep_daily": 7}'
			from hosts h, unnest(array['www', 'postgres']) n returning *)
			insert into source_group_tags (host_id, tag, source_group_id) select host_id, tag, id from g`,
		`insert into schedules (id, host_id, cron, enabled, effective_at) select gen_random_uuid(), h.id, c, true, now() - interval '1 year'
			from hosts h, lateral unnest(array[h.no % 60 || ' 2 * * *', '30 */6 * * 1-5']) c`,
		"insert into schedule_source_groups (schedule_id, source_group_id, host_id) select s.id, g.id, s.host_id from schedules s join source_groups g on g.host_id = s.host_id",
		`insert into source_group_days (source_group_id, day, good, warning, failed)
			select g.id, current_date - d, 1 + d % 2, case when d % 13 = 0 then 1 else 0 end, case when d % 17 = 0 then 1 else 0 end
			from source_groups g, generate_series(0, 59) d`,
		// One job of a group after the other, by time; the ids sort like ours.
		`insert into jobs (id, host_id, kind, state, actor_kind, source_group_id, source_group_name, spec, repository_id, repository_url, snapshot_id, exit_code,
				error, error_code, stats, queued_at, sent_at, accepted_at, started_at, finished_at)
			select (lpad(to_hex((extract(epoch from at) * 1000)::bigint), 12, '0') || '7' || substr(md5(i::text), 1, 3) || '8' || substr(md5(i::text), 4, 15))::uuid,
				g.host_id, 'backup', state, 'system', g.id, g.name, jsonb_build_object('includes', g.includes, 'tag', g.tag), g.no, 'rest:https://backup.example.net/' || g.no,
				case when state = 'failed' then '' else md5(i::text) || md5(i::text) end, 0,
				case when state = 'succeeded' then '' else 'Some files could not be read. Look at the log.' end, case when state = 'succeeded' then '' else 'unreadable_files' end,
				'{"files_new": 12, "files_changed": 30, "files_unmodified": 18204, "total_files_processed": 18246, "total_bytes_processed": 3300000000, "data_added_packed": 1200000}',
				at, at, at, at, at + interval '40 seconds'
			from (select g.*, h.no, row_number() over (order by g.id) - 1 as k, count(*) over () as of from source_groups g join hosts h on h.id = g.host_id) g
			cross join lateral generate_series(0, (?1::int / g.of)::int - 1) turn
			cross join lateral (select g.k * (?1::int / g.of) + turn as i, now() - interval '60 days' + turn * interval '11 hours' + g.k * interval '9 seconds' as at) x
			cross join lateral (select case when i % 97 = 0 then 'failed' when i % 53 = 0 then 'warning' else 'succeeded' end as state) s`,
		`update source_groups g set good_at = now() - interval '5 minutes', good_bytes = 3300000000, good_snapshot_id = j.snapshot_id, newest_snapshot_id = j.snapshot_id,
				last_job_id = j.id, last_state = 'succeeded'
			from (select distinct on (source_group_id) source_group_id, id, snapshot_id from jobs order by source_group_id, id desc) j where j.source_group_id = g.id`,
		`update source_groups g set last_state = 'failed', last_error = 'Wrong repository password. Enter the one that opens the repository.' from hosts h where h.id = g.host_id and h.no % 60 = 0 and g.name = 'www'`,
		"update source_groups g set good_at = null, good_snapshot_id = '' from hosts h where h.id = g.host_id and h.no % 90 = 1 and g.name = 'www'",
		"update source_groups g set good_at = now() - interval '4 days' from hosts h where h.id = g.host_id and h.no % 45 = 2 and g.name = 'postgres'",
		`update jobs j set state = (array['running', 'queued'])[h.no / 25 % 2 + 1], finished_at = null, snapshot_id = '',
				progress = '{"percent": 63.2, "files_done": 1200, "total_files": 18204, "bytes_done": 1900000000, "total_bytes": 3300000000, "seconds_remaining": 100, "current_files": ["/srv/www/index.html"]}'
			from source_groups g join hosts h on h.id = g.host_id where j.id = g.last_job_id and g.name = 'www' and h.no % 25 = 3`,
		`insert into job_log_lines (job_id, seq, at, level, text) select g.last_job_id, i, now(), 'info', 'unchanged /srv/www/a/file/of/some/length/number-' || i
			from generate_series(1, 400) i, source_groups g join hosts h on h.id = g.host_id where h.name = 'web-0042' and g.name = 'www'`,
		"alter table jobs enable trigger user",
		`insert into snapshots (host_id, id, at, hostname, paths, tags, source_group_id, job_id, size_bytes, file_count)
			select g.host_id, md5(i::text) || md5(i::text), now() - i * interval '100 minutes', h.name, g.includes, jsonb_build_array(g.tag, 'job:' || g.last_job_id), g.id,
				case when i % 3 > 0 then g.last_job_id end, 3300000000, 18246
			from source_groups g join hosts h on h.id = g.host_id cross join generate_series(1, ?2) i where h.name = 'web-0042' and (i % 2 = 0) = (g.name = 'www')`,
		"insert into snapshot_holds (host_id, snapshot_id) select host_id, id from snapshots where id like '7%'",
		"update hosts set snapshots_listed_at = now(), agent_protocol = 3 where name = 'web-0042'",
	} {
		b.exec(q, benchHosts, benchJobs, benchSnapshots)
	}
	if err := models.KeepLateness(b.ctx, b.db, 0); err != nil {
		b.t.Fatal(err)
	}
	b.exec("vacuum analyze")
	if n := b.count("select count(*) from jobs"); n != benchJobs {
		b.t.Fatalf("%d jobs, want %d", n, benchJobs)
	}
}
