package agent

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// deadLock leaves the lock of a restic that was killed.
func (b *bundle) deadLock() {
	b.t.Helper()
	// A backup from a command's output that never comes stays in its lock.
	cmd := exec.Command(resticPath(b.t), "backup", "--stdin", "--json")
	cmd.Env = append(os.Environ(), "RESTIC_PASSWORD="+b.password, "RESTIC_REPOSITORY="+b.repo, "RESTIC_CACHE_DIR="+filepath.Join(b.dir, "own-cache"))
	in, err := cmd.StdinPipe()
	if err != nil {
		b.t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		b.t.Fatal(err)
	}
	b.until("a lock is there", func() bool {
		locks, err := os.ReadDir(filepath.Join(b.repo, "locks"))
		return err == nil && len(locks) > 0 && !strings.Contains(locks[0].Name(), "tmp")
	})
	if err := cmd.Process.Kill(); err != nil {
		b.t.Fatal(err)
	}
	_ = cmd.Wait() // killed
	_ = in.Close()
}
