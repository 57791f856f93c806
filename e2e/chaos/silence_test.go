package chaos

import (
	"testing"

	"resticfleet/agent/failpoint"
)

// Hosts stay away for longer than the server waits: what they had accepted is
// lost and replaced by the true end, late; what they never took expires, runs
// never, and leaves nothing. The server dies when it has just said so.
func TestSilence(t *testing.T) {
	t.Parallel()
	f := newFleet(t, options{hosts: 3, args: []string{"--lost-after=6s", "--expire-after=6s"}})
	f.history.Silent = true
	running, queued, written := f.hosts[0], f.hosts[1], f.hosts[2]

	hold := f.gate.hold(running.name, atData)
	lost := running.run(0)
	running.await(hold.reached, "the data")
	f.expect(lost, row{State: "running", Accepted: true})
	running.killAgent()
	queued.killAgent()
	expired := queued.run(0)
	unaccepted := written.leaveUnaccepted()
	f.order("servers", failpoint.Judged)

	f.diesAt("servers", failpoint.Judged)
	f.expect(lost, row{State: "lost", Accepted: true})
	f.expect(expired, row{State: "expired"})
	f.expect(unaccepted, row{State: "expired"})
	hold.free()
	f.revive()
	f.expect(lost, row{State: "succeeded", Accepted: true})
	h := f.check()
	for _, s := range h.Steps {
		if s.Job == lost && s.To == "succeeded" && s.From == "lost" && !s.Late {
			t.Error("the late end isn't marked")
		}
	}
}

// leaveUnaccepted lets the agent die when it has written a command down that
// it didn't accept yet.
func (h *host) leaveUnaccepted() (job string) {
	h.f.t.Helper()
	h.f.order(h.name, failpoint.Written)
	job = h.run(0)
	h.f.diesAt(h.name, failpoint.Written)
	return job
}
