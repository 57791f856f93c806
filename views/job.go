package views

import (
	"strconv"
	"strings"
	"time"

	"resticfleet/views/ui"
)

// Job answers "how far, or why not?". JobLive is the page's body, the partial
// of GET /jobs/{id} and, wrapped by JobUpdate, what the stream pushes. The log
// stands beside it and only grows: LogAppend.
type Job struct {
	Clock            ui.Clock
	ID               string
	HostID, HostName string
	// Kind is init, backup, forget, prune, check, unlock, restore or drill.
	Kind               string
	GroupID, GroupName string
	// State is the API's: queued, sent, running, succeeded, warning, failed,
	// cancelled, skipped, expired or lost.
	State string
	Actor Actor
	// ScheduledAt is the due time that made it, zero for none.
	ScheduledAt   time.Time
	CatchUp, Late bool
	// WaitingFor says what a queued or sent job waits for, as a sentence.
	WaitingFor string

	QueuedAt, SentAt, AcceptedAt, StartedAt, FinishedAt, CancelRequestedAt time.Time

	// Progress is of a running job, nil until there is some.
	Progress *Progress
	// ErrorCode is the agent protocol's, Error its sentences: cause, then remedy.
	ErrorCode, Error string
	ExitCode         *int
	// Unreadable are the names of files that could not be read.
	Unreadable []string
	// SnapshotID is the full id of what was written, "" for nothing.
	SnapshotID   string
	RepositoryID string
	Stats        *Stats
	// NewestGood is the group's newest good snapshot that exists besides this
	// job's own, nil for none.
	NewestGood *Snapshot
	// CanCancel and CanRunAgain already take role and state into account;
	// CanAdminister shows the links to the repository's form.
	CanCancel, CanRunAgain, CanAdminister bool
}

// Actor is who asked for a job.
type Actor struct {
	// Kind is user, schedule or system.
	Kind string
	// Name is the user's, or the schedule in words.
	Name string
	// URL leads to the schedule, "" where it is gone.
	URL string
}

// Progress is restic's newest word on a running job.
type Progress struct {
	Percent               float64
	FilesDone, TotalFiles int64
	BytesDone, TotalBytes int64
	Unreadable            int64
	Remaining             time.Duration // 0 is unknown
	CurrentFiles          []string
}

// Stats are restic's summary figures.
type Stats struct {
	FilesNew, FilesChanged, FilesUnmodified int64
	TotalFiles, TotalBytes, AddedBytes      int64
}

// Snapshot is one as far as a job page names it.
type Snapshot struct {
	ID string
	At time.Time
}

// Log is the panel below a job: the newest lines and where the rest is.
type Log struct {
	Clock ui.Clock
	JobID string
	Lines []LogLine
	// Follows is true while lines may still come.
	Follows bool
	// Earlier is true when lines before the first shown exist.
	Earlier bool
}

// LogLine is one line of a job's log.
type LogLine struct {
	Seq   int64
	At    time.Time
	Level string // info, warning or error
	Text  string
}

// JobTitle names a job by its kind and, if it has one, its source group.
func JobTitle(kind, group string) string {
	title := "Job"
	switch kind {
	case "init":
		title = "Init"
	case "backup":
		title = "Backup"
	case "forget":
		title = "Forget"
	case "prune":
		title = "Prune"
	case "check":
		title = "Check"
	case "unlock":
		title = "Unlock"
	case "restore":
		title = "Restore"
	case "drill":
		title = "Drill"
	}
	if group != "" {
		title += " of " + group
	}
	return title
}

// JobState is the badge of a job's state.
func JobState(state string) ui.State {
	switch state {
	case "queued", "sent":
		return ui.Waiting
	case "running":
		return ui.Running
	case "succeeded":
		return ui.Good
	case "warning":
		return ui.Warning
	case "failed":
		return ui.Failed
	case "cancelled":
		return ui.Cancelled
	case "skipped":
		return ui.Skipped
	case "expired":
		return ui.Expired
	}
	return ui.Lost
}

func (j Job) title() string { return JobTitle(j.Kind, j.GroupName) }

func (j Job) ended() bool { return !j.FinishedAt.IsZero() }

