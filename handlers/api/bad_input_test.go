package api_test

import (
	"fmt"
	"strings"
	"testing"

	"resticfleet/models"
)

// Whatever can't be stored is a 422 that names the field, and leaves no trace.
func TestBadInput(t *testing.T) {
	t.Parallel()
	b := setup(t)
	host := b.addHost("web-1")
	other := b.addHost("other")
	group := b.addGroup(host, "data")
	foreign := b.addGroup(other, "data")
	b.call("POST", "/api/hosts/"+host+"/source-groups", object{"name": "old", "includes": []string{"/old"}, "tag": "taken"}).want(201)
	b.bind(host)
	schedule := b.call("POST", "/api/hosts/"+host+"/schedules", object{"cron": "@daily", "source_group_ids": []string{group}}).want(201)["id"].(string)

	groups, schedules := "/api/hosts/"+host+"/source-groups", "/api/hosts/"+host+"/schedules"
	repository := "/api/hosts/" + host + "/repository"
	state := func() string {
		var all strings.Builder
		for _, path := range []string{"/api/hosts", "/api/hosts/" + host, groups, schedules, repository, "/api/jobs"} {
			r := b.call("GET", path, nil)
			r.want(200)
			all.WriteString(r.raw)
		}
		return all.String()
	}
	before := state()

	type bad struct {
		path, field string
		body        any
	}
	var table []bad
	second := repository + "/maintenance-credential"
	for field, body := range map[string]object{
		"url": {"url": "rest:https://user:canary-in-url@host/", "password": "x"}, "password": {"url": "/srv/repo", "password": "canary\npassword"},
		"env": {"url": "/srv/repo", "password": "x", "env": object{"LD_PRELOAD": "canary-lib"}}, "passphrase": {"url": "/srv/repo", "password": "x", "passphrase": "canary-other"},
	} {
		table = append(table, bad{"PUT " + second, field, body})
	}
	b.call("GET", second, nil).refused(404, "")
	b.call("PUT", "/api/hosts/"+other+"/repository/maintenance-credential", object{"url": "/srv/repo", "password": "x"}).refused(409, "")
	table = append(table, []bad{
		{"POST /api/hosts", "name", object{"name": "Web-1"}},
		{"POST /api/hosts", "name", object{"name": " "}},
		{"POST /api/hosts", "name", object{"name": nil}},
		{"POST /api/hosts", "name", object{}},
		{"POST /api/hosts", "name", object{"name": 5}},
		{"POST /api/hosts", "name", object{"name": "a\x00b"}},
		{"POST /api/hosts", "name", object{"name": strings.Repeat("ü", 101)}},
		{"POST /api/hosts", "restic_host", object{"name": "new", "restic_host": "web-1"}},
		{"POST /api/hosts", "restic_host", object{"name": "new", "restic_host": "a\nb"}},
		{"POST /api/hosts", "labels", object{"name": "new", "labels": "x"}},
		{"POST /api/hosts", "labels", object{"name": "new", "labels": []string{""}}},
		{"POST /api/hosts", "color", object{"name": "new", "color": "red"}},
		{"POST /api/hosts", "Name", object{"Name": "new", "name": "new"}},
		{"PATCH /api/hosts/" + host, "name", object{"name": "other"}},
		{"PATCH /api/hosts/" + host, "name", object{"name": ""}},
		{"PATCH /api/hosts/" + host, "password", object{"password": "x"}},

		{"PUT " + repository, "url", object{"url": "ftp://host/x", "password": "x"}},
		{"PUT " + repository, "url", object{"url": "rclone:x:y", "password": "x"}},
		{"PUT " + repository, "url", object{"url": "relative/path", "password": "x"}},
		{"PUT " + repository, "url", object{"url": "rest:https://user:canary-in-url@host/", "password": "x"}},
		{"PUT " + repository, "url", object{"url": "sftp://user:canary-in-url@host//x", "password": "x"}},
		{"PUT " + repository, "url", object{"url": "/srv/\x00", "password": "x"}},
		{"PUT " + repository, "url", object{"password": "x"}},
		{"PUT " + repository, "password", object{"url": "/srv/repo"}},
		{"PUT " + repository, "password", object{"url": "/srv/repo", "password": ""}},
		{"PUT " + repository, "password", object{"url": "/srv/repo", "password": "canary\x00password"}},
		{"PUT " + repository, "password", object{"url": "/srv/repo", "password": []string{"canary-list"}}},
		{"PUT " + repository, "env", object{"url": "/srv/repo", "password": "x", "env": object{"LD_PRELOAD": "canary-lib"}}},
		{"PUT " + repository, "env", object{"url": "s3:https://h/b", "password": "x", "env": object{"RESTIC_PASSWORD_COMMAND": "canary-cmd"}}},
		{"PUT " + repository, "env", object{"url": "s3:https://h/b", "password": "x", "env": object{"AWS_ACCESS_KEY_ID": ""}}},
		{"PUT " + repository, "env.AWS_ACCESS_KEY_ID", object{"url": "s3:https://h/b", "password": "x", "env": object{"AWS_ACCESS_KEY_ID": 123454321}}},
		{"PUT " + repository, "passphrase", object{"url": "/srv/repo", "password": "x", "passphrase": "canary-other"}},

		{"PUT " + schedules + "/" + schedule, "cron", object{"cron": "bad", "source_group_ids": []string{group}}},
		{"PUT " + schedules + "/" + schedule, "enabled", object{"cron": "@daily", "enabled": "yes", "source_group_ids": []string{group}}},
	}...)
	for _, cron := range []string{"", "0 0 30 2 *", "0 0 0 1 1 *", "* * * *", "60 * * * *", "TZ=", "CRON_TZ=Local @daily", "CRON_TZ=Mars/Base @daily",
		"CRON_TZ= @daily", "@every 10ms", "@every -1h", "@never", "a\x00b", strings.Repeat("1,", 5000) + "1 * * * *"} {
		table = append(table, bad{"POST " + schedules, "cron", object{"cron": cron, "source_group_ids": []string{group}}})
	}
	for _, ids := range []any{nil, []string{}} {
		table = append(table, bad{"POST " + schedules, "source_group_ids", object{"cron": "@daily", "source_group_ids": ids}})
	}
	for _, id := range []string{"", "x", models.NewID[models.GroupID]().String(), foreign} {
		table = append(table, bad{"POST " + schedules, "source_group_ids[0]", object{"cron": "@daily", "source_group_ids": []string{id}}})
	}
	for _, method := range []string{"POST " + groups, "PUT " + groups + "/" + group} {
		for field, change := range map[string]object{
			"name":                   {"name": "OLD"},
			"tag":                    {"tag": "taken"},
			"includes":               {"includes": []string{}},
			"includes[0]":            {"includes": []string{"relative"}},
			"includes[1]":            {"includes": []string{"/srv", ""}},
			"excludes[0]":            {"excludes": []string{"a\x00"}},
			"retention.keep_daily":   {"retention": object{"keep_daily": -1}},
			"retention.keep_last":    {"retention": object{"keep_last": 1.5}},
			"retention.keep_within":  {"retention": object{"keep_within": "a week"}},
			"retention.keep_tags[0]": {"retention": object{"keep_tags": []string{"a,b"}}},
			"retention.keep_hourley": {"retention": object{"keep_hourley": 1}},
			"retention":              {"retention": "all"},
			"min_files":              {"min_files": -1},
			"min_bytes":              {"min_bytes": 1e30},
			"includes[2]":            {"includes": []string{"/a", "/b", "/c\x00"}},
		} {
			body := object{"name": "new", "includes": []string{"/srv"}}
			for k, v := range change {
				body[k] = v
			}
			table = append(table, bad{method, field, body})
		}
		for _, tag := range []string{"a,b", "a\nb", "job:1", " a", strings.Repeat("t", 101)} {
			table = append(table, bad{method, "tag", object{"name": "new", "includes": []string{"/srv"}, "tag": tag}})
		}
	}
	for i, row := range table {
		t.Run(fmt.Sprintf("%d %s", i, row.field), func(t *testing.T) {
			method, path, _ := strings.Cut(row.path, " ")
			r := b.call(method, path, row.body)
			r.t = t
			p := r.refused(422, row.field)
			if list := p["errors"].([]any); list[0].(object)["location"] != "body."+row.field && len(list) == 1 {
				t.Errorf("location %v", list)
			}
		})
	}
	if after := state(); after != before {
		t.Errorf("something was written:\n%s\nwas\n%s", after, before)
	}
	if said := b.seen.String(); strings.Contains(said, "canary") || strings.Contains(said, "123454321") {
		t.Error("an answer repeats a secret")
	}
	if log := b.logged.String(); log != "" {
		t.Errorf("logged: %s", log)
	}
}

