package views

import (
	"slices"
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
	// HostGone and GroupGone: they were deleted since; their names stay.
	HostGone, GroupGone bool
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
	// WaitingFor says what a job that hasn't begun waits for, as sentences, and
	// WaitLink leads to it where it is another job.
	WaitingFor string
	WaitLink   ui.Link
	// Silent says that nothing is heard of the host that has this job.
	Silent string

	QueuedAt, SentAt, AcceptedAt, StartedAt, FinishedAt, CancelRequestedAt time.Time

	// Progress is of a running job, nil until there is some.
	Progress *Progress
	// ErrorCode is the agent protocol's or one of models', Error the sentences to
	// it: cause, then remedy.
	ErrorCode, Error string
	ExitCode         *int
	// Unreadable are the names of files that could not be read.
	Unreadable []string
	// SnapshotID is the full id of what was written, "" for nothing.
	SnapshotID   string
	RepositoryID string
	Stats        *Stats
	// Maintained is what a forget, prune or check told of its work, nil for none.
	Maintained *Maintained
	// LocksRemoved and LocksLeft are of an unlock.
	LocksRemoved, LocksLeft int64
	// NewestGood is the newest good snapshot of the group, nil for none.
	NewestGood *Snapshot
	// CanCancel and CanRunAgain already take role and state into account;
	// CanOperate and CanAdminister show the links to the group's and the
	// repository's forms.
	CanCancel, CanRunAgain, CanOperate, CanAdminister bool
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
	// JobID is the job that made it, "" where that is not known.
	JobID string
	// Elsewhere is the repository that it is in, where the host has another one
	// now.
	Elsewhere string
}

// Log is the panel below a job: the newest lines and where the rest is.
type Log struct {
	Clock ui.Clock
	JobID string
	Lines []LogLine
	// Follows is true while lines may still come.
	Follows bool
	// Earlier is how many lines come before the first shown.
	Earlier int64
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
	case "snapshots":
		title = "List of snapshots"
	case "diff":
		title = "Comparison"
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
	steps := []hop{
		{"Sent", j.SentAt},
		{"Accepted", j.AcceptedAt},
		{"restic started", j.StartedAt},
		{"Cancel asked for", j.CancelRequestedAt},
		{"Ended", j.FinishedAt},
	}
	slices.SortStableFunc(steps, func(a, b hop) int { return a.at.Compare(b.at) })
	for _, step := range steps {
		if step.at.IsZero() {
			continue
		}
		out = append(out, hop{step.text + " +" + ui.Millis(step.at.Sub(last)), step.at})
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

// crumbs lead back up; of a deleted host only the history is left.
func (j Job) crumbs() []ui.Crumb {
	title := j.title()
	host := ui.Crumb{Text: j.HostName, URL: "/hosts/" + j.HostID}
	if j.HostGone {
		host = ui.Crumb{Text: j.HostName + " (deleted)", URL: host.URL + "/jobs"}
	}
	return []ui.Crumb{{Text: "Fleet", URL: "/"}, host, {Text: strings.ToLower(title[:1]) + title[1:]}}
}

// dangerAgain is where an init or unlock is asked for once more: in the danger
// zone, with its question. "" for other kinds and for those who may not.
func (j Job) dangerAgain() string {
	if !j.ended() || (j.Kind != "init" && j.Kind != "unlock") {
		return ""
	}
	return j.way(toDangerZone)
}

// rank is the class of a button: a block has one primary act.
func rank(primary bool) string {
	if primary {
		return ui.ButtonPrimary
	}
	return ui.ButtonQuiet
}

// explains is true for ends that need words rather than figures.
func (j Job) explains() bool {
	switch j.State {
	case "warning", "failed", "cancelled", "skipped", "expired", "lost":
		return true
	}
	return false
}

func (j Job) againURL() string { return "/jobs/" + j.ID + "/again" }

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

// note is what a job that ended well has to say all the same.
func (j Job) note() string {
	if j.State != "succeeded" {
		return ""
	}
	return j.Error
}

// unreadableTitle counts the names that are known; a job keeps at most a
// hundred.
func (j Job) unreadableTitle() string {
	n := len(j.Unreadable)
	title := ui.Count(int64(n), "file or folder could not be read", "files or folders could not be read")
	if n >= maxUnreadable {
		return "At least " + title
	}
	return title
}

// maxUnreadable is how many names a job keeps.
const maxUnreadable = 100

// newestGood introduces the newest good snapshot of the group: "still" where
// the job was to make a newer one.
func (j Job) newestGood() string {
	if j.NewestGood.At.After(j.QueuedAt) {
		return "The newest good snapshot of " + j.GroupName + " is "
	}
	return "The newest good snapshot of " + j.GroupName + " is still "
}

func (l Log) earlier() string {
	return ui.Count(l.Earlier, "earlier line is", "earlier lines are") + " in the download."
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
	if !j.ScheduledAt.IsZero() {
		s += ", due " + j.Clock.DayWall(j.ScheduledAt)
	}
	if j.CatchUp {
		s += ", catch-up for a missed run"
	}
	if j.Late {
		s += "; its end was reported late"
	}
	return s
}

func (j Job) after() string {
	if j.took() <= 0 {
		return ""
	}
	return ", after " + ui.Duration(j.took())
}

// dangerAct names the act that dangerAgain leads to.
func (j Job) dangerAct() string {
	if j.Kind == "unlock" {
		return "Unlock again"
	}
	return "Initialise again"
}
