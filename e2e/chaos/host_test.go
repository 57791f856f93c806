package chaos

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"resticfleet/e2e/stage"
)

// host is one of the fleet, with two source groups. Its restic is a script that
// writes down every start, says its lines, and then is the pinned one.
type host struct {
	f          *fleet
	n          int
	id, name   string
	dir        string
	repository string
	groups     []string // ids
	agent      *program
}

// wrapper: %[1]s is the host's folder, %[2]s its name, %[3]s the pinned restic.
const wrapper = `#!/bin/sh
job=-
for word in "$@"; do case "$word" in --tag=job:*) job=${word#--tag=job:} ;; esac; done
printf '%%s %%s %%s\n' $$ "$1" "$job" >>'%[1]s/starts'
export RESTIC_REST_USERNAME='%[2]s' RESTIC_REST_PASSWORD=$$
case "$1" in
version) while [ -e '%[1]s/hold-version' ]; do sleep 0.05; done ;;
backup) i=0; while [ $i -lt %[4]d ]; do i=$((i+1)); echo "%[5]s$i" >&2; done ;;
esac
exec '%[3]s' "$@"
`

// newHost adds a host with its repository.
func (f *fleet) newHost(n int) *host {
	f.t.Helper()
	h := f.bareHost(n)
	if status := h.bind(); status != 200 {
		f.t.Fatalf("binding the repository of %s: status %d", h.name, status)
	}
	return h
}

// bareHost adds a host and begins to link it. It has no repository yet; some
// hosts are to share one.
func (f *fleet) bareHost(n int) *host {
	f.t.Helper()
	h := &host{f: f, n: n, name: hostName(n), repository: fmt.Sprintf("repo%d", n/f.sharing)}
	h.dir = f.path(h.name)
	if n%f.sharing == 0 {
		f.gate.repository(f.t, h.repository)
	}
	for _, dir := range []string{"0", "1"} {
		if err := os.MkdirAll(filepath.Join(h.dir, dir), 0o700); err != nil {
			f.t.Fatal(err)
		}
	}
	h.change(0)
	h.change(1)
	script := fmt.Sprintf(wrapper, h.dir, h.name, suite.restic, SaidLines, Said)
	if err := os.WriteFile(h.path("restic"), []byte(script), 0o700); err != nil {
		f.t.Fatal(err)
	}
	var made struct{ ID string }
	f.must("POST", "/api/hosts", map[string]any{"name": h.name}, &made, 201)
	h.id = made.ID
	var token struct{ Token string }
	f.must("POST", "/api/hosts/"+h.id+"/enrollment-tokens", nil, &token, 201)
	agent := filepath.Join(suite.bin, "resticfleet-agent")
	f.command([]string{"RESTICFLEET_TOKEN=" + token.Token}, agent, "enroll", "--server", f.front.url(), "--state-dir", h.path("state"))
	for _, group := range []string{"0", "1"} {
		f.must("POST", "/api/hosts/"+h.id+"/source-groups", map[string]any{
			"name": group, "tag": group, "includes": []string{h.path(group)}, "excludes": []string{}, "retention": map[string]any{},
		}, &made, 201)
		h.groups = append(h.groups, made.ID)
	}
	h.agent = f.newProgram(h.name, func() []string {
		return []string{agent, "run", "--state-dir", h.path("state"), "--restic", h.path("restic"), "--timezone", "UTC"}
	})
	h.agent.start()
	return h
}

func hostName(n int) string { return fmt.Sprint("host", n) }

func (h *host) path(name string) string { return filepath.Join(h.dir, name) }

func (h *host) bind() (status int) {
	return h.f.api("PUT", "/api/hosts/"+h.id+"/repository",
		map[string]any{"url": h.f.gate.address(h.repository), "password": password, "env": map[string]string{}}, nil)
}

// ready waits until the init has ended well.
func (h *host) ready() {
	h.f.t.Helper()
	eventually(h.f.t, h.name+" has its repository", func() bool {
		var there bool
		err := h.f.db.QueryRowContext(context.Background(), "select exists (select from jobs where host_id = ? and kind = 'init' and state = 'succeeded')", h.id).Scan(&there)
		return err == nil && there
	})
	eventually(h.f.t, h.name+" is settled", func() bool { return h.untold() == "" })
}

