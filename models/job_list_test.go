package models_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"

	"resticfleet/models"
)

// jobAt makes a job that was asked for at a time, with an id of that time.
func (b *bundle) jobAt(h *models.Host, g *models.Group, kind models.JobKind, state models.JobState, at time.Time) models.JobID {
	b.t.Helper()
	id := idAt(at)
	var group *models.GroupID
	name := ""
	if g != nil {
		group, name = &g.ID, g.Name
	}
	b.exec("insert into jobs (id, host_id, kind, state, actor_kind, source_group_id, source_group_name, queued_at) values (?, ?, ?, 'queued', 'system', ?, ?, ?)", id, h.ID, kind, group, name, at)
	if state == models.JobQueued {
		return id
	}
	if state != models.JobSkipped && state != models.JobExpired && state != models.JobCancelled {
		b.exec("update jobs set state = 'sent', sent_at = ?, accepted_at = ? where id = ?", at, at, id)
	}
	if state != models.JobSent {
		b.exec(`update jobs set state = ?, snapshot_id = 'aaaaaaaa', started_at = ?,
			finished_at = case when ? in ('running') then null else ?::timestamptz end where id = ?`, state, at, state, at, id)
	}
	return id
}

// idAt is an id as a server makes it at a time.
func idAt(at time.Time) models.JobID {
	id := uuid.New()
	ms := at.UnixMilli()
	for i := range 6 {
		id[5-i] = byte(ms >> (8 * i))
	}
	id[6] = 0x70 | id[6]&0x0f
	return models.JobID(id)
}

// Look-ups that another one came after go when a week is over; nothing else does.
func TestOldLookUpsAreSwept(t *testing.T) {
	t.Parallel()
	b := setup(t)
	web, db := b.host("web"), b.host("db")
	ago := func(days float64) time.Time { return time.Now().Add(-time.Duration(days * 24 * float64(time.Hour))) }
	gone := []models.JobID{
		b.jobAt(web, nil, models.KindSnapshots, models.JobSucceeded, ago(30)), b.jobAt(web, nil, models.KindSnapshots, models.JobFailed, ago(7.1)),
		b.jobAt(web, nil, models.KindDiff, models.JobSucceeded, ago(9)),
	}
	b.exec("insert into job_answers (job_id, seq, items) values (?, 1, '[]')", gone[0])
	b.jobAt(web, nil, models.KindSnapshots, models.JobSucceeded, ago(6.9))
	b.jobAt(web, nil, models.KindDiff, models.JobSucceeded, ago(8))   // the newest of its kind
	b.jobAt(db, nil, models.KindSnapshots, models.JobFailed, ago(40)) // the newest of its host
	b.jobAt(db, nil, models.KindDiff, models.JobRunning, ago(20))     // not ended
	b.jobAt(db, nil, models.KindDiff, models.JobSucceeded, ago(1))
	b.jobAt(web, b.group(web, "www"), models.KindBackup, models.JobSucceeded, ago(400)) // history
	all := b.count("select count(*) from jobs")
	if err := models.SweepLookUps(b.ctx, b.db); err != nil {
		t.Fatal(err)
	}
	if left := b.count("select count(*) from jobs"); left != all-len(gone) {
		t.Errorf("%d of %d jobs are left", left, all)
	}
	for _, id := range gone {
		if b.count("select count(*) from jobs where id = ?", id) != 0 {
			t.Errorf("%s stays", id)
		}
	}
}

func TestEveryFilterOfTheListNarrowsIt(t *testing.T) {
	t.Parallel()
	b := setup(t)
	web, db := b.host("web"), b.host("db")
	www, mail, dump := b.group(web, "www"), b.group(web, "mail"), b.group(db, "dump")
	made := map[string]models.JobID{
		"init":    b.jobAt(web, nil, models.KindInit, models.JobSucceeded, at(1, 0)),
		"good":    b.jobAt(web, www, models.KindBackup, models.JobSucceeded, at(2, 0)),
		"failed":  b.jobAt(web, www, models.KindBackup, models.JobFailed, at(3, 0)),
		"mail":    b.jobAt(web, mail, models.KindBackup, models.JobFailed, at(4, 0)),
		"running": b.jobAt(db, dump, models.KindBackup, models.JobRunning, at(5, 0)),
		"queued":  b.jobAt(web, www, models.KindBackup, models.JobQueued, at(6, 0)),
	}
	b.jobAt(web, nil, "ls", models.JobSucceeded, at(6, 30))
	names := map[models.JobID]string{}
	for name, id := range made {
		names[id] = name
	}
	open := []models.JobState{models.JobQueued, models.JobSent, models.JobRunning}
	for name, c := range map[string]struct {
		filter models.JobFilter
		want   string
	}{
		"none":                 {models.JobFilter{}, "queued running mail failed good init"},
		"host":                 {models.JobFilter{HostID: db.ID}, "running"},
		"group":                {models.JobFilter{HostID: web.ID, SourceGroupID: www.ID}, "queued failed good"},
		"kind":                 {models.JobFilter{Kind: models.KindInit}, "init"},
		"state":                {models.JobFilter{States: []models.JobState{models.JobFailed}}, "mail failed"},
		"several states":       {models.JobFilter{States: open}, "queued running"},
		"from":                 {models.JobFilter{From: at(4, 0)}, "queued running mail"},
		"until":                {models.JobFilter{Until: at(3, 0)}, "good init"},
		"between":              {models.JobFilter{From: at(2, 30), Until: at(4, 30)}, "mail failed"},
		"not after":            {models.JobFilter{NotAfter: made["mail"]}, "mail failed good init"},
		"group, state":         {models.JobFilter{SourceGroupID: www.ID, States: []models.JobState{models.JobFailed}}, "failed"},
		"host, kind, from":     {models.JobFilter{HostID: web.ID, Kind: models.KindBackup, From: at(3, 30)}, "queued mail"},
		"another host's group": {models.JobFilter{HostID: db.ID, SourceGroupID: www.ID}, ""},
		"before all times":     {models.JobFilter{Until: time.Unix(-5, 0)}, ""},
	} {
		var got []string
		page := models.Page{Limit: 2} // so that paging is tried with each of them
		for {
			list, next, err := models.ListJobs(b.ctx, b.db, c.filter, page)
			if err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			for _, j := range list {
				got = append(got, names[j.ID])
			}
			if page.Cursor = next; next == "" {
				break
			}
		}
		if strings.Join(got, " ") != c.want {
			t.Errorf("%s: %q, want %q", name, strings.Join(got, " "), c.want)
		}
	}
	newer := must[int](t)
	if n := newer(models.CountNewer(b.ctx, b.db, models.JobFilter{HostID: web.ID}, made["failed"])); n != 2 {
		t.Errorf("%d jobs of the host are newer, want 2", n)
	}
	if n := newer(models.UnderWay(b.ctx, b.db, models.HostID{})); n != 2 {
		t.Errorf("%d jobs are under way, want 2", n)
	}
	b.jobAt(db, nil, "snapshots", models.JobRunning, at(7, 0))
	if n := newer(models.UnderWay(b.ctx, b.db, db.ID)); n != 1 {
		t.Errorf("%d jobs of the host are under way, want 1: a look-up is none", n)
	}
}

