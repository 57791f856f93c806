package cronspec_test

import (
	_ "embed"
	"fmt"
	"strings"
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
// or at the end of the jump over it. Zones with the same changes are the same
// question and are asked once.
func TestDailyRunsOncePerLocalDay(t *testing.T) {
	t.Parallel()
	var quarters [96]cronspec.Spec
	for i := range quarters {
		quarters[i] = mustParse(t, fmt.Sprintf("%d %d * * *", i%4*15, i/4))
	}
	names := strings.Fields(zoneNames)
	if len(names) < 590 {
		t.Fatalf("only %d zones", len(names))
	}
	seen := map[string]bool{}
	changes := 0
	for _, name := range names {
		loc := mustZone(t, name)
		list := changesOf(loc)
		key := fmt.Sprint(list)
		if len(list) == 0 || seen[key] {
			continue
		}
		seen[key] = true
		changes += len(list)
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			for _, c := range list {
				checkAround(t, loc, c, quarters[:])
				if t.Failed() {
					return
				}
			}
		})
	}
	if changes < 3000 {
		t.Errorf("only %d changes of clocks", changes)
	}
}

// checkAround compares the due times of the dates around a change.
func checkAround(t *testing.T, loc *time.Location, c change, daily []cronspec.Spec) {
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
	for i, spec := range daily {
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
