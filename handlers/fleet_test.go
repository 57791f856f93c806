package handlers

import (
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"resticfleet/models"
	"resticfleet/views"
	"resticfleet/views/ui"
)

// tags are what stands between angle brackets.
var tags = regexp.MustCompile(`<[^>]*>|\s+`)

// shown is a page's text, without its marks.
func (b *bundle) shown(path string, header ...string) string {
	b.t.Helper()
	res := b.do("GET", path, nil, header...)
	got := body(b.t, res)
	if res.StatusCode != http.StatusOK {
		b.t.Fatalf("%s: %d %s", path, res.StatusCode, got)
	}
	return got
}

func plain(html string) string {
	return strings.TrimSpace(regexp.MustCompile(`\s+`).ReplaceAllString(tags.ReplaceAllString(html, " "), " "))
}

// part is the element with that id and all in it, as far as the next sibling
// of its kind.
func part(t testing.TB, html, id string) string {
	t.Helper()
	_, rest, found := strings.Cut(html, `id="`+id+`"`)
	if !found {
		t.Fatalf("nothing has the id %s", id)
	}
	for _, end := range []string{"</li>", "</tr>"} {
		rest, _, _ = strings.Cut(rest, end)
	}
	return rest
}

// Everything that makes a host unsafe is on the list with its cause and the
// one act that leads to where it is mended, as far as the reader may do it.
func TestTheFleetSaysWhoIsNotSafe(t *testing.T) {
	t.Parallel()
	b := setup(t)
	cookies := map[models.Role][]string{}
	for _, role := range []models.Role{models.RoleViewer, models.RoleOperator, models.RoleAdmin} {
		cookies[role] = []string{"Cookie", "session=" + b.session(role)}
	}
	add := func(name string) *models.Host {
		h, err := models.AddHost(b.ctx, b.db, models.HostFields{Name: name})
		if err != nil {
			t.Fatal(err)
		}
		return h
	}
	good := func(g *models.Group) {
		b.exec("update source_groups set good_at = now(), good_snapshot_id = 'x', last_state = 'succeeded' where id = ?", g.ID)
	}
	if got := plain(b.shown("/", cookies[models.RoleViewer]...)); !strings.Contains(got, "No hosts yet") {
		t.Errorf("an empty fleet says %q", got)
	}
	safe := b.furnishedHost("safe")
	good(b.group(safe, includes("www")))
	if got := b.shown("/", cookies[models.RoleViewer]...); !strings.Contains(got, "Your one host is safe") || strings.Contains(got, `id="attention-`) {
		t.Errorf("a safe fleet says %q", plain(got))
	}

	unenrolled := add("unenrolled")
	unbound := add("unbound")
	b.exec("update hosts set enrolled_at = now(), last_seen_at = now() where id = ?", unbound.ID)
	empty := b.furnishedHost("empty")
	cloned := b.furnishedHost("cloned")
	good(b.group(cloned, includes("www")))
	b.exec("update hosts set cloned_at = now() where id = ?", cloned.ID)
	busy := b.furnishedHost("busy")
	failed, late, never, small := b.group(busy, includes("failed")), b.group(busy, includes("late")), b.group(busy, includes("never")), b.group(busy, includes("small"))
	b.exec("update source_groups set good_at = now() - interval '2 days' where id in (?, ?)", failed.ID, late.ID)
	b.schedule(busy, late)
	b.exec("update source_groups set due_at = now() - interval '3 hours', late_at = now() - interval '2 hours' where id = ?", late.ID)
	last, err := models.RunGroup(b.ctx, b.db, busy.ID, failed.ID, models.System)
	if err != nil {
		t.Fatal(err)
	}
	b.exec("update jobs set state = 'failed', finished_at = now() where id = ?", last.ID)
	b.exec("update source_groups set last_job_id = ?, last_state = 'failed', last_error = 'Wrong password. Enter the right one.' where id = ?", last.ID, failed.ID)
	b.exec("update source_groups set last_job_id = ?, last_state = 'warning', last_error = 'It holds too little.' where id = ?", last.ID, small.ID)
	away := b.furnishedHost("away")
	gone := b.group(away, includes("gone"))
	b.exec("update source_groups set good_at = now() - interval '3 days', due_at = now() - interval '3 hours', late_at = now() - interval '2 hours' where id = ?", gone.ID)
	b.exec("update hosts set last_seen_at = now() - interval '1 day' where id = ?", away.ID)

	host := func(h *models.Host) string { return "/hosts/" + h.ID.String() }
	run := func(g *models.Group) string {
		return "/hosts/" + g.HostID.String() + "/source-groups/" + g.ID.String() + "/run"
	}
	rows := []struct {
		id    string
		says  []string
		act   string      // the address that mends it
		who   models.Role // who may follow it
		other string      // a second way, for operators
	}{
		{failed.ID.String(), []string{"Failed", "busy", "failed", "Wrong password."}, "/jobs/" + last.ID.String(), models.RoleViewer, run(failed)},
		{"cloned-" + cloned.ID.String(), []string{"Failed", "cloned", "one of them is a copy"}, host(cloned), models.RoleViewer, ""},
		{gone.ID.String(), []string{"Late", "away", "Due 3 h ago", "offline"}, host(away), models.RoleViewer, run(gone)},
		{late.ID.String(), []string{"Late", "busy", "late", "Due 3 h ago, by the schedule “Every day at 02:00” (UTC); no good snapshot since."}, run(late), models.RoleOperator, ""},
		{never.ID.String(), []string{"Never backed up", "busy", "never", "no good snapshot"}, run(never), models.RoleOperator, ""},
		{small.ID.String(), []string{"Never backed up", "busy", "small", "It holds too little."}, "/jobs/" + last.ID.String(), models.RoleViewer, run(small)},
		{empty.ID.String(), []string{"Never backed up", "empty", "no source group"}, host(empty) + "/source-groups/new", models.RoleOperator, ""},
		{unbound.ID.String(), []string{"Never backed up", "unbound", "no repository"}, host(unbound) + "/repository", models.RoleAdmin, ""},
		{unenrolled.ID.String(), []string{"Never backed up", "unenrolled", "not enrolled"}, host(unenrolled) + "/enrol", models.RoleAdmin, ""},
	}
	for role, cookie := range cookies {
		page := b.shown("/", cookie...)
		if !strings.Contains(page, "6 of 7 hosts need a hand") || !strings.Contains(page, "Offline 1<") {
			t.Errorf("the heading says %q", plain(page)[:200])
		}
		before := 0
		for _, row := range rows {
			if row.id == unenrolled.ID.String() {
				continue // the ninth: behind the link
			}
			at := strings.Index(page, `id="attention-`+row.id+`"`)
			if at < before {
				t.Errorf("%s is not behind what is worse", row.says)
			}
			before = at
			got := part(t, page, "attention-"+row.id)
			for _, text := range row.says {
				if !strings.Contains(plain(got), text) {
					t.Errorf("%v says %q", row.says, plain(got))
				}
			}
			if has := strings.Contains(got, `"`+row.act+`"`); has != role.Allows(row.who) {
				t.Errorf("%v as %s: leads to %s: %v", row.says, role, row.act, has)
			}
			if has := row.other != "" && strings.Contains(got, `"`+row.other+`"`); has != (row.other != "" && role.Allows(models.RoleOperator)) {
				t.Errorf("%v as %s: leads to %s: %v", row.says, role, row.other, has)
			}
		}
		if strings.Contains(page, `id="attention-`+unenrolled.ID.String()) || !strings.Contains(page, "See all 6 hosts that need a hand") {
			t.Error("the list is not cut with a link to the rest")
		}
		hand := b.shown("/?show=hand", cookie...)
		for _, h := range []*models.Host{unenrolled, unbound, empty, cloned, busy, away} {
			if !strings.Contains(hand, `id="host-`+h.ID.String()) {
				t.Errorf("%s is not among those that need a hand", h.Name)
			}
		}
		if strings.Contains(hand, `id="host-`+safe.ID.String()) {
			t.Error("a safe host is among those that need a hand")
		}
	}

	// What is under way says so on its row, and can be ended there.
	waiting, err := models.RunGroup(b.ctx, b.db, busy.ID, late.ID, models.System)
	if err != nil {
		t.Fatal(err)
	}
	got := part(t, b.shown("/", cookies[models.RoleOperator]...), "attention-"+late.ID.String())
	if !strings.Contains(plain(got), "Waiting") || !strings.Contains(got, `"/jobs/`+waiting.ID.String()+`/cancel"`) || strings.Contains(got, run(late)) {
		t.Errorf("a waiting run shows %q", plain(got))
	}
	// A host's state is the worst of its groups, unless something is under way.
	for _, c := range []struct {
		host  *models.Host
		state string
	}{
		{safe, "Good"}, {unenrolled, "Waiting for its agent"}, {unbound, "No repository"}, {empty, "Never backed up"},
		{cloned, "Two machines"}, {busy, "Waiting"}, {away, "Late"},
	} {
		row := plain(part(t, b.shown("/", cookies[models.RoleViewer]...), "host-"+c.host.ID.String()))
		if !strings.Contains(row, c.state) {
			t.Errorf("%s is shown as %q, want %s", c.host.Name, row, c.state)
		}
	}
}

