package views

import (
	"regexp"
	"strconv"
	"strings"

	"resticfleet/models"
	"resticfleet/views/ui"
)

// Retention are the numbers of a policy as they stand in their fields: empty
// for none, otherwise what was typed, so that a mistake can be shown again.
type Retention struct {
	KeepLast, KeepHourly, KeepDaily, KeepWeekly, KeepMonthly, KeepYearly string
	KeepWithin                                                           string
	KeepTags                                                             string // comma separated
}

// RetentionOf fills the fields from a policy.
func RetentionOf(r models.Retention) Retention {
	number := func(n int) string {
		if n == 0 {
			return ""
		}
		return strconv.Itoa(n)
	}
	return Retention{
		KeepLast: number(r.KeepLast), KeepHourly: number(r.KeepHourly), KeepDaily: number(r.KeepDaily),
		KeepWeekly: number(r.KeepWeekly), KeepMonthly: number(r.KeepMonthly), KeepYearly: number(r.KeepYearly),
		KeepWithin: r.KeepWithin, KeepTags: strings.Join(r.KeepTags, ", "),
	}
}

// Policy is what the fields say; what isn't a number is said at its field.
func (r Retention) Policy() (models.Retention, Errors) {
	errs := Errors{}
	number := func(field, s string) int {
		if strings.TrimSpace(s) == "" {
			return 0
		}
		n, ok := ui.ParseCount(s)
		if !ok {
			errs[field] = "This must be a whole number, or empty."
		}
		return int(n)
	}
	p := models.Retention{
		KeepLast: number("keep_last", r.KeepLast), KeepHourly: number("keep_hourly", r.KeepHourly), KeepDaily: number("keep_daily", r.KeepDaily),
		KeepWeekly: number("keep_weekly", r.KeepWeekly), KeepMonthly: number("keep_monthly", r.KeepMonthly), KeepYearly: number("keep_yearly", r.KeepYearly),
		KeepWithin: strings.TrimSpace(r.KeepWithin),
	}
	for tag := range strings.SplitSeq(r.KeepTags, ",") {
		if tag = strings.TrimSpace(tag); tag != "" {
			p.KeepTags = append(p.KeepTags, tag)
		}
	}
	return p, errs
}

// words says what the policy in the fields keeps, or why that can't be told.
func (r Retention) words() string {
	p, errs := r.Policy()
	for _, n := range []int{p.KeepLast, p.KeepHourly, p.KeepDaily, p.KeepWeekly, p.KeepMonthly, p.KeepYearly} {
		if n < 0 || len(errs) > 0 {
			return "Each number must be a whole one, or empty."
		}
	}
	if _, ok := spanWords(p.KeepWithin); !ok {
		return "“" + p.KeepWithin + "” is no span of time: write it like 2y5m7d3h."
	}
	return RetentionSentence(p)
}

// RetentionSentence says what a policy keeps, as restic understands it.
func RetentionSentence(r models.Retention) string {
	var parts []string
	noun := "snapshots"
	switch {
	case r.KeepLast == 1:
		parts, noun = append(parts, "the last snapshot"), "ones"
	case r.KeepLast > 1:
		parts, noun = append(parts, "the last "+ui.Number(int64(r.KeepLast))+" snapshots"), "ones"
	}
	var every []string
	total := 0
	for _, k := range []struct {
		n    int
		word string
	}{{r.KeepHourly, "hourly"}, {r.KeepDaily, "daily"}, {r.KeepWeekly, "weekly"}, {r.KeepMonthly, "monthly"}, {r.KeepYearly, "yearly"}} {
		if k.n > 0 {
			total += k.n
			every = append(every, ui.Number(int64(k.n))+" "+k.word)
		}
	}
	switch {
	case total == 1:
		parts = append(parts, "the last "+strings.TrimPrefix(every[0], "1 ")+" "+strings.TrimSuffix(noun, "s"))
	case total > 1:
		parts = append(parts, "the last "+enumerate(every, "and")+" "+noun)
	}
	if span, _ := spanWords(r.KeepWithin); span != "" {
		parts = append(parts, "everything of the last "+span)
	}
	if len(r.KeepTags) > 0 {
		tags := make([]string, len(r.KeepTags))
		for i, tag := range r.KeepTags {
			tags[i] = "“" + tag + "”"
		}
		parts = append(parts, "everything tagged "+enumerate(tags, "or"))
	}
	if len(parts) == 0 {
		return "Keeps every snapshot: nothing is ever removed."
	}
	return "Keeps " + strings.Join(parts, ", and ") + "; everything else is removed when forget runs."
}

var (
	span     = regexp.MustCompile(`^([0-9]{1,5}[ymdh])*$`)
	spanPart = regexp.MustCompile(`([0-9]+)([ymdh])`)
)

// spanWords reads restic's 2y5m7d3h; "" is a span of nothing.
func spanWords(s string) (words string, ok bool) {
	if !span.MatchString(s) {
		return "", false
	}
	var parts []string
	for _, m := range spanPart.FindAllStringSubmatch(s, -1) {
		n, _ := strconv.ParseInt(m[1], 10, 64) // at most five digits
		unit := map[string]string{"y": "year", "m": "month", "d": "day", "h": "hour"}[m[2]]
		switch {
		case n == 1:
			parts = append(parts, "1 "+unit)
		case n > 1:
			parts = append(parts, ui.Number(n)+" "+unit+"s")
		}
	}
	return enumerate(parts, "and"), true
}

// enumerate is "a, b and c".
func enumerate(words []string, last string) string {
	switch len(words) {
	case 0:
		return ""
	case 1:
		return words[0]
	}
	return strings.Join(words[:len(words)-1], ", ") + " " + last + " " + words[len(words)-1]
}
