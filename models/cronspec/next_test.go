package cronspec_test

import (
	"testing"
	"time"

	"github.com/robfig/cron/v3"
	"pgregory.net/rapid"

	"resticfleet/models/cronspec"
)

const layout = "2006-01-02 15:04:05 -07:00"

func at(t testing.TB, text string) time.Time {
	t.Helper()
	v, err := time.Parse(layout, text)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func TestNext(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ name, expr, zone, after, want string }{
		{"later today", "0 2 * * *", "UTC", "2026-11-23 01:59:59 +00:00", "2026-11-23 02:00:00 +00:00"},
		{"strictly after", "0 2 * * *", "UTC", "2026-11-23 02:00:00 +00:00", "2026-11-24 02:00:00 +00:00"},
		{"the given zone", "0 2 * * *", "Asia/Kolkata", "2026-11-23 00:00:00 +00:00", "2026-11-24 02:00:00 +05:30"},
		{"the expression's own zone wins", "CRON_TZ=Asia/Tokyo 0 2 * * *", "Europe/Berlin", "2026-11-23 00:00:00 +00:00", "2026-11-24 02:00:00 +09:00"},
		{"a leap day", "0 0 29 2 *", "UTC", "2026-01-01 00:00:00 +00:00", "2028-02-29 00:00:00 +00:00"},
		{"a leap day across 2100", "0 0 29 2 *", "UTC", "2096-02-29 00:00:00 +00:00", "2104-02-29 00:00:00 +00:00"},
		{"a leap day or a Monday", "0 0 29 2 1", "UTC", "2028-02-28 00:00:00 +00:00", "2028-02-29 00:00:00 +00:00"},
		{"the 31st", "0 0 31 * *", "UTC", "2026-03-31 00:00:00 +00:00", "2026-05-31 00:00:00 +00:00"},
		{"the last minute of a year", "59 23 31 12 *", "UTC", "2026-12-31 23:59:00 +00:00", "2027-12-31 23:59:00 +00:00"},
		{"@every from the epoch", "@every 7h", "UTC", "2026-11-23 00:00:00 +00:00", "2026-11-23 02:00:00 +00:00"},
		{"@every in any zone", "@every 7h", "Asia/Kolkata", "2026-11-23 00:00:00 +00:00", "2026-11-23 07:30:00 +05:30"},
		{"@every strictly after", "@every 24h", "UTC", "2026-11-23 00:00:00 +00:00", "2026-11-24 00:00:00 +00:00"},
		{"@every before the epoch", "@every 24h", "UTC", "1969-12-30 12:00:00 +00:00", "1969-12-31 00:00:00 +00:00"},
		{"no year beyond 9999", "0 2 * * *", "UTC", "9999-12-31 00:00:00 +00:00", ""},
	} {
		got := mustParse(t, c.expr).Next(at(t, c.after), mustZone(t, c.zone))
		if c.want == "" {
			if !got.IsZero() {
				t.Errorf("%s: Next = %v, want none", c.name, got)
			}
			continue
		}
		if got.Format(layout) != c.want {
			t.Errorf("%s: Next = %s, want %s", c.name, got.Format(layout), c.want)
		}
	}
}

func TestNextIgnoresFractionsOfASecond(t *testing.T) {
	t.Parallel()
	due := at(t, "2026-11-23 02:00:00 +00:00")
	for _, expr := range []string{"0 2 * * *", "0 * * * *", "@every 1h"} {
		s := mustParse(t, expr)
		if got := s.Next(due.Add(-time.Nanosecond), nil); !got.Equal(due) {
			t.Errorf("%s: a nanosecond before, Next = %v", expr, got)
		}
		if got := s.Next(due.Add(time.Nanosecond), nil); !got.After(due.Add(time.Minute)) {
			t.Errorf("%s: a nanosecond after, Next = %v", expr, got)
		}
	}
}

func TestZeroSpecIsNeverDue(t *testing.T) {
	t.Parallel()
	var s cronspec.Spec
	if got := s.Next(time.Now(), time.UTC); !got.IsZero() {
		t.Errorf("Next = %v", got)
	}
	if _, ok := s.Latest(time.Time{}, time.Now(), nil); ok {
		t.Error("Latest finds a time")
	}
	if got := s.Describe(); got != "Never" {
		t.Errorf("Describe = %q", got)
	}
}

