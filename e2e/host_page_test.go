package e2e

import (
	"net/http"
	"slices"
	"strings"
	"testing"
)

// A group is what its rows say: added and taken away by button, pasted by the
// handful, and told in words what is kept of it.
func TestGroupIsEditedRowByRow(t *testing.T) {
	t.Parallel()
	h := suite.target.bareHost(t, unique("rows"))
	var made struct{ ID string }
	h.api().call("POST", "/api/hosts", map[string]any{"name": h.name}, http.StatusCreated, &made)
	h.id = made.ID
	group := h.group("www", []string{"/srv/www", "/srv/old", "/two\nlines"}, "*.tmp")
	p := newPage(t)
	p.open("/hosts/" + h.id)
	p.click(p.link("www"))
	p.click(p.button("Remove path 2"))
	p.must(p.expect.Locator(p.field("What to back up, path 2")).ToHaveValue("/two\nlines"))
	p.must(p.expect.Locator(p.field("What to back up, path 2")).ToBeFocused())
	p.click(p.button("Add path"))
	third := p.field("What to back up, path 3")
	p.must(p.expect.Locator(third).ToBeFocused())
	p.must(p.Keyboard().InsertText("/srv/a\nsrv/b\n"))
	p.fill("Name", "shop")

	words := p.Locator("#retention-words")
	p.says(words, "Keeps every snapshot")
	p.fill("Daily", "7")
	p.fill("Weekly", "4")
	p.says(words, "Keeps the last 7 daily and 4 weekly snapshots; everything else is removed when forget runs.")
	p.fill("Everything within", "a month")
	p.says(words, "no span of time")
	p.fill("Everything within", "1m")
	p.says(words, "and everything of the last 1 month")
	p.fill("Size", "10 gigs")
	p.click(p.button("Save “www”"))
	p.must(p.expect.Locator(p.field("Size")).ToBeFocused())
	p.must(p.expect.Locator(p.field("Size")).ToHaveValue("10 gigs"))
	p.fill("Size", "10 GiB")
	// Enter saves, whatever buttons stand before the one that says so.
	p.must(p.field("Name").Press("Enter"))
	p.says(p.Locator("#f-includes-3-error"), "give the absolute path")
	p.must(p.expect.Locator(p.field("What to back up, path 4")).ToBeFocused())
	p.fill("What to back up, path 4", "/srv/b")
	p.must(p.field("Name").Press("Enter"))
	p.path("/hosts/" + h.id)
	p.sees(p.link("shop"))

	var g struct {
		Name, Tag          string
		Includes, Excludes []string
		MinBytes           int64 `json:"min_bytes"`
		Retention          map[string]any
	}
	h.api().call("GET", "/api/hosts/"+h.id+"/source-groups/"+group, nil, http.StatusOK, &g)
	if want := []string{"/srv/www", "/two\nlines", "/srv/a", "/srv/b"}; !slices.Equal(g.Includes, want) || !slices.Equal(g.Excludes, []string{"*.tmp"}) {
		t.Errorf("includes %q, want %q; excludes %q", g.Includes, want, g.Excludes)
	}
	if g.Name != "shop" || g.Tag != "www" || g.MinBytes != 10<<30 || g.Retention["keep_daily"] != 7.0 || g.Retention["keep_within"] != "1m" {
		t.Errorf("stored %+v", g)
	}
}

