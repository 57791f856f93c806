package views

import (
	"strconv"
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

// HostEdit changes a host's name and labels: POST /hosts/{id}/edit with name
// and any number of labels. A button named "edit" adds or removes a label's row.
type HostEdit struct {
	HostID, HostName string
	// ResticHost is the name restic records, which no form changes.
	ResticHost string
	Name       string
	Labels     []string
	// Focus is as in GroupForm.
	Focus  string
	Errors Errors
}

// Danger is a host's danger zone: questions, each with its own page.
type Danger struct {
	HostID, HostName string
	Acts             []Confirm
}

// GroupForm makes or changes a source group: POST to Action with name, tag,
// any number of includes and excludes (of several lines each, if somebody
// pastes them), keep_last … keep_tags, min_files, min_bytes (10 GiB). A button
// named "edit" adds or removes a row and stores nothing.
type GroupForm struct {
	HostID, HostName string
	// ID is "" for a new one, and Was the name it is stored under.
	ID, Was            string
	Action             string
	Name, Tag          string
	Includes, Excludes []string
	Retention          Retention
	MinFiles, MinBytes string
	// Preview is what the policy in the fields would do; nil until it is asked.
	Preview *Preview
	// Focus is the list ("includes") whose last row the keyboard goes to, as
	// after a row was added; "" leaves it where a form begins.
	Focus  string
	Errors Errors
	// Setup leads back to the host's setup, which is live: nothing in it takes
	// the focus, as htmx looks for who wants it after every swap.
	Setup bool
}

// list is a field of any number of rows, each a control of the same name.
type list struct {
	Name, Label, Placeholder, Hint string
	// Row names one of its entries: path.
	Row      string
	Rows     []string
	Required bool
	// Focused puts the keyboard into the last row.
	Focused bool
	Errors  Errors
}

// row is one line of a list.
type row struct {
	ID, Value, Label, Error string
	Focused                 bool
}

// rows are the entries, and an empty one where there are none.
func (l list) rows() []row {
	values := l.Rows
	if len(values) == 0 {
		values = []string{""}
	}
	out := make([]row, len(values))
	for i, v := range values {
		n := strconv.Itoa(i)
		out[i] = row{ID: "f-" + l.Name + "-" + n, Value: v, Label: l.Label + ", " + l.Row + " " + strconv.Itoa(i+1), Error: l.Errors[l.Name+"["+n+"]"]}
		if i == 0 {
			out[i].ID, out[i].Label = "f-"+l.Name, ""
		}
	}
	out[len(out)-1].Focused = l.Focused
	if out[0].Error == "" && !l.rowWrong() {
		out[0].Error = l.Errors[l.Name]
	}
	return out
}

// rowWrong tells a mistake in one row from one that is the whole list's.
func (l list) rowWrong() bool {
	for field := range l.Errors {
		if strings.HasPrefix(field, l.Name+"[") {
			return true
		}
	}
	return false
}

func (r row) attributes(hint string) templ.Attributes {
	attrs := templ.Attributes{}
	if r.Label != "" {
		attrs["aria-label"] = r.Label
	}
	by := hint
	if r.Error != "" {
		attrs["aria-invalid"], by = "true", r.ID+"-error "+hint
	}
	attrs["aria-describedby"] = by
	return attrs
}

// ScheduleForm makes or changes a schedule: POST to Action with cron, enabled
// ("on") and any number of source_group_ids. A button named "edit" explains the
// expression, or its own if it has one, and stores nothing.
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
	// Title is the act's name in a list of acts; "" outside of one.
	Title string
	// Heading is the question.
	Heading string
	// Lost and Stays are sentences; either may be empty.
	Lost, Stays string
	// Action is where the form posts to, Act its button: Delete “www”.
	Action, Act string
	// Keep is the way out, Keep “www”, and where it leads.
	Keep, KeepURL string
	// TypeName asks to type this name (field "name"); "" doesn't. Typed is what
	// was typed in its place.
	TypeName, Typed string
	Error           string
	Crumbs          []ui.Crumb
}

// RemoveFirst is shown instead of Confirm for a source group that schedules
// still refer to.
type RemoveFirst struct {
	Heading string // “www” is still in two schedules
	Text    string
	Rows    []RemoveRow
	// Again puts the keyboard on the next removal: one was just made.
	Again bool
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
	return "Edit “" + f.Was + "” on " + f.HostName
}

func (f GroupForm) tagHint() string {
	const rules = "On every snapshot of this group, and this group’s for ever. No comma, and not job: at its beginning."
	if f.ID == "" {
		return rules + " Empty takes the name."
	}
	return rules + " Older snapshots keep the tag they have."
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
	return enumerate(names, "and") + " have no schedule yet."
}

// HostCrumbs lead back up to a host.
func HostCrumbs(id, name string, rest ...ui.Crumb) []ui.Crumb {
	return append([]ui.Crumb{{Text: "Fleet", URL: "/"}, {Text: name, URL: "/hosts/" + id}}, rest...)
}

func hostCrumbs(id, name, here string) []ui.Crumb { return HostCrumbs(id, name, ui.Crumb{Text: here}) }

func (f GroupForm) crumb() string {
	if f.ID == "" {
		return "new source group"
	}
	return f.Was
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

// choiceAttributes put the mistake of having chosen none on the first choice.
func (f ScheduleForm) choiceAttributes(i int) templ.Attributes {
	if i > 0 || f.Errors["source_group_ids"] == "" {
		return nil
	}
	return templ.Attributes{"aria-invalid": "true", "aria-describedby": "f-source_group_ids-error"}
}

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
