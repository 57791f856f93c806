package e2e

import (
	"crypto/rand"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"resticfleet/e2e/stage"
)

// host is a host of the fleet with an agent as a process of its own. Its
// restic is a script that writes down every start and then is the pinned one.
type host struct {
	t    testing.TB
	at   target
	id   string
	name string
	dir  string // everything of this host on this machine

	restic string // what the agent is told to run
	starts string // one line per start
	agent  *process
}

// unique names something that no other test has, also not on a server that
// was used before.
func unique(prefix string) string {
	return prefix + "-" + strings.ToLower(rand.Text()[:8])
}

// newHost adds a host to the suite's server and runs its agent.
func newHost(t testing.TB, resticArgs ...string) *host {
	t.Helper()
	return suite.target.newHost(t, resticArgs...)
}

// newHost adds a host, enrols it and runs its agent, which is linked when this
// returns. resticArgs stand before restic's own arguments at every start.
func (at target) newHost(t testing.TB, resticArgs ...string) *host {
	t.Helper()
	h := at.bareHost(t, unique("host"), resticArgs...)
	h.join()
	return h
}

// join adds the host to the fleet and runs its agent with these arguments; it
// is linked when this returns.
func (h *host) join(args ...string) {
	h.t.Helper()
	c := h.api()
	var added struct{ ID string }
	c.call("POST", "/api/hosts", map[string]any{"name": h.name}, http.StatusCreated, &added)
	h.id = added.ID
	var token struct{ Token string }
	c.call("POST", "/api/hosts/"+h.id+"/enrollment-tokens", nil, http.StatusCreated, &token)
	h.enroll(token.Token)
	h.start(args...)
	h.waitOnline()
}

// bareHost is a machine that the server doesn't know yet.
func (at target) bareHost(t testing.TB, name string, resticArgs ...string) *host {
	t.Helper()
	h := &host{t: t, at: at, name: name, dir: tempDir(t)}
	h.restic, h.starts = filepath.Join(h.dir, "restic.sh"), filepath.Join(h.dir, "restic-starts")
	h.useRestic(resticArgs...)
	if suite.server != nil && at.url == suite.server.url {
		keepLog(t, "server.log", suite.server.log)
	}
	keepLog(t, "agent-"+name+".log", h.logPath())
	t.Cleanup(h.remove)
	return h
}

// tempDir is the test's own folder, outside of its name's length: Unix sockets
// and a person's eyes like it short.
func tempDir(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp(suite.dir, "t-") //nolint:usetesting // t.TempDir is as long as the test's name
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	return dir
}

func (h *host) api() *client { return h.at.api(h.t) }

func (h *host) stateDir() string { return filepath.Join(h.dir, "state") }

func (h *host) logPath() string { return filepath.Join(h.dir, "agent.log") }

// useRestic writes the script anew; it counts from the next start on.
func (h *host) useRestic(args ...string) {
	h.t.Helper()
	quoted := make([]string, len(args))
	for i, a := range args {
		quoted[i] = "'" + strings.ReplaceAll(a, "'", `'\''`) + "'"
	}
	script := fmt.Sprintf("#!/bin/sh\nprintf '%%s\\n' \"$1\" >>'%s'\nexec '%s' %s \"$@\"\n", h.starts, suite.restic, strings.Join(quoted, " "))
	h.writeRestic(script)
}

// holdBackups writes the script anew: from the next start on a backup says a
// word, so that it counts as running, and then waits until it is let go.
func (h *host) holdBackups(args ...string) (letGo func()) {
	h.t.Helper()
	h.useRestic(args...)
	hold := filepath.Join(h.dir, "hold")
	if err := os.WriteFile(hold, nil, 0o600); err != nil {
		h.t.Fatal(err)
	}
	script, err := os.ReadFile(h.restic)
	if err != nil {
		h.t.Fatal(err)
	}
	wait := fmt.Sprintf("if [ \"$1\" = backup ]; then echo held >&2; while [ -e '%s' ]; do sleep 0.05; done; fi\nexec ", hold)
	h.writeRestic(strings.Replace(string(script), "exec ", wait, 1))
	return func() {
		if err := os.Remove(hold); err != nil {
			h.t.Error(err)
		}
	}
}

// writeRestic puts any script in restic's place, at once for every new start.
func (h *host) writeRestic(script string) {
	h.t.Helper()
	next := h.restic + ".new"
	if err := os.WriteFile(next, []byte(script), 0o755); err != nil {
		h.t.Fatal(err)
	}
	if err := os.Rename(next, h.restic); err != nil {
		h.t.Fatal(err)
	}
}

// started counts how often restic was started with this command.
func (h *host) started(command string) int {
	h.t.Helper()
	raw, err := os.ReadFile(h.starts)
	if err != nil && !os.IsNotExist(err) {
		h.t.Fatal(err)
	}
	n := 0
	for line := range strings.Lines(string(raw)) {
		if strings.TrimSpace(line) == command {
			n++
		}
	}
	return n
}

