package views

import (
	"strings"

	"resticfleet/agent/protocol"
	"resticfleet/views/ui"
)

// Maintained is what a forget, prune or check told of its work. Figures that
// the agent didn't tell are nil.
type Maintained struct {
	// Of forget: snapshots, all groups together and one by one.
	Removed, Kept *int64
	Held          int64
	Groups        []MaintainedGroup
	// Of prune.
	FreedBytes, RemainingBytes, RepackedBytes *int64
	// Part is how much of the data a check read, as restic is told: 3/12, 10%;
	// "" for none of it.
	Part string
	// Errors is how many a check told.
	Errors *int64
}

// MaintainedGroup is what a forget did for one group's policy; Error is why it
// did nothing.
type MaintainedGroup struct {
	Name                string
	Kept, Removed, Held int64
	Error               string
}

type figureOf struct{ name, value string }

func (m Maintained) figures() []figureOf {
	var out []figureOf
	add := func(name string, n *int64, format func(int64) string) {
		if n != nil {
			out = append(out, figureOf{name, format(*n)})
		}
	}
	add("Snapshots removed", m.Removed, ui.Number)
	add("Snapshots kept", m.Kept, ui.Number)
	if m.Held > 0 {
		add("Kept because held", &m.Held, ui.Number)
	}
	add("Freed", m.FreedBytes, ui.Bytes)
	add("Rewritten", m.RepackedBytes, ui.Bytes)
	add("Left in the repository", m.RemainingBytes, ui.Bytes)
	if m.Part != "" {
		out = append(out, figureOf{"Data read", partWords(m.Part)})
	}
	add("Errors found", m.Errors, ui.Number)
	return out
}

func (g MaintainedGroup) sentence() string {
	s := ui.Number(g.Removed) + " removed, " + ui.Number(g.Kept) + " kept"
	if g.Held > 0 {
		s += ", " + ui.Number(g.Held) + " of what would go held"
	}
	return s
}

// partWords says a --read-data-subset in words.
func partWords(subset string) string {
	if n, t, ok := strings.Cut(subset, "/"); ok {
		return "part " + n + " of " + t
	}
	if subset == "" {
		return "none"
	}
	return subset
}

// maintained says what a forget, prune or check has changed, as a sentence.
func (j Job) maintained(untouched bool) string {
	removed := int64(0)
	if m := j.Maintained; m != nil && m.Removed != nil {
		removed = *m.Removed
	}
	switch {
	case j.Kind == "check" && j.ErrorCode == protocol.ErrDamaged:
		return "A check changes nothing: what is damaged is as it was."
	case j.Kind == "check" && j.State == "succeeded":
		return "No damage was found. A check changes nothing."
	case j.Kind == "check":
		return "A check changes nothing. Whether the repository is whole is not known from this one."
	case j.Kind == "forget" && (j.State == "succeeded" || removed > 0):
		return ui.Count(removed, "snapshot was", "snapshots were") + " removed from the list. Their room is freed by the next prune."
	case j.Kind == "forget" && (untouched || j.Maintained != nil):
		return "No snapshot was removed."
	case j.Kind == "forget":
		return "Whether a snapshot was removed is not known. The next run goes on with what is left."
	case j.State == "succeeded":
		return "The room of forgotten snapshots was freed; no snapshot was touched."
	case untouched:
		return "Nothing was freed."
	}
	return "No snapshot was touched. What had not been freed is freed by the next prune."
}
