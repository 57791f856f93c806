package views

import (
	"time"

	"resticfleet/views/ui"
)

// Audit is the list of /settings/audit.
type Audit struct {
	Clock  ui.Clock
	Filter AuditFilter
	Errors Errors
	// Subjects are what the filter's field what offers.
	Subjects   []string
	Rows       []AuditRow
	NextCursor string
}

// AuditFilter are the values of the filter's fields, "" for any. From and Until
// are days, the latter included.
type AuditFilter struct{ Actors, Who, Subject, From, Until, Outcome string }

// AuditRow is one entry.
type AuditRow struct {
	ID string
	At time.Time
	// ActorKind is user, token, agent or system; ActorName may be empty.
	ActorKind, ActorName string
	// Words say what was asked for, Route by which way.
	Words, Route string
	// About is what it was done to, from the outermost to the innermost.
	About []ui.Link
	// Outcome is the HTTP status.
	Outcome int
	Address string
}

var actorChoices = []Choice{
	{"", "People and programs"},
	{"user", "People"},
	{"token", "API tokens"},
	{"system", "Nobody logged in"},
	{"agent", "Agents"},
}

var outcomeChoices = []Choice{
	{"", "Any outcome"},
	{"done", "Done"},
	{"refused", "Refused"},
	{"failed", "Failed"},
}

func (a Audit) subjectChoices() []Choice {
	out := []Choice{{"", "Anything"}}
	for _, s := range a.Subjects {
		out = append(out, Choice{s, s})
	}
	return out
}

func (a Audit) olderURL() string {
	f := a.Filter
	return olderURL(a.NextCursor, "/settings/audit", "actors", f.Actors, "who", f.Who, "what", f.Subject, "from", f.From, "until", f.Until, "outcome", f.Outcome)
}

func (a Audit) empty() string {
	if a.Filter == (AuditFilter{}) {
		return "Nothing was changed yet."
	}
	return "No entry fits this filter."
}

// who is the actor in words.
func (r AuditRow) who() string {
	switch {
	case r.ActorName != "":
		return r.ActorName
	case r.ActorKind == "agent":
		return "an agent"
	}
	return "nobody logged in"
}

// state and outcome tell how it ended.
func (r AuditRow) state() ui.State {
	switch {
	case r.Outcome >= 500:
		return ui.Failed
	case r.Outcome >= 400:
		return ui.Warning
	}
	return ui.Good
}

func (r AuditRow) outcome() string {
	switch {
	case r.Outcome >= 500:
		return "Failed"
	case r.Outcome >= 400:
		return "Refused"
	}
	return "Done"
}
