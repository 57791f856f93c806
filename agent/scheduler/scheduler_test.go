package scheduler_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"resticfleet/agent/protocol"
	"resticfleet/agent/scheduler"
	"resticfleet/models/cronspec"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// link is a live link that keeps what it is given.
type link struct {
	mu     sync.Mutex
	fires  []string // "id 02:00:00 at 02:00:05": nominal, then by the clock
	acks   []protocol.ScheduleAck
	silent bool // takes nothing and answers nothing, until the deadline
}

func (l *link) Fire(ctx context.Context, fire protocol.Fire) error {
	if l.isSilent() {
		<-ctx.Done()
		return ctx.Err()
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if fire.ScheduledAt.Location() != time.UTC {
		return errors.New("scheduled_at is not in UTC")
	}
	l.fires = append(l.fires, fmt.Sprintf("%s %s at %s", fire.ScheduleID,
		fire.ScheduledAt.Format(time.TimeOnly), time.Now().UTC().Format(time.TimeOnly)))
	return nil
}

func (l *link) Ack(ctx context.Context, ack protocol.ScheduleAck) error {
	if l.isSilent() {
		<-ctx.Done()
		return ctx.Err()
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.acks = append(l.acks, ack)
	return nil
}

func (l *link) isSilent() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.silent
}

func (l *link) setSilent(silent bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.silent = silent
}

func (l *link) fired() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.fires)
}

func (l *link) acked() []int64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	versions := []int64{}
	for _, ack := range l.acks {
		versions = append(versions, ack.Version)
	}
	return versions
}

type bundle struct {
	*scheduler.Scheduler
	link *link
	log  *bytes.Buffer
}

// run gives the test a scheduler with a link in a bubble, where it is midnight
// UTC on 1 January 2000.
func run(t *testing.T, cfg scheduler.Config, test func(t *testing.T, b bundle)) {
	t.Helper()
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := bundle{link: &link{}, log: &bytes.Buffer{}}
		cfg.Logger = slog.New(slog.NewTextHandler(b.log, nil)) // its handler locks
		b.Scheduler = scheduler.New(cfg)
		b.SetSender(b.link)
		t.Cleanup(b.Stop)
		test(t, b)
	})
}

// pass lets time go by, and then everything due come to rest.
func pass(d time.Duration) {
	<-time.After(d)
	synctest.Wait()
}

func set(version int64, schedules ...protocol.Schedule) protocol.ScheduleSet {
	return protocol.ScheduleSet{Version: version, Schedules: schedules}
}

func on(id, cron string) protocol.Schedule {
	return protocol.Schedule{ID: id, Cron: cron, Enabled: true, SourceGroups: []string{"g"}}
}

func off(id, cron string) protocol.Schedule {
	return protocol.Schedule{ID: id, Cron: cron, SourceGroups: []string{"g"}}
}

func (b bundle) wantFires(t *testing.T, want ...string) {
	t.Helper()
	got := b.link.fired()
	slices.Sort(got) // ticks of one instant come in any order
	slices.Sort(want)
	if !slices.Equal(got, want) {
		t.Errorf("fired %q, want %q", got, want)
	}
}

func (b bundle) wantAcks(t *testing.T, want ...int64) {
	t.Helper()
	if got := b.link.acked(); !slices.Equal(got, want) {
		t.Errorf("acknowledged %v, want %v", got, want)
	}
}

func TestApplyAcknowledges(t *testing.T) {
	run(t, scheduler.Config{}, func(t *testing.T, b bundle) {
		if version, digest := b.Applied(); version != 0 || digest != "" {
			t.Errorf("Applied = %d, %q before any set", version, digest)
		}
		first := set(7, on("a", "0 2 * * *"))
		b.Apply(first)
		synctest.Wait()
		b.wantAcks(t, 7)
		if got := b.link.acks[0].Digest; got != first.Digest() {
			t.Errorf("acknowledged digest %q, want %q", got, first.Digest())
		}
		if version, digest := b.Applied(); version != 7 || digest != first.Digest() {
			t.Errorf("Applied = %d, %q", version, digest)
		}
	})
}

func TestEmptySetIsASet(t *testing.T) {
	run(t, scheduler.Config{}, func(t *testing.T, b bundle) {
		b.Apply(set(0))
		b.Apply(set(0))
		synctest.Wait()
		if version, digest := b.Applied(); version != 0 || digest == "" {
			t.Errorf("Applied = %d, %q", version, digest)
		}
		if len(b.link.acked()) == 0 {
			t.Error("no acknowledgement")
		}
	})
}

