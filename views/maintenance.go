package views

import (
	"strconv"
	"strings"
	"time"

	"resticfleet/agent/protocol"
	"resticfleet/views/ui"
)

// Maintenance answers "is the repository kept small and checked, and when
// next?". MaintenanceLive is its partial and live update, fetched again at the
// stream's event "host".
type Maintenance struct {
	Clock         ui.Clock
	HostID        string
	HostName      string
	HasRepository bool
	CanAdminister bool
	AgentTooOld   bool // it doesn't know forget, prune and check
	Rows          []MaintenanceRow
	Round         *CheckRound
	Damage        *Damage // nil while none is known
	Owner         *RepositoryOwner
	Recent        []JobRow
	GroupsKept    []string // "www keeps the last 7 daily snapshots"
	GroupsWithout []string // names of groups without a policy
}

// MaintenanceRow is forget, prune or check.
type MaintenanceRow struct {
	Kind    string
	Cron    string
	Words   string
	Zone    string
	Enabled bool
	// Runs are the next due times; empty while it is off.
	Runs []CronRun
	// FirstRun is when it would begin if it were turned on now.
	FirstRun time.Time
	// LastJobID is the newest run that ended, "" for none.
	LastJobID, LastState, LastCode, LastError string
	LastEndedAt, GoodAt                       time.Time
	// OpenJobID is what waits or runs now; Waits says for what it waits.
	OpenJobID, OpenState string
	Percent              float64
	WaitsFor             ui.Link
	WaitText             string
	// BacksOffUntil is until when it is left alone, zero for not at all.
	BacksOffUntil time.Time
	BreakerOpen   bool
	Failures      int
	// Stale: it has not succeeded for long, and nothing else says why.
	Stale bool
	// Subset is check's part of the data; SubsetProblem is why it can't be read,
	// "" if it can.
	Subset, SubsetProblem string
	// Elsewhere is the owner that does this for the shared repository; its text
	// is "" where this host does it.
	Elsewhere ui.Link
}

// CheckRound is how far the check is through the data, part by part.
type CheckRound struct {
	Read, Parts  int
	WholeAt      time.Time // when all was last read, zero for never
	WholeAgainBy time.Time // zero while no check comes
}

// RepositoryOwner is who prunes and checks a shared repository.
type RepositoryOwner struct {
	HostID, Name, Reason, Before string
	Since                        time.Time
	Mine                         bool
	Sharers                      []ui.Link
}

// MaintenanceForm edits a kind's cadence: POST to Action with cron, enabled and,
// for check, read_data_subset.
type MaintenanceForm struct {
	HostID, HostName, Kind, Action, Cron, Subset string
	Enabled                                      bool
	Preview                                      CronPreview
	Errors                                       Errors
}

// row is a kind's.
func (m Maintenance) row(kind string) MaintenanceRow {
	for _, r := range m.Rows {
		if r.Kind == kind {
			return r
		}
	}
	return MaintenanceRow{}
}

// tellsError: a failure is told in its row, but damage above all rows.
func (m Maintenance) tellsError(r MaintenanceRow) bool {
	return r.LastState == "failed" && r.LastError != "" && (m.Damage == nil || r.LastCode != protocol.ErrDamaged)
}

func (m Maintenance) url() string { return "/hosts/" + m.HostID + "/maintenance" }

// What it is for, and the button's name.
func (r MaintenanceRow) title() string { return JobTitle(r.Kind, "") }

func (r MaintenanceRow) purpose() string {
	switch r.Kind {
	case "forget":
		return "removes snapshots that no policy keeps"
	case "prune":
		return "frees the room of removed snapshots"
	}
	return "looks for damage"
}

// heading is the page's answer, as a sentence.
func (m Maintenance) heading() string {
	var off, bad, elsewhere []string
	for _, r := range m.Rows {
		switch {
		case r.Elsewhere.Text != "":
			elsewhere = append(elsewhere, r.Kind)
		case !r.Enabled:
			off = append(off, r.Kind)
		case r.BreakerOpen || r.Stale || r.LastState == "failed" || r.SubsetProblem != "":
			bad = append(bad, r.Kind)
		}
	}
	switch {
	case !m.HasRepository:
		return "There is no repository to maintain yet"
	case m.Damage != nil:
		return "The repository is damaged"
	case len(bad) == 1:
		return JobTitle(bad[0], "") + " needs a hand"
	case len(bad) > 1:
		return capital(enumerate(bad, "and")) + " need a hand"
	case len(elsewhere) > 0 && len(off) > 0:
		return capital(enumerate(off, "and")) + " " + verb(len(off), "is", "are") + " off; " + m.Owner.Name + " does the rest"
	case len(elsewhere) > 0:
		return m.Owner.Name + " prunes and checks this repository"
	case len(off) == len(m.Rows):
		return "Nothing keeps this repository small and checked yet"
	case len(off) == 1:
		return JobTitle(off[0], "") + " is off; the rest is kept up"
	case len(off) > 1:
		return capital(enumerate(off, "and")) + " are off; the rest is kept up"
	}
	return "The repository is kept small and checked"
}