// change gives a group something new to store.
func (h *host) change(group int) {
	noise := make([]byte, 20_000)
	_, _ = rand.Read(noise) // never fails
	if err := os.WriteFile(filepath.Join(h.path(strconv.Itoa(group)), "file"), noise, 0o600); err != nil {
		h.f.t.Error(err)
	}
}

// run is Run now, with something new to store, and must be answered.
func (h *host) run(group int) string {
	h.f.t.Helper()
	h.change(group)
	job, status := h.f.run(h, group)
	if status != 202 {
		h.f.t.Fatalf("Run now on %s: status %d", h.name, status)
	}
	return job
}

// untold says which job's result isn't known to be stored.
func (h *host) untold() string {
	files, _ := filepath.Glob(h.path("state/journal/*.json")) // the pattern is fine
	for _, file := range files {
		var e struct {
			State   string    `json:"state"`
			AckedAt time.Time `json:"acked_at"`
		}
		raw, err := os.ReadFile(file)
		if err != nil || json.Unmarshal(raw, &e) != nil || e.AckedAt.IsZero() {
			return fmt.Sprintf("%s has %s, which is %s", h.name, filepath.Base(file), e.State)
		}
	}
	return ""
}

// work is a restic of this host with its supervisor; either may be 0, where it
// is gone.
type work struct {
	supervisor, restic int
	job                string
}

// underWay lists what runs on behalf of this host's jobs.
func (h *host) underWay() []work {
	all := stage.Processes()
	var out []work
	seen := map[int]bool{}
	for _, p := range all {
		_, step, ok := strings.Cut(p.Args, " supervise "+h.path("state/run")+"/")
		if !ok {
			continue
		}
		job, _, _ := strings.Cut(step, "/")
		w := work{supervisor: p.PID, job: job}
		for _, below := range all {
			if below.Parent == p.PID {
				w.restic = below.PID
				seen[below.PID] = true
			}
		}
		out = append(out, w)
	}
	for _, s := range h.starts() {
		if !seen[s.PID] && s.Job != "" && alive(s.PID) {
			out = append(out, work{restic: s.PID, job: s.Job})
		}
	}
	return out
}

// starts are all starts of restic on this host.
func (h *host) starts() []Start {
	raw, _ := os.ReadFile(h.path("starts")) // none yet
	var out []Start
	for line := range strings.Lines(string(raw)) {
		words := strings.Fields(line)
		if len(words) != 3 {
			continue
		}
		s := Start{Host: h.name, Command: words[1], Job: strings.Trim(words[2], "-")}
		s.PID, _ = strconv.Atoi(words[0])
		out = append(out, s)
	}
	return out
}

func (h *host) killAgent() {
	h.f.killed(Kill{Victim: VictimAgent, Name: h.name})
	h.agent.kill()
}

// killWork kills the supervisors, the restics, or both, and says how many.
func (h *host) killWork(supervisors, restics bool) int {
	n := 0
	kill := func(victim, job string, pid int) {
		if pid == 0 {
			return
		}
		// Written down before: the checker must know why something fails.
		h.f.killed(Kill{Victim: victim, Name: h.name, Job: job})
		if syscall.Kill(pid, syscall.SIGKILL) == nil {
			n++
			within(10*time.Second, func() bool { return !alive(pid) })
		}
	}
	for _, w := range h.underWay() {
		if supervisors {
			kill(VictimSupervisor, w.job, w.supervisor)
		}
		if restics {
			kill(VictimRestic, w.job, w.restic)
		}
	}
	return n
}

// holdVersion keeps the agent from starting restic: it asks for its version
// first, again since the program has changed.
func (h *host) holdVersion() {
	if err := os.WriteFile(h.path("hold-version"), nil, 0o600); err != nil {
		h.f.t.Fatal(err)
	}
	now := time.Now()
	if err := os.Chtimes(h.path("restic"), now, now); err != nil {
		h.f.t.Fatal(err)
	}
}

func (h *host) release() { _ = os.Remove(h.path("hold-version")) } // it may not be held
