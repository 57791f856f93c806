package postgres

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

const (
	// pollInterval is how often we look at what PostgreSQL has no event for.
	pollInterval = 25 * time.Millisecond
	// A death is followed by a pause that doubles up to maxPause; a run longer
	// than goodRun starts it anew.
	minPause, maxPause = 100 * time.Millisecond, 10 * time.Second
	goodRun            = time.Minute
)

// endings are what a PostgreSQL is sent until it ends, each with the patience
// shown after it: fast shutdown, immediate shutdown, death.
var endings = []struct {
	signal   syscall.Signal
	patience time.Duration
}{
	{syscall.SIGINT, 30 * time.Second},
	{syscall.SIGQUIT, 10 * time.Second},
	{syscall.SIGKILL, 10 * time.Second},
}

// supervise keeps one PostgreSQL running until Stop. It never leaves its
// thread: see sysProcAttr.
func (s *Server) supervise() {
	runtime.LockOSThread()
	defer close(s.done)
	pause := minPause
	for {
		began := time.Now()
		err := s.runOnce()
		select {
		case <-s.quit:
			return
		default:
		}
		select {
		case <-s.up:
			s.log.Error("own PostgreSQL died, starting it again", "err", err, "pause", pause)
		case s.died <- err:
		case <-s.quit:
			return
		}
		if time.Since(began) > goodRun {
			pause = minPause
		}
		timer := time.NewTimer(pause)
		select {
		case <-timer.C:
		case <-s.quit:
			timer.Stop()
			return
		}
		pause = min(2*pause, maxPause)
	}
}

// runOnce runs PostgreSQL until it ends and returns why.
func (s *Server) runOnce() error {
	out := &lineLog{log: s.log}
	// Not tied to any context: Stop knows how PostgreSQL wants to be ended.
	cmd := s.cluster.command(context.Background(), "postgres", s.cluster.serverArgs()...)
	cmd.Stdout, cmd.Stderr = out, out
	cmd.WaitDelay = time.Second // orphaned backends may hold the pipe

	s.mu.Lock()
	select {
	case <-s.quit:
		s.mu.Unlock()
		return nil
	default:
	}
	err := cmd.Start()
	s.process = cmd.Process
	s.mu.Unlock()
	if err != nil {
		return err
	}

	ctx, cancel := context.WithCancel(context.Background())
	var watching sync.WaitGroup
	watching.Go(func() { s.watchStart(ctx) })
	_ = cmd.Wait() // its state says more, and there is always one
	cancel()
	watching.Wait()
	s.ready.Store(false)

	s.mu.Lock()
	s.process = nil
	s.mu.Unlock()
	return fmt.Errorf("postgres ended with %s: %s", cmd.ProcessState, out.last())
}

// watchStart waits until PostgreSQL takes connections and says so.
func (s *Server) watchStart(ctx context.Context) {
	tick := time.NewTicker(pollInterval)
	defer tick.Stop()
	for ping(ctx, s.url) != nil {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
	s.ready.Store(true)
	select {
	case <-s.up:
		s.log.Info("own PostgreSQL is up again")
	default:
		close(s.up)
	}
}

// Stop shuts PostgreSQL down, cutting its connections, and returns when it has
// ended. Calling it again is harmless.
func (s *Server) Stop() {
	s.stopOnce.Do(func() {
		s.mu.Lock()
		close(s.quit)
		process := s.process
		s.mu.Unlock()
		if process != nil {
			s.end(process)
		}
		<-s.done
		if dir := s.cluster.socketDir(); filepath.Dir(dir) != s.cluster.dir {
			_ = os.Remove(dir) // made anew at the next start
		}
		s.unlock()
	})
	<-s.done
}

func (s *Server) end(process *os.Process) {
	for _, e := range endings {
		if err := process.Signal(e.signal); err != nil {
			return // it has ended
		}
		timer := time.NewTimer(e.patience)
		select {
		case <-s.done:
			timer.Stop()
			return
		case <-timer.C:
			s.log.Warn("own PostgreSQL does not stop", "signal", e.signal.String(), "after", e.patience)
		}
	}
}

// stopLeftover ends a PostgreSQL that outlived the process that started it. It
// holds the lock of the files, and its settings may be another version's.
func (c cluster) stopLeftover(ctx context.Context, log *slog.Logger) error {
	pid := c.leftover()
	if pid == 0 {
		return nil
	}
	log.WarnContext(ctx, "stopping the PostgreSQL that an earlier process left running", "pid", pid)
	tick := time.NewTicker(pollInterval)
	defer tick.Stop()
	for _, e := range endings {
		if err := syscall.Kill(pid, e.signal); err != nil && !errors.Is(err, syscall.ESRCH) {
			return fmt.Errorf("stopping the PostgreSQL that still runs as process %d: %w", pid, err)
		}
		for deadline := time.Now().Add(e.patience); time.Now().Before(deadline); {
			if c.leftover() == 0 {
				return nil
			}
			select {
			case <-tick.C:
			case <-ctx.Done():
				return ctx.Err()
			}
		}
	}
	return fmt.Errorf("the PostgreSQL that still runs as process %d does not end: end it by hand", pid)
}

// leftover is the process id of a PostgreSQL that runs on our files, or 0. The
// number in postmaster.pid alone proves nothing: after a crash, and in a new
// container, it may be anybody's.
func (c cluster) leftover() int {
	text, err := os.ReadFile(filepath.Join(c.data(), "postmaster.pid"))
	if err != nil {
		return 0
	}
	first, _, _ := strings.Cut(string(text), "\n")
	pid, err := strconv.Atoi(strings.TrimSpace(first))
	if err != nil || pid <= 1 {
		return 0
	}
	if runtime.GOOS != "linux" {
		if err := syscall.Kill(pid, 0); err != nil && !errors.Is(err, syscall.EPERM) {
			return 0
		}
		return pid
	}
	// Unlike its working directory, a process's arguments can be read without
	// any capability.
	cmdline, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
	if err != nil || !bytes.Contains(cmdline, []byte("\x00-D\x00"+c.data()+"\x00")) {
		return 0
	}
	return pid
}

// lineLog passes PostgreSQL's output to the log line by line and remembers the
// end of it, which says why it died.
type lineLog struct {
	log *slog.Logger

	mu      sync.Mutex
	partial []byte
	recent  []string
}

func (l *lineLog) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.partial = append(l.partial, p...)
	for {
		line, rest, found := bytes.Cut(l.partial, []byte("\n"))
		if !found {
			return len(p), nil
		}
		l.log.Debug("postgres says", "line", string(line))
		l.recent = append(l.recent, string(line))
		if len(l.recent) > 5 {
			l.recent = l.recent[1:]
		}
		l.partial = rest
	}
}

func (l *lineLog) last() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Join(l.recent, "; ")
}