func (j Job) took() time.Duration {
	if j.StartedAt.IsZero() {
		return 0
	}
	if j.FinishedAt.IsZero() {
		return j.Clock.Now.Sub(j.StartedAt)
	}
	return j.FinishedAt.Sub(j.StartedAt)
}

// hop is one step of a job's way, with the time since the one before.
type hop struct {
	text string
	at   time.Time
}

// hops are the steps that were taken: Queued 14:50:01.204, Sent +3 ms, ….
func (j Job) hops() []hop {
	if j.QueuedAt.IsZero() {
		return nil
	}
	out := []hop{{"Queued " + j.Clock.WallMillis(j.QueuedAt), j.QueuedAt}}
	last := j.QueuedAt
	for _, step := range []struct {
		name string
		at   time.Time
	}{
		{"Sent", j.SentAt},
		{"Accepted", j.AcceptedAt},
		{"restic started", j.StartedAt},
		{"Ended", j.FinishedAt},
	} {
		if step.at.IsZero() {
			continue
		}
		out = append(out, hop{step.name + " +" + ui.Duration(step.at.Sub(last)), step.at})
		last = step.at
	}
	return out
}

// rate is bytes a second since the start, 0 while that says nothing yet.
func (j Job) rate() int64 {
	took := j.took()
	if j.Progress == nil || took < 2*time.Second {
		return 0
	}
	return int64(float64(j.Progress.BytesDone) / took.Seconds())
}

// pace is the right-hand side of the percentage: about 2 min left · 24 MiB/s.
func (j Job) pace() string {
	var parts []string
	if j.Progress != nil && j.Progress.Remaining > 0 {
		parts = append(parts, ui.Remaining(j.Progress.Remaining))
	}
	if r := j.rate(); r > 0 {
		parts = append(parts, ui.Bytes(r)+"/s")
	}
	return strings.Join(parts, " · ")
}

func shortID(id string) string {
	if len(id) > 8 {
		return id[:8]
	}
	return id
}

func (j Job) crumb() string {
	title := j.title()
	return strings.ToLower(title[:1]) + title[1:]
}

// explains is true for ends that need words rather than figures.
func (j Job) explains() bool {
	switch j.State {
	case "warning", "failed", "cancelled", "skipped", "expired", "lost":
		return true
	}
	return false
}

func (j Job) runURL() string { return "/hosts/" + j.HostID + "/source-groups/" + j.GroupID + "/run" }

// mayFollow is false for the repository's form when the reader isn't an administrator.
func (j Job) mayFollow(url string) bool {
	return j.CanAdminister || !strings.HasSuffix(url, "/repository")
}

func (j Job) exitNote() string {
	if j.ExitCode == nil || *j.ExitCode == 0 {
		return ""
	}
	return " restic’s exit code was " + strconv.Itoa(*j.ExitCode) + "."
}

func (j Job) currentFile() string {
	if j.Progress == nil || len(j.Progress.CurrentFiles) == 0 {
		return ""
	}
	return j.Progress.CurrentFiles[0]
}

// waitingFor is what a job that hasn't begun waits for, from the farthest step
// it has reached where nobody said more.
func (j Job) waitingFor() string {
	switch {
	case j.WaitingFor != "":
		return j.WaitingFor
	case !j.AcceptedAt.IsZero():
		return j.HostName + " has it and starts it as soon as it can."
	case j.State == "sent":
		return "On its way to " + j.HostName + "."
	}
	return "It goes to " + j.HostName + " as soon as its turn comes."
}

func (l LogLine) colour() string {
	switch l.Level {
	case "warning":
		return "text-warning"
	case "error":
		return "text-error"
	}
	return ""
}

// word tells the level to those who can't see its colour.
func (l LogLine) word() string {
	switch l.Level {
	case "warning":
		return "Warning"
	case "error":
		return "Error"
	}
	return ""
}

// about is what is special about a job, as the end of who started it.
func (j Job) about() string {
	s := ""
	if j.CatchUp {
		s += ", catch-up for a missed run"
	}
	if j.Late {
		s += ", its end was reported late"
	}
	return s
}

func (j Job) after() string {
	if j.took() <= 0 {
		return ""
	}
	return ", after " + ui.Duration(j.took())
}
