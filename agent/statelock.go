package agent

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// lockState makes this process the only agent on a state directory. The kernel
// lets go of the lock with the process, however it ends.
func lockState(dir string) (*os.File, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("state directory: %w", err)
	}
	f, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("state directory: %w", err)
	}
	if err := flockSoon(f); err != nil {
		holder := make([]byte, 32)
		n, _ := f.ReadAt(holder, 0) // the number is a help, not needed
		closeErr := f.Close()
		if !errors.Is(err, syscall.EWOULDBLOCK) {
			return nil, errors.Join(fmt.Errorf("lock state directory %s: %w", dir, err), closeErr)
		}
		return nil, fmt.Errorf("another agent (process %s) works in the state directory %s: stop it, or give this one a directory of its own with --state-dir",
			strings.TrimSpace(string(holder[:n])), dir)
	}
	if f.Truncate(0) == nil {
		_, _ = f.WriteAt([]byte(fmt.Sprintf("%d\n", os.Getpid())), 0) // a help; a full disk must not keep the agent away
	}
	return f, nil
}

// lockPatience bridges the moment in which a process that has ended still holds
// its lock: by a child that it was just starting.
const lockPatience = time.Second

func flockSoon(f *os.File) error {
	deadline := time.Now().Add(lockPatience)
	for {
		err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		if !errors.Is(err, syscall.EWOULDBLOCK) || time.Now().After(deadline) {
			return err
		}
		<-time.After(20 * time.Millisecond)
	}
}

// tryLock takes a step's lock, or says that somebody has it. The descriptor is
// the lock: closing it, or the process's end, lets go.
func tryLock(path string) (f *os.File, taken bool, err error) {
	f, err = os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, false, err
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		closeErr := f.Close()
		if errors.Is(err, syscall.EWOULDBLOCK) {
			return nil, true, closeErr
		}
		return nil, false, errors.Join(err, closeErr)
	}
	return f, false, nil
}
