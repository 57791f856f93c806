package agent

import (
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"syscall"

	"resticfleet/agent/failpoint"
	"resticfleet/agent/restic"
)

// supervisor is a supervise process that this agent started.
type supervisor struct {
	ready <-chan struct{} // closed once restic runs; never, when it doesn't
	done  <-chan struct{} // closed when supervise has ended
}

// spawn starts supervise for a prepared step, in a session of its own so that
// nothing aimed at the agent reaches it. The secrets go through a pipe: they
// stand in no argument, no environment but restic's, and no file.
func (w *worker) spawn(dir stepDir) (*supervisor, error) {
	backendEnv, _ := restic.BackendEnv(w.j.run.Repository.URL, w.secrets.Env)
	secrets, err := json.Marshal(stepSecrets{Repository: w.j.run.Repository.URL, Password: w.secrets.Password, Env: backendEnv})
	if err != nil {
		return nil, err
	}
	complaints, err := os.OpenFile(dir.complaintPath(), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return nil, err
	}
	secretsR, secretsW, err := os.Pipe()
	if err != nil {
		return nil, errors.Join(err, complaints.Close())
	}
	readyR, readyW, err := os.Pipe()
	if err != nil {
		return nil, errors.Join(err, complaints.Close(), secretsR.Close(), secretsW.Close())
	}
	cmd := exec.Command(w.r.cfg.Self, "supervise", string(dir))
	cmd.Args[0] = "resticfleet-agent"
	cmd.Env = append(restic.BaseEnv(os.Environ()), failpoint.Inherited()...)
	cmd.Dir = "/"
	cmd.Stderr = complaints
	cmd.ExtraFiles = []*os.File{secretsFD - 3: secretsR, readyFD - 3: readyW}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	err = cmd.Start()
	err = errors.Join(err, complaints.Close(), secretsR.Close(), readyW.Close())
	if err != nil {
		return nil, errors.Join(err, secretsW.Close(), readyR.Close())
	}
	ready, done := make(chan struct{}), make(chan struct{})
	// Each of these ends with supervise, which outlives a Stop of the runner
	// on purpose; they touch nothing but their pipe and the process.
	go func() {
		_, _ = secretsW.Write(secrets) // supervise says when it got too little
		_ = secretsW.Close()
	}()
	go func() {
		if n, _ := readyR.Read(make([]byte, 1)); n == 1 {
			close(ready)
		}
		_ = readyR.Close()
	}()
	go func() {
		_ = cmd.Wait() // the step's files tell what happened
		close(done)
	}()
	return &supervisor{ready: ready, done: done}, nil
}
