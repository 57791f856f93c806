package e2e

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// newcomersTime is how long somebody who has read nothing may need from the
// first start of a server to a good backup of a host of their own.
const newcomersTime = 2 * time.Minute

// Somebody starts a server, follows what it prints, and does what the pages
// say: nothing but the pages is known, and what they show to be pasted is
// pasted into a shell.
func TestANewcomerGetsToAGoodBackup(t *testing.T) {
	t.Parallel()
	began := time.Now()
	s := bareServer(t)
	link, err := s.process.line("within an hour: ", startPatience)
	if err != nil {
		t.Fatal(err)
	}
	h := s.bareHost(t, "nas-02")
	source := writeFiles(t, h.dir+"/home", map[string]string{"letter.txt": "Dear all"})
	r := localRepo(t)
	p := s.page(t, pageOptions{stranger: true})
	p.must(p.Context().GrantPermissions([]string{"clipboard-read", "clipboard-write"}))
	part := func(what string) { t.Logf("%6.1f s: %s", time.Since(began).Seconds(), what) }

	p.open(link)
	p.fill("User name", s.user)
	p.fill("Password", s.password)
	p.fill("Password, once more", s.password)
	p.click(p.button("Set up"))
	p.path("/")
	part("signed in")

	// The empty fleet is the beginning.
	p.sees(p.heading("No hosts yet"))
	p.fill("Name", h.name)
	p.click(p.button("Add host"))
	p.sees(p.heading("Add nas-02"))
	h.id = p.pathPart(2)
	// That it is copied is said although the page looks again just then.
	if said := p.script(`async () => {
		const button = document.querySelector("[data-copy=enrol-command]");
		button.click();
		while (button.textContent !== "Copied") await new Promise(requestAnimationFrame);
		button.textContent = "Copy";
		button.dispatchEvent(new CustomEvent("htmx:after:swap", {bubbles: true, detail: {ctx: {}}}));
		return button.textContent;
	}`); said != "Copied" {
		t.Errorf("after a swap the button says %v", said)
	}
	enroll := p.copied("Copy", "#enrol-command")
	run := p.copied("Copy start", "#run-command")
	p.says(p.Locator("#step-1"), "Waiting for nas-02 to call")
	p.sees(p.Locator("#step-1 time[data-rel=count]"))
	p.mark()
	h.paste(enroll)
	p.sees(p.heading("Start the agent on nas-02"))
	h.pasteAndLeave(run)
	p.sees(p.heading("nas-02 is here"))
	part("the host is here")

	// The next step opens by itself.
	p.fill("Place", r.url)
	p.unreloaded()
	p.fill("Password", r.password)
	p.click(p.button("Save repository"))
	p.says(p.Locator("#step-2"), "Ready")
	part("the repository is ready")

	// Going away and coming back loses nothing.
	p.click(p.link("Open nas-02"))
	p.path("/hosts/" + h.id)
	p.click(p.link("Finish setting up"))
	p.path("/hosts/" + h.id + "/enrol")

	// What is offered would do on most machines; here it is the test's own.
	p.must(p.expect.Locator(p.field("Name")).ToHaveValue("system"))
	for _, row := range []string{"Remove path 3", "Remove path 2"} {
		p.click(p.button(row))
		p.hidden(p.button(row))
	}
	p.fill("What to back up", "home")
	p.click(p.button("Add source group"))
	p.sees(p.Locator("#f-includes-error"))
	p.fill("What to back up", source)
	p.click(p.button("Add source group"))
	p.sees(p.button("Back up now"))
	p.mark()
	p.click(p.button("Back up now"))
	p.says(p.Locator("#step-4 [role=status]"), "Good")
	p.unreloaded()
	took := time.Since(began)
	part("the first backup is good")
	if took > newcomersTime {
		t.Errorf("from serve to a good backup it took %s, want at most %s", took, newcomersTime)
	}
	if got := r.snapshots(); len(got) != 1 || got[0].Hostname != "nas-02" {
		t.Errorf("the repository has %+v, want one snapshot of nas-02", got)
	}
	p.says(p.Locator("#step-4"), r.snapshots()[0].ID[:8])

	p.click(p.button("Back up every day at 02:00"))
	p.path("/hosts/" + h.id)
	p.says(p.Locator("#schedules"), "Every day at 02:00")
	p.open("/")
	p.sees(p.heading("Your one host is safe"))
}

// copied presses a Copy button and returns what is in the clipboard then.
func (p *page) copied(button, shown string) string {
	p.t.Helper()
	p.click(p.button(button))
	p.says(p.Locator("[aria-label='"+button+"']"), "Copied")
	text, _ := p.script("navigator.clipboard.readText()").(string)
	if want := p.text(p.Locator(shown)); text != want {
		p.t.Fatalf("the clipboard holds %q, the page shows %q", text, want)
	}
	return text
}

// pasteAndLeave runs a line that doesn't end, as paste does; it ends with the host.
func (h *host) pasteAndLeave(line string) {
	h.t.Helper()
	line = strings.ReplaceAll(line, "/var/lib/resticfleet-agent", h.stateDir())
	cmd := exec.Command("sh", "-c", "exec "+line)
	cmd.Env = append(os.Environ(), "PATH="+suite.bin+string(filepath.ListSeparator)+filepath.Dir(suite.restic)+string(filepath.ListSeparator)+os.Getenv("PATH"))
	p, err := startProcess(h.logPath(), cmd)
	if err != nil {
		h.t.Fatal(err)
	}
	h.agent = p
}

// Somebody who types isn't disturbed by what happens meanwhile: neither by
// another host on the empty fleet, nor by the host's own news.
func TestAFormOfTheSetupIsLeftAlone(t *testing.T) {
	t.Parallel()
	h := suite.target.bareHost(t, unique("typing"))
	p := newPage(t)
	p.open("/hosts/new")
	p.must(p.expect.Locator(p.field("Name")).ToBeFocused())
	if n := p.script("document.querySelectorAll('[autofocus]').length"); n != 0 {
		t.Errorf("%v fields would take the focus again after the next update", n)
	}
	p.fill("Name", h.name)
	p.fill("Labels", "berlin")
	p.click(p.button("Add host"))
	p.sees(p.heading("Add " + h.name))
	h.id = p.pathPart(2)
	command := p.text(p.Locator("#enrol-command"))
	p.click(p.link("Set repository"))
	p.fill("Place", "/srv/half a pa")
	p.must(p.field("Password").Focus())
	p.mark()
	h.paste(command)
	h.start()
	p.sees(p.heading(h.name + " is here"))
	p.must(p.expect.Locator(p.field("Place")).ToHaveValue("/srv/half a pa"))
	p.must(p.expect.Locator(p.field("Password")).ToBeFocused())
	h.store(localRepo(t)) // somebody else is quicker
	p.says(p.Locator("#step-2"), "Ready")
	p.must(p.expect.Locator(p.field("Place")).ToHaveValue("/srv/half a pa"))
	p.must(p.expect.Locator(p.field("Password")).ToBeFocused())
	p.unreloaded()
}
