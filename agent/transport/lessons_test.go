package transport

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"testing"
	"testing/synctest"
	"time"
)

func TestLessonsLowerWaitsAndPingsToWhatTheWayAllows(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		const base = 30 * time.Second
		want := func(l *Lessons, wait time.Duration) {
			t.Helper()
			if got := l.wait(base); got != wait {
				t.Errorf("wait %v, want %v", got, wait)
			}
		}
		var l Lessons
		want(&l, base)
		if !l.pollCut(20*time.Second, base) {
			t.Error("not taken for a cut")
		}
		want(&l, 16*time.Second)
		if got := l.ping(15 * time.Second); got != 15*time.Second {
			t.Errorf("polls teach nothing of sockets: %v", got)
		}

		// A suspicion is relaxed slowly; the same cut again makes it sure.
		<-time.After(59 * time.Minute)
		want(&l, 16*time.Second)
		<-time.After(2 * time.Minute)
		want(&l, 24*time.Second)
		l.pollCut(21*time.Second, base)
		want(&l, 16*time.Second)
		<-time.After(1000 * time.Hour)
		want(&l, 16*time.Second)
		l.doubt()
		l.answeredBy("one")
		l.answeredBy("two")
		want(&l, 16*time.Second)

		// What is no idle line's cut teaches nothing, and takes a suspicion with it.
		l = Lessons{}
		l.pollCut(10*time.Second, base)
		want(&l, 8*time.Second)
		if l.pollCut(time.Second, base) {
			t.Error("taken for a cut")
		}
		want(&l, base)

		// A server that was restarted under a poll.
		l.answeredBy("one")
		l.pollCut(3*time.Second, base)
		l.answeredBy("one")
		want(&l, 2400*time.Millisecond)
		l.answeredBy("two")
		want(&l, base)

		// Swallowed: half.
		l = Lessons{}
		l.pollStalled(base, base)
		want(&l, base/2)
		l.pollStalled(base/2, base)
		want(&l, base/4)

		l = Lessons{}
		l.socketCut(10*time.Second, 15*time.Second)
		if got := l.ping(15 * time.Second); got != 4*time.Second {
			t.Errorf("ping every %v", got)
		}
		l.socketSilent(4*time.Second, 15*time.Second)
		if got := l.ping(15 * time.Second); got != 2*time.Second {
			t.Errorf("ping every %v", got)
		}
		want(&l, base)
	})
}

func TestPaceRestsForRepetitionsOnly(t *testing.T) {
	t.Parallel()
	const unit, wait = 100 * time.Millisecond, 30 * time.Second
	var p pace
	for range maxRush {
		if d := p.after(0, wait, 1, unit); d != 0 {
			t.Errorf("news: %v", d)
		}
	}
	if d := p.after(0, wait, 1, unit); d != unit {
		t.Errorf("news without end: %v", d)
	}
	for i, want := range []time.Duration{25, 50, 100, 200, 400, 800, 1600, 3200, 5000, 5000} {
		if d := p.after(time.Millisecond, wait, 0, unit); d != want*time.Millisecond {
			t.Errorf("repetition %d: %v", i, d)
		}
	}
	if d := p.after(wait, wait, 0, unit); d != 0 {
		t.Errorf("a poll that lasted: %v", d)
	}
	if d := p.after(0, wait, 0, unit); d != 25*time.Millisecond {
		t.Errorf("the row must begin anew: %v", d)
	}
}

func TestBootIDsAreNewOnceAndBounded(t *testing.T) {
	t.Parallel()
	var k known
	if fresh, _ := k.add(""); fresh {
		t.Error("none is no id")
	}
	for i := range 3 * maxKnown {
		id := fmt.Sprint(i)
		if fresh, first := k.add(id); !fresh || first != (i == 0) {
			t.Error(i, fresh, first)
		}
		if fresh, _ := k.add(id); fresh {
			t.Error(i)
		}
	}
	if len(k.ids) != maxKnown {
		t.Error(len(k.ids))
	}
}

func TestWhatMayBeTheWebSocketsOwnTrouble(t *testing.T) {
	t.Parallel()
	c := Config{Server: "https://s"}
	for name, test := range map[string]struct {
		err  error
		want bool
	}{
		"refused":          {&RefusedError{Status: 403}, true},
		"not found":        {&RefusedError{Status: 404}, true},
		"upgrade required": {&RefusedError{Status: 426}, true},
		"stripped":         {&RefusedError{Status: 200}, true},
		"replaced":         {&RefusedError{Status: 401}, false},
		"deleted":          {&RefusedError{Status: 410}, false},
		"busy":             {&RefusedError{Status: 503}, false},
		"a portal's login": {&RefusedError{Status: 401, Foreign: true}, true},
		"nobody there":     {c.unreachable(&net.OpError{Op: "dial", Err: errors.New("connection refused")}), false},
		"no such name":     {c.unreachable(&net.DNSError{Err: "no such host"}), false},
		"stopped":          {context.Canceled, false},
		"cut":              {c.unreachable(&net.OpError{Op: "read", Err: errors.New("connection reset")}), true},
		"swallowed":        {c.unreachable(context.DeadlineExceeded), true},
		"TLS interception": {c.unreachable(&tls.CertificateVerificationError{Err: x509.UnknownAuthorityError{}}), true},
		"no CONNECT":       {c.unreachable(errors.New("Forbidden")), true},
	} {
		if got := FallsBack(test.err); got != test.want {
			t.Errorf("%s: %v", name, got)
		}
	}
}
