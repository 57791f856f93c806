package views

import (
	"strings"
	"time"

	"github.com/a-h/templ"

	"resticfleet/views/ui"
)

// Errors are what was wrong with a form, by field name; "" is the whole form's.
type Errors map[string]string

// first is the first of the fields that has an error; without any it is the
// first of all, where a form begins.
func (e Errors) first(fields ...string) string {
	for _, field := range fields {
		if e[field] != "" {
			return field
		}
	}
	return fields[0]
}

// HostForm adds a host: POST /hosts with name, labels (comma separated) and,
// folded away, restic_host.
type HostForm struct {
	Name, Labels, ResticHost string
	Errors                   Errors
}

// Enrolment is the page of a host whose agent hasn't called yet:
// /hosts/{id}/enrol. EnrolmentLive is fetched again at the event "host" and
// becomes a link to the host when it came.
type Enrolment struct {
	Clock    ui.Clock
	HostID   string
	HostName string
	// Command is what to paste, "" once the token is no longer shown; a form
	// then makes a new one by POST to the same address.
	Command   string
	ExpiresAt time.Time
	Enrolled  bool
	// RepositorySet and GroupCount tell which of the next steps are done.
	RepositorySet bool
	GroupCount    int
}

// EnvRow is one line of the backend's environment. Set means that a value is
// stored; it is never shown, and an empty field keeps it.
type EnvRow struct {
	Name  string
	Set   bool
	Error string
}

// RepositoryForm sets a host's repository: POST /hosts/{id}/repository with
// url, password and any number of env_name, env_value pairs in order.
type RepositoryForm struct {
	HostID, HostName string
	URL              string
	// PasswordSet means that one is stored: an empty field keeps it.
	PasswordSet bool
	Env         []EnvRow
	Errors      Errors
}

// Retention are the numbers of a policy as they stand in their fields: empty
// for none, otherwise what was typed, so that a mistake can be shown again.
type Retention struct {
	KeepLast, KeepHourly, KeepDaily, KeepWeekly, KeepMonthly, KeepYearly string
	KeepWithin                                                           string
	KeepTags                                                             string // comma separated
}

// GroupForm makes or changes a source group: POST to Action with name, tag,
// includes and excludes (one a line), keep_last … keep_tags, min_files, min_bytes.
type GroupForm struct {
	HostID, HostName string
	// ID is "" for a new one.
	ID                 string
	Action             string
	Name, Tag          string
	Includes, Excludes string
	Retention          Retention
	MinFiles, MinBytes string
	Errors             Errors
}

// ScheduleForm makes or changes a schedule: POST to Action with cron, enabled
// ("on") and any number of source_group_ids.
type ScheduleForm struct {
	HostID, HostName string
	// ID is "" for a new one.
	ID      string
	Action  string
	Cron    string
	Enabled bool
	Groups  []GroupChoice
	Preview CronPreview
	Errors  Errors
}

// GroupChoice is a source group to tick.
type GroupChoice struct {
	ID, Name string
	Includes []string
	Checked  bool
	// Unscheduled means that no schedule runs it yet.
	Unscheduled bool
}

// CronPreview is what an expression means, for GET /cron-preview?cron=&host_id=.
// It answers with status 200 for a bad expression too: it is no form.
type CronPreview struct {
	// Clock's zone is the one the expression is evaluated in.
	Clock    ui.Clock
	HostName string
	// Words is "" for an expression that is empty or wrong; Error says why.
	Words, Error string
	Runs         []CronRun
}

// CronRun is a coming run; Note says what the clocks do to it.
type CronRun struct {
	At   time.Time
	Note string
}

// Confirm asks before something is lost. It is a page of its own, and inside
// the dialog when HTMX asks for it.
type Confirm struct {
	Heading string
	// Lost and Stays are sentences; either may be empty.
	Lost, Stays string
	// Action is where the form posts to, Act its button: Delete “www”.
	Action, Act string
	// Keep is the way out, Keep “www”, and where it leads.
	Keep, KeepURL string
	// TypeName asks to type this name (field "name"); "" doesn't.
	TypeName string
	Error    string
	Crumbs   []ui.Crumb
}

