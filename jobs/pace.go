package jobs

import (
	"context"
	"math/rand/v2"
	"sync"
	"time"

	"resticfleet/models"
)

const (
	// pollRate is how many requests a second all agents that poll may make
	// together: they share one database, however many servers there are. Each
	// makes two in an interval, a poll and a heartbeat.
	pollRate = 100
	// maxPollInterval leaves a host online between two polls, also when one is
	// late (models.OnlineFor), and is well below the longest wait.
	maxPollInterval = time.Minute
	// pollSpread is the share by which each agent's interval differs.
	pollSpread = 0.1
	// countEvery is how long a count of the polling agents is good for.
	countEvery = 30 * time.Second
)

// pollInterval is how long each of so many polling agents should let a poll
// wait: base while they are few, then so long that they stay below pollRate.
// spread, between -1 and 1, is where in its range this agent's lies.
func pollInterval(base time.Duration, agents int, spread float64) time.Duration {
	scaled := time.Duration(agents) * 2 * time.Second / pollRate
	interval := max(base, min(scaled, maxPollInterval))
	return interval + time.Duration(spread*pollSpread*float64(interval))
}

// polling remembers how many agents poll, so that a hello costs no count.
type polling struct {
	mu      sync.Mutex
	agents  int
	counted time.Time
}

func (p *polling) count(ctx context.Context, db *models.DB) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if time.Since(p.counted) < countEvery {
		return p.agents, nil
	}
	agents, err := models.CountPolling(ctx, db)
	if err != nil {
		return 0, err
	}
	p.agents, p.counted = agents, time.Now()
	return agents, nil
}

// intervals are the ping and the poll interval of a new link. A polling agent
// has no pings: it beats, and notices a dead line, by its poll's length.
func (s *Service) intervals(ctx context.Context, polls bool) (ping, poll time.Duration, err error) {
	base := 2 * s.PingInterval
	if !polls {
		return s.PingInterval, base, nil
	}
	agents, err := s.polling.count(ctx, s.DB)
	if err != nil {
		return 0, 0, err
	}
	poll = pollInterval(base, agents, 2*rand.Float64()-1) //nolint:gosec // it only spreads
	return poll / 2, poll, nil
}
