package cronspec

import (
	"fmt"
	"math/bits"
	"strconv"
	"strings"
	"time"
)

// maxClockTimes is how many times of day a sentence lists one by one.
const maxClockTimes = 6

// Describe puts the expression into words: "Every day at 02:00". The sentence
// has a capital and no full stop. It names the zone only where the expression
// does.
func (s Spec) Describe() string {
	if s.every > 0 {
		return "Every " + intervalText(s.every)
	}
	text := s.timesAndDays()
	switch s.zone {
	case "":
	case "UTC":
		text += ", in UTC"
	default:
		text += ", in " + s.zone + " time"
	}
	return text
}

func (s Spec) timesAndDays() string {
	if s.minutes == 0 || s.hours == 0 {
		return "Never"
	}
	days := s.daysText()
	if times := s.clockTimes(); times != "" {
		return strings.ToUpper(days[:1]) + days[1:] + " at " + times
	}
	// Behind a rate "every day" goes without saying: "in June" is enough.
	days = strings.TrimSpace(strings.TrimPrefix(days, "every day"))
	if days == "" {
		return s.rateText()
	}
	return s.rateText() + ", " + strings.TrimSuffix(days, ",")
}

// clockTimes lists the times of day, where they are few or have no plain rate.
func (s Spec) clockTimes() string {
	perHour, hours := bits.OnesCount64(s.minutes), bits.OnesCount64(s.hours)
	_, even := evenStep(s.minutes, 60)
	uneven := hours == 1 && !even
	if !uneven && (perHour*hours > maxClockTimes || hours > 2 && isRun(s.hours)) {
		return ""
	}
	var times []string
	for _, hour := range members(s.hours) {
		for _, minute := range members(s.minutes) {
			times = append(times, fmt.Sprintf("%02d:%02d", hour, minute))
		}
	}
	return and(times)
}

// rateText says how often within a day: "Every 15 minutes, 08:00 to 18:45".
func (s Spec) rateText() string {
	minutes, hours := members(s.minutes), members(s.hours)
	from := fmt.Sprintf("%02d:%02d", hours[0], minutes[0])
	to := fmt.Sprintf("%02d:%02d", hours[len(hours)-1], minutes[len(minutes)-1])

	step, even := evenStep(s.minutes, 60)
	switch {
	case even && step < 60 && minutes[0] == 0 && isRun(s.hours):
		text := "Every minute"
		if step > 1 {
			text = fmt.Sprintf("Every %d minutes", step)
		}
		if s.hours != allHours {
			text += ", " + from + " to " + to
		}
		return text
	case isRun(s.hours):
		text := "Every hour, " + pastText(minutes)
		if s.hours != allHours {
			text += fmt.Sprintf(", %s to %s", from, to)
		}
		return text
	}
	if hourStep, even := evenStep(s.hours, 24); even && len(minutes) == 1 {
		return fmt.Sprintf("Every %d hours, %s, %s to %s", hourStep, pastText(minutes), from, to)
	}
	var names []string
	for _, r := range runs(hours) {
		if r[0] == r[1] {
			names = append(names, fmt.Sprintf("%02d:00", r[0]))
		} else {
			names = append(names, fmt.Sprintf("%02d:00 to %02d:00", r[0], r[1]))
		}
	}
	return fmt.Sprintf("In the hours that begin at %s, %s", and(names), pastText(minutes))
}

// pastText places minutes within an hour.
func pastText(minutes []int) string {
	if len(minutes) == 1 && minutes[0] == 0 {
		return "on the hour"
	}
	if step, even := evenStep(setOf(minutes), 60); even && len(minutes) > 2 && minutes[0] == 0 {
		if step == 1 {
			return "every minute"
		}
		return fmt.Sprintf("every %d minutes", step)
	}
	unit := "minutes"
	if len(minutes) == 1 && minutes[0] == 1 {
		unit = "minute"
	}
	return fmt.Sprintf("at %s %s past", numberList(minutes, strconv.Itoa), unit)
}

// daysText names the dates: "every day", "Monday to Friday", "on the 1st of
// each month", each optionally within some months.
func (s Spec) daysText() string {
	everyDate, everyWeekday := s.days == allDays, s.weekday == allWeekdays
	if s.eitherDay && (everyDate || everyWeekday) {
		everyDate, everyWeekday = true, true
	}
	switch {
	case everyDate && everyWeekday:
		if s.months == allMonths {
			return "every day"
		}
		return "every day " + s.inMonths()
	case everyDate:
		text := s.weekdaysText("every ")
		if s.months != allMonths {
			text += " " + s.inMonths()
		}
		return text
	case everyWeekday:
		return s.datesText()
	case s.months == allMonths:
		return "on " + s.ordinals() + " of each month or on " + s.weekdaysText("any ")
	default:
		return s.inMonths() + ", on " + s.ordinals() + " or on " + s.weekdaysText("any ")
	}
}

func (s Spec) datesText() string {
	days, months := members(s.days), members(s.months)
	switch {
	case len(days) == 1 && len(months) == 1:
		text := fmt.Sprintf("on %d %s", days[0], time.Month(months[0]))
		if days[0] == 29 && months[0] == 2 {
			text += " of leap years"
		}
		return text
	case s.months != allMonths:
		return "on " + s.ordinals() + " of " + s.monthsText()
	case days[len(days)-1] <= 28:
		return "on " + s.ordinals() + " of each month"
	case len(days) == 1:
		return "on " + s.ordinals() + " of each month that has one,"
	default:
		return "on " + s.ordinals() + " of each month, as far as the month goes,"
	}
}

func (s Spec) ordinals() string { return "the " + numberList(members(s.days), ordinal) }

func (s Spec) inMonths() string {
	if bits.OnesCount64(s.months) > 2 && isRun(s.months) {
		return "from " + s.monthsText()
	}
	return "in " + s.monthsText()
}

func (s Spec) monthsText() string {
	return numberList(members(s.months), func(m int) string { return time.Month(m).String() })
}

// weekdaysText names the days of the week from Monday on; one alone gets the
// determiner.
func (s Spec) weekdaysText(determiner string) string {
	var days []int // Monday is 1, Sunday 7
	for day := 1; day <= 7; day++ {
		if s.weekday&(1<<(day%7)) != 0 {
			days = append(days, day)
		}
	}
	text := numberList(days, func(day int) string { return time.Weekday(day % 7).String() })
	if len(days) == 1 {
		return determiner + text
	}
	return text
}

func ordinal(n int) string {
	suffix := "th"
	if n/10 != 1 {
		switch n % 10 {
		case 1:
			suffix = "st"
		case 2:
			suffix = "nd"
		case 3:
			suffix = "rd"
		}
	}
	return strconv.Itoa(n) + suffix
}

// intervalText says a duration of whole seconds: "6 hours", "hour",
// "1 hour 30 minutes".
func intervalText(d time.Duration) string {
	const day = 24 * time.Hour
	units := []struct {
		size time.Duration
		name string
	}{{day, "day"}, {time.Hour, "hour"}, {time.Minute, "minute"}, {time.Second, "second"}}
	if d < 2*day {
		units = units[1:] // "24 hours" promises no time of day
	}
	var parts []string
	for _, unit := range units {
		n := int64(d / unit.size)
		d %= unit.size
		switch {
		case n == 1 && d == 0 && len(parts) == 0:
			parts = append(parts, unit.name)
		case n == 1:
			parts = append(parts, "1 "+unit.name)
		case n > 1:
			parts = append(parts, fmt.Sprintf("%d %ss", n, unit.name))
		}
	}
	return strings.Join(parts, " ")
}
