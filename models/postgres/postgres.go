// Package postgres runs Resticfleet's own PostgreSQL: from the server programs
// found on the machine, on files in the data directory, reachable over a Unix
// socket only.
//
// What it guarantees: the database survives any kill of PostgreSQL or of this
// process, PostgreSQL is started again when it dies, none is left behind when
// this process ends (on Linux even by SIGKILL), two processes never work on the
// same files, and the app's role is no superuser. Its password is kept in a file
// with mode 0600 and never stands in arguments, environment or logs.
package postgres

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net/url"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
)

// ErrInUse says that another process runs the PostgreSQL of this data directory.
var ErrInUse = errors.New("another resticfleet runs the database of this data directory")

// Config says where the database lives.
type Config struct {
	// DataDir is Resticfleet's data directory; PostgreSQL gets a directory in
	// it. It is made when missing. Run by root it must let an unprivileged
	// account pass through (mode 0711), or the database goes elsewhere.
	DataDir string
	// Logger hears of starts, deaths and the place chosen; PostgreSQL's own
	// lines come at debug level. Nil discards.
	Logger *slog.Logger
	// Fast is for tests: nothing is synced to disk, so that a crash of the
	// machine, though not of a process, loses data; and the app's role may
	// create databases.
	Fast bool
}

// Server is a PostgreSQL that this process runs.
type Server struct {
	cluster cluster
	log     *slog.Logger
	url     string
	locks   []*os.File

	ready atomic.Bool
	up    chan struct{} // closed when it was ready for the first time
	died  chan error    // every death before that
	quit  chan struct{} // closed by Stop
	done  chan struct{}

	stopOnce sync.Once
	mu       sync.Mutex
	process  *os.Process // nil between a death and the next start
}

// Start starts the database of cfg.DataDir, making it first when there is
// none, and returns when it takes connections. ctx bounds the start only; the
// caller must call Stop. A process that still holds the database is waited for
// a few seconds, then the error is [ErrInUse]; without server programs it is
// [ErrNoBinaries].
func Start(ctx context.Context, cfg Config) (*Server, error) {
	s := &Server{
		log:  cfg.Logger,
		up:   make(chan struct{}),
		died: make(chan error),
		quit: make(chan struct{}),
		done: make(chan struct{}),
	}
	if s.log == nil {
		s.log = slog.New(slog.DiscardHandler)
	}
	if err := s.start(ctx, cfg); err != nil {
		s.unlock()
		return nil, fmt.Errorf("starting PostgreSQL: %w", err)
	}
	return s, nil
}

func (s *Server) start(ctx context.Context, cfg Config) error {
	dataDir, err := dataDirectory(cfg.DataDir)
	if err != nil {
		return err
	}
	if err := s.lock(ctx, filepath.Join(dataDir, "postgres.lock")); err != nil {
		return err
	}
	found, err := locate(dataDir)
	if err != nil {
		return err
	}
	major, err := found.major()
	if err != nil {
		return err
	}
	bin, err := findBinaries(ctx, major)
	if err != nil {
		return err
	}
	prepared, err := found.prepare(dataDir)
	if err != nil {
		return err
	}
	if filepath.Dir(prepared.dir) != dataDir {
		// A copied data directory points to the same place.
		if err := s.lock(ctx, prepared.lock()); err != nil {
			return err
		}
	}
	if prepared.dir != found.dir {
		s.log.WarnContext(ctx, "the database goes outside the data directory, which PostgreSQL's account can't reach",
			"database", prepared.dir, "data_dir", dataDir, "uid", prepared.acc.uid)
	}

	s.cluster = cluster{place: prepared, bin: bin, fast: cfg.Fast}
	if err := s.cluster.stopLeftover(ctx, s.log); err != nil {
		return err
	}
	password, err := s.cluster.ensure(ctx)
	if err != nil {
		return err
	}
	s.url = prepared.url(password)

	go s.supervise()
	for range maxFirstDeaths {
		select {
		case <-s.up:
			s.log.InfoContext(ctx, "own PostgreSQL is up", "database", prepared.dir, "version", bin.major, "programs", bin.dir)
			return nil
		case err = <-s.died:
		case <-ctx.Done():
			s.Stop()
			return ctx.Err()
		}
	}
	s.Stop()
	return err
}

