package e2e

import (
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/playwright-community/playwright-go"
)

// What an operator does on the first day: log in, add a host with the line the
// page shows, say where snapshots go and what to back up, and press Run now.
func TestFromLoginToTheFirstSnapshot(t *testing.T) {
	t.Parallel()
	h := suite.target.bareHost(t, unique("first"))
	r := localRepo(t)
	source := writeFiles(t, h.dir+"/www", map[string]string{
		"index.html": "<p>hello</p>", "big.tmp": "left out", "cache/x": "left out", "sub/deep.txt": "kept",
	})
	p := suite.target.page(t, pageOptions{stranger: true})

	p.open("/")
	p.path("/login")
	p.fill("User name", suite.target.user)
	p.fill("Password", "not "+suite.target.password)
	p.click(p.button("Log in"))
	p.sees(p.GetByRole(*playwright.AriaRoleAlert))
	p.must(p.expect.Locator(p.field("User name")).ToHaveValue(suite.target.user))
	p.fill("Password", suite.target.password)
	p.click(p.button("Log in"))
	p.path("/")

	p.open("/hosts/new")
	p.fill("Name", h.name)
	p.click(p.button("Add host"))
	p.sees(p.heading("Add " + h.name))
	h.id = p.pathPart(2)
	command := p.text(p.Locator("#enrol-command"))
	p.mark()
	h.paste(command)
	h.start()
	p.sees(p.heading(h.name + " is here"))
	p.unreloaded()
	if out, err := h.shell(command); err == nil || !strings.Contains(out, "was used") {
		t.Errorf("the line worked a second time, or didn't say why not: %v: %s", err, out)
	}

	p.click(p.link("Open " + h.name))
	p.click(p.link("Set repository"))
	p.fill("Place", r.url)
	p.fill("Password", r.password)
	p.click(p.button("Save repository"))
	p.path("/hosts/" + h.id)
	// The init is the server's own idea; nobody asked for it.
	repository := p.Locator("#repository")
	p.says(repository, "Ready")
	p.says(repository, "repository ")

	p.click(p.link("Add source group"))
	p.fill("Name", "www")
	p.fill("Tag", "web")
	p.fill("What to back up", "srv/www")
	p.fill("What to leave out", "*.tmp\n"+source+"/cache")
	p.click(p.button("Add source group"))
	p.must(p.expect.Locator(p.field("What to back up")).ToHaveAttribute("aria-invalid", "true"))
	p.says(p.Locator("#f-includes-error"), "absolute")
	p.must(p.expect.Locator(p.field("Tag")).ToHaveValue("web"))
	p.fill("What to back up", source)
	p.click(p.button("Add source group"))
	p.path("/hosts/" + h.id)

	p.mark()
	p.click(p.button("Run now www"))
	group := p.Locator("#groups li").Filter(playwright.LocatorFilterOptions{HasText: "web"})
	p.says(group, "Good")
	p.unreloaded()
	p.click(p.link("Backup of www").First())
	p.sees(p.heading("Backup of www"))
	p.says(p.Locator("#job [role=status]"), "Good")
	p.says(p.Locator("#job"), "started by "+suite.target.user)
	id := p.pathPart(2)

	snapshots := r.snapshots()
	if len(snapshots) != 1 {
		t.Fatalf("the repository has %d snapshots, want 1: %+v", len(snapshots), snapshots)
	}
	s := snapshots[0]
	if want := []string{"web", "job:" + id}; !slices.Equal(s.Tags, want) {
		t.Errorf("tags %q, want %q", s.Tags, want)
	}
	if s.Hostname != h.name {
		t.Errorf("host %q, want the restic host %q", s.Hostname, h.name)
	}
	if j := h.api().job(id); j.snapshot() != s.ID {
		t.Errorf("the job names snapshot %q, the repository has %q", j.snapshot(), s.ID)
	}
	if got, want := r.list(s.ID), []string{source + "/index.html", source + "/sub/deep.txt"}; !slices.Equal(got, want) {
		t.Errorf("the snapshot holds %q, want %q", got, want)
	}
	if n := h.started("backup"); n != 1 {
		t.Errorf("restic backup was started %d times, want once", n)
	}
}

