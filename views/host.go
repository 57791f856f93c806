package views

import (
	"strings"
	"time"

	"resticfleet/views/ui"
)

// Host answers "what is backed up, when next, is it fine?". HostLive is its
// partial and live update: the page fetches it again from /hosts/{id} at the
// stream's event "host". Every act's form takes an answer without content and
// with HX-Trigger: host as "done, look again".
type Host struct {
	Clock     ui.Clock
	ID, Name  string
	Online    bool
	LastSeen  time.Time
	Link      string // websocket, polling or "" when there is none
	LinkSince time.Time
	// LinkReason says why it polls, as a sentence; "" with a WebSocket.
	LinkReason string
	// ClonedAt is when two machines last took turns with this host's identity,
	// zero while there is no sign of that.
	ClonedAt time.Time
	// ClockAhead is how far the host's clock is ahead of the server's, less than
	// zero when it is behind, as measured at hello.
	ClockAhead    time.Duration
	OS            string
	ResticVersion string
	AgentVersion  string
	Timezone      string
	ZoneAssumed   bool // the agent couldn't name its zone and said UTC
	Labels        []string
	Enrolled      bool
	// ScheduleVersion is the newest of its schedules, ScheduleLag what there is to
	// say while the agent goes by an older one.
	ScheduleVersion int64
	ScheduleLag     *ScheduleLag
	Repository      *Repository
	Groups          []Group
	Schedules       []Schedule
	Jobs            []JobRow
	CanOperate      bool // run, cancel, groups, schedules
	CanAdminister   bool // repository, enrolment, deletion
}

// ScheduleLag says that the agent has not applied the newest schedule version.
// ChangedAt is zero where nobody has changed a schedule: a database was restored.
type ScheduleLag struct {
	ChangedAt        time.Time
	Current, Applied int64
}

// Repository is what may be shown of it.
type Repository struct {
	URL      string
	EnvNames []string
	// ID is restic's own, "" until it is known.
	ID string
	// State is Good once it opened, Waiting or Running during the first init,
	// Failed with its Cause and JobID otherwise.
	State ui.State
	Cause string
	JobID string
	// Changed: it was saved anew after that job had ended, so that what it says
	// may be mended.
	Changed bool
	// Upkeep is what keeps it small and checked.
	Upkeep []Upkeep
}

// Upkeep is when one kind of maintenance runs, or the second credentials: "Every
// day at 03:30", "off". URL is where that is changed, or explained where it is
// Wrong.
type Upkeep struct {
	Name, Value, URL string
	Wrong            bool
}

// Group is a row of the host's source groups.
type Group struct {
	ID, Name, Tag string
	Includes      []string
	ExcludeCount  int
	State         ui.State
	// StateText replaces the state's word: "63 % · 2 min left".
	StateText string
	// Detail is the line below it while something runs: "18,204 files · 3.1 GiB".
	Detail     string
	NewestGood time.Time
	SizeBytes  int64
	Days       []ui.Day
	// ActiveJobID is the queued, sent or running backup, "" for none;
	// CancelRequested that it was asked to stop.
	ActiveJobID     string
	CancelRequested bool
	// WhyJobID is the job that explains a state which isn't good, "" where none
	// does.
	WhyJobID string
	// Percent is the running backup's, 0 to 100, or below 0 for none known.
	Percent float64
}

// Schedule is a row of the host's schedules.
type Schedule struct {
	ID      string
	Words   string
	Cron    string
	Enabled bool
	Groups  []string
	NextRun time.Time
	// Note is what is special about the next run: a change of the clocks.
	Note string
}

func (h Host) url() string { return "/hosts/" + h.ID }

// facts are the small print beside the name.
func (h Host) facts() []string {
	var facts []string
	add := func(s string) {
		if s != "" {
			facts = append(facts, s)
		}
	}
	if h.LinkSince.IsZero() && h.Link != "" {
		add("last by " + h.Link)
	}
	add(h.OS)
	if h.ResticVersion != "" {
		add("restic " + h.ResticVersion)
	}
	if h.AgentVersion != "" {
		add("agent " + h.AgentVersion)
	}
	return facts
}

// clockMatters is the difference from which on a host's clock is spoken of;
// smaller ones are the network's.
const clockMatters = 5 * time.Second

// clockText says how wrong the host's clock is; "" when that doesn't matter.
func (h Host) clockText() string {
	off, way := h.ClockAhead.Abs(), "ahead"
	if off < clockMatters {
		return ""
	}
	if h.ClockAhead < 0 {
		way = "behind"
	}
	return "This host's clock is " + ui.Duration(off) + " " + way + ". Its schedules fire by that clock: set it, best by NTP."
}

// localTime is "" until the agent has told its zone.
func (h Host) localTime() string {
	if h.Timezone == "" || !h.Enrolled {
		return ""
	}
	s := h.Timezone + ", " + h.Clock.Wall(h.Clock.Now) + " there"
	if h.ZoneAssumed {
		s += " (the agent could not tell its zone; set --timezone)"
	}
	return s
}

func (h Host) state() ui.State {
	switch {
	case !h.Enrolled:
		return ui.Waiting
	case h.Online:
		return ui.Online
	}
	return ui.Offline
}

func (g Group) paths() string { return strings.Join(g.Includes, " ") }

func (g Group) domID() string { return "group-" + g.ID }

// cloneRemedy leads to a new enrolment, which shuts the other machine out.
func cloneRemedy(h Host) ui.Link {
	if !h.CanAdminister {
		return ui.Link{}
	}
	return ui.Link{Text: "Enrol this host anew", URL: h.url() + "/enrol"}
}

// sentence tells which version is in force until the agent confirms.
func (l ScheduleLag) sentence(online bool) string {
	current, applied := ui.Number(l.Current), ui.Number(l.Applied)
	if !online {
		return "The agent is away; it applies version " + current + " when it is back. Until then " + applied + " is in force."
	}
	return "The agent applies version " + current + "; " + applied + " is in force until it confirms."
}

// inForce says that the schedules are what the agent goes by, or why not.
func (h Host) inForce() string {
	if !h.Enrolled {
		return "They run by themselves once an agent is enrolled."
	}
	return "In force on the host: version " + ui.Number(h.ScheduleVersion) + "."
}

// word is the repository's state as a sentence's end.
func (r Repository) word() string {
	switch r.State {
	case ui.Good:
		return "Ready"
	case ui.Running:
		return "Being set up"
	case ui.Waiting:
		return "Waiting to be set up"
	case ui.Failed:
		return "Not set up"
	}
	return r.State.Word()
}

// stuck is true after an init that failed: no other is tried by itself.
func (r Repository) stuck() bool {
	switch r.State {
	case ui.Good, ui.Running, ui.Waiting:
		return false
	}
	return true
}

// note is what else is known of it: its own id, the names of its environment.
func (r Repository) note() string {
	var parts []string
	if r.ID != "" {
		parts = append(parts, "repository "+shortID(r.ID))
	}
	if len(r.EnvNames) > 0 {
		parts = append(parts, strings.Join(r.EnvNames, ", ")+" set")
	}
	return strings.Join(parts, " · ")
}

func (g Group) word() string {
	if g.StateText != "" {
		return g.StateText
	}
	return g.State.Word()
}

func zoneNote(h Host) string {
	if h.Timezone == "" {
		return ""
	}
	return "times in " + h.Timezone
}
