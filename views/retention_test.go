package views

import (
	"testing"

	"resticfleet/models"
)

func TestARetentionSaysWhatItKeeps(t *testing.T) {
	t.Parallel()
	const rest = "; everything else is removed when forget runs."
	for _, c := range []struct {
		policy models.Retention
		want   string
	}{
		{models.Retention{}, "Keeps every snapshot: nothing is ever removed."},
		{models.Retention{KeepWithin: "0d"}, "Keeps every snapshot: nothing is ever removed."},
		{models.Retention{KeepDaily: 7, KeepWeekly: 4}, "Keeps the last 7 daily and 4 weekly snapshots" + rest},
		{models.Retention{KeepLast: 1}, "Keeps the last snapshot" + rest},
		{models.Retention{KeepLast: 1200}, "Keeps the last 1,200 snapshots" + rest},
		{models.Retention{KeepHourly: 1}, "Keeps the last hourly snapshot" + rest},
		{models.Retention{KeepDaily: 1, KeepYearly: 1}, "Keeps the last 1 daily and 1 yearly snapshots" + rest},
		{models.Retention{KeepLast: 3, KeepMonthly: 1}, "Keeps the last 3 snapshots, and the last monthly one" + rest},
		{
			models.Retention{KeepLast: 3, KeepHourly: 24, KeepDaily: 7, KeepWeekly: 4, KeepMonthly: 12, KeepYearly: 5, KeepWithin: "2y5m1d36h", KeepTags: []string{"release", "keep"}},
			"Keeps the last 3 snapshots, and the last 24 hourly, 7 daily, 4 weekly, 12 monthly and 5 yearly ones, and everything of the last 2 years, 5 months, 1 day and 36 hours, and everything tagged “release” or “keep”" + rest,
		},
		{models.Retention{KeepWithin: "30d"}, "Keeps everything of the last 30 days" + rest},
		{models.Retention{KeepTags: []string{"keep"}}, "Keeps everything tagged “keep”" + rest},
	} {
		if got := RetentionSentence(c.policy); got != c.want {
			t.Errorf("%+v reads\n%s, want\n%s", c.policy, got, c.want)
		}
		if back, errs := RetentionOf(c.policy).Policy(); len(errs) > 0 || RetentionSentence(back) != c.want {
			t.Errorf("%+v comes back from its fields as %+v, %v", c.policy, back, errs)
		}
	}
	for _, c := range []struct {
		typed Retention
		want  string
	}{
		{Retention{KeepDaily: " 7 ", KeepTags: " , keep,"}, "Keeps the last 7 daily snapshots, and everything tagged “keep”" + rest},
		{Retention{KeepDaily: "seven"}, "Each number must be a whole one, or empty."},
		{Retention{KeepDaily: "-7"}, "Each number must be a whole one, or empty."},
		{Retention{KeepWithin: "a month"}, "“a month” is no span of time: write it like 2y5m7d3h."},
	} {
		if got := c.typed.words(); got != c.want {
			t.Errorf("%+v reads %q, want %q", c.typed, got, c.want)
		}
	}
}
