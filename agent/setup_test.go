package agent

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"

	"resticfleet/agent/protocol"
	"resticfleet/e2e/stage"
)

const testPassword = "canary-pass-7Q"

// resticPath finds the pinned restic: RESTICFLEET_TEST_RESTIC, else bin/restic.
func resticPath(t testing.TB) string {
	t.Helper()
	path := os.Getenv("RESTICFLEET_TEST_RESTIC")
	if path == "" {
		abs, err := filepath.Abs("../bin/restic")
		if err != nil {
			t.Fatal(err)
		}
		path = abs
	}
	if _, err := os.Stat(path); err != nil {
		t.Fatalf("the pinned restic is missing: %v; run `make tools`", err)
	}
	return path
}

// bundle is a host as a test sees it: an agent's state, a repository, a source.
type bundle struct {
	t        testing.TB
	dir      string
	state    string
	repo     string
	source   string
	restic   string
	private  []byte
	public   []byte
	password string
	env      map[string]string
	minFree  uint64 // 0: the runner's default

	changes chan struct{}
	runner  *Runner
}

func setup(t testing.TB) *bundle {
	t.Helper()
	private, public, err := protocol.NewKey()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	b := &bundle{
		t: t, dir: dir, state: filepath.Join(dir, "state"), repo: filepath.Join(dir, "repo"),
		source: filepath.Join(dir, "source"), restic: resticPath(t), private: private, public: public,
		password: testPassword, changes: make(chan struct{}, 1),
	}
	b.write("source/a.txt", "alpha")
	b.write("source/sub/b.txt", "beta")
	return b
}

func (b *bundle) write(name, content string) string {
	b.t.Helper()
	path := filepath.Join(b.dir, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		b.t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		b.t.Fatal(err)
	}
	return path
}

// config is the runner's, quick enough for tests.
func (b *bundle) config() RunnerConfig {
	self, err := os.Executable()
	if err != nil {
		b.t.Fatal(err)
	}
	return RunnerConfig{
		StateDir: b.state, Restic: b.restic, Self: self,
		Key:           func() ([]byte, error) { return b.private, nil },
		Changed:       func(string) { b.poke() },
		TailEvery:     20 * time.Millisecond,
		MinFreeBytes:  b.minFree,
		MinFreeInodes: 10,
	}
}

func (b *bundle) poke() {
	select {
	case b.changes <- struct{}{}:
	default:
	}
}

// start runs an agent on the bundle's state until the test's end or stop.
func (b *bundle) start(change ...func(*RunnerConfig)) *Runner {
	b.t.Helper()
	cfg := b.config()
	for _, c := range change {
		c(&cfg)
	}
	r, err := NewRunner(cfg)
	if err != nil {
		b.t.Fatal(err)
	}
	b.t.Cleanup(r.Stop)
	if err := r.Resume(); err != nil {
		b.t.Fatal(err)
	}
	b.runner = r
	return r
}

// run makes a command with secrets sealed to the bundle's key.
func (b *bundle) run(kind string) protocol.Run {
	b.t.Helper()
	run := protocol.Run{
		JobID: uuid.NewString(), Kind: kind, Attempt: 1, ResticHost: "test-host",
		Repository: protocol.Repository{URL: b.repo},
	}
	if kind == protocol.KindBackup {
		run.Includes, run.Tag = []string{b.source}, "group"
	}
	b.seal(&run)
	return run
}

func (b *bundle) seal(run *protocol.Run) {
	b.t.Helper()
	sealed, err := protocol.SealSecrets(b.public, run.JobID, protocol.Secrets{Password: b.password, Env: b.env})
	if err != nil {
		b.t.Fatal(err)
	}
	run.Repository.Sealed = sealed
}

func (b *bundle) accept(run protocol.Run) {
	b.t.Helper()
	if _, err := b.runner.Accept(run); err != nil {
		b.t.Fatal(err)
	}
}

// until waits for a state of affairs, looking again at each change.
func (b *bundle) until(what string, met func() bool) {
	b.t.Helper()
	timeout := time.NewTimer(60 * time.Second)
	defer timeout.Stop()
	again := time.NewTicker(20 * time.Millisecond)
	defer again.Stop()
	for !met() {
		select {
		case <-b.changes:
		case <-again.C:
		case <-timeout.C:
			b.t.Fatalf("waited in vain until %s; jobs: %+v", what, b.pending())
		}
	}
}

// result waits for a job's end.
func (b *bundle) result(jobID string) protocol.Finished {
	b.t.Helper()
	var result *protocol.Finished
	b.until("job "+jobID+" has ended", func() bool {
		s, ok := b.runner.Status(jobID)
		if !ok {
			b.t.Fatalf("job %s is unknown", jobID)
		}
		result = s.Result
		return result != nil
	})
	return *result
}

func (b *bundle) do(run protocol.Run) protocol.Finished {
	b.t.Helper()
	b.accept(run)
	return b.result(run.JobID)
}

