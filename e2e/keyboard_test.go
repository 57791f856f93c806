package e2e

import (
	"strings"
	"testing"

	"github.com/playwright-community/playwright-go"
)

// tabTo presses Tab until the element has the focus, as somebody without a
// mouse does; an element that can't be reached so fails the test.
func (p *page) tabTo(l playwright.Locator) {
	p.t.Helper()
	p.sees(l)
	const farEnough = 80
	for range farEnough {
		if on, err := l.Evaluate("e => e === document.activeElement", nil); err == nil && on == true {
			return
		}
		p.press("Tab")
	}
	p.t.Fatalf("at %s: the keyboard doesn't reach %v", p.URL(), l)
}

func (p *page) press(key string) {
	p.t.Helper()
	p.must(p.Keyboard().Press(key))
}

func (p *page) typeIn(text string) {
	p.t.Helper()
	p.must(p.Keyboard().Type(text))
}

// updated has the page look again, as after an event of the stream, and waits
// until it has; asked for too soon after another look, it asks once more.
func (p *page) updated(event string) {
	p.t.Helper()
	p.script(`event => new Promise(done => {
		const asking = setInterval(() => htmx.trigger(document.body, event), 100);
		document.addEventListener("htmx:after:swap", () => { clearInterval(asking); done(); }, {once: true});
	})`, event)
}

// A source group, a schedule for it and its first backup, a cadence, a hold and a
// comparison, without a mouse; the focus stays where the hands are while the page
// changes under them.
func TestByKeyboardAlone(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	h.bind(localRepo(t))
	source := writeFiles(t, h.dir+"/docs", map[string]string{"a.txt": "a"})
	p := newPage(t)
	p.open("/hosts/" + h.id)
	p.press("Tab")
	p.must(p.expect.Locator(p.link("Skip to content")).ToBeFocused())
	p.press("Enter")
	p.tabTo(p.link("Add source group"))
	p.press("Enter")
	p.path("/hosts/" + h.id + "/source-groups/new")
	p.tabTo(p.field("Name"))
	p.typeIn("docs")
	p.tabTo(p.Locator("[name=includes]").First())
	p.typeIn("docs")
	p.tabTo(p.button("Add source group"))
	p.press("Enter") // and the mistake has the focus
	p.must(p.expect.Locator(p.Locator("[name=includes][aria-invalid=true]")).ToBeFocused())
	p.press("ControlOrMeta+a")
	p.typeIn(source)
	p.tabTo(p.button("Add source group"))
	p.press("Enter")
	p.path("/hosts/" + h.id)

	p.tabTo(p.link("Add schedule"))
	p.press("Enter")
	p.path("/hosts/" + h.id + "/schedules/new")
	p.tabTo(p.button("Every day"))
	p.press("Enter")
	p.must(p.expect.Locator(p.field("When")).ToBeFocused())
	p.must(p.expect.Locator(p.field("When")).ToHaveValue("0 2 * * *"))
	p.tabTo(p.Locator("input[name=source_group_ids]"))
	p.press("Space")
	p.tabTo(p.button("Add schedule"))
	p.press("Enter")
	p.path("/hosts/" + h.id)
	p.says(p.Locator("#schedules"), "Every day at 02:00")

	p.mark()
	run := p.button("Run now docs")
	p.tabTo(run)
	p.press("Enter")
	p.says(p.Locator("#groups"), "Good")
	p.sees(run)
	p.must(p.expect.Locator(run).ToBeFocused())
	p.says(p.Locator("#recent-jobs"), "Backup of docs") // what is below the hands may come

	// The strip is one stop; its days are walked by the arrow keys.
	tip := p.Locator("#tip")
	p.press("Shift+Tab")
	p.says(tip, "1 good")
	p.updated("host")
	p.says(tip, "1 good")
	p.press("ArrowLeft")
	p.says(tip, "nothing ran")
	p.press("ArrowRight")
	p.press("ArrowRight") // there is no tomorrow
	p.says(tip, "1 good")
	p.press("Tab")
	p.must(p.expect.Locator(tip).ToBeEmpty())

	p.tabTo(p.Locator("header summary"))
	p.press("Enter")
	p.sees(p.button("Log out"))
	p.tabTo(p.button("Dark"))
	p.press("Enter")
	root := p.Locator("html")
	p.must(p.expect.Locator(root).ToHaveAttribute("data-theme", "dark"))
	p.press("Escape")
	p.hidden(p.button("Log out"))
	p.must(p.expect.Locator(p.Locator("header summary")).ToBeFocused())
	p.unreloaded()

	// The theme is kept, and is in the document itself: nothing flashes.
	res, err := p.Reload()
	p.must(err)
	html, err := res.Text()
	p.must(err)
	if !strings.Contains(html, `<html lang="en" data-theme="dark">`) {
		t.Errorf("the theme comes after the first paint: %.100s", html)
	}
	p.must(p.expect.Locator(root).ToHaveAttribute("data-theme", "dark"))

	p.tabTo(run)
	p.press("Enter")
	list := h.listed(2)
	p.tabTo(p.link("Maintenance"))
	p.press("Enter")
	p.path("/hosts/" + h.id + "/maintenance")
	p.mark()
	p.tabTo(p.button("Turn on check"))
	p.press("Enter")
	off := p.button("Turn off check")
	p.sees(off)
	p.must(p.expect.Locator(off).ToBeFocused())
	// An act that takes its button away leaves the focus where it stood.
	p.tabTo(p.button("Run now prune"))
	p.press("Enter")
	p.says(p.Locator("#recent-maintenance"), "Prune")
	if on := p.script("document.activeElement.closest('#maintenance-prune') !== null"); on != true {
		t.Errorf("the focus is on %v", p.script("document.activeElement.outerHTML"))
	}
	p.unreloaded()

	p.tabTo(p.link("Snapshots"))
	p.press("Enter")
	p.path("/hosts/" + h.id + "/snapshots")
	p.mark()
	older, newer := list[1].ID, list[0].ID
	hold := p.Locator("#hold-" + older)
	p.tabTo(hold)
	p.press("Enter")
	p.says(p.Locator("#snapshot-"+older), "Held: nothing removes it")
	p.must(p.expect.Locator(hold).ToBeFocused())
	p.unreloaded()
	p.tabTo(p.Locator("#a-" + newer))
	p.press("ArrowDown")
	p.must(p.expect.Locator(p.Locator("#a-" + older)).ToBeChecked())
	p.tabTo(p.Locator("#b-" + newer))
	p.press("Space")
	p.must(p.expect.Locator(p.Locator("#b-" + newer)).ToBeChecked())
	p.tabTo(p.button("Compare the two"))
	p.press("Enter")
	p.sees(p.Locator("#compared"))
}
