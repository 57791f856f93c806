package agent

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"resticfleet/agent/protocol"
)

var hostileNames = []string{
	"--exclude=*", "-", "--", "-rf", "new\nline", "tab\there", `quote"d`, "it's", "back\\slash", "`id`", "$(id)", "$RESTIC_PASSWORD",
	"#comment", " leading", "trailing ", "*", "?", "[a-z]", "{a,b}", "!not", "%41", "ünïcode", "\xff\xfe-latin1-\xe9", "a;b", "a&&b", "\x1b[31mred",
}

func TestHostileNamesAreBackedUpAsWhatTheyAre(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.repository()
	b.start()
	var want []string
	run := b.run(protocol.KindBackup)
	run.Includes = nil
	for i, name := range hostileNames {
		want = append(want, b.write("hostile/"+name+"/inside "+name, "content"))
		if i%2 == 0 && bytes.Equal([]byte(name), bytes.ToValidUTF8([]byte(name), nil)) {
			run.Includes = append(run.Includes, filepath.Join(b.dir, "hostile", name))
		}
	}
	each := b.do(run)
	if each.Outcome != protocol.OutcomeSucceeded || each.Stats["total_files_processed"] != float64(len(run.Includes)) {
		t.Errorf("each by its name: %+v", each)
	}

	run = b.run(protocol.KindBackup)
	run.Includes = []string{filepath.Join(b.dir, "hostile")}
	run.Excludes = []string{"[!a-z]nothing", "--one-file-system", "$HOME", "#x", " lead", "-v", "\\*none", "$RESTIC_PASSWORD/x"}
	run.Tag = `--tag #x $y "z" [*]: =`
	whole := b.do(run)
	if whole.Outcome != protocol.OutcomeSucceeded {
		t.Fatalf("%+v", whole)
	}
	var newest snapshot
	for _, s := range b.snapshots() {
		if s.ID == whole.SnapshotID {
			newest = s
		}
	}
	if !slices.Equal(newest.Excludes, run.Excludes) || !slices.Equal(newest.Tags, []string{run.Tag, "job:" + run.JobID}) {
		t.Errorf("excludes %q, tags %q", newest.Excludes, newest.Tags)
	}
	out := filepath.Join(b.dir, "restored")
	b.ask("restore", whole.SnapshotID, "--target", out)
	for _, path := range want {
		if got, err := os.ReadFile(filepath.Join(out, path)); err != nil || string(got) != "content" {
			t.Errorf("%q: %q, %v", path, got, err)
		}
	}
}

func TestBrokenExcludePatternFailsWithoutSpellingAnySecret(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.repository()
	b.start()
	run := b.run(protocol.KindBackup)
	run.Excludes = []string{"[$RESTIC_PASSWORD"}
	end := b.do(run)
	if end.ErrorCode != protocol.ErrInvalidCommand || !strings.Contains(end.Error, "[$RESTIC_PASSWORD") {
		t.Errorf("%+v", end)
	}
	b.searchState(t, []string{testPassword})
}

