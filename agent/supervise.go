package agent

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"resticfleet/agent/failpoint"
	"resticfleet/agent/restic"
)

// Descriptors that supervise inherits from the agent.
const (
	secretsFD = 3 // a pipe with a stepSecrets document
	readyFD   = 4 // a pipe that gets one byte once restic runs
)

// Exit codes of supervise, for the agent that started it.
const (
	superviseDone   = 0
	superviseFailed = 1
	superviseOther  = 75 // somebody else runs this step, or ran it
)

// Supervise is `resticfleet-agent supervise <step folder>`: restic's parent, in
// a session of its own, so that restic outlives the agent and its exit code is
// recorded all the same. It starts restic at most once per folder, whatever
// happens. main must call it before anything else: its start is part of every
// job. It returns the process's exit code.
func Supervise(args []string) int {
	if len(args) != 1 {
		fmt.Fprintln(os.Stderr, "usage: resticfleet-agent supervise <step folder> (the agent itself calls this)")
		return superviseFailed
	}
	// A service manager that ends the agent's whole group must not keep us
	// from recording restic's end. Caught, not ignored: restic would inherit
	// an ignored signal.
	signal.Notify(make(chan os.Signal, 1), syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP)

	code, err := superviseStep(stepDir(args[0]))
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
	}
	return code
}

func superviseStep(dir stepDir) (int, error) {
	secretsPipe, ready := os.NewFile(secretsFD, "secrets"), os.NewFile(readyFD, "ready")
	for _, fd := range []int{secretsFD, readyFD} {
		syscall.CloseOnExec(fd)
	}
	var spec stepSpec
	if found, err := readJSON(dir.specPath(), &spec); err != nil || !found {
		return superviseFailed, errors.Join(errors.New("no step to run"), err)
	}
	raw, err := io.ReadAll(secretsPipe)
	if err != nil {
		return superviseFailed, fmt.Errorf("read secrets: %w", err)
	}
	var secrets stepSecrets
	if err := json.Unmarshal(raw, &secrets); err != nil {
		return superviseFailed, errors.New("the agent ended before it handed over the secrets")
	}

	lock, taken, err := tryLock(dir.lockPath())
	if taken || err != nil {
		return superviseOther, err
	}
	cmd, pipes, err := resticCommand(dir, spec, secrets, lock)
	if err != nil {
		return superviseFailed, err
	}
	exitFile, err := dir.prepareExit()
	if err != nil {
		return superviseFailed, err
	}
	switch err := dir.begin(spec); {
	case errors.Is(err, fs.ErrExist):
		return superviseOther, nil
	case err != nil:
		return superviseFailed, err
	}
	failpoint.Hit(failpoint.Marked)
	if err := cmd.Start(); err != nil {
		return superviseDone, dir.recordExit(exitFile, exitRecord{Code: -1, StartError: err.Error(), At: time.Now().UTC()})
	}
	for _, p := range pipes {
		_ = p.Close() // read ends, restic has its own
	}
	failpoint.Hit(failpoint.Launched)
	pid := processRecord{PID: cmd.Process.Pid, StartTime: processStart(cmd.Process.Pid)}
	pidErr := writeJSONAtomically(dir.pidPath(), pid)
	_, _ = ready.Write([]byte{1}) // the agent may be gone
	_ = ready.Close()

	waitErr := cmd.Wait()
	exit := exitRecord{Code: cmd.ProcessState.ExitCode(), At: time.Now().UTC()}
	if status, ok := cmd.ProcessState.Sys().(syscall.WaitStatus); ok && status.Signaled() {
		exit.Signal = int(status.Signal())
	}
	var ended *exec.ExitError
	if waitErr != nil && !errors.As(waitErr, &ended) {
		pidErr = errors.Join(pidErr, waitErr)
	}
	failpoint.Hit(failpoint.Exited)
	pidErr = errors.Join(pidErr, dir.recordExit(exitFile, exit))
	failpoint.Hit(failpoint.Recorded)
	return superviseDone, pidErr
}

// wordsRoom is kept in each of restic's output files, so that it can still say
// what is wrong when it is the disk.
const wordsRoom = 64 << 10

// exitRoom is what exit.json takes of the disk, blanks and all.
const exitRoom = 4 << 10

