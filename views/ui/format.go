package ui

import (
	"math"
	"regexp"
	"strconv"
	"strings"
	"time"
)

// Number is n with its thousands separated: 18,204.
func Number(n int64) string {
	digits := strconv.FormatInt(n, 10)
	sign := ""
	if digits[0] == '-' {
		sign, digits = "-", digits[1:]
	}
	var b strings.Builder
	b.WriteString(sign)
	for i, d := range digits {
		if i > 0 && (len(digits)-i)%3 == 0 {
			b.WriteByte(',')
		}
		b.WriteRune(d)
	}
	return b.String()
}

// Count is n with the fitting one of two nouns: 1 file, 18,204 files.
func Count(n int64, one, many string) string {
	if n == 1 {
		return "1 " + one
	}
	return Number(n) + " " + many
}

var byteUnits = []string{"B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"}

// Bytes is n in binary units, with one decimal below a hundred: 3.1 GiB.
func Bytes(n int64) string {
	return bytesIn(n, unitOf(n), true)
}

// BytesOf is "1.9 / 3.1 GiB": both in the unit of the second.
func BytesOf(done, total int64) string {
	unit := unitOf(total)
	return bytesIn(done, unit, false) + " / " + bytesIn(total, unit, true)
}

func unitOf(n int64) int {
	unit, v := 0, math.Abs(float64(n))
	// 1023.95 and not 1024, so that 1,048,570 bytes are 1 MiB and not 1024 KiB.
	for v >= 1023.5 && unit < len(byteUnits)-1 {
		v /= 1024
		unit++
	}
	return unit
}

func bytesIn(n int64, unit int, withUnit bool) string {
	v := float64(n) / math.Pow(1024, float64(unit))
	var s string
	switch {
	case unit == 0, math.Abs(v) >= 100, v == math.Trunc(v):
		s = Number(int64(math.Round(v)))
	default:
		s = strconv.FormatFloat(v, 'f', 1, 64)
	}
	if withUnit {
		s += " " + byteUnits[unit]
	}
	return s
}

// ExactBytes is n as a person would type it, losing nothing: 10 GiB, or the
// bare number where no unit fits.
func ExactBytes(n int64) string {
	unit := 0
	for n != 0 && n%1024 == 0 && unit < len(byteUnits)-1 {
		n /= 1024
		unit++
	}
	s := strconv.FormatInt(n, 10)
	if unit > 0 {
		s += " " + byteUnits[unit]
	}
	return s
}

// sizeUnits are what may stand behind a size, in lower case. Kilobytes are
// thousands; a bare letter is binary, as restic reads it.
var sizeUnits = map[string]float64{
	"": 1, "b": 1,
	"k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40, "p": 1 << 50, "e": 1 << 60,
	"kib": 1 << 10, "mib": 1 << 20, "gib": 1 << 30, "tib": 1 << 40, "pib": 1 << 50, "eib": 1 << 60,
	"kb": 1e3, "mb": 1e6, "gb": 1e9, "tb": 1e12, "pb": 1e15, "eb": 1e18,
}

// ParseBytes reads a size as people type it: 10 GiB, 1.5T, 500 MB, 1,048,576.
func ParseBytes(s string) (int64, bool) {
	s = strings.TrimSpace(s)
	split := strings.LastIndexAny(s, "0123456789") + 1
	factor, known := sizeUnits[strings.ToLower(strings.TrimSpace(s[split:]))]
	number := ungroup(s[:split])
	if n, err := strconv.ParseInt(number, 10, 64); known && err == nil && factor == 1 {
		return n, true
	}
	if strings.ContainsFunc(number, func(r rune) bool { return (r < '0' || r > '9') && r != '.' }) {
		return 0, false // no exponents, no infinities
	}
	v, err := strconv.ParseFloat(number, 64)
	if !known || err != nil || v*factor >= math.MaxInt64 {
		return 0, false
	}
	return int64(math.Round(v * factor)), true
}

