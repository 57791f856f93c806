package handlers

import (
	"encoding/json"
	"fmt"
	"net/url"
	"strings"
	"testing"
	"time"

	"resticfleet/agent/protocol"
	"resticfleet/models"
)

// What a policy would do is told in the form, by HTMX and plainly, with all that
// was typed; what stands in the way is said there, too.
func TestTheRetentionEditorShowsWhatAPolicyWouldDo(t *testing.T) {
	t.Parallel()
	b := setup(t)
	h, at := b.host("web-01")
	g := b.group(h, models.GroupFields{Name: "www", Includes: []string{"/srv/www"}})
	cookie := []string{"Cookie", "session=" + b.session(models.RoleOperator)}
	edit := at + "/source-groups/" + g.ID.String()
	preview := edit + "/retention-preview"
	form := func(field, value string) url.Values {
		return url.Values{"name": {"typed & kept"}, "includes": {"/srv/a", "/srv/b"}, field: {value}}
	}
	want(t, "the form", b.do("GET", edit, nil, cookie...), 200, `hx-post="`+preview+`"`, `name="edit" value="preview"`, "Nothing is changed by looking")
	want(t, "a new group has none", b.do("GET", at+"/source-groups/new", nil, cookie...), 200, "!retention-preview")
	want(t, "no repository", b.post(preview, form("keep_last", "1"), asHTMX(cookie...)...), 409, "no repository yet", "!<html", `id="retention-preview"`)
	if _, err := b.h.Jobs.BindRepository(b.ctx, h.ID, models.RepositoryFields{URL: "/srv/repo", Password: "x"}); err != nil {
		t.Fatal(err)
	}
	b.exec("update jobs set state = 'cancelled', finished_at = now()")
	want(t, "no agent", b.post(preview, form("keep_last", "1"), asHTMX(cookie...)...), 409, "Enrol one first.", `id="retention-preview"`)
	b.exec("update hosts set agent_protocol = 3 where id = ?", h.ID)
	want(t, "away", b.post(preview, form("keep_last", "1"), asHTMX(cookie...)...), 503, "web-01 is not there to be asked")
	want(t, "away, plainly", b.post(edit, url.Values{"name": {"typed"}, "includes": {"/srv/a"}, "keep_last": {"1"}, "edit": {"preview"}}, cookie...), 503, "<html", "web-01 is not there to be asked", `value="typed"`)
	want(t, "no policy", b.post(preview, form("keep_within", "0h"), asHTMX(cookie...)...), 422, "Keeps nothing")
	want(t, "no number", b.post(preview, form("keep_last", "x"), asHTMX(cookie...)...), 422, "whole number")
	b.exec(`insert into snapshots (host_id, id, at, hostname, tags, source_group_id)
		select ?, lpad(to_hex(n), 64, '0'), '2026-11-01'::timestamptz + n * interval '1 hour', 'web-01', '["www"]', ? from generate_series(1, 30) n`, h.ID, g.ID)
	want(t, "nothing is set, never listed", b.post(preview, form("keep_last", ""), asHTMX(cookie...)...), 503, "web-01 is not there to be asked")
	b.exec("update hosts set snapshots_listed_at = now() where id = ?", h.ID)
	want(t, "nothing is set", b.post(preview, form("keep_last", ""), asHTMX(cookie...)...), 200, "Would keep all 30 snapshots.", "and 10 more, all older")

	// A real question: an agent of another server answers it.
	_, hash := models.NewToken("rfa_")
	b.exec("update hosts set agent_token_hash = ? where id = ?", hash, h.ID)
	h.AgentTokenHash = hash
	link, _, err := b.h.Jobs.Hello(b.ctx, h, protocol.LinkWebSocket, protocol.Hello{Protocol: 3, JournalID: "j", Timezone: "UTC", SentAt: time.Now()})
	if err != nil {
		t.Fatal(err)
	}
	b.exec("update jobs set state = 'cancelled', finished_at = now() where state in ('queued', 'sent')")
	answers := func(send func() string, keep ...bool) string {
		t.Helper()
		page := make(chan string, 1)
		go func() { page <- send() }()
		for b.ctx.Err() == nil {
			out, err := b.h.Jobs.Outgoing(b.ctx, link)
			if err != nil {
				t.Fatal(err)
			}
			for _, m := range out {
				run, err := protocol.Decode[protocol.Run](m)
				if m.Type != protocol.TypeRun || err != nil {
					continue
				}
				var items []json.RawMessage
				for i, k := range keep {
					item := protocol.PlanItem{Keep: k, Snapshot: protocol.Snapshot{ID: fmt.Sprintf("%064x", i+1), Time: time.Date(2026, 11, 1+i, 2, 0, 0, 0, time.UTC)}}
					if k {
						item.Reasons = []string{"daily snapshot", "<b>"}
					}
					raw, _ := json.Marshal(item)
					items = append(items, raw)
				}
				for _, up := range []protocol.Envelope{
					protocol.Seal("a", protocol.TypeAnswer, protocol.Answer{JobID: run.JobID, Seq: 1, Items: items}),
					protocol.Seal("f", protocol.TypeFinished, protocol.Finished{JobID: run.JobID, Outcome: protocol.OutcomeSucceeded, LastAnswerSeq: 1}),
				} {
					if v, err := b.h.Jobs.Receive(b.ctx, link, up); err != nil || v.Rejected != "" {
						t.Fatal(v, err)
					}
				}
				return <-page
			}
		}
		return ""
	}
	plain := form("keep_daily", "2")
	plain.Set("edit", "preview")
	html := answers(func() string { return body(t, b.post(edit, plain, cookie...)) }, false, true, true)
	for _, part := range []string{"<html", "Would keep 2, remove 1 of 3. Space is freed only by the next prune.", "daily snapshot and &lt;b&gt;", "typed &amp; kept", ">/srv/b<", `value="2"`} {
		if !strings.Contains(html, part) {
			t.Errorf("plainly: it has no %q", part)
		}
	}
	b.exec("insert into snapshot_holds (host_id, snapshot_id) values (?, ?)", h.ID, fmt.Sprintf("%064x", 1))
	html = answers(func() string { return body(t, b.post(preview, form("keep_tags", "x"), asHTMX(cookie...)...)) }, false, false)
	for _, part := range []string{`role="alert"`, "keeps none of the group’s snapshots", ">held<"} {
		if !strings.Contains(html, part) {
			t.Errorf("nothing is kept: it has no %q", part)
		}
	}
	want(t, "saving it", b.post(edit, url.Values{"name": {"www"}, "includes": {"/srv/www"}, "keep_tags": {"x"}}, cookie...), 422, `id="f-keep_tags-error"`, "all the group&#39;s 30 snapshots", "danger zone")
	if n := b.count("select count(*) from source_groups where name = 'www' and retention = '{}'"); n != 1 {
		t.Error("something was stored")
	}
	if n := b.count("select count(*) from audit_entries where action like '%retention-preview'"); n != 0 {
		t.Error("looking is logged as a change")
	}

	// On purpose: the danger zone.
	admin := []string{"Cookie", "session=" + b.session(models.RoleAdmin)}
	remove := edit + "/remove-snapshots"
	want(t, "the danger zone", b.do("GET", at+"/danger", nil, admin...), 200, `href="`+remove+`"`)
	want(t, "an operator", b.do("GET", remove, nil, cookie...), 403)
	want(t, "the question", b.do("GET", remove, nil, admin...), 200, "29 snapshots of “www” are removed", "1 held one stays.", "2 Nov 2026", "Type “www” to go on")
	want(t, "another name", b.post(remove, url.Values{"name": {"web-01"}}, admin...), 422, "That is not its name")
	if n := b.count("select count(*) from jobs where kind = 'forget'"); n != 0 {
		t.Error("made without the name")
	}
	want(t, "its name", b.post(remove, url.Values{"name": {"www"}}, admin...), 303)
	if n := b.count("select count(*) from jobs where kind = 'forget' and jsonb_array_length(spec->'snapshot_ids') = 29"); n != 1 {
		t.Error("no job for the 29")
	}

	// More than one removal takes: it says so, and takes the oldest.
	b.exec(`insert into snapshots (host_id, id, at, hostname, source_group_id)
		select ?, 'a' || lpad(to_hex(n), 63, '0'), '2026-10-01'::timestamptz - n * interval '1 minute', 'web-01', ? from generate_series(1, ?) n`, h.ID, g.ID, models.RemovedAtOnce)
	want(t, "too many", b.do("GET", remove, nil, admin...), 200, "Remove the oldest 10,000 snapshots of “www”?", "at most 10,000 snapshots, and “www” has 10,029", "do this again when it has ended", ">Remove 10,000 snapshots<")
	want(t, "too many", b.post(remove, url.Values{"name": {"www"}}, admin...), 303)
	if n := b.count("select count(*) from jobs where kind = 'forget' and jsonb_array_length(spec->'snapshot_ids') = 10000 and spec->'snapshot_ids'->>0 = 'a' || lpad(to_hex(10000), 63, '0')"); n != 1 {
		t.Error("no job for the oldest 10,000")
	}
}
