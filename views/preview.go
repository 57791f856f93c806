package views

import (
	"time"

	"resticfleet/views/ui"
)

// Preview is what a policy would do with the snapshots of a group, the newest
// first, or why that can't be told.
type Preview struct {
	Clock         ui.Clock
	CanAdminister bool
	Problem       string
	Stays, Goes   []PreviewRow
}

// PreviewRow is a snapshot. Reasons are why it stays.
type PreviewRow struct {
	ShortID string
	At      time.Time
	Reasons []string
	Held    bool
}

// previewRows is how many of each list a page shows.
const previewRows = 20

// removesAll: nothing stays by the policy itself, which forget refuses.
func (p Preview) removesAll() bool {
	for _, r := range p.Stays {
		if !r.Held || len(r.Reasons) > 0 && r.Reasons[0] != "held" {
			return false
		}
	}
	return len(p.Goes) > 0
}

// sentence counts.
func (p Preview) sentence() string {
	all := len(p.Stays) + len(p.Goes)
	switch {
	case all == 0:
		return "The repository has no snapshots of this group yet."
	case len(p.Goes) == 0 && all == 1:
		return "Would keep its one snapshot."
	case len(p.Goes) == 0:
		return "Would keep all " + ui.Number(int64(all)) + " snapshots."
	}
	return "Would keep " + ui.Number(int64(len(p.Stays))) + ", remove " + ui.Number(int64(len(p.Goes))) + " of " + ui.Number(int64(all)) + ". Space is freed only by the next prune."
}

func bounded(rows []PreviewRow) []PreviewRow { return rows[:min(len(rows), previewRows)] }

func more(rows []PreviewRow) string {
	if len(rows) <= previewRows {
		return ""
	}
	return "and " + ui.Number(int64(len(rows)-previewRows)) + " more, all older"
}

func (r PreviewRow) why() string { return enumerate(r.Reasons, "and") }
