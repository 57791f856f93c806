package agent

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"time"

	"resticfleet/agent/failpoint"
	"resticfleet/agent/protocol"
	"resticfleet/agent/restic"
)

// RunnerConfig says where and how jobs run. The zero value of everything below
// Key has a default.
type RunnerConfig struct {
	StateDir string
	// Key gives the agent's private key, for the secrets of a command.
	Key    func() ([]byte, error)
	Logger *slog.Logger

	// Restic is restic's path or name; "restic" by default. It is looked up
	// for every job, so that an installation or update counts at once.
	Restic string
	// Self is the program to re-execute as supervise; this one by default.
	Self string
	// Changed is called, from any goroutine, when a job's state, log or
	// progress has moved. It must not block or call the runner.
	Changed func(jobID string)
	Now     func() time.Time

	KillAfter     time.Duration // from SIGINT to SIGKILL after a cancel; 90 s
	ProbeAfter    time.Duration // restic's silence before its backend is probed; 3 s
	ProbeEvery    time.Duration // 3 s
	ProbeLimit    time.Duration // unreachable for so long fails the job; 30 s
	TailEvery     time.Duration // how often restic's output is read; 200 ms
	MinFreeBytes  uint64        // 64 MiB
	MinFreeInodes uint64        // 1000
}

func (c RunnerConfig) withDefaults() RunnerConfig {
	def := func(d *time.Duration, v time.Duration) {
		if *d <= 0 {
			*d = v
		}
	}
	def(&c.KillAfter, 90*time.Second)
	def(&c.ProbeAfter, 3*time.Second)
	def(&c.ProbeEvery, 3*time.Second)
	def(&c.ProbeLimit, 30*time.Second)
	def(&c.TailEvery, 200*time.Millisecond)
	if c.MinFreeBytes == 0 {
		c.MinFreeBytes = 64 << 20
	}
	if c.MinFreeInodes == 0 {
		c.MinFreeInodes = 1000
	}
	if c.Restic == "" {
		c.Restic = "restic"
	}
	if c.Self == "" {
		// Not os.Executable: this names the running program even where its
		// file was replaced by an update.
		c.Self = "/proc/self/exe"
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.Changed == nil {
		c.Changed = func(string) {}
	}
	return c
}

const (
	keepRunDirs = 3 * 24 * time.Hour  // after the acknowledgement
	keepEntries = 30 * 24 * time.Hour // finished ids, against late duplicates
)

// Runner takes jobs, runs each at most once, and keeps what became of them
// until it is acknowledged. Safe for concurrent use.
type Runner struct {
	cfg     RunnerConfig
	lock    *os.File
	journal *Journal
	reserve *reserve
	version *versionReader
	gate    *gate

	ctx  context.Context // ends at Stop
	stop context.CancelFunc
	wg   sync.WaitGroup

	mu       sync.Mutex
	jobs     map[string]*job // every job not yet acknowledged
	stopped  bool
	prunedAt time.Time
}

// NewRunner locks the state directory, opens the journal and makes the folders.
// It starts nothing: call Resume once, then Accept as commands come, and Stop at
// the end.
func NewRunner(cfg RunnerConfig) (*Runner, error) {
	cfg = cfg.withDefaults()
	if cfg.StateDir == "" || cfg.Key == nil {
		return nil, errors.New("runner: StateDir and Key are needed")
	}
	dir, err := filepath.Abs(cfg.StateDir)
	if err != nil {
		return nil, fmt.Errorf("state directory: %w", err)
	}
	cfg.StateDir = dir
	lock, err := lockState(dir)
	if err != nil {
		return nil, err
	}
	r := &Runner{cfg: cfg, lock: lock, version: &versionReader{program: cfg.Restic}, gate: newGate(), jobs: map[string]*job{}}
	r.ctx, r.stop = context.WithCancel(context.Background())
	for _, dir := range []string{r.runsDir(), r.cacheDir()} {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return nil, errors.Join(fmt.Errorf("state directory: %w", err), lock.Close())
		}
	}
	r.reserve = &reserve{path: filepath.Join(dir, "reserve")}
	if r.shortage(dir) == "" {
		if err := r.reserve.hold(); err != nil {
			cfg.Logger.Warn("no room can be kept on the disk", "err", err)
		}
	}
	if r.journal, err = OpenJournal(r.journalDir(), r.reserve, cfg.Logger); err != nil {
		return nil, errors.Join(err, lock.Close())
	}
	return r, nil
}

