package postgres_test

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"go.uber.org/goleak"

	"resticfleet/models/postgres"
)

// helperEnv makes the test binary a server process that a test can kill.
const helperEnv = "RESTICFLEET_TEST_POSTGRES_IN"

func TestMain(m *testing.M) {
	if dir := os.Getenv(helperEnv); dir != "" {
		s, err := postgres.Start(context.Background(), postgres.Config{DataDir: dir, Fast: true})
		if err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
		fmt.Println(s.URL())
		select {}
	}
	goleak.VerifyTestMain(m)
}

// reachableDir is a directory that PostgreSQL's account can pass through, which
// those of t.TempDir are not for root.
func reachableDir(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	for _, d := range []string{dir, filepath.Dir(dir)} {
		if err := os.Chmod(d, 0o711); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func start(t *testing.T, cfg postgres.Config) *postgres.Server {
	t.Helper()
	cfg.Fast = true
	s, err := postgres.Start(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		s.Stop()
		if !strings.HasPrefix(s.Dir(), cfg.DataDir) {
			if err := os.RemoveAll(s.Dir()); err != nil {
				t.Error(err)
			}
		}
	})
	return s
}

// query returns the one value that sql selects.
func query(t *testing.T, url, sql string) string {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(t.Context())
	var value string
	if err := conn.QueryRow(t.Context(), sql).Scan(&value); err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
	return value
}

// keep writes what [checkKept] looks for after a restart.
func keep(t *testing.T, url string) {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(t.Context())
	if _, err := conn.Exec(t.Context(), `CREATE TABLE kept AS SELECT 'kept'::text AS word`); err != nil {
		t.Fatal(err)
	}
}

func checkKept(t *testing.T, url string) {
	t.Helper()
	if got := query(t, url, `SELECT word FROM kept`); got != "kept" {
		t.Errorf("after the restart: %q", got)
	}
}

// eventually polls for what has no event, and fails after ten seconds.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	deadline := time.After(10 * time.Second)
	for !ok() {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("not within ten seconds: %s", what)
		}
	}
}

func postmasterPid(t *testing.T, dir string) int {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(dir, "data", "postmaster.pid"))
	if err != nil {
		return 0
	}
	first, _, _ := strings.Cut(string(text), "\n")
	pid, err := strconv.Atoi(first)
	if err != nil {
		t.Fatal(err)
	}
	return pid
}

func alive(pid int) bool { return syscall.Kill(pid, 0) == nil }

func TestStartMakesAPrivateDatabase(t *testing.T) {
	t.Parallel()
	dir := reachableDir(t)
	var logged safeBuffer
	cfg := postgres.Config{DataDir: dir, Logger: slog.New(slog.NewTextHandler(&logged, &slog.HandlerOptions{Level: slog.LevelDebug}))}
	s := start(t, cfg)

	if !s.Ready() {
		t.Error("started but not ready")
	}
	for sql, want := range map[string]string{
		`SELECT current_user::text`:                                                                "resticfleet",
		`SELECT rolsuper::text FROM pg_roles WHERE rolname = current_user`:                         "false",
		`SELECT pg_get_userbyid(datdba)::text FROM pg_database WHERE datname = current_database()`: "resticfleet",
		`SELECT current_setting('listen_addresses')`:                                               "",
		`SELECT current_setting('data_checksums')`:                                                 "on",
		`SELECT lower('ÄÖ')`:                                                                       "äö",
	} {
		if got := query(t, s.URL(), sql); got != want {
			t.Errorf("%s: %q, want %q", sql, got, want)
		}
	}

	password, err := os.ReadFile(filepath.Join(s.Dir(), "password"))
	if err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]os.FileMode{"password": 0o600, "run": 0o700 | os.ModeDir, "data": 0o700 | os.ModeDir, "": 0o700 | os.ModeDir} {
		info, err := os.Stat(filepath.Join(s.Dir(), path))
		if err != nil {
			t.Error(err)
		} else if info.Mode() != want {
			t.Errorf("%q has mode %v, want %v", path, info.Mode(), want)
		}
	}
	if _, err := os.Stat(filepath.Join(s.Dir(), "superuser")); !os.IsNotExist(err) {
		t.Errorf("initdb's password file is still there: %v", err)
	}
	if _, err := pgx.Connect(t.Context(), strings.Replace(s.URL(), string(password), "wrong", 1)); err == nil {
		t.Error("a wrong password is good enough")
	}
	if out, err := exec.Command("grep", "-rl", string(password), filepath.Join(s.Dir(), "data")).Output(); len(out) > 0 {
		t.Errorf("the database's files contain the password: %s (%v)", out, err)
	}
	if out, err := exec.Command("ps", "axeww").Output(); err != nil || bytes.Contains(out, password) {
		t.Errorf("a process shows the password (or ps failed: %v)", err)
	}

	s.Stop()
	s.Stop()
	if s.Ready() {
		t.Error("stopped and still ready")
	}
	if strings.Contains(logged.String(), string(password)) {
		t.Error("the log contains the password")
	}
	if !strings.Contains(logged.String(), "is up") {
		t.Errorf("the log says nothing of the start: %s", logged.String())
	}

	// A lost password file is no lost database.
	if err := os.Remove(filepath.Join(s.Dir(), "password")); err != nil {
		t.Fatal(err)
	}
	again := start(t, cfg)
	if again.URL() == s.URL() {
		t.Error("the password file was removed, the password stayed")
	}
	query(t, again.URL(), `SELECT 'hello'`)
}

