// Package cronspec reads a cron expression, says when it is due and puts it
// into words. The agent's clock, the server's sweep and the preview all ask
// here, so that there is one rule for "when".
//
// The grammar is robfig/cron's standard one: five fields, the descriptors,
// "@every" and a leading "CRON_TZ=" or "TZ=". The times are our own, because
// robfig's skip a run when clocks go forward and double it when they go back:
//
//   - Fixed hours ("30 2 * * *", "0 8-18 * * 1-5"): every reading of the wall
//     clock that the expression names comes once on each local date: at the
//     first instant when the clock shows it or, where clocks jump over it, at
//     the first instant after the jump. Readings that fall to one instant make
//     one run. A date that a zone leaves out (Pacific/Apia, 30 December 2011)
//     has no runs; a jump over midnight may move a date's last run to the
//     first instant of the next date.
//   - A "*" in the hour field ("0 * * * *", "*/15 */2 * * *"): elapsed time. It
//     runs at every instant whose wall clock matches, so in both passes of a
//     repeated hour, and never for readings that were jumped over. A field that
//     comes down to a single hour ("*/24") makes a daily schedule and counts
//     as fixed.
//   - "@every d": the multiples of d since the Unix epoch, in any zone.
package cronspec

import (
	"time"
)

// Spec is an expression that Parse accepted. It is immutable and may be
// compared and shared. The zero Spec is never due.
type Spec struct {
	text string
	zone string
	loc  *time.Location

	every time.Duration // above zero for @every; the fields below are then unused

	minutes uint64 // bit n set: minute n
	hours   uint64
	days    uint64 // of the month, bits 1 to 31
	months  uint64 // bits 1 to 12
	weekday uint64 // bit 0 is Sunday

	// eitherDay is cron's old rule: with both day fields restricted, a date
	// that matches one of them is enough.
	eitherDay bool
	// elapsed says that a repeated hour counts twice.
	elapsed bool
}

// The sets that mean "all" of a field.
const (
	allMinutes  = 1<<60 - 1
	allHours    = 1<<24 - 1
	allDays     = 1<<32 - 2
	allMonths   = 1<<13 - 2
	allWeekdays = 1<<7 - 1
)

// String returns the expression with single spaces between its fields. Parse
// accepts it again and gives an equal Spec.
func (s Spec) String() string { return s.text }

// Zone returns the zone that the expression itself names, or "".
func (s Spec) Zone() string { return s.zone }

// Every returns the interval of an "@every" expression.
func (s Spec) Every() (time.Duration, bool) { return s.every, s.every > 0 }

// Location returns the zone whose wall clock the expression is read by: its
// own, else loc, else UTC.
func (s Spec) Location(loc *time.Location) *time.Location {
	switch {
	case s.loc != nil:
		return s.loc
	case loc != nil:
		return loc
	default:
		return time.UTC
	}
}