func (r *Runner) journalDir() string         { return filepath.Join(r.cfg.StateDir, "journal") }
func (r *Runner) runsDir() string            { return filepath.Join(r.cfg.StateDir, "run") }
func (r *Runner) cacheDir() string           { return filepath.Join(r.cfg.StateDir, "cache") }
func (r *Runner) runDir(jobID string) runDir { return runDir(filepath.Join(r.runsDir(), jobID)) }

// JournalID names the memory this runner has of its jobs, for hello.
func (r *Runner) JournalID() string { return r.journal.ID() }

// ResticVersion reads the version of the restic that jobs would use; an error
// where there is none that is supported.
func (r *Runner) ResticVersion(ctx context.Context) (string, error) { return r.version.read(ctx) }

// Resume takes up every unfinished job of the journal again: those whose restic
// runs, those that ended unseen, those never started.
func (r *Runner) Resume() error {
	r.adopt()
	var first, later []*job
	for _, e := range r.journal.Open() {
		j := r.newJob(e.JobID)
		if e.State == protocol.JobFinished {
			j.run, _ = j.dir.readCommand() // only for what an old entry lacks
			r.dropOutput(j)
			r.mu.Lock()
			r.jobs[e.JobID] = j
			r.mu.Unlock()
			continue
		}
		if e.Command != nil {
			j.run = *e.Command
			if !j.dir.started() {
				j.broken = j.dir.create(j.run)
			}
		} else if j.run, j.broken = j.dir.readCommand(); j.broken != nil {
			r.cfg.Logger.Error("a job's command can't be read; it is reported as failed", "job.id", e.JobID, "err", j.broken)
			j.run = protocol.Run{JobID: e.JobID, Kind: e.Kind}
		}
		if !e.CancelRequestedAt.IsZero() {
			j.askCancel()
		}
		if j.dir.started() {
			first = append(first, j)
		} else {
			later = append(later, j)
		}
	}
	// What already works on a repository stands first in its line.
	for _, j := range append(first, later...) {
		if err := r.launch(j); err != nil {
			return err
		}
	}
	r.prune()
	return nil
}

// adopt looks at run folders that the journal doesn't know. One whose restic
// was started lost its entry to damage and gets it again; any other is the
// rest of a command that was never accepted, or of a copied state directory.
func (r *Runner) adopt() {
	dirs, err := os.ReadDir(r.runsDir())
	if err != nil {
		r.cfg.Logger.Error("the run folders can't be listed", "err", err)
		return
	}
	for _, d := range dirs {
		if _, known := r.journal.Get(d.Name()); known {
			continue
		}
		dir := r.runDir(d.Name())
		if run, err := dir.readCommand(); !r.journal.copied && !r.journal.setAside(d.Name()) && err == nil && run.JobID == d.Name() && dir.started() {
			if _, _, err := r.journal.Accept(run, r.cfg.Now()); err != nil {
				r.cfg.Logger.Error("a job without a journal entry can't be taken up", "job.id", d.Name(), "err", err)
			}
			continue
		}
		if failpoint.Planted(failpoint.LeaveFolder) {
			continue
		}
		if err := os.RemoveAll(string(dir)); err != nil {
			r.cfg.Logger.Error("a run folder can't be removed", "job.id", d.Name(), "err", err)
		}
	}
}

