package jobs

import (
	"testing"
	"time"

	"resticfleet/models"
)

func TestPollsGrowRarerWithTheFleet(t *testing.T) {
	t.Parallel()
	const base = 30 * time.Second
	for _, c := range []struct {
		agents int
		spread float64
		want   time.Duration
	}{
		{0, 0, base}, {1, 0, base}, {500, 0, base}, {1500, 0, base},
		{2000, 0, 40 * time.Second}, {2500, 0, 50 * time.Second}, {3000, 0, time.Minute}, {100_000, 0, time.Minute},
		{1, 1, 33 * time.Second}, {1, -1, 27 * time.Second}, {2500, -1, 45 * time.Second}, {100_000, 1, 66 * time.Second},
	} {
		if got := pollInterval(base, c.agents, c.spread); got != c.want {
			t.Errorf("%d agents, spread %v: %v, want %v", c.agents, c.spread, got, c.want)
		}
	}
	// A base of its own, as tests and small fleets may have.
	if got := pollInterval(200*time.Millisecond, 5, 0); got != 200*time.Millisecond {
		t.Errorf("a short base became %v", got)
	}
}

// Until the cap, all agents together stay below the rate.
func TestPollsAndHeartbeatsStayBelowTheRate(t *testing.T) {
	t.Parallel()
	for agents := 1; agents <= 3000; agents += 7 {
		each := pollInterval(30*time.Second, agents, 0)
		if rate := 2 * float64(agents) / each.Seconds(); rate > pollRate*1.001 {
			t.Fatalf("%d agents at %v make %.0f requests a second", agents, each, rate)
		}
	}
}

// The longest interval, at its most spread, keeps a host online although the
// poll is only given up when it is overdue.
func TestTheLongestPollKeepsAHostOnline(t *testing.T) {
	t.Parallel()
	const grace = 15 * time.Second // longer than an agent's
	if longest := pollInterval(30*time.Second, 1<<20, 1) + grace; longest >= models.OnlineFor {
		t.Errorf("%v between two contacts, and a host is online for %v", longest, models.OnlineFor)
	}
}
