package cronspec_test

import (
	"strconv"
	"testing"
	"time"

	"resticfleet/models/cronspec"
)

func itoa(n int) string { return strconv.Itoa(n) }

// FuzzParse: whatever is typed, the parser answers; and what it accepts is
// due, again and again, and has words.
func FuzzParse(f *testing.F) {
	for _, expr := range []string{
		"", "0 2 * * *", "TZ=", "TZ=UTC", "CRON_TZ=", "CRON_TZ= 0 2 * * *", "TZ=Local @daily", "@every 1s", "@every 876000h",
		"@every 2540400h10m10.000000000s", "0 0 29 2 *", "0 0 30 2 *", "*/99999999999 * * * *", "1-2-3 * * * *", ", , , , ,",
		"*-5 *-5 * * *", "0 0 2 * * *", "CRON_TZ=Australia/Lord_Howe */30 */2 * * *", "CRON_TZ=Africa/Casablanca 0 0 31 12 *",
		"TZ=\x00 0 2 * * *", "\xff", "0 0 1 1 ?", "@", "+5 +2 * * *",
	} {
		f.Add(expr, int64(1_795_000_000))
	}
	zone := mustZone(f, "America/Nuuk")
	f.Fuzz(func(t *testing.T, expr string, from int64) {
		s, err := cronspec.Parse(expr)
		if err != nil {
			return
		}
		if again := mustParse(t, s.String()); again != s {
			t.Fatalf("%q is another spec when parsed again", expr)
		}
		if s.Describe() == "" {
			t.Fatalf("%q has no words", expr)
		}
		after := time.Unix(from%(1<<32), 0) // up to 2106, or back to 1833
		for _, run := range s.Runs(after, zone, 3) {
			if !run.At.After(after) {
				t.Fatalf("%q: %v does not follow %v", expr, run.At, after)
			}
			after = run.At
		}
		if next := s.Next(after, zone); !next.After(after) {
			t.Fatalf("%q: Next(%v) = %v", expr, after, next)
		}
	})
}
