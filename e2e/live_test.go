package e2e

import (
	"net/http"
	"regexp"
	"strings"
	"testing"

	"github.com/playwright-community/playwright-go"
)

// A page whose server is gone says so and since when; when the server is back
// the page is too, with what happened meanwhile.
func TestALostStreamIsSaid(t *testing.T) {
	t.Parallel()
	s := ownServer(t)
	p := s.page(t, pageOptions{})
	p.open("/jobs")
	p.mark()
	state := p.Locator("#live-state")
	p.says(state, "live")
	s.kill()
	p.sees(state.GetByText(regexp.MustCompile(`^live updates lost since \d\d:\d\d$`)))
	if err := s.start(); err != nil {
		t.Fatal(err)
	}
	var host, group struct{ ID string }
	c := s.api(t)
	c.call("POST", "/api/hosts", map[string]any{"name": "web-01"}, http.StatusCreated, &host)
	c.call("POST", "/api/hosts/"+host.ID+"/source-groups", map[string]any{"name": "www", "includes": []string{"/srv"}}, http.StatusCreated, &group)
	c.call("PUT", "/api/hosts/"+host.ID+"/repository", map[string]any{"url": "/srv/repo", "password": "x"}, http.StatusOK, nil)
	c.call("POST", "/api/hosts/"+host.ID+"/source-groups/"+group.ID+"/run", nil, http.StatusAccepted, nil)
	p.sees(p.link("Backup of www"))
	p.sees(state.GetByText(regexp.MustCompile("^live$")))
	p.unreloaded()
	p.forget("net::ERR_", "network error", "Failed to fetch", "SSE reconnect failed") // there was no server
}

// A session that ends under an open page, where nobody clicks, leads to the
// login and from there back.
func TestASessionEndsUnderAnOpenPage(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	other := suite.target
	var err error
	if other.session, err = login(t.Context(), other.url, other.user, other.password); err != nil {
		t.Fatal(err)
	}
	p := other.page(t, pageOptions{})
	p.open("/hosts/" + h.id)
	p.says(p.Locator("#live-state"), "live")
	if a := other.api(t).send("POST", "/logout", nil); a.status != http.StatusSeeOther {
		t.Fatalf("logout: %d", a.status)
	}
	p.path("/login")
	p.fill("User name", other.user)
	p.fill("Password", other.password)
	p.click(p.button("Log in"))
	p.path("/hosts/" + h.id)
	p.forget("SSE reconnect failed with status 401")
}

// hide makes the page believe that its tab is behind another, or in front: a
// browser without a screen calls every tab visible.
func (p *page) hide(hidden bool) {
	p.t.Helper()
	p.script(`hidden => {
		Object.defineProperty(document, "hidden", {configurable: true, get: () => hidden});
		document.dispatchEvent(new Event("visibilitychange", {bubbles: true}));
	}`, hidden)
}

// A browser has six connections to a server. Only the tab that is seen holds
// one for its stream, so that any number of them stay alive.
func TestSevenTabsStayAlive(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	first := newPage(t)
	first.open("/hosts/" + h.id)
	first.says(first.Locator("#live-state"), "live")
	first.hide(true)
	for range 6 {
		tab, err := first.Context().NewPage()
		first.must(err)
		p := &page{Page: tab, t: t, at: first.at, expect: first.expect}
		p.open("/hosts/" + h.id)
		p.says(p.Locator("#live-state"), "live")
		p.hide(true)
	}
	// Some were opened behind and have never been in front.
	for range 6 {
		tab, err := first.Context().NewPage()
		first.must(err)
		first.must(tab.AddInitScript(playwright.Script{Content: playwright.String(
			`Object.defineProperty(document, "hidden", {configurable: true, get: () => true})`)}))
		p := &page{Page: tab, t: t, at: first.at, expect: first.expect}
		p.open("/jobs")
	}
	h.group("docs", []string{"/srv"})
	first.hide(false)
	first.sees(first.link("docs"))
}

// A slow server: the clicked row answers at once, and the answer comes when it
// comes.
func TestTheClickedRowAnswersAtOnce(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	h.bind(localRepo(t))
	h.group("docs", []string{writeFiles(t, h.dir+"/docs", map[string]string{"a": "a"})})
	p := newPage(t)
	p.open("/hosts/" + h.id)
	answer := make(chan struct{})
	p.must(p.Route("**/run", func(r playwright.Route) {
		<-answer
		if err := r.Continue(); err != nil {
			p.note("the post: " + err.Error())
		}
	}))
	// In the click's own task: however slow the machine, nobody sees the row as
	// it was. Any limit in milliseconds would measure the machine.
	p.script(`() => addEventListener("click", () => {
		setTimeout(() => { window.next = document.querySelector("#groups").textContent; });
	}, true)`)
	p.click(p.button("Run now docs"))
	p.sees(p.button("Asking… docs"))
	if next := p.script("next").(string); !strings.Contains(next, "Asking…") {
		t.Errorf("after the click the row says %q", next)
	}
	close(answer)
	p.says(p.Locator("#groups"), "Good")
	p.sees(p.button("Run now docs"))
}

// firstLoad is the limit of what a page may weigh for who comes anew, as it
// goes over the wire, until it stands. What it fetches when something changed
// is no part of that.
const firstLoad = 45_000

func TestTheFirstLoadIsLight(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	p := newPage(t)
	for _, path := range []string{"/", "/hosts/" + h.id, "/jobs"} {
		p.open(path)
		weight := p.script(`() => performance.getEntriesByType("navigation").concat(performance.getEntriesByType("resource"))
			.filter(e => e.initiatorType !== "fetch").reduce((sum, e) => sum + e.encodedBodySize, 0)`)
		t.Logf("%s: %v bytes", path, weight)
		if n, _ := weight.(int); n == 0 || n > firstLoad {
			t.Errorf("%s weighs %v bytes, want at most %d", path, weight, firstLoad)
		}
	}
}