// Stop ends the watching and returns when nothing of the runner works any more.
// It kills no restic: whoever comes next takes it up again. Idempotent.
func (r *Runner) Stop() {
	r.mu.Lock()
	again := r.stopped
	r.stopped = true
	r.mu.Unlock()
	r.stop()
	r.wg.Wait()
	if again {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, j := range r.jobs {
		j.closeLog(r.cfg.Logger)
	}
	if err := r.lock.Close(); err != nil {
		r.cfg.Logger.Error("the state directory's lock can't be closed", "err", err)
	}
}

// Accept takes a command. When it returns without an error the job is on disk
// and will come to an end whatever happens to this process; job.accepted may be
// sent. A known job is never started again: the answer is its state, and one
// that was acknowledged is reported anew, since the server forgot it. A job
// that this disk can't hold is answered as finished, failed.
func (r *Runner) Accept(run protocol.Run) (state string, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.stopped {
		return "", errors.New("the agent is stopping")
	}
	if j, ok := r.jobs[run.JobID]; ok {
		return r.stateOf(j), nil
	}
	if e, known := r.journal.Get(run.JobID); known {
		if !e.AckedAt.IsZero() {
			if e, err = r.journal.Update(run.JobID, func(e *Entry) { e.AckedAt = time.Time{} }); err != nil {
				return "", err
			}
			r.jobs[run.JobID] = r.newJob(run.JobID)
			r.cfg.Changed(run.JobID)
		}
		return e.State, nil
	}
	if !jobIDPattern.MatchString(run.JobID) {
		return "", fmt.Errorf("the job id %q is not one", run.JobID)
	}
	j := r.newJob(run.JobID)
	j.run = run
	err = j.dir.create(run)
	failpoint.Hit(failpoint.Written)
	if err == nil {
		_, _, err = r.journal.Accept(run, r.cfg.Now())
	}
	if err != nil {
		// Never journalled means never started, so this end is safe to tell
		// without a record: a server that missed it offers the job again.
		r.cfg.Logger.Error("a job can't be written down and is refused", "job.id", run.JobID, "err", err)
		end := restic.Fail(run.JobID, protocol.ErrNoSpace, "The agent could not write the job down: "+err.Error()+".",
			"Free space on the disk that holds "+r.cfg.StateDir+", or make it writable for the agent's account.")
		end.At = r.cfg.Now().UTC()
		j.unsaved = end
		r.jobs[run.JobID] = j
		r.cfg.Changed(run.JobID)
		return protocol.JobFinished, nil
	}
	failpoint.Hit(failpoint.Accepted)
	r.startLocked(j)
	return protocol.JobAccepted, nil
}

func (r *Runner) launch(j *job) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.stopped {
		return errors.New("the agent is stopping")
	}
	if _, ok := r.jobs[j.id]; !ok {
		r.startLocked(j)
	}
	return nil
}

func (r *Runner) startLocked(j *job) {
	r.jobs[j.id] = j
	turn, leave := j.queue(r.gate)
	r.wg.Add(1)
	go func() {
		defer r.wg.Done()
		defer leave()
		r.execute(r.ctx, j, turn)
	}()
}

// Cancel asks for a job's end. The ask is on disk before it returns, so a
// restart doesn't lose it; what the job became is told by its result. A
// finished job stays what it is. ErrUnknownJob for one never seen here.
func (r *Runner) Cancel(jobID string) error {
	e, err := r.journal.Update(jobID, func(e *Entry) {
		if e.State != protocol.JobFinished && e.CancelRequestedAt.IsZero() {
			e.CancelRequestedAt = r.cfg.Now().UTC()
		}
	})
	if err != nil || e.State == protocol.JobFinished {
		return err
	}
	failpoint.Hit(failpoint.CancelKept)
	r.mu.Lock()
	j := r.jobs[jobID]
	r.mu.Unlock()
	if j != nil {
		j.askCancel()
	}
	return nil
}

// prune removes what was acknowledged long ago, at most once an hour.
func (r *Runner) prune() {
	now := r.cfg.Now()
	r.mu.Lock()
	due := now.Sub(r.prunedAt) >= time.Hour
	if due {
		r.prunedAt = now
	}
	r.mu.Unlock()
	if !due {
		return
	}
	for _, id := range r.journal.AckedBefore(now.Add(-keepRunDirs)) {
		if err := os.RemoveAll(string(r.runDir(id))); err != nil {
			r.cfg.Logger.Error("a run folder can't be removed", "job.id", id, "err", err)
		}
	}
	for _, id := range r.journal.AckedBefore(now.Add(-keepEntries)) {
		if err := r.journal.Forget(id); err != nil {
			r.cfg.Logger.Error("a journal entry can't be removed", "job.id", id, "err", err)
		}
	}
}
