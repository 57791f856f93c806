package e2e

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// server is a `resticfleet serve` with its own PostgreSQL. It keeps its
// address over a restart, as agents and browsers know it by that.
type server struct {
	target
	dir  string // --data-dir
	log  string // its output over all restarts
	args []string

	process *process
}

// startPatience is how long a server may take to its first line: it makes a
// PostgreSQL cluster first, on a machine that is busy with other tests.
const startPatience = time.Minute

// newServer starts one with an administrator. Args are further flags of serve.
func newServer(dir string, args ...string) (*server, error) {
	s := &server{dir: dir, log: dir + ".log", args: args}
	s.user, s.password = "admin", "correct horse battery"
	if err := s.start(); err != nil {
		return nil, err
	}
	if err := s.addUser(s.user, "admin", s.password); err != nil {
		return nil, errors.Join(err, s.stop())
	}
	return s, nil
}

// ownServer is a server for one test alone, which may do to it what it likes.
// It is stopped at the end, and its log kept when the test failed.
func ownServer(t *testing.T, args ...string) *server {
	t.Helper()
	s := bareServer(t, args...)
	if err := s.addUser(s.user, "admin", s.password); err != nil {
		t.Fatal(err)
	}
	var err error
	if s.session, err = login(t.Context(), s.url, s.user, s.password); err != nil {
		t.Fatal(err)
	}
	return s
}

// bareServer is an ownServer that nobody has set up yet.
func bareServer(t *testing.T, args ...string) *server {
	t.Helper()
	dir, err := os.MkdirTemp(suite.dir, "own-") //nolint:usetesting // PostgreSQL's account has to pass through
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(dir, 0o711); err != nil {
		t.Fatal(err)
	}
	s := &server{dir: filepath.Join(dir, "server"), log: filepath.Join(dir, "server.log"), args: args}
	s.user, s.password = "admin", "correct horse battery"
	keepLog(t, "server.log", s.log)
	if err := s.start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.stop(); err != nil {
			t.Error(err)
		}
	})
	return s
}

// start begins to serve, and returns when requests are answered.
func (s *server) start() error {
	if err := os.MkdirAll(s.dir, 0o711); err != nil {
		return err
	}
	listen := "127.0.0.1:0"
	if u, err := url.Parse(s.url); err == nil && u.Host != "" {
		listen = u.Host
	}
	args := append([]string{"serve", "--listen", listen, "--data-dir", s.dir}, s.args...)
	p, err := startProcess(s.log, exec.Command(filepath.Join(suite.bin, "resticfleet"), args...))
	if err != nil {
		return err
	}
	s.process = p
	if s.url, err = p.line("Dashboard: ", startPatience); err != nil {
		p.kill()
		return err
	}
	return nil
}

// kill is kill -9 of the server alone; its PostgreSQL is left to itself.
func (s *server) kill() { s.process.kill() }

// stop ends the server in order. One that was killed and not started again is
// started for it, so that its PostgreSQL ends too.
func (s *server) stop() error {
	if s.process.ended() && !s.process.cmd.ProcessState.Success() {
		if err := s.start(); err != nil {
			return err
		}
	}
	return s.process.stop(syscall.SIGTERM)
}

// command runs one of the program's short commands beside the server.
func (s *server) command(input string, args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), startPatience)
	defer cancel()
	cmd := exec.CommandContext(ctx, filepath.Join(suite.bin, "resticfleet"), append(args, "--data-dir", s.dir)...)
	cmd.Stdin = strings.NewReader(input)
	out, err := cmd.CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("resticfleet %s: %w: %s", strings.Join(args, " "), err, out)
	}
	return strings.TrimSpace(string(out)), nil
}

func (s *server) addUser(name, role, password string) error {
	_, err := s.command(password+"\n", "user", "add", name, "--role", role)
	return err
}

// as is the same server for another user.
func (s *server) as(t *testing.T, name, role string) target {
	t.Helper()
	u := target{url: s.url, user: name, password: "a password of " + name}
	if err := s.addUser(name, role, u.password); err != nil {
		t.Fatal(err)
	}
	var err error
	if u.session, err = login(t.Context(), u.url, u.user, u.password); err != nil {
		t.Fatal(err)
	}
	return u
}
