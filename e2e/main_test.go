// Package e2e tests the product as people get it: the built binaries, an agent
// as a process of its own, the pinned restic, and a real browser.
//
// Without settings one server with its own PostgreSQL serves all tests, which
// share nothing on it but the fleet: every test makes hosts of its own. With
// E2E_BASE_URL, E2E_USER and E2E_PASSWORD (an administrator's) the tests go to
// that server instead; those that need to look inside a server, to kill one,
// or a user of another role start one of their own (ownServer) in either case.
package e2e

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"resticfleet/e2e/stage"
)

// suite is what all tests share.
var suite struct {
	target  target
	server  *server // nil when E2E_BASE_URL names somebody else's
	dir     string  // temporary; reachable for PostgreSQL's account
	bin     string  // where resticfleet and resticfleet-agent are
	restic  string
	results string
}

// target is a server as a person sees it: an address and an administrator.
type target struct {
	url, user, password string
	session             *http.Cookie
	link                string // how its agents link; as they think best if empty
}

func TestMain(m *testing.M) {
	if code, ran := stage.UnderInit(); ran {
		os.Exit(code)
	}
	code, err := run(m)
	if err != nil {
		fmt.Fprintln(os.Stderr, "e2e:", err)
		code = 1
	}
	os.Exit(code)
}

func run(m *testing.M) (code int, err error) {
	ctx := context.Background()
	root, err := filepath.Abs("..")
	if err != nil {
		return 1, err
	}
	suite.results = filepath.Join(root, "e2e", "results")
	if suite.bin, err = binaries(ctx, root); err != nil {
		return 1, err
	}
	if suite.restic, err = tool(root, "restic"); err != nil {
		return 1, err
	}
	if suite.dir = stage.GivenTempDir(); suite.dir == "" {
		if suite.dir, err = stage.NewTempDir(); err != nil {
			return 1, err
		}
	}
	defer func() { err = errors.Join(err, os.RemoveAll(suite.dir)) }()

	suite.target = target{url: os.Getenv("E2E_BASE_URL"), user: os.Getenv("E2E_USER"), password: os.Getenv("E2E_PASSWORD")}
	if suite.target.url == "" {
		if suite.server, err = newServer(filepath.Join(suite.dir, "server")); err != nil {
			return 1, err
		}
		defer func() { err = errors.Join(err, suite.server.stop()) }()
		suite.target = suite.server.target
	}
	if suite.target.session, err = login(ctx, suite.target.url, suite.target.user, suite.target.password); err != nil {
		return 1, err
	}
	defer func() { err = errors.Join(err, browser.stop()) }()
	return m.Run(), nil
}

// binaries returns the folder of the programs under test: E2E_BIN when they
// were built already, else they are built here, without the race detector.
func binaries(ctx context.Context, root string) (string, error) {
	if dir := os.Getenv("E2E_BIN"); dir != "" {
		return filepath.Abs(dir)
	}
	dir := filepath.Join(root, "bin")
	build := exec.CommandContext(ctx, "go", "build", "-trimpath", "-buildvcs=false", "-o", dir+"/", "./cmd/resticfleet", "./cmd/resticfleet-agent")
	build.Dir = root
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build: %w\n%s", err, out)
	}
	return dir, nil
}

// tool finds a program of `make tools`.
func tool(root, name string) (string, error) {
	path := filepath.Join(root, "bin", name)
	if _, err := os.Stat(path); err == nil {
		return path, nil
	}
	path, err := exec.LookPath(name)
	if err != nil {
		return "", fmt.Errorf("%s is neither in bin/ nor in PATH: run `make tools`", name)
	}
	return path, nil
}
