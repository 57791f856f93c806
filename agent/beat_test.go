package agent

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"resticfleet/agent/protocol"
	"resticfleet/agent/scheduler"
	"resticfleet/agent/transport"
)

// outward is a link that keeps when it was sent something, up to a limit.
type outward struct {
	transport.Link
	limit int
	sent  []time.Time
}

func (o *outward) Send(context.Context, protocol.Envelope) error {
	o.sent = append(o.sent, time.Now())
	if len(o.sent) == o.limit {
		return errors.New("enough")
	}
	return nil
}

// A polling link says hello again and again; heartbeats go by what the newest
// welcome asks for.
func TestHeartbeatsFollowTheNewestWelcome(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		link := &outward{limit: 4}
		a := &Agent{opts: Options{}.withDefaults(), scheduler: scheduler.New(scheduler.Config{}), outbox: &outbox{}}
		s := &session{link: link, welcome: protocol.Welcome{PingIntervalMS: 15_000}}
		a.begin(s)
		began := time.Now()
		ended := make(chan struct{})
		go func() { defer close(ended); a.beat(t.Context(), s) }()
		<-time.After(45 * time.Second) // one beat, and the next is under way
		s.welcome.PingIntervalMS = 30_000
		a.begin(s)
		<-ended
		want := []time.Duration{30 * time.Second, time.Minute, 2 * time.Minute, 3 * time.Minute}
		for i, at := range link.sent {
			if at.Sub(began) != want[i] {
				t.Errorf("beat %d after %v, want %v", i+1, at.Sub(began), want[i])
			}
		}
	})
}