// initialised makes the repository through a job, and gives its id.
func (b *bundle) initialised() string {
	b.t.Helper()
	end := b.do(b.run(protocol.KindInit))
	if end.Outcome != protocol.OutcomeSucceeded || end.RepositoryID == "" {
		b.t.Fatalf("init: %+v", end)
	}
	return end.RepositoryID
}

// template is an empty repository with testPassword, made once, with a key that
// is quick to derive: that is what takes restic long.
var template = sync.OnceValues(func() (stage.Repository, error) {
	var none stage.Repository
	dir, err := os.MkdirTemp("", "resticfleet-test-")
	if err != nil {
		return none, err
	}
	path := os.Getenv("RESTICFLEET_TEST_RESTIC")
	if path == "" {
		if path, err = filepath.Abs("../bin/restic"); err != nil {
			return none, err
		}
	}
	ctx, stop := context.WithTimeout(context.Background(), time.Minute)
	defer stop()
	return stage.NewRepository(ctx, path, filepath.Join(dir, "repo"), testPassword)
})

// repository puts an empty repository in its place without a job.
func (b *bundle) repository() {
	b.t.Helper()
	empty, err := template()
	if err != nil {
		b.t.Fatal(err)
	}
	if err := empty.Copy(b.repo, testPassword); err != nil {
		b.t.Fatal(err)
	}
}

// text is a job's whole log.
func (b *bundle) text(jobID string) string {
	b.t.Helper()
	var all strings.Builder
	for _, l := range b.lines(jobID) {
		fmt.Fprintf(&all, "%d %s %s\n", l.Seq, l.Level, l.Text)
	}
	return all.String()
}

// lines is a job's log, in batches as the outbox takes them; it checks that
// the numbers have no gap.
func (b *bundle) lines(jobID string) []protocol.LogLine {
	b.t.Helper()
	var all []protocol.LogLine
	for {
		batch, err := b.runner.Log(jobID, int64(len(all)), 4<<10)
		if err != nil {
			b.t.Fatal(err)
		}
		if len(batch) == 0 {
			return all
		}
		for _, l := range batch {
			if l.Seq != int64(len(all))+1 {
				b.t.Fatalf("log line %d stands at place %d", l.Seq, len(all)+1)
			}
			all = append(all, l)
		}
	}
}

// ask runs restic itself on the repository, as a person would.
func (b *bundle) ask(args ...string) string {
	b.t.Helper()
	ctx, stop := context.WithTimeout(context.Background(), time.Minute)
	defer stop()
	cmd := exec.CommandContext(ctx, resticPath(b.t), args...)
	cmd.Env = append(os.Environ(), "RESTIC_PASSWORD="+b.password, "RESTIC_REPOSITORY="+b.repo, "RESTIC_CACHE_DIR="+filepath.Join(b.dir, "own-cache"))
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		b.t.Fatalf("restic %v: %v\n%s", args, err, stderr.Bytes())
	}
	return string(out)
}

type snapshot struct {
	ID       string   `json:"id"`
	Parent   string   `json:"parent"`
	Hostname string   `json:"hostname"`
	Paths    []string `json:"paths"`
	Tags     []string `json:"tags"`
	Excludes []string `json:"excludes"`
}

func (b *bundle) snapshots() []snapshot {
	b.t.Helper()
	var all []snapshot
	if err := json.Unmarshal([]byte(b.ask("snapshots", "--json", "--no-lock")), &all); err != nil {
		b.t.Fatal(err)
	}
	return all
}

// script puts a program in restic's place. In it, $RESTIC is the real one and
// $DIR the bundle's folder. `restic version` is answered without it.
func (b *bundle) script(body string) {
	b.t.Helper()
	path := b.write("restic-"+uuid.NewString()[:8], fmt.Sprintf(`#!/bin/sh
RESTIC=%q DIR=%q
if [ "$1" = version ]; then exec "$RESTIC" version; fi
%s
`, resticPath(b.t), b.dir, body))
	if err := os.Chmod(path, 0o700); err != nil {
		b.t.Fatal(err)
	}
	b.restic = path
}

// count is how often a script has written a line into a file.
func (b *bundle) count(name string) int {
	raw, err := os.ReadFile(filepath.Join(b.dir, name))
	if err != nil {
		return 0
	}
	return strings.Count(string(raw), "\n")
}

func (b *bundle) exists(name string) bool { return exists(filepath.Join(b.dir, name)) }

// settled waits for what another process does, with no runner of ours.
func (b *bundle) settled(met func() bool) {
	b.t.Helper()
	timeout := time.NewTimer(60 * time.Second)
	defer timeout.Stop()
	again := time.NewTicker(20 * time.Millisecond)
	defer again.Stop()
	for !met() {
		select {
		case <-again.C:
		case <-timeout.C:
			b.t.Fatal("waited in vain")
		}
	}
}

func (b *bundle) runDirOf(jobID string) runDir {
	return runDir(filepath.Join(b.state, "run", jobID))
}

func (b *bundle) pending() []JobStatus {
	if b.runner == nil {
		return nil
	}
	return b.runner.Pending()
}
