package handlers

import (
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"resticfleet/agent/protocol"
	"resticfleet/models"
)

// The tab in every state, by what it says of it and what an administrator may do.
func TestTheMaintenanceTabSaysWhatIsSo(t *testing.T) {
	t.Parallel()
	b := setup(t)
	bare, at := b.host("bare")
	if html := plain(b.page(at + "/maintenance")); !strings.Contains(html, "There is no repository to maintain yet") || !strings.Contains(html, "Set repository") {
		t.Errorf("%s without a repository: %s", bare.Name, html)
	}
	f := b.fleet("web")
	f.online()
	f.exec("update hosts set timezone = 'Europe/Berlin', timezone_known = true, agent_protocol = 3 where id = ?", f.host.ID)
	f.exec(`update source_groups set retention = '{"keep_daily": 7}' where id = ?`, f.group.ID)
	f.add("etc")
	at = "/hosts/" + f.host.ID.String() + "/maintenance"
	see := func(what string, parts ...string) {
		t.Helper()
		html := plain(b.page(at))
		for _, part := range parts {
			unwanted, not := strings.CutPrefix(part, "!")
			if not && strings.Contains(html, unwanted) {
				t.Errorf("%s: it says %q", what, unwanted)
			}
			if !not && !strings.Contains(html, part) {
				t.Errorf("%s: it doesn't say %q:\n%s", what, part, html)
			}
		}
	}
	state := func(kind models.JobKind, set string, args ...any) {
		t.Helper()
		b.exec("update maintenance_states set "+set+" where host_id = ? and kind = ?", append(args, f.host.ID, kind)...)
	}
	see("all off", "Nothing keeps this repository small and checked yet", "Europe/Berlin", "www keeps the last 7 daily snapshots", "etc without a policy keeps everything", "Turn on", "Once turned on: from ", "No forget, prune or check has run yet.", "!too old")
	admin := []string{"Authorization", "Bearer " + b.token(models.RoleAdmin)}
	for _, kind := range models.MaintenanceKinds {
		want(t, "turn on", b.post(at+"/"+string(kind)+"/enabled", url.Values{"enabled": {"on"}}, admin...), 303)
	}
	see("all on", "The repository is kept small and checked", "Turn off", "Next: ", "0 of 12 parts", "All is read by about", "!Once turned on:")
	state(models.KindForget, "failures = 1, failed_at = now(), last_state = 'failed', last_error = 'It broke. Mend it.', last_job_id = gen_random_uuid(), last_ended_at = now()")
	see("backing off", "Forget needs a hand", "not tried again by itself before", "It broke. Mend it.")
	state(models.KindForget, "failures = 5")
	see("breaker open", "failed 5 times in a row and doesn’t run by itself any more")
	state(models.KindForget, "failures = 0, last_state = 'cancelled', good_at = now() - interval '9 days', stale_at = now() - interval '1 hour'")
	see("stale", "Forget needs a hand", "It has been due again and again while web was there, without success. Run it now, and see what becomes of it.", "Last good 9 d ago")
	want(t, "turn off", b.post(at+"/forget/enabled", url.Values{"enabled": {"off"}}, admin...), 303)
	state(models.KindForget, "stale_at = now()")
	see("off", "!has been due")
	state(models.KindForget, "stale_at = null, last_state = ''")

	found := f.job(nil, models.KindCheck, models.JobFailed, time.Hour)
	damage := func(subset, age string, errors int) {
		t.Helper()
		b.exec("insert into repository_damage select r.id, ?, now() - ?::interval, ?, now() - interval '1 hour', ? from repositories r where restic_id is null", subset, age, found, errors)
	}
	state(models.KindCheck, "stale_at = now()")
	damage("3/12", "3 days", 4)
	see("damage", "The repository is damaged", "Damage was found in part 3 of 12 of the data", "3 d ago", "and again", "1 h ago", "(4 errors). See that job", "restic repair index",
		"restic repair snapshots --forget", "Turn prune off until", "The check reads part 3 of 12 of the data first", "Check again", "!at random", "!has been due")
	if html := b.page(at); !strings.Contains(part(t, html, "damage"), `"/jobs/`+found.String()+`"`) || !strings.Contains(html, at+`/check/run" hx-post`) {
		t.Error("no way to the job that found it, or to another check")
	}
	damage("", "2 days", 0)
	damage("10%", "1 hour", 1)
	see("more damage", "Damage was found in the repository’s structure", "Damage was found in 10% of the data, chosen at random, 1 h ago (1 error)", "chosen at random")
	b.exec("insert into repository_damage select r.id, n || '/40', now(), ?, now(), 1 from repositories r, generate_series(1, 30) n where restic_id is null", found)
	see("much damage", "23 more")
	b.exec("delete from repository_damage")
	state(models.KindCheck, "stale_at = null")

	job := f.job(f.group, models.KindBackup, models.JobRunning, time.Minute)
	prune := f.job(nil, models.KindPrune, models.JobQueued, time.Second)
	see("waiting", "It waits for the", "backup of www on web")
	if html := b.page(at); strings.Contains(html, "/prune/run") || !strings.Contains(html, "/check/run") {
		t.Error("what waits already is offered again, or the rest is not")
	}
	b.exec("update jobs set state = 'failed', finished_at = now() where id in (?, ?)", job, prune)
	b.exec("update repositories set check_parts = 12, check_read = 3, checked_whole_at = now() - interval '9 days'")
	see("the check's round", "3 of 12 parts", "All was read last")
	b.exec("update hosts set agent_protocol = 2 where id = ?", f.host.ID)
	see("an old agent", "The agent is too old")
	if status, html, _ := b.get(models.RoleViewer, at); status != 200 || strings.Contains(html, "Turn o") || strings.Contains(html, "Run now") {
		t.Errorf("a viewer: %d", status)
	}
}

