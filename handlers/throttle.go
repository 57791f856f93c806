package handlers

import (
	"net/netip"
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
	// refusalsPerAddress is how many refused requests of one address are audited
	// in a window while nobody knows who sends them: each is a row in the
	// database, and anybody can send them.
	refusalsPerAddress = 100
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
	t.count(now, byAddress)
	t.count(now, byName)
	return 0
}

// worthKeeping counts a refused request of somebody unknown, and reports
// whether it is to be audited.
func (t *throttle) worthKeeping(address string) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	now := t.now()
	key, _ := throttleKeys(address, "")
	if t.left(now, key, refusalsPerAddress) > 0 {
		return false
	}
	t.makeRoom(now)
	t.count(now, key)
	return true
}

func (t *throttle) count(now time.Time, key string) {
	f := t.failed[key]
	if f == nil || now.Sub(f.since) > throttleWindow {
		f = &tries{since: now}
		t.failed[key] = f
	}
	f.count++
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

// throttleKeys are one for all ways to write a name that find the same user,
// and one for the 64 bits of IPv6 that a single customer has to choose from.
func throttleKeys(address, name string) (byAddress, byName string) {
	if ip, err := netip.ParseAddr(address); err == nil && ip.Is6() && !ip.Is4In6() {
		if network, err := ip.WithZone("").Prefix(64); err == nil {
			address = network.String()
		}
	}
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
