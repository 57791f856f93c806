package cronspec_test

import "testing"

func TestDescribe(t *testing.T) {
	t.Parallel()
	for expr, want := range map[string]string{
		"0 2 * * *":                "Every day at 02:00",
		"0 2,14 * * *":             "Every day at 02:00 and 14:00",
		"0 */6 * * *":              "Every day at 00:00, 06:00, 12:00 and 18:00",
		"0 */24 * * *":             "Every day at 00:00",
		"*/7 3 * * *":              "Every day at 03:00, 03:07, 03:14, 03:21, 03:28, 03:35, 03:42, 03:49 and 03:56",
		"0 3 * * 1":                "Every Monday at 03:00",
		"0 3 * * SUN":              "Every Sunday at 03:00",
		"0 2 * * 1-5":              "Monday to Friday at 02:00",
		"0 2 * * 0,6":              "Saturday and Sunday at 02:00",
		"0 2 * * 0,1,5,6":          "Monday and Friday to Sunday at 02:00",
		"0 2 * * 0-6":              "Every day at 02:00",
		"0 2 * * 1,3,5":            "Monday, Wednesday and Friday at 02:00",
		"30 4 1 * *":               "On the 1st of each month at 04:30",
		"30 4 2,3,11,12,13,21 * *": "On the 2nd, 3rd, 11th to 13th and 21st of each month at 04:30",
		"0 0 31 * *":               "On the 31st of each month that has one, at 00:00",
		"0 0 1,31 * *":             "On the 1st and 31st of each month, as far as the month goes, at 00:00",
		"0 0 29 2 *":               "On 29 February of leap years at 00:00",
		"0 0 1 1,7 *":              "On the 1st of January and July at 00:00",
		"0 2 * 6-8 *":              "Every day from June to August at 02:00",
		"0 2 * 6,8 1":              "Every Monday in June and August at 02:00",
		"@yearly":                  "On 1 January at 00:00",
		"@monthly":                 "On the 1st of each month at 00:00",
		"@weekly":                  "Every Sunday at 00:00",
		"@daily":                   "Every day at 00:00",
		"@hourly":                  "Every hour, on the hour",
		"* * * * *":                "Every minute",
		"* * * * 1-5":              "Every minute, Monday to Friday",
		"*/1 */1 */1 */1 */1":      "Every minute",
		"*/15 * * * *":             "Every 15 minutes",
		"*/15 8-18 * * *":          "Every 15 minutes, 08:00 to 18:45",
		"*/5 2 * * *":              "Every 5 minutes, 02:00 to 02:55",
		"5/15 * * * *":             "Every hour, at 5, 20, 35 and 50 minutes past",
		"1 * * * *":                "Every hour, at 1 minute past",
		"*/7 * * * *":              "Every hour, at 0, 7, 14, 21, 28, 35, 42, 49 and 56 minutes past",
		"2-9,20 8-10 * * *":        "Every hour, at 2 to 9 and 20 minutes past, 08:02 to 10:20",
		"0 8-18 * * 1-5":           "Every hour, on the hour, 08:00 to 18:00, Monday to Friday",
		"30 */2 * * *":             "Every 2 hours, at 30 minutes past, 00:30 to 22:30",
		"0 1-23/2 * 6 *":           "Every 2 hours, on the hour, 01:00 to 23:00, in June",
		"* */6 * * *":              "In the hours that begin at 00:00, 06:00, 12:00 and 18:00, every minute",
		"5,35 8-10,13,20 31 * *":   "In the hours that begin at 08:00 to 10:00, 13:00 and 20:00, at 5 and 35 minutes past, on the 31st of each month that has one",
		// With both day fields restricted, cron runs on either.
		"0 0 13 * 5":      "On the 13th of each month or on any Friday at 00:00",
		"0 0 29 2 1":      "In February, on the 29th or on any Monday at 00:00",
		"0 2 1-7 * 1-5":   "On the 1st to 7th of each month or on Monday to Friday at 02:00",
		"0 2 13 6-8 5":    "From June to August, on the 13th or on any Friday at 02:00",
		"0 2 1 * 0-6":     "Every day at 02:00",
		"0 2 1-31 * 1":    "Every day at 02:00",
		"0 2 1 * *":       "On the 1st of each month at 02:00",
		"*/30 * 13 * FRI": "Every 30 minutes, on the 13th of each month or on any Friday",
		"@every 6h":       "Every 6 hours",
		"@every 1h":       "Every hour",
		"@every 1s":       "Every second",
		"@every 90m":      "Every 1 hour 30 minutes",
		"@every 24h":      "Every 24 hours",
		"@every 168h":     "Every 7 days",
		"@every 49h0m1s":  "Every 2 days 1 hour 1 second",

		"CRON_TZ=Europe/Berlin 0 2 * * *":  "Every day at 02:00, in Europe/Berlin time",
		"TZ=UTC 0 8-18 * * 1-5":            "Every hour, on the hour, 08:00 to 18:00, Monday to Friday, in UTC",
		"CRON_TZ=Europe/Berlin @every 15m": "Every 15 minutes",
	} {
		if got := mustParse(t, expr).Describe(); got != want {
			t.Errorf("Describe(%q)\n got %q\nwant %q", expr, got, want)
		}
	}
}