// What the forms refuse is said beside the field, and nothing is stored.
func TestTheCadenceFormsRefuseWhatCannotWork(t *testing.T) {
	t.Parallel()
	b := setup(t)
	f := b.fleet("web")
	at := "/hosts/" + f.host.ID.String() + "/maintenance"
	admin := []string{"Authorization", "Bearer " + b.token(models.RoleAdmin)}
	for _, c := range []struct{ kind, cron, subset, says string }{
		{"forget", "0 0 30 2 *", "", "0 0 30 2 *"},
		{"prune", "nonsense", "", "nonsense"},
		{"check", "30 5 * * 0", "0/5", "f-read_data_subset-error"},
		{"check", "30 5 * * 0", "13/12", "f-read_data_subset-error"},
		{"check", "30 5 * * 0", "1/257", "t at most 256"},
		{"check", "30 5 * * 0", "1048576", "its unit K, M, G or T"},
		{"check", "30 5 * * 0", "9999999999T", "f-read_data_subset-error"},
		{"check", "30 5 * * 0", "101%", "f-read_data_subset-error"},
	} {
		want(t, c.kind+" "+c.cron+c.subset, b.post(at+"/"+c.kind, url.Values{"cron": {c.cron}, "read_data_subset": {c.subset}}, admin...), 422, c.says)
	}
	m, err := models.FindMaintenance(b.ctx, b.db, f.host.ID)
	if err != nil || m.PruneCron != "30 4 * * 0" || m.CheckReadDataSubset != "1/12" {
		t.Fatalf("%+v, %v", m, err)
	}
	want(t, "explained", b.post(at+"/prune", url.Values{"cron": {"0 1 * * *"}, "edit": {""}}, admin...), 200, "Every day at 01:00")
	want(t, "saved", b.post(at+"/check", url.Values{"cron": {"0 1 * * 6"}, "read_data_subset": {"1/4"}, "enabled": {"on"}}, admin...), 303)
	if m, err = models.FindMaintenance(b.ctx, b.db, f.host.ID); err != nil || m.CheckCron != "0 1 * * 6" || m.CheckReadDataSubset != "1/4" || !m.CheckEnabled || m.PruneEnabled {
		t.Errorf("%+v, %v", m, err)
	}
	want(t, "no such kind", b.post(at+"/backup/run", nil, admin...), 404)
}

