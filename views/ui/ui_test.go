package ui

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/a-h/templ"
)

func render(t *testing.T, c templ.Component) string {
	t.Helper()
	var b strings.Builder
	if err := c.Render(context.Background(), &b); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func TestEveryStateHasIconWordAndColour(t *testing.T) {
	t.Parallel()
	words, icons := map[string]State{}, map[string]State{}
	for _, s := range States {
		if s.Word() == "Unknown" {
			t.Errorf("%s has no word", s)
		}
		if other, taken := words[s.Word()]; taken {
			t.Errorf("%s and %s have the same word", s, other)
		}
		words[s.Word()] = s
		icon := render(t, Icon(s))
		// Good and Online share the tick: both are as it should be.
		if other, taken := icons[icon]; taken && s != Online {
			t.Errorf("%s and %s have the same icon", s, other)
		}
		icons[icon] = s
		badge := render(t, Badge(s))
		for _, part := range []string{s.Word(), "<svg", s.colour(), `aria-hidden="true"`} {
			if !strings.Contains(badge, part) {
				t.Errorf("the badge of %s has no %q", s, part)
			}
		}
	}
}

func TestTheEightStatesAndTheirWords(t *testing.T) {
	t.Parallel()
	for s, want := range map[State]string{
		Good: "Good", Running: "Running", Waiting: "Waiting", Warning: "Warning", Late: "Late",
		Failed: "Failed", Never: "Never backed up", Offline: "Offline",
	} {
		if s.Word() != want {
			t.Errorf("%s reads %q, want %q", s, s.Word(), want)
		}
	}
}

func TestNumbers(t *testing.T) {
	t.Parallel()
	for got, want := range map[string]string{
		Number(0): "0", Number(999): "999", Number(1000): "1,000", Number(18204): "18,204",
		Number(-1234567):             "-1,234,567",
		Count(1, "file", "files"):    "1 file",
		Count(2000, "file", "files"): "2,000 files",
		Bytes(0):                     "0 B", Bytes(1023): "1,023 B", Bytes(1024): "1 KiB", Bytes(1536): "1.5 KiB",
		Bytes(212 << 20): "212 MiB", Bytes(1<<20 - 1): "1.0 MiB", Bytes(3328599654): "3.1 GiB",
		Bytes(1<<63 - 1):                "8 EiB",
		BytesOf(2040109465, 3328599654): "1.9 / 3.1 GiB",
		BytesOf(0, 100):                 "0 / 100 B",
		Percent(63.4):                   "63\u00a0%", Percent(99.99): "99\u00a0%", Percent(100): "100\u00a0%", Percent(-1): "0\u00a0%", Percent(250): "100\u00a0%",
	} {
		if got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}

func TestSpans(t *testing.T) {
	t.Parallel()
	for d, want := range map[time.Duration]string{
		-time.Second: "0 s", 3 * time.Millisecond: "3 ms", 2 * time.Second: "2 s", 98 * time.Second: "1 min 38 s",
		182 * time.Second: "3 min 02 s", 11*time.Hour + 40*time.Minute: "11 h 40 min", 52 * time.Hour: "2 d 4 h",
	} {
		if got := Duration(d); got != want {
			t.Errorf("Duration(%v) is %q, want %q", d, got, want)
		}
	}
	for d, want := range map[time.Duration]string{
		0: "under 1 min", 38 * time.Minute: "38 min", 14*time.Hour + 59*time.Minute: "14 h", 27 * time.Hour: "1 d 3 h",
		48 * time.Hour: "2 d", 8*24*time.Hour + 5*time.Hour: "8 d", 1500 * 24 * time.Hour: "1,500 d",
	} {
		if got := Age(d); got != want {
			t.Errorf("Age(%v) is %q, want %q", d, got, want)
		}
	}
}

func TestTimesAreRelativeWithTheExactOneAndItsZone(t *testing.T) {
	t.Parallel()
	zone, err := time.LoadLocation("Europe/Berlin")
	if err != nil {
		t.Fatal(err)
	}
	clock := Clock{Now: time.Date(2026, 11, 23, 13, 52, 0, 0, time.UTC), Zone: zone}
	got := render(t, Ago(clock, clock.Now.Add(-3*time.Hour)))
	for _, part := range []string{"<time", `datetime="2026-11-23T10:52:00.000Z"`, `title="Mon 23 Nov 2026, 11:52:00 Europe/Berlin"`, ">3 h ago<"} {
		if !strings.Contains(got, part) {
			t.Errorf("%s has no %s", got, part)
		}
	}
	for got, want := range map[string]string{
		relative(relIn, clock.Now, clock.Now.Add(9*time.Hour)):      "in 9 h",
		relative(relIn, clock.Now, clock.Now.Add(-time.Second)):     "due now",
		relative(relAge, clock.Now, clock.Now.Add(-38*time.Minute)): "38 min",
		// A clock that runs ahead must not show a negative age.
		relative(relAgo, clock.Now, clock.Now.Add(time.Hour)): "just now",
		clock.DayWall(clock.Now.Add(12 * time.Hour)):          "tomorrow 02:52",
		clock.Short(clock.Now):                                "14:52",
		clock.Short(clock.Now.Add(-36 * time.Hour)):           "yesterday 02:52",
		clock.Day(clock.Now.AddDate(-1, 0, 0)):                "23 Nov 2025",
		Clock{}.ZoneName():                                    "UTC",
	} {
		if got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
	if none := render(t, Since(clock, time.Time{})); strings.Contains(none, "<time") {
		t.Error("no time is shown as a time")
	}
}

func TestStripTellsWhatItDraws(t *testing.T) {
	t.Parallel()
	days := []Day{
		{Date: time.Date(2026, 11, 20, 0, 0, 0, 0, time.UTC), State: Good},
		{Date: time.Date(2026, 11, 21, 0, 0, 0, 0, time.UTC), State: Failed, Text: `wrong <password>`},
		{Date: time.Date(2026, 11, 22, 0, 0, 0, 0, time.UTC), State: Warning},
		{Date: time.Date(2026, 11, 23, 0, 0, 0, 0, time.UTC)},
	}
	want := "www, 4 days: 1 good, 1 without a run; Sun 22 Nov: warning; Sat 21 Nov: wrong <password>"
	if got := stripText("www", days); got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	svg := render(t, Strip("www", days))
	if strings.Contains(svg, "<password>") {
		t.Error("a day's text is not escaped")
	}
	if n := strings.Count(svg, "<title>"); n != len(days) {
		t.Errorf("%d days say what happened, want %d", n, len(days))
	}
}

func TestAFieldNamesItsHintAndError(t *testing.T) {
	t.Parallel()
	got := render(t, Input(Field{Name: "tag", Label: "Tag", Value: `"><script>`, Hint: "A hint", Error: "Taken."}))
	for _, part := range []string{`for="f-tag"`, `id="f-tag"`, `aria-describedby="f-tag-error f-tag-hint"`, `aria-invalid="true"`, `id="f-tag-error"`, `id="f-tag-hint"`} {
		if !strings.Contains(got, part) {
			t.Errorf("the field has no %s", part)
		}
	}
	if strings.Contains(got, "<script") {
		t.Error("a value is not escaped")
	}
}

func TestSizesAreReadAsTheyAreTyped(t *testing.T) {
	t.Parallel()
	for typed, want := range map[string]int64{
		"0": 0, "123": 123, " 123 B ": 123, "10 GiB": 10 << 30, "10GiB": 10 << 30, "10 gib": 10 << 30, "10G": 10 << 30, "1.5 TiB": 3 << 39,
		"500 MB": 500e6, "1,048,576": 1 << 20, "1 048 576": 1 << 20, "1,024.5 k": 1024<<10 + 512, "9223372036854775807": 1<<63 - 1, "-1": -1,
	} {
		if got, ok := ParseBytes(typed); !ok || got != want {
			t.Errorf("%q is %d, %v; want %d", typed, got, ok, want)
		}
	}
	for _, typed := range []string{"", "GiB", "ten GiB", "10 GiBs", "1,5 GiB", "1.5.5 G", "1e3", "NaN", "Inf", "0x10", "8 EiB", "9223372036854775808", "10 000 00", "5 %"} {
		if got, ok := ParseBytes(typed); ok {
			t.Errorf("%q was taken for %d", typed, got)
		}
	}
	for n, want := range map[int64]string{0: "0", 1: "1", 1023: "1023", 1024: "1 KiB", 1536: "1536", 10 << 30: "10 GiB", 1<<63 - 1: "9223372036854775807"} {
		if got := ExactBytes(n); got != want {
			t.Errorf("%d is typed %q, want %q", n, got, want)
		}
		if back, ok := ParseBytes(ExactBytes(n)); !ok || back != n {
			t.Errorf("%d comes back as %d", n, back)
		}
	}
	if n, ok := ParseCount("1,000"); !ok || n != 1000 {
		t.Errorf("1,000 is %d", n)
	}
	for _, typed := range []string{"", "1.5", "1,0", "many"} {
		if got, ok := ParseCount(typed); ok {
			t.Errorf("%q was taken for %d", typed, got)
		}
	}
}

func TestMillisAreNeverLost(t *testing.T) {
	t.Parallel()
	for d, want := range map[time.Duration]string{
		-time.Second: "0 ms", 0: "0 ms", 3 * time.Millisecond: "3 ms", 12345 * time.Millisecond: "12,345 ms",
		time.Minute: "1 min 00.000 s", 182*time.Second + 45*time.Millisecond: "3 min 02.045 s", 2*time.Hour + 5*time.Minute + 10*time.Millisecond: "2 h 05 min 00.010 s",
	} {
		if got := Millis(d); got != want {
			t.Errorf("%s is %q, want %q", d, got, want)
		}
	}
}
