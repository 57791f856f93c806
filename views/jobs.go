package views

import (
	"time"

	"resticfleet/views/ui"
)

// Jobs is the list of /jobs and, with HostID set, of /hosts/{id}/jobs.
// JobsLive is its partial and live update: fetched again at the event "jobs".
type Jobs struct {
	Clock ui.Clock
	// HostID and HostName are set on a host's own list.
	HostID, HostName string
	// UnderWay, and today's ends, for the heading.
	UnderWay, GoodToday, WarnedToday, FailedToday int
	// Filter is what the form's fields state, kind and host hold.
	Filter JobsFilter
	// HostChoices are the hosts to pick from; empty hides the choice.
	HostChoices []Choice
	Rows        []JobRow
	// Cursor is this page's, "" for the first; NextCursor the next one's, "" at the end.
	Cursor, NextCursor string
}

// JobsFilter are the values of the filter's fields, "" for any.
type JobsFilter struct{ State, Kind, Host string }

// Choice is an option of a select.
type Choice struct{ Value, Text string }

// JobRow is a line in a list of jobs.
type JobRow struct {
	ID               string
	State            string // the API's
	Kind, GroupName  string
	HostID, HostName string
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

var stateChoices = []Choice{
	{"", "Any state"},
	{"queued", "Queued"},
	{"sent", "Sent"},
	{"running", "Running"},
	{"succeeded", "Good"},
	{"warning", "Warning"},
	{"failed", "Failed"},
	{"cancelled", "Cancelled"},
	{"skipped", "Skipped"},
	{"expired", "Expired"},
	{"lost", "Lost"},
}

var kindChoices = []Choice{
	{"", "Any kind"},
	{"backup", "Backup"},
	{"init", "Init"},
	{"forget", "Forget"},
	{"prune", "Prune"},
	{"check", "Check"},
	{"unlock", "Unlock"},
	{"restore", "Restore"},
	{"drill", "Drill"},
}

func (j Jobs) path() string {
	if j.HostID != "" {
		return "/hosts/" + j.HostID + "/jobs"
	}
	return "/jobs"
}

func (j Jobs) selfURL() string { return listURL(j.path(), "cursor", j.Cursor) }

// olderURL is the next page's, "" on the last.
func (j Jobs) olderURL() string {
	if j.NextCursor == "" {
		return ""
	}
	return listURL(j.path(), "state", j.Filter.State, "kind", j.Filter.Kind, "host", j.Filter.Host, "cursor", j.NextCursor)
}

func (j Jobs) filtered() bool { return j.Filter != (JobsFilter{}) }

func (j Jobs) heading() string {
	where := ""
	if j.HostName != "" {
		where = " on " + j.HostName
	}
	if j.UnderWay == 0 {
		return "No job under way" + where
	}
	return ui.Count(int64(j.UnderWay), "job under way", "jobs under way") + where
}

func (j Jobs) subheading() string {
	if j.GoodToday+j.WarnedToday+j.FailedToday == 0 {
		return "None ended today."
	}
	s := ui.Number(int64(j.GoodToday)) + " ended well today"
	if j.WarnedToday > 0 {
		s += ", " + ui.Number(int64(j.WarnedToday)) + " with a warning"
	}
	if j.FailedToday > 0 {
		s += ", " + ui.Number(int64(j.FailedToday)) + " failed"
	}
	return s + "."
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

func (j Jobs) hostChoices() []Choice {
	return append([]Choice{{"", "Any host"}}, j.HostChoices...)
}