const historyJobs = 10_000

// A page of the list reads about as many rows as it shows, whatever the filter
// and however many jobs there are.
func TestNoFilterReadsTheWholeHistory(t *testing.T) {
	t.Parallel()
	b := setup(t)
	history(b, 100, historyJobs)
	var host models.HostID
	var group models.GroupID
	if err := b.db.QueryRowContext(b.ctx, "select host_id, id from source_groups order by id limit 1").Scan(&host, &group); err != nil {
		t.Fatal(err)
	}
	middle := at(0, 0).Add(-historyJobs / 2 * time.Minute)
	for name, f := range filters(host, group, middle) {
		n, ms := b.touched(func(db *models.DB) {
			if _, _, err := models.ListJobs(b.ctx, db, f, models.Page{}); err != nil {
				t.Fatal(err)
			}
		})
		t.Logf("%s: %d blocks, %.1f ms", name, n, ms)
		if n > 400 {
			t.Errorf("%s: a page of 50 touches %d blocks", name, n)
		}
	}
}

// filters are the combinations that people look by.
func filters(host models.HostID, group models.GroupID, middle time.Time) map[string]models.JobFilter {
	failed, open := []models.JobState{models.JobFailed}, []models.JobState{models.JobQueued, models.JobSent, models.JobRunning}
	return map[string]models.JobFilter{
		"none":             {},
		"host":             {HostID: host},
		"group":            {HostID: host, SourceGroupID: group},
		"group, state":     {HostID: host, SourceGroupID: group, States: failed},
		"kind":             {Kind: models.KindInit},
		"state":            {States: failed},
		"under way":        {States: open},
		"host, under way":  {HostID: host, States: open},
		"host, state":      {HostID: host, States: failed},
		"kind, state":      {Kind: models.KindBackup, States: failed},
		"rare kind, state": {Kind: models.KindInit, States: failed},
		"since":            {From: middle},
		"until":            {Until: middle},
		"an hour":          {From: middle, Until: middle.Add(time.Hour)},
		"an hour, state":   {From: middle, Until: middle.Add(time.Hour), States: failed},
		"an hour, kind":    {From: middle, Until: middle.Add(time.Hour), Kind: models.KindInit},
		"an hour, host":    {From: middle, Until: middle.Add(time.Hour), HostID: host},
	}
}

// history makes a fleet's past: a job a minute, a twentieth failed, one in a
// thousand an init.
func history(b *bundle, hosts, jobs int) {
	b.t.Helper()
	for i := range hosts {
		b.group(b.host(fmt.Sprintf("host-%04d", i)), "www")
	}
	b.exec(`alter table jobs disable trigger user`)
	b.exec(`with g as (select id, host_id, row_number() over (order by id) - 1 as n, count(*) over () as all_of_them from source_groups)
		insert into jobs (id, host_id, kind, state, actor_kind, source_group_id, source_group_name, snapshot_id, queued_at, sent_at, accepted_at, started_at, finished_at, stats)
		select (lpad(to_hex((extract(epoch from at) * 1000)::bigint), 12, '0') || '7' || substr(md5(i::text), 1, 3) || '8' || substr(md5(i::text), 4, 15))::uuid,
			g.host_id, case when i % 1000 = 0 then 'init' else 'backup' end, case when i % 20 = 7 then 'failed' else 'succeeded' end, 'system',
			g.id, 'www', 'aaaaaaaa', at, at, at, at, at, '{"data_added_packed": 12345, "files_new": 3, "total_files_processed": 18204}'
		from generate_series(0, ? - 1) i, lateral (select ?::timestamptz - i * interval '1 minute' as at) t, g where g.n = i % g.all_of_them`, jobs, at(0, 0))
	b.exec("alter table jobs enable trigger user")
	b.exec("vacuum analyze jobs")
}