// prepareExit writes exit.json full of blanks under another name, so that on a
// disk that has become full meanwhile there is still room for how restic ended.
func (d stepDir) prepareExit() (*os.File, error) {
	f, err := os.OpenFile(d.file(unfinished+"exit"), os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, err
	}
	if _, err = f.Write(bytes.Repeat([]byte(" "), exitRoom)); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

// recordExit writes over the blanks, then puts the file in its place; durable
// when it returns.
func (d stepDir) recordExit(f *os.File, exit exitRecord) error {
	exit.StartError = exit.StartError[:min(len(exit.StartError), exitRoom/8)] // JSON may need six bytes for one
	data, err := json.Marshal(exit)
	if err == nil {
		_, err = f.WriteAt(data, 0)
	}
	if err == nil {
		err = f.Sync()
	}
	err = errors.Join(err, f.Close())
	if err == nil {
		err = os.Rename(f.Name(), d.exitPath())
	}
	if err == nil {
		err = syncDir(string(d))
	}
	return err
}

// resticCommand builds the process. It gets the lock's descriptor too: as long
// as restic lives the step counts as running, even where we were killed.
func resticCommand(dir stepDir, spec stepSpec, secrets stepSecrets, lock *os.File) (*exec.Cmd, []*os.File, error) {
	password, err := filledPipe(secrets.Password)
	if err != nil {
		return nil, nil, err
	}
	repository, err := filledPipe(secrets.Repository)
	if err != nil {
		return nil, nil, err
	}
	cmd := exec.Command(spec.Program, spec.Args...)
	cmd.Env = append(append([]string{}, spec.Env...), secrets.Env...)
	cmd.Dir = "/"
	// 3 and 4 are restic.PasswordFD and restic.RepositoryFD.
	cmd.ExtraFiles = []*os.File{restic.PasswordFD - 3: password, restic.RepositoryFD - 3: repository, 2: lock}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	for _, out := range []struct {
		name string
		to   *io.Writer
	}{{restic.Stdout, &cmd.Stdout}, {restic.Stderr, &cmd.Stderr}} {
		f, err := os.OpenFile(dir.file(out.name), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
		if err != nil {
			return nil, nil, err
		}
		keepRoom(f, wordsRoom)
		*out.to = f
	}
	return cmd, []*os.File{password, repository}, nil
}

// maxPiped is what a pipe surely holds, so that nobody has to stay and write.
const maxPiped = 32 << 10

func filledPipe(text string) (*os.File, error) {
	if len(text) > maxPiped {
		return nil, fmt.Errorf("a password or address of %d bytes is too long", len(text))
	}
	r, w, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	_, err = w.WriteString(text)
	return r, errors.Join(err, w.Close())
}

// Fields of /proc/PID/stat that are of use here, counted behind the name.
const (
	groupField   = 5 - 3 // by proc(5), where the first behind the name is the third
	sessionField = 6 - 3
	startField   = 22 - 3
)

// processStat reads /proc/PID/stat from behind the name, which may hold
// anything; nil when there is no such process.
func processStat(pid int) []string {
	raw, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return nil
	}
	fields := strings.Fields(string(raw)[strings.LastIndexByte(string(raw), ')')+1:])
	if len(fields) <= startField {
		return nil
	}
	return fields
}

// processStart is a process's start time in clock ticks since boot; 0 when
// there is no such process.
func processStart(pid int) uint64 {
	stat := processStat(pid)
	if stat == nil {
		return 0
	}
	start, err := strconv.ParseUint(stat[startField], 10, 64)
	if err != nil {
		return 0
	}
	return start
}

// orphan finds the restic of a supervisor that was killed before it could write
// pid.json: it holds the step's lock and leads its process group, but not the
// session, as its supervisor did.
func (d stepDir) orphan() (processRecord, bool) {
	lock, err := filepath.EvalSymlinks(d.lockPath())
	if err != nil {
		return processRecord{}, false
	}
	held, _ := filepath.Glob("/proc/[0-9]*/fd/*") // the pattern is fine
	for _, fd := range held {
		if file, err := os.Readlink(fd); err != nil || file != lock {
			continue
		}
		id := strings.Split(fd, "/")[2]
		pid, _ := strconv.Atoi(id)
		if stat := processStat(pid); stat != nil && stat[groupField] == id && stat[sessionField] != id {
			return processRecord{PID: pid, StartTime: processStart(pid)}, true
		}
	}
	return processRecord{}, false
}

// uncollected tells whether restic's process is still in the system's table.
func (d stepDir) uncollected() bool {
	var p processRecord
	if found, err := readJSON(d.pidPath(), &p); err != nil || !found || p.PID <= 1 {
		return false
	}
	// Where the agent is a container's first process, it is the heir that must
	// collect; anywhere else this is an error and does nothing.
	_, _ = syscall.Wait4(p.PID, nil, syscall.WNOHANG, nil)
	return p.there()
}

// there tells whether the process is in the system's table, and not another
// with its number.
func (p processRecord) there() bool {
	start := processStart(p.PID)
	return start != 0 && start == p.StartTime
}

// errUnknownProcess: restic was started a moment ago, or is gone.
var errUnknownProcess = errors.New("restic's process is not known")

// signalGroup signals restic's process group, if that process still is the one
// that was started.
func (d stepDir) signalGroup(sig syscall.Signal) error {
	var p processRecord
	found, err := readJSON(d.pidPath(), &p)
	if err != nil {
		return err
	}
	if !found {
		p, found = d.orphan()
	}
	if !found || p.PID <= 1 {
		return errUnknownProcess
	}
	if !p.there() {
		return nil // it has ended
	}
	if err := syscall.Kill(-p.PID, sig); err != nil && !errors.Is(err, syscall.ESRCH) {
		return err
	}
	return nil
}
