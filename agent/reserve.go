package agent

import (
	"crypto/rand"
	"errors"
	"os"
	"sync"
	"syscall"
)

// reserveSize is room for the results of all jobs that a host can have at once,
// and for the steps that find them out.
const reserveSize = 4 << 20

// reserve is a file that keeps room on the disk for what must not be lost for
// want of it: how a job ended. Its methods are safe for concurrent use; a nil
// one keeps nothing.
type reserve struct {
	path string
	mu   sync.Mutex
}

// hold makes the file where it is missing. Its content is noise, since a
// filesystem may keep no room for what it can compress.
func (r *reserve) hold() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if info, err := os.Stat(r.path); err == nil && info.Size() == reserveSize {
		return nil
	}
	noise := make([]byte, reserveSize)
	if _, err := rand.Read(noise); err != nil {
		return err
	}
	return writeAtomically(r.path, noise)
}

// release gives the room to whoever writes next.
func (r *reserve) release() {
	r.mu.Lock()
	defer r.mu.Unlock()
	_ = os.Remove(r.path) // gone already, or the write says what is wrong
}

// spend writes, and does so again without the reserve when the disk is full.
func (r *reserve) spend(write func() error) error {
	err := write()
	if r == nil || !diskFull(err) {
		return err
	}
	r.release()
	return write()
}

func diskFull(err error) bool {
	return errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT)
}
