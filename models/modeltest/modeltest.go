// Package modeltest gives tests a real PostgreSQL: one throw-away server per
// test binary, started by the first test that asks, and a database of its own
// for every test, cloned from a template that was migrated once.
//
// A package whose tests use it says so in one place:
//
//	func TestMain(m *testing.M) { modeltest.Main(m) }
package modeltest

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"net/url"
	"os"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/jackc/pgx/v5"
	"go.uber.org/goleak"

	"resticfleet/models/postgres"
)

// Main runs a package's tests, stops the server, fails the package when
// goroutines are left, and exits. When the process is killed instead,
// PostgreSQL follows it.
func Main(m *testing.M, options ...goleak.Option) {
	code := m.Run()
	if err := theServer.stop(); err != nil {
		fmt.Fprintln(os.Stderr, "stopping the tests' PostgreSQL:", err)
		code = max(code, 1)
	}
	if code == 0 {
		if err := goleak.Find(options...); err != nil {
			fmt.Fprintln(os.Stderr, "after the tests:", err)
			code = 1
		}
	}
	os.Exit(code)
}

// Database returns the URL of a database that nobody else uses, made by migrate
// and dropped after the test. migrate runs once for each version: two calls with
// the same version must mean the same schema. It is given an empty database and
// must leave no connection open.
func Database(t testing.TB, version string, migrate func(ctx context.Context, databaseURL string) error) string {
	t.Helper()
	s, err := theServer.start()
	if err != nil {
		t.Fatalf("%v", err)
	}
	template, err := theServer.template(version, migrate)
	if err != nil {
		t.Fatalf("making the template database: %v", err)
	}
	name := fmt.Sprintf("test_%d", theServer.clones.Add(1))
	if err := execute(s.URL(), "CREATE DATABASE "+name+" TEMPLATE "+template); err != nil {
		t.Fatalf("cloning the template database: %v", err)
	}
	t.Cleanup(func() {
		// FORCE: a test that ends early leaves connections behind. One that
		// never closes them is found by its goroutines.
		if err := execute(s.URL(), "DROP DATABASE "+name+" WITH (FORCE)"); err != nil {
			t.Errorf("dropping the test's database: %v", err)
		}
	})
	return databaseURL(s, name)
}

// Empty returns the URL of a database without any schema, dropped after the
// test.
func Empty(t testing.TB) string {
	t.Helper()
	return Database(t, "", func(context.Context, string) error { return nil })
}

// server is the test binary's PostgreSQL, started when first asked for.
type server struct {
	once sync.Once
	run  *postgres.Server
	dir  string
	err  error

	clones    atomic.Int64
	mu        sync.Mutex
	templates map[string]func() error // by database name
}

// The tests of a package share one process, and nothing but this could hand
// the server from the first of them to Main.
var theServer server

func (s *server) start() (*postgres.Server, error) {
	s.once.Do(func() {
		if s.dir, s.err = os.MkdirTemp("", "resticfleet-test-"); s.err != nil {
			return
		}
		// Run by root, PostgreSQL's own account has to pass through.
		if s.err = os.Chmod(s.dir, 0o711); s.err != nil {
			return
		}
		s.run, s.err = postgres.Start(context.Background(), postgres.Config{DataDir: s.dir, Fast: true})
	})
	return s.run, s.err
}

func (s *server) stop() error {
	s.once.Do(func() {}) // from here on it would be too late to start
	var err error
	if s.run != nil {
		s.run.Stop()
		err = os.RemoveAll(s.run.Dir())
	}
	if s.dir != "" {
		err = errors.Join(err, os.RemoveAll(s.dir))
	}
	return err
}

// template returns the name of the database that migrate made for version. The
// first to ask makes it, the others wait.
func (s *server) template(version string, migrate func(ctx context.Context, databaseURL string) error) (string, error) {
	sum := sha256.Sum256([]byte(version))
	name := "template_" + hex.EncodeToString(sum[:8])
	s.mu.Lock()
	if s.templates == nil {
		s.templates = make(map[string]func() error)
	}
	made, ok := s.templates[name]
	if !ok {
		made = sync.OnceValue(func() error {
			if err := execute(s.run.URL(), "CREATE DATABASE "+name); err != nil {
				return err
			}
			return migrate(context.Background(), databaseURL(s.run, name))
		})
		s.templates[name] = made
	}
	s.mu.Unlock()
	return name, made()
}

// execute runs one statement, which can't be run inside a transaction, in the
// server's own database. A test's context would be over in its cleanup.
func execute(databaseURL, statement string) error {
	ctx := context.Background()
	conn, err := pgx.Connect(ctx, databaseURL)
	if err != nil {
		return err
	}
	defer conn.Close(ctx)
	_, err = conn.Exec(ctx, statement)
	return err
}

func databaseURL(s *postgres.Server, name string) string {
	u, err := url.Parse(s.URL())
	if err != nil {
		panic(err) // made by url.URL.String
	}
	u.Path = "/" + name
	return u.String()
}
