package views

import (
	"time"

	"resticfleet/views/ui"
)

// Jobs is the list of /jobs and, with HostID set, of /hosts/{id}/jobs.
// JobsLive is its partial and live update: fetched again at the event "jobs".
type Jobs struct {
	Clock ui.Clock
	// HostID and HostName are set on a host's own list; HostGone says that the
	// host was deleted.
	HostID, HostName string
	HostGone         bool
	CanAdminister    bool // on a host's own list
	// UnderWay, and today's ends, for the heading; MaxUnderWay is where counting
	// stopped.
	UnderWay, MaxUnderWay, GoodToday, WarnedToday, FailedToday int
	// Filter is what the form's fields hold.
	Filter JobsFilter
	// Errors are what is wrong with the form, by field.
	Errors Errors
	// HostNames are offered while a host's name is typed.
	HostNames []string
	// Groups are the source groups of the one host that the list is of; empty
	// hides the choice.
	Groups []Choice
	Rows   []JobRow
	// Newer is how many jobs were made since and are held back, so that what is
	// looked at stays where it is.
	Newer int
	// Cursor is this page's, "" for the first; NextCursor the next one's, "" at the end.
	Cursor, NextCursor string
}

// JobsFilter are the values of the filter's fields, "" for any.
type JobsFilter struct{ State, Kind, Host, Group, When, From, To string }

// Choice is an option of a select.
type Choice struct{ Value, Text string }

// JobRow is a line in a list of jobs.
type JobRow struct {
	ID               string
	State            string // the API's
	Kind, GroupName  string
	HostID, HostName string
	HostGone         bool
	// Percent is a running job's, below 0 for none known.
	Percent float64
	// By is who asked: "anna", "schedule, catch-up", "system".
	By       string
	QueuedAt time.Time
	// Took is how long it ran, 0 for not at all; Waits replaces it: "behind www".
	Took  time.Duration
	Waits string
	// Outcome is what came of it in a few words: "+212 MiB", "wrong password".
	Outcome string
}

// The filter's value for a span of time that the form's own fields give.
const WhenBetween = "between"

// JobStateChoices are what the filter offers; all but the first are states of
// the API, or several of them that people call by one word.
var JobStateChoices = []Choice{
	{"", "Any state"},
	{"open", "Under way"},
	{"waiting", "Waiting"},
	{"running", "Running"},
	{"succeeded", "Good"},
	{"warning", "Warning"},
	{"failed", "Failed"},
	{"cancelled", "Cancelled"},
	{"skipped", "Skipped"},
	{"expired", "Expired"},
	{"lost", "Lost"},
}

// JobKindChoices are the kinds that stand in a list; look-ups don't.
var JobKindChoices = []Choice{
	{"", "Any kind"},
	{"backup", "Backup"},
	{"init", "Init"},
	{"forget", "Forget"},
	{"prune", "Prune"},
	{"check", "Check"},
	{"unlock", "Unlock"},
}

// JobWhenChoices are spans of time up to now, as time.ParseDuration reads them.
var JobWhenChoices = []Choice{
	{"", "Any time"},
	{"1h", "Last hour"},
	{"24h", "Last 24 hours"},
	{"168h", "Last 7 days"},
	{"720h", "Last 30 days"},
	{WhenBetween, "Between two times"},
}

func (j Jobs) path() string {
	if j.HostID != "" {
		return "/hosts/" + j.HostID + "/jobs"
	}
	return "/jobs"
}

// url is this list with its filter, from a cursor on.
func (j Jobs) url(cursor string) string {
	f := j.Filter
	return listURL(j.path(), "state", f.State, "kind", f.Kind, "host", f.Host, "group", f.Group, "when", f.When, "from", f.From, "to", f.To, "cursor", cursor)
}

// olderURL is the next page's, "" on the last.
func (j Jobs) olderURL() string {
	if j.NextCursor == "" {
		return ""
	}
	return j.url(j.NextCursor)
}

// newestID is the first row's, "" where the list doesn't begin with the newest:
// nothing new comes into such a page.
func (j Jobs) newestID() string {
	if j.Cursor != "" || len(j.Rows) == 0 {
		return ""
	}
	return j.Rows[0].ID
}

func (j Jobs) newer() string { return ui.Count(int64(j.Newer), "newer job", "newer jobs") }

func (j Jobs) filtered() bool { return j.Filter != (JobsFilter{}) }

func (j Jobs) heading() string {
	where := ""
	if j.HostName != "" {
		where = " on " + j.HostName
	}
	switch j.UnderWay {
	case 0:
		return "No job under way" + where
	case j.MaxUnderWay:
		return ui.Number(int64(j.UnderWay)) + " or more jobs under way" + where
	}
	return ui.Count(int64(j.UnderWay), "job under way", "jobs under way") + where
}

func (j Jobs) subheading() string {
	if j.GoodToday+j.WarnedToday+j.FailedToday == 0 {
		return "No backup ended today."
	}
	s := ui.Count(int64(j.GoodToday), "backup", "backups") + " ended well today"
	if j.WarnedToday > 0 {
		s += ", " + ui.Number(int64(j.WarnedToday)) + " with a warning"
	}
	if j.FailedToday > 0 {
		s += ", " + ui.Number(int64(j.FailedToday)) + " failed"
	}
	return s + "."
}

func (j Jobs) crumbs() []ui.Crumb {
	if j.HostGone {
		return []ui.Crumb{{Text: "Fleet", URL: "/"}, {Text: j.HostName + " (deleted)"}, {Text: "jobs"}}
	}
	return hostCrumbs(j.HostID, j.HostName, "jobs")
}

// hostURL is where a row's host leads: of a deleted one the history is left.
func (r JobRow) hostURL() string {
	if r.HostGone {
		return "/hosts/" + r.HostID + "/jobs"
	}
	return "/hosts/" + r.HostID
}

func (r JobRow) url() string { return "/jobs/" + r.ID }

func (r JobRow) title() string { return JobTitle(r.Kind, r.GroupName) }

// stateText is the percentage of a running job, otherwise the state's word.
func (r JobRow) stateText() string {
	if r.State == "running" && r.Percent >= 0 {
		return ui.Percent(r.Percent)
	}
	return JobState(r.State).Word()
}

func (r JobRow) took() string {
	switch {
	case r.Waits != "":
		return r.Waits
	case r.Took > 0:
		return ui.Duration(r.Took)
	}
	return "–"
}

// narrow is what a small screen shows below the title: there is no room for
// columns.
func (r JobRow) narrow() string {
	switch {
	case r.Waits != "":
		return r.Waits
	case r.Outcome != "" && r.Took > 0:
		return r.Outcome + ", " + ui.Duration(r.Took)
	case r.Took > 0:
		return ui.Duration(r.Took)
	}
	return r.Outcome
}

func (j Jobs) hostError() string {
	if j.HostID != "" {
		return ""
	}
	return j.Errors["host"]
}