func TestBodiesThatAreNotObjects(t *testing.T) {
	t.Parallel()
	b := setup(t)
	for body, status := range map[string]int{
		"": 400, "{": 400, "name=x": 400, `{"name":"a"} {}`: 400, `{"name":"canary` + "\n": 400,
		"null": 422, "[]": 422, `"canary"`: 422, "5": 422, `{"name":1e999}`: 422,
		"{\"name\":\"canary\xff\"}": 422, `{"name":"canary \ud83d"}`: 422, `{"name":"\ude00 canary"}`: 422,
	} {
		p := b.call("POST", "/api/hosts", body).refused(status, "")
		if !strings.Contains(p["detail"].(string), "body") {
			t.Errorf("%q: %v", body, p["detail"])
		}
	}
	b.call("POST", "/api/hosts", `{"name":"\ud83d\ude00 \\ud83d"}`).want(201)
	if hosts := b.call("GET", "/api/hosts", nil).want(200)["items"].([]any); len(hosts) != 1 || hosts[0].(object)["name"] != `😀 \ud83d` {
		t.Errorf("hosts %v", hosts)
	}
	b.call("POST", "/api/hosts", "name=x", "Content-Type", "application/x-www-form-urlencoded").refused(415, "")
	b.call("POST", "/api/hosts", `{"name":"`+strings.Repeat("x", 1<<20)+`"}`).refused(413, "")
	b.call("POST", "/api/hosts", `{"name":"`+strings.Repeat("x", 1<<20-11)+`"}`).refused(422, "name")
	many := make(object)
	for i := range 5000 {
		many[fmt.Sprint("unknown", i)] = i
	}
	if r := b.call("POST", "/api/hosts", many); r.status != 422 || len(r.raw) > 20_000 {
		t.Errorf("%d bytes for many mistakes", len(r.raw))
	}
	if strings.Contains(b.seen.String(), "canary") {
		t.Error("an answer repeats what was sent")
	}
}
