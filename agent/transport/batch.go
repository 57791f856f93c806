package transport

import (
	"net/url"
	"slices"
	"time"
)

const (
	// maxBatchBytes and maxBatchMessages bound one request upward. A larger
	// message goes alone.
	maxBatchBytes    = 256 << 10
	maxBatchMessages = 500
	// maxQueued is when Send begins to wait: one batch under way, one behind it.
	maxQueued = 2 * maxBatchBytes
	// maxTries is how often a message goes that the server leaves undecided.
	maxTries = 5
)

const openBatch, closeBatch = `{"messages":[`, `]}`

// post is one message on its way up.
type post struct {
	id    string
	hello bool
	frame []byte
	tries int
	due   time.Time // of one that comes again
}

// take fills a batch from the line; called with mu held. Hello goes alone, so
// that what follows belongs to the session that it opens.
func (l *polling) take(batch *[]*post) (ok bool, again time.Duration) {
	now := time.Now()
	l.later = slices.DeleteFunc(l.later, func(p *post) bool {
		left := p.due.Sub(now)
		if left <= 0 {
			l.queue = append(l.queue, p)
			l.queued += len(p.frame)
			return true
		}
		if again == 0 || left < again {
			again = left
		}
		return false
	})
	size, n := 0, 0
	for _, p := range l.queue {
		if n > 0 && (p.hello || size+len(p.frame) > maxBatchBytes || n == maxBatchMessages) {
			break
		}
		size += len(p.frame) + 1
		n++
		if p.hello {
			break
		}
	}
	if n == 0 {
		return false, again
	}
	*batch = slices.Clone(l.queue[:n])
	l.queue = slices.Delete(l.queue, 0, n)
	for _, p := range *batch {
		l.queued -= len(p.frame)
	}
	return true, 0
}

// prepare makes a batch's request. A hello ends the poll under way: the server
// would, and the session it belongs to with it.
func (l *polling) prepare(batch []*post) (to *url.URL, body []byte, timeout time.Duration) {
	body = []byte(openBatch)
	for i, p := range batch {
		if i > 0 {
			body = append(body, ',')
		}
		body = append(body, p.frame...)
	}
	body = append(body, closeBatch...)
	l.mu.Lock()
	session, timeout := l.session, l.upward
	l.mu.Unlock()
	if !batch[0].hello {
		return withQuery(l.messages, url.Values{"session": {session}}), body, timeout
	}
	l.change(func() {
		l.session = ""
		l.epoch++
		clear(l.heard)
		if l.drop != nil {
			l.drop()
		}
	})
	return l.messages, body, timeout
}

func withQuery(u *url.URL, q url.Values) *url.URL {
	with := *u
	if q.Get("session") == "" {
		q.Del("session")
	}
	with.RawQuery = q.Encode()
	return &with
}

// settle keeps for another try what the server has neither taken nor rejected.
func (l *polling) settle(batch []*post, a *answer) {
	decided := make(map[string]bool, len(batch))
	for _, id := range a.Acknowledged {
		decided[id] = true
	}
	for _, r := range a.Rejected {
		decided[r.ID] = true
	}
	l.change(func() {
		for _, p := range batch {
			again := func(q *post) bool { return q.id == p.id }
			p.tries++
			if decided[p.id] || p.hello || p.tries >= maxTries || slices.ContainsFunc(l.queue, again) {
				continue
			}
			p.due = time.Now().Add(growing(4*l.config.RetryPause, p.tries))
			l.later = append(l.later, p)
		}
	})
}
