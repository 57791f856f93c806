//go:build unix && !linux

package postgres

import "syscall"

// sysProcAttr takes a child out of the terminal's process group, so that Ctrl-C
// reaches the server first and PostgreSQL when the server says so. Here a
// killed server leaves PostgreSQL running; the next start stops it.
func sysProcAttr() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true}
}