func TestItComesBackAfterAKill(t *testing.T) {
	t.Parallel()
	s := start(t, postgres.Config{DataDir: reachableDir(t)})
	keep(t, s.URL())
	first := postmasterPid(t, s.Dir())

	if err := syscall.Kill(first, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	eventually(t, "not ready after the kill", func() bool { return !s.Ready() })
	eventually(t, "ready again", s.Ready)
	checkKept(t, s.URL())
	if second := postmasterPid(t, s.Dir()); second == first {
		t.Error("still the same process")
	}
}

func TestAKilledServerLeavesNothingBehindAndRecovers(t *testing.T) {
	t.Parallel()
	dir := reachableDir(t)
	helper := exec.Command(os.Args[0])
	helper.Env = append(os.Environ(), helperEnv+"="+dir)
	out, err := helper.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := helper.Start(); err != nil {
		t.Fatal(err)
	}
	url, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	url = strings.TrimSpace(url)
	keep(t, url)
	pid := postmasterPid(t, filepath.Join(dir, "postgres"))

	// A second program works beside it.
	beside, release, err := postgres.Open(t.Context(), postgres.Config{DataDir: dir, Fast: true})
	if err != nil {
		t.Fatal(err)
	}
	release()
	if beside != url {
		t.Errorf("another database beside the running one")
	}

	if err := helper.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = helper.Wait()
	if runtime.GOOS == "linux" {
		eventually(t, "PostgreSQL follows its killed server", func() bool { return !alive(pid) })
	}
	s := start(t, postgres.Config{DataDir: dir})
	checkKept(t, s.URL())
}

func TestOpenStartsWhatDoesNotRun(t *testing.T) {
	t.Parallel()
	url, release, err := postgres.Open(t.Context(), postgres.Config{DataDir: reachableDir(t), Fast: true})
	if err != nil {
		t.Fatal(err)
	}
	query(t, url, `SELECT 'hello'`)
	release()
	if conn, err := pgx.Connect(t.Context(), url); err == nil {
		conn.Close(t.Context())
		t.Error("released and still running")
	}
}

func TestAFolderNobodyElseCanEnter(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "checkout", "data") // below a folder with mode 0700
	var logged safeBuffer
	cfg := postgres.Config{DataDir: dir, Logger: slog.New(slog.NewTextHandler(&logged, nil))}
	s := start(t, cfg)
	keep(t, s.URL())
	if os.Geteuid() == 0 {
		if strings.HasPrefix(s.Dir(), dir) {
			t.Errorf("root's PostgreSQL works in %s", s.Dir())
		}
		if !strings.Contains(logged.String(), s.Dir()) {
			t.Errorf("the log does not name %s: %s", s.Dir(), logged.String())
		}
	} else if !strings.HasPrefix(s.Dir(), dir) {
		t.Errorf("a user's own PostgreSQL works in %s", s.Dir())
	}

	s.Stop()
	again := start(t, cfg)
	if again.Dir() != s.Dir() {
		t.Errorf("was in %s, now in %s", s.Dir(), again.Dir())
	}
	checkKept(t, again.URL())
}

func TestALongPath(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(reachableDir(t), strings.Repeat("x", 120))
	s := start(t, postgres.Config{DataDir: dir})
	query(t, s.URL(), `SELECT 'hello'`)
}

func TestALostPlaceIsNotReplacedByAnEmptyDatabase(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	err := os.WriteFile(filepath.Join(dir, "postgres.location"), []byte(filepath.Join(dir, "gone")+"\n"), 0o600)
	if err != nil {
		t.Fatal(err)
	}
	_, err = postgres.Start(t.Context(), postgres.Config{DataDir: dir, Fast: true})
	if err == nil || !strings.Contains(err.Error(), "Bring it back") {
		t.Errorf("error %v does not say what to do", err)
	}
}

func TestTwoServersOnOneDirectory(t *testing.T) {
	t.Parallel()
	dir := reachableDir(t)
	start(t, postgres.Config{DataDir: dir})
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	_, err := postgres.Start(ctx, postgres.Config{DataDir: dir, Fast: true})
	if !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("a second one: %v", err)
	}
}

// Not parallel: the environment is the process's.
func TestNoPrograms(t *testing.T) {
	empty := t.TempDir()
	t.Setenv(postgres.BinDirEnv, empty)
	_, err := postgres.Start(t.Context(), postgres.Config{DataDir: filepath.Join(empty, "data")})
	if !errors.Is(err, postgres.ErrNoBinaries) {
		t.Fatalf("error is %v", err)
	}
	for _, remedy := range []string{"apt-get install postgresql", "--database-url"} {
		if !strings.Contains(err.Error(), remedy) {
			t.Errorf("%v does not name %s", err, remedy)
		}
	}

	t.Setenv(postgres.BinDirEnv, "")
	dir := reachableDir(t)
	data := filepath.Join(dir, "postgres", "data")
	if err := os.MkdirAll(data, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(data, "PG_VERSION"), []byte("9\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	_, err = postgres.Start(t.Context(), postgres.Config{DataDir: dir})
	if !errors.Is(err, postgres.ErrNoBinaries) || !strings.Contains(err.Error(), "postgresql-9") {
		t.Errorf("another version's files: %v", err)
	}
}

// safeBuffer is written by PostgreSQL's output while a test reads it.
type safeBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *safeBuffer) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *safeBuffer) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}