// A part of the data that restic refuses, and an older server took, stands in the
// way of nothing but checks, and the page says how to mend it.
func TestAPartThatCannotBeReadIsSaid(t *testing.T) {
	t.Parallel()
	b := setup(t)
	f := b.fleet("web")
	at := "/hosts/" + f.host.ID.String() + "/maintenance"
	admin := []string{"Authorization", "Bearer " + b.token(models.RoleAdmin)}
	b.exec("update host_repo_maintenance set check_enabled = true, check_read_data_subset = '5' where host_id = ?", f.host.ID)
	html := plain(b.page(at))
	for _, part := range []string{"Check needs a hand", "No check can run. How much of the data it reads: &#34;5&#34; is no part of the data that restic can read: use n/t"} {
		if !strings.Contains(html, part) {
			t.Errorf("it doesn't say %q:\n%s", part, html)
		}
	}
	want(t, "the form", b.do("GET", at+"/check", nil, admin...), 200, `value="5"`)
	want(t, "run now", b.post(at+"/check/run", nil, admin...), 409, "its unit K, M, G or T")
	for _, kind := range []string{"forget", "prune"} {
		want(t, kind+" on", b.post(at+"/"+kind+"/enabled", url.Values{"enabled": {"on"}}, admin...), 303)
	}
	want(t, "check off", b.post(at+"/check/enabled", url.Values{"enabled": {"off"}}, admin...), 303)
	want(t, "check on", b.post(at+"/check/enabled", url.Values{"enabled": {"on"}}, admin...), 422, "its unit K, M, G or T")
	want(t, "check mended", b.post(at+"/check", url.Values{"cron": {"0 1 * * 6"}, "read_data_subset": {"5M"}, "enabled": {"on"}}, admin...), 303)
	if html := plain(b.page(at)); strings.Contains(html, "No check can run") {
		t.Error("it still says that no check can run")
	}
}

// One host prunes and checks for all that share a repository; another is asked
// once before it takes that over.
func TestTheOwnerOfASharedRepositoryIsSaidAndChanged(t *testing.T) {
	t.Parallel()
	b := setup(t)
	web, db := b.fleet("web"), b.fleet("db")
	if _, err := models.BindRepository(b.ctx, b.db, b.h.Jobs.Sealer, db.host.ID, models.RepositoryFields{URL: "/srv/web", Password: "x"}); err != nil {
		t.Fatal(err)
	}
	at := "/hosts/" + db.host.ID.String() + "/maintenance"
	admin := []string{"Authorization", "Bearer " + b.token(models.RoleAdmin)}
	html := plain(b.page(at))
	for _, part := range []string{"Prune of this repository is done by web", "Check of this repository is done by web", "Forget is off; web does the rest", "web prunes and checks it for all (the first that was bound to it, ", "Make this host the owner"} {
		if !strings.Contains(html, part) {
			t.Errorf("it doesn't say %q:\n%s", part, html)
		}
	}
	want(t, "prune elsewhere", b.post(at+"/prune/run", nil, admin...), 409, "web")
	if strings.Contains(html, "its own is due") || strings.Contains(b.page(at), "/prune/enabled") {
		t.Error("there is a switch for what is off and done elsewhere")
	}
	want(t, "the question", b.do("GET", at+"/owner", nil, admin...), 200, "web no longer does")
	want(t, "the answer", b.post(at+"/owner", nil, admin...), 303)
	if html := plain(b.page("/hosts/" + web.host.ID.String() + "/maintenance")); !strings.Contains(html, "Prune of this repository is done by db") {
		t.Error("the owner before isn't told")
	}
	// What is on there is skipped at every due time, until somebody turns it off.
	at = "/hosts/" + web.host.ID.String() + "/maintenance"
	b.exec("update host_repo_maintenance set prune_enabled = true where host_id = ?", web.host.ID)
	if html := b.page(at); !strings.Contains(plain(html), "its own is due, and is skipped while another host is the owner") || !strings.Contains(html, "/prune/enabled") || strings.Contains(html, "/check/enabled") {
		t.Error("what is skipped can't be seen, or turned off")
	}
	want(t, "off", b.post(at+"/prune/enabled", url.Values{"enabled": {"off"}}, admin...), 303)
	at = "/hosts/" + db.host.ID.String() + "/maintenance"
	want(t, "prune here", b.post(at+"/prune/run", nil, admin...), 303)
}

