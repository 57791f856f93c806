package transport

import (
	"math/rand/v2"
	"time"
)

// Backoff tells how long to wait before the next attempt: with full jitter, so
// that a fleet whose server comes back doesn't come back as one. The zero
// value is ready.
type Backoff struct {
	Base time.Duration // the first ceiling; 1 s
	Cap  time.Duration // the last ceiling; 60 s
	// Rand gives numbers in [0,1); math/rand/v2 unless told.
	Rand func() float64

	ceiling time.Duration
}

// Next draws from (0, ceiling] and doubles the ceiling.
func (b *Backoff) Next() time.Duration {
	base, limit, random := b.Base, b.Cap, b.Rand
	if base <= 0 {
		base = time.Second
	}
	if limit <= 0 {
		limit = time.Minute
	}
	if random == nil {
		random = rand.Float64
	}
	if b.ceiling < base {
		b.ceiling = base
	}
	b.ceiling = min(b.ceiling, limit)
	// [0,1) turned round is (0,1]: never zero, so never a busy loop.
	wait := max(time.Duration((1-random())*float64(b.ceiling)), 1)
	b.ceiling = min(2*b.ceiling, limit)
	return wait
}

// Reset begins anew, after a link that lived.
func (b *Backoff) Reset() { b.ceiling = 0 }
