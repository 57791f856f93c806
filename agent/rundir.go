package agent

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"resticfleet/agent/failpoint"
	"resticfleet/agent/protocol"
	"resticfleet/agent/restic"
)

// runDir is one job's folder, 0700:
//
//	command.json   the command as it came, should the journal's entry be lost
//	includes.raw   the paths, for --files-from-raw
//	log.ndjson     the job's log as it was numbered
//	answer.ndjson  what a look-up found, a line for each message
//	1/ 2/ …        one folder per restic invocation
//	.tmp-*         what a kill left of a file being written, also in 1/ 2/ …
type runDir string

func (d runDir) command() string    { return filepath.Join(string(d), "command.json") }
func (d runDir) includes() string   { return filepath.Join(string(d), "includes.raw") }
func (d runDir) log() string        { return filepath.Join(string(d), "log.ndjson") }
func (d runDir) answer() string     { return filepath.Join(string(d), "answer.ndjson") }
func (d runDir) step(n int) stepDir { return stepDir(filepath.Join(string(d), strconv.Itoa(n))) }
func (d runDir) readCommand() (run protocol.Run, err error) {
	found, err := readJSON(d.command(), &run)
	if err == nil && !found {
		err = errors.New("command.json is missing")
	}
	return run, err
}

// create writes down what a job needs to run. Nothing of it need outlive a
// crash of the machine before restic starts: the journal makes it anew.
func (d runDir) create(run protocol.Run) error {
	if err := os.MkdirAll(string(d), 0o700); err != nil {
		return err
	}
	if len(run.Includes) > 0 {
		if err := writeAtomically(d.includes(), restic.Includes(run.Includes)); err != nil {
			return err
		}
	}
	return writeJSONAtomically(d.command(), run)
}

// started says whether any restic was ever started for this job.
func (d runDir) started() bool { return exists(d.step(1).startedPath()) }

// stepDir is one restic invocation's folder:
//
//	step.json       what to run; no secret stands in it
//	lock            held by supervise and by restic itself while they live
//	started         what is run: made before restic starts, once, so that it
//	                starts at most once
//	pid.json        restic's process
//	interrupt.json  why the agent interrupted it
//	stdout, stderr  restic's output
//	exit.json       how it ended
type stepDir string

func (d stepDir) file(name string) string { return filepath.Join(string(d), name) }

func (d stepDir) specPath() string      { return d.file("step.json") }
func (d stepDir) lockPath() string      { return d.file("lock") }
func (d stepDir) startedPath() string   { return d.file("started") }
func (d stepDir) pidPath() string       { return d.file("pid.json") }
func (d stepDir) interruptPath() string { return d.file("interrupt.json") }
func (d stepDir) exitPath() string      { return d.file("exit.json") }
func (d stepDir) complaintPath() string { return d.file("supervise.log") }

// stepSpec is step.json.
type stepSpec struct {
	Purpose   string   `json:"purpose"`
	Document  bool     `json:"document,omitempty"`
	TimeoutMS int64    `json:"timeout_ms,omitempty"`
	Program   string   `json:"program"`
	Args      []string `json:"args"`
	Env       []string `json:"env"`
}

func (s stepSpec) step() restic.Step {
	return restic.Step{Purpose: s.Purpose, Args: s.Args, Document: s.Document, Timeout: time.Duration(s.TimeoutMS) * time.Millisecond}
}

// stepSecrets is what supervise reads from the pipe it inherits.
type stepSecrets struct {
	Repository string   `json:"repository"`
	Password   string   `json:"password"`
	Env        []string `json:"env,omitempty"`
}

// processRecord is pid.json. StartTime tells the process from a later one with
// the same number.
type processRecord struct {
	PID       int    `json:"pid"`
	StartTime uint64 `json:"start_time"`
}

// interruptRecord is interrupt.json.
type interruptRecord struct {
	Reason string    `json:"reason"`
	Detail string    `json:"detail,omitempty"`
	At     time.Time `json:"at"`
}

// exitRecord is exit.json.
type exitRecord struct {
	Code       int       `json:"code"` // -1 with Signal or StartError
	Signal     int       `json:"signal,omitempty"`
	StartError string    `json:"start_error,omitempty"`
	At         time.Time `json:"at"`
}

type stepState int

const (
	stepFresh   stepState = iota // never started
	stepRunning                  // supervise or restic lives
	stepEnded                    // exit.json tells how
	stepLost                     // started, gone, and nobody recorded its end
)

// state looks at the files and the lock. It must not be asked while a
// supervisor of ours may be about to take that lock.
func (d stepDir) state() (stepState, exitRecord, error) {
	var exit exitRecord
	if found, err := readJSON(d.exitPath(), &exit); found || err != nil {
		return stepEnded, exit, err
	}
	if !exists(string(d)) {
		return stepFresh, exit, nil
	}
	lock, taken, err := tryLock(d.lockPath())
	if err != nil {
		return stepFresh, exit, err
	}
	if taken {
		return stepRunning, exit, nil
	}
	defer func() { _ = lock.Close() }() // nothing was written
	// It may have ended between the two looks.
	if found, err := readJSON(d.exitPath(), &exit); found || err != nil {
		return stepEnded, exit, err
	}
	if exists(d.startedPath()) && (!failpoint.Planted(failpoint.StartTwice) || os.Remove(d.startedPath()) != nil) {
		return stepLost, exit, nil
	}
	return stepFresh, exit, nil
}

// prepare writes the step down; a folder that an attempt before left without a
// start is used again.
func (d stepDir) prepare(spec stepSpec) error {
	if err := os.MkdirAll(string(d), 0o700); err != nil {
		return err
	}
	return writeJSONAtomically(d.specPath(), spec)
}

// spec is what was started. Agents before this one left the marker empty.
func (d stepDir) spec() (spec stepSpec, err error) {
	if _, err = readJSON(d.startedPath(), &spec); err != nil {
		_, err = readJSON(d.specPath(), &spec)
	}
	return spec, err
}

// begin marks the step as started for good; fs.ErrExist when it was before. It
// is called with the step's lock held.
func (d stepDir) begin(spec stepSpec) error {
	if exists(d.startedPath()) {
		return fs.ErrExist
	}
	if err := writeJSONDurably(d.startedPath(), spec); err != nil {
		return err
	}
	// The folders were made without waiting for the disk.
	job := filepath.Dir(string(d))
	return errors.Join(syncDir(job), syncDir(filepath.Dir(job)))
}
