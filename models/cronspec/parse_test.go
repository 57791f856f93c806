package cronspec_test

import (
	"strings"
	"testing"
	"time"

	"resticfleet/models/cronspec"
)

func mustParse(t testing.TB, expr string) cronspec.Spec {
	t.Helper()
	s, err := cronspec.Parse(expr)
	if err != nil {
		t.Fatalf("Parse(%q): %v", expr, err)
	}
	return s
}

func mustZone(t testing.TB, name string) *time.Location {
	t.Helper()
	loc, err := cronspec.LoadZone(name)
	if err != nil {
		t.Fatal(err)
	}
	return loc
}

func TestParseRefusesWhatCannotWork(t *testing.T) {
	t.Parallel()
	for expr, want := range map[string]string{
		"":                                     "is empty",
		" \t ":                                 "is empty",
		"0 0 30 2 *":                           "never due",
		"0 0 31 2,4,6,9,11 *":                  "never due",
		"0 0 30-31 2 ?":                        "never due",
		"0 0 2 * * *":                          "six fields",
		"0 2 * *":                              "number of fields is 4",
		"0 2 * * * * *":                        "number of fields is 7",
		"nightly":                              "number of fields is 1",
		"60 * * * *":                           `the minute "60" is not valid`,
		"-1 * * * *":                           `the minute "-1" is not valid`,
		"0 24 * * *":                           `the hour "24" is not valid`,
		"0 0 0 * *":                            `the day of month "0" is not valid`,
		"0 0 32 * *":                           `the day of month "32" is not valid`,
		"0 0 L * *":                            `the day of month "L" is not valid`,
		"0 0 * 13 *":                           `the month "13" is not valid`,
		"0 0 * * 7":                            "0 is Sunday",
		"0 0 * * 5#2":                          `the day of week "5#2" is not valid`,
		"*/0 * * * *":                          "positive",
		"30-10 * * * *":                        `the minute "30-10" is not valid`,
		"1-2-3 * * * *":                        `the minute "1-2-3" is not valid`,
		"a * * * *":                            `"a" is no number here`,
		", * * * *":                            "has no value",
		"* * , * *":                            "has no value",
		"*/9999999999999999999999 * * * *":     `the minute "*/9999999999999999999999" is not valid`,
		"@reboot":                              "@daily",
		"@":                                    "@daily",
		"@Daily":                               "@daily",
		"@every1h":                             "@daily",
		"@daily 3":                             "nothing may follow @daily",
		"@every":                               "needs one duration",
		"@every 1h 30m":                        "without spaces",
		"@every 1":                             "can't read the duration",
		"@every 1w":                            "can't read the duration",
		"@every 99999999999h":                  "can't read the duration",
		"@every 0s":                            "under one second",
		"@every 999ms":                         "under one second",
		"@every -5m":                           "under one second",
		"@every 1500ms":                        "whole number of seconds",
		"@every 1h0.5s":                        "whole number of seconds",
		"@every 876001h":                       "hundred years",
		"TZ=":                                  "time zone is empty",
		"CRON_TZ=":                             "time zone is empty",
		"CRON_TZ= 0 2 * * *":                   "time zone is empty",
		"TZ=UTC":                               "no schedule behind it",
		"CRON_TZ=Europe/Berlin":                "no schedule behind it",
		"TZ=UTC TZ=UTC 0 2 * * *":              "two time zones",
		"CRON_TZ=UTC TZ=Asia/Tokyo @daily":     "two time zones",
		"CRON_TZ=Local 0 2 * * *":              "something else on every machine",
		"CRON_TZ=local 0 2 * * *":              "something else on every machine",
		"CRON_TZ=Mars/Olympus 0 2 * * *":       "is unknown",
		"CRON_TZ=Europe/Berlin/ 0 2 * * *":     "not the name of a time zone",
		"CRON_TZ=../../etc/passwd 0 2 * * *":   "not the name of a time zone",
		"CRON_TZ=/etc/localtime 0 2 * * *":     "not the name of a time zone",
		"CRON_TZ=right/UTC 0 2 * * *":          "not the name of a time zone",
		"CRON_TZ=UTC 0 0 30 2 *":               "never due",
		"0 2 * * *\n":                          "U+000A",
		"0 2 * * *\r\n":                        "U+000D",
		"0 2 * * *\x00":                        "U+0000",
		"0 2 * *\x1b *":                        "U+001B",
		"0\u00852 * * *":                       "U+0085",
		"\xff 2 * * *":                         "not text",
		strings.Repeat("0,", 300) + " 2 * * *": "longer than 512",
	} {
		s, err := cronspec.Parse(expr)
		switch {
		case err == nil:
			t.Errorf("Parse(%q) accepts it as %q", expr, s.Describe())
		case !strings.Contains(err.Error(), want):
			t.Errorf("Parse(%q) = %q, want it to say %q", expr, err, want)
		case !strings.Contains(err.Error(), ";"):
			t.Errorf("Parse(%q) = %q, which names no remedy", expr, err)
		case s != cronspec.Spec{}:
			t.Errorf("Parse(%q) returns a spec beside its error", expr)
		}
	}
}

