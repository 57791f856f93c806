package cronspec_test

import (
	"slices"
	"testing"
)

func TestRunsWhenClocksChange(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name, expr, zone, after string
		want                    []string // a time, or a time and its note
	}{
		{"daily, skipped hour", "30 2 * * *", "Europe/Berlin", "2026-03-28 00:00:00 +01:00", []string{
			"2026-03-28 02:30:00 +01:00",
			"2026-03-29 03:00:00 +02:00 clocks go forward: 02:30 does not exist that day",
			"2026-03-30 02:30:00 +02:00",
		}},
		{"daily, repeated hour", "30 2 * * *", "Europe/Berlin", "2026-10-24 12:00:00 +02:00", []string{
			"2026-10-25 02:30:00 +02:00 clocks go back: 02:30 comes twice, it runs once",
			"2026-10-26 02:30:00 +01:00",
		}},
		{"daily, asked between both passes", "30 2 * * *", "Europe/Berlin", "2026-10-25 02:10:00 +01:00", []string{
			"2026-10-26 02:30:00 +01:00",
		}},
		{"daily, the end of the skipped hour", "0 3 * * *", "Europe/Berlin", "2026-03-28 12:00:00 +01:00", []string{
			"2026-03-29 03:00:00 +02:00",
			"2026-03-30 03:00:00 +02:00",
		}},
		{"daily, the end of the repeated hour", "0 3 * * *", "Europe/Berlin", "2026-10-24 12:00:00 +02:00", []string{
			"2026-10-25 03:00:00 +01:00",
			"2026-10-26 03:00:00 +01:00",
		}},
		{"several times fall together", "0,20,40 2 * * *", "Europe/Berlin", "2026-03-28 12:00:00 +01:00", []string{
			"2026-03-29 03:00:00 +02:00 clocks go forward: 02:00 to 02:40 do not exist that day, it runs once",
			"2026-03-30 02:00:00 +02:00",
		}},
		{"a range of hours over a skipped one", "0 1-4 * * *", "Europe/Berlin", "2026-03-29 00:00:00 +01:00", []string{
			"2026-03-29 01:00:00 +01:00",
			"2026-03-29 03:00:00 +02:00 clocks go forward: 02:00 does not exist that day",
			"2026-03-29 04:00:00 +02:00",
			"2026-03-30 01:00:00 +02:00",
		}},
		{"a range of hours over a repeated one", "0 1-4 * * *", "Europe/Berlin", "2026-10-25 00:00:00 +02:00", []string{
			"2026-10-25 01:00:00 +02:00",
			"2026-10-25 02:00:00 +02:00 clocks go back: 02:00 comes twice, it runs once",
			"2026-10-25 03:00:00 +01:00",
			"2026-10-25 04:00:00 +01:00",
		}},
		{"hourly over a skipped hour", "0 * * * *", "Europe/Berlin", "2026-03-29 00:30:00 +01:00", []string{
			"2026-03-29 01:00:00 +01:00",
			"2026-03-29 03:00:00 +02:00 clocks go forward: 02:00 does not exist that day",
			"2026-03-29 04:00:00 +02:00",
		}},
		{"hourly over a repeated hour", "0 * * * *", "Europe/Berlin", "2026-10-25 01:30:00 +02:00", []string{
			"2026-10-25 02:00:00 +02:00 clocks go back: 02:00 comes twice, it runs both times",
			"2026-10-25 02:00:00 +01:00 clocks go back: 02:00 comes twice, it runs both times",
			"2026-10-25 03:00:00 +01:00",
		}},
		{"every second hour", "0 */2 * * *", "Europe/Berlin", "2026-03-28 23:00:00 +01:00", []string{
			"2026-03-29 00:00:00 +01:00",
			"2026-03-29 04:00:00 +02:00 clocks go forward: 02:00 does not exist that day",
			"2026-03-29 06:00:00 +02:00",
		}},
		{"every 30 minutes over a skipped hour", "*/30 * * * *", "America/New_York", "2026-03-08 01:00:00 -05:00", []string{
			"2026-03-08 01:30:00 -05:00",
			"2026-03-08 03:00:00 -04:00 clocks go forward: 02:00 and 02:30 do not exist that day",
			"2026-03-08 03:30:00 -04:00",
		}},
		{"a star that leaves one hour is daily", "30 */24 * * *", "America/Sao_Paulo", "2018-11-03 12:00:00 -03:00", []string{
			"2018-11-04 01:00:00 -02:00 clocks go forward: 00:30 does not exist that day",
			"2018-11-05 00:30:00 -02:00",
		}},
		{"@every goes on", "@every 2h", "Europe/Berlin", "2026-03-29 00:30:00 +01:00", []string{
			"2026-03-29 01:00:00 +01:00",
			"2026-03-29 04:00:00 +02:00",
		}},
		{"midnight is skipped", "@daily", "Asia/Beirut", "2026-03-28 12:00:00 +02:00", []string{
			"2026-03-29 01:00:00 +03:00 clocks go forward: 00:00 does not exist that day",
			"2026-03-30 00:00:00 +03:00",
		}},
		{"midnight is skipped in Cairo", "15 0 * * *", "Africa/Cairo", "2026-04-23 12:00:00 +02:00", []string{
			"2026-04-24 01:00:00 +03:00 clocks go forward: 00:15 does not exist that day",
			"2026-04-25 00:15:00 +03:00",
		}},
		{"the hour before midnight is repeated", "30 23 * * *", "America/Sao_Paulo", "2018-02-17 12:00:00 -02:00", []string{
			"2018-02-17 23:30:00 -02:00 clocks go back: 23:30 comes twice, it runs once",
			"2018-02-18 23:30:00 -03:00",
		}},
		{"midnight comes twice", "@daily", "America/St_Johns", "2010-11-06 12:00:00 -02:30", []string{
			"2010-11-07 00:00:00 -02:30 clocks go back: 00:00 comes twice, it runs once",
			"2010-11-08 00:00:00 -03:30",
		}},
		{"the last hour of a date is skipped", "15 23 * * *", "America/Nuuk", "2026-03-28 12:00:00 -02:00", []string{
			"2026-03-29 00:00:00 -01:00 clocks go forward: 23:15 does not exist on 28 March",
			"2026-03-29 23:15:00 -01:00",
			"2026-03-30 23:15:00 -01:00",
		}},
		{"half an hour forward", "15 2 * * *", "Australia/Lord_Howe", "2026-10-03 12:00:00 +10:30", []string{
			"2026-10-04 02:30:00 +11:00 clocks go forward: 02:15 does not exist that day",
			"2026-10-05 02:15:00 +11:00",
		}},
		{"half an hour back", "45 1 * * *", "Australia/Lord_Howe", "2026-04-04 12:00:00 +11:00", []string{
			"2026-04-05 01:45:00 +11:00 clocks go back: 01:45 comes twice, it runs once",
			"2026-04-06 01:45:00 +10:30",
		}},
		{"two hours forward", "30 1,2 * * *", "Antarctica/Troll", "2026-03-28 12:00:00 +00:00", []string{
			"2026-03-29 03:00:00 +02:00 clocks go forward: 01:30 and 02:30 do not exist that day, it runs once",
			"2026-03-30 01:30:00 +02:00",
		}},
		{"half an hour before midnight for good", "45 23 * * *", "Asia/Pyongyang", "2018-05-04 12:00:00 +08:30", []string{
			"2018-05-05 00:00:00 +09:00 clocks go forward: 23:45 does not exist on 4 May",
			"2018-05-05 23:45:00 +09:00",
		}},
		{"a date that a zone leaves out", "0 2 * * *", "Pacific/Apia", "2011-12-28 12:00:00 -10:00", []string{
			"2011-12-29 02:00:00 -10:00",
			"2011-12-31 02:00:00 +14:00",
		}},
		{"only on a date that a zone leaves out", "0 2 30 12 *", "Pacific/Apia", "2011-01-01 12:00:00 -11:00", []string{
			"2012-12-30 02:00:00 +14:00",
		}},
		{"hourly over a date that a zone leaves out", "0 * * * *", "Pacific/Apia", "2011-12-29 22:30:00 -10:00", []string{
			"2011-12-29 23:00:00 -10:00",
			"2011-12-31 00:00:00 +14:00 clocks go forward: 00:00 to 23:00 do not exist on 30 December",
			"2011-12-31 01:00:00 +14:00",
		}},
		{"summer time pauses for Ramadan", "30 2 * * *", "Africa/Casablanca", "2026-02-14 12:00:00 +01:00", []string{
			"2026-02-15 02:30:00 +01:00 clocks go back: 02:30 comes twice, it runs once",
			"2026-02-16 02:30:00 +00:00",
		}},
		{"the last day of a leap year", "30 */12 * * *", "America/New_York", "2028-12-30 13:00:00 -05:00", []string{
			"2028-12-31 00:30:00 -05:00",
			"2028-12-31 12:30:00 -05:00",
			"2029-01-01 00:30:00 -05:00",
		}},
		{"the last evening of a leap year", "30 22 * * *", "America/New_York", "2028-12-30 23:00:00 -05:00", []string{
			"2028-12-31 22:30:00 -05:00",
			"2029-01-01 22:30:00 -05:00",
		}},
		{"monthly on the day of the change", "30 2 29 * *", "Europe/Berlin", "2026-03-01 00:00:00 +01:00", []string{
			"2026-03-29 03:00:00 +02:00 clocks go forward: 02:30 does not exist that day",
			"2026-04-29 02:30:00 +02:00",
		}},
		{"the expression's zone changes its clocks", "CRON_TZ=Europe/Berlin 30 2 * * *", "Asia/Tokyo", "2026-03-28 12:00:00 +01:00", []string{
			"2026-03-29 03:00:00 +02:00 clocks go forward: 02:30 does not exist that day",
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			var got []string
			for _, run := range mustParse(t, c.expr).Runs(at(t, c.after), mustZone(t, c.zone), len(c.want)) {
				line := run.At.Format(layout)
				if run.Note != "" {
					line += " " + run.Note
				}
				got = append(got, line)
			}
			if !slices.Equal(got, c.want) {
				t.Errorf("%s in %s\n got %q\nwant %q", c.expr, c.zone, got, c.want)
			}
		})
	}
}

func TestRunsEndsWithTheYears(t *testing.T) {
	t.Parallel()
	runs := mustParse(t, "0 0 1 1 *").Runs(at(t, "9997-06-01 00:00:00 +00:00"), nil, 1000)
	if len(runs) != 2 {
		t.Errorf("%d runs, want those of 9998 and 9999", len(runs))
	}
	if runs := mustParse(t, "0 2 * * *").Runs(at(t, "2026-01-01 00:00:00 +00:00"), nil, -1); len(runs) != 0 {
		t.Errorf("%d runs for a negative count", len(runs))
	}
}
