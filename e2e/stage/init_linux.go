package stage

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

const (
	// underInit tells the child its temporary folder.
	underInit = "E2E_UNDER_INIT"
	// prSetChildSubreaper is PR_SET_CHILD_SUBREAPER of prctl(2).
	prSetChildSubreaper = 36
	// settling is how long what was told to end may take.
	settling = 10 * time.Second
)

// UnderInit runs the tests in a child process and is its init meanwhile:
// whatever loses its parent becomes ours, is reaped as on any real host, and
// when the tests have ended nothing may be left. What is left is named, killed
// and fails the run; so even tests that were killed leave no process. The
// second result is false in the child, which is to run the tests.
func UnderInit() (code int, ran bool) {
	if os.Getenv(underInit) != "" {
		return 0, false
	}
	// Ctrl-C reaches the tests as well, and they end. Caught, not ignored: they
	// would inherit that, and everything they start.
	signal.Notify(make(chan os.Signal, 1), syscall.SIGINT)
	dir, err := NewTempDir()
	if err == nil {
		defer func() { _ = os.RemoveAll(dir) }() // again, for when the tests couldn't
		code, err = actAsInit(dir)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "e2e:", err)
		code = 1
	}
	if left := leftovers(); len(left) > 0 {
		fmt.Fprintf(os.Stderr, "e2e: the tests left %d processes behind:\n%s\n", len(left), strings.Join(left, "\n"))
		code = 1
	}
	return code, true
}

// GivenTempDir is the folder that init made, and removes in the end.
func GivenTempDir() string { return os.Getenv(underInit) }

func actAsInit(dir string) (int, error) {
	if _, _, e := syscall.RawSyscall6(syscall.SYS_PRCTL, prSetChildSubreaper, 1, 0, 0, 0, 0); e != 0 {
		return 1, fmt.Errorf("become a subreaper: %w", e)
	}
	self, err := os.Executable()
	if err != nil {
		return 1, err
	}
	child, err := syscall.ForkExec(self, os.Args, &syscall.ProcAttr{
		Env: append(os.Environ(), underInit+"="+dir), Files: []uintptr{0, 1, 2},
	})
	if err != nil {
		return 1, err
	}
	for {
		var status syscall.WaitStatus
		pid, err := syscall.Wait4(-1, &status, 0, nil)
		switch {
		case errors.Is(err, syscall.EINTR):
		case err != nil:
			return 1, err
		case pid == child && status.Signaled():
			return 1, fmt.Errorf("the tests were ended by a signal: %s", status.Signal())
		case pid == child:
			return status.ExitStatus(), nil
		}
	}
}

// leftovers waits for what is ending, then kills and names what isn't.
func leftovers() []string {
	deadline := time.After(settling)
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		left := Descendants(os.Getpid())
		if len(left) == 0 {
			return nil
		}
		select {
		case <-tick.C:
			_, _ = syscall.Wait4(-1, nil, syscall.WNOHANG, nil)
		case <-deadline:
			var names []string
			for _, p := range left {
				names = append(names, fmt.Sprintf("  %d %s", p.PID, p.Args))
				_ = syscall.Kill(p.PID, syscall.SIGKILL)
			}
			return names
		}
	}
}

// Processes lists what lives on this machine; zombies don't.
func Processes() []Process {
	stats, _ := filepath.Glob("/proc/[0-9]*/stat") // the pattern is a constant
	var out []Process
	for _, path := range stats {
		raw, err := os.ReadFile(path)
		if err != nil {
			continue // it has ended since
		}
		end := bytes.LastIndexByte(raw, ')')
		fields := strings.Fields(string(raw[end+1:]))
		if end < 0 || len(fields) < 2 || fields[0] == "Z" || fields[0] == "X" {
			continue
		}
		dir := filepath.Dir(path)
		p := Process{State: fields[0]}
		p.PID, _ = strconv.Atoi(filepath.Base(dir))
		p.Parent, _ = strconv.Atoi(fields[1])
		args, _ := os.ReadFile(filepath.Join(dir, "cmdline"))
		p.Args = strings.TrimSpace(strings.ReplaceAll(string(args), "\x00", " "))
		out = append(out, p)
	}
	return out
}

// Descendants are all processes below one.
func Descendants(of int) []Process {
	all := Processes()
	below := map[int]bool{of: true}
	var out []Process
	for grew := true; grew; {
		grew = false
		for _, p := range all {
			if below[p.Parent] && !below[p.PID] {
				below[p.PID], grew = true, true
				out = append(out, p)
			}
		}
	}
	return out
}