// maxFirstDeaths is how often PostgreSQL may die before it was ever ready. The
// orphans of a killed one hold its shared memory for a moment.
const maxFirstDeaths = 5

// URL is how to connect as the app's role. It contains the password: it must
// not be logged or shown.
func (s *Server) URL() string { return s.url }

// Ready reports whether PostgreSQL took connections when last seen. It is false
// from a death until the restart is complete.
func (s *Server) Ready() bool { return s.ready.Load() }

// Dir is the directory that holds the whole database, in the data directory or,
// where that can't be reached, elsewhere.
func (s *Server) Dir() string { return s.cluster.dir }

// Done is closed when PostgreSQL has ended after Stop.
func (s *Server) Done() <-chan struct{} { return s.done }

// Open is for a program that works beside a running server: it returns the URL
// of the PostgreSQL that another process runs for this data directory, or else
// starts it. release stops what was started here.
func Open(ctx context.Context, cfg Config) (databaseURL string, release func(), err error) {
	for {
		databaseURL, err = join(ctx, cfg.DataDir)
		if err == nil {
			return databaseURL, func() {}, nil
		}
		if !errors.Is(err, errNotRunning) {
			return "", nil, fmt.Errorf("using the running PostgreSQL: %w", err)
		}
		s, err := Start(ctx, cfg)
		if errors.Is(err, ErrInUse) {
			continue // somebody was quicker
		}
		if err != nil {
			return "", nil, err
		}
		return s.URL(), s.Stop, nil
	}
}

var errNotRunning = errors.New("no process runs this database")

// join waits until the PostgreSQL that another process runs takes connections.
func join(ctx context.Context, dataDir string) (string, error) {
	dataDir, err := dataDirectory(dataDir)
	if err != nil {
		return "", err
	}
	tick := time.NewTicker(pollInterval)
	defer tick.Stop()
	for {
		lock, err := tryLock(filepath.Join(dataDir, "postgres.lock"))
		if err != nil {
			return "", err
		}
		if lock != nil {
			lock.Close()
			return "", errNotRunning
		}
		p, err := locate(dataDir)
		if err != nil {
			return "", err
		}
		// Without a password the other process is still making the database.
		if password, err := os.ReadFile(p.password()); err == nil {
			if u := p.url(string(password)); ping(ctx, u) == nil {
				return u, nil
			}
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return "", ctx.Err()
		}
	}
}

func (p place) url(password string) string {
	u := url.URL{
		Scheme: "postgres",
		User:   url.UserPassword(role, password),
		Path:   "/" + role,
		RawQuery: url.Values{
			"host": {p.socketDir()}, "port": {"5432"}, "sslmode": {"disable"},
		}.Encode(),
	}
	return u.String()
}

// ping connects once.
func ping(ctx context.Context, databaseURL string) error {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	conn, err := pgx.Connect(ctx, databaseURL)
	if err != nil {
		return err
	}
	return conn.Close(ctx)
}

// dataDirectory makes the data directory when it is missing and returns its one
// true name, so that symbolic links make no second database.
func dataDirectory(dir string) (string, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return "", err
	}
	if _, err := os.Stat(dir); errors.Is(err, fs.ErrNotExist) {
		mode := os.FileMode(0o700)
		if os.Geteuid() == 0 {
			mode = 0o711 // PostgreSQL's account passes through, and sees nothing
		}
		if err := os.MkdirAll(dir, mode); err != nil {
			return "", err
		}
		if err := os.Chmod(dir, mode); err != nil { // whatever the umask says
			return "", err
		}
	}
	return filepath.EvalSymlinks(dir)
}
