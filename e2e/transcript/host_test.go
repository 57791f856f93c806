package transcript

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"resticfleet/agent"
	"resticfleet/agent/transport"
	"resticfleet/e2e/stage"
)

const password = "canary-pass-7Q"

// patience is how long anything may take on a busy machine.
const patience = time.Minute

// wrapper stands between an agent and restic, so that a backup can be held
// where it has told of progress and read nothing yet.
const wrapper = `#!/bin/sh
if [ "$1" = backup ] && [ -e %[1]q ]; then
  echo '{"message_type":"status","percent_done":0.25,"total_files":2,"files_done":1,"total_bytes":9,"bytes_done":5,"current_files":["/held"]}'
  while [ -e %[1]q ]; do sleep 0.02; done
fi
exec %[2]q "$@"
`

// host is a machine with something to back up, and perhaps an agent.
type host struct {
	t   *testing.T
	dir string // $DIR: source, repo, state
	log *os.File
}

// newHost makes one; template is an empty repository to begin with, "" for
// none.
func newHost(t *testing.T, template string) *host {
	t.Helper()
	h := &host{t: t, dir: t.TempDir()}
	h.write("source/a.txt", "alpha", 0o600)
	h.write("source/b.txt", "beta", 0o600)
	h.write("restic", fmt.Sprintf(wrapper, h.path("hold"), resticPath(t)), 0o700)
	if template != "" {
		if err := os.CopyFS(h.path("repo"), os.DirFS(template)); err != nil {
			t.Fatal(err)
		}
	}
	var err error
	if h.log, err = os.Create(h.path("agent.log")); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = h.log.Close()
		if text, err := os.ReadFile(h.log.Name()); err == nil && t.Failed() {
			t.Logf("the agent's log:\n%s", text)
		}
	})
	return h
}

func resticPath(t *testing.T) string {
	t.Helper()
	path, err := filepath.Abs("../../bin/restic")
	if err == nil {
		_, err = os.Stat(path)
	}
	if err != nil {
		t.Fatalf("the pinned restic is missing: %v; run `make tools`", err)
	}
	return path
}

// emptyRepository makes what newHost copies.
func emptyRepository(t *testing.T) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "repo")
	ctx, stop := context.WithTimeout(t.Context(), patience)
	defer stop()
	if _, err := stage.NewRepository(ctx, resticPath(t), dir, password); err != nil {
		t.Fatal(err)
	}
	return dir
}

func (h *host) path(name string) string { return filepath.Join(h.dir, name) }

func (h *host) write(name, content string, mode fs.FileMode) {
	h.t.Helper()
	path := h.path(name)
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		h.t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(content), mode); err != nil {
		h.t.Fatal(err)
	}
}

// do is the host's half of a "do" line: backups that begin while it holds wait
// for release.
func (h *host) do(action object) {
	h.t.Helper()
	switch text(action, "action") {
	case "hold":
		h.write("hold", "", 0o600)
	case "release":
		if err := os.Remove(h.path("hold")); err != nil {
			h.t.Fatal(err)
		}
	}
}

func (h *host) enrol(server, token string) {
	h.t.Helper()
	_, err := agent.Enroll(h.t.Context(), agent.Enrollment{
		Server: server, Token: token, StateDir: h.path("state"), Version: "test", Timezone: "Europe/Berlin",
	})
	if err != nil {
		h.t.Fatal(err)
	}
}

// run runs the host's agent until stop.
func (h *host) run() (stop func()) {
	h.t.Helper()
	self, err := os.Executable()
	if err != nil {
		h.t.Fatal(err)
	}
	a, err := agent.New(agent.Options{
		StateDir: h.path("state"), Version: "test", Timezone: "Europe/Berlin", BootID: "boot",
		Logger:  slog.New(slog.NewTextHandler(h.log, nil)),
		Backoff: transport.Backoff{Base: 5 * time.Millisecond, Cap: 50 * time.Millisecond},
		Runner:  agent.RunnerConfig{Restic: h.path("restic"), Self: self, TailEvery: 20 * time.Millisecond, MinFreeInodes: 10},
	})
	if err != nil {
		h.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.WithoutCancel(h.t.Context()))
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := a.Run(ctx); err != nil {
			h.t.Errorf("Run: %v", err)
		}
	}()
	stop = sync.OnceFunc(func() { cancel(); <-done })
	h.t.Cleanup(func() {
		// A backup that is still held would outlive its agent, as it should.
		if err := os.Remove(h.path("hold")); err != nil && !errors.Is(err, fs.ErrNotExist) {
			h.t.Error(err)
		}
		stop()
	})
	return stop
}

// bearer is how agents of version 1 show their credential.
func bearer(token string) http.Header { return http.Header{"Authorization": {"Bearer " + token}} }
