// Package stage is what test suites that start programs stand on: a folder that
// PostgreSQL's account can reach, the list of processes, and an init that sees
// to it that none is left.
package stage

import (
	"os"
	"runtime"
)

// Process is one that lives.
type Process struct {
	PID, Parent int
	State       string
	Args        string // separated by blanks
}

// NewTempDir is a short-named folder that every account may pass through:
// PostgreSQL runs as one of its own when this runs as root.
func NewTempDir() (string, error) {
	parent := ""
	if runtime.GOOS == "linux" {
		parent = "/var/tmp"
	}
	dir, err := os.MkdirTemp(parent, "e2e-")
	if err != nil {
		return "", err
	}
	return dir, os.Chmod(dir, 0o711)
}
