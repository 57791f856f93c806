package handlers

import (
	"fmt"
	"net/url"
	"regexp"
	"strings"
	"testing"

	"resticfleet/models"
)

// snapshot is one in the host's list, of so many hours ago; its id begins with
// the digit.
func (f *fleet) snapshot(digit string, hours int, group *models.GroupID, tags string) string {
	f.t.Helper()
	id := strings.Repeat(digit, 64)
	f.exec(`insert into snapshots (host_id, id, at, hostname, paths, tags, source_group_id, size_bytes, file_count)
		values (?, ?, now() - ? * interval '1 hour', 'web', '["/srv/first", "/srv/second", "/srv/third"]', ?::jsonb, ?, 3300000000, 18246)`, f.host.ID, id, hours, tags, group)
	return id
}

// The tab in every state, by what it says of it.
func TestTheSnapshotsTabSaysWhatIsThere(t *testing.T) {
	t.Parallel()
	b := setup(t)
	_, at := b.host("bare")
	if html := plain(b.page(at + "/snapshots")); !strings.Contains(html, "There is no repository with snapshots yet") || !strings.Contains(html, "Set repository") || strings.Contains(html, "Refresh") {
		t.Errorf("without a repository: %s", html)
	}
	f := b.fleet("web")
	if html := plain(b.page("/hosts/" + f.host.ID.String() + "/snapshots")); !strings.Contains(html, "it has not called yet") || !strings.Contains(html, "Enrol web") || strings.Contains(html, "Refresh") {
		t.Errorf("without an agent: %s", html)
	}
	f.online()
	f.exec("update hosts set agent_protocol = 3, enrolled_at = now() - interval '1 day', timezone = 'Europe/Berlin', timezone_known = true where id = ?", f.host.ID)
	at = "/hosts/" + f.host.ID.String() + "/snapshots"
	see := func(what, query string, parts ...string) {
		t.Helper()
		html := plain(b.page(at + query))
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
	see("never listed", "", "Nobody has looked yet", "Refresh")
	f.exec("update hosts set snapshots_listed_at = now() - interval '7 minutes' where id = ?", f.host.ID)
	see("none", "", "web has no snapshot yet", "Listed 7 min ago", "The first backup makes a snapshot.")
	job := f.job(f.group, models.KindBackup, models.JobSucceeded, 0)
	held, loose := f.snapshot("a", 2, &f.group.ID, `["www", "job:`+job.String()+`"]`), f.snapshot("b", 50, nil, `["by-hand"]`)
	f.exec("update snapshots set job_id = ? where id = ?", job, held)
	f.exec("insert into snapshot_holds (host_id, snapshot_id) values (?, ?)", f.host.ID, held)
	see("two", "", "web has 2 snapshots", "aaaaaaaa", "bbbbbbbb", "/srv/first and 2 more", "3.1 GiB", "18,246", "Held: nothing removes it", "no source group", "its job", "!job:", "times in Europe/Berlin")
	for _, c := range []struct{ query, fits string }{
		{"?group=" + f.group.ID.String(), "a"}, {"?group=none", "b"}, {"?tag=by-hand", "b"}, {"?when=24h", "a"}, {"?held=yes", "a"}, {"?tag=by-han", ""},
		{"?when=between&to=" + url.QueryEscape(b.zoned("Europe/Berlin", 30)), "b"},
	} {
		for _, digit := range []string{"a", "b"} {
			if shown := strings.Contains(b.page(at+c.query), strings.Repeat(digit, 8)); shown != (digit == c.fits) {
				t.Errorf("%s: shows %s: %v", c.query, digit, shown)
			}
		}
	}
	see("none fits", "?tag=nothing", "No snapshot fits this filter.")
	operator := []string{"Authorization", "Bearer " + b.token(models.RoleOperator)}
	want(t, "no time", b.do("GET", at+"?when=between&from=soon", nil, operator...), 422, "This is not a time.")

	want(t, "refresh", b.post(at+"/refresh", nil, operator...), 303)
	see("being listed", "", "Asking web …", "!Refresh")
	f.exec("update jobs set state = 'failed', finished_at = now(), error_code = 'wrong_password', error = 'Wrong password. Enter the one that opens it.' where kind = 'snapshots'")
	see("a look that failed", "", "The last look failed", "Enter the one that opens it.", "Refresh")
	f.exec("update hosts set agent_protocol = 2 where id = ?", f.host.ID)
	see("an old agent", "", "The agent is too old", "!Refresh")

	if status, html, _ := b.get(models.RoleViewer, at); status != 200 || strings.Contains(html, "/hold") || strings.Contains(html, "/delete") || strings.Contains(html, `form="compare"`) {
		t.Errorf("a viewer: %d", status)
	}
	if status, html, _ := b.get(models.RoleOperator, at); status != 200 || !strings.Contains(html, loose+"/hold") || strings.Contains(html, "/delete") {
		t.Errorf("an operator: %d", status)
	}
}

// zoned is so many hours ago, as a field for a time has it.
func (b *bundle) zoned(zone string, hours int) string {
	b.t.Helper()
	var at string
	if err := b.db.NewRaw(`select to_char((now() - ? * interval '1 hour') at time zone ?, 'YYYY-MM-DD"T"HH24:MI')`, hours, zone).Scan(b.ctx, &at); err != nil {
		b.t.Fatal(err)
	}
	return at
}

// A snapshot is held and let go by its row, and deleted by a question that a
// held one refuses.
// Someone who is in the list sees the rows change and none come in above.
func TestALiveListOfSnapshotsKeepsItsPlace(t *testing.T) {
	t.Parallel()
	b := setup(t)
	f := b.fleet("web")
	top, older := f.snapshot("b", 2, nil, `["a"]`), f.snapshot("a", 3, nil, `["a"]`)
	f.snapshot("c", 1, nil, `["other"]`)
	at := "/hosts/" + f.host.ID.String() + "/snapshots?tag=a"
	place := regexp.MustCompile(`data-newest="([^"]+)"`).FindStringSubmatch(b.page(at))
	if place == nil || !strings.HasSuffix(place[1], top) {
		t.Fatalf("the newest row's place is %v", place)
	}
	newer := f.snapshot("d", 0, nil, `["a"]`)
	_, html, _ := b.get(models.RoleViewer, at+"&newest="+place[1], "HX-Request", "true", "HX-Request-Type", "partial")
	if !strings.Contains(html, "snapshot-"+top) || !strings.Contains(html, "snapshot-"+older) || strings.Contains(html, newer) || !strings.Contains(html, `data-newest="`+place[1]+`"`) {
		t.Errorf("the rows are not those from the newest on: %s", html)
	}
	if !strings.Contains(html, "Show 1 newer snapshot<") {
		t.Error("that there is a newer one is not said")
	}
	if html := b.page(at); strings.Contains(html, "newer snapshot") || !strings.Contains(html, newer) {
		t.Error("the page itself holds something back")
	}
	if _, html, _ := b.get(models.RoleViewer, at+"&newest=99999999999999999999-x"); !strings.Contains(html, newer) {
		t.Error("a place that is none hides rows")
	}
}

func TestASnapshotIsHeldAndDeleted(t *testing.T) {
	t.Parallel()
	b := setup(t)
	f := b.fleet("web")
	f.online()
	f.exec("update hosts set agent_protocol = 3, enrolled_at = now() - interval '1 day' where id = ?", f.host.ID)
	at := "/hosts/" + f.host.ID.String() + "/snapshots"
	s := at + "/" + f.snapshot("a", 2, &f.group.ID, "[]")
	admin := []string{"Authorization", "Bearer " + b.token(models.RoleAdmin)}
	holds := func(want int) {
		t.Helper()
		if n := b.count("select count(*) from snapshot_holds where host_id = ?", f.host.ID); n != want {
			t.Fatalf("%d are held, want %d", n, want)
		}
	}
	want(t, "hold", b.post(s+"/hold", url.Values{"held": {"on"}}, asHTMX(admin...)...), 204)
	holds(1)
	want(t, "the question about a held one", b.do("GET", s+"/delete", nil, append(admin, "Accept", "text/html")...), 409, "is held", "Let it go")
	want(t, "deleting a held one", b.post(s+"/delete", nil, append(admin, "Accept", "text/html")...), 409, "is held", "Let it go")
	want(t, "let go", b.post(s+"/hold", url.Values{"held": {"off"}}, admin...), 303)
	holds(0)
	want(t, "the question", b.do("GET", s+"/delete", nil, admin...), 200, "Delete the snapshot aaaaaaaa?", "of “www”", "Every other snapshot stays", "Type “aaaaaaaa” to go on")
	want(t, "without its id", b.post(s+"/delete", url.Values{"name": {"aaaa"}}, admin...), 422, "That is not its name", `value="aaaa"`)
	if n := b.count("select count(*) from jobs where kind = 'forget'"); n != 0 {
		t.Fatal("asking deletes")
	}
	res := b.post(s+"/delete", url.Values{"name": {"aaaaaaaa"}}, admin...)
	want(t, "the answer", res, 303)
	if n := b.count("select count(*) from jobs where kind = 'forget' and spec->'snapshot_ids' = ?::jsonb and '/jobs/' || id = ?", fmt.Sprintf("[%q]", strings.Repeat("a", 64)), res.Header.Get("Location")); n != 1 {
		t.Errorf("it leads to %s", res.Header.Get("Location"))
	}
	want(t, "one of another host", b.post(at+"/"+strings.Repeat("b", 64)+"/hold", url.Values{"held": {"on"}}, admin...), 404)
}

// Two are compared by the agent once, whoever looks and in whatever order; a look
// that failed is repeated only by whom it is asked for.
func TestTwoSnapshotsAreCompared(t *testing.T) {
	t.Parallel()
	b := setup(t)
	f := b.fleet("web")
	f.online()
	f.exec("update hosts set agent_protocol = 3, enrolled_at = now() - interval '1 day' where id = ?", f.host.ID)
	at := "/hosts/" + f.host.ID.String() + "/snapshots"
	newer, older := f.snapshot("a", 2, &f.group.ID, "[]"), f.snapshot("b", 50, nil, "[]")
	if html := b.page(at); strings.Count(html, `form="compare"`) != 4 || !strings.Contains(html, "Compare the two") {
		t.Errorf("nothing to mark: %s", html)
	}
	page := at + "/compare?a=" + newer[:12] + "&b=" + older
	operator := []string{"Authorization", "Bearer " + b.token(models.RoleOperator), "Accept", "text/html"}
	jobs := func(want int) {
		t.Helper()
		if n := b.count("select count(*) from jobs where kind = 'diff' and spec->'snapshot_ids' = jsonb_build_array(?::text, ?::text)", older, newer); n != want {
			t.Fatalf("the agent was asked %d times, want %d", n, want)
		}
	}
	want(t, "one alone", b.do("GET", at+"/compare?a="+older, nil, operator...), 422, "two different snapshots", "Choose two")
	want(t, "one that isn't there", b.do("GET", at+"/compare?a="+older+"&b="+strings.Repeat("c", 64), nil, operator...), 404)
	want(t, "a live update", b.do("GET", page, nil, asHTMX(operator...)...), 200, "not been compared yet")
	jobs(0)
	for range 2 {
		want(t, "opened", b.do("GET", page, nil, operator...), 200, "Asking web to compare them", "!Compare again")
		jobs(1)
	}
	f.exec("update jobs set state = 'failed', finished_at = now(), error_code = 'restic', error = 'It broke. Mend it.' where kind = 'diff'")
	for _, header := range [][]string{operator, asHTMX(operator...)} {
		want(t, "failed", b.do("GET", page, nil, header...), 200, "It broke. Mend it.", "Compare again")
		jobs(1)
	}
	want(t, "again", b.do("GET", page+"&again=1", nil, operator...), 303)
	jobs(2)
	f.exec(`insert into snapshot_diffs (host_id, older, newer, stats, changes, more) select ?, ?, ?,
		'{"changed_files": 5, "added": {"files": 1204, "dirs": 1, "bytes": 2048}, "removed": {"files": 3, "dirs": 0, "bytes": 1024}, "changes_left_out": 1000}',
		jsonb_agg(jsonb_build_object('path', '/srv/file-' || i, 'modifier', (array['+', '-', 'M', 'TU'])[i % 4 + 1])), 700 from generate_series(1, 600) i`, f.host.ID, older, newer)
	html := plain(b.page(page))
	for _, part := range []string{"1,204 files and 1 folder new, 3 files gone, 5 files changed", "2 KiB of data that the older", "/srv/file-500", "and 1,800 more changes", "Another type, metadata changed", "Gone"} {
		if !strings.Contains(html, part) {
			t.Errorf("it doesn't say %q:\n%s", part, html[:min(len(html), 2000)])
		}
	}
	if strings.Contains(html, "/srv/file-501") {
		t.Error("there is no end to it")
	}
	jobs(2)
}

// The two that are compared may stand on different pages of the list, or fit
// different filters: what is marked goes along, without scripts too.
func TestWhatIsMarkedStaysFromPageToPage(t *testing.T) {
	t.Parallel()
	b := setup(t)
	f := b.fleet("web")
	f.exec("update hosts set snapshots_listed_at = now(), enrolled_at = now() - interval '1 day', last_seen_at = now(), agent_protocol = 3 where id = ?", f.host.ID)
	f.exec(`insert into snapshots (host_id, id, at, hostname, tags, source_group_id)
		select ?, lpad(to_hex(n), 8, 'a') || lpad(to_hex(n), 56, '0'), now() - n * interval '1 day', 'web', '["deep"]', ? from generate_series(16, 76) n`, f.host.ID, f.group.ID)
	id := func(n int) string { return fmt.Sprintf("aaaaaa%02x%056x", n, n) }
	at := "/hosts/" + f.host.ID.String() + "/snapshots"
	radio := func(html, name string, n int) string {
		return regexp.MustCompile(`<input id="` + name + "-" + id(n) + `"[^>]*>`).FindString(html)
	}
	html := b.page(at + "?tag=deep")
	for _, part := range []string{`<input type="hidden" name="tag" value="deep">`, `form="compare" formaction="` + at + `" formnovalidate name="cursor"`, ">Keep the marks<"} {
		if !strings.Contains(html, part) {
			t.Errorf("the list has no %q", part)
		}
	}
	if strings.Contains(html, ">Unmark<") || strings.Contains(html, "Marked as the") || strings.Contains(radio(html, "a", 16), "checked") {
		t.Error("something is marked")
	}
	cursor := regexp.MustCompile(`name="cursor" value="([^"]+)"[^>]*>Older`).FindStringSubmatch(html)
	if cursor == nil {
		t.Fatal("there is no next page")
	}

	if _, html, _ := b.get(models.RoleViewer, at); !strings.Contains(html, `rel="next"`) || strings.Contains(html, `form="compare"`) {
		t.Error("a viewer has no next page, or may compare")
	}

	// The next page, as the form asks for it.
	html = b.page(at + "?tag=deep&b=" + id(17) + "&a=" + id(70) + "&cursor=" + cursor[1])
	if text := plain(html); !strings.Contains(text, "Marked as the newer:") || strings.Contains(text, "Marked as the older:") || !strings.Contains(text, "aaaaaa11") {
		t.Errorf("what is marked is not above the table: %s", text)
	}
	if !strings.Contains(radio(html, "b", 17), "checked") || !strings.Contains(radio(html, "a", 70), "checked") || strings.Contains(radio(html, "a", 71), "checked") {
		t.Errorf("%s %s", radio(html, "b", 17), radio(html, "a", 70))
	}
	for _, part := range []string{`name="b" value="` + id(17) + `"`, `hx-get="` + at + `?a=` + id(70) + `&amp;b=` + id(17) + `&amp;cursor=`, at + `?cursor=` + cursor[1] + `&amp;tag=deep" class=`} {
		if !strings.Contains(html, part) {
			t.Errorf("the next page has no %q", part)
		}
	}
	// A filter that none fits, and one that is gone.
	if text := plain(b.page(at + "?tag=none&b=" + id(16) + "&b=" + id(17))); !strings.Contains(text, "aaaaaa11") || !strings.Contains(text, "No snapshot fits") {
		t.Errorf("a filter loses what is marked: %s", text)
	}
	if text := plain(b.page(at + "?a=" + strings.Repeat("e", 64) + "&b=x")); strings.Contains(text, "Marked") || strings.Contains(text, "Unmark") {
		t.Error("one that is gone is marked")
	}
}
