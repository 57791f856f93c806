package agent

import (
	"errors"
	"io/fs"
	"log/slog"
	"os"
	"slices"
	"sync"
	"time"

	"resticfleet/agent/failpoint"
	"resticfleet/agent/protocol"
	"resticfleet/agent/restic"
)

// job is one job in memory: what is live about it. What must outlive the
// process stands in the journal and the run folder.
type job struct {
	id     string
	run    protocol.Run
	dir    runDir
	now    func() time.Time
	cancel chan struct{} // closed once a cancel was asked for
	broken error         // why the command can't be read

	mu       sync.Mutex
	asked    bool
	log      *jobLog
	progress *protocol.Progress
	ackedLog int64
	// unsaved is an end that could not be written down (a full disk). It is
	// told all the same; the run folder gives the same end after a restart.
	unsaved *protocol.Finished
}

func (r *Runner) newJob(id string) *job {
	return &job{id: id, dir: r.runDir(id), now: r.cfg.Now, cancel: make(chan struct{})}
}

func (j *job) askCancel() {
	j.mu.Lock()
	defer j.mu.Unlock()
	if !j.asked {
		j.asked = true
		close(j.cancel)
	}
}

func (j *job) cancelAsked() bool {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.asked
}

// queue takes the job's place before its repository. Unlock waits for nobody,
// since what it is for may stand in the way, nor does what only looks.
func (j *job) queue(g *gate) (turn <-chan struct{}, leave func()) {
	if j.run.Kind == protocol.KindUnlock || j.run.Settle || restic.LooksUp(j.run) {
		now := make(chan struct{})
		close(now)
		return now, func() {}
	}
	return g.queue(j.run.Repository.URL)
}

func (j *job) openLog() (*jobLog, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.log == nil {
		l, err := openJobLog(j.dir.log(), logWindow, j.now)
		if err != nil {
			return nil, err
		}
		j.log = l
	}
	return j.log, nil
}

func (j *job) closeLog(log *slog.Logger) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.log == nil {
		return
	}
	if err := j.log.close(); err != nil {
		log.Error("a job's log can't be closed", "job.id", j.id, "err", err)
	}
	j.log = nil
}

func (j *job) setProgress(p protocol.Progress) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.progress = &p
}

// JobStatus is what there is to report of one job.
type JobStatus struct {
	JobID      string
	Kind       string
	Tag        string // the source group's
	State      string // protocol.JobAccepted, JobRunning or JobFinished
	AcceptedAt time.Time
	StartedAt  time.Time // zero until restic was started
	// Progress is the newest, nil before the first. Its Seq only grows, also
	// over a restart of the agent.
	Progress *protocol.Progress
	// LastLogSeq is the number of the newest log line, AckedLogSeq that of the
	// newest one that the server has, as far as this process knows.
	LastLogSeq  int64
	AckedLogSeq int64
	Result      *protocol.Finished // once finished
}

func (r *Runner) stateOf(j *job) string {
	j.mu.Lock()
	unsaved := j.unsaved
	j.mu.Unlock()
	if unsaved != nil {
		return protocol.JobFinished
	}
	e, _ := r.journal.Get(j.id)
	return e.State
}

// Pending lists every job that is not acknowledged, oldest first.
func (r *Runner) Pending() []JobStatus {
	r.mu.Lock()
	jobs := make([]*job, 0, len(r.jobs))
	for _, j := range r.jobs {
		jobs = append(jobs, j)
	}
	r.mu.Unlock()
	all := make([]JobStatus, 0, len(jobs))
	for _, j := range jobs {
		all = append(all, r.status(j))
	}
	slices.SortFunc(all, func(a, b JobStatus) int {
		if c := a.AcceptedAt.Compare(b.AcceptedAt); c != 0 {
			return c
		}
		if a.JobID < b.JobID {
			return -1
		}
		return 1
	})
	return all
}

// Status is Pending for one job; false when it is unknown or acknowledged.
func (r *Runner) Status(jobID string) (JobStatus, bool) {
	r.mu.Lock()
	j, ok := r.jobs[jobID]
	r.mu.Unlock()
	if !ok {
		return JobStatus{}, false
	}
	return r.status(j), true
}