func TestTickFiresItsNominalTime(t *testing.T) {
	run(t, scheduler.Config{}, func(t *testing.T, b bundle) {
		pass(123 * time.Millisecond)
		b.Apply(set(1, on("a", "0 2 * * *"), on("b", "@every 90m")))
		pass(2 * time.Hour)
		b.wantFires(t, "b 01:30:00 at 01:30:00", "a 02:00:00 at 02:00:00")
		pass(24 * time.Hour)
		if n := len(b.link.fired()); n != 2+1+16 {
			t.Errorf("%d fires after another day, want 19", n)
		}
	})
}

func TestDisabledDoesNotFire(t *testing.T) {
	run(t, scheduler.Config{}, func(t *testing.T, b bundle) {
		b.Apply(set(1, off("a", "* * * * *"), off("b", "not even a cron expression"), on("c", "0 1 * * *")))
		pass(90 * time.Minute)
		b.wantFires(t, "c 01:00:00 at 01:00:00")
		b.wantAcks(t, 1)
		if strings.Contains(b.log.String(), "schedule.id") {
			t.Errorf("disabled entries are skipped silently, log: %s", b.log)
		}
	})
}

func TestNewSetReplacesTheOld(t *testing.T) {
	run(t, scheduler.Config{}, func(t *testing.T, b bundle) {
		b.Apply(set(1, on("a", "0 1 * * *"), on("b", "0 2 * * *"), on("c", "0 3 * * *")))
		pass(90 * time.Minute)
		b.Apply(set(2, on("b", "30 2 * * *"), off("c", "0 3 * * *"), on("d", "0 4 * * *")))
		pass(24 * time.Hour)
		b.wantFires(t, "a 01:00:00 at 01:00:00", "b 02:30:00 at 02:30:00", "d 04:00:00 at 04:00:00")
		b.wantAcks(t, 1, 2)
	})
}

func TestBadExpressionIsSkippedAndLogged(t *testing.T) {
	run(t, scheduler.Config{}, func(t *testing.T, b bundle) {
		b.Apply(set(1, on("bad", "0 0 30 2 *"), on("worse", "TZ="), on("good", "0 1 * * *")))
		pass(2 * time.Hour)
		b.wantFires(t, "good 01:00:00 at 01:00:00")
		b.wantAcks(t, 1)
		for _, want := range []string{"schedule.id=bad", "never due", "schedule.id=worse", "time zone is empty"} {
			if !strings.Contains(b.log.String(), want) {
				t.Errorf("the log does not say %q: %s", want, b.log)
			}
		}
	})
}

func TestTickWithoutLinkIsDropped(t *testing.T) {
	run(t, scheduler.Config{}, func(t *testing.T, b bundle) {
		b.Apply(set(1, on("a", "0 * * * *")))
		b.SetSender(nil)
		pass(90 * time.Minute)
		b.wantFires(t)
		if !strings.Contains(b.log.String(), "no link") || !strings.Contains(b.log.String(), "schedule.id=a") {
			t.Errorf("the log does not name the dropped tick: %s", b.log)
		}
		b.SetSender(b.link)
		pass(time.Hour)
		b.wantFires(t, "a 02:00:00 at 02:00:00")
	})
}

func TestSwappedSenderGetsTheNextTick(t *testing.T) {
	run(t, scheduler.Config{}, func(t *testing.T, b bundle) {
		b.Apply(set(1, on("a", "0 * * * *")))
		pass(90 * time.Minute)
		second := &link{}
		b.SetSender(second)
		pass(time.Hour)
		b.wantFires(t, "a 01:00:00 at 01:00:00")
		if got := second.fired(); !slices.Equal(got, []string{"a 02:00:00 at 02:00:00"}) {
			t.Errorf("the new link got %q", got)
		}
	})
}

func TestOlderSetIsIgnored(t *testing.T) {
	run(t, scheduler.Config{}, func(t *testing.T, b bundle) {
		b.Apply(set(5, on("new", "0 1 * * *")))
		synctest.Wait()
		b.Apply(set(4, on("old", "0 1 * * *")))
		pass(2 * time.Hour)
		b.wantFires(t, "new 01:00:00 at 01:00:00")
		b.wantAcks(t, 5)
	})
}

