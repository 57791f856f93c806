package cronspec

import (
	"crypto/sha256"
	"encoding/binary"
	"time"
)

// Jitter returns how long after its nominal due times a schedule fires, from
// zero up to but without window: always the same for the same schedule and
// window, on the agent and on the server, and spread evenly over a fleet. It
// is a whole number of milliseconds; a window under one gives zero.
func Jitter(scheduleID string, window time.Duration) time.Duration {
	steps := window.Milliseconds()
	if steps <= 0 {
		return 0
	}
	sum := sha256.Sum256([]byte(scheduleID))
	return time.Duration(binary.BigEndian.Uint64(sum[:8])%uint64(steps)) * time.Millisecond
}
