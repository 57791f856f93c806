package e2e

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"resticfleet/e2e/stage"
)

// process is a program of ours that runs beside the tests. What it prints goes
// to a log file and can be waited for.
type process struct {
	cmd  *exec.Cmd
	out  *output
	log  *os.File
	done chan struct{} // closed when it has ended and was waited for
}

// stopPatience is how long a program may take to end after SIGTERM.
const stopPatience = 30 * time.Second

func startProcess(logPath string, cmd *exec.Cmd) (*process, error) {
	if err := os.MkdirAll(filepath.Dir(logPath), 0o711); err != nil {
		return nil, err
	}
	log, err := os.OpenFile(logPath, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o644)
	if err != nil {
		return nil, err
	}
	p := &process{cmd: cmd, out: newOutput(log), log: log, done: make(chan struct{})}
	cmd.Stdout, cmd.Stderr = p.out, p.out
	// Another program that inherited the pipe must not keep Wait waiting.
	cmd.WaitDelay = time.Second
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // Ctrl-C is the tests' to hand on
	if err := cmd.Start(); err != nil {
		return nil, errors.Join(fmt.Errorf("%s: %w", filepath.Base(cmd.Path), err), log.Close())
	}
	go func() {
		_ = cmd.Wait() // how it ended stands in cmd.ProcessState
		_ = log.Close()
		close(p.done)
	}()
	return p, nil
}

func (p *process) pid() int { return p.cmd.Process.Pid }

// ended reports whether the process is gone.
func (p *process) ended() bool {
	select {
	case <-p.done:
		return true
	default:
		return false
	}
}

// signal sends one; that the process has ended already is no error.
func (p *process) signal(s os.Signal) error {
	if err := p.cmd.Process.Signal(s); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	return nil
}

// kill is kill -9, and waits for the end.
func (p *process) kill() {
	_ = p.signal(syscall.SIGKILL)
	<-p.done
}

// stop asks the process to end and waits; one that doesn't is killed, which is
// an error.
func (p *process) stop(with os.Signal) error {
	if err := p.signal(with); err != nil {
		return err
	}
	select {
	case <-p.done:
		return nil
	case <-time.After(stopPatience):
		p.kill()
		return fmt.Errorf("%s did not end within %s of %s; see %s", filepath.Base(p.cmd.Path), stopPatience, with, p.log.Name())
	}
}

// line waits for a line with prefix in it and returns what follows.
func (p *process) line(prefix string, patience time.Duration) (string, error) {
	timeout := time.After(patience)
	for {
		text, changed := p.out.read()
		for l := range strings.Lines(text) {
			if _, rest, ok := strings.Cut(l, prefix); ok && strings.HasSuffix(l, "\n") {
				return strings.TrimSpace(rest), nil
			}
		}
		select {
		case <-changed:
			continue
		case <-p.done:
		case <-timeout:
		}
		tail, _ := os.ReadFile(p.log.Name())
		return "", fmt.Errorf("%s printed no line %q; its log:\n%s", filepath.Base(p.cmd.Path), prefix, tail)
	}
}

// output keeps what was written, passes it on, and tells when it grew.
type output struct {
	mu      sync.Mutex
	text    bytes.Buffer
	changed chan struct{}
	to      *os.File
}

func newOutput(to *os.File) *output { return &output{changed: make(chan struct{}), to: to} }

func (o *output) Write(b []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.text.Write(b)
	close(o.changed)
	o.changed = make(chan struct{})
	return o.to.Write(b)
}

// read returns the text so far and a channel that closes when there is more.
func (o *output) read() (string, <-chan struct{}) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.String(), o.changed
}

// running lists the processes one of whose arguments names text.
func running(text string) []stage.Process {
	var out []stage.Process
	for _, p := range stage.Processes() {
		if p.PID != os.Getpid() && strings.Contains(p.Args, text) {
			out = append(out, p)
		}
	}
	return out
}

// eventually waits until ok, which must be cheap and safe to repeat, for as
// long as anything on a busy machine may take.
func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	within(t, time.Minute, what, ok)
}

// within is eventually with a deadline that is part of what is tested.
func within(t testing.TB, patience time.Duration, what string, ok func() bool) {
	t.Helper()
	if !waitFor(patience, ok) {
		t.Fatalf("not within %s: %s", patience, what)
	}
}

func waitFor(patience time.Duration, ok func() bool) bool {
	deadline := time.After(patience)
	tick := time.NewTicker(25 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-tick.C:
		case <-deadline:
			return ok()
		}
	}
	return true
}