func TestNewestOfManyWins(t *testing.T) {
	run(t, scheduler.Config{}, func(t *testing.T, b bundle) {
		var group sync.WaitGroup
		for version := range int64(50) {
			group.Go(func() { b.Apply(set(version, on(fmt.Sprint("v", version), "0 1 * * *"))) })
		}
		group.Wait()
		pass(2 * time.Hour)
		b.wantFires(t, "v49 01:00:00 at 01:00:00")
		if acks := b.link.acked(); !slices.IsSorted(acks) || acks[len(acks)-1] != 49 {
			t.Errorf("acknowledged %v", acks)
		}
	})
}

func TestSameSetIsOnlyAcknowledgedAgain(t *testing.T) {
	run(t, scheduler.Config{}, func(t *testing.T, b bundle) {
		b.Apply(set(1, on("a", "0 2 * * *")))
		pass(time.Hour)
		b.Apply(set(1, on("a", "0 2 * * *")))
		pass(2 * time.Hour)
		b.wantFires(t, "a 02:00:00 at 02:00:00")
		b.wantAcks(t, 1, 1)
	})
}

func TestSameVersionWithOtherContentIsApplied(t *testing.T) {
	run(t, scheduler.Config{}, func(t *testing.T, b bundle) {
		b.Apply(set(1, on("a", "0 2 * * *")))
		pass(time.Hour)
		restored := set(1, on("a", "0 3 * * *"))
		b.Apply(restored)
		pass(3 * time.Hour)
		b.wantFires(t, "a 03:00:00 at 03:00:00")
		b.wantAcks(t, 1, 1)
		if _, digest := b.Applied(); digest != restored.Digest() {
			t.Errorf("Applied says digest %q", digest)
		}
	})
}

func TestStopIsIdempotent(t *testing.T) {
	run(t, scheduler.Config{}, func(t *testing.T, b bundle) {
		b.Apply(set(1, on("a", "* * * * *")))
		pass(30 * time.Second)
		var group sync.WaitGroup
		for range 3 {
			group.Go(b.Stop)
		}
		group.Wait()
		b.Apply(set(2, on("a", "* * * * *")))
		b.SetLocation(time.FixedZone("elsewhere", 3600))
		b.SetJitter(time.Minute)
		pass(time.Hour)
		b.wantFires(t)
		b.wantAcks(t, 1)
	})
}

func TestStopBeforeAnySet(t *testing.T) {
	run(t, scheduler.Config{}, func(_ *testing.T, b bundle) {
		b.Stop()
		b.Stop()
	})
}

func TestStopWaitsForWhatIsInFlight(t *testing.T) {
	run(t, scheduler.Config{SendTimeout: 5 * time.Second}, func(t *testing.T, b bundle) {
		b.Apply(set(1, on("a", "0 1 * * *")))
		synctest.Wait()
		b.link.setSilent(true)
		pass(time.Hour)
		begin := time.Now()
		b.Stop()
		if took := time.Since(begin); took != 5*time.Second {
			t.Errorf("Stop took %v, want the rest of the send's deadline", took)
		}
	})
}

func TestJitterMovesTheTickAndNotItsTime(t *testing.T) {
	const window = 10 * time.Minute
	run(t, scheduler.Config{Jitter: window}, func(t *testing.T, b bundle) {
		b.Apply(set(1, on("a", "0 2 * * *")))
		pass(3 * time.Hour)
		slot := time.Date(2000, 1, 1, 2, 0, 0, 0, time.UTC).Add(cronspec.Jitter("a", window))
		b.wantFires(t, "a 02:00:00 at "+slot.Format(time.TimeOnly))
		b.SetJitter(0)
		pass(24 * time.Hour)
		b.wantFires(t, "a 02:00:00 at "+slot.Format(time.TimeOnly), "a 02:00:00 at 02:00:00")
	})
}

func TestNextsOfAJitteredTickFollowEachOther(t *testing.T) {
	run(t, scheduler.Config{Jitter: 10 * time.Minute}, func(t *testing.T, b bundle) {
		b.Apply(set(1, on("a", "* * * * *"))) // due more often than the window is long
		pass(30*time.Minute + cronspec.Jitter("a", 10*time.Minute))
		fires := b.link.fired()
		if len(fires) != 30 || !strings.HasPrefix(fires[0], "a 00:01:00 ") || !strings.HasPrefix(fires[29], "a 00:30:00 ") {
			t.Errorf("fired %q, want each minute once", fires)
		}
	})
}
