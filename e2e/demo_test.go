package e2e

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"resticfleet/e2e/stage"
)

// The demo is what people see first: three lines, a real backup within twenty
// seconds, and nothing left after Ctrl-C. It runs by itself, before the
// parallel tests, because of the twenty seconds.
func TestDemo(t *testing.T) {
	tmp := tempDir(t)
	if err := os.Chmod(tmp, 0o711); err != nil {
		t.Fatal(err)
	}
	log := filepath.Join(tempDir(t), "demo.log")
	keepLog(t, "demo.log", log)
	cmd := exec.Command(filepath.Join(suite.bin, "resticfleet"), "demo")
	cmd.Env = append(os.Environ(), "TMPDIR="+tmp)
	began := time.Now()
	p, err := startProcess(log, cmd)
	if err != nil {
		t.Fatal(err)
	}
	defer p.kill()

	var lines [3]string
	for i, prefix := range []string{"Dashboard: ", "Login: ", "First backup: snapshot "} {
		if lines[i], err = p.line(prefix, startPatience); err != nil {
			t.Fatal(err)
		}
	}
	took := time.Since(began)
	t.Logf("first backup after %s", took.Round(10*time.Millisecond))
	if took > 20*time.Second {
		t.Errorf("the first backup took %s, want at most 20 s", took)
	}
	if len(lines[2]) != 8 {
		t.Errorf("snapshot %q, want its short id", lines[2])
	}
	if !strings.HasPrefix(lines[0], "http://127.0.0.1:") {
		t.Errorf("dashboard %q, want a loopback address", lines[0])
	}
	user, password, _ := strings.Cut(lines[1], " / ")
	at := target{url: lines[0], user: user, password: password}
	if at.session, err = login(context.Background(), at.url, user, password); err != nil {
		t.Fatal(err)
	}
	jobs := at.api(t).jobs("kind=backup&state=succeeded")
	if len(jobs) != 1 || !strings.HasPrefix(jobs[0].snapshot(), lines[2]) {
		t.Errorf("the demo's server knows %+v, want the backup of snapshot %s", jobs, lines[2])
	}

	family := append(stage.Descendants(p.pid()), running(tmp)...)
	if len(family) < 4 {
		t.Errorf("the demo runs %v, want PostgreSQL, a rest-server and an agent", family)
	}
	began = time.Now()
	if err := p.stop(syscall.SIGINT); err != nil {
		t.Fatal(err)
	}
	t.Logf("stopped after %s", time.Since(began).Round(10*time.Millisecond))
	if !p.cmd.ProcessState.Success() {
		t.Errorf("the demo ended with %s", p.cmd.ProcessState)
	}
	for _, was := range family {
		for _, is := range stage.Processes() {
			if is.PID == was.PID && is.Args == was.Args {
				t.Errorf("%d goes on after Ctrl-C: %s", is.PID, is.Args)
			}
		}
	}
	left, err := os.ReadDir(tmp)
	if err != nil || len(left) > 0 {
		t.Errorf("the demo left files: %v %v", left, err)
	}
}
