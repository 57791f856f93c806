package views

import (
	"slices"
	"strings"
	"time"

	"resticfleet/views/ui"
)

// Snapshots answers "what can be restored?". SnapshotsLive is its partial and
// live update, fetched again at the stream's event "host".
type Snapshots struct {
	Clock                     ui.Clock
	HostID, HostName          string
	HasRepository             bool
	Arrived                   bool // an agent has called
	AgentTooOld               bool // it can't be asked for its snapshots
	Away                      bool
	CanOperate, CanAdminister bool
	// Count is how many there are in all, whatever the filter.
	Count int
	// ListedAt is zero before the first list.
	ListedAt time.Time
	// RefreshState is the newest look's, "" for none yet; RefreshError what went
	// wrong with it.
	RefreshState, RefreshError string
	Filter                     SnapshotsFilter
	Errors                     Errors
	Groups                     []Choice
	Rows                       []SnapshotRow
	Cursor, NextCursor         string
	// MarkedOlder and MarkedNewer are to be compared, on this page or another one;
	// the zero value is none.
	MarkedOlder, MarkedNewer SnapshotRow
	// Newer is how many came since and are held back, so that what is under
	// somebody's pointer stays there.
	Newer int
}

// SnapshotsFilter are the values of the filter's fields, "" for any.
type SnapshotsFilter struct{ Group, Tag, When, From, To, Held string }

// SnapshotRow is a line in the list.
type SnapshotRow struct {
	ID, ShortID string
	Place       string // in the list
	At          time.Time
	GroupName   string // "" where it belongs to none
	// SizeBytes and Files are below 0 where restic didn't tell.
	SizeBytes, Files int64
	Path             string
	MorePaths        int
	Tags             []string // without its job’s and one that is the group’s name
	JobID            string   // "" where no job here made it
	Held             bool
}

// NoGroup is the filter's value for snapshots that belong to no source group.
const NoGroup = "none"

// SnapshotWhenChoices are spans of time up to now, as time.ParseDuration reads
// them.
var SnapshotWhenChoices = []Choice{
	{"", "Any time"},
	{"24h", "Last 24 hours"},
	{"168h", "Last 7 days"},
	{"720h", "Last 30 days"},
	{"8760h", "Last 365 days"},
	{WhenBetween, "Between two times"},
}

// SnapshotHeldChoices are held or not.
var SnapshotHeldChoices = []Choice{{"", "Held or not"}, {"yes", "Held"}}

func (s Snapshots) path() string { return "/hosts/" + s.HostID + "/snapshots" }

// url is this list with its filter and what is marked, from a cursor on.
func (s Snapshots) url(cursor string) string {
	f := s.Filter
	return listURL(s.path(), "group", f.Group, "tag", f.Tag, "when", f.When, "from", f.From, "to", f.To, "held", f.Held, "a", s.MarkedOlder.ID, "b", s.MarkedNewer.ID, "cursor", cursor)
}

func (s Snapshots) olderURL() string {
	if s.NextCursor == "" {
		return ""
	}
	return s.url(s.NextCursor)
}

// allURL is the whole list, with what is marked.
func (s Snapshots) allURL() string {
	return listURL(s.path(), "a", s.MarkedOlder.ID, "b", s.MarkedNewer.ID)
}

// unmarkedURL is this page with nothing marked.
func (s Snapshots) unmarkedURL() string {
	s.MarkedOlder, s.MarkedNewer = SnapshotRow{}, SnapshotRow{}
	return s.url(s.Cursor)
}

// filterValues are the filter's fields that say something, each name with its
// value.
func (s Snapshots) filterValues() [][2]string {
	f := s.Filter
	all := [][2]string{{"group", f.Group}, {"tag", f.Tag}, {"when", f.When}, {"from", f.From}, {"to", f.To}, {"held", f.Held}}
	return slices.DeleteFunc(all, func(v [2]string) bool { return v[1] == "" })
}

// newest is the first row's place, "" where the list doesn't begin with the
// newest: nothing new comes into such a page.
func (s Snapshots) newest() string {
	if s.Cursor != "" || len(s.Rows) == 0 {
		return ""
	}
	return s.Rows[0].Place
}

func (s Snapshots) newer() string {
	return ui.Count(int64(s.Newer), "newer snapshot", "newer snapshots")
}

// tagURL is the list of those with this tag.
func (s Snapshots) tagURL(tag string) string {
	return listURL(s.path(), "tag", tag, "a", s.MarkedOlder.ID, "b", s.MarkedNewer.ID)
}

func (s Snapshots) filtered() bool { return s.Filter != (SnapshotsFilter{}) }

func (s Snapshots) heading() string {
	switch {
	case !s.HasRepository:
		return "There is no repository with snapshots yet"
	case s.ListedAt.IsZero():
		return "Nobody has looked yet which snapshots there are"
	case s.Count == 0:
		return s.HostName + " has no snapshot yet"
	}
	return s.HostName + " has " + ui.Count(int64(s.Count), "snapshot", "snapshots")
}

// looking is whether the agent is being asked for the list.
func (s Snapshots) looking() bool {
	return JobState(s.RefreshState) == ui.Waiting || s.RefreshState == "running"
}

// askable is whether Refresh would be of use, and is allowed.
func (s Snapshots) askable() bool {
	return s.CanOperate && s.HasRepository && s.Arrived && !s.AgentTooOld && !s.looking()
}

// lookText says how far that is.
func (s Snapshots) lookText() string {
	switch {
	case s.RefreshState == "running":
		return "Being listed now."
	case s.Away:
		return s.HostName + " is away. They are listed when it is back."
	}
	return "Asking " + s.HostName + " …"
}

// comparable is whether there are two to mark, on this page or another one, for
// somebody who may see what snapshots hold.
func (s Snapshots) comparable() bool {
	return s.CanOperate && s.Count > 1 && (len(s.Rows) > 0 || s.marked())
}

func (s Snapshots) marked() bool { return s.MarkedOlder.ID != "" || s.MarkedNewer.ID != "" }

// elsewhere is whether a row is marked that isn't on this page.
func (s Snapshots) elsewhere(r SnapshotRow) bool {
	return r.ID != "" && !slices.ContainsFunc(s.Rows, func(shown SnapshotRow) bool { return shown.ID == r.ID })
}

func (r SnapshotRow) domID() string { return "snapshot-" + r.ID }

func (r SnapshotRow) size() string {
	if r.SizeBytes < 0 {
		return "–"
	}
	return ui.Bytes(r.SizeBytes)
}

func (r SnapshotRow) files() string {
	if r.Files < 0 {
		return "–"
	}
	return ui.Number(r.Files)
}

// narrow is what a small screen shows in place of the columns.
func (r SnapshotRow) narrow() string {
	var parts []string
	if r.SizeBytes >= 0 {
		parts = append(parts, ui.Bytes(r.SizeBytes))
	}
	if r.Files >= 0 {
		parts = append(parts, ui.Count(r.Files, "file", "files"))
	}
	return strings.Join(parts, ", ")
}

func (r SnapshotRow) morePaths() string {
	if r.MorePaths == 0 {
		return ""
	}
	return "and " + ui.Number(int64(r.MorePaths)) + " more"
}
