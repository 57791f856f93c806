package main

import (
	"bytes"
	"context"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/gorilla/websocket"

	"resticfleet/agent/protocol"
)

// TestMain lets the test binary be the program, for what needs a process. The
// program itself calls it as supervise, without that variable.
func TestMain(m *testing.M) {
	if os.Getenv("RESTICFLEET_TEST_MAIN") != "" || len(os.Args) > 1 && os.Args[1] == "supervise" {
		main()
		return
	}
	os.Exit(m.Run())
}

// fleet is a server that enrols everybody and welcomes every hello.
func fleet(t *testing.T) (url string, tokens chan string, hellos chan protocol.Hello) {
	t.Helper()
	tokens, hellos = make(chan string, 10), make(chan protocol.Hello, 10)
	mux := http.NewServeMux()
	mux.HandleFunc("POST /agent/v1/enroll", func(w http.ResponseWriter, r *http.Request) {
		var req protocol.EnrollRequest
		if err := json.NewDecoder(r.Body).Decode(&req); err != nil {
			t.Error(err)
		}
		tokens <- req.Token
		_ = json.NewEncoder(w).Encode(protocol.EnrollResponse{HostID: "h1", AgentToken: "a1"})
	})
	mux.HandleFunc("GET /agent/v1/ws", func(w http.ResponseWriter, r *http.Request) {
		conn, err := new(websocket.Upgrader).Upgrade(w, r, nil)
		if err != nil {
			return
		}
		defer conn.Close()
		var e protocol.Envelope
		if conn.ReadJSON(&e) != nil {
			return
		}
		hello, err := protocol.Decode[protocol.Hello](e)
		if err != nil {
			t.Error(err)
		}
		_ = conn.WriteJSON(protocol.Seal("w", protocol.TypeWelcome, protocol.Welcome{Session: "s"}))
		hellos <- hello
		_, _, _ = conn.ReadMessage()
	})
	s := httptest.NewServer(mux)
	t.Cleanup(s.Close)
	return s.URL, tokens, hellos
}

func call(t *testing.T, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	var out, errs bytes.Buffer
	code = run(t.Context(), args, &out, &errs)
	return code, out.String(), errs.String()
}

func TestEnrollTakesTheTokenFromWhereItIsGiven(t *testing.T) {
	url, tokens, _ := fleet(t)
	file := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(file, []byte("from-file\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("RESTICFLEET_TOKEN", "from-env")
	for want, flags := range map[string][]string{
		"from-flag": {"--token", "from-flag"},
		"from-file": {"--token-file", file},
		"from-env":  nil,
	} {
		dir := filepath.Join(t.TempDir(), "state")
		code, out, errs := call(t, append([]string{"enroll", "--server", url, "--state-dir", dir}, flags...)...)
		if code != 0 || !strings.Contains(out, "h1") || !strings.Contains(out, "resticfleet-agent run --state-dir "+dir) {
			t.Errorf("%s: exit %d, %s%s", want, code, out, errs)
			continue
		}
		if got := <-tokens; got != want {
			t.Errorf("enrolled with %q, want %q", got, want)
		}
	}
}

func TestWrongCommandLinesAndFailuresHaveTheirExitCodes(t *testing.T) {
	dir := t.TempDir()
	t.Setenv("RESTICFLEET_TOKEN", "")
	tests := []struct {
		args []string
		code int
		says string
	}{
		{[]string{"version"}, 0, ""},
		{[]string{"--help"}, 0, ""},
		{nil, 2, "--help"},
		{[]string{"frobnicate"}, 2, "frobnicate"},
		{[]string{"run", "--link", "pigeon", "--state-dir", dir}, 2, "polling"},
		{[]string{"run", "--link", "polling", "--state-dir", dir}, 1, "not enrolled"},
		{[]string{"enroll", "--token", "a", "--token-file", "b", "--server", "http://127.0.0.1:1"}, 2, "--token"},
		{[]string{"run", "--state-dir", dir}, 1, "not enrolled"},
		{[]string{"run", "--state-dir", dir, "--timezone", "Mars/Base"}, 1, "--timezone"},
		{[]string{"enroll", "--server", "http://127.0.0.1:1", "--state-dir", dir}, 1, "token"},
		{[]string{"enroll", "--server", "http://127.0.0.1:1", "--state-dir", dir, "--token", "t"}, 1, "can't be reached"},
		{[]string{"enroll", "--server", "http://192.0.2.1", "--state-dir", dir, "--token", "t"}, 1, "--allow-plain-http"},
		{[]string{"enroll", "--server", "http://127.0.0.1:1", "--state-dir", dir, "--token-file", filepath.Join(dir, "none")}, 1, "token"},
	}
	for _, test := range tests {
		if code, out, errs := call(t, test.args...); code != test.code || !strings.Contains(errs, test.says) {
			t.Errorf("%v: exit %d, %s%s", test.args, code, out, errs)
		}
	}
	if _, out, _ := call(t, "version"); !strings.HasPrefix(out, "resticfleet-agent "+version) {
		t.Error(out)
	}
}

func TestRunLinksAndStopsOnSIGTERM(t *testing.T) {
	t.Parallel()
	url, _, hellos := fleet(t)
	dir := filepath.Join(t.TempDir(), "state")
	if code, _, errs := call(t, "enroll", "--server", url, "--state-dir", dir, "--token", "t"); code != 0 {
		t.Fatal(errs)
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithTimeout(t.Context(), time.Minute)
	defer stop()
	cmd := exec.CommandContext(ctx, self, "run", "--state-dir", dir, "--timezone", "Asia/Tokyo", "--restic", "/nonexistent/restic")
	cmd.Env = append(os.Environ(), "RESTICFLEET_TEST_MAIN=1")
	var errs bytes.Buffer
	cmd.Stderr = &errs
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	select {
	case hello := <-hellos:
		if hello.Timezone != "Asia/Tokyo" || hello.ResticVersion != "" {
			t.Errorf("%+v", hello)
		}
	case <-ctx.Done():
		t.Error("no hello")
	}
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Error(err)
	}
	if err := cmd.Wait(); err != nil {
		t.Errorf("%v\n%s", err, errs.Bytes())
	}
	if text := errs.String(); !strings.Contains(text, "no usable restic") || !strings.Contains(text, "the agent stops") {
		t.Error(text)
	}
}
