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

// barStep is how far a day's bar is from the next one's.
const barStep = 5

func (d Day) fill() string {
	switch d.State {
	case Good:
		return "fill-success"
	case Warning:
		return "fill-warning"
	case Failed:
		return "fill-error"
	}
	return "fill-line"
}

// bar is the outline of a day's bar. Heights differ as well as colours, for
// those who don't see the colours apart; a gap in the middle marks a failed day.
func (d Day) bar(x int) string {
	at := "M" + strconv.Itoa(x)
	switch d.State {
	case Good:
		return at + " 0h4v20h-4z"
	case Warning:
		return at + " 4h4v16h-4z"
	case Failed:
		return at + " 0h4v8h-4zm0 11h4v9h-4z"
	}
	return at + " 12h4v8h-4z"
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
