package handlers

import (
	"sync"
	"time"
)

// Failed logins are counted per address and per name; at the limit both have
// to wait until the window has passed. A login that works counts for nothing.
const (
	throttleWindow  = 5 * time.Minute
	triesPerAddress = 30
	triesPerName    = 10
	// throttleSize bounds the memory an attacker can take.
	throttleSize = 20_000
)

type throttle struct {
	mu     sync.Mutex
	failed map[string]*tries
	now    func() time.Time
}

type tries struct {
	count int
	since time.Time
}

func newThrottle() *throttle { return &throttle{failed: map[string]*tries{}, now: time.Now} }

// wait is how long this address or name has to wait, 0 for not at all.
func (t *throttle) wait(address, name string) time.Duration {
	t.mu.Lock()
	defer t.mu.Unlock()
	return max(t.left("a "+address, triesPerAddress), t.left("n "+name, triesPerName))
}

func (t *throttle) left(key string, limit int) time.Duration {
	f := t.failed[key]
	if f == nil || f.count < limit {
		return 0
	}
	return max(0, throttleWindow-t.now().Sub(f.since))
}

// failure counts one.
func (t *throttle) failure(address, name string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	now := t.now()
	if len(t.failed) >= throttleSize {
		for key, f := range t.failed {
			if now.Sub(f.since) > throttleWindow {
				delete(t.failed, key)
			}
		}
		if len(t.failed) >= throttleSize {
			clear(t.failed)
		}
	}
	for _, key := range []string{"a " + address, "n " + name} {
		f := t.failed[key]
		if f == nil || now.Sub(f.since) > throttleWindow {
			f = &tries{since: now}
			t.failed[key] = f
		}
		f.count++
	}
}
