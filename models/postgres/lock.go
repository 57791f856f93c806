package postgres

import (
	"context"
	"errors"
	"fmt"
	"os"
	"syscall"
	"time"
)

// lockPatience is how long a start waits for the process before it, which may
// be shutting down.
const lockPatience = 10 * time.Second

// lock takes an exclusive lock that ends with this process, however it ends.
func (s *Server) lock(ctx context.Context, path string) error {
	patience := time.NewTimer(lockPatience)
	defer patience.Stop()
	tick := time.NewTicker(pollInterval)
	defer tick.Stop()
	for {
		f, err := tryLock(path)
		if err != nil {
			return err
		}
		if f != nil {
			s.locks = append(s.locks, f)
			return nil
		}
		select {
		case <-tick.C:
		case <-patience.C:
			return fmt.Errorf("%w (%s is locked): stop it, or give this one a --data-dir of its own or --database-url", ErrInUse, path)
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func (s *Server) unlock() {
	for _, f := range s.locks {
		f.Close()
	}
	s.locks = nil
}

// tryLock returns nil without an error when another process has the lock.
// Closing the file releases it.
func tryLock(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	err = syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
	if err == nil {
		return f, nil
	}
	f.Close()
	if errors.Is(err, syscall.EWOULDBLOCK) {
		return nil, nil
	}
	return nil, fmt.Errorf("locking %s: %w", path, err)
}
