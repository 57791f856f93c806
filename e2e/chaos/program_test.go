package chaos

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
)

// program is a process of ours that is killed and started again. What it says
// goes to one file, over all its lives.
type program struct {
	t       testing.TB
	name    string // and that of its log
	log     string
	env     []string
	command func() []string

	cmd  *exec.Cmd
	done chan struct{} // closed when this life is over
	from int64         // where this life's log begins
}

func (p *program) start() {
	p.t.Helper()
	log, err := os.OpenFile(p.log, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		p.t.Fatal(err)
	}
	defer log.Close()
	if info, err := log.Stat(); err == nil {
		p.from = info.Size()
	}
	words := p.command()
	cmd := exec.Command(words[0], words[1:]...)
	cmd.Stdout, cmd.Stderr = log, log
	cmd.Env = append(os.Environ(), p.env...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := cmd.Start(); err != nil {
		p.t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		_ = cmd.Wait() // how it ended is the test's doing
		close(done)
	}()
	p.cmd, p.done = cmd, done
}

func (p *program) pid() int { return p.cmd.Process.Pid }

func (p *program) ended() bool {
	select {
	case <-p.done:
		return true
	default:
		return false
	}
}

func (p *program) signal(s syscall.Signal) { _ = p.cmd.Process.Signal(s) } // it may be gone

// kill is kill -9 and waits for the end.
func (p *program) kill() {
	p.signal(syscall.SIGKILL)
	<-p.done
}

// said waits for a line of this life that begins so, and gives the rest.
func (p *program) said(prefix string) string {
	p.t.Helper()
	var found string
	eventually(p.t, p.name+" says "+prefix, func() bool {
		raw, _ := os.ReadFile(p.log)
		for line := range strings.Lines(string(raw[min(int(p.from), len(raw)):])) {
			if _, rest, ok := strings.Cut(line, prefix); ok && strings.HasSuffix(line, "\n") {
				found = strings.TrimSpace(rest)
			}
		}
		if found == "" && p.ended() {
			p.t.Fatalf("%s ended early:\n%s", p.name, raw)
		}
		return found != ""
	})
	return found
}

// processState is the letter of proc(5), 0 for a process that isn't there.
func processState(pid int) byte {
	raw, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	end := bytes.LastIndexByte(raw, ')')
	if err != nil || len(raw) < end+3 || raw[end+2] == 'Z' || raw[end+2] == 'X' {
		return 0
	}
	return raw[end+2]
}

func alive(pid int) bool { return processState(pid) != 0 }

// keep copies a log to the results when the test has failed.
func keep(t testing.TB, path string) {
	t.Cleanup(func() {
		if !t.Failed() {
			return
		}
		raw, err := os.ReadFile(path)
		dir := filepath.Join("..", "results", strings.ReplaceAll(t.Name(), "/", "-"))
		if err == nil {
			err = os.MkdirAll(dir, 0o755)
		}
		if err == nil {
			err = os.WriteFile(filepath.Join(dir, filepath.Base(path)), raw, 0o644)
		}
		if err != nil && !os.IsNotExist(err) {
			fmt.Fprintln(os.Stderr, "keep:", err)
		}
	})
}
