package transport

import (
	"sync"
	"time"
)

// Lessons is what the links of one agent learn about the way to the server,
// and tell the next one: something there may cut what says nothing for a
// while. The zero value is ready; safe for concurrent use.
type Lessons struct {
	mu    sync.Mutex
	polls bound
	pings bound
	boots known
}

// bound is the shortest silence that was seen to be cut. The first sight is a
// suspicion: a server that dies looks the same. The same sight again is sure.
type bound struct {
	suspect, sure time.Duration // 0: none
	last          time.Duration // the newest cut, also of a dropped suspicion
	at            time.Time     // when
}

// A suspicion is relaxed by half for every hour in which it kept the peace,
// until it is no hindrance or the next cut makes it sure.
const relaxEvery = time.Hour

func (b *bound) cut(after time.Duration, now time.Time) {
	if b.last > 0 && after > b.last*3/4 && after < b.last*4/3 {
		b.sure = min(after, b.last)
		b.suspect = 0
	} else {
		b.suspect = after
	}
	b.last, b.at = after, now
}

// limit is the silence to stay below; 0 for none known.
func (b *bound) limit(now time.Time) time.Duration {
	suspect := b.suspect
	for quiet := now.Sub(b.at); suspect > 0 && quiet >= relaxEvery; quiet -= relaxEvery {
		if suspect += suspect / 2; suspect > time.Hour {
			suspect = 0
		}
	}
	switch {
	case suspect == 0:
		return b.sure
	case b.sure == 0:
		return suspect
	}
	return min(suspect, b.sure)
}

// worthLearning is the share of an interval below which an end is no cut of an
// idle line but a server or a network that is down.
const worthLearning = 20

// wait is how long a poll may last that would best last base.
func (l *Lessons) wait(base time.Duration) time.Duration {
	l.mu.Lock()
	defer l.mu.Unlock()
	return below(base, l.polls.limit(time.Now())*4/5)
}

// ping is the interval between pings that would best be base: two fit into the
// longest silence allowed.
func (l *Lessons) ping(base time.Duration) time.Duration {
	l.mu.Lock()
	defer l.mu.Unlock()
	return below(base, l.pings.limit(time.Now())*2/5)
}

func below(base, limit time.Duration) time.Duration {
	if limit <= 0 {
		return base
	}
	return max(min(base, limit), base/worthLearning)
}

// pollCut says that a poll which would best last base was cut; it reports
// whether that is taken for a cut.
func (l *Lessons) pollCut(after, base time.Duration) bool {
	return l.learn(&l.polls, after, base)
}

// pollStalled says that a poll was never answered: whatever swallowed it did
// so before the wait was over, so half of that is tried.
func (l *Lessons) pollStalled(wait, base time.Duration) {
	l.learn(&l.polls, wait*5/8, base)
}

// socketCut says that a socket broke after an idle time, at pings every base.
func (l *Lessons) socketCut(idle, base time.Duration) { l.learn(&l.pings, idle, base) }

// socketSilent says that pings went unanswered: the next go twice as often.
func (l *Lessons) socketSilent(ping, base time.Duration) { l.learn(&l.pings, ping*5/4, base) }

func (l *Lessons) learn(b *bound, after, base time.Duration) bool {
	if after < base/worthLearning {
		l.doubt()
		return false
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	b.cut(after, time.Now())
	return true
}

// doubt drops suspicions: the server can't be reached at all or is another
// process, so that may have been the reason.
func (l *Lessons) doubt() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.polls.suspect, l.pings.suspect = 0, 0
}

// answeredBy takes the boot id of an answer.
func (l *Lessons) answeredBy(boot string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if fresh, first := l.boots.add(boot); fresh && !first {
		l.polls.suspect, l.pings.suspect = 0, 0
	}
}

// known is a set of boot ids: behind one address there may be many servers,
// and each is new only once.
type known struct{ ids []string }

const maxKnown = 64

func (k *known) add(boot string) (fresh, first bool) {
	if boot == "" {
		return false, false
	}
	for _, id := range k.ids {
		if id == boot {
			return false, false
		}
	}
	first = len(k.ids) == 0
	if len(k.ids) == maxKnown {
		k.ids = k.ids[1:]
	}
	k.ids = append(k.ids, boot)
	return true, first
}
