package main

import (
	"bufio"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/gorilla/websocket"

	"resticfleet/agent/protocol"
)

// readUnit parses a systemd unit: "Section.Key" to its value. No key of ours
// stands twice.
func readUnit(t *testing.T, name string) map[string]string {
	t.Helper()
	f, err := os.Open(filepath.Join("..", "..", "deploy", name))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	unit, section := map[string]string{}, ""
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		line := strings.TrimSpace(lines.Text())
		if line == "" || line[0] == '#' {
			continue
		}
		if strings.HasPrefix(line, "[") {
			section = strings.Trim(line, "[]")
			continue
		}
		key, value, ok := strings.Cut(line, "=")
		if _, twice := unit[section+"."+key]; !ok || twice || section == "" {
			t.Fatalf("%s: %q", name, line)
		}
		unit[section+"."+key] = value
	}
	return unit
}

func TestUnitsLetResticLive(t *testing.T) {
	t.Parallel()
	for name, want := range map[string]map[string]string{
		"resticfleet-agent.service": {
			"Service.KillMode": "process", "Service.OOMPolicy": "continue", "Service.PrivateTmp": "no",
			"Service.SendSIGKILL": "yes", "Service.TimeoutStopSec": "20s",
			"Service.StateDirectory": "resticfleet-agent", "Service.StateDirectoryMode": "0700", "Service.UMask": "0077",
		},
		"resticfleet.service": {
			"Service.KillMode": "mixed", "Service.OOMPolicy": "continue", "Service.TimeoutStopSec": "60s",
			"Service.User": "resticfleet", "Service.StateDirectory": "resticfleet", "Service.StateDirectoryMode": "0700",
		},
	} {
		unit := readUnit(t, name)
		want["Unit.StartLimitIntervalSec"] = "0"
		want["Service.Type"], want["Service.Restart"] = "exec", "always"
		want["Service.LimitNOFILE"], want["Install.WantedBy"] = "524288", "multi-user.target"
		for key, value := range want {
			if unit[key] != value {
				t.Errorf("%s: %s=%s, want %s", name, key, unit[key], value)
			}
		}
		for key := range unit {
			switch _, setting, _ := strings.Cut(key, "."); setting {
			// The unit's end would take restic, or what restic works with,
			// along; or restic would see another file system than there is.
			case "RuntimeMaxSec", "WatchdogSec", "ExecStop", "ExecStopPost", "FinalKillSignal", "KillSignal", "BindsTo", "PartOf",
				"RuntimeDirectory", "DynamicUser", "MemoryMax", "ProtectHome", "ProtectSystem", "PrivateMounts", "RootDirectory", "User":
				if name == "resticfleet-agent.service" {
					t.Errorf("%s: %s is set", name, key)
				}
			}
		}
	}
	start := strings.Fields(readUnit(t, "resticfleet-agent.service")["Service.ExecStart"])
	if len(start) != 4 || filepath.Base(start[0]) != "resticfleet-agent" ||
		!slices.Equal(start[1:], []string{"run", "--state-dir", "/var/lib/resticfleet-agent"}) {
		t.Errorf("starts %q", start)
	}
}

// service is a host whose agent runs as its unit says, and the server it talks
// to.
type service struct {
	t           *testing.T
	unit        map[string]string
	dir, restic string

	mu        sync.Mutex
	publicKey []byte
	command   *protocol.Envelope // sent behind the next welcome
	hellos    chan protocol.Hello
	ends      chan protocol.Finished
}

