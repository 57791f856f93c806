package agent

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/google/uuid"

	"resticfleet/agent/protocol"
)

// Entry is what the agent knows of one job it has taken.
type Entry struct {
	JobID             string    `json:"job_id"`
	Kind              string    `json:"kind"`
	State             string    `json:"state"` // protocol.JobAccepted, JobRunning or JobFinished
	AcceptedAt        time.Time `json:"accepted_at"`
	StartedAt         time.Time `json:"started_at,omitzero"`
	CancelRequestedAt time.Time `json:"cancel_requested_at,omitzero"`
	// Command is what to run, its secrets still sealed; it goes with the end.
	Command *protocol.Run      `json:"command,omitempty"`
	Result  *protocol.Finished `json:"result,omitempty"`
	AckedAt time.Time          `json:"acked_at,omitzero"`
}

// Journal is the agent's memory of jobs: one file each, durable before the
// call that wrote it returns. It holds no secret. It is what makes at-least-once
// delivery run every job at most once. Safe for concurrent use.
type Journal struct {
	dir string
	id  string
	log *slog.Logger

	mu      sync.Mutex
	entries map[string]Entry
}

// ErrUnknownJob: the journal has no such job.
var ErrUnknownJob = errors.New("the agent knows no such job")

var jobIDPattern = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9_-]{0,63}$`)

const (
	journalIDFile = "journal_id"
	entrySuffix   = ".json"
	damagedSuffix = ".damaged"
)

// OpenJournal reads the journal in dir, made where it doesn't exist. A file
// that can't be read as an entry is set aside under another name and logged:
// one damaged file never keeps the agent from starting.
func OpenJournal(dir string, log *slog.Logger) (*Journal, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("journal: %w", err)
	}
	j := &Journal{dir: dir, log: log, entries: map[string]Entry{}}
	if err := j.readID(); err != nil {
		return nil, err
	}
	files, err := os.ReadDir(dir)
	if err != nil {
		return nil, fmt.Errorf("journal: %w", err)
	}
	for _, f := range files {
		if strings.HasPrefix(f.Name(), tmpPrefix) {
			_ = os.Remove(filepath.Join(dir, f.Name())) // what a kill left of a write; it costs only its few bytes
			continue
		}
		id, isEntry := strings.CutSuffix(f.Name(), entrySuffix)
		if !isEntry {
			continue
		}
		var e Entry
		path := filepath.Join(dir, f.Name())
		_, err := readJSON(path, &e)
		if err == nil && (e.JobID != id || !validState(e)) {
			err = errors.New("its content does not fit its name or state")
		}
		if err != nil {
			log.Error("a journal file is damaged and was set aside", "file", path, "err", err)
			if err := os.Rename(path, path+damagedSuffix); err != nil {
				return nil, fmt.Errorf("journal: %w", err)
			}
			continue
		}
		j.entries[id] = e
	}
	return j, nil
}

func validState(e Entry) bool {
	switch e.State {
	case protocol.JobAccepted, protocol.JobRunning:
		return e.Result == nil
	case protocol.JobFinished:
		return e.Result != nil
	}
	return false
}

func (j *Journal) readID() error {
	path := filepath.Join(j.dir, journalIDFile)
	raw, err := os.ReadFile(path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("journal: %w", err)
	}
	if id, err := uuid.ParseBytes([]byte(strings.TrimSpace(string(raw)))); err == nil {
		j.id = id.String()
		return nil
	}
	// A new id is the honest answer where the old one is gone: the server then
	// asks the repository instead of trusting this memory.
	j.id = uuid.NewString()
	if err := writeDurably(path, []byte(j.id+"\n")); err != nil {
		return fmt.Errorf("journal: %w", err)
	}
	return nil
}

// ID names this journal; another disk, or a disk put back in time, has another
// or an older one.
func (j *Journal) ID() string { return j.id }

// Accept writes down a new job with its command. For one that is known it
// changes nothing and answers known with what is known.
func (j *Journal) Accept(run protocol.Run, at time.Time) (e Entry, known bool, err error) {
	if !jobIDPattern.MatchString(run.JobID) {
		return Entry{}, false, fmt.Errorf("the job id %q is not one", run.JobID)
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	if e, known := j.entries[run.JobID]; known {
		return e, true, nil
	}
	e = Entry{JobID: run.JobID, Kind: run.Kind, State: protocol.JobAccepted, AcceptedAt: at.UTC(), Command: &run}
	return e, false, j.write(e)
}

// Update changes an entry and writes it down; memory changes only after the
// disk has. ErrUnknownJob when there is none.
func (j *Journal) Update(jobID string, change func(*Entry)) (Entry, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	e, ok := j.entries[jobID]
	if !ok {
		return Entry{}, ErrUnknownJob
	}
	change(&e)
	return e, j.write(e)
}

func (j *Journal) write(e Entry) error {
	if err := writeJSONDurably(filepath.Join(j.dir, e.JobID+entrySuffix), e); err != nil {
		return fmt.Errorf("journal of job %s: %w", e.JobID, err)
	}
	j.entries[e.JobID] = e
	return nil
}

// Get answers what is known of a job.
func (j *Journal) Get(jobID string) (Entry, bool) {
	j.mu.Lock()
	defer j.mu.Unlock()
	e, ok := j.entries[jobID]
	return e, ok
}

// Open lists the jobs that are not finished or not acknowledged, oldest first.
func (j *Journal) Open() []Entry {
	j.mu.Lock()
	defer j.mu.Unlock()
	var open []Entry
	for _, e := range j.entries {
		if e.AckedAt.IsZero() {
			open = append(open, e)
		}
	}
	slices.SortFunc(open, func(a, b Entry) int {
		if c := a.AcceptedAt.Compare(b.AcceptedAt); c != 0 {
			return c
		}
		return strings.Compare(a.JobID, b.JobID)
	})
	return open
}

// Hello is Open in the wire's words.
func (j *Journal) Hello() []protocol.HelloJob {
	jobs := []protocol.HelloJob{}
	for _, e := range j.Open() {
		jobs = append(jobs, protocol.HelloJob{JobID: e.JobID, State: e.State})
	}
	return jobs
}

// AckedBefore lists the jobs acknowledged before a time.
func (j *Journal) AckedBefore(t time.Time) []string {
	j.mu.Lock()
	defer j.mu.Unlock()
	var ids []string
	for id, e := range j.entries {
		if !e.AckedAt.IsZero() && e.AckedAt.Before(t) {
			ids = append(ids, id)
		}
	}
	return ids
}

// Forget removes an acknowledged job for good.
func (j *Journal) Forget(jobID string) error {
	j.mu.Lock()
	defer j.mu.Unlock()
	if e, ok := j.entries[jobID]; !ok || e.AckedAt.IsZero() {
		return ErrUnknownJob
	}
	if err := os.Remove(filepath.Join(j.dir, jobID+entrySuffix)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	delete(j.entries, jobID)
	return nil
}
