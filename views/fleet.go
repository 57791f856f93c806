package views

import (
	"net/url"
	"strings"
	"time"

	"resticfleet/views/ui"
)

// Fleet answers "who is not safe?". FleetLive is its partial and live update:
// the page fetches it again from "/" at the stream's event "fleet".
type Fleet struct {
	Clock ui.Clock
	// Total, NeedHand and OfflineCount count the whole fleet, whatever the filter says.
	Total, NeedHand, OfflineCount int
	// Attention are the first of those that need a hand, worst first;
	// MoreAttention says that there are others.
	Attention     []Attention
	MoreAttention bool
	// Query is what was typed into the filter, Show is "", "hand" or "offline".
	Query, Show string
	Hosts       []FleetHost
	// Cursor is this page's, "" for the first; NextCursor the next one's, "" at the end.
	Cursor, NextCursor string
	CanAddHost         bool
}

// Attention is one row that needs a hand: what, why, and the one thing to do.
type Attention struct {
	// ID is unique among the rows and stable: the group's id, or the host's.
	ID       string
	State    ui.State
	HostID   string
	HostName string
	// GroupName is empty where it is about the whole host.
	GroupName string
	Cause     string
	// Since is when it happened, zero for never.
	Since time.Time
	// Act is the one thing to do, a link; RunURL, when set, is a Run now button
	// that posts there: the primary act if Act is empty.
	Act    ui.Link
	RunURL string
	// Active is the backup under way, empty for none, and CancelURL where a
	// button asks for its end.
	Active    ui.Link
	CancelURL string
}

// about says which group or host a button is about, for those who only hear it.
func (a Attention) about() string { return strings.TrimSpace(a.HostName + " " + a.GroupName) }

// FleetHost is a row of the table.
type FleetHost struct {
	ID, Name string
	State    ui.State
	// StateText replaces the state's word where more is known: "Backing up 63 %".
	StateText string
	// About is the line below the name: "Debian 12 · websocket".
	About      string
	NewestGood time.Time
	Days       []ui.Day
	NextRun    time.Time
	Groups     int
}

// Live is false for the empty fleet of somebody who is adding the first host.
func (f Fleet) Live() bool { return f.Total > 0 || !f.CanAddHost }

func (f Fleet) heading() string {
	switch {
	case f.Total == 0:
		return "No hosts yet"
	case f.NeedHand == 0 && f.Total == 1:
		return "Your one host is safe"
	case f.NeedHand == 0:
		return "All " + ui.Number(int64(f.Total)) + " hosts are safe"
	case f.NeedHand == 1:
		return "1 of " + ui.Count(int64(f.Total), "host needs a hand", "hosts needs a hand")
	}
	return ui.Number(int64(f.NeedHand)) + " of " + ui.Number(int64(f.Total)) + " hosts need a hand"
}

func (f Fleet) subheading() string {
	safe := f.Total - f.NeedHand
	switch {
	case f.Total == 0:
		return "Add the first one: a line to paste there, and it appears here."
	case f.NeedHand == 0:
		return "Every source group has a good snapshot, none older than its schedule allows."
	case safe == 0:
		return "Begin with the first row."
	case safe == 1:
		return "The other one has a good snapshot of every group, none older than its schedule allows."
	}
	return "The other " + ui.Number(int64(safe)) + " have a good snapshot of every group, none older than its schedule allows."
}

// selfURL fetches the same page of the same list again. The filter's own
// fields are added by the element that asks.
func (f Fleet) selfURL() string { return listURL("/", "cursor", f.Cursor) }

// pageURL is the page of the same list that begins behind cursor, "" for the
// first.
func (f Fleet) pageURL(cursor string) string {
	return listURL("/", "q", f.Query, "show", f.Show, "cursor", cursor)
}

func (f Fleet) allNeedsText() string {
	return "See all " + ui.Count(int64(f.NeedHand), "host that needs a hand", "hosts that need a hand")
}

func (f Fleet) showURL(show string) string { return listURL("/", "q", f.Query, "show", show) }

// listURL is path with those of the name, value pairs that have a value.
func listURL(path string, pairs ...string) string {
	q := url.Values{}
	for i := 0; i+1 < len(pairs); i += 2 {
		if pairs[i+1] != "" {
			q.Set(pairs[i], pairs[i+1])
		}
	}
	if len(q) == 0 {
		return path
	}
	return path + "?" + q.Encode()
}

// olderURL is listURL for the page that begins at next; "" where there is none.
func olderURL(next, path string, pairs ...string) string {
	if next == "" {
		return ""
	}
	return listURL(path, append(pairs, "cursor", next)...)
}
