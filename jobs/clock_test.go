package jobs_test

import (
	"testing"
	"time"

	"resticfleet/agent/protocol"
	"resticfleet/models"
)

// A clock that was set right is believed with the next heartbeat; one that
// only seems to be wrong, because the message was late, is not accused.
func TestHeartbeatsClearTheClockAndNeverAccuseIt(t *testing.T) {
	t.Parallel()
	b := setup(t)
	h := b.host("web-1", "/srv/repo")
	link, _ := b.hello(0, h)
	skew := func(sent time.Time) time.Duration {
		t.Helper()
		b.say(0, link, protocol.TypeHeartbeat, protocol.Heartbeat{SentAt: sent})
		return time.Duration(must[*models.Host](t)(models.FindHost(b.ctx, b.db, h.ID)).ClockSkewMS) * time.Millisecond
	}
	b.exec("update hosts set clock_skew_ms = 42000")
	if got := skew(time.Now().Add(-3 * time.Minute)); got != 42*time.Second {
		t.Errorf("a late heartbeat made it %v", got)
	}
	if got := skew(time.Now()); got.Abs() > 2*time.Second {
		t.Errorf("a clock that is right again counts as %v off", got)
	}
}