var hostRow = regexp.MustCompile(`(?s)<tr id="host-.*?<a [^>]*>([^<]*)</a>`)

func names(html string) []string {
	var out []string
	for _, m := range hostRow.FindAllStringSubmatch(html, -1) {
		out = append(out, m[1])
	}
	return out
}

// The first load of a full page, every row and strip different, is light.
func TestAFullFleetIsLight(t *testing.T) {
	t.Parallel()
	now, states := time.Now(), []ui.State{ui.Good, ui.Warning, ui.Failed, ui.Late, ui.Never, ui.Running, ""}
	random := rand.New(rand.NewPCG(1, 2))
	id := func() string { return models.NewID[models.HostID]().String() }
	v := views.Fleet{Clock: ui.Clock{Now: now, Zone: time.UTC}, Total: 2000, NeedHand: 40, OfflineCount: 9, CanAddHost: true, NextCursor: id(), MoreAttention: true}
	for i := range fleetNeeds {
		host := id()
		v.Attention = append(v.Attention, views.Attention{
			ID: id(), State: states[i%4], HostID: host, HostName: fmt.Sprintf("web-%04d", random.IntN(9999)), GroupName: fmt.Sprintf("group-%d", random.IntN(99)), Since: now.Add(-time.Duration(random.IntN(1e6)) * time.Second),
			Cause: fmt.Sprintf("Newest good snapshot is %d days old, due every day at 02:%02d (Europe/Berlin). Host was offline at both times.", i+2, random.IntN(60)), Act: ui.Link{Text: "See what to do", URL: "/jobs/" + id()}, RunURL: "/hosts/" + host + "/source-groups/" + id() + "/run",
		})
	}
	for range fleetPage {
		row := views.FleetHost{
			ID: id(), Name: fmt.Sprintf("web-%04d.example.net", random.IntN(9999)), State: states[random.IntN(6)], About: fmt.Sprintf("Debian %d · websocket", random.IntN(14)), NewestGood: now.Add(-time.Duration(random.IntN(1e5)) * time.Second), NextRun: now.Add(time.Duration(random.IntN(1e5)) * time.Second), Groups: random.IntN(20),
		}
		for day := range 30 {
			state := ui.Good // mostly
			if random.IntN(6) == 0 {
				state = states[random.IntN(len(states))]
			}
			row.Days = append(row.Days, ui.Day{Date: now.AddDate(0, 0, day-29), State: state})
		}
		v.Hosts = append(v.Hosts, row)
	}
	var weight bytes.Buffer
	packed := func(level int, write func(io.Writer) error) {
		w, err := gzip.NewWriterLevel(&weight, level)
		if err == nil {
			err = errors.Join(write(w), w.Close())
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	packed(3, func(w io.Writer) error {
		return views.FleetPage(views.Page{Title: "Fleet", Nav: views.NavFleet, Path: "/"}, v).Render(t.Context(), w)
	})
	for _, name := range []string{"app.css", "app.js"} {
		packed(gzip.BestCompression, func(w io.Writer) error {
			raw, err := os.ReadFile(filepath.Join("..", "static", "dist", name))
			_, wrote := w.Write(raw)
			return errors.Join(err, wrote)
		})
	}
	t.Logf("%d bytes", weight.Len())
	if weight.Len() > 45_000 {
		t.Errorf("the first load weighs %d bytes, want at most 45,000", weight.Len())
	}
}

// Pages go on behind a name, whatever became of the host that had it; a filter
// is a part of the name or a label, taken literally.
func TestTheFleetIsPagedAndFiltered(t *testing.T) {
	t.Parallel()
	b := setup(t)
	cookie := []string{"Cookie", "session=" + b.session(models.RoleViewer)}
	var all []string
	for i := range fleetPage + 20 {
		name := fmt.Sprintf("web-%03d", i)
		if i%2 == 1 {
			name = strings.ToUpper(name)
		}
		if _, err := models.AddHost(b.ctx, b.db, models.HostFields{Name: name, Labels: []string{fmt.Sprintf("rack-%d%%", i%10)}}); err != nil {
			t.Fatal(err)
		}
		all = append(all, name)
	}
	next := regexp.MustCompile(`rel="next" href="([^"]*)"`)
	first := b.shown("/", cookie...)
	link := next.FindStringSubmatch(first)
	if link == nil || !slices.Equal(names(first), all[:fleetPage]) {
		t.Fatalf("the first page leads to %q and has %q", link, names(first))
	}
	b.exec("delete from hosts where name = ?", all[fleetPage-1])
	second := b.shown(link[1], cookie...)
	if got := names(second); !slices.Equal(got, all[fleetPage:]) || next.MatchString(second) || !strings.Contains(second, `rel="first"`) {
		t.Errorf("the second page has %q", got)
	}
	for _, c := range []struct {
		typed string
		want  int
	}{
		{"web-00", 10}, {"WEB-00", 10}, {" web-041 ", 1}, {"%", fleetPage}, {"k-3%", 5}, {"_", 0}, {"web-0 0", 0}, {"<script>", 0}, {"\x00", 0},
	} {
		got := b.shown("/?q="+url.QueryEscape(c.typed), append(cookie, partialHeader...)...)
		if n := len(names(got)); n != c.want {
			t.Errorf("%q finds %d hosts, want %d", c.typed, n, c.want)
		}
		if strings.Contains(got, "<script>") {
			t.Error("what was typed comes back as markup")
		}
	}
	if got := b.shown("/?q=nobody", cookie...); !strings.Contains(got, "No host fits this filter") || !strings.Contains(got, `value="nobody"`) {
		t.Error("an empty list doesn't say so, or forgets what was typed")
	}
}
