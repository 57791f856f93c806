package api_test

import (
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"resticfleet/agent/protocol"
	"resticfleet/jobs"
	"resticfleet/models"
)

var (
	isTime = regexp.MustCompile(`^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z$`)
	isID   = regexp.MustCompile(`^[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$`)
)

// has checks that an object has these fields and no others.
func has(t *testing.T, o object, fields string) {
	t.Helper()
	want := strings.Fields(fields)
	slices.Sort(want)
	if got := slices.Sorted(maps.Keys(o)); !slices.Equal(got, want) {
		t.Errorf("fields\n%v, want\n%v", got, want)
	}
}

const jobFields = `id host_id host_name kind state actor_kind actor_id scheduled_id scheduled_at catch_up late
	source_group_id source_group_name snapshot_id exit_code error error_code stats progress
	queued_at sent_at accepted_at started_at finished_at cancel_requested_at`

func TestHosts(t *testing.T) {
	t.Parallel()
	b := setup(t)
	r := b.call("POST", "/api/hosts", object{"name": "Web Eins", "labels": []string{"berlin"}})
	made := r.want(201)
	has(t, made, `id name restic_host os arch timezone link online last_seen_at agent_version restic_version
		schedule_version applied_schedule_version labels`)
	id := made["id"].(string)
	if !isID.MatchString(id) || made["name"] != "Web Eins" || made["restic_host"] != "Web-Eins" || made["link"] != nil ||
		made["online"] != false || made["last_seen_at"] != nil || made["schedule_version"] != 0.0 {
		t.Errorf("host: %s", r.raw)
	}
	if got := r.header.Get("Location"); got != "/api/hosts/"+id {
		t.Errorf("Location %q", got)
	}

	// What was read can be sent back; what is not the caller's is ignored.
	made["name"], made["restic_host"], made["online"], made["schedule_version"] = "web-1", "other", true, 9
	changed := b.call("PATCH", "/api/hosts/"+id, made).want(200)
	if changed["name"] != "web-1" || changed["restic_host"] != "Web-Eins" || changed["schedule_version"] != 0.0 {
		t.Errorf("patched: %v", changed)
	}
	changed = b.call("PATCH", "/api/hosts/"+id, object{"labels": []string{}}).want(200)
	if changed["name"] != "web-1" || len(changed["labels"].([]any)) != 0 {
		t.Errorf("patched labels: %v", changed)
	}
	b.call("PATCH", "/api/hosts/"+id, object{}).want(200)

	b.exec("update hosts set link = 'websocket', last_seen_at = now(), os = 'linux' where id = ?", id)
	seen := b.call("GET", "/api/hosts/"+id, nil).want(200)
	if seen["online"] != true || seen["link"] != "websocket" || seen["os"] != "linux" || !isTime.MatchString(seen["last_seen_at"].(string)) {
		t.Errorf("linked: %v", seen)
	}

	sub := b.hub.Subscribe(jobs.FleetTopic)
	defer sub.Close()
	if r := b.call("DELETE", "/api/hosts/"+id, nil); r.status != 204 || r.raw != "" {
		t.Errorf("delete: %d %q", r.status, r.raw)
	}
	if len(sub.Take()) == 0 {
		t.Error("nobody was told")
	}
	b.call("GET", "/api/hosts/"+id, nil).refused(404, "")
	b.call("DELETE", "/api/hosts/"+id, nil).refused(404, "")
	b.call("POST", "/api/hosts", object{"name": "web-1", "restic_host": "web-1b"}).want(201) // the name is free again
}

