package cronspec

import (
	"math"
	"math/bits"
	"time"
)

// A wall reading is what a clock on the wall shows, date included, counted in
// seconds as if it were UTC. Instants are Unix seconds.

const (
	secondsPerDay = 24 * 60 * 60
	// maxOffset is more than any zone was ever away from UTC.
	maxOffset = 16 * 60 * 60
	// horizonYears covers the longest wait there is: 29 February across a
	// century without one (2096 to 2104).
	horizonYears = 8
)

// wallFrom returns the first reading at or after w that the fields name, and
// false when there is none within the horizon, which means never.
func (s Spec) wallFrom(w int64) (int64, bool) {
	minute := floorDiv(w+59, 60)
	day := floorDiv(minute, 24*60)
	inDay := minute - day*24*60
	date := time.Unix(day*secondsPerDay, 0).UTC()
	for last := date.Year() + horizonYears; date.Year() <= last; inDay = 0 {
		year, month, dom := date.Date()
		if s.months&(1<<month) == 0 {
			date = time.Date(year, month+1, 1, 0, 0, 0, 0, time.UTC)
			continue
		}
		if s.onDate(dom, date.Weekday()) {
			if m, ok := s.minuteFrom(inDay); ok {
				return date.Unix() + m*60, true
			}
		}
		date = date.AddDate(0, 0, 1)
	}
	return 0, false
}

func (s Spec) onDate(dom int, weekday time.Weekday) bool {
	byDay, byWeekday := s.days&(1<<dom) != 0, s.weekday&(1<<weekday) != 0
	if s.eitherDay {
		return byDay || byWeekday
	}
	return byDay && byWeekday
}

// minuteFrom returns the first minute of the day at or after m that matches.
func (s Spec) minuteFrom(m int64) (int64, bool) {
	hour, minute := m/60, m%60
	if s.hours&(1<<hour) != 0 {
		if rest := s.minutes >> minute; rest != 0 {
			return m + int64(bits.TrailingZeros64(rest)), true
		}
	}
	later := s.hours >> (hour + 1)
	if later == 0 || s.minutes == 0 {
		return 0, false
	}
	hour += 1 + int64(bits.TrailingZeros64(later))
	return hour*60 + int64(bits.TrailingZeros64(s.minutes)), true
}

// period is a stretch of time, up to but without end, in which the clock keeps
// one offset from UTC. The one behind it may have the same.
//
// Go knows a period's start too, and it can't be relied on: right behind the
// last change in a zone's table it is the start of the year, by the zone's
// rule, though the rule did not hold yet (America/Metlakatla, 20 January 2019).
type period struct {
	end, offset int64
}

func periodAt(loc *time.Location, at int64) period {
	t := time.Unix(at, 0).In(loc)
	_, offset := t.Zone()
	p := period{end: math.MaxInt64, offset: int64(offset)}
	if _, end := t.ZoneBounds(); !end.IsZero() {
		p.end = end.Unix()
	}
	if p.end <= at {
		// On the last day of a leap year Go takes the year to be over where a
		// rule, not a table, gives the zone's changes. Step over that day.
		const step = 15 * 60
		p.end = (floorDiv(at, step) + 1) * step
	}
	return p
}

// wallOf returns what the clock shows at an instant.
func wallOf(loc *time.Location, at int64) int64 {
	_, offset := time.Unix(at, 0).In(loc).Zone()
	return at + int64(offset)
}

// firstAt returns the first instant at which the clock shows w or later, and
// what it shows: w's own, its first one where w comes twice, the end of the
// jump where w is jumped over.
func firstAt(loc *time.Location, w int64) (instant, shown int64) {
	for at := w - maxOffset; ; {
		p := periodAt(loc, at)
		if t := max(at, w-p.offset); t < p.end {
			return t, t + p.offset
		}
		at = p.end
	}
}

// notShownBy returns the lowest bound of the readings that the clock had not
// yet come to at the instant: firstAt(w) > at exactly when w >= notShownBy(at).
func notShownBy(loc *time.Location, at int64) int64 {
	var low int64 = math.MinInt64
	for earlier := at - 2*maxOffset; ; {
		p := periodAt(loc, earlier)
		if at < p.end {
			return max(low, at+p.offset+1)
		}
		low = max(low, p.end+p.offset)
		earlier = p.end
	}
}

// timesShown returns how often the clock comes to show w.
func timesShown(loc *time.Location, w int64) int {
	n := 0
	for at := w - maxOffset; at < w+maxOffset; {
		p := periodAt(loc, at)
		if t := w - p.offset; at <= t && t < p.end {
			n++
		}
		at = p.end
	}
	return n
}

// dateExists reports whether the date of reading w comes at all in the zone.
func dateExists(loc *time.Location, w int64) bool {
	midnight := floorDiv(w, secondsPerDay) * secondsPerDay
	_, shown := firstAt(loc, midnight)
	return shown < midnight+secondsPerDay
}

func floorDiv(a, b int64) int64 {
	q := a / b
	if a%b < 0 {
		q--
	}
	return q
}