// The owner is deleted: what waited for it ends, and at the next look another
// host goes on where it was, and says from whom it has it.
func TestTheWorkOfADeletedOwnerIsTakenOver(t *testing.T) {
	t.Parallel()
	b := setup(t)
	web, db := b.fleet("web"), b.fleet("db")
	if _, err := models.BindRepository(b.ctx, b.db, b.h.Jobs.Sealer, db.host.ID, models.RepositoryFields{URL: "/srv/web", Password: "x"}); err != nil {
		t.Fatal(err)
	}
	admin := []string{"Authorization", "Bearer " + b.token(models.RoleAdmin)}
	hourly := `{"cron": "0 * * * *", "enabled": true}`
	cadences := `{"forget": {"cron": "0 * * * *", "enabled": false}, "prune": ` + hourly + `, "check": {"cron": "0 * * * *", "enabled": false}}`
	for _, f := range []*fleet{web, db} {
		f.online()
		want(t, "cadences", b.do("PUT", "/api/hosts/"+f.host.ID.String()+"/repo-maintenance", strings.NewReader(cadences), append(admin, "Content-Type", "application/json")...), 200)
	}
	now := time.Now()
	look := func(after time.Duration) {
		t.Helper()
		for range 2 {
			if err := b.h.Jobs.MaintainOnce(b.ctx, now.Add(after)); err != nil {
				t.Fatal(err)
			}
		}
	}
	prunes := func(f *fleet, state models.JobState) int {
		t.Helper()
		return b.count("select count(*) from jobs where host_id = ? and kind = 'prune' and scheduled_at is not null and state = ? and sent_at is null", f.host.ID, state)
	}
	look(time.Hour)
	if prunes(web, models.JobQueued) != 1 || prunes(db, models.JobSkipped) != 1 || prunes(db, models.JobQueued) != 0 {
		t.Error("the first prune is not the owner's")
	}
	want(t, "delete", b.do("DELETE", "/api/hosts/"+web.host.ID.String(), nil, admin...), 204)
	if prunes(web, models.JobCancelled) != 1 || b.count("select count(*) from jobs where host_id = ? and state = 'queued'", web.host.ID) != 0 {
		t.Error("what waited for the deleted host still waits")
	}
	look(2 * time.Hour)
	if prunes(db, models.JobQueued) != 1 || prunes(db, models.JobSkipped) != 1 || b.count("select count(*) from jobs where kind = 'prune'") != 3 {
		t.Errorf("%d prunes wait, %d were skipped", prunes(db, models.JobQueued), prunes(db, models.JobSkipped))
	}
	want(t, "the API", b.do("GET", "/api/hosts/"+db.host.ID.String()+"/repo-maintenance", nil, admin...), 200, `"owner_host_id":"`+db.host.ID.String(), `"owner_reason":"taken"`, `"owner_before":"web"`)
	at := "/hosts/" + db.host.ID.String() + "/maintenance"
	for _, part := range []string{"db prunes and checks it (taken over from web, which was gone, ", "No other host has it any more."} {
		if html := plain(b.page(at)); !strings.Contains(html, part) {
			t.Errorf("it doesn't say %q:\n%s", part, html)
		}
	}
	third := b.fleet("third")
	if _, err := models.BindRepository(b.ctx, b.db, b.h.Jobs.Sealer, third.host.ID, models.RepositoryFields{URL: "/srv/web", Password: "x"}); err != nil {
		t.Fatal(err)
	}
	if html := plain(b.page(at)); !strings.Contains(html, "db prunes and checks it for all (taken over from web, which was gone, ") || !strings.Contains(html, "Shared by db , third .") {
		t.Errorf("shared again: %s", html)
	}
}