// TestSecretsAreNowhereButInRestic looks while restic runs: at every process,
// and at every file of the state.
func TestSecretsAreNowhereButInRestic(t *testing.T) {
	t.Parallel()
	b := setup(t)
	const canary = "canary-rest-key-81"
	// The script stands in restic's place and shows what restic would have.
	b.script(`if [ "$1" = backup ]; then
  cat /dev/fd/3 >"$DIR/password"; cat /dev/fd/4 >"$DIR/url"; env >"$DIR/env"; readlink /proc/self/fd/0 >"$DIR/stdin"
  echo "{\"message_type\":\"error\",\"error\":{\"message\":\"open /x/$RESTIC_REST_PASSWORD: denied\"},\"during\":\"archival\",\"item\":\"/x/$RESTIC_REST_PASSWORD\"}" >&2
  echo "plain: $RESTIC_REST_PASSWORD" >&2
  echo "{\"message_type\":\"status\",\"percent_done\":0.5,\"current_files\":[\"/f/$RESTIC_REST_PASSWORD\"]}"
  touch "$DIR/up"
  read go <"$DIR/fifo" # without a child, which would have the environment too
  echo "{\"message_type\":\"exit_error\",\"code\":1,\"message\":\"boom $RESTIC_REST_PASSWORD\"}" >&2
  exit 1
fi`)
	b.env = map[string]string{"RESTIC_REST_USERNAME": "someone", "RESTIC_REST_PASSWORD": canary}
	if err := syscall.Mkfifo(filepath.Join(b.dir, "fifo"), 0o600); err != nil {
		t.Fatal(err)
	}
	b.start()
	run := b.run(protocol.KindBackup)
	run.Repository.URL = "rest:http://127.0.0.1:9/x/"
	b.accept(run)
	b.until("restic's stand-in runs", func() bool { return b.exists("up") })

	if got, _ := os.ReadFile(filepath.Join(b.dir, "password")); string(got) != testPassword {
		t.Errorf("password by descriptor: %q", got)
	}
	if got, _ := os.ReadFile(filepath.Join(b.dir, "url")); string(got) != run.Repository.URL {
		t.Errorf("url by descriptor: %q", got)
	}
	if got, _ := os.ReadFile(filepath.Join(b.dir, "stdin")); string(got) != "/dev/null\n" {
		t.Errorf("stdin: %q", got)
	}
	env, err := os.ReadFile(filepath.Join(b.dir, "env"))
	if err != nil || !strings.Contains(string(env), "RESTIC_REST_PASSWORD="+canary) || strings.Contains(string(env), testPassword) {
		t.Errorf("restic's environment: %s", env)
	}
	for line := range strings.Lines(string(env)) {
		if name, _, _ := strings.Cut(line, "="); strings.HasPrefix(name, "GO") || strings.HasPrefix(name, "RESTICFLEET") {
			t.Errorf("inherited %s", line)
		}
	}
	searchProcesses(t, canary, testPassword)

	b.write("fifo", "go\n")
	end := b.result(run.JobID)
	s, _ := b.runner.Status(run.JobID)
	told := fmt.Sprintf("%+v %+v\n%s", end, s.Progress, b.text(run.JobID))
	if strings.Contains(told, canary) || strings.Contains(told, testPassword) || !strings.Contains(told, "boom ***") {
		t.Errorf("told: %s", told)
	}
	// restic's own words were in its output files; ours in no file.
	b.searchState(t, []string{testPassword})
}

// searchProcesses looks for secrets in the arguments and environment of every
// process that isn't restic itself (here: a shell that plays it).
func searchProcesses(t *testing.T, secrets ...string) {
	t.Helper()
	procs, err := filepath.Glob("/proc/[0-9]*")
	if err != nil || len(procs) == 0 {
		t.Fatal("no processes to look at", err)
	}
	supervisors := 0
	for _, p := range procs {
		cmdline, err := os.ReadFile(p + "/cmdline")
		if err != nil {
			continue // ended meanwhile
		}
		environ, err := os.ReadFile(p + "/environ")
		if err != nil {
			continue
		}
		if bytes.Contains(cmdline, []byte("resticfleet-agent\x00supervise\x00")) {
			supervisors++
		}
		for _, secret := range secrets {
			if bytes.Contains(cmdline, []byte(secret)) {
				t.Errorf("%s in the arguments %q", secret, cmdline)
			}
			if bytes.Contains(environ, []byte(secret)) && !bytes.HasPrefix(cmdline, []byte("/bin/sh\x00")) && !bytes.Contains(cmdline, []byte("/restic\x00")) {
				t.Errorf("%s in the environment of %q", secret, cmdline)
			}
		}
	}
	if supervisors == 0 {
		t.Error("saw no supervisor: the search looks in the wrong place")
	}
}

