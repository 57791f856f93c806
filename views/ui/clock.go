package ui

import (
	"fmt"
	"time"
)

// Clock is the instant a page is rendered at and the zone its times are shown
// in. Pages never ask the machine for either.
type Clock struct {
	Now time.Time
	// Zone is where times are shown; nil is UTC.
	Zone *time.Location
}

func (c Clock) zone() *time.Location {
	if c.Zone == nil {
		return time.UTC
	}
	return c.Zone
}

// ZoneName is the zone as it stands beside times.
func (c Clock) ZoneName() string { return c.zone().String() }

// Exact is the whole time with its zone, for titles: Mon 23 Nov 2026, 14:50:01 Europe/Berlin.
func (c Clock) Exact(t time.Time) string {
	return t.In(c.zone()).Format("Mon 2 Jan 2006, 15:04:05 ") + c.ZoneName()
}

// Wall is the time of day.
func (c Clock) Wall(t time.Time) string { return t.In(c.zone()).Format("15:04") }

// WallSeconds is the time of day to the second.
func (c Clock) WallSeconds(t time.Time) string { return t.In(c.zone()).Format("15:04:05") }

// WallMillis is the time of day to the millisecond.
func (c Clock) WallMillis(t time.Time) string { return t.In(c.zone()).Format("15:04:05.000") }

// Day is today, yesterday, tomorrow or the date, as far as it has to be told.
func (c Clock) Day(t time.Time) string {
	day, now := t.In(c.zone()), c.Now.In(c.zone())
	switch date(day) {
	case date(now):
		return "today"
	case date(now.AddDate(0, 0, -1)):
		return "yesterday"
	case date(now.AddDate(0, 0, 1)):
		return "tomorrow"
	}
	if day.Year() == now.Year() {
		return day.Format("Mon 2 Jan")
	}
	return day.Format("2 Jan 2006")
}

// DayWall is the day and the time: tomorrow 02:00.
func (c Clock) DayWall(t time.Time) string { return c.Day(t) + " " + c.Wall(t) }

// Short is the time alone for today, otherwise the day and the time.
func (c Clock) Short(t time.Time) string {
	if c.Day(t) == "today" {
		return c.Wall(t)
	}
	return c.DayWall(t)
}

// Full is a date and time without seconds: Sat 27 Mar 2027, 02:30.
func (c Clock) Full(t time.Time) string {
	return t.In(c.zone()).Format("Mon 2 Jan 2006, 15:04")
}

func date(t time.Time) string { return t.Format(time.DateOnly) }

// Machine is t as the datetime attribute of <time> wants it.
func Machine(t time.Time) string { return t.UTC().Format("2006-01-02T15:04:05.000Z") }

// The ways a <time> says how far off it is; the script that refreshes them
// knows the same four.
const (
	relAgo = "ago" // 3 h ago
	relAge = "age" // 3 h
	relIn  = "in"  // in 3 h
	// relCount runs on by the second while somebody waits.
	relCount = "count" // 0:41
)

func relative(style string, now, t time.Time) string {
	switch style {
	case relIn:
		if !t.After(now) {
			return "due now"
		}
		return "in " + Age(t.Sub(now))
	case relAge:
		return Age(now.Sub(t))
	case relCount:
		waited := int(max(0, now.Sub(t)) / time.Second)
		return fmt.Sprintf("%d:%02d", waited/60, waited%60)
	}
	if now.Sub(t) < time.Minute {
		return "just now"
	}
	return Age(now.Sub(t)) + " ago"
}
