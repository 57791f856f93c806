package cronspec

import (
	"time"
)

// Run is one due time of a preview.
type Run struct {
	At time.Time
	// Note says what a change of the clocks does to this run; empty on every
	// ordinary day.
	Note string
}

// Runs returns the next n due times after the given one, fewer where fewer
// come (see Next), each with its note.
func (s Spec) Runs(after time.Time, loc *time.Location, n int) []Run {
	loc = s.Location(loc)
	var runs []Run
	for previous := after.Unix(); len(runs) < n; {
		at, reading, ok := s.next(previous, loc)
		if !ok {
			break
		}
		runs = append(runs, Run{At: time.Unix(at, 0).In(loc), Note: s.note(loc, previous, at, reading)})
		previous = at
	}
	return runs
}

func (s Spec) note(loc *time.Location, previous, at, reading int64) string {
	if s.every > 0 {
		return ""
	}
	if s.elapsed {
		if from, to := s.jumpBetween(loc, previous, at); from < to {
			return s.jumpNote(loc, at, from, to)
		}
	} else if shown := wallOf(loc, at); shown != reading {
		return s.jumpNote(loc, at, reading, shown)
	}
	if timesShown(loc, reading) > 1 {
		note := "clocks go back: " + clockText(reading) + " comes twice, it runs "
		if s.elapsed {
			return note + "both times"
		}
		return note + "once"
	}
	return ""
}

// jumpBetween returns the readings, from up to but without to, that the newest
// forward jump between two runs left out, if the expression named any of them.
func (s Spec) jumpBetween(loc *time.Location, previous, at int64) (from, to int64) {
	p := periodAt(loc, previous)
	for p.end <= at {
		next := periodAt(loc, p.end)
		if w, ok := s.wallFrom(p.end + p.offset); ok && w < p.end+next.offset {
			from, to = w, p.end+next.offset
		}
		p = next
	}
	return from, to
}

// jumpNote names the readings of the expression between from and to.
func (s Spec) jumpNote(loc *time.Location, at, from, to int64) string {
	var first, last int64
	n := 0
	for w, ok := s.wallFrom(from); ok && w < to; w, ok = s.wallFrom(w + 1) {
		if n == 0 {
			first = w
		}
		last = w
		n++
	}
	day := "that day"
	if floorDiv(first, secondsPerDay) != floorDiv(wallOf(loc, at), secondsPerDay) {
		day = "on " + time.Unix(first, 0).UTC().Format("2 January")
	}
	if n == 1 {
		return "clocks go forward: " + clockText(first) + " does not exist " + day
	}
	join := " to "
	if n == 2 {
		join = " and "
	}
	note := "clocks go forward: " + clockText(first) + join + clockText(last) + " do not exist " + day
	if !s.elapsed {
		note += ", it runs once"
	}
	return note
}

func clockText(reading int64) string { return time.Unix(reading, 0).UTC().Format("15:04") }