// A repository moves from a folder to a server. Its secrets go in and never
// come out: not in the form that comes back, not in the page after it.
func TestRepositoryMovesToAServer(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	h.bind(localRepo(t))
	moved := newRestServer(t).repo(t)
	p := newPage(t)
	p.open("/hosts/" + h.id)
	p.click(p.link("Repository"))
	server := p.field("Server password")
	p.hidden(server)
	p.choose("Kind of place", "rest")
	p.sees(server)
	p.must(server.Fill("canary of the server"))
	p.fill("Server user name", "anna")
	p.fill("Password", moved.password)
	p.click(p.button("Save repository"))
	p.says(p.Locator("#f-url-error"), "not the kind of place that is chosen")
	p.must(p.expect.Locator(p.field("Place")).ToBeFocused())
	for field, want := range map[string]string{"Server password": "canary of the server", "Server user name": "anna", "Password": moved.password} {
		p.must(p.expect.Locator(p.field(field)).ToHaveValue(want)) // what was typed is not lost
	}
	p.fill("Place", "/srv/x")
	p.must(p.expect.Locator(p.field("Kind of place")).ToHaveValue("local"))
	p.hidden(server)
	p.fill("Place", moved.url)
	p.must(p.expect.Locator(p.field("Kind of place")).ToHaveValue("rest"))
	p.click(p.button("Save repository"))
	p.path("/hosts/" + h.id)
	p.says(p.Locator("#repository"), moved.url)
	p.says(p.Locator("#repository"), "Ready")
	p.says(p.Locator("#repository"), "RESTIC_REST_PASSWORD, RESTIC_REST_USERNAME set")

	p.click(p.link("Repository"))
	p.must(p.expect.Locator(server).ToHaveAttribute("placeholder", "set; empty keeps it"))
	for _, secret := range []string{"Server password", "Server user name", "Password"} {
		p.must(p.expect.Locator(p.field(secret)).ToHaveValue(""))
	}
	p.must(p.field("Forget Server user name").Check())
	p.click(p.button("Save repository"))
	p.path("/hosts/" + h.id)
	p.says(p.Locator("#repository"), "RESTIC_REST_PASSWORD set")
	for _, path := range []string{"", "/repository", "/danger"} {
		html := string(h.api().send("GET", "/hosts/"+h.id+path, nil, "Accept", "text/html").body)
		if strings.Contains(html, "canary of the server") || strings.Contains(html, moved.password) {
			t.Errorf("%s shows a secret", path)
		}
	}

	// Without scripts the same form comes back with what may be told.
	plain := suite.target.page(t, pageOptions{noScript: true})
	plain.open("/hosts/" + h.id + "/repository")
	plain.sees(plain.field("Server password"))
	plain.choose("Kind of place", "b2")
	plain.hidden(plain.field("Server password"))
	plain.sees(plain.field("Application key"))
	plain.fill("Key ID", "key-1")
	plain.fill("Application key", "canary of the cloud")
	plain.click(plain.button("Save repository"))
	plain.says(plain.Locator("#f-url-error"), "not the kind of place")
	plain.sees(plain.GetByText("once more").First())
	plain.must(plain.expect.Locator(plain.field("Key ID")).ToHaveValue("key-1"))
	plain.must(plain.expect.Locator(plain.field("Application key")).ToHaveValue(""))
}

// What somebody else adds above doesn't move the row under the pointer; it is
// there when the list is left.
func TestAHostsRowsStayUnderThePointer(t *testing.T) {
	t.Parallel()
	h := suite.target.bareHost(t, unique("still"))
	var made struct{ ID string }
	h.api().call("POST", "/api/hosts", map[string]any{"name": h.name}, http.StatusCreated, &made)
	h.id = made.ID
	www := h.group("www", []string{"/srv/www"})
	schedule := h.schedule("0 2 * * *", true, www)
	p := newPage(t)
	p.open("/hosts/" + h.id)
	p.says(p.Locator("#live-state"), "live")
	row := p.Locator("#schedule-" + schedule)
	p.must(row.Hover())
	p.mark()
	before := p.top(row)
	added := h.group("aaa", []string{"/srv/aaa"})
	h.schedule("0 3 * * *", false, added)
	held := p.GetByText("Rows that came or went show when you leave the list.")
	p.sees(held)
	if now := p.top(row); now != before {
		t.Errorf("the row under the pointer went from %v to %v", before, now)
	}
	p.must(p.expect.Locator(p.link("aaa")).ToHaveCount(0))
	p.must(p.Mouse().Move(2, 2))
	p.sees(p.link("aaa"))
	p.must(p.expect.Locator(p.Locator("#schedule-rows > li")).ToHaveCount(2))
	p.hidden(held)
	p.unreloaded()

	// A question that the server doesn't hear is no silence.
	asks := newPage(t)
	asks.open("/hosts/" + h.id + "/danger")
	asks.must(asks.Context().SetOffline(true))
	asks.click(asks.link("Delete “" + h.name + "”"))
	asks.says(asks.Locator("#toast"), "The server did not answer. Try again in a moment.")
	asks.must(asks.Context().SetOffline(false))
	asks.forget("ERR_INTERNET_DISCONNECTED", "Failed to fetch")

	// Somebody deletes the host: its page doesn't go on as if it were there.
	h.api().call("DELETE", "/api/hosts/"+h.id, nil, http.StatusNoContent, nil)
	p.sees(p.heading("There is nothing here"))
	p.forget("SSE reconnect failed with status 404")
}