func TestLatest(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ expr, after, until, want string }{
		{"0 2 * * *", "2026-11-20 00:00:00 +00:00", "2026-11-23 01:59:59 +00:00", "2026-11-22 02:00:00 +00:00"},
		{"0 2 * * *", "2026-11-20 00:00:00 +00:00", "2026-11-23 02:00:00 +00:00", "2026-11-23 02:00:00 +00:00"},
		{"0 2 * * *", "2026-11-23 02:00:00 +00:00", "2026-11-23 23:00:00 +00:00", ""},
		{"0 2 * * *", "2026-11-23 02:00:00 +00:00", "2026-11-22 02:00:00 +00:00", ""},
		{"0 0 29 2 *", "1990-01-01 00:00:00 +00:00", "2026-11-23 00:00:00 +00:00", "2024-02-29 00:00:00 +00:00"},
		{"0 0 1 1 *", "0001-01-01 00:00:00 +00:00", "2026-11-23 00:00:00 +00:00", "2026-01-01 00:00:00 +00:00"},
		{"@every 1s", "1990-01-01 00:00:00 +00:00", "2026-11-23 00:00:00 +00:00", "2026-11-23 00:00:00 +00:00"},
		{"* * * 1 *", "1990-01-01 00:00:00 +00:00", "2026-11-23 00:00:00 +00:00", "2026-01-31 23:59:00 +00:00"},
	} {
		got, ok := mustParse(t, c.expr).Latest(at(t, c.after), at(t, c.until), time.UTC)
		if ok != (c.want != "") || ok && got.Format(layout) != c.want {
			t.Errorf("%s in (%s, %s]: Latest = %v, %v, want %q", c.expr, c.after, c.until, got, ok, c.want)
		}
	}
}

// TestNextIsRobfigsWhereClocksNeverChange compares the whole grammar with the
// parser's own library in a zone without changes.
func TestNextIsRobfigsWhereClocksNeverChange(t *testing.T) {
	t.Parallel()
	field := func(low, high int) *rapid.Generator[string] {
		number := rapid.Custom(func(t *rapid.T) string { return itoa(rapid.IntRange(low, high).Draw(t, "n")) })
		span := rapid.Custom(func(t *rapid.T) string {
			a := rapid.IntRange(low, high).Draw(t, "a")
			return itoa(a) + "-" + itoa(rapid.IntRange(a, high).Draw(t, "b"))
		})
		step := rapid.Custom(func(t *rapid.T) string {
			from := rapid.OneOf(rapid.Just("*"), number, span).Draw(t, "from")
			return from + "/" + itoa(rapid.IntRange(1, high).Draw(t, "step"))
		})
		list := rapid.Custom(func(t *rapid.T) string {
			return number.Draw(t, "first") + "," + rapid.OneOf(number, span).Draw(t, "second")
		})
		return rapid.OneOf(rapid.Just("*"), rapid.Just("?"), number, span, step, list)
	}
	expressions := rapid.Custom(func(t *rapid.T) string {
		return field(0, 59).Draw(t, "minute") + " " + field(0, 23).Draw(t, "hour") + " " +
			field(1, 31).Draw(t, "dom") + " " + field(1, 12).Draw(t, "month") + " " + field(0, 6).Draw(t, "dow")
	})
	rapid.Check(t, func(t *rapid.T) {
		expr := expressions.Draw(t, "expr")
		theirs, err := cron.ParseStandard("TZ=UTC " + expr)
		if err != nil {
			t.Fatalf("robfig refuses %q: %v", expr, err)
		}
		after := time.Unix(rapid.Int64Range(0, 4e9).Draw(t, "after"), 0).UTC()
		want := theirs.Next(after)
		ours, err := cronspec.Parse(expr)
		if err != nil {
			if !want.IsZero() {
				t.Fatalf("Parse(%q): %v, yet it is due at %v", expr, err, want)
			}
			return
		}
		got := ours.Next(after, time.UTC)
		// Their search ends after five years, ours finds the leap day after 2100.
		if !want.IsZero() && !got.Equal(want) || got.IsZero() {
			t.Fatalf("%q after %v: Next = %v, want %v", expr, after, got, want)
		}
		if ours.Describe() == "" {
			t.Fatalf("%q has no words", expr)
		}
	})
}

func BenchmarkNext(b *testing.B) {
	berlin := mustZone(b, "Europe/Berlin")
	for _, expr := range []string{"0 2 * * *", "*/15 * * * *", "0 8-18 * * 1-5", "0 0 29 2 *", "30 */2 29 2 *", "@every 6h"} {
		b.Run(expr, func(b *testing.B) {
			s := mustParse(b, expr)
			from := at(b, "2026-11-23 12:00:00 +00:00")
			for b.Loop() {
				s.Next(from, berlin)
			}
		})
	}
}