func TestMaintenanceCredential(t *testing.T) {
	t.Parallel()
	b := setup(t)
	id := b.addHost("web-1")
	b.bind(id)
	at := "/api/hosts/" + id + "/repository/maintenance-credential"
	fields := object{"url": "rest:https://full.example.net/repo", "password": "canary password", "env": object{"RESTIC_REST_PASSWORD": "canary", "RESTIC_REST_USERNAME": "canary"}}
	made := b.call("PUT", at, fields).want(200)
	has(t, made, "url env_names")
	if made["url"] != fields["url"] || fmt.Sprint(made["env_names"]) != "[RESTIC_REST_PASSWORD RESTIC_REST_USERNAME]" {
		t.Errorf("%v", made)
	}
	if got := b.call("GET", at, nil).want(200); fmt.Sprint(got) != fmt.Sprint(made) {
		t.Errorf("read %v", got)
	}
	has(t, b.call("GET", "/api/hosts/"+id+"/repository", nil).want(200), "url env_names repository_id")
	made["password"] = "another canary" // what was read goes back
	if got := b.call("PUT", at, made).want(200); fmt.Sprint(got["env_names"]) != "[]" {
		t.Errorf("replaced %v", got)
	}
	if r := b.call("DELETE", at, nil); r.status != 204 {
		t.Errorf("delete: %d", r.status)
	}
	b.call("DELETE", at, nil).refused(404, "")
	b.call("GET", at, nil).refused(404, "")
	if strings.Contains(b.seen.String(), "canary") {
		t.Error("an answer repeats a secret")
	}
}

func TestRetentionPreview(t *testing.T) {
	t.Parallel()
	b := setup(t)
	host := b.addHost("web-1")
	group := b.addGroup(host, "data")
	at := "/api/hosts/" + host + "/source-groups/" + group + "/retention-preview"
	b.exec(`insert into snapshots (host_id, id, at, hostname, paths, tags, source_group_id) values (?, repeat('a', 64), now(), 'web-1', '["/srv"]', '["data"]', ?)`, host, group)
	b.exec("update hosts set snapshots_listed_at = now() where id = ?", host)
	plan := b.call("POST", at, object{"retention": object{}}).want(200)
	has(t, plan, "keep remove")
	kept := plan["keep"].([]any)[0].(object)
	has(t, kept, "id short_id time hostname paths tags reasons held")
	if kept["short_id"] != "aaaaaaaa" || len(kept["reasons"].([]any)) != 1 || kept["held"] != false || len(plan["remove"].([]any)) != 0 || !isTime.MatchString(kept["time"].(string)) {
		t.Errorf("%v", plan)
	}
	b.call("POST", at, object{"retention": object{"keep_last": 1}}).refused(409, "")
	b.bind(host)
	if p := b.call("POST", at, object{"retention": object{"keep_last": 1}}).refused(409, ""); !strings.Contains(p["detail"].(string), "Enrol one first") {
		t.Errorf("without an agent: %v", p)
	}
	b.exec("update hosts set agent_protocol = 2, enrolled_at = now(), last_seen_at = now(), link = 'websocket' where id = ?", host)
	if p := b.call("POST", at, object{"retention": object{"keep_last": 1}}).refused(409, ""); !strings.Contains(p["detail"].(string), "too old for this. Update it first") {
		t.Errorf("an old agent: %v", p)
	}
	b.exec("update hosts set agent_protocol = 3, last_seen_at = now() - interval '1 day' where id = ?", host)
	if r := b.call("POST", at, object{"retention": object{"keep_last": 1}}); r.header.Get("Retry-After") == "" {
		t.Error("no Retry-After")
	} else {
		r.refused(503, "")
	}
	for field, body := range map[string]object{
		"retention": {}, "retention.keep_within": {"retention": object{"keep_within": "0h"}}, "retention.keep_last": {"retention": object{"keep_last": -1}},
	} {
		b.call("POST", at, body).refused(422, field)
	}
	b.call("POST", "/api/hosts/"+b.addHost("web-2")+"/source-groups/"+group+"/retention-preview", object{"retention": object{}}).refused(404, "")
}

