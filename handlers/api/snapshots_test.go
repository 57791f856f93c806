package api_test

import (
	"fmt"
	"strconv"
	"strings"
	"testing"
)

func TestSnapshots(t *testing.T) {
	t.Parallel()
	b := setup(t)
	host, other := b.addHost("web-1"), b.addHost("web-2")
	group := b.addGroup(host, "www")
	at := "/api/hosts/" + host + "/snapshots"

	// Nothing can be asked yet, and what is missing is said.
	if p := b.call("POST", at+"/refresh", nil).refused(409, ""); !strings.Contains(p["detail"].(string), "repository") {
		t.Errorf("without a repository: %v", p)
	}
	b.bind(host)
	if p := b.call("POST", at+"/refresh", nil).refused(409, ""); !strings.Contains(p["detail"].(string), "agent") {
		t.Errorf("without an agent: %v", p)
	}
	b.exec("update hosts set agent_protocol = 3, enrolled_at = now(), last_seen_at = now() where id = ?", host)
	b.exec(`insert into snapshots (host_id, id, at, hostname, paths, tags, source_group_id, size_bytes, file_count)
		select ?0, lpad(to_hex(i + 160), 8, 'a') || lpad(to_hex(i), 56, '0'), timestamptz '2026-11-01 00:00:00Z' + i / 2 * interval '1 hour', 'web-1', '["/srv/www"]', jsonb_build_array('t' || i % 2),
			case when i % 2 = 0 then ?1::uuid end, 100 + i, i from generate_series(1, 5) i`, host, group)
	b.exec("insert into snapshots (host_id, id, at, hostname) values (?, repeat('b', 64), now(), 'web-2')", other)

	// Newest first, page by page, also where two are of one instant.
	var ids []string
	for cursor, pages := "", 0; pages < 5; pages++ {
		page := b.call("GET", at+"?limit=2&cursor="+cursor, nil).want(200)
		for _, item := range page["items"].([]any) {
			ids = append(ids, item.(object)["id"].(string))
		}
		if page["next_cursor"] == nil {
			break
		}
		cursor = page["next_cursor"].(string)
	}
	want := []string{}
	for _, i := range []int{5, 4, 3, 2, 1} {
		want = append(want, fmt.Sprintf("aaaaaa%02x%056x", i+160, i))
	}
	if fmt.Sprint(ids) != fmt.Sprint(want) {
		t.Fatalf("listed %v, want %v", ids, want)
	}
	b.call("GET", at+"?cursor=x", nil).refused(422, "cursor")
	b.call("GET", at+"?source_group_id=x", nil).refused(422, "source_group_id")
	if got := b.call("GET", at+"?source_group_id="+group, nil).want(200)["items"].([]any); len(got) != 2 {
		t.Errorf("%d of the group", len(got))
	}
	if got := b.call("GET", at+"?tag=t1", nil).want(200)["items"].([]any); len(got) != 3 {
		t.Errorf("%d with the tag", len(got))
	}
	first := b.call("GET", at+"?limit=1", nil).want(200)["items"].([]any)[0].(object)
	has(t, first, "id short_id time hostname paths tags source_group_id job_id size_bytes file_count held")

	// A part of the id is enough where it is one's own; another host's isn't there.
	snap := at + "/" + ids[0]
	held := b.call("PATCH", at+"/"+ids[0][:8], object{"held": true, "id": "x"}).want(200)
	if held["held"] != true || held["id"] != ids[0] || held["short_id"] != ids[0][:8] {
		t.Errorf("held: %v", held)
	}
	for _, id := range []string{ids[0][:7], strings.Repeat("b", 64), strings.Repeat("c", 64), "x", strings.Repeat("B", 8)} {
		b.call("PATCH", at+"/"+id, object{"held": true}).refused(404, "")
		b.call("DELETE", at+"/"+id, nil).refused(404, "")
		if p := b.call("GET", at+"/"+id+"/diff?against="+ids[1], nil).refused(404, ""); !strings.HasSuffix(p["detail"].(string), "Choose one of the host's list, or refresh the list.") {
			t.Errorf("an unknown one: %v", p)
		}
	}
	b.call("PATCH", snap, object{"held": "yes"}).refused(422, "held")
	b.call("PATCH", snap, object{"keep": true}).refused(422, "keep")

	// A held one is not deleted; another is a job, and meanwhile nothing is held.
	b.call("DELETE", snap, nil).refused(409, "")
	r := b.call("DELETE", at+"/"+ids[1], nil)
	j := r.want(202)
	has(t, j, jobFields)
	if j["kind"] != "forget" || r.header.Get("Location") != "/api/jobs/"+j["id"].(string) {
		t.Errorf("deletion: %v", j)
	}
	b.exec("update jobs set state = 'sent', sent_at = now() where id = ?", j["id"])
	b.call("PATCH", at+"/"+ids[2], object{"held": true}).refused(409, "")
	b.call("PATCH", snap, object{"held": false}).want(200)

	// Two are compared once, whichever is named first.
	j = b.call("GET", snap+"/diff?against="+ids[4], nil).want(202)
	if again := b.call("GET", at+"/"+ids[4]+"/diff?against="+ids[0][:8], nil).want(202); again["id"] != j["id"] || j["kind"] != "diff" {
		t.Errorf("compared twice: %v", again)
	}
	// One that has just failed says why, and is repeated only when it had time to be
	// mended.
	b.exec("update jobs set state = 'failed', finished_at = now() - interval '20 seconds', error = 'Wrong password. Enter the one that opens it.' where id = ?", j["id"])
	for range 2 {
		r := b.call("GET", snap+"/diff?against="+ids[4], nil)
		p := r.refused(503, "")
		if wait, err := strconv.Atoi(r.header.Get("Retry-After")); err != nil || wait < 20 || wait > 40 || p["job_id"] != j["id"] || !strings.Contains(p["detail"].(string), "Enter the one that opens it.") {
			t.Errorf("a comparison that failed: %q %v", r.header.Get("Retry-After"), p)
		}
	}
	b.exec("update jobs set finished_at = now() - interval '61 seconds' where id = ?", j["id"])
	if again := b.call("GET", snap+"/diff?against="+ids[4], nil).want(202); again["id"] == j["id"] {
		t.Error("it is never tried again")
	}
	b.call("GET", snap+"/diff", nil).refused(422, "against")
	b.call("GET", snap+"/diff?against="+ids[0], nil).refused(422, "against")
	b.call("GET", snap+"/diff?against="+strings.Repeat("b", 64), nil).refused(422, "against")
	b.exec(`insert into snapshot_diffs (host_id, older, newer, stats, changes, more) values (?, ?, ?, '{"changed_files": 1}', '[{"path": "/srv", "modifier": "M"}]', 7)`, host, ids[4], ids[0])
	known := b.call("GET", snap+"/diff?against="+ids[4], nil).want(200)
	has(t, known, "older newer statistics changes more_changes")
	if known["older"] != ids[4] || known["more_changes"] != 7.0 || known["changes"].([]any)[0].(object)["modifier"] != "M" {
		t.Errorf("compared: %v", known)
	}

	// Look-ups stand in no list; asking again for the list is the same job.
	look := b.call("POST", at+"/refresh", nil).want(202)
	if again := b.call("POST", at+"/refresh", nil).want(202); again["id"] != look["id"] {
		t.Error("two looks wait")
	}
	for _, item := range b.call("GET", "/api/jobs", nil).want(200)["items"].([]any) {
		if kind := item.(object)["kind"]; kind == "snapshots" || kind == "diff" {
			t.Errorf("a %s is listed", kind)
		}
	}
}
