package conformance

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"resticfleet/agent"
	"resticfleet/e2e/weather"
	"resticfleet/models"
)

// A night is had again by `go test ./e2e/conformance -run TestBadNights -seed N`,
// many are had by `-seeds N`.
var (
	seeds = flag.Int("seeds", 3, "how many bad nights to live through")
	only  = flag.Uint64("seed", 0, "the one night to live through again")
)

const (
	// nightPing is the interval of a night's links.
	nightPing = 400 * time.Millisecond
	// change is how long one climate lasts.
	change = 800 * time.Millisecond
)

// climate draws what may happen for a while: some of the faults, some more
// than others.
func climate(r *rand.Rand) weather.Climate {
	c := weather.Climate{Odds: map[weather.Fault]float64{}}
	for _, f := range []struct {
		fault weather.Fault
		most  float64
	}{
		{weather.Strip, 0.5}, {weather.Refuse, 0.5}, {weather.Portal, 0.3}, {weather.Gateway, 0.2},
		{weather.Cut, 0.08}, {weather.Stall, 0.03}, {weather.Delay, 0.3}, {weather.Slice, 0.3},
		{weather.Drop, 0.2}, {weather.Repeat, 0.3}, {weather.Shuffle, 0.4},
	} {
		if odds := f.most * r.Float64(); r.IntN(2) == 0 {
			c.Odds[f.fault] = odds
		}
	}
	if r.IntN(3) == 0 {
		c.Idle = nightPing/2 + time.Duration(r.Int64N(int64(2*nightPing)))
	}
	return c
}

// Whatever the network does and in whatever mixture: when it is over, every job
// has happened once and its story is whole.
func TestBadNights(t *testing.T) {
	t.Parallel()
	for n := range *seeds {
		seed := uint64(n + 1)
		if *only != 0 {
			if seed = *only; n > 0 {
				break
			}
		}
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			t.Parallel()
			night(t, seed)
		})
	}
}

func night(t *testing.T, seed uint64) {
	r := rand.New(rand.NewPCG(seed, 0))
	s := newServer(t, nightPing)
	m := newMachine(t, s, link{name: "night", pin: agent.LinkAuto}, seed)
	m.write("drips", "12\n")
	turn := func() { m.proxy.Set(climate(r)) }
	turn()
	m.run()
	jobs := map[models.JobID]*history{}
	for i := range 2 {
		j := m.runNow(m.group(fmt.Sprint("group-", i)))
		jobs[j.ID] = s.watch(t, j.ID)
	}
	cancelled := m.runNow(m.group("cancelled"))
	jobs[cancelled.ID] = s.watch(t, cancelled.ID)

	restart, cancelAt := r.IntN(2) == 0, 1+r.IntN(6)
	over := time.NewTicker(change)
	defer over.Stop()
	ended := func() bool {
		for id := range jobs {
			if !s.job(id).State.Ended() {
				return false
			}
		}
		return true
	}
	for i := 1; i <= 8 && !ended(); i++ {
		<-over.C
		turn()
		if i == cancelAt {
			if _, err := s.jobs.Cancel(t.Context(), cancelled.ID); err != nil && models.CodeOf(err) != models.EConflict {
				t.Fatal(err)
			}
		}
		if i == 3 && restart {
			s.restart()
			if err := m.proxy.To(s.url); err != nil {
				t.Fatal(err)
			}
		}
	}
	t.Logf("restart %v, cancel at %d; %s; in the weather %v", restart, cancelAt, m.proxy.Report(), ended())
	// What a link that goes on has lost is lost to it: the next one asks.
	m.proxy.Set(weather.Climate{})
	m.proxy.Cut()
	eventually(t, "every job has ended", ended)
	m.checked(jobs)
	for id := range jobs {
		if state := s.job(id).State; state != models.JobSucceeded && (state != models.JobCancelled || id != cancelled.ID) {
			t.Errorf("job %s is %s: %s", id, state, s.job(id).Error)
		}
	}
}
