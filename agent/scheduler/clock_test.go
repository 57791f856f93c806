package scheduler

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"resticfleet/agent/protocol"
)

type counter struct{ fires chan protocol.Fire }

func (c counter) Fire(_ context.Context, fire protocol.Fire) error { c.fires <- fire; return nil }
func (c counter) Ack(context.Context, protocol.ScheduleAck) error  { return nil }

// TestClockSetBackIsNoticed: a machine without a clock of its own ran for a
// while in 2004, ticked there, and is then told the true time. A bubble's
// clock can't be set, so the state it would leave is made here.
func TestClockSetBackIsNoticed(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := New(Config{})
		defer s.Stop()
		link := counter{make(chan protocol.Fire, 10)}
		s.SetSender(link)
		s.Apply(protocol.ScheduleSet{Version: 1, Schedules: []protocol.Schedule{{ID: "a", Cron: "0 2 * * *", Enabled: true}}})
		synctest.Wait()

		wrong := time.Now().AddDate(4, 0, 0)
		s.mu.Lock()
		e := s.entries["a"]
		s.mu.Unlock()
		e.mu.Lock()
		e.settled = wrong
		e.mu.Unlock()
		watch := &clockWatch{scheduler: s, last: wrong}
		watch.Run()
		watch.Run()

		<-time.After(3 * time.Hour)
		synctest.Wait()
		if n := len(link.fires); n != 1 {
			t.Fatalf("%d fires, want the one of 02:00", n)
		}
		if fire := <-link.fires; fire.ScheduledAt.Hour() != 2 || fire.ScheduledAt.Year() != 2000 {
			t.Errorf("fired for %v", fire.ScheduledAt)
		}
	})
}

// TestSmallSettingBackFiresNothingTwice: a few seconds of correction just after
// a tick must not bring it again, not even with a new set.
func TestSmallSettingBackFiresNothingTwice(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := New(Config{})
		defer s.Stop()
		link := counter{make(chan protocol.Fire, 10)}
		s.SetSender(link)
		schedule := protocol.Schedule{ID: "a", Cron: "0 2 * * *", Enabled: true}
		s.Apply(protocol.ScheduleSet{Version: 1, Schedules: []protocol.Schedule{schedule}})
		<-time.After(2*time.Hour - 5*time.Second)
		s.mu.Lock()
		e := s.entries["a"]
		s.mu.Unlock()
		e.mu.Lock()
		e.settled = time.Now().Add(5 * time.Second) // fired, then set back
		e.mu.Unlock()
		s.Apply(protocol.ScheduleSet{Version: 2, Schedules: []protocol.Schedule{schedule}})
		<-time.After(time.Hour)
		synctest.Wait()
		if n := len(link.fires); n != 0 {
			t.Errorf("fired %d times more", n)
		}
	})
}
