package chaos

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"sync"
	"testing"
	"time"

	"resticfleet/e2e/stage"
)

var (
	seed  = flag.Uint64("chaos.seed", 1, "the plan of TestRandomKills; 0 draws one and prints it")
	kills = flag.Int("chaos.kills", 6, "how many kills TestRandomKills does")
)

// suite is what all tests share: it is made by the first that asks.
var suite struct {
	dir  string
	once sync.Once
	err  error

	bin, restic, restServer string
	empty                   stage.Repository
}

const password = "8hBq2LxW0f"

func TestMain(m *testing.M) {
	if code, ran := stage.UnderInit(); ran {
		os.Exit(code)
	}
	if suite.dir = stage.GivenTempDir(); suite.dir == "" {
		var err error
		if suite.dir, err = stage.NewTempDir(); err != nil {
			fmt.Fprintln(os.Stderr, "chaos:", err)
			os.Exit(1)
		}
	}
	code := m.Run()
	if err := os.RemoveAll(suite.dir); err != nil {
		fmt.Fprintln(os.Stderr, "chaos:", err)
		code = max(code, 1)
	}
	os.Exit(code)
}

// programs builds what is killed, once.
func programs(t testing.TB) {
	t.Helper()
	if runtime.GOOS != "linux" {
		t.Skip("who lives and who holds what is read from /proc")
	}
	suite.once.Do(func() { suite.err = makePrograms(context.WithoutCancel(t.Context())) })
	if suite.err != nil {
		t.Fatal(suite.err)
	}
}

func makePrograms(ctx context.Context) error {
	root, err := filepath.Abs("../..")
	if err != nil {
		return err
	}
	suite.bin = filepath.Join(suite.dir, "bin")
	build := exec.CommandContext(ctx, "go", "build", "-tags", "failpoints", "-trimpath", "-buildvcs=false", "-ldflags=-s -w",
		"-o", suite.bin+"/", "./cmd/resticfleet", "./cmd/resticfleet-agent")
	build.Dir, build.Env = root, append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		return fmt.Errorf("build: %w\n%s", err, out)
	}
	for name, path := range map[string]*string{"restic": &suite.restic, "rest-server": &suite.restServer} {
		*path = filepath.Join(root, "bin", name)
		if _, err := os.Stat(*path); err != nil {
			return fmt.Errorf("%w: run `make tools`", err)
		}
	}
	suite.empty, err = stage.NewRepository(ctx, suite.restic, filepath.Join(suite.dir, "empty"), password)
	return err
}

// restic looks into a repository beside the product.
func restic(ctx context.Context, repository string, args ...string) ([]byte, error) {
	cmd := exec.CommandContext(ctx, suite.restic, append(args, "--no-cache")...)
	cmd.Env = append(os.Environ(), "RESTIC_REPOSITORY="+repository, "RESTIC_PASSWORD="+password)
	out, err := cmd.Output()
	var ended *exec.ExitError
	if errors.As(err, &ended) {
		err = fmt.Errorf("restic %s: %w: %s", args[0], err, ended.Stderr)
	}
	return out, err
}

// patience is how long anything may take on a busy machine.
const patience = 2 * time.Minute

// eventually waits until ok, which must be cheap and safe to repeat.
func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	if !within(patience, ok) {
		t.Fatalf("not within %s: %s", patience, what)
	}
}

func within(patience time.Duration, ok func() bool) bool {
	over := time.NewTimer(patience)
	defer over.Stop()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-tick.C:
		case <-over.C:
			return ok()
		}
	}
	return true
}