func TestParseAccepts(t *testing.T) {
	t.Parallel()
	for expr, text := range map[string]string{
		"0 2 * * *":                              "0 2 * * *",
		"  0\t2  * *   * ":                       "0 2 * * *",
		"0 0 29 2 *":                             "0 0 29 2 *",
		"0 0 29 2 1":                             "0 0 29 2 1",
		"0 0 30 2 1":                             "0 0 30 2 1", // the Mondays of February
		"0 0 31 * ?":                             "0 0 31 * ?",
		"0 0 * JAN-mar mon,Fri":                  "0 0 * JAN-mar mon,Fri",
		"@daily":                                 "@daily",
		"@midnight":                              "@midnight",
		"@annually":                              "@annually",
		"@every 1s":                              "@every 1s",
		"@every  1h30m":                          "@every 1h30m",
		"@every 876000h":                         "@every 876000h",
		"TZ=Asia/Tokyo 0 2 * * *":                "TZ=Asia/Tokyo 0 2 * * *",
		"CRON_TZ=Europe/Berlin\t@weekly":         "CRON_TZ=Europe/Berlin @weekly",
		"CRON_TZ=Etc/GMT+5 @every 1h":            "CRON_TZ=Etc/GMT+5 @every 1h",
		"0,0,0 2 * * *":                          "0,0,0 2 * * *",
		"CRON_TZ=America/Port-au-Prince @hourly": "CRON_TZ=America/Port-au-Prince @hourly",
	} {
		s := mustParse(t, expr)
		if s.String() != text {
			t.Errorf("Parse(%q).String() = %q, want %q", expr, s.String(), text)
		}
		if again := mustParse(t, s.String()); again != s {
			t.Errorf("Parse(%q) is another spec when parsed again", expr)
		}
	}
}

func TestSpecSaysItsZoneAndInterval(t *testing.T) {
	t.Parallel()
	s := mustParse(t, "CRON_TZ=Europe/Berlin @every 90m")
	if d, ok := s.Every(); !ok || d != 90*time.Minute {
		t.Errorf("Every = %v, %v", d, ok)
	}
	if s.Zone() != "Europe/Berlin" {
		t.Errorf("Zone = %q", s.Zone())
	}
	s = mustParse(t, "0 2 * * *")
	if d, ok := s.Every(); ok || d != 0 || s.Zone() != "" {
		t.Errorf("Every = %v, %v; Zone = %q", d, ok, s.Zone())
	}
}

func TestLoadZone(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"UTC", "Europe/Berlin", "America/Argentina/Buenos_Aires", "Etc/GMT-14", "EST5EDT", "W-SU"} {
		loc, err := cronspec.LoadZone(name)
		if err != nil || loc.String() != name {
			t.Errorf("LoadZone(%q) = %v, %v", name, loc, err)
		}
	}
	for _, name := range []string{
		"", "Local", "LOCAL", "localtime", "Factory", "posixrules", "posix/Europe/Berlin", "right/Europe/Berlin",
		"../UTC", "Europe/../UTC", "/usr/share/zoneinfo/UTC", `Europe\Berlin`, "Europe/", "Europe", "zone.tab", "UTC\x00",
		"UTC ", "+02:00", "Nowhere/Land", strings.Repeat("A", 500),
	} {
		if loc, err := cronspec.LoadZone(name); err == nil {
			t.Errorf("LoadZone(%q) = %v, want an error", name, loc)
		} else if !strings.Contains(err.Error(), "Europe/Berlin") {
			t.Errorf("LoadZone(%q): %q names no remedy", name, err)
		}
	}
}

func TestJitterIsStableAndInsideItsWindow(t *testing.T) {
	t.Parallel()
	const want = 4*time.Minute + 47*time.Second + 496*time.Millisecond
	// Servers and agents of different versions must agree: the figure is fixed.
	if got := cronspec.Jitter("0197a3c1-7d20-7000-8000-000000000001", 10*time.Minute); got != want {
		t.Errorf("Jitter = %v, want %v", got, want)
	}
	for _, window := range []time.Duration{0, -time.Minute, time.Microsecond} {
		if got := cronspec.Jitter("a", window); got != 0 {
			t.Errorf("Jitter in %v = %v, want 0", window, got)
		}
	}
	const fleet, window = 1000, time.Minute
	var halves [2]int
	for i := range fleet {
		d := cronspec.Jitter(strings.Repeat("x", i), window)
		if d < 0 || d >= window {
			t.Fatalf("Jitter = %v, outside %v", d, window)
		}
		halves[d/(window/2)]++
	}
	if halves[0] < fleet*4/10 || halves[1] < fleet*4/10 {
		t.Errorf("%v of a fleet in the halves of the window", halves)
	}
}
