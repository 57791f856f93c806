package cronspec

import (
	"math"
	"time"
)

// Times are kept inside the years that RFC 3339 can write.
var (
	firstSecond = time.Date(1, 1, 1, 0, 0, 0, 0, time.UTC).Unix()
	lastSecond  = time.Date(9999, 12, 30, 0, 0, 0, 0, time.UTC).Unix()
)

// Next returns the first time after, and never equal to, the given one at
// which the expression is due. It is given in the zone whose wall clock counts:
// the expression's own, else loc, else UTC. The zero time means that none comes
// before the year 10000.
func (s Spec) Next(after time.Time, loc *time.Location) time.Time {
	loc = s.Location(loc)
	at, _, ok := s.next(after.Unix(), loc)
	if !ok {
		return time.Time{}
	}
	return time.Unix(at, 0).In(loc)
}

// Latest returns the newest due time later than after and not later than
// until: what a schedule that was not watched meanwhile still owes.
func (s Spec) Latest(after, until time.Time, loc *time.Location) (time.Time, bool) {
	after, until = after.Round(0), until.Round(0) // wall clocks decide here
	if first := s.Next(after, loc); first.IsZero() || first.After(until) {
		return time.Time{}, false // as it is most of the time
	}
	// The stretch to look at doubles towards the past until it holds a due
	// time, so that a long absence costs no walk through all it missed.
	var newest time.Time
	for back := time.Hour; newest.IsZero(); back *= 2 {
		from := until.Add(-back)
		whole := !from.After(after) || back > math.MaxInt64/2
		if whole {
			from = after
		}
		for t := s.Next(from, loc); !t.IsZero() && !t.After(until); t = s.Next(t, loc) {
			newest = t
		}
		if whole {
			break
		}
	}
	return newest, !newest.IsZero()
}

// next works in Unix seconds. The reading is what the fields named; the clock
// shows another one at that instant where the reading was jumped over.
func (s Spec) next(after int64, loc *time.Location) (at, reading int64, ok bool) {
	after = max(after, firstSecond)
	if after >= lastSecond {
		return 0, 0, false
	}
	switch {
	case s.every > 0:
		d := int64(s.every / time.Second)
		at = (floorDiv(after, d) + 1) * d
		reading, ok = wallOf(loc, at), true
	case s.elapsed:
		at, reading, ok = s.nextElapsed(after, loc)
	default:
		at, reading, ok = s.nextFixed(after, loc)
	}
	return at, reading, ok && at <= lastSecond
}

func (s Spec) nextFixed(after int64, loc *time.Location) (at, reading int64, ok bool) {
	for low := notShownBy(loc, after); ; {
		reading, ok = s.wallFrom(low)
		if !ok {
			return 0, 0, false
		}
		var shown int64
		at, shown = firstAt(loc, reading)
		if shown == reading || dateExists(loc, reading) {
			return at, reading, true
		}
		low = (floorDiv(reading, secondsPerDay) + 1) * secondsPerDay
	}
}

func (s Spec) nextElapsed(after int64, loc *time.Location) (at, reading int64, ok bool) {
	for from := after + 1; from <= lastSecond; {
		p := periodAt(loc, from)
		reading, ok = s.wallFrom(from + p.offset)
		if !ok {
			return 0, 0, false
		}
		if at = reading - p.offset; at < p.end {
			return at, reading, true
		}
		from = p.end
	}
	return 0, 0, false
}
