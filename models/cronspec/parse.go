package cronspec

import (
	"errors"
	"fmt"
	"math/bits"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/robfig/cron/v3"
)

const (
	// maxLength leaves room for all five fields written out as lists.
	maxLength = 512
	maxEvery  = 100 * 365 * 24 * time.Hour
)

// starBit is robfig's mark of a field that was "*" or "?".
const starBit = 1 << 63

// Parse reads an expression. The error is a sentence for the person who typed
// it, the reason and then the remedy, without capital and full stop so that it
// fits behind a field's name.
//
// Beyond what robfig's parser refuses, it refuses what could not work: dates
// that never come, zones that are unknown or mean something else on every
// machine, intervals that robfig would round.
func Parse(expr string) (Spec, error) {
	if err := checkText(expr); err != nil {
		return Spec{}, err
	}
	fields := strings.Fields(expr)
	if len(fields) == 0 {
		return Spec{}, errors.New("the expression is empty; write five fields, such as 0 2 * * * for every day at 02:00")
	}
	s := Spec{text: strings.Join(fields, " ")}

	if name, ok := zonePrefix(fields[0]); ok {
		loc, err := LoadZone(name)
		if err != nil {
			return Spec{}, err
		}
		s.zone, s.loc = name, loc
		fields = fields[1:]
		if len(fields) == 0 {
			return Spec{}, errors.New("there is a time zone and no schedule behind it; add five fields, such as CRON_TZ=Europe/Berlin 0 2 * * *")
		}
		if _, again := zonePrefix(fields[0]); again {
			return Spec{}, errors.New("two time zones are named; keep one of them")
		}
	}
	var err error
	switch {
	case fields[0] == "@every":
		err = s.readEvery(fields[1:])
	case strings.HasPrefix(fields[0], "@"):
		err = s.readDescriptor(fields)
	default:
		err = s.readFields(fields)
	}
	if err != nil {
		return Spec{}, err
	}
	return s, nil
}

func checkText(expr string) error {
	if len(expr) > maxLength {
		return fmt.Errorf("the expression is longer than %d characters; use ranges and steps such as 8-18 or */15 in place of lists", maxLength)
	}
	if !utf8.ValidString(expr) {
		return errors.New("the expression contains bytes that are not text; type it anew")
	}
	for _, r := range expr {
		// A tab is how crontabs are often aligned; Fields takes it for a space.
		if r != '\t' && unicode.IsControl(r) {
			return fmt.Errorf("the expression contains the control character %U; remove it", r)
		}
	}
	return nil
}

func zonePrefix(field string) (name string, ok bool) {
	if name, ok = strings.CutPrefix(field, "CRON_TZ="); ok {
		return name, true
	}
	return strings.CutPrefix(field, "TZ=")
}

func (s *Spec) readEvery(rest []string) error {
	if len(rest) != 1 {
		return errors.New("@every needs one duration; write it without spaces, such as @every 1h30m")
	}
	d, err := time.ParseDuration(rest[0])
	switch {
	case err != nil:
		return fmt.Errorf("@every can't read the duration %q; write hours, minutes and seconds, such as 6h, 90m or 1h30m", rest[0])
	case d < time.Second:
		return fmt.Errorf("@every %s is under one second; use 1s or more", rest[0])
	case d%time.Second != 0:
		return fmt.Errorf("@every %s is not a whole number of seconds; leave out the fraction", rest[0])
	case d > maxEvery:
		return fmt.Errorf("@every %s is more than a hundred years; use a shorter interval", rest[0])
	}
	s.every = d
	return nil
}

func (s *Spec) readDescriptor(fields []string) error {
	if len(fields) > 1 {
		return fmt.Errorf("nothing may follow %s; leave out the rest or write five fields", fields[0])
	}
	sched, err := parseStandard(fields[0])
	if err != nil {
		return fmt.Errorf("%q is not known; use @hourly, @daily, @weekly, @monthly, @yearly or @every with a duration", fields[0])
	}
	s.take(sched, fields[0] == "@hourly")
	return nil
}

// fieldRules are the five fields in order, with what may stand in them.
var fieldRules = [5]struct{ name, allowed string }{
	{"minute", "0-59"},
	{"hour", "0-23"},
	{"day of month", "1-31"},
	{"month", "1-12 or JAN-DEC"},
	{"day of week", "0-6 (0 is Sunday) or SUN-SAT"},
}

func (s *Spec) readFields(fields []string) error {
	switch {
	case len(fields) == 6:
		return errors.New("there are six fields and a schedule has five (minute, hour, day of month, month, day of week); leave out the seconds or the year")
	case len(fields) != len(fieldRules):
		return fmt.Errorf("the number of fields is %d and a schedule has five (minute, hour, day of month, month, day of week); write an asterisk for those that don't matter", len(fields))
	}
	for i, field := range fields {
		alone := [5]string{"*", "*", "*", "*", "*"}
		alone[i] = field
		if _, err := parseStandard(strings.Join(alone[:], " ")); err != nil {
			rule := fieldRules[i]
			return fmt.Errorf("the %s %q is not valid: %s; use %s", rule.name, field, reason(err), rule.allowed)
		}
		// robfig takes a list without items for an empty set.
		if strings.Trim(field, ",") == "" {
			return fmt.Errorf("the %s %q has no value; use %s", fieldRules[i].name, field, fieldRules[i].allowed)
		}
	}
	sched, err := parseStandard(strings.Join(fields, " "))
	if err != nil {
		return fmt.Errorf("the expression is not valid: %w; write five fields, such as 0 2 * * *", err)
	}
	s.take(sched, strings.ContainsAny(fields[1], "*?"))
	if _, due := s.wallFrom(0); !due {
		return errors.New("the schedule is never due, because none of its months has such a day; choose another day or month")
	}
	return nil
}

// reason is what robfig found, without the innards of strconv.
func reason(err error) string {
	text := err.Error()
	if rest, ok := strings.CutPrefix(text, "failed to parse int from "); ok {
		word, _, _ := strings.Cut(rest, ": strconv.")
		return fmt.Sprintf("%q is no number here", word)
	}
	return text
}

// take copies robfig's sets. Zone and seconds are not its business here.
func (s *Spec) take(sched *cron.SpecSchedule, starHour bool) {
	s.minutes = sched.Minute &^ starBit
	s.hours = sched.Hour &^ starBit
	s.days = sched.Dom &^ starBit
	s.months = sched.Month &^ starBit
	s.weekday = sched.Dow &^ starBit
	s.eitherDay = sched.Dom&starBit == 0 && sched.Dow&starBit == 0
	s.elapsed = starHour && bits.OnesCount64(s.hours) > 1
}

// parseStandard is robfig's parser without its panics.
func parseStandard(expr string) (sched *cron.SpecSchedule, err error) {
	defer func() {
		if recover() != nil {
			sched, err = nil, errors.New("it can't be read")
		}
	}()
	parsed, err := cron.ParseStandard(expr)
	if err != nil {
		return nil, err
	}
	sched, ok := parsed.(*cron.SpecSchedule)
	if !ok {
		return nil, errors.New("it can't be read")
	}
	return sched, nil
}
