package transport

import (
	"context"
	"errors"
	"net/http"
	"net/url"
	"strconv"
	"time"
)

// maxRush is how many quick answers in a row, each with something new, are
// asked for without a rest.
const maxRush = 16

// ask is one poll.
type ask struct {
	ctx         context.Context // ends when a hello takes over
	stop        context.CancelFunc
	epoch       int
	to          *url.URL
	wait, grace time.Duration
	base        time.Duration
}

// order makes the next poll as soon as there is a session; called with mu held.
func (l *polling) order(next *ask) bool {
	if l.session == "" {
		return false
	}
	wait := l.config.Lessons.wait(l.base)
	text := strconv.FormatFloat(wait.Seconds(), 'f', 3, 64)
	if wait >= time.Second { // servers count in whole seconds
		wait = wait.Truncate(time.Second)
		text = strconv.Itoa(int(wait.Seconds()))
	}
	*next = ask{
		epoch: l.epoch, wait: wait, grace: l.grace, base: l.base,
		to: withQuery(l.commands, url.Values{"session": {l.session}, "wait": {text}}),
	}
	next.ctx, next.stop = context.WithCancel(l.ctx)
	l.drop = next.stop
	return true
}

// poll asks for what the server has to say, as long as there is a session.
func (l *polling) poll() {
	failures := 0
	var pace pace
	for {
		var next ask
		if l.until(l.ctx, func() (bool, time.Duration) { return l.order(&next), 0 }) != nil {
			return
		}
		began := time.Now()
		a, err := l.exchange(next.ctx, http.MethodGet, next.to, nil, next.wait+next.grace, next.base/worthLearning)
		took := time.Since(began)
		next.stop()
		switch {
		case l.ctx.Err() != nil:
			return
		case !l.current(next.epoch):
			// A hello has taken over; what the old session's poll says doesn't
			// count any more.
			failures, pace.stale = 0, 0
			continue
		case err != nil:
			failures++
			if l.wasCut(err, took, next) && failures < maxFailures {
				continue // another one at once, and not as long
			}
			if !l.failed(err, failures) {
				return
			}
			continue
		}
		failures = 0
		news := 0
		if a != nil {
			var ok bool
			if news, ok = l.deliver(a.Messages); !ok {
				return
			}
		}
		if rest := pace.after(took, next.wait, news, l.config.RetryPause); rest > 0 && !l.pause(rest) {
			return
		}
	}
}

func (l *polling) current(epoch int) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.epoch == epoch
}

// wasCut draws the lesson from a poll that failed, and reports whether it was
// something on the way that would not wait as long.
func (l *polling) wasCut(err error, took time.Duration, of ask) bool {
	var line *lineError
	switch {
	case !errors.As(err, &line):
		return false
	case line.stalled:
		l.config.Lessons.pollStalled(of.wait, of.base)
		return true
	case !line.connected:
		l.config.Lessons.doubt()
		return false
	}
	return l.config.Lessons.pollCut(took, of.base)
}

// pace keeps polls from becoming a busy loop: a command that is not accepted
// yet comes with every answer, and an answer without anything may come early.
type pace struct{ stale, rush int }

// after tells how long to rest behind an answer.
func (p *pace) after(took, wait time.Duration, news int, unit time.Duration) time.Duration {
	switch {
	case took > wait/2:
		*p = pace{}
		return 0
	case news == 0:
		p.stale++
		return growing(unit/4, p.stale)
	}
	p.stale = 0
	if took > 4*unit {
		p.rush = 0
	}
	if p.rush++; p.rush > maxRush {
		return unit
	}
	return 0
}