// Binding credentials is all it takes: the server makes one init by itself,
// and an operator can look at it.
func TestRepositoryIsSetUpByItself(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	r := newRestServer(t).repo(t)
	p := newPage(t)
	p.open("/hosts/" + h.id)
	p.says(p.Locator("#repository"), "None yet")
	p.mark()
	h.store(r)
	p.says(p.Locator("#repository"), "Ready")
	p.unreloaded()

	inits := h.api().jobs("kind=init&host_id=" + h.id)
	if len(inits) != 1 {
		t.Fatalf("%d init jobs, want 1: %+v", len(inits), inits)
	}
	if j := inits[0]; j.State != "succeeded" || j.ActorKind != "system" {
		t.Errorf("the init is %s by %s, want succeeded by system: %s", j.State, j.ActorKind, j.Error)
	}
	p.click(p.Locator("#recent-jobs").GetByRole(*playwright.AriaRoleLink, playwright.LocatorGetByRoleOptions{Name: "Init"}))
	p.says(p.Locator("#job [role=status]"), "Good")
	p.says(p.Locator("#job"), "started by Resticfleet itself")

	var stored struct {
		RepositoryID string `json:"repository_id"`
	}
	h.api().call("GET", "/api/hosts/"+h.id+"/repository", nil, http.StatusOK, &stored)
	if config := string(r.restic("cat", "config")); !strings.Contains(config, stored.RepositoryID) {
		t.Errorf("repository_id %q is not the repository's own: %s", stored.RepositoryID, config)
	}
	p.says(p.Locator("#job"), stored.RepositoryID[:8])
}

// A wrong password is a failure that says so, and leads to where the right one
// can be typed.
func TestWrongRepositoryPassword(t *testing.T) {
	t.Parallel()
	r := localRepo(t)
	r.initialize()
	h := newHost(t)
	wrong := *r
	wrong.password = "something else"
	h.store(&wrong)
	p := newPage(t)
	p.open("/hosts/" + h.id)
	p.says(p.Locator("#repository"), "Not set up")
	p.says(p.Locator("#repository"), "password")
	p.click(p.link("Open job"))
	p.says(p.Locator("#job [role=status]"), "Failed")
	p.says(p.Locator("#job"), "The repository refused the password")
	p.click(p.link("Enter password"))
	p.fill("Password", r.password)
	p.click(p.button("Save repository"))
	p.path("/hosts/" + h.id)
	p.mark()
	// A failure is not tried again by itself: that is the operator's to ask for.
	p.click(p.button("Set up again"))
	p.says(p.Locator("#repository"), "Ready")
	p.hidden(p.button("Set up again"))
	p.unreloaded()
	if inits := h.api().jobs("kind=init&host_id=" + h.id); len(inits) != 2 || inits[0].ActorKind != "user" {
		t.Errorf("want a failed init by system and one by user: %+v", inits)
	}
}

// paste runs a line as an operator would in a shell of that machine, with a
// state directory of its own.
func (h *host) paste(line string) {
	h.t.Helper()
	if out, err := h.shell(line); err != nil {
		h.t.Fatalf("%s: %v: %s", line, err, out)
	}
}

func (h *host) shell(line string) (string, error) {
	line = strings.ReplaceAll(line, "/var/lib/resticfleet-agent", h.stateDir())
	cmd := exec.CommandContext(h.t.Context(), "sh", "-c", line)
	cmd.Env = append(os.Environ(), "PATH="+suite.bin+string(filepath.ListSeparator)+os.Getenv("PATH"))
	out, err := cmd.CombinedOutput()
	return string(out), err
}
