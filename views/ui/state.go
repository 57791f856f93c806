// Package ui holds the words, marks and small parts that every page shares and
// that know nothing of hosts or jobs.
package ui

// State is what a thing is in, in the operator's words. Everywhere it is shown
// as icon, word and colour together, so that no single one of them carries the
// meaning alone.
type State string

// The eight states of a host or source group.
const (
	Good    State = "good"
	Running State = "running"
	Waiting State = "waiting"
	Warning State = "warning"
	Late    State = "late"
	Failed  State = "failed"
	Never   State = "never"
	Offline State = "offline"
)

// Neutral ends of a job, and a host that answers.
const (
	Cancelled State = "cancelled"
	Skipped   State = "skipped"
	Expired   State = "expired"
	Lost      State = "lost"
	Online    State = "online"
)

// States are all of them, in the order in which they ask for attention.
var States = []State{
	Failed, Late, Never, Offline, Warning, Lost, Running, Waiting, Good,
	Online, Cancelled, Skipped, Expired,
}

// Word is the state as an operator reads it.
func (s State) Word() string {
	switch s {
	case Good:
		return "Good"
	case Running:
		return "Running"
	case Waiting:
		return "Waiting"
	case Warning:
		return "Warning"
	case Late:
		return "Late"
	case Failed:
		return "Failed"
	case Never:
		return "Never backed up"
	case Offline:
		return "Offline"
	case Cancelled:
		return "Cancelled"
	case Skipped:
		return "Skipped"
	case Expired:
		return "Expired"
	case Lost:
		return "Lost"
	case Online:
		return "Online"
	}
	return "Unknown"
}

// The classes below are whole literals because Tailwind finds classes by
// reading this file; a class put together at run time would not be in the CSS.

func (s State) colour() string {
	switch s {
	case Good, Online:
		return "text-success"
	case Running:
		return "text-info"
	case Warning, Late:
		return "text-warning"
	case Failed:
		return "text-error"
	}
	return "text-muted"
}

// Edge is the class that colours the left edge of a row in this state.
func (s State) Edge() string {
	switch s {
	case Good, Online:
		return "border-l-success"
	case Running, Waiting:
		return "border-l-info"
	case Warning, Late:
		return "border-l-warning"
	case Failed:
		return "border-l-error"
	}
	return "border-l-muted"
}