func newService(t *testing.T) *service {
	t.Helper()
	s := &service{
		t: t, unit: readUnit(t, "resticfleet-agent.service"), dir: t.TempDir(),
		hellos: make(chan protocol.Hello, 10), ends: make(chan protocol.Finished, 10),
	}
	pinned, err := filepath.Abs("../../bin/restic")
	if path := os.Getenv("RESTICFLEET_TEST_RESTIC"); path != "" {
		pinned = path
	}
	if _, statErr := os.Stat(pinned); err != nil || statErr != nil {
		t.Fatal("the pinned restic is missing: run `make tools`", err, statErr)
	}
	s.restic = filepath.Join(s.dir, "restic")
	script := `#!/bin/sh
if [ "$1" = backup ]; then echo $$ >"` + s.dir + `/pid.tmp"; mv "` + s.dir + `/pid.tmp" "` + s.dir + `/pid"; while [ ! -e "` + s.dir + `/go" ]; do sleep 0.02; done; fi
exec "` + pinned + `" "$@"
`
	if err := os.WriteFile(s.restic, []byte(script), 0o700); err != nil {
		t.Fatal(err)
	}
	initialise := exec.CommandContext(t.Context(), pinned, "init", "--no-cache", "--repo", filepath.Join(s.dir, "repo"))
	initialise.Env = append(os.Environ(), "RESTIC_PASSWORD=p")
	if out, err := initialise.CombinedOutput(); err != nil {
		t.Fatalf("restic init: %v\n%s", err, out)
	}
	mux := http.NewServeMux()
	mux.HandleFunc("POST /agent/v1/enroll", func(w http.ResponseWriter, r *http.Request) {
		var req protocol.EnrollRequest
		if err := json.NewDecoder(r.Body).Decode(&req); err != nil {
			t.Error(err)
		}
		if s.publicKey, err = base64.StdEncoding.DecodeString(req.PublicKey); err != nil {
			t.Error(err)
		}
		_ = json.NewEncoder(w).Encode(protocol.EnrollResponse{HostID: "h1", AgentToken: "a1"})
	})
	mux.HandleFunc("GET /agent/v1/ws", s.link)
	server := httptest.NewServer(mux)
	t.Cleanup(server.Close)
	if code, _, errs := call(t, "enroll", "--server", server.URL, "--state-dir", filepath.Join(s.dir, "state"), "--token", "t"); code != 0 {
		t.Fatal(errs)
	}
	return s
}

// link answers hello, hands over the command once, and acknowledges everything.
func (s *service) link(w http.ResponseWriter, r *http.Request) {
	conn, err := new(websocket.Upgrader).Upgrade(w, r, nil)
	if err != nil {
		return
	}
	defer conn.Close()
	for {
		var e protocol.Envelope
		if conn.ReadJSON(&e) != nil {
			return
		}
		switch e.Type {
		case protocol.TypeHello:
			hello, err := protocol.Decode[protocol.Hello](e)
			if err != nil {
				s.t.Error(err)
			}
			_ = conn.WriteJSON(protocol.Seal("w", protocol.TypeWelcome, protocol.Welcome{Session: "s"}))
			s.mu.Lock()
			if s.command != nil {
				_ = conn.WriteJSON(s.command)
				s.command = nil
			}
			s.mu.Unlock()
			s.hellos <- hello
			continue
		case protocol.TypeFinished:
			end, err := protocol.Decode[protocol.Finished](e)
			if err != nil {
				s.t.Error(err)
			}
			s.ends <- end
		}
		_ = conn.WriteJSON(protocol.Seal("ack", protocol.TypeAck, protocol.Ack{Acknowledged: []string{e.ID}}))
	}
}

// order has the server send a backup at the next link.
func (s *service) order() (jobID string) {
	s.t.Helper()
	run := protocol.Run{
		JobID: uuid.NewString(), Kind: protocol.KindBackup, Attempt: 1, ResticHost: "host", Tag: "group",
		Includes: []string{s.restic}, Repository: protocol.Repository{URL: filepath.Join(s.dir, "repo")},
	}
	var err error
	if run.Repository.Sealed, err = protocol.SealSecrets(s.publicKey, run.JobID, protocol.Secrets{Password: "p"}); err != nil {
		s.t.Fatal(err)
	}
	e := protocol.Seal("run-"+run.JobID, protocol.TypeRun, run)
	s.mu.Lock()
	s.command = &e
	s.mu.Unlock()
	return run.JobID
}

func receive[T any](t *testing.T, from chan T, what string) T {
	t.Helper()
	select {
	case v := <-from:
		return v
	case <-time.After(time.Minute):
		t.Fatalf("waited in vain for %s", what)
		panic("unreachable")
	}
}

