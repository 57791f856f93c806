package postgres

import "syscall"

// sysProcAttr takes a child out of the terminal's process group, so that Ctrl-C
// reaches the server first and PostgreSQL when the server says so. When the
// server is killed the kernel asks PostgreSQL to shut down fast, so that no
// process stays behind. The kernel watches the thread that started the child,
// not the process: whoever starts one must stay on its thread until it ended.
func sysProcAttr() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGINT}
}
