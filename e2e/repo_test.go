package e2e

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"resticfleet/e2e/stage"
)

// repo is a repository, and restic beside the product to look into it.
type repo struct {
	t        testing.TB
	url      string
	dir      string // where it lies on this machine
	password string
	env      map[string]string
}

// localRepo is a path on this machine. It goes with the suite's folder: the test
// may end before the agent that still backs up to it.
func localRepo(t testing.TB) *repo {
	t.Helper()
	dir, err := os.MkdirTemp(suite.dir, "r-") //nolint:usetesting // see above
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "repo")
	return &repo{t: t, url: path, dir: path, password: rand.Text(), env: map[string]string{}}
}

// restic looks into the repository with the pinned restic. It takes no lock, so
// that a look never stands in the product's way.
func (r *repo) restic(args ...string) []byte {
	r.t.Helper()
	out, err := r.try(append(args, "--no-lock")...)
	if err != nil {
		r.t.Fatalf("restic %s: %v", strings.Join(args, " "), err)
	}
	return out
}

// emptyRepository is what initialize copies.
var emptyRepository = sync.OnceValues(func() (stage.Repository, error) {
	return stage.NewRepository(context.Background(), suite.restic, filepath.Join(suite.dir, "empty"), rand.Text())
})

// initialize makes the repository without the product, unless it is there.
func (r *repo) initialize() {
	r.t.Helper()
	if _, err := os.Stat(filepath.Join(r.dir, "config")); err == nil {
		return
	}
	empty, err := emptyRepository()
	if err == nil {
		err = empty.Copy(r.dir, r.password)
	}
	if err != nil {
		r.t.Fatal(err)
	}
}

func (r *repo) try(args ...string) ([]byte, error) {
	cmd := exec.CommandContext(r.t.Context(), suite.restic, append(args, "--no-cache")...)
	cmd.Env = append(os.Environ(), "RESTIC_REPOSITORY="+r.url, "RESTIC_PASSWORD="+r.password)
	for name, value := range r.env {
		cmd.Env = append(cmd.Env, name+"="+value)
	}
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		err = errors.Join(err, errors.New(stderr.String()))
	}
	return out, err
}

// snapshot is one as restic tells it.
type snapshot struct {
	ID       string    `json:"id"`
	Time     time.Time `json:"time"`
	Hostname string    `json:"hostname"`
	Paths    []string  `json:"paths"`
	Tags     []string  `json:"tags"`
	Excludes []string  `json:"excludes"`
}

// snapshots lists all of the repository, oldest first.
func (r *repo) snapshots() []snapshot {
	r.t.Helper()
	var out []snapshot
	if err := json.Unmarshal(r.restic("snapshots", "--json"), &out); err != nil {
		r.t.Fatal(err)
	}
	return out
}

// list names the files of a snapshot.
func (r *repo) list(id string) []string {
	r.t.Helper()
	var out []string
	for line := range bytes.Lines(r.restic("ls", "--json", id)) {
		var node struct {
			MessageType string `json:"message_type"`
			Type, Path  string
		}
		if err := json.Unmarshal(line, &node); err != nil {
			r.t.Fatal(err)
		}
		if node.MessageType == "node" && node.Type == "file" {
			out = append(out, node.Path)
		}
	}
	return out
}

// locks names the locks that restic left or holds.
func (r *repo) locks() []string {
	r.t.Helper()
	return strings.Fields(string(r.restic("list", "locks", "--quiet")))
}

// strandLock leaves the lock of a restic on this machine that was killed.
func (r *repo) strandLock() {
	r.t.Helper()
	cmd := exec.CommandContext(r.t.Context(), suite.restic, "backup", "--stdin", "--no-cache")
	cmd.Env = append(os.Environ(), "RESTIC_REPOSITORY="+r.url, "RESTIC_PASSWORD="+r.password)
	stdin, err := cmd.StdinPipe() // never written to: restic waits, and holds its lock
	if err != nil {
		r.t.Fatal(err)
	}
	defer stdin.Close()
	if err := cmd.Start(); err != nil {
		r.t.Fatal(err)
	}
	eventually(r.t, "restic holds its lock", func() bool { return len(r.locks()) == 1 })
	if err := cmd.Process.Kill(); err != nil {
		r.t.Fatal(err)
	}
	_ = cmd.Wait() // killed
	if len(r.locks()) != 1 {
		r.t.Fatal("the lock went with restic")
	}
}

// writeFiles writes files below dir and returns dir.
func writeFiles(t testing.TB, dir string, files map[string]string) string {
	t.Helper()
	for name, text := range files {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// noise is n bytes that no compression makes smaller.
func noise(n int) string {
	b := make([]byte, n)
	_, _ = rand.Read(b) // never fails
	return string(b)
}

// restServer is a rest-server process, open to this machine.
type restServer struct {
	address string // host:port
	dir     string
	process *process
}

func newRestServer(t testing.TB) *restServer {
	t.Helper()
	return restServerOn(t, tempDir(t))
}

// restServerOn serves what lies in a folder, perhaps beside another one with
// other rights.
func restServerOn(t testing.TB, dir string, args ...string) *restServer {
	t.Helper()
	program, err := tool(filepath.Dir(filepath.Dir(suite.results)), "rest-server")
	if err != nil {
		t.Fatal(err)
	}
	s := &restServer{dir: dir}
	log := filepath.Join(dir, unique("rest-server")+".log")
	args = append([]string{"--no-auth", "--path", filepath.Join(dir, "data"), "--listen", "127.0.0.1:0", "--log", filepath.Join(dir, unique("requests")+".log")}, args...)
	cmd := exec.Command(program, args...)
	if s.process, err = startProcess(log, cmd); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.process.stop(syscall.SIGTERM); err != nil {
			t.Error(err)
		}
	})
	if s.address, err = s.process.line("start server on ", startPatience); err != nil {
		t.Fatal(err)
	}
	return s
}

// repo is a new repository on the server.
func (s *restServer) repo(t testing.TB) *repo {
	return s.repoAt(t, s.address)
}

// repoAt is one that is reached by another address, a proxy's for instance.
func (s *restServer) repoAt(t testing.TB, address string) *repo {
	name := unique("repo")
	return &repo{t: t, url: "rest:http://" + address + "/" + name + "/", dir: filepath.Join(s.dir, "data", name), password: rand.Text(), env: map[string]string{}}
}