// A run of maintenance is asked for again by an administrator, and its page says
// what was done.
func TestAForgetTellsWhatItDid(t *testing.T) {
	t.Parallel()
	b := setup(t)
	f := b.fleet("web")
	f.exec(`update source_groups set retention = '{"keep_last": 2}' where id = ?`, f.group.ID)
	id := f.job(nil, models.KindForget, models.JobFailed, time.Hour)
	b.exec(`update jobs set error_code = ?, error = 'The policy of “etc” keeps none.', stats = '{"snapshots_removed": 15, "snapshots_kept": 3, "snapshots_held": 1,
		"groups": [{"name": "www", "kept": 3, "removed": 15, "held": 1}, {"name": "etc", "kept": 0, "removed": 0, "error": "It keeps none."}]}' where id = ?`, protocol.ErrWouldRemoveAll, id)
	html := plain(b.page("/jobs/" + id.String()))
	for _, part := range []string{"A policy would have removed every snapshot", "15 removed, 3 kept, 1 of what would go held", "It keeps none.", "Run again", "15 snapshots were removed from the list"} {
		if !strings.Contains(html, part) {
			t.Errorf("it doesn't say %q:\n%s", part, html)
		}
	}
	again := func(role models.Role) int {
		return b.do("POST", "/jobs/"+id.String()+"/again", nil, "Authorization", "Bearer "+b.token(role)).StatusCode
	}
	if operator, admin := again(models.RoleOperator), again(models.RoleAdmin); operator != 403 || admin != 303 {
		t.Errorf("again: an operator %d, an administrator %d", operator, admin)
	}
	b.exec(`update jobs set spec = '{"snapshot_ids": ["x"]}' where id = ?`, id)
	want(t, "named snapshots again", b.do("POST", "/jobs/"+id.String()+"/again", nil, "Authorization", "Bearer "+b.token(models.RoleAdmin)), 409, "deleted snapshots that a person had named", "among the snapshots of web")
}