func TestEnrolment(t *testing.T) {
	t.Parallel()
	b := setup(t)
	id := b.addHost("web-1")
	r := b.call("POST", "/api/hosts/"+id+"/enrollment-tokens", nil)
	made := r.want(201)
	has(t, made, "token expires_at command")
	token := made["token"].(string)
	want := "resticfleet-agent enroll --server https://" + strings.TrimPrefix(b.url, "http://") + " --token " + token + " --state-dir /var/lib/resticfleet-agent"
	if made["command"] != want {
		t.Errorf("command %q, want %q", made["command"], want)
	}
	if r.header.Get("Cache-Control") != "no-store" {
		t.Error("a token may be cached")
	}
	expires, err := time.Parse(time.RFC3339, made["expires_at"].(string))
	if left := time.Until(expires); err != nil || left < 59*time.Minute || left > 61*time.Minute {
		t.Errorf("expires_at %v", made["expires_at"])
	}
	host, _, err := models.Enroll(t.Context(), b.db, protocol.EnrollRequest{Token: token, Hostname: "h", OS: "linux", Arch: "arm64", Timezone: "Europe/Berlin"})
	if err != nil || host.String() != id {
		t.Errorf("enrolled %v: %v", host, err)
	}
}

// The address may be what a Host header says, and the command is pasted into a
// root shell.
func TestTheAddressStaysOneShellWord(t *testing.T) {
	t.Parallel()
	b := setup(t)
	id := b.addHost("web-1")
	for host, word := range map[string]string{
		"backup.example.org:8443": "https://backup.example.org:8443",
		"[::1]:80":                "'https://[::1]:80'",
		"a;touch$IFS":             "'https://a;touch$IFS'",
		"a'b":                     `'https://a'\''b'`,
	} {
		made := b.call("POST", "/api/hosts/"+id+"/enrollment-tokens", nil, "Host", host).want(201)
		if !strings.HasPrefix(made["command"].(string), "resticfleet-agent enroll --server "+word+" --token ") {
			t.Errorf("%s: %s", host, made["command"])
		}
	}
}

func TestRepository(t *testing.T) {
	t.Parallel()
	b := setup(t)
	path := "/api/hosts/" + b.addHost("web-1") + "/repository"
	b.call("GET", path, nil).refused(404, "")
	b.call("POST", path+"/init", nil).refused(409, "")
	b.call("POST", path+"/unlock", nil).refused(409, "")

	sent := object{
		"url": "s3:https://s3.example.org/bucket", "password": "canary-password",
		"env": object{"AWS_SECRET_ACCESS_KEY": "canary-secret", "AWS_ACCESS_KEY_ID": "canary-id"},
		// as it was read
		"repository_id": nil, "env_names": []string{"X"},
	}
	bound := b.call("PUT", path, sent).want(200)
	has(t, bound, "url env_names repository_id")
	read := b.call("GET", path, nil).want(200)
	names := read["env_names"].([]any)
	if read["url"] != sent["url"] || read["repository_id"] != nil || len(names) != 2 || names[0] != "AWS_ACCESS_KEY_ID" {
		t.Errorf("read back %v", read)
	}
	b.exec("update repositories set restic_id = ?", strings.Repeat("ab", 32))
	if got := b.call("GET", path, nil).want(200)["repository_id"]; got != strings.Repeat("ab", 32) {
		t.Errorf("repository_id %v", got)
	}

	for _, kind := range []string{"init", "unlock"} {
		r := b.call("POST", path+"/"+kind, nil)
		j := r.want(202)
		has(t, j, jobFields)
		if j["kind"] != kind || j["state"] != "queued" || j["actor_kind"] != "user" || j["actor_id"] != b.who.TokenID.String() || j["source_group_id"] != nil {
			t.Errorf("%s: %s", kind, r.raw)
		}
		if r.header.Get("Location") != "/api/jobs/"+j["id"].(string) {
			t.Errorf("Location %q", r.header.Get("Location"))
		}
	}

	b.call("DELETE", path, nil).want(204)
	b.call("DELETE", path, nil).refused(404, "")
	b.call("GET", path, nil).refused(404, "")
	if strings.Contains(b.seen.String(), "canary") || strings.Contains(b.logged.String(), "canary") {
		t.Error("a secret was told")
	}
}

