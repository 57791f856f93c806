package ui

import (
	"strconv"
	"strings"
	"time"
)

// Day is one bar of a status strip.
type Day struct {
	Date time.Time
	// State is Good, Warning or Failed; the zero value means that nothing ran.
	State State
	// Text says what happened; empty uses the state's own words.
	Text string
}

func (d Day) sentence() string {
	what := d.Text
	if what == "" {
		switch d.State {
		case Good:
			what = "good"
		case Warning:
			what = "warning"
		case Failed:
			what = "failed"
		default:
			what = "nothing ran"
		}
	}
	return d.Date.Format("Mon 2 Jan") + ": " + what
}

// bar is where a day stands in the drawing. Heights differ as well as colours,
// for those who don't see the colours apart.
type bar struct {
	class     string
	x, y, h   string
	day       Day
	cut       bool   // a gap in the middle marks a failed day
	lowY      string // the lower half of a cut bar
	lowHeight string
}

const (
	barWidth  = 4
	barStep   = 5
	barHeight = 20
)

func bars(days []Day) []bar {
	out := make([]bar, 0, len(days))
	for i, d := range days {
		b := bar{class: "fill-line", x: strconv.Itoa(i * barStep), y: "12", h: "8", day: d}
		switch d.State {
		case Good:
			b.class, b.y, b.h = "fill-success", "0", "20"
		case Warning:
			b.class, b.y, b.h = "fill-warning", "4", "16"
		case Failed:
			b.class, b.y, b.h = "fill-error", "0", "8"
			b.cut, b.lowY, b.lowHeight = true, "11", "9"
		}
		out = append(out, b)
	}
	return out
}

// stripText is the strip for those who can't see it: the counts, then every
// day that wasn't good, newest first, as far as that stays readable.
func stripText(label string, days []Day) string {
	const most = 5
	var good, none int64
	var others []string
	for i := len(days) - 1; i >= 0; i-- {
		switch days[i].State {
		case Good:
			good++
		case Warning, Failed:
			others = append(others, days[i].sentence())
		default:
			none++
		}
	}
	var b strings.Builder
	b.WriteString(label)
	b.WriteString(", ")
	b.WriteString(Count(int64(len(days)), "day", "days"))
	b.WriteString(": ")
	b.WriteString(Number(good))
	b.WriteString(" good")
	if none > 0 {
		b.WriteString(", ")
		b.WriteString(Number(none))
		b.WriteString(" without a run")
	}
	for i, o := range others {
		if i == most {
			b.WriteString("; and ")
			b.WriteString(Count(int64(len(others)-most), "more", "more"))
			break
		}
		b.WriteString("; ")
		b.WriteString(o)
	}
	return b.String()
}
