package views

import (
	"strconv"
	"strings"
	"time"

	"resticfleet/views/ui"
)

// Enrolment is the way of a host from its name to its first backup:
// /hosts/{id}/enrol. EnrolmentLive is fetched again at the event "host", so that
// each step turns into the next one by itself; a form that is open stays.
type Enrolment struct {
	Clock            ui.Clock
	HostID, HostName string
	// CanAdminister shows the line and the repository's form.
	CanAdminister bool

	// Enrolled means that a line was used, Arrived that the agent has called
	// since, Online that it is there now.
	Enrolled, Arrived, Online bool
	OS                        string
	// About is what the agent told of its machine: "linux", "restic 0.19.1".
	About []string
	// NoRestic: it has called and found no restic that it can use.
	NoRestic bool

	Line

	Repository *Repository
	// RepositoryForm is the form to show in the second step, nil for none, and
	// GroupForm the one of the third.
	RepositoryForm *RepositoryForm
	GroupForm      *GroupForm

	Groups []ui.Link
	// First is the backup that the last but one step is about, nil without a
	// source group.
	First *FirstBackup
	// Schedules are the host's, in words.
	Schedules []string
}

// Line is what to paste on the host, as far as this browser may be shown it.
type Line struct {
	// Command is "" where there is none that still works; Expired says that
	// there was one.
	Command           string
	MadeAt, ExpiresAt time.Time
	Expired           bool
	// RunCommand is what starts the agent after it.
	RunCommand string
	// Server is the address in the command. OnlyHere: it leads no farther than
	// the server's own machine. Plain: what goes there goes in clear.
	Server          string
	OnlyHere, Plain bool
}

// FirstBackup is a source group on its way to its first good snapshot.
type FirstBackup struct {
	Group
	// Cause is why the last run gave none, JobID that run's or the good one's.
	Cause, JobID string
	SnapshotID   string
}

func (f *FirstBackup) good() bool { return f != nil && !f.NewestGood.IsZero() }

// ended: it ran and gave no good snapshot.
func (f *FirstBackup) ended() bool { return f.ActiveJobID == "" && f.JobID != "" && !f.good() }

// The steps.
const (
	StepEnrol = 1 + iota
	StepRepository
	StepGroup
	StepBackup
	StepSchedule
)

// Next is the first step that is left to do, 0 when none is.
func (e Enrolment) Next() int {
	switch {
	case !e.Arrived:
		return StepEnrol
	case e.Repository == nil || e.Repository.stuck():
		return StepRepository
	case len(e.Groups) == 0:
		return StepGroup
	case !e.First.good():
		return StepBackup
	case len(e.Schedules) == 0:
		return StepSchedule
	}
	return 0
}

// Retry reports whether the second step wants another try rather than a form.
func (e Enrolment) Retry() bool {
	return e.Repository != nil && e.Repository.stuck() && e.Repository.Changed
}

// EnrolURL is the page of a host's setup.
func EnrolURL(host string) string { return "/hosts/" + host + "/enrol" }

func (e Enrolment) url() string { return "/hosts/" + e.HostID }

func (e Enrolment) stepURL(step int) string {
	n := strconv.Itoa(step)
	return EnrolURL(e.HostID) + "?step=" + n + "#step-" + n
}

// selfURL keeps an open form open, whatever somebody else does meanwhile.
func (e Enrolment) selfURL() string {
	switch {
	case e.RepositoryForm != nil:
		return EnrolURL(e.HostID) + "?step=" + strconv.Itoa(StepRepository)
	case e.GroupForm != nil:
		return EnrolURL(e.HostID) + "?step=" + strconv.Itoa(StepGroup)
	}
	return EnrolURL(e.HostID)
}

// Heading is the page's.
func (e Enrolment) Heading() string {
	switch {
	case !e.Arrived:
		return "Add " + e.HostName
	case e.Next() == 0:
		return e.HostName + " is set up"
	}
	return "Set up " + e.HostName
}

func (e Enrolment) enrolHead() string {
	switch {
	case e.Arrived:
		return e.HostName + " is here"
	case e.Enrolled:
		return "Start the agent on " + e.HostName
	case e.Command == "":
		return "Enrol " + e.HostName
	}
	return "Paste this on " + e.HostName + ", as root"
}

// about is what is known of the host, and how it is linked now.
func (e Enrolment) about() string {
	if !e.Arrived {
		return ""
	}
	link := "offline"
	if e.Online {
		link = "online"
	}
	return strings.Join(append([]string{link}, e.About...), " · ")
}

func (e Enrolment) waiting() string {
	if e.Enrolled {
		return "Waiting for the agent of " + e.HostName + " to start"
	}
	return "Waiting for " + e.HostName + " to call"
}

// lineNote says why there is no line to see.
func (e Enrolment) lineNote() string {
	switch {
	case !e.CanAdminister:
		return "An administrator makes the line that is pasted there."
	case e.Expired:
		return "The line expired " + e.Clock.Short(e.ExpiresAt) + " " + e.Clock.ZoneName() + " and was not used. An agent that tries it is told so."
	}
	return "The line carries a token, which is shown only in the browser that made it."
}

// number is a step's mark: filled while it is what to do now.
func (e Enrolment) number(step int) string {
	if e.Next() == step {
		return "grid size-6 shrink-0 place-items-center rounded-full bg-primary text-sm font-semibold text-primary-content"
	}
	return "grid size-6 shrink-0 place-items-center rounded-full bg-base-300 text-sm font-semibold"
}

// act is the class of a step's button: the primary one where it is the next.
func (e Enrolment) act(step int) string {
	return rank(e.Next() == step)
}

// retryClass: beside an open form, saving that is the primary act.
func (e Enrolment) retryClass() string {
	return rank(e.RepositoryForm == nil && e.Next() == StepRepository)
}

func (e Enrolment) repositoryReady() bool {
	return e.Repository != nil && e.Repository.State == ui.Good
}

// openJob is the job to look at where nothing else leads there.
func (f *FirstBackup) openJob() string {
	switch {
	case f.ActiveJobID != "":
		return f.ActiveJobID
	case f.good():
		return f.JobID
	}
	return ""
}

func (f *FirstBackup) wrote() string {
	parts := []string{"snapshot " + shortID(f.SnapshotID)}
	if f.SizeBytes > 0 {
		parts = append(parts, ui.Bytes(f.SizeBytes))
	}
	return strings.Join(parts, " · ")
}

// setupLeft is what a host's page says of a setup that somebody left in the
// middle; "" once there is a good snapshot, or a schedule that will make one.
func (h Host) setupLeft() string {
	switch {
	case !h.Enrolled:
		return "Its agent has not called yet."
	case len(h.Schedules) > 0:
		return ""
	case h.Repository == nil:
		return "Next: where its snapshots go."
	case len(h.Groups) == 0:
		return "Next: what to back up."
	}
	for _, g := range h.Groups {
		if !g.NewestGood.IsZero() || g.ActiveJobID != "" {
			return ""
		}
	}
	return "Next: its first backup."
}

func (h Host) setupBanner() ui.Banner {
	b := ui.Banner{State: ui.Waiting, Title: "Not set up yet", Text: h.setupLeft()}
	if !h.Enrolled {
		b.Title = "Not enrolled"
	}
	switch {
	case !h.Enrolled && h.CanAdminister:
		b.Link = ui.Link{Text: "Show how to enrol it", URL: EnrolURL(h.ID)}
	case h.Enrolled && h.CanOperate:
		b.Link = ui.Link{Text: "Finish setting up", URL: EnrolURL(h.ID)}
	}
	return b
}
