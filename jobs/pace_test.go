package jobs_test

import (
	"testing"
	"time"

	"resticfleet/agent/protocol"
	"resticfleet/models"
)

// A welcome tells a polling agent an interval by the fleet's size, and to beat
// as often; what a socket pings by stays.
func TestWelcomeScalesThePollInterval(t *testing.T) {
	t.Parallel()
	b := setup(t)
	h := b.host("web-1", "/srv/repo")
	b.exec(`insert into hosts (id, name, restic_host, link, last_seen_at)
		select gen_random_uuid(), 'p' || n, 'p' || n, 'polling', now() - interval '20 minutes' from generate_series(1, 2500) n`)
	b.exec(`insert into hosts (id, name, restic_host, link, last_seen_at)
		select gen_random_uuid(), 'w' || n, 'w' || n, 'websocket', now() from generate_series(1, 300) n`)
	b.exec(`insert into hosts (id, name, restic_host, link, last_seen_at)
		select gen_random_uuid(), 'g' || n, 'g' || n, 'polling', now() - interval '1 day' from generate_series(1, 300) n`)
	welcome := func(transport string) (ping, poll time.Duration) {
		t.Helper()
		_, first, err := b.servers[0].Hello(b.ctx, must[*models.Host](t)(models.FindHost(b.ctx, b.db, h.ID)), transport, protocol.Hello{Protocol: 1, JournalID: "j"})
		if err != nil {
			t.Fatal(err)
		}
		w := must[protocol.Welcome](t)(protocol.Decode[protocol.Welcome](first[0]))
		return time.Duration(w.PingIntervalMS) * time.Millisecond, time.Duration(w.PollIntervalMS) * time.Millisecond
	}
	seen := map[time.Duration]bool{}
	for range 8 {
		ping, poll := welcome(protocol.LinkPolling)
		if poll < 45*time.Second || poll > 55*time.Second+100*time.Millisecond {
			t.Errorf("poll interval %v, want 50 s give or take a tenth", poll)
		}
		if off := poll - 2*ping; off.Abs() > 2*time.Millisecond {
			t.Errorf("ping interval %v at a poll interval of %v", ping, poll)
		}
		seen[poll] = true
	}
	if len(seen) < 2 {
		t.Errorf("all agents are told %v", seen)
	}
	if ping, poll := welcome(protocol.LinkWebSocket); ping != 15*time.Second || poll != 30*time.Second {
		t.Errorf("a socket is told ping %v, poll %v", ping, poll)
	}
}
