package e2e

import (
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// failed waits for a job's failure, which must come within a minute of its
// start, tell its code and, in words, the cause and the remedy.
func (h *host) failed(id, code string, words ...string) {
	h.t.Helper()
	j := h.api().end(id)
	if j.State != "failed" || j.ErrorCode == nil || *j.ErrorCode != code || j.snapshot() != "" {
		h.t.Errorf("%s job is %s (%v), want failed (%s): %s", j.Kind, j.State, j.ErrorCode, code, j.Error)
	}
	for _, word := range words {
		if !strings.Contains(j.Error, word) {
			h.t.Errorf("%s: the error lacks %q: %s", code, word, j.Error)
		}
	}
	if took := j.FinishedAt.Sub(*j.QueuedAt); took > time.Minute {
		h.t.Errorf("%s took %s", code, took)
	} else {
		h.t.Logf("%s after %s: %s", code, took.Round(10*time.Millisecond), j.Error)
	}
	if a := h.api().send("GET", "/jobs/"+id, nil); !strings.Contains(string(a.body), "Failed") {
		h.t.Errorf("%s: the page doesn't say so", code)
	}
}

// init waits for the host's one init.
func (h *host) init() string {
	h.t.Helper()
	var inits []job
	eventually(h.t, "an init of "+h.name, func() bool { inits = h.api().jobs("kind=init&host_id=" + h.id); return len(inits) > 0 })
	return inits[0].ID
}

func TestMissingIncludeFailsByName(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	r := localRepo(t)
	h.bind(r)
	there := writeFiles(t, h.dir+"/there", map[string]string{"a": "a"})
	missing := filepath.Join(h.dir, "not mounted")
	h.failed(h.run(h.group("docs", []string{there, missing})), "missing_include", missing, "Mount or create it")
	if n := len(r.snapshots()); n != 0 || h.started("backup") != 0 {
		t.Errorf("%d snapshots, %d starts", n, h.started("backup"))
	}
}

func TestWrongPasswordFailsEveryJobOnce(t *testing.T) {
	t.Parallel()
	r := localRepo(t)
	r.initialize()
	h := newHost(t)
	wrong := *r
	wrong.password = "not the password"
	h.store(&wrong)
	h.failed(h.init(), "wrong_password", "password")
	h.failed(h.run(h.group("docs", []string{h.dir})), "wrong_password", "password")
	if n := len(h.api().jobs("kind=init&host_id=" + h.id)); n != 1 {
		t.Errorf("%d inits: a failure was retried by itself", n)
	}
}

func TestUnreachableRepository(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := l.Addr().String()
	if err := l.Close(); err != nil { // nobody listens there any more
		t.Fatal(err)
	}
	h := newHost(t)
	r := localRepo(t)
	r.url = "rest:http://" + address + "/docs/"
	h.store(r)
	h.failed(h.init(), "repository_unreachable", address)
	h.failed(h.run(h.group("docs", []string{h.dir})), "repository_unreachable", address)
}

func TestNoRestic(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	r := localRepo(t)
	h.bind(r)
	group := h.group("docs", []string{writeFiles(t, h.dir+"/docs", map[string]string{"a": "a"})})
	if err := os.Remove(h.restic); err != nil {
		t.Fatal(err)
	}
	h.failed(h.run(group), "no_restic", "restic", "Install")
	h.useRestic() // counts at once
	if j := h.api().end(h.run(group)); j.State != "succeeded" {
		t.Errorf("with restic back it is %s: %s", j.State, j.Error)
	}
}

// The agent's own folder is on a disk of 16 MiB, mounted where only the agent
// sees it.
func TestFullDisk(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	r := localRepo(t)
	h.bind(r)
	group := h.group("docs", []string{writeFiles(t, h.dir+"/docs", map[string]string{"a": "a"})})
	h.kill()
	flags := "-m"
	if os.Getuid() != 0 {
		flags = "-Urm"
	}
	cache := filepath.Join(h.stateDir(), "cache")
	cmd := exec.Command("unshare", flags, "sh", "-c", `mount -t tmpfs -o size=16m tmpfs "$0" && exec "$@"`, cache,
		filepath.Join(suite.bin, "resticfleet-agent"), "run", "--state-dir", h.stateDir(), "--restic", h.restic)
	var err error
	if h.agent, err = startProcess(h.logPath(), cmd); err != nil {
		t.Fatal(err)
	}
	h.failed(h.run(group), "no_space", cache, "Free space")
	if n := h.started("backup"); n != 0 {
		t.Errorf("restic was started %d times", n)
	}
}