// Maintenance that is broken is on the fleet's page with its cause and the job
// that says what to do, for as long as it is this host's to do.
func TestBrokenMaintenanceNeedsAHand(t *testing.T) {
	t.Parallel()
	b := setup(t)
	web, db := b.fleet("web"), b.fleet("db")
	for _, f := range []*fleet{web, db} {
		f.online()
		f.exec("update hosts set enrolled_at = now() where id = ?", f.host.ID)
		f.exec("update source_groups set good_at = now(), good_snapshot_id = 'x', last_state = 'succeeded' where id = ?", f.group.ID)
		if _, err := models.FindMaintenance(b.ctx, b.db, f.host.ID); err != nil {
			t.Fatal(err)
		}
	}
	job := web.job(nil, models.KindCheck, models.JobFailed, time.Hour)
	state := func(kind models.JobKind, set string) {
		t.Helper()
		b.exec("update maintenance_states set last_job_id = ?, last_state = 'failed', last_error = 'Something. Mend it.', last_ended_at = now(), "+set+" where host_id = ? and kind = ?", job, web.host.ID, kind)
	}
	does, other := web, db
	see := func(what string, kinds ...models.JobKind) {
		t.Helper()
		html, hand := b.page("/"), b.page("/?show=hand")
		for _, kind := range models.MaintenanceKinds {
			if has := strings.Contains(html, `id="attention-`+string(kind)+"-"+does.host.ID.String()); has != slices.Contains(kinds, kind) {
				t.Errorf("%s: %s is listed: %v", what, kind, has)
			}
		}
		heading := "All 2 hosts are safe"
		if len(kinds) > 0 {
			heading = "1 of 2 hosts needs a hand"
		}
		if !strings.Contains(plain(html), heading) || strings.Contains(hand, `id="host-`+does.host.ID.String()) != (len(kinds) > 0) || strings.Contains(hand, `id="host-`+other.host.ID.String()) {
			t.Errorf("%s: not %q: %.300s", what, heading, plain(html))
		}
	}
	see("nothing broken")
	state(models.KindForget, "stale_at = now() - interval '1 minute', good_at = now() - interval '12 days'")
	see("stale, and off")
	b.exec("update host_repo_maintenance set forget_enabled = true where host_id = ?", web.host.ID)
	see("stale", models.KindForget)
	late := part(t, b.page("/"), "attention-forget-"+web.host.ID.String())
	for _, says := range []string{"Late", "Forget has not succeeded for 12 d, though it is due by “Every day at 03:30” (UTC) and the host was there. Something. Mend it.", "See what to do"} {
		if !strings.Contains(plain(late), says) || !strings.Contains(late, `/maintenance"`) {
			t.Errorf("it doesn't say %q: %s", says, plain(late))
		}
	}
	if host := part(t, b.page("/"), "host-"+web.host.ID.String()); !strings.Contains(plain(host), "Maintenance") || !strings.Contains(host, "late") {
		t.Errorf("the host itself says nothing of it: %s", plain(host))
	}
	state(models.KindForget, "good_at = null")
	if late := plain(part(t, b.page("/"), "attention-forget-"+web.host.ID.String())); !strings.Contains(late, "Forget has never succeeded, though") {
		t.Error(late)
	}
	state(models.KindForget, "stale_at = now() + interval '1 hour'")
	see("not stale yet")
	state(models.KindPrune, "failures = 4, last_code = 'locked'")
	see("four times")
	state(models.KindPrune, "failures = 5, last_code = 'locked'")
	see("five times, and off")
	b.exec("update host_repo_maintenance set prune_enabled = true where host_id = ?", web.host.ID)
	see("five times", models.KindPrune)
	row := part(t, b.page("/"), "attention-prune-"+web.host.ID.String())
	for _, says := range []string{"Failed", "web", "Prune failed 5 times in a row and doesn’t run by itself any more. Something. Mend it.", "See what to do"} {
		if !strings.Contains(plain(row), says) {
			t.Errorf("it doesn't say %q: %s", says, plain(row))
		}
	}
	if !strings.Contains(row, `"/jobs/`+job.String()+`"`) {
		t.Error("it doesn't lead to the last job")
	}
	b.exec("insert into repository_damage select u.repository_id, s, now() - interval '2 days', ?, now(), 2 from repository_urls u, unnest(array['3/12', '']) s where u.url = '/srv/web'", job)
	state(models.KindCheck, "failures = 5, last_code = 'damaged'")
	see("damaged, too", models.KindPrune, models.KindCheck)
	row = part(t, b.page("/"), "attention-check-"+web.host.ID.String())
	for _, says := range []string{"Failed", "The repository is damaged, and no check has found it good since. Damage was found in ", "part 3 of 12 of the data (2 errors)", "the repository’s structure (2 errors)", "See what to do", "2 d ago"} {
		if !strings.Contains(plain(row), says) || strings.Contains(plain(row), "in a row") {
			t.Errorf("damage says %q, not %q", plain(row), says)
		}
	}
	if !strings.Contains(row, `/maintenance"`) {
		t.Error("damage doesn't lead to what says what to do")
	}
	if html := b.page("/"); !strings.Contains(part(t, html, "host-"+web.host.ID.String()), "Maintenance") {
		t.Error("the host itself says nothing of it")
	}

	bind := func(f *fleet, url string) {
		t.Helper()
		if _, err := models.BindRepository(b.ctx, b.db, b.h.Jobs.Sealer, f.host.ID, models.RepositoryFields{URL: url, Password: "x"}); err != nil {
			t.Fatal(err)
		}
	}
	bind(web, "/srv/web")
	see("bound again: another chance, but no less damage", models.KindCheck)

	// Another host does it now, and sees to the damage.
	bind(db, "/srv/web")
	state(models.KindPrune, "failures = 5, last_code = 'locked'")
	see("shared", models.KindPrune, models.KindCheck)
	if err := b.h.Jobs.OwnRepository(b.ctx, db.host.ID); err != nil {
		t.Fatal(err)
	}
	does, other = db, web
	see("done by another", models.KindCheck)
	for _, says := range []string{"Damage was found in part 3 of 12 of the data", "The check is done by db"} {
		if html := b.page("/hosts/" + web.host.ID.String() + "/maintenance"); !strings.Contains(plain(html), says) || strings.Contains(html, "check-again") {
			t.Errorf("who shares it isn't told %q, or offered a check", says)
		}
	}
	bind(db, "/srv/db")
	if _, err := models.OwnRepositories(b.ctx, b.db); err != nil {
		t.Fatal(err)
	}
	does, other = web, db
	see("its own again", models.KindPrune, models.KindCheck)
	bind(web, "/srv/third")
	see("another repository")
}