// start runs the agent as ExecStart does.
func (s *service) start() *exec.Cmd {
	s.t.Helper()
	self, err := os.Executable()
	if err != nil {
		s.t.Fatal(err)
	}
	cmd := exec.CommandContext(context.WithoutCancel(s.t.Context()), self, "run", "--state-dir", filepath.Join(s.dir, "state"), "--restic", s.restic)
	cmd.Env = append(os.Environ(), "RESTICFLEET_TEST_MAIN=1")
	if err := cmd.Start(); err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() {
		_ = cmd.Process.Kill() // it may have ended
		_ = cmd.Wait()
	})
	return cmd
}

// group is the agent and all that it started: the unit's control group.
func group(t *testing.T, main int) []int {
	t.Helper()
	stats, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil {
		t.Fatal(err)
	}
	children := map[int][]int{}
	for _, path := range stats {
		raw, err := os.ReadFile(path)
		if err != nil {
			continue // it has ended
		}
		fields := strings.Fields(string(raw)[strings.LastIndexByte(string(raw), ')')+1:])
		pid, _ := strconv.Atoi(filepath.Base(filepath.Dir(path)))
		parent, _ := strconv.Atoi(fields[1])
		children[parent] = append(children[parent], pid)
	}
	all := []int{main}
	for i := 0; i < len(all); i++ {
		all = append(all, children[all[i]]...)
	}
	return all
}

// systemd sends what systemd sends a unit with this KillMode: final is what
// comes after TimeoutStopSec. See systemd.kill(5).
func (s *service) systemd(main int, signal syscall.Signal, final bool) {
	s.t.Helper()
	to := []int{main}
	mode := s.unit["Service.KillMode"]
	if mode != "process" && (mode != "mixed" || final) {
		to = group(s.t, main)
	}
	for _, pid := range to {
		if err := syscall.Kill(pid, signal); err != nil && !errors.Is(err, syscall.ESRCH) {
			s.t.Error(err)
		}
	}
}

func TestResticLivesThroughTheKillThatTheUnitImplies(t *testing.T) {
	t.Parallel()
	for name, stuck := range map[string]bool{"an agent that listens": false, "a stuck agent": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newService(t)
			job := s.order()
			main := s.start()
			receive(t, s.hellos, "a hello")
			pid := s.running()
			if stuck {
				if err := main.Process.Signal(syscall.SIGSTOP); err != nil {
					t.Fatal(err)
				}
			}
			s.systemd(main.Process.Pid, syscall.SIGTERM, false)
			if stuck {
				s.systemd(main.Process.Pid, syscall.SIGKILL, true)
			}
			_ = main.Wait() // the exit code is another test's

			s.start() // Restart=always
			if hello := receive(t, s.hellos, "a hello"); len(hello.Jobs) != 1 || hello.Jobs[0].JobID != job || hello.Jobs[0].State != protocol.JobRunning {
				t.Errorf("hello: %+v", hello.Jobs)
			}
			if err := syscall.Kill(pid, 0); err != nil {
				t.Fatalf("restic is gone: %v", err)
			}
			if err := os.WriteFile(filepath.Join(s.dir, "go"), nil, 0o600); err != nil {
				t.Fatal(err)
			}
			if end := receive(t, s.ends, "the backup's end"); end.JobID != job || end.Outcome != protocol.OutcomeSucceeded || end.SnapshotID == "" {
				t.Errorf("%+v", end)
			}
		})
	}
}

// running waits for the backup's restic and gives its process.
func (s *service) running() int {
	s.t.Helper()
	over := time.NewTimer(time.Minute)
	defer over.Stop()
	look := time.NewTicker(20 * time.Millisecond)
	defer look.Stop()
	for {
		if raw, err := os.ReadFile(filepath.Join(s.dir, "pid")); err == nil {
			pid, err := strconv.Atoi(strings.TrimSpace(string(raw)))
			if err != nil {
				s.t.Fatal(err)
			}
			return pid
		}
		select {
		case <-look.C:
		case <-over.C:
			s.t.Fatal("restic was not started")
		}
	}
}