func capital(s string) string { return strings.ToUpper(s[:1]) + s[1:] }

// next is the soonest of what comes.
func (m Maintenance) next() (kind string, at time.Time) {
	for _, r := range m.Rows {
		if len(r.Runs) > 0 && r.Elsewhere.Text == "" && (at.IsZero() || r.Runs[0].At.Before(at)) {
			kind, at = r.Kind, r.Runs[0].At
		}
	}
	return kind, at
}

// promise says what turning a kind on does, and when.
func (m Maintenance) promise(r MaintenanceRow) string {
	if r.FirstRun.IsZero() {
		return "it is never due by this expression."
	}
	from := "from " + m.Clock.DayWall(r.FirstRun) + " (" + m.Clock.ZoneName() + ") "
	switch r.Kind {
	case "forget":
		s := from + "snapshots that no policy keeps are removed: "
		if len(m.GroupsKept) == 0 {
			return from + "nothing would be removed: no source group has a retention policy yet, so everything stays."
		}
		s += strings.Join(m.GroupsKept, "; ") + "."
		if len(m.GroupsWithout) > 0 {
			s += " " + enumerate(m.GroupsWithout, "and") + " without a policy " + verb(len(m.GroupsWithout), "keeps", "keep") + " everything."
		}
		return s
	case "prune":
		return from + "the room of removed snapshots is freed. Backups to this repository wait while it runs."
	}
	if r.Subset == "" {
		return from + "the repository’s structure is checked, without reading the data."
	}
	return from + "the repository is checked: its structure, and of its data " + subsetWords(r.Subset) + "."
}

func verb(n int, one, many string) string {
	if n == 1 {
		return one
	}
	return many
}

// subsetWords explains what a check reads of the data.
func subsetWords(s string) string {
	switch n, t, ok := strings.Cut(s, "/"); {
	case s == "":
		return "nothing"
	case ok && t == "1" && n == "1":
		return "everything, each time"
	case ok:
		return "one of " + t + " parts each time, in turn, so that " + t + " checks read everything"
	case strings.HasSuffix(s, "%"):
		return s + ", chosen anew each time"
	}
	return s + "iB, chosen anew each time"
}

// state is the row's badge.
func (r MaintenanceRow) state() (ui.State, string) {
	switch {
	case r.OpenState == "running":
		return ui.Running, ui.Running.Word()
	case r.OpenJobID != "":
		return ui.Waiting, ui.Waiting.Word()
	}
	s := JobState(r.LastState)
	return s, s.Word()
}

func (c CheckRound) percent() float64 { return 100 * float64(c.Read) / float64(max(c.Parts, 1)) }

func (c CheckRound) sentence() string {
	return strconv.Itoa(c.Read) + " of " + strconv.Itoa(c.Parts) + " parts of the data are read in this round."
}

// stop is what stands behind a sharer's name.
func (o RepositoryOwner) stop(sharer int) string {
	if sharer == len(o.Sharers)-1 {
		return "."
	}
	return ","
}

func (o RepositoryOwner) shared() bool { return len(o.Sharers) > 1 }

func (o RepositoryOwner) does() string {
	if o.shared() {
		return o.Name + " prunes and checks it for all"
	}
	return o.Name + " prunes and checks it"
}

func (o RepositoryOwner) why() string {
	switch {
	case o.Reason == "taken" && o.Before != "":
		return "taken over from " + o.Before + ", which was gone"
	case o.Reason == "chosen":
		return "chosen by a person"
	}
	return "the first that was bound to it"
}

func (f MaintenanceForm) previewURL() string { return "/cron-preview?host_id=" + f.HostID }

func (f MaintenanceForm) preview() CronPreview {
	p := f.Preview
	if f.Errors["cron"] != "" {
		p.Error = f.Errors["cron"]
	}
	return p
}
