package e2e

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"resticfleet/e2e/stage"
)

// canaries are secrets that stand nowhere else in the world.
type canaries []string

// in names those that data holds.
func (c canaries) in(data []byte) []string {
	var out []string
	for _, secret := range c {
		if bytes.Contains(data, []byte(secret)) {
			out = append(out, secret)
		}
	}
	return out
}

// inFiles looks through everything below dir, and counts the files that hold
// the control, which must be found.
func (c canaries) inFiles(t *testing.T, dir, control string) {
	t.Helper()
	controls := 0
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		// An agent removes files of its own while this looks: what is gone holds
		// nothing.
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		raw, err := os.ReadFile(path)
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil {
			return err
		}
		if bytes.Contains(raw, []byte(control)) {
			controls++
		}
		for _, secret := range c.in(raw) {
			t.Errorf("%s holds %s", path, secret)
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
	if controls == 0 {
		t.Errorf("looking through %s finds not even %q", dir, control)
	}
}

// inProcesses looks at what anybody on the machine may read of processes. It
// returns the pids of those whose exe is restic, or the hosts' script that is
// about to be it, and what their environment holds: the one place for a backend's
// own variables.
func (c canaries) inProcesses(t *testing.T) (restic []int, environ []byte) {
	t.Helper()
	for _, p := range stage.Processes() {
		dir := "/proc/" + strconv.Itoa(p.PID)
		exe, err := os.Readlink(dir + "/exe")
		if err != nil {
			continue // a kernel's thread, or it has ended since
		}
		args, _ := os.ReadFile(dir + "/cmdline")
		env, _ := os.ReadFile(dir + "/environ")
		for _, secret := range c.in(args) {
			t.Errorf("the arguments of %s hold %s", p.Args, secret)
		}
		if exe == suite.restic || strings.HasPrefix(p.Args, "/bin/sh "+suite.dir+"/") {
			restic, environ = append(restic, p.PID), append(environ, env...)
			continue
		}
		for _, secret := range c.in(env) {
			t.Errorf("the environment of %s holds %s", p.Args, secret)
		}
	}
	return restic, environ
}

// Secrets are where they must be and nowhere else: not in arguments and
// environments, logs, pages, API answers, the agent's files or the database.
func TestSecretsShowNowhere(t *testing.T) {
	t.Parallel()
	s := ownServer(t)
	h := s.newHost(t, slowly(2*1024)...)
	rest := newRestServer(t)
	r := rest.repo(t)
	r.password = unique("password-canary")
	r.env = map[string]string{"RESTIC_REST_USERNAME": "backup", "RESTIC_REST_PASSWORD": unique("env-canary")}
	password, env := canaries{r.password}, canaries{r.env["RESTIC_REST_PASSWORD"]}
	all := append(append(canaries{}, password...), env...)
	h.bind(r)
	second := unique("second-canary")
	all = append(all, second)
	h.api().call("PUT", "/api/hosts/"+h.id+"/repository/maintenance-credential", map[string]any{
		"url": r.url, "password": second, "env": map[string]string{"RESTIC_REST_PASSWORD": second},
	}, http.StatusOK, nil)

	docs := writeFiles(t, h.dir+"/docs", map[string]string{"a": noise(16 << 20)})
	long := h.run(h.group("docs", []string{docs}))
	h.api().state(long, "running")
	var environ []byte
	eventually(t, "restic runs", func() bool {
		var pids []int
		pids, environ = all.inProcesses(t)
		return len(pids) > 0 && len(env.in(environ)) > 0 // the control: so they are read
	})
	for _, secret := range password.in(environ) {
		t.Errorf("restic's environment holds %s", secret)
	}
	// restic itself would put its password into this pattern's error, if the
	// pattern came by a file; it would do so with any variable.
	broken := h.run(h.group("patterns", []string{docs}, "[$RESTIC_PASSWORD", "[$RESTIC_REST_PASSWORD"))
	eventually(t, "the end of both backups", func() bool {
		all.inProcesses(t)
		return h.api().job(long).ended() && h.api().job(broken).ended()
	})
	if j := h.api().job(long); j.State != "succeeded" {
		t.Errorf("the long backup is %s: %s", j.State, j.Error)
	}
	if j := h.api().job(broken); j.State != "failed" || !strings.Contains(j.Error+h.api().log(broken), "[$RESTIC") {
		t.Errorf("the broken pattern's backup is %s: %s", j.State, j.Error)
	}
	// A refusal that restic words itself.
	wrong := s.newHost(t)
	other := *r
	other.password = unique("wrong-canary")
	all = append(all, other.password)
	wrong.store(&other)
	eventually(t, "the init with a wrong password has ended", func() bool {
		inits := wrong.api().jobs("kind=init&host_id=" + wrong.id)
		return len(inits) > 0 && inits[0].ended()
	})

	for _, h := range []*host{h, wrong} {
		for _, path := range h.everyAnswer() {
			for _, htmx := range []string{"full", "partial"} {
				a := h.api().send("GET", path, nil, "HX-Request", "true", "HX-Request-Type", htmx)
				if a.status != 200 {
					t.Errorf("GET %s: %d", path, a.status)
				}
				for _, secret := range all.in(append(a.body, fmt.Sprint(a.header)...)) {
					t.Errorf("GET %s answers with %s", path, secret)
				}
			}
		}
		all.inFiles(t, h.stateDir(), h.name)
		ownersOnly(t, h.stateDir())
		all.inFiles(t, filepath.Dir(h.logPath()), "linked to the server")
	}
	all.inFiles(t, filepath.Dir(rest.process.log.Name()), "start server on")
	all.inFiles(t, filepath.Dir(s.log), "serving")
	// Stopped in order, PostgreSQL has written everything to its files.
	if err := s.stop(); err != nil {
		t.Fatal(err)
	}
	all.inFiles(t, s.dir, h.name)
	if err := s.start(); err != nil { // the agents' end is watched over it
		t.Fatal(err)
	}
}

// ownersOnly checks that nobody else can look into what an agent keeps. What
// restic makes below its cache is behind the same door.
func ownersOnly(t *testing.T, dir string) {
	t.Helper()
	files := 0
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		var info fs.FileInfo
		if err == nil {
			info, err = d.Info()
		}
		if errors.Is(err, fs.ErrNotExist) {
			return nil // the agent has removed it meanwhile
		}
		if err != nil {
			return err
		}
		switch mode := info.Mode(); {
		case mode.Type() != 0 && !mode.IsDir():
		case mode.IsDir() && mode.Perm() != 0o700, mode.IsRegular() && mode.Perm() != 0o600:
			t.Errorf("%s has mode %o", path, mode.Perm())
		case mode.IsRegular():
			files++
		}
		if d.Name() == "cache" {
			return fs.SkipDir
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
	if files < 5 {
		t.Errorf("only %d files below %s", files, dir)
	}
}

// everyAnswer is every page and every object of a host.
func (h *host) everyAnswer() []string {
	h.t.Helper()
	paths := []string{
		"/", "/hosts", "/hosts/" + h.id, "/hosts/" + h.id + "/jobs", "/hosts/" + h.id + "/repository", "/jobs",
		"/hosts/" + h.id + "/repository/maintenance", "/hosts/" + h.id + "/maintenance", "/hosts/" + h.id + "/snapshots", "/api/hosts/" + h.id + "/snapshots",
		"/api/hosts", "/api/hosts/" + h.id, "/api/hosts/" + h.id + "/repository", "/api/hosts/" + h.id + "/source-groups",
		"/api/hosts/" + h.id + "/schedules", "/api/hosts/" + h.id + "/repo-maintenance", "/api/jobs", "/metrics", "/api/openapi.json",
		"/settings/users", "/settings/tokens", "/settings/sessions", "/settings/audit",
	}
	for _, j := range h.api().jobs("host_id=" + h.id) {
		paths = append(paths, "/jobs/"+j.ID, "/api/jobs/"+j.ID, "/api/jobs/"+j.ID+"/log")
		if j.SourceGroupID != nil {
			paths = append(paths, "/hosts/"+h.id+"/source-groups/"+*j.SourceGroupID, "/api/hosts/"+h.id+"/source-groups/"+*j.SourceGroupID)
		}
	}
	return paths
}
