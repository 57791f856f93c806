// Package weather is the bad network between agents and a server: a proxy on
// the loopback that strips and refuses upgrades, cuts, delays, slices and
// stalls connections, and loses, repeats and shuffles messages. What happens
// is drawn by a seed, so that a bad night can be had again.
package weather

import (
	"fmt"
	"hash/fnv"
	"math/rand/v2"
	"net/http"
	"time"
)

// Fault is one thing that can happen. Each has odds of its own.
type Fault string

// What happens to a request for a WebSocket.
const (
	// Strip loses the headers of the upgrade: the server sees a plain request.
	Strip Fault = "strip"
	// Refuse answers with one of the climate's statuses.
	Refuse Fault = "refuse"
	// Portal answers with a web page.
	Portal Fault = "portal"
)

// What happens to a poll or a batch of messages.
const (
	// Gateway answers 502, half of the times after the server has done its part.
	Gateway Fault = "gateway"
)

// What happens to a piece of bytes, of any connection.
const (
	// Cut ends the connection instead.
	Cut Fault = "cut"
	// Stall makes the connection half-open: from here on nothing passes in
	// either direction, and nobody is told.
	Stall Fault = "stall"
	// Delay holds it up.
	Delay Fault = "delay"
	// Slice takes it to bits of a few bytes.
	Slice Fault = "slice"
)

// What happens to a message. A hello is neither shuffled nor, on a WebSocket,
// repeated: no network does that to the first words of a connection.
const (
	Drop   Fault = "drop"
	Repeat Fault = "repeat"
	// Shuffle lets a message upward overtake the one before it.
	Shuffle Fault = "shuffle"
)

// What is counted besides the faults.
const (
	// Idle is a connection that was cut for saying nothing.
	Idle Fault = "idle"
	// Polled is a poll, and Lost one whose connection ended before its answer.
	Polled Fault = "polled"
	Lost   Fault = "lost"
)

// Climate is what may happen. The zero value is fine weather.
type Climate struct {
	// Odds are how often a fault happens where it can: 0 never, 1 always.
	Odds map[Fault]float64
	// Idle is how long nothing may pass on a connection before it is cut; 0
	// for ever.
	Idle time.Duration
	// Statuses are those of Refuse; 400, 403, 404, 426 and 502 if empty.
	Statuses []int
	// DelayAtMost is the longest Delay; 20 ms if 0.
	DelayAtMost time.Duration
}

func (c Climate) statuses() []int {
	if len(c.Statuses) == 0 {
		return []int{http.StatusBadRequest, http.StatusForbidden, http.StatusNotFound, http.StatusUpgradeRequired, http.StatusBadGateway}
	}
	return c.Statuses
}

func (c Climate) delayAtMost() time.Duration {
	if c.DelayAtMost <= 0 {
		return 20 * time.Millisecond
	}
	return c.DelayAtMost
}

// seed draws. What it gives is a function of the seed, the kind of event and
// the event's place, and of nothing else: neither of the clock nor of what else
// goes on.
type seed uint64

// draw gives the numbers that decide about one event. The place is, from the
// outside in, which connection, which direction, which piece or message.
func (s seed) draw(kind string, place ...uint64) *rand.Rand {
	h := fnv.New64a()
	_, _ = fmt.Fprint(h, kind, place)
	return rand.New(rand.NewPCG(uint64(s), h.Sum64()))
}

// Of tells whether a fault happens at a place.
func (s seed) happens(c Climate, f Fault, place ...uint64) bool {
	odds := c.Odds[f]
	return odds > 0 && s.draw(string(f), place...).Float64() < odds
}
