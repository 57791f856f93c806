package e2e

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/playwright-community/playwright-go"
)

// pick chooses an option by its text.
func (p *page) pick(label, option string) {
	p.t.Helper()
	_, err := p.field(label).SelectOption(playwright.SelectOptionValues{Labels: &[]string{option}})
	p.must(err)
}

// A person looks for what failed on a host, reads why, mends it, and runs it
// again: to a good snapshot, without a detour.
func TestAFailureIsFoundUnderstoodAndMended(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	r := localRepo(t)
	h.bind(r)
	missing := filepath.Join(h.dir, "docs")
	docs := h.group("docs", []string{missing})
	mail := h.group("mail", []string{writeFiles(t, h.dir+"/mail", map[string]string{"inbox": "Dear"})})
	failed, good := h.api().end(h.run(docs)), h.api().end(h.run(mail))

	p := newPage(t)
	p.open("/jobs")
	p.mark()
	// As one types, names are offered; the one that is typed is the filter.
	p.must(p.field("Host").PressSequentially(h.name[:len(h.name)-2]))
	offered := p.Locator("#jobs-host-names option")
	p.must(p.expect.Locator(offered).ToHaveCount(1))
	p.must(p.expect.Locator(offered).ToHaveAttribute("value", h.name))
	// A mistake has the focus once, and doesn't take it again at every job.
	p.fill("Host", h.name+"?")
	p.must(p.field("Host").Press("Enter"))
	p.sees(p.GetByText("No host is called").First())
	p.must(p.field("State").Focus())
	p.updated("jobs")
	p.must(p.expect.Locator(p.field("State")).ToBeFocused())
	p.fill("Host", h.name)
	p.must(p.field("Host").Press("Enter"))
	row := func(id string) playwright.Locator { return p.Locator("#job-" + id) }
	p.sees(row(good.ID))
	p.sees(row(failed.ID))
	p.sees(p.field("Source group"))
	p.pick("State", "Failed")
	p.hidden(row(good.ID))
	p.says(row(failed.ID), "path missing")
	p.pick("Source group", "mail")
	p.sees(p.GetByText("No job fits this filter."))
	p.pick("Source group", "docs")
	p.sees(row(failed.ID))
	p.unreloaded()
	// What is shown is what the address says.
	if _, err := p.Reload(); err != nil {
		t.Fatal(err)
	}
	p.sees(row(failed.ID))
	p.hidden(row(good.ID))
	if got, err := p.field("Host").InputValue(); err != nil || got != h.name {
		t.Errorf("the host is %q: %v", got, err)
	}

	p.click(p.link("Backup of docs"))
	p.sees(p.heading("Something to back up is not there"))
	p.says(p.Locator("#job"), missing)
	p.says(p.Locator("#written"), "Nothing was written. docs has no good snapshot.")
	download, err := p.ExpectDownload(func() error { return p.link("Download the log").Click() })
	p.must(err)
	if name := download.SuggestedFilename(); !strings.HasPrefix(name, h.name+"-backup-docs-") || !strings.HasSuffix(name, ".log") {
		t.Errorf("the log is saved as %q", name)
	}
	path, err := download.Path()
	p.must(err)
	saved, err := os.ReadFile(path)
	p.must(err)
	if want := strings.Count(h.api().log(failed.ID), "\n"); strings.Count(string(saved), "\n") != want {
		t.Errorf("the file has not the log's %d lines: %s", want, saved)
	}

	writeFiles(t, missing, map[string]string{"letter": "Dear"})
	p.click(p.button("Run again"))
	eventually(t, "the page of the new job", func() bool { return p.pathPart(1) == "jobs" && p.pathPart(2) != failed.ID })
	again := p.pathPart(2)
	p.says(p.Locator("#job [role=status]"), "Good")
	snapshot := h.api().job(again).snapshot()[:8]
	p.says(p.Locator("#written"), "Written as snapshot "+snapshot)
	p.open("/jobs/" + failed.ID)
	p.says(p.Locator("#written"), "The newest good snapshot of docs is")
	p.click(p.link(snapshot))
	p.path("/jobs/" + again)
}

// A job that waits says what for, and goes on by itself; a list that someone
// is in shows what changes and doesn't move.
func TestWhatWaitsIsWatchedUntilItRuns(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	h.bind(localRepo(t))
	songs := h.group("songs", []string{writeFiles(t, h.dir+"/songs", map[string]string{"a": "la"})})
	films := h.group("films", []string{writeFiles(t, h.dir+"/films", map[string]string{"a": "ah"})})
	release := h.holdBackups()
	first := h.run(songs)
	h.api().state(first, "running")
	second := h.run(films)

	list := newPage(t)
	list.open("/hosts/" + h.id + "/jobs")
	list.mark()
	under := list.Locator("#job-" + second)
	list.says(under, "behind songs")
	list.must(under.Hover())
	before, err := under.BoundingBox()
	list.must(err)

	p := newPage(t)
	p.open("/jobs/" + second)
	p.mark()
	p.says(p.Locator("#job"), "It waits for Backup of songs on "+h.name)
	sees := p.link("Backup of songs on " + h.name)
	p.must(p.expect.Locator(sees).ToHaveAttribute("href", "/jobs/"+first))
	p.says(p.Locator("#log"), "")

	third := h.run(songs) // above what the pointer is on
	list.says(list.Locator("#jobs-newer"), "Show 1 newer job")
	release()
	p.says(p.Locator("#job [role=status]"), "Good")
	p.says(p.Locator("#job"), "Written as snapshot")
	p.unreloaded()
	list.says(under, "Good")
	if after, err := under.BoundingBox(); err != nil || after.Y != before.Y {
		t.Errorf("the row under the pointer moved from %v to %v: %v", before, after, err)
	}
	list.hidden(list.Locator("#job-" + third))
	list.must(list.Mouse().Move(1, 1))
	list.sees(list.Locator("#job-" + third))
	list.hidden(list.Locator("#jobs-newer"))
	list.unreloaded()
	h.api().end(third)
}
