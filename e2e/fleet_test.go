package e2e

import (
	"fmt"
	"math"
	"net/http"
	"net/url"
	"testing"

	"github.com/playwright-community/playwright-go"
)

// An operator's look at a fleet of more than a page: finding a host as one
// types, going on through the list, watching a backup under the pointer, and
// going where the one act leads.
func TestTheFleetUnderOnesEyes(t *testing.T) {
	t.Parallel()
	s := ownServer(t)
	c := s.api(t)
	for i := range 31 {
		c.call("POST", "/api/hosts", map[string]any{"name": fmt.Sprintf("empty-%02d", i), "labels": []string{"spare"}}, http.StatusCreated, nil)
	}
	h := s.newHost(t)
	c.call("PATCH", "/api/hosts/"+h.id, map[string]any{"name": "web-01", "labels": []string{"production"}}, http.StatusOK, nil)
	h.bind(localRepo(t))
	letGo := h.holdBackups()
	www := h.group("www", []string{writeFiles(t, h.dir+"/www", map[string]string{"index.html": "<p>"})})
	gone := h.group("gone", []string{h.dir + "/gone"})

	p := s.page(t, pageOptions{})
	rows := p.Locator("#fleet-list tr")
	row := rows.Filter(playwright.LocatorFilterOptions{HasText: "web-01"})
	p.open("/")
	p.sees(p.heading("32 of 32 hosts need a hand"))
	p.must(p.expect.Locator(rows).ToHaveCount(30))
	p.mark()
	for _, typed := range []string{"WEB", "produc"} {
		p.fill("Filter by name or label", typed)
		p.must(p.expect.Locator(rows).ToHaveCount(1))
		p.says(row, "Never backed up")
	}
	p.must(p.expect.Locator(p.field("Filter by name or label")).ToBeFocused())
	p.unreloaded()
	p.query("q", "produc")
	_, err := p.Reload()
	p.must(err)
	p.must(p.expect.Locator(rows).ToHaveCount(1))
	p.fill("Filter by name or label", "nobody")
	p.says(p.Locator("#fleet-rows"), "No host fits this filter")
	p.click(p.link("Show all hosts"))

	// Page by page, by name; what happens meanwhile comes into this page, too.
	p.click(p.link("More hosts"))
	p.must(p.expect.Locator(rows).ToHaveCount(2))
	p.query("cursor", "empty-29")
	p.mark()
	running := h.run(www)
	p.says(row, "Backing up")
	p.must(p.expect.Locator(rows).ToHaveCount(2))
	p.unreloaded()
	p.click(p.link("First page"))
	p.must(p.expect.Locator(rows).ToHaveCount(30))

	// What is under the pointer stays there, whatever becomes of the others.
	p.fill("Filter by name or label", "web")
	p.says(row, "Backing up")
	needs := p.Locator("#attention > li")
	under := needs.Filter(playwright.LocatorFilterOptions{HasText: "empty-02"})
	failed := needs.Filter(playwright.LocatorFilterOptions{HasText: "web-01"})
	p.must(under.Hover())
	p.mark()
	before := p.top(under)
	letGo()
	if j := c.end(running); j.State != "succeeded" {
		t.Fatalf("the backup ended %s: %s", j.State, j.Error)
	}
	p.says(row, "Never backed up") // gone is
	if j := c.end(h.run(gone)); j.State != "failed" {
		t.Fatalf("the backup of nothing ended %s", j.State)
	}
	p.says(row, "Failed")
	p.sees(p.GetByText("Rows that came or went show when you leave the list."))
	if now := p.top(under); now != before {
		t.Errorf("the row under the pointer went from %v to %v", before, now)
	}
	p.must(p.expect.Locator(failed).ToHaveCount(0))
	p.must(p.Mouse().Move(2, 2))
	p.says(failed, "Failed")
	p.says(failed, "gone")
	p.hidden(p.GetByText("Rows that came or went show when you leave the list."))
	p.unreloaded()

	// By the keyboard the same holds: the row with the focus stays.
	p.must(p.link("Show how : empty-02").Focus())
	before = p.top(under)
	c.call("DELETE", "/api/hosts/"+h.id+"/source-groups/"+gone, nil, http.StatusNoContent, nil)
	p.says(row, "Good")
	p.must(p.expect.Locator(p.link("Show how : empty-02")).ToBeFocused())
	if now := p.top(under); now != before {
		t.Errorf("the row with the focus went from %v to %v", before, now)
	}
	p.sees(p.heading("31 of 32 hosts need a hand"))

	// The one act leads to where it is mended: of the worst to its job, of the
	// others to what is missing.
	p.click(p.link("See what to do : web-01 gone"))
	p.sees(p.heading("Backup of gone"))
	p.says(p.Locator("#job"), "not there")
	p.open("/?show=hand")
	p.must(p.expect.Locator(failed).ToHaveCount(0))
	p.click(p.link("Show how : empty-00"))
	p.sees(p.heading("Add empty-00"))
}

// top is how far an element is from the window's upper edge, in whole pixels.
func (p *page) top(l playwright.Locator) float64 {
	p.t.Helper()
	box, err := l.BoundingBox()
	p.must(err)
	return math.Round(box.Y)
}

// query waits until the address has this value for a name.
func (p *page) query(name, want string) {
	p.t.Helper()
	eventually(p.t, "the address has "+name+"="+want, func() bool {
		u, err := url.Parse(p.URL())
		return err == nil && u.Query().Get(name) == want
	})
}