// searchState looks for secrets in every file and name below the state.
func (b *bundle) searchState(t *testing.T, secrets []string) {
	t.Helper()
	files := 0
	err := filepath.WalkDir(b.state, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		raw, err := os.ReadFile(path)
		if errors.Is(err, fs.ErrNotExist) {
			return nil // restic's output goes once the result is written down
		}
		if err != nil {
			return err
		}
		files++
		for _, s := range secrets {
			if bytes.Contains(raw, []byte(s)) || strings.Contains(path, s) {
				t.Errorf("%s in %s", s, path)
			}
		}
		info, err := d.Info()
		if err == nil && !strings.Contains(path, "/cache/") && info.Mode().Perm()&0o077 != 0 {
			t.Errorf("%s has mode %v", path, info.Mode())
		}
		return err
	})
	if err != nil || files == 0 {
		t.Errorf("searched %d files: %v", files, err)
	}
}

func TestUnreachableRepositoryFailsSoonAndNamesIt(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.start(func(c *RunnerConfig) {
		c.ProbeAfter, c.ProbeEvery, c.ProbeLimit = 50*time.Millisecond, 50*time.Millisecond, 400*time.Millisecond
	})
	for _, kind := range []string{protocol.KindInit, protocol.KindBackup} {
		run := b.run(kind)
		run.Repository.URL = "rest:http://127.0.0.1:9/x/"
		begin := time.Now()
		end := b.do(run)
		if end.Outcome != protocol.OutcomeFailed || end.ErrorCode != protocol.ErrUnreachable || !strings.Contains(end.Error, "127.0.0.1:9") {
			t.Errorf("%s: %+v\n%s", kind, end, b.text(run.JobID))
		}
		if took := time.Since(begin); took > 30*time.Second {
			t.Errorf("%s: took %s", kind, took)
		}
	}
}

func TestSecondAgentOnOneStateIsRefused(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.start()
	_, err := NewRunner(b.config())
	if err == nil || !strings.Contains(err.Error(), "another agent") || !strings.Contains(err.Error(), b.state) {
		t.Errorf("err = %v", err)
	}
	b.runner.Stop()
	b.start() // the lock went with the first
}

func TestSuperviseStartsNothingTwice(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.script(`echo started >>"$DIR/starts"`)
	dir := stepDir(filepath.Join(b.dir, "step"))
	if err := dir.prepare(stepSpec{Program: b.restic, Args: []string{"x"}}); err != nil {
		t.Fatal(err)
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	supervise := func(secrets string) (int, string) {
		ctx, stop := context.WithTimeout(context.Background(), 30*time.Second)
		defer stop()
		r, w, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		ready, err := os.OpenFile(os.DevNull, os.O_WRONLY, 0)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := w.WriteString(secrets); err != nil {
			t.Fatal(err)
		}
		cmd := exec.CommandContext(ctx, self, "supervise", string(dir))
		cmd.ExtraFiles = []*os.File{r, ready}
		var said bytes.Buffer
		cmd.Stderr = &said
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		for _, f := range []*os.File{r, w, ready} {
			if err := f.Close(); err != nil {
				t.Fatal(err)
			}
		}
		_ = cmd.Wait() // the code is looked at
		return cmd.ProcessState.ExitCode(), said.String()
	}
	const secrets = `{"repository":"/r","password":"p"}`
	if code, said := supervise(""); code != superviseFailed || said == "" {
		t.Errorf("without secrets: %d %s", code, said)
	}
	lock, _, err := tryLock(dir.lockPath())
	if err != nil {
		t.Fatal(err)
	}
	if code, _ := supervise(secrets); code != superviseOther {
		t.Errorf("beside another: %d", code)
	}
	if err := lock.Close(); err != nil {
		t.Fatal(err)
	}
	if b.exists("starts") {
		t.Fatal("started too early")
	}
	for i, want := range []int{superviseDone, superviseOther, superviseOther} {
		if code, said := supervise(secrets); code != want {
			t.Errorf("time %d: %d, want %d: %s", i+1, code, want, said)
		}
	}
	if n := b.count("starts"); n != 1 {
		t.Errorf("started %d times", n)
	}
	if state, exit, err := dir.state(); state != stepEnded || exit.Code != 0 || err != nil {
		t.Errorf("state %v, %+v, %v", state, exit, err)
	}
}
