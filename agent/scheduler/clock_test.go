package scheduler

import (
	"context"
	"fmt"
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

// stepped is what a clock that is set by step leaves: everything in memory is
// then that much older. The cron looks again at most clockCheck later, as after
// a sleep.
func stepped(s *Scheduler, step time.Duration) {
	s.mu.Lock()
	entries := s.entries
	s.mu.Unlock()
	for _, e := range entries {
		e.mu.Lock()
		e.settled = e.settled.Add(-step)
		e.mu.Unlock()
	}
	watch := &clockWatch{scheduler: s, last: time.Now().Round(0).Add(-step)}
	watch.Run()
	for _, e := range entries {
		if step > 0 {
			e.Run() // it is overdue
		}
	}
	synctest.Wait()
}

func TestClockStepsCauseNoBurst(t *testing.T) {
	t.Parallel()
	crons := map[string]string{"minutely": "* * * * *", "every": "@every 7m", "hourly": "30 * * * *", "daily": "0 2 * * *"}
	for name, step := range map[string]time.Duration{
		"an hour forward": time.Hour, "a day forward": 24 * time.Hour,
		"an hour back": -time.Hour, "a day back": -24 * time.Hour,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				s := New(Config{})
				defer s.Stop()
				link := counter{make(chan protocol.Fire, 10000)}
				s.SetSender(link)
				set := protocol.ScheduleSet{Version: 1}
				for id, cron := range crons {
					set.Schedules = append(set.Schedules, protocol.Schedule{ID: id, Cron: cron, Enabled: true})
				}
				<-time.After(12*time.Hour + 30*time.Second)
				s.Apply(set)
				<-time.After(time.Hour)
				synctest.Wait()
				fires := func() map[string][]time.Time {
					all := map[string][]time.Time{}
					for len(link.fires) > 0 {
						f := <-link.fires
						all[f.ScheduleID] = append(all[f.ScheduleID], f.ScheduledAt)
					}
					return all
				}
				if before := fires(); len(before["minutely"]) != 60 || len(before["every"]) != 8 && len(before["every"]) != 9 || len(before["hourly"]) != 1 || len(before["daily"]) != 0 {
					t.Fatalf("before: %v", before)
				}

				now := time.Now()
				stepped(s, step)
				for id, at := range fires() {
					// At most one for everything missed, and it is the newest.
					if step < 0 || len(at) != 1 || at[0].After(now) {
						t.Errorf("%s fired at the step: %v", id, at)
					}
				}
				<-time.After(25 * time.Hour)
				synctest.Wait()
				after := fires()
				for id, want := range map[string]int{"minutely": 25 * 60, "hourly": 25, "daily": 1} {
					if len(after[id]) != want {
						t.Errorf("%s fired %d times in 25 hours, want %d", id, len(after[id]), want)
					}
				}
				for id, all := range after {
					for i, at := range all {
						if !at.After(now) || i > 0 && !at.After(all[i-1]) {
							t.Errorf("%s fired for %s a second time", id, at)
						}
						if id == "every" && (at.Unix()%(7*60) != 0 || i > 0 && at.Sub(all[i-1]) != 7*time.Minute) {
							t.Errorf("@every 7m fired for %s", at)
						}
					}
				}
			})
		})
	}
}

// @every counts from the Unix epoch: whatever makes the cron anew, at whatever
// moment, moves nothing.
func TestEveryStaysWhereItIs(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		link := counter{make(chan protocol.Fire, 1000)}
		start := func() *Scheduler {
			s := New(Config{})
			s.SetSender(link)
			return s
		}
		s := start()
		schedules := []protocol.Schedule{{ID: "a", Cron: "@every 7m", Enabled: true}}
		<-time.After(100 * time.Second)
		s.Apply(protocol.ScheduleSet{Version: 1, Schedules: schedules})
		began := time.Now()
		for version := int64(2); version < 20; version++ {
			<-time.After(time.Duration(version) * 61 * time.Second)
			switch version % 3 {
			case 0: // an edit elsewhere
				edited := append([]protocol.Schedule{{ID: "b", Cron: fmt.Sprintf("%d 2 30 1 *", version), Enabled: true}}, schedules...)
				s.Apply(protocol.ScheduleSet{Version: version, Schedules: edited})
			case 1: // another zone
				s.SetLocation(time.FixedZone("", int(version)*600))
			case 2: // a restart of the agent
				s.Stop()
				s = start()
				s.Apply(protocol.ScheduleSet{Version: version, Schedules: schedules})
			}
			synctest.Wait()
		}
		s.Stop()
		const step = 7 * 60
		due := began.Unix()/step*step + step
		for ; due <= time.Now().Unix(); due += step {
			select {
			case f := <-link.fires:
				if f.ScheduledAt.Unix() != due {
					t.Fatalf("fired for %s, want %s", f.ScheduledAt, time.Unix(due, 0).UTC())
				}
			default:
				t.Fatalf("nothing fired for %s", time.Unix(due, 0).UTC())
			}
		}
		if len(link.fires) != 0 {
			t.Errorf("fired for %s too", (<-link.fires).ScheduledAt)
		}
	})
}