func (r *Runner) status(j *job) JobStatus {
	e, _ := r.journal.Get(j.id)
	j.mu.Lock()
	defer j.mu.Unlock()
	s := JobStatus{
		JobID: j.id, Kind: e.Kind, Tag: e.Tag, State: e.State, AcceptedAt: e.AcceptedAt, StartedAt: e.StartedAt,
		Progress: j.progress, AckedLogSeq: j.ackedLog, Result: e.Result,
	}
	if j.unsaved != nil && s.Result == nil {
		s.State, s.Result, s.Kind = protocol.JobFinished, j.unsaved, j.run.Kind
	}
	if s.Tag == "" {
		s.Tag = j.run.Tag // entries of agents before this one had none
	}
	switch {
	case s.Result != nil:
		s.LastLogSeq = s.Result.LastLogSeq
	case j.log != nil:
		s.LastLogSeq = j.log.last()
	}
	return s
}

// Hello lists the jobs as hello carries them.
func (r *Runner) Hello() []protocol.HelloJob {
	jobs := []protocol.HelloJob{}
	for _, s := range r.Pending() {
		jobs = append(jobs, protocol.HelloJob{
			JobID: s.JobID, State: s.State, Kind: s.Kind, Tag: s.Tag, AcceptedAt: s.AcceptedAt, StartedAt: s.StartedAt,
		})
	}
	return jobs
}

// Log gives a job's lines behind a number, in order, as many as fit into about
// maxBytes but at least one. A job that is unknown or acknowledged has none.
func (r *Runner) Log(jobID string, after int64, maxBytes int) ([]protocol.LogLine, error) {
	r.mu.Lock()
	j, ok := r.jobs[jobID]
	r.mu.Unlock()
	if !ok || !exists(j.dir.log()) {
		return nil, nil
	}
	l, err := j.openLog()
	if err != nil {
		return nil, err
	}
	return l.lines(after, maxBytes)
}

// AckLog remembers that the server has the lines up to a number.
func (r *Runner) AckLog(jobID string, seq int64) {
	r.ackLog(jobID, func(acked int64) int64 { return max(acked, seq) })
}

// rewindLog takes back that the server has more lines than up to a number: its
// database was put back in time.
func (r *Runner) rewindLog(jobID string, seq int64) {
	r.ackLog(jobID, func(acked int64) int64 { return min(acked, max(seq, 0)) })
}

func (r *Runner) ackLog(jobID string, newest func(acked int64) int64) {
	r.mu.Lock()
	j, ok := r.jobs[jobID]
	r.mu.Unlock()
	if !ok {
		return
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	j.ackedLog = newest(j.ackedLog)
}

// AckFinished remembers that the server has the job's result: it is not
// reported any more, and its folder goes some days later. Acknowledging twice,
// or a job that has not ended, does nothing.
func (r *Runner) AckFinished(jobID string) error {
	if err := r.ackFinished(jobID); err != nil {
		return err
	}
	r.prune()
	return nil
}

func (r *Runner) ackFinished(jobID string) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	j, ok := r.jobs[jobID]
	if !ok || r.stateOf(j) != protocol.JobFinished {
		return nil
	}
	failpoint.Hit(failpoint.AckHeard)
	_, err := r.journal.Update(jobID, func(e *Entry) {
		j.mu.Lock()
		defer j.mu.Unlock()
		if j.unsaved != nil {
			e.State, e.Result, e.Command = protocol.JobFinished, j.unsaved, nil
		}
		e.AckedAt = r.cfg.Now().UTC()
	})
	// One that was refused for want of space never had an entry.
	if err != nil && !errors.Is(err, ErrUnknownJob) {
		return err
	}
	failpoint.Hit(failpoint.AckKept)
	// A list of snapshots after every job is too much to keep for days.
	if err := os.Remove(j.dir.answer()); err != nil && !errors.Is(err, fs.ErrNotExist) {
		r.cfg.Logger.Error("an answer can't be removed", "job.id", jobID, "err", err)
	}
	j.closeLog(r.cfg.Logger)
	delete(r.jobs, jobID)
	return nil
}
