package conformance

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"resticfleet/agent"
	"resticfleet/agent/protocol"
	"resticfleet/e2e/weather"
	"resticfleet/models"
)

const (
	halfOpenPing = 1500 * time.Millisecond
	// noticed is when both ends must know that a line is dead.
	noticed = halfOpenPing * 5 / 2
	// slack is for a busy machine.
	slack = time.Second
)

// within is eventually with a bound that is what is tested.
func within(t testing.TB, limit time.Duration, since time.Time, what string, so func() bool) {
	t.Helper()
	eventually(t, what, so)
	took := time.Since(since).Round(10 * time.Millisecond)
	t.Logf("%s after %v", what, took)
	if took > limit {
		t.Errorf("%s only after %v, the limit is %v", what, took, limit)
	}
}

// What is measured by the clock has the machine to itself: these run beside
// each other, and before everything that runs in parallel.
func TestByTheClock(t *testing.T) {
	open, servers := newServer(t, halfOpenPing), map[time.Duration]*server{}
	for _, c := range cuts {
		if servers[c.ping] == nil {
			servers[c.ping] = newServer(t, c.ping)
		}
	}
	t.Run("links", func(t *testing.T) {
		t.Run("a half-open socket", func(t *testing.T) { t.Parallel(); halfOpenSocket(t, open) })
		t.Run("a half-open poll", func(t *testing.T) { t.Parallel(); halfOpenPoll(t, open) })
		for i, c := range cuts {
			climate := weather.Climate{Idle: c.after}
			t.Run(fmt.Sprint("polls cut after ", c.after), func(t *testing.T) {
				t.Parallel()
				m := newMachine(t, servers[c.ping], link{name: "polls", pin: agent.LinkPolling, climate: climate}, uint64(400+i))
				m.start()
				adaptedPolls(m, c)
			})
			t.Run(fmt.Sprint("sockets cut after ", c.after), func(t *testing.T) {
				t.Parallel()
				m := newMachine(t, servers[c.ping], link{name: "sockets", pin: agent.LinkWebSocket, climate: climate}, uint64(500+i))
				m.start()
				adaptedPings(m, c)
			})
		}
	})
}

// Nothing passes any more and nobody is told, neither on the connection there is
// nor on any new one: each end finds out by itself.
func halfOpenSocket(t *testing.T, s *server) {
	m := newMachine(t, s, links[0], 300)
	m.start()
	m.proxy.Set(weather.Climate{Odds: map[weather.Fault]float64{weather.Stall: 1}})
	m.proxy.Stall()
	began := time.Now()
	gone := func() bool { return !m.now().Online(time.Now()) }
	given := func() bool { return strings.Contains(m.log.String(), "silent for two and a half ping intervals") }
	within(t, noticed+slack, began, "one end knows", func() bool { return gone() || given() })
	within(t, noticed+slack, began, "the server shows the host offline", gone)
	within(t, noticed+slack, began, "the agent gives the link up", given)
	m.proxy.Set(weather.Climate{})
	m.proxy.Cut() // also the attempts under way
	m.linked(protocol.LinkWebSocket)
}

// A poll and a batch that are never answered: the agent asks anew, over another
// connection. On the server's side a polling host is online by its last contact.
func halfOpenPoll(t *testing.T, s *server) {
	m := newMachine(t, s, links[1], 301)
	m.start()
	j, h := m.held()
	seq := func() int64 { return s.job(j.ID).ProgressSeq }
	first := seq()
	eventually(t, "progress is told", func() bool { return seq() > first })

	m.proxy.Stall()
	began, before := time.Now(), seq()
	const nextProgress = time.Second
	within(t, nextProgress+noticed+slack, began, "a batch arrives again", func() bool { return seq() > before })

	m.proxy.Stall()
	began = time.Now()
	must[*models.Job](t)(s.jobs.Cancel(t.Context(), j.ID))
	within(t, noticed+slack, began, "a poll brings the cancel", func() bool {
		return strings.Contains(m.log.String(), "the server cancels a job")
	})
	m.proxy.Cut() // what stalled is of no more interest
	m.settledOne(models.JobCancelled, j, h)
	if !m.now().Online(time.Now()) {
		t.Error("the host is not online")
	}
}

// cut is how a proxy treats idle connections of a server that pings at this
// interval; a poll would best last twice as long.
type cut struct{ ping, after time.Duration }

// cuts are a very short one and, in a fifteenth of the time, the 30 and 60 s of
// an interval of 15 s.
var cuts = []cut{{2 * time.Second, time.Second}, {time.Second, 2 * time.Second}, {time.Second, 4 * time.Second}}

// adaptedPolls: the first polls may be cut, and teach how long the next may
// last.
func adaptedPolls(m *machine, c cut) {
	polls := func(n int) {
		m.t.Helper()
		eventually(m.t, fmt.Sprintf("poll %d", n), func() bool { return m.proxy.Happened(weather.Polled) >= n })
	}
	polls(4) // the third has ended
	lost := m.proxy.Happened(weather.Lost)
	polls(6)
	switch n := m.proxy.Happened(weather.Lost); {
	case n != lost || n > 3:
		m.t.Errorf("%d polls were cut, %d of the first three", n, lost)
	case n == 0 && c.after < c.ping, n > 0 && c.after > 3*c.ping:
		m.t.Errorf("%d polls were cut", n)
	}
}

func adaptedPings(m *machine, c cut) {
	want := 0 // sockets that are cut before their pings fit
	if c.after < c.ping {
		want = 1
	}
	eventually(m.t, "the first socket has ended", func() bool { return m.proxy.Happened(weather.Idle) >= want })
	m.linked(protocol.LinkWebSocket)
	<-time.After(c.after*5/4 + c.ping)
	if n := m.proxy.Happened(weather.Idle); n < want || n > 3*want {
		m.t.Errorf("%d sockets were cut", n)
	}
	if !m.now().Online(time.Now()) {
		m.t.Error("it is not linked")
	}
}
