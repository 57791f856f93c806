package agent

import (
	"os"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"resticfleet/agent/protocol"
)

// processState is the letter of proc(5): T for a stopped one.
func processState(pid int) string {
	raw, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return ""
	}
	return strings.Fields(string(raw)[strings.LastIndexByte(string(raw), ')')+1:])[0]
}

// A laptop that sleeps: schedules come due many times, and on waking each one
// fires for the newest of them alone.
func TestSuspendedAgentWakesWithoutABurst(t *testing.T) {
	t.Parallel()
	b, s := setup(t), newServer(t)
	s.ping = time.Hour // the link outlives the sleep
	b.enrolled(s)
	s.first = []protocol.Envelope{protocol.Seal("schedule-1", protocol.TypeScheduleSet, protocol.ScheduleSet{Version: 1, Schedules: []protocol.Schedule{
		{ID: "often", Cron: "@every 2s", Enabled: true, SourceGroups: []string{"g"}},
		{ID: "minutely", Cron: "* * * * *", Enabled: true, SourceGroups: []string{"g"}},
	}})}
	fires := func(id string) []time.Time { // under the server's lock
		var all []time.Time
		for _, m := range s.of(protocol.TypeFire, "fire-"+id+"-") {
			fire, err := protocol.Decode[protocol.Fire](m.Envelope)
			if err != nil {
				t.Fatal(err)
			}
			all = append(all, fire.ScheduledAt)
		}
		return all
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	p := b.spawnProgram(self, agentOrder{Linked: true})
	s.until("it fires", func() bool { return len(fires("often")) >= 2 })

	if err := p.cmd.Process.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	eventually(t, "it sleeps", func() bool { return processState(p.cmd.Process.Pid) == "T" })
	asleep := time.Now()
	// Over a full minute and a good many of two seconds.
	minute := asleep.Add(7 * time.Second).Truncate(time.Minute).Add(time.Minute)
	woken := time.NewTimer(time.Until(minute.Add(time.Second)))
	defer woken.Stop()
	<-woken.C
	awake := time.Now()
	if err := p.cmd.Process.Signal(syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	s.until("it goes on", func() bool {
		all := fires("often")
		return len(all) > 2 && all[len(all)-1].After(awake.Add(3*time.Second)) && len(fires("minutely")) > 0
	})

	s.mu.Lock()
	defer s.mu.Unlock()
	if s.links != 1 {
		t.Errorf("%d links: the fires of waking may be lost with one", s.links)
	}
	for _, id := range []string{"often", "minutely"} {
		var slept []time.Time
		seen := map[int64]bool{}
		for _, at := range fires(id) {
			if seen[at.UnixNano()] {
				t.Errorf("%s fired twice for %s", id, at)
			}
			seen[at.UnixNano()] = true
			// What was under way when it fell asleep isn't missed.
			if at.After(asleep) && !at.After(awake) {
				slept = append(slept, at)
			}
		}
		// On a busy machine the next two seconds may be over before it looks.
		if len(slept) > 1 || id == "minutely" && len(slept) == 0 || len(slept) == 1 && awake.Sub(slept[0]) > 5*time.Second {
			t.Errorf("%s fired for %s, all due between %s and %s; want the newest", id, slept, asleep, awake)
		}
	}
}
