package scheduler_test

import (
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"resticfleet/agent/scheduler"
	"resticfleet/models/cronspec"
)

func zone(t *testing.T, name string) *time.Location {
	t.Helper()
	loc, err := cronspec.LoadZone(name)
	if err != nil {
		t.Fatal(err)
	}
	return loc
}

// TestTickAtTheMomentOfAChange: a set comes in the very instant that a
// schedule is due. Whichever of both is first, it fires once.
func TestTickAtTheMomentOfAChange(t *testing.T) {
	t.Parallel()
	for i := range 100 {
		t.Run(fmt.Sprint(i), func(t *testing.T) {
			run(t, scheduler.Config{}, func(t *testing.T, b bundle) {
				b.Apply(set(1, on("a", "0 2 * * *")))
				<-time.After(2 * time.Hour)
				b.Apply(set(2, on("a", "0 2 * * *"), on("b", "0 5 * * *")))
				b.Apply(set(3, on("a", "0 2 * * *")))
				pass(time.Hour)
				b.wantFires(t, "a 02:00:00 at 02:00:00")
			})
		})
	}
}

// TestSilentLinkHoldsUpApplyUntilTheDeadlineOnly: the old cron's last send is
// waited for, and meanwhile nothing ticks. What came due then is fired by the
// new cron, unless it belongs to a schedule that wasn't there before.
func TestSilentLinkHoldsUpApplyUntilTheDeadlineOnly(t *testing.T) {
	run(t, scheduler.Config{SendTimeout: 90 * time.Second}, func(t *testing.T, b bundle) {
		b.Apply(set(1, on("slow", "0 1 * * *"), on("kept", "1 * * * *"), on("edited", "1 * * * *"), off("enabled", "1 1 * * *")))
		synctest.Wait()
		pass(30 * time.Minute)
		b.link.setSilent(true)
		pass(30 * time.Minute) // the fire of slow hangs until 01:01:30
		b.link.setSilent(false)

		begin := time.Now()
		b.Apply(set(2, on("slow", "0 1 * * *"), on("kept", "1 * * * *"), on("edited", "1 1-9 * * *"), on("enabled", "1 1 * * *")))
		if took := time.Since(begin); took != 0 {
			t.Errorf("Apply took %v, its caller is a read loop", took)
		}
		pass(89 * time.Second)
		b.wantAcks(t, 1)
		if version, _ := b.Applied(); version != 1 {
			t.Errorf("Applied = %d while the old cron ends", version)
		}
		pass(time.Second)
		b.wantAcks(t, 1, 2)
		b.wantFires(t,
			"kept 00:01:00 at 00:01:00", "edited 00:01:00 at 00:01:00",
			"kept 01:01:00 at 01:01:30")
		pass(time.Minute)
		b.wantFires(t,
			"kept 00:01:00 at 00:01:00", "edited 00:01:00 at 00:01:00",
			"kept 01:01:00 at 01:01:30")
	})
}

func TestSilentLinkHoldsUpTheAcknowledgementAndNoTick(t *testing.T) {
	run(t, scheduler.Config{SendTimeout: 90 * time.Second}, func(t *testing.T, b bundle) {
		b.link.setSilent(true)
		b.Apply(set(1, on("a", "* * * * *")))
		synctest.Wait()
		b.link.setSilent(false)
		pass(time.Minute)
		b.wantFires(t, "a 00:01:00 at 00:01:00")
		b.Apply(set(2, on("b", "* * * * *")))
		pass(2 * time.Minute)
		b.wantAcks(t, 2)
		if version, _ := b.Applied(); version != 2 {
			t.Errorf("Applied = %d", version)
		}
	})
}

func TestLocationIsTheHostsAndTheExpressionsOwnWins(t *testing.T) {
	run(t, scheduler.Config{Location: zone(t, "Europe/Berlin")}, func(t *testing.T, b bundle) {
		b.Apply(set(1, on("here", "0 2 * * *"), on("tokyo", "CRON_TZ=Asia/Tokyo 0 11 * * *")))
		pass(90 * time.Minute)
		b.wantFires(t, "here 01:00:00 at 01:00:00")
		b.SetLocation(zone(t, "Europe/London"))
		b.SetLocation(zone(t, "Europe/London"))
		pass(time.Hour)
		want := []string{"here 01:00:00 at 01:00:00", "here 02:00:00 at 02:00:00", "tokyo 02:00:00 at 02:00:00"}
		fires := b.link.fired()
		slices.Sort(fires)
		if !slices.Equal(fires, want) {
			t.Errorf("fired %q, want %q", fires, want)
		}
		b.wantAcks(t, 1)
	})
}

// TestChangeOfZoneOwesNothing: 02:00 in Berlin was before the zone was known.
func TestChangeOfZoneOwesNothing(t *testing.T) {
	run(t, scheduler.Config{}, func(t *testing.T, b bundle) {
		b.Apply(set(1, on("a", "0 2 * * *")))
		pass(70 * time.Minute)
		b.SetLocation(zone(t, "Europe/Berlin"))
		pass(10 * time.Hour)
		b.wantFires(t)
		b.SetLocation(nil)
		pass(24 * time.Hour)
		b.wantFires(t, "a 02:00:00 at 02:00:00")
	})
}

func TestDailyRunsOnceWhenClocksChange(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		until time.Time // noon before the change
		want  []string  // in UTC
	}{
		"forward": {time.Date(2000, 3, 25, 12, 0, 0, 0, time.UTC), []string{"a 01:00:00 at 01:00:00", "a 00:30:00 at 00:30:00"}},
		"back":    {time.Date(2000, 10, 28, 12, 0, 0, 0, time.UTC), []string{"a 00:30:00 at 00:30:00", "a 01:30:00 at 01:30:00"}},
	} {
		t.Run(name, func(t *testing.T) {
			run(t, scheduler.Config{Location: zone(t, "Europe/Berlin")}, func(t *testing.T, b bundle) {
				pass(time.Until(c.until))
				b.Apply(set(1, on("a", "30 2 * * *")))
				pass(48 * time.Hour)
				b.wantFires(t, c.want...)
			})
		})
	}
}