// enroll runs the agent's enrol command with a token.
func (h *host) enroll(token string) {
	h.t.Helper()
	cmd := exec.CommandContext(h.t.Context(), filepath.Join(suite.bin, "resticfleet-agent"), "enroll", "--server", h.at.url, "--state-dir", h.stateDir())
	cmd.Env = append(os.Environ(), "RESTICFLEET_TOKEN="+token)
	if out, err := cmd.CombinedOutput(); err != nil {
		h.t.Fatalf("enroll: %v: %s", err, out)
	}
}

// start runs the agent, anew after a kill.
func (h *host) start(args ...string) {
	h.t.Helper()
	args = append([]string{"run", "--state-dir", h.stateDir(), "--restic", h.restic, "--timezone", "Europe/Berlin"}, args...)
	if h.at.link != "" {
		args = append(args, "--link", h.at.link)
	}
	p, err := startProcess(h.logPath(), exec.Command(filepath.Join(suite.bin, "resticfleet-agent"), args...))
	if err != nil {
		h.t.Fatal(err)
	}
	h.agent = p
}

func (h *host) online() bool {
	var v struct{ Online bool }
	h.api().call("GET", "/api/hosts/"+h.id, nil, http.StatusOK, &v)
	return v.Online
}

func (h *host) waitOnline() {
	h.t.Helper()
	eventually(h.t, h.name+" is online", h.online)
}

// kill is kill -9 of the agent; a restic that runs goes on.
func (h *host) kill() { h.agent.kill() }

// supervisors are the processes that keep a restic of this host.
func (h *host) supervisors() []stage.Process { return running(" supervise " + h.stateDir()) }

// remove ends the agent, and what still runs on its behalf, which an agent
// leaves alone by design.
func (h *host) remove() {
	if h.agent != nil {
		if err := h.agent.stop(syscall.SIGTERM); err != nil {
			h.t.Error(err)
		}
	}
	for _, p := range h.supervisors() {
		// Stopped first: it might start restic between the look and the kill.
		_ = syscall.Kill(p.PID, syscall.SIGSTOP)
		waitFor(stopPatience, func() bool {
			return !slices.ContainsFunc(h.supervisors(), func(s stage.Process) bool { return s.PID == p.PID && s.State != "T" })
		})
		for _, below := range append(stage.Descendants(p.PID), p) {
			_ = syscall.Kill(below.PID, syscall.SIGKILL)
		}
	}
	if !waitFor(stopPatience, func() bool { return len(running(h.dir)) == 0 }) {
		h.t.Errorf("processes of %s go on: %v", h.name, running(h.dir))
	}
}

// bind stores a repository for the host, and waits until its init has ended
// well. The repository is there before: one that restic itself makes has a key
// that costs half a second at every start.
func (h *host) bind(r *repo) {
	h.t.Helper()
	r.initialize()
	h.store(r)
	h.ready()
}

// store stores a repository for the host.
func (h *host) store(r *repo) {
	h.t.Helper()
	h.api().call("PUT", "/api/hosts/"+h.id+"/repository",
		map[string]any{"url": r.url, "password": r.password, "env": r.env}, http.StatusOK, nil)
}

// ready waits for the repository's own id: the init has ended well.
func (h *host) ready() {
	h.t.Helper()
	eventually(h.t, "the repository of "+h.name+" is there", func() bool {
		var v struct {
			RepositoryID *string `json:"repository_id"`
		}
		h.api().call("GET", "/api/hosts/"+h.id+"/repository", nil, http.StatusOK, &v)
		return v.RepositoryID != nil && *v.RepositoryID != ""
	})
}

// group adds a source group and returns its id.
func (h *host) group(name string, includes []string, excludes ...string) string {
	h.t.Helper()
	var g struct{ ID string }
	h.api().call("POST", "/api/hosts/"+h.id+"/source-groups", map[string]any{
		"name": name, "tag": name, "includes": includes, "excludes": append([]string{}, excludes...), "retention": map[string]any{},
	}, http.StatusCreated, &g)
	return g.ID
}

// schedule adds a schedule and returns its id.
func (h *host) schedule(cron string, enabled bool, groups ...string) string {
	h.t.Helper()
	var s struct{ ID string }
	h.api().call("POST", "/api/hosts/"+h.id+"/schedules", map[string]any{
		"cron": cron, "enabled": enabled, "source_group_ids": groups,
	}, http.StatusCreated, &s)
	return s.ID
}

// run is Run now; it returns the job's id.
func (h *host) run(group string) string {
	h.t.Helper()
	var j job
	h.api().call("POST", "/api/hosts/"+h.id+"/source-groups/"+group+"/run", nil, http.StatusAccepted, &j)
	return j.ID
}

// maintain is Run now of forget, prune or check; it returns the job's id.
func (h *host) maintain(kind string) string {
	h.t.Helper()
	var j job
	h.api().call("POST", "/api/hosts/"+h.id+"/repo-maintenance/"+kind+"/run", nil, http.StatusAccepted, &j)
	return j.ID
}
