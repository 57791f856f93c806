package handlers

import (
	"strings"
	"sync"
	"time"

	"resticfleet/models"
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

// begin counts a try before it is made, so that a hundred at once are a hundred
// tries, and returns 0; or it is how long this address or name has to wait.
func (t *throttle) begin(address, name string) time.Duration {
	t.mu.Lock()
	defer t.mu.Unlock()
	now := t.now()
	byAddress, byName := throttleKeys(address, name)
	if wait := max(t.left(now, byAddress, triesPerAddress), t.left(now, byName, triesPerName)); wait > 0 {
		return wait
	}
	t.makeRoom(now)
	for _, key := range []string{byAddress, byName} {
		f := t.failed[key]
		if f == nil || now.Sub(f.since) > throttleWindow {
			f = &tries{since: now}
			t.failed[key] = f
		}
		f.count++
	}
	return 0
}

// forgive takes back a try that turned out well, or that nobody can be blamed
// for.
func (t *throttle) forgive(address, name string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	byAddress, byName := throttleKeys(address, name)
	for _, key := range []string{byAddress, byName} {
		if f := t.failed[key]; f != nil && f.count > 0 {
			f.count--
		}
	}
}

// throttleKeys are one for all ways to write a name that find the same user.
func throttleKeys(address, name string) (byAddress, byName string) {
	return "a " + address, "n " + models.CleanText(strings.ToLower(strings.TrimSpace(name)), 400)
}

func (t *throttle) left(now time.Time, key string, limit int) time.Duration {
	f := t.failed[key]
	if f == nil || f.count < limit {
		return 0
	}
	return max(0, throttleWindow-now.Sub(f.since))
}

func (t *throttle) makeRoom(now time.Time) {
	if len(t.failed) < throttleSize {
		return
	}
	for key, f := range t.failed {
		if now.Sub(f.since) > throttleWindow {
			delete(t.failed, key)
		}
	}
	if len(t.failed) >= throttleSize {
		clear(t.failed)
	}
}