func TestSourceGroups(t *testing.T) {
	t.Parallel()
	b := setup(t)
	host := b.addHost("web-1")
	groups := "/api/hosts/" + host + "/source-groups"
	r := b.call("POST", groups, object{
		"name": "Data", "includes": []string{"/srv/-x", "/srv/a\nb"}, "excludes": []string{"*.tmp", "[$RESTIC_PASSWORD", "!x", "#y"},
		"tag": "data", "retention": object{"keep_daily": 7, "keep_within": "14d", "keep_tags": []string{"gold"}}, "min_files": 3, "min_bytes": 1 << 40,
	})
	made := r.want(201)
	has(t, made, "id name includes excludes tag retention min_files min_bytes")
	path := groups + "/" + made["id"].(string)
	if r.header.Get("Location") != path {
		t.Errorf("Location %q", r.header.Get("Location"))
	}
	read := b.call("GET", path, nil)
	if got := read.want(200); got["includes"].([]any)[1] != "/srv/a\nb" || got["excludes"].([]any)[1] != "[$RESTIC_PASSWORD" ||
		got["retention"].(object)["keep_daily"] != 7.0 || got["min_bytes"] != float64(1<<40) {
		t.Errorf("read %s", read.raw)
	}
	// What was read can be sent back and means the same.
	if again := b.call("PUT", path, read.raw); again.want(200) == nil || again.raw != read.raw {
		t.Errorf("sent back %s, was %s", again.raw, read.raw)
	}
	// A rename without a tag keeps it; everything else that is left out is reset.
	renamed := b.call("PUT", path, object{"name": "Files", "includes": []string{"/srv"}, "excludes": nil}).want(200)
	if renamed["tag"] != "data" || len(renamed["excludes"].([]any)) != 0 || len(renamed["retention"].(object)) != 0 || renamed["min_files"] != 0.0 {
		t.Errorf("renamed %v", renamed)
	}
	if v := b.call("GET", "/api/hosts/"+host, nil).want(200)["schedule_version"]; v != 0.0 {
		t.Errorf("groups moved the schedule version to %v", v)
	}

	b.call("POST", path+"/run", nil).refused(409, "")
	b.bind(host)
	j := b.call("POST", path+"/run", nil).want(202)
	has(t, j, jobFields)
	if j["kind"] != "backup" || j["source_group_name"] != "Files" || j["host_name"] != "web-1" || j["progress"] != nil || j["snapshot_id"] != nil {
		t.Errorf("job %v", j)
	}
	if again := b.call("POST", path+"/run", nil).want(202); again["id"] != j["id"] {
		t.Error("a waiting job was not that job")
	}

	on := b.call("POST", "/api/hosts/"+host+"/schedules", object{"cron": "0 2 * * *", "enabled": false, "source_group_ids": []any{made["id"]}}).want(201)
	p := b.call("DELETE", path, nil).refused(409, "")
	blockers, _ := p["schedules"].([]any)
	if len(blockers) != 1 {
		t.Fatalf("409 names %v", p)
	}
	has(t, blockers[0].(object), "id cron enabled")
	if blockers[0].(object)["id"] != on["id"] || blockers[0].(object)["enabled"] != false {
		t.Errorf("409 names %v", blockers)
	}
	b.call("DELETE", "/api/hosts/"+host+"/schedules/"+on["id"].(string), nil).want(204)
	b.call("DELETE", path, nil).want(204)
	b.call("GET", path, nil).refused(404, "")
	b.call("POST", path+"/run", nil).refused(404, "")
	if state := b.call("GET", "/api/jobs/"+j["id"].(string), nil).want(200)["state"]; state != "cancelled" {
		t.Errorf("its waiting job is %v", state)
	}
	p = b.call("POST", groups, object{"name": "Data", "includes": []string{"/srv"}, "tag": "data"}).refused(422, "tag")
	if !strings.Contains(p["detail"].(string), `"Files"`) {
		t.Errorf("the tag's owner is not named: %v", p["detail"])
	}
}

