package chaos

import (
	"fmt"
	"syscall"
	"testing"

	"resticfleet/agent/failpoint"
)

// state is where a job stands when a fault strikes. reach brings a new job of
// the host there and keeps it there; resume lets it go on.
type state struct {
	name   string
	works  bool   // restic runs
	killed string // what the job becomes when restic is killed
	reach  func(h *host) (jobs []string, resume func())
}

var states = []state{
	{"queued", true, "failed", func(h *host) ([]string, func()) {
		// It waits for another of its host, which is held.
		hold := h.f.gate.hold(h.name, atData)
		first := h.run(0)
		h.await(hold.reached, "the data")
		second := h.run(1)
		h.f.expect(second, row{State: "queued"})
		return []string{first, second}, hold.free
	}},
	{"sent", false, "", func(h *host) ([]string, func()) {
		h.agent.signal(syscall.SIGSTOP)
		job := h.run(0)
		h.f.expect(job, row{State: "sent"})
		return []string{job}, h.goOn
	}},
	{"accepted", false, "", func(h *host) ([]string, func()) {
		h.holdVersion()
		job := h.run(0)
		h.f.expect(job, row{State: "sent", Accepted: true})
		return []string{job}, h.release
	}},
	{"running", true, "failed", func(h *host) ([]string, func()) {
		hold := h.f.gate.hold(h.name, atData)
		job := h.run(0)
		h.await(hold.reached, "the data")
		h.f.expect(job, row{State: "running", Accepted: true})
		return []string{job}, hold.free
	}},
	{"stored", true, "warning", func(h *host) ([]string, func()) {
		hold := h.f.gate.hold(h.name, atSnapshot)
		job := h.run(0)
		h.await(hold.reached, "the snapshot")
		return []string{job}, hold.free
	}},
	{"ended", false, "", stopAt(failpoint.Ended)},
	{"finished", false, "", stopAt(failpoint.Concluded)},
	{"acknowledged", false, "", stopAt(failpoint.AckHeard)},
}

// stopAt holds a job where its agent comes to a failpoint.
func stopAt(point string) func(h *host) ([]string, func()) {
	return func(h *host) ([]string, func()) {
		h.f.order(h.name, point+" 1 stop")
		job := h.run(0)
		eventually(h.f.t, h.name+" stops at "+point, func() bool { return processState(h.agent.pid()) == 'T' })
		return []string{job}, h.goOn
	}
}

// goOn lets a stopped agent go on; one that was killed in between is another.
func (h *host) goOn() { h.agent.signal(syscall.SIGCONT) }

func (h *host) await(signal <-chan struct{}, what string) {
	h.f.t.Helper()
	eventually(h.f.t, h.name+"'s restic comes to "+what, func() bool {
		select {
		case <-signal:
			return true
		default:
			return false
		}
	})
}

// expect waits until a job is so.
func (f *fleet) expect(job string, want row) {
	f.t.Helper()
	var got row
	if !within(patience, func() bool { got = f.row(job); return got == want }) {
		f.t.Fatalf("job %s is %+v, want %+v", job, got, want)
	}
}

// fault is what strikes all hosts at once. Where it kills restic, the job fails
// and says so, or, where the snapshot was stored, warns that nobody saw the end.
// All others succeed.
type fault struct {
	name   string
	works  bool // concerns only hosts whose restic runs
	strike func(f *fleet, hit []*host)
	restic bool
}

var faults = []fault{
	{name: "servers are killed", strike: func(f *fleet, _ []*host) {
		for n := range f.servers {
			f.killServer(n)
		}
	}},
	{name: "one server after the other is killed", strike: func(f *fleet, _ []*host) {
		for n := range f.servers {
			f.killServer(n)
			f.startServer(n)
		}
	}},
	{name: "PostgreSQL is killed", strike: func(f *fleet, _ []*host) { f.killPostgres() }},
	{name: "every connection is cut", strike: func(f *fleet, _ []*host) { f.front.cut() }},
	{name: "agents are killed", strike: func(_ *fleet, hit []*host) {
		for _, h := range hit {
			h.killAgent()
		}
	}},
	{name: "supervisors are killed", works: true, strike: func(_ *fleet, hit []*host) {
		for _, h := range hit {
			h.killWork(true, false)
		}
	}},
	{name: "restic is killed", works: true, strike: func(_ *fleet, hit []*host) {
		for _, h := range hit {
			h.killWork(false, true)
		}
	}, restic: true},
	{name: "agents and supervisors are killed", works: true, strike: func(_ *fleet, hit []*host) {
		for _, h := range hit {
			h.killAgent()
			h.killWork(true, false)
		}
	}},
	{name: "agents, supervisors and restic are killed", strike: func(_ *fleet, hit []*host) {
		for _, h := range hit {
			h.killAgent()
			h.killWork(true, true)
		}
	}, restic: true},
	{name: "everything is killed", strike: func(f *fleet, hit []*host) {
		for n := range f.servers {
			f.killServer(n)
		}
		for _, h := range hit {
			h.killAgent()
			h.killWork(true, true)
		}
		f.killPostgres()
	}, restic: true},
}

// The table: every fault strikes every state of a job, one host for each state
// and all of them at once. Two fleets share the faults.
func TestFaults(t *testing.T) {
	t.Parallel()
	const fleets = 2
	for n := range fleets {
		t.Run(fmt.Sprint("fleet ", n), func(t *testing.T) {
			t.Parallel()
			f := newFleet(t, options{hosts: len(states)})
			for i, fault := range faults {
				if i%fleets == n {
					fault.test(t, f)
				}
			}
			f.check()
		})
	}
}

func (x fault) test(t *testing.T, f *fleet) {
	type victim struct {
		state
		h      *host
		jobs   []string
		resume func()
	}
	var victims []victim
	var hit []*host
	for n, s := range states {
		if !x.works || s.works {
			victims = append(victims, victim{state: s, h: f.hosts[n]})
			hit = append(hit, f.hosts[n])
		}
	}
	f.relink()
	for n := range victims {
		v := &victims[n]
		v.jobs, v.resume = v.reach(v.h)
	}
	x.strike(f, hit)
	f.revive()
	for _, v := range victims {
		v.resume()
	}
	f.settled()
	for _, v := range victims {
		t.Run(x.name+", "+v.name, func(t *testing.T) {
			for n, job := range v.jobs {
				want := "succeeded"
				if x.restic && v.works && n == 0 {
					want = v.killed
				}
				if got := f.row(job).State; got != want {
					t.Errorf("job %s of %s is %s, want %s", job, v.h.name, got, want)
				}
			}
		})
	}
}