// ParseCount reads a whole number as people type it: 1,000 or 1 000.
func ParseCount(s string) (int64, bool) {
	n, err := strconv.ParseInt(ungroup(strings.TrimSpace(s)), 10, 64)
	return n, err == nil
}

var grouped = regexp.MustCompile(`^[0-9]{1,3}([,_ \x{a0}\x{202f}][0-9]{3})+(\.[0-9]+)?$`)

// ungroup takes out what separates thousands, and nothing else: 1,5 is no 15.
func ungroup(s string) string {
	if !grouped.MatchString(s) {
		return s
	}
	return strings.NewReplacer(",", "", " ", "", "\u00a0", "", "\u202f", "", "_", "").Replace(s)
}

// Percent is p, from 0 to 100, as a whole number that says 100 % only when it
// is: 99.9 is 99 %.
func Percent(p float64) string {
	return strconv.Itoa(whole(p)) + "\u00a0%" // never broken before the sign
}

func whole(p float64) int {
	return int(math.Max(0, math.Min(100, math.Floor(p))))
}

// Duration is how long something took: 2 s, 3 min 02 s, 11 h 40 min, 2 d 4 h;
// below a second in ms.
func Duration(d time.Duration) string {
	switch {
	case d < 0:
		return "0 s"
	case d < time.Second:
		return strconv.FormatInt(d.Milliseconds(), 10) + " ms"
	case d < time.Minute:
		return strconv.Itoa(int(d.Seconds())) + " s"
	case d < time.Hour:
		s := int(d.Seconds())
		return strconv.Itoa(s/60) + " min " + twoDigits(s%60) + " s"
	case d < 24*time.Hour:
		m := int(d.Minutes())
		return strconv.Itoa(m/60) + " h " + twoDigits(m%60) + " min"
	}
	return Age(d)
}

// Millis is how long a step took, to the millisecond: 3 ms, 12,345 ms, and from
// a minute on 3 min 02.345 s or 2 h 05 min 00.010 s.
func Millis(d time.Duration) string {
	ms := max(d.Milliseconds(), 0)
	if ms < time.Minute.Milliseconds() {
		return Number(ms) + " ms"
	}
	thousandths := strconv.FormatInt(1000+ms%1000, 10)[1:]
	s := int(ms / 1000)
	out := strconv.Itoa(s/60) + " min "
	if s >= 3600 {
		out = Number(int64(s/3600)) + " h " + twoDigits(s/60%60) + " min "
	}
	return out + twoDigits(s%60) + "." + thousandths + " s"
}

func twoDigits(n int) string {
	if n < 10 {
		return "0" + strconv.Itoa(n)
	}
	return strconv.Itoa(n)
}

// Age is a rough span: 38 min, 14 h, 2 d 4 h, 12 d. The script's age() says the
// same words, because it refreshes them in the page.
func Age(d time.Duration) string {
	switch {
	case d < time.Minute:
		return "under 1 min"
	case d < time.Hour:
		return strconv.Itoa(int(d.Minutes())) + " min"
	case d < 24*time.Hour:
		return strconv.Itoa(int(d.Hours())) + " h"
	}
	h := int(d.Hours())
	if days := h / 24; days < 7 && h%24 > 0 {
		return strconv.Itoa(days) + " d " + strconv.Itoa(h%24) + " h"
	}
	return Number(int64(h/24)) + " d"
}

// Ahead is how far off a coming time is, in words that fit a preview of runs:
// in 8 min, in 11 h, in 4 days.
func Ahead(d time.Duration) string {
	switch {
	case d <= 0:
		return "due now"
	case d < 48*time.Hour:
		return "in " + Age(d)
	}
	return "in " + Number(int64(d.Hours()/24)) + " days"
}

// Remaining is an estimate and says so.
func Remaining(d time.Duration) string {
	switch {
	case d < 10*time.Second:
		return "a few seconds left"
	case d < time.Minute:
		return "under 1 min left"
	}
	return "about " + Age(d.Round(time.Minute)) + " left"
}