func TestSchedules(t *testing.T) {
	t.Parallel()
	b := setup(t)
	host := b.addHost("web-1")
	b.exec("update hosts set timezone = 'Asia/Tokyo' where id = ?", host)
	group := b.addGroup(host, "data")
	schedules := "/api/hosts/" + host + "/schedules"
	version := func() any { return b.call("GET", "/api/hosts/"+host, nil).want(200)["schedule_version"] }

	made := b.call("POST", schedules, object{"cron": "30 9 * * *", "source_group_ids": []string{group}}).want(201)
	has(t, made, "id cron enabled source_group_ids next_runs")
	runs := made["next_runs"].([]any)
	if len(runs) != 5 || made["enabled"] != true || version() != 1.0 {
		t.Fatalf("made %v, version %v", made, version())
	}
	for _, run := range runs {
		if !isTime.MatchString(run.(string)) || !strings.Contains(run.(string), "T00:30:00.") {
			t.Errorf("09:30 in Tokyo is not %v", run)
		}
	}
	path := schedules + "/" + made["id"].(string)
	made["enabled"] = false
	off := b.call("PUT", path, made).want(200)
	if off["enabled"] != false || len(off["next_runs"].([]any)) != 0 || version() != 2.0 {
		t.Errorf("disabled: %v, version %v", off, version())
	}
	// Changing the expression alone must not switch it on.
	kept := b.call("PUT", path, object{"cron": "@every 6h", "source_group_ids": []string{group}}).want(200)
	if kept["enabled"] != false || kept["cron"] != "@every 6h" {
		t.Errorf("changed: %v", kept)
	}
	if got := b.call("GET", path, nil).want(200); got["id"] != made["id"] || got["source_group_ids"].([]any)[0] != group {
		t.Errorf("read: %v", got)
	}
	sub := b.hub.Subscribe(jobs.DispatchTopic(must(models.ParseID[models.HostID](host))))
	defer sub.Close()
	b.call("DELETE", path, nil).want(204)
	if len(sub.Take()) == 0 {
		t.Error("the host's link was not told")
	}
	b.call("DELETE", path, nil).refused(404, "")
	if version() != 4.0 {
		t.Errorf("version %v after four changes", version())
	}
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

func TestMaintenance(t *testing.T) {
	t.Parallel()
	b := setup(t)
	host := b.addHost("web-1")
	path := "/api/hosts/" + host + "/repo-maintenance"
	read := b.call("GET", path, nil)
	m := read.want(200)
	has(t, m, "forget prune check")
	has(t, m["forget"].(object), "cron enabled")
	has(t, m["check"].(object), "cron enabled read_data_subset")
	if m["forget"].(object)["enabled"] != false {
		t.Error("maintenance begins switched on")
	}
	m["prune"].(object)["enabled"], m["check"].(object)["read_data_subset"] = true, "10%"
	saved := b.call("PUT", path, m)
	saved.want(200)
	if again := b.call("GET", path, nil); again.raw != saved.raw {
		t.Errorf("saved %s, read %s", saved.raw, again.raw)
	}
	b.call("PUT", path, object{"forget": m["forget"], "prune": m["prune"]}).refused(422, "check")
	b.call("PUT", path, object{"forget": object{"cron": "@daily"}, "prune": m["prune"], "check": m["check"]}).refused(422, "forget.enabled")
	b.call("PUT", path, object{"forget": object{"cron": "0 0 30 2 *", "enabled": true}, "prune": m["prune"], "check": m["check"]}).refused(422, "forget.cron")
	for _, bad := range []string{"0/5", "13/12", "1/257", "5", "1048576", "9999999999T", "101%", "half"} {
		m["check"].(object)["read_data_subset"] = bad
		if refused := b.call("PUT", path, m); !strings.Contains(refused.raw, "t at most 256") || !strings.Contains(refused.raw, "its unit K, M, G or T") {
			t.Errorf("%q: no remedy: %s", bad, refused.raw)
		} else {
			refused.refused(422, "check.read_data_subset")
		}
	}
	if again := b.call("GET", path, nil); again.raw != saved.raw {
		t.Errorf("a refused change was stored: %s", again.raw)
	}
	if v := b.call("GET", "/api/hosts/"+host, nil).want(200)["schedule_version"]; v != 0.0 {
		t.Errorf("cadences moved the schedule version to %v", v)
	}
}

func TestJobs(t *testing.T) {
	t.Parallel()
	b := setup(t)
	host := b.addHost("web-1")
	group := b.addGroup(host, "data")
	b.bind(host)
	backup := b.call("POST", "/api/hosts/"+host+"/source-groups/"+group+"/run", nil).want(202)["id"].(string)
	unlock := b.call("POST", "/api/hosts/"+host+"/repository/unlock", nil).want(202)["id"].(string)

	for query, want := range map[string][]string{
		"": {unlock, backup}, "?host_id=" + host: {unlock, backup}, "?kind=unlock": {unlock}, "?source_group_id=" + group: {backup},
		"?state=queued&kind=backup": {backup}, "?state=failed": {}, "?host_id=" + models.NewID[models.HostID]().String(): {},
	} {
		got := []string{}
		for _, j := range b.call("GET", "/api/jobs"+query, nil).want(200)["items"].([]any) {
			has(t, j.(object), jobFields)
			got = append(got, j.(object)["id"].(string))
		}
		if !slices.Equal(got, want) {
			t.Errorf("%q lists %v, want %v", query, got, want)
		}
	}
	for _, query := range []string{"kind=backups", "state=done", "host_id=1", "source_group_id=x%00", "limit=0", "limit=501", "limit=-1", "limit=ten", "cursor=abc"} {
		field, _, _ := strings.Cut(query, "=")
		p := b.call("GET", "/api/jobs?"+query, nil).refused(422, field)
		if at := p["errors"].([]any)[0].(object)["location"]; at != "query."+field {
			t.Errorf("%s is said to be at %v", query, at)
		}
	}

	cancelled := b.call("POST", "/api/jobs/"+unlock+"/cancel", nil).want(202)
	if cancelled["state"] != "cancelled" || !isTime.MatchString(cancelled["cancel_requested_at"].(string)) || cancelled["error"] == "" {
		t.Errorf("cancelled %v", cancelled)
	}
	if p := b.call("POST", "/api/jobs/"+unlock+"/cancel", nil).refused(409, ""); p["state"] != "cancelled" {
		t.Errorf("409 says %v", p)
	}

	b.exec("update jobs set state = 'sent', sent_at = now() where id = ?", backup)
	b.exec("update jobs set state = 'running', accepted_at = now(), started_at = now() where id = ?", backup)
	hostID := must(models.ParseID[models.HostID](host))
	_, _, err := models.JobProgress(t.Context(), b.db, hostID, protocol.Progress{JobID: backup, Seq: 1, Percent: 12.5, BytesDone: 7})
	if err != nil {
		t.Fatal(err)
	}
	running := b.call("GET", "/api/jobs/"+backup, nil).want(200)
	progress := running["progress"].(object)
	has(t, progress, "percent files_done total_files bytes_done total_bytes seconds_remaining current_files")
	if progress["percent"] != 12.5 || progress["current_files"] == nil {
		t.Errorf("progress %v", progress)
	}
	zero := 0
	h := must(models.FindHost(t.Context(), b.db, hostID))
	_, err = models.JobFinished(t.Context(), b.db, h, protocol.Finished{
		JobID: backup, Outcome: protocol.OutcomeSucceeded, ExitCode: &zero, SnapshotID: strings.Repeat("0f", 32),
		Stats: map[string]any{"total_files_processed": 3.0},
	})
	if err != nil {
		t.Fatal(err)
	}
	done := b.call("GET", "/api/jobs/"+backup, nil).want(200)
	if done["state"] != "succeeded" || done["exit_code"] != 0.0 || done["error"] != "" || done["snapshot_id"] != strings.Repeat("0f", 32) ||
		done["stats"].(object)["total_files_processed"] != 3.0 || !isTime.MatchString(done["finished_at"].(string)) {
		t.Errorf("done %v", done)
	}
}

func TestPages(t *testing.T) {
	t.Parallel()
	b := setup(t)
	want := []string{}
	for _, name := range []string{"a", "b", "c", "d", "e"} {
		want = append([]string{b.addHost(name)}, want...)
	}
	got, cursor := []string{}, ""
	for {
		page := b.call("GET", "/api/hosts?limit=2&cursor="+cursor, nil).want(200)
		has(t, page, "items next_cursor")
		for _, h := range page["items"].([]any) {
			got = append(got, h.(object)["id"].(string))
		}
		next, more := page["next_cursor"].(string)
		if !more {
			break
		}
		cursor = next
	}
	if !slices.Equal(got, want) {
		t.Errorf("pages hold %v, want %v", got, want)
	}
	whole := b.call("GET", "/api/hosts?limit=500", nil).want(200)
	if len(whole["items"].([]any)) != 5 || whole["next_cursor"] != nil {
		t.Errorf("one page: %v", whole)
	}
	for _, sub := range []string{"source-groups", "schedules"} {
		path := "/api/hosts/" + want[0] + "/" + sub
		if r := b.call("GET", path, nil); r.want(200)["next_cursor"] != nil || !strings.Contains(r.raw, `"items":[]`) {
			t.Errorf("empty %s: %s", sub, r.raw)
		}
		b.call("GET", path+"?limit=501", nil).refused(422, "limit")
		b.call("GET", path+"?cursor=x", nil).refused(422, "cursor")
	}
}

// The same rule as cronspec's own property test, asked from outside: a daily
// schedule runs once on every local date that exists, when the clock first
// shows its time or something later.
func TestCronRunsOncePerLocalDate(t *testing.T) {
	t.Parallel()
	b := setup(t)
	for _, c := range []struct{ zone, date string }{
		{"Europe/Berlin", "2026-03-29"}, {"Europe/Berlin", "2026-10-25"},
		{"America/New_York", "2026-03-08"}, {"America/New_York", "2026-11-01"},
		{"America/St_Johns", "2010-03-14"}, {"America/St_Johns", "2010-11-07"}, // a minute past midnight
		{"America/Sao_Paulo", "2018-11-04"}, {"America/Sao_Paulo", "2018-02-18"}, // at midnight
		{"America/Nuuk", "2026-03-28"},                                               // the last hour of a date
		{"Australia/Lord_Howe", "2026-10-04"}, {"Australia/Lord_Howe", "2026-04-05"}, // half an hour
		{"Antarctica/Troll", "2026-03-29"}, {"Antarctica/Troll", "2026-10-25"}, // two hours
		{"Africa/Casablanca", "2026-02-15"}, {"Africa/Casablanca", "2026-03-22"}, // winter time for Ramadan
		{"Pacific/Apia", "2011-12-30"},      // does not exist
		{"Pacific/Kwajalein", "1993-08-21"}, // neither
		{"Asia/Pyongyang", "2018-05-05"},
	} {
		loc, err := time.LoadLocation(c.zone)
		if err != nil {
			t.Fatal(err)
		}
		day, err := time.Parse(time.DateOnly, c.date)
		if err != nil {
			t.Fatal(err)
		}
		// What the clock shows, as if it were UTC, in each minute around.
		begin := day.Add(-60 * time.Hour)
		var shown []time.Time
		dates := map[string]bool{}
		for i := range 5 * 24 * 60 {
			now := begin.Add(time.Duration(i) * time.Minute).In(loc)
			w := time.Date(now.Year(), now.Month(), now.Day(), now.Hour(), now.Minute(), 0, 0, time.UTC)
			shown = append(shown, w)
			dates[w.Format(time.DateOnly)] = true
		}
		for _, hour := range []int{0, 1, 2, 3, 12, 22, 23} {
			for minute := 0; minute < 60; minute += 15 {
				var want []any
				for d := -1; d <= 1; d++ {
					target := day.AddDate(0, 0, d).Add(time.Duration(hour*60+minute) * time.Minute)
					first := slices.IndexFunc(shown, func(w time.Time) bool { return !w.Before(target) })
					if dates[target.Format(time.DateOnly)] {
						want = append(want, begin.Add(time.Duration(first)*time.Minute).Format("2006-01-02T15:04:05.000000Z"))
					}
				}
				before, err := time.Parse(time.RFC3339Nano, want[0].(string))
				if err != nil {
					t.Fatal(err)
				}
				r := b.call("GET", fmt.Sprintf("/api/cron?expr=%d+%d+*+*+*&timezone=%s&after=%s&count=%d",
					minute, hour, c.zone, before.Add(-time.Second).Format(time.RFC3339), len(want)), nil)
				if got := r.want(200)["next_runs"].([]any); !slices.Equal(got, want) {
					t.Errorf("%02d:%02d in %s around %s: %v, want %v", hour, minute, c.zone, c.date, got, want)
				}
			}
		}
	}
}

func TestCron(t *testing.T) {
	t.Parallel()
	b := setup(t)
	r := b.call("GET", "/api/cron?expr=30+2+*+*+*&timezone=Europe/Berlin&after=2026-03-27T12:00:00Z&count=3", nil)
	got := r.want(200)
	has(t, got, "description next_runs")
	want := []any{"2026-03-28T01:30:00.000000Z", "2026-03-29T01:00:00.000000Z", "2026-03-30T00:30:00.000000Z"}
	if !slices.Equal(got["next_runs"].([]any), want) || got["description"] != "Every day at 02:30" {
		t.Errorf("cron: %s", r.raw)
	}
	if runs := b.call("GET", "/api/cron?expr=@daily", nil).want(200)["next_runs"].([]any); len(runs) != 5 || !strings.HasSuffix(runs[0].(string), "T00:00:00.000000Z") {
		t.Errorf("by default: %v", runs)
	}
	if runs := b.call("GET", "/api/cron?expr=0+0+29+2+*&count=1000", nil).want(200)["next_runs"].([]any); len(runs) != 1000 {
		t.Errorf("%d leap days", len(runs))
	}
	if runs := b.call("GET", "/api/cron?expr=@daily&after=9999-12-31T00:00:00Z", nil).want(200)["next_runs"].([]any); len(runs) != 0 {
		t.Errorf("after the last: %v", runs)
	}
	for query, field := range map[string]string{
		"": "expr", "expr=0+0+30+2+*": "expr", "expr=0+0+0+1+1+*": "expr", "expr=CRON_TZ=Local+@daily": "expr", "expr=CRON_TZ=+@daily": "expr",
		"expr=@every+10ms": "expr", "expr=%00": "expr", "expr=%ff": "expr", "expr=TZ=": "expr",
		"expr=@daily&timezone=Mars/Base": "timezone", "expr=@daily&timezone=Local": "timezone", "expr=@daily&timezone=%00": "timezone",
		"expr=@daily&count=0": "count", "expr=@daily&count=1001": "count", "expr=@daily&count=x": "count", "expr=@daily&after=yesterday": "after",
	} {
		b.call("GET", "/api/cron?"+query, nil).refused(422, field)
	}
}
