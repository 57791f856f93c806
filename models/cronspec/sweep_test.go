package cronspec_test

import (
	"archive/zip"
	_ "embed"
	"fmt"
	"io/fs"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"resticfleet/models/cronspec"
)

// zoneNames are all names of the zone database, links included.
//
//go:embed testdata/zones.txt
var zoneNames string

// change is one move of a zone's clocks.
type change struct {
	at            int64 // Unix seconds
	before, after int   // offsets from UTC
}

// changesOf lists a zone's changes from 2000 to 2040.
func changesOf(loc *time.Location) []change {
	var list []change
	t := time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC)
	for end := time.Date(2041, 1, 1, 0, 0, 0, 0, time.UTC); t.Before(end); {
		_, next := t.In(loc).ZoneBounds()
		if next.IsZero() {
			break
		}
		if !next.After(t) { // the last day of a leap year, see periodAt
			next = t.Add(24 * time.Hour).Truncate(24 * time.Hour)
		}
		_, before := next.Add(-time.Second).In(loc).Zone()
		_, after := next.In(loc).Zone()
		if before != after {
			list = append(list, change{next.Unix(), before, after})
		}
		t = next.UTC()
	}
	return list
}

// TestDailyRunsOncePerLocalDay takes every zone and every change of its clocks
// from 2000 to 2040 and, around it, the daily schedule of every quarter of an
// hour. What is due is read off the clock minute by minute and must be what
// Next gives: once on every date that exists, at the reading's first showing
// or at the end of the jump over it. The same question is asked once.
func TestDailyRunsOncePerLocalDay(t *testing.T) {
	t.Parallel()
	for _, source := range []struct {
		name string
		load func(testing.TB, string) *time.Location
		// question tells what is the same question. In Go's own database a
		// change's neighbours matter, on its way from table to rule.
		question func(c change, whole string) string
	}{
		{"Go's own", goZones(t), func(c change, whole string) string { return fmt.Sprint(c) + whole }},
		{"as loaded", mustZone, func(c change, _ string) string { return fmt.Sprint(c) }},
	} {
		seen := map[string]bool{}
		for _, name := range strings.Fields(zoneNames) {
			loc := source.load(t, name)
			list := changesOf(loc)
			whole := fmt.Sprint(list)
			list = slices.DeleteFunc(list, func(c change) bool {
				key := source.question(c, whole)
				known := seen[key]
				seen[key] = true
				return known
			})
			if len(list) == 0 {
				continue
			}
			t.Run(source.name+"/"+name, func(t *testing.T) {
				t.Parallel()
				for _, c := range list {
					checkAround(t, loc, c)
					if t.Failed() {
						return
					}
				}
			})
		}
		if len(seen) < 3000 {
			t.Errorf("%s: only %d changes of clocks", source.name, len(seen))
		}
	}
}

// daily returns the daily schedules of all quarters of an hour.
var daily = sync.OnceValue(func() []cronspec.Spec {
	var specs []cronspec.Spec
	for i := range 96 {
		spec, err := cronspec.Parse(fmt.Sprintf("%d %d * * *", i%4*15, i/4))
		if err != nil {
			panic(err)
		}
		specs = append(specs, spec)
	}
	return specs
})

// goZones reads the zone database that comes with Go, which is also the one
// built in. A machine's own may list each change of decades; this one lists
// few and gives rules for the rest, another path through package time.
func goZones(t *testing.T) func(testing.TB, string) *time.Location {
	t.Helper()
	root, err := exec.CommandContext(t.Context(), "go", "env", "GOROOT").Output()
	if err != nil {
		t.Fatal(err)
	}
	archive, err := zip.OpenReader(filepath.Join(strings.TrimSpace(string(root)), "lib", "time", "zoneinfo.zip"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := archive.Close(); err != nil {
			t.Error(err)
		}
	})
	return func(t testing.TB, name string) *time.Location {
		data, err := fs.ReadFile(archive, name)
		if err != nil {
			t.Fatal(err)
		}
		loc, err := time.LoadLocationFromTZData(name, data)
		if err != nil {
			t.Fatal(err)
		}
		return loc
	}
}

// checkAround compares the due times of the dates around a change.
func checkAround(t *testing.T, loc *time.Location, c change) {
	const day = 24 * 60 // minutes
	// What the clock shows in each minute, from two days before to two days
	// after, in minutes; a minute of the clock begins with a minute of UTC.
	start := c.at/60 - 2*day
	var shown [4 * day]int64
	offset := func(minute int64) int64 {
		_, seconds := time.Unix(minute*60, 0).In(loc).Zone()
		return int64(seconds / 60)
	}
	for hour := 0; hour < len(shown); hour += 60 {
		from, to := offset(start+int64(hour)), offset(start+int64(hour)+59)
		for i := hour; i < hour+60; i++ {
			m := start + int64(i)
			shown[i] = m + from
			if from != to { // the hour of a change: look at each minute
				shown[i] = m + offset(m)
			}
		}
	}
	// The dates to look at are those that lie whole within the stretch.
	base := shown[0] / day
	firstDate, lastDate := base+1, shown[len(shown)-1]/day-1

	var first [8 * day]int64 // of each reading since base: the minute of its first showing
	var exists [8]bool       // of each date since base
	var landed int64         // the minute that ends the jump
	for i, w := range shown {
		if since := w - base*day; first[since] == 0 {
			first[since] = start + int64(i)
			exists[since/day] = true
		}
		if i > 0 && w > shown[i-1]+1 {
			if landed != 0 {
				t.Errorf("two jumps around %s: this test can't tell them apart", time.Unix(c.at, 0).In(loc))
			}
			landed = start + int64(i)
		}
	}
	for i, spec := range daily() {
		var after time.Time
		for date := firstDate; date <= lastDate; date++ {
			if !exists[date-base] {
				continue
			}
			want := first[(date-base)*day+int64(i)*15]
			if want == 0 {
				want = landed
			}
			if after.IsZero() {
				after = time.Unix(want*60-1, 0)
			}
			got := spec.Next(after, loc)
			if got.Unix() != want*60 {
				t.Errorf("%s around %s: Next(%s) = %s, want %s", spec, time.Unix(c.at, 0).In(loc), after.In(loc), got, time.Unix(want*60, 0).In(loc))
				return
			}
			// Half an hour later a clock that went back shows the reading as
			// still to come. It isn't.
			after = got.Add(30 * time.Minute)
		}
	}
}