// RemoveFirst is shown instead of Confirm for a source group that schedules
// still refer to.
type RemoveFirst struct {
	Heading string // “www” is still in two schedules
	Text    string
	Rows    []RemoveRow
	// Act is the button that stays disabled, Keep the way out.
	Act           string
	Keep, KeepURL string
	Crumbs        []ui.Crumb
}

// RemoveRow is one schedule that stands in the way; Action takes the group out
// of it, or deletes it where Warning says so.
type RemoveRow struct {
	ID, Words, Detail, Warning, Action string
}

func (f GroupForm) heading() string {
	if f.ID == "" {
		return "New source group on " + f.HostName
	}
	return "Edit “" + f.Name + "” on " + f.HostName
}

func (f ScheduleForm) heading() string {
	if f.ID == "" {
		return "New schedule for " + f.HostName
	}
	return "Edit a schedule of " + f.HostName
}

// unscheduled names the groups that no schedule runs yet, as a sentence.
func (f ScheduleForm) unscheduled() string {
	var names []string
	for _, g := range f.Groups {
		if g.Unscheduled {
			names = append(names, "“"+g.Name+"”")
		}
	}
	switch len(names) {
	case 0:
		return ""
	case 1:
		return names[0] + " has no schedule yet."
	}
	return strings.Join(names[:len(names)-1], ", ") + " and " + names[len(names)-1] + " have no schedule yet."
}

func hostCrumbs(id, name, here string) []ui.Crumb {
	return []ui.Crumb{{Text: "Fleet", URL: "/"}, {Text: name, URL: "/hosts/" + id}, {Text: here}}
}

// envRows are the stored names and always some room for new ones.
func (f RepositoryForm) envRows() []EnvRow {
	rows := append([]EnvRow(nil), f.Env...)
	for range 2 {
		rows = append(rows, EnvRow{})
	}
	return rows
}

// nextClass makes the button of the first step that is left the primary one.
func (e Enrolment) nextClass(step int) string {
	next := 0
	switch {
	case !e.Enrolled:
		next = 1
	case !e.RepositorySet:
		next = 2
	case e.GroupCount == 0:
		next = 3
	}
	if step == next {
		return ui.ButtonPrimary
	}
	return ui.ButtonQuiet
}

func (f RepositoryForm) passwordHint() string {
	if f.PasswordSet {
		return "One is set. Leave empty to keep it."
	}
	return "restic’s own, for this repository. Keep a copy elsewhere: without it nobody can read the snapshots."
}

func (r EnvRow) placeholder() string {
	if r.Set {
		return "set"
	}
	return "Value"
}

func envInvalid(id string, r EnvRow) templ.Attributes {
	if r.Error == "" {
		return nil
	}
	return templ.Attributes{"aria-invalid": "true", "aria-describedby": id + "-error"}
}

func (f GroupForm) crumb() string {
	if f.ID == "" {
		return "new source group"
	}
	return f.Name
}

func (f ScheduleForm) crumb() string {
	if f.ID == "" {
		return "new schedule"
	}
	return "schedule"
}

// previewURL names the host, whose zone decides; the field's own value is added
// by the element that asks.
func (f ScheduleForm) previewURL() string { return "/cron-preview?host_id=" + f.HostID }

func (f ScheduleForm) cronError() string { return f.Errors["cron"] }

// preview shows the form's own error in the place where the next keystroke
// will replace it.
func (f ScheduleForm) preview() CronPreview {
	p := f.Preview
	if f.cronError() != "" {
		p.Error = f.cronError()
	}
	return p
}

// zoneSentence says in whose time the expression is read.
func (c CronPreview) zoneSentence() string {
	s := c.Clock.ZoneName()
	if c.HostName != "" {
		s += ", the zone of " + c.HostName
	}
	return s + ". It is " + c.Clock.Wall(c.Clock.Now) + " there now."
}

func (c CronPreview) runsHeading() string {
	if len(c.Runs) == 5 {
		return "Next five runs"
	}
	return "Next runs"
}
