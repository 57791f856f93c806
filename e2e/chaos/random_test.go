package chaos

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"resticfleet/agent/failpoint"
	"resticfleet/agent/protocol"
)

// act is one step of the killer's plan.
type act struct {
	After  time.Duration // since the act before
	Victim string        // one of the victims, or power, cut, freeze
	N      int           // which of them
	Point  string        // dies there, where given, at the Hit-th time
	Hit    int
	Down   time.Duration // until it is started again
}

// Further victims: all of a host at once, every connection, and a server or
// agent that stands still for a while. The last two are no kills.
const (
	power  = "power"
	cut    = "cut"
	freeze = "freeze"
)

var (
	agentPoints = []string{
		failpoint.Written, failpoint.Accepted, failpoint.Starting, failpoint.Running, failpoint.CancelKept,
		failpoint.Interrupting, failpoint.Ended, failpoint.Concluded, failpoint.AckHeard, failpoint.AckKept,
	}
	supervisorPoints = []string{failpoint.Marked, failpoint.Launched, failpoint.Exited, failpoint.Recorded}
	serverPoints     = []string{
		failpoint.Made, failpoint.Asked, failpoint.Claimed, failpoint.Offered, failpoint.Settled, failpoint.Welcomed, failpoint.Firing,
		failpoint.Stored + protocol.TypeFire, failpoint.Stored + protocol.TypeAccepted, failpoint.Stored + protocol.TypeStarted,
		failpoint.Stored + protocol.TypeLog, failpoint.Stored + protocol.TypeFinished,
	}
)

// plan draws the killer's acts, with as many kills as asked for. It is a
// function of the seed alone.
func plan(seed uint64, kills, servers, hosts int) []act {
	r := rand.New(rand.NewPCG(seed, 1))
	between := func(least, most time.Duration) time.Duration {
		return least + time.Duration(r.Int64N(int64(most-least)))
	}
	// One in a row for each turn of the wheel.
	wheel := []string{
		VictimServer, VictimServer, VictimServer, VictimAgent, VictimAgent, VictimAgent, VictimSupervisor, VictimSupervisor,
		VictimRestic, VictimRestic, power, VictimPostgres, cut, freeze,
	}
	points := map[string][]string{VictimServer: serverPoints, VictimAgent: agentPoints, VictimSupervisor: supervisorPoints}
	var acts []act
	for killed := 0; killed < kills; {
		a := act{After: between(50*time.Millisecond, 1500*time.Millisecond), Down: between(0, 1500*time.Millisecond)}
		a.Victim = wheel[r.IntN(len(wheel))]
		a.N = r.IntN(hosts)
		switch a.Victim {
		case VictimServer:
			a.N = r.IntN(servers)
		case freeze:
			a.N = r.IntN(servers + hosts)
		}
		if at := points[a.Victim]; at != nil && r.IntN(2) == 0 {
			a.Point, a.Hit = at[r.IntN(len(at))], 1+r.IntN(2)
		}
		if a.Victim != cut && a.Victim != freeze {
			killed++
		}
		acts = append(acts, a)
	}
	return acts
}

func TestThePlanIsTheSeeds(t *testing.T) {
	t.Parallel()
	one, same, other := plan(7, 50, 2, 3), plan(7, 50, 2, 3), plan(8, 50, 2, 3)
	if fmt.Sprint(one) != fmt.Sprint(same) || fmt.Sprint(one) == fmt.Sprint(other) {
		t.Error(one, same, other)
	}
}

// A fleet at work: schedules and maintenance that are due every few seconds,
// operators who press and cancel, and a killer. In the end everything must have come to a true end.
//
//	go test ./e2e/chaos -run TestRandomKills -chaos.seed=1 -chaos.kills=200
func TestRandomKills(t *testing.T) {
	t.Parallel()
	drawn := *seed
	if drawn == 0 {
		drawn = rand.Uint64N(1_000_000)
	}
	t.Logf("-chaos.seed=%d -chaos.kills=%d", drawn, *kills)
	f := newFleet(t, options{hosts: 3})
	var schedules []string
	for _, h := range f.hosts {
		var made struct{ ID string }
		f.must("POST", "/api/hosts/"+h.id+"/schedules", map[string]any{"cron": "@every 3s", "enabled": true, "source_group_ids": h.groups[1:]}, &made, 201)
		schedules = append(schedules, "/api/hosts/"+h.id+"/schedules/"+made.ID)
	}
	for _, h := range f.hosts {
		h.keep(1, 2)
		f.must("PUT", "/api/hosts/"+h.id+"/repo-maintenance", map[string]any{
			"forget": map[string]any{"cron": "@every 7s", "enabled": true},
			"prune":  map[string]any{"cron": "@every 11s", "enabled": true},
			"check":  map[string]any{"cron": "@every 13s", "enabled": true, "read_data_subset": "1/3"},
		}, nil, 200)
	}
	f.gate.slowDown(rand.New(rand.NewPCG(drawn, uint64(2+len(f.hosts)))))
	began := time.Now()
	working, rest := context.WithCancel(context.WithoutCancel(t.Context()))
	var operators sync.WaitGroup
	for n := range f.hosts {
		operators.Go(func() { f.operate(working, rand.New(rand.NewPCG(drawn, uint64(2+n)))) })
	}
	k := killer{fleet: f}
	for _, a := range plan(drawn, *kills, len(f.servers), len(f.hosts)) {
		k.do(a)
	}
	rest()
	operators.Wait()
	f.revive()
	for _, h := range f.hosts {
		eventually(t, "maintenance rests", func() bool { return h.rest() == 200 })
	}
	for _, s := range schedules {
		eventually(t, "a schedule is deleted", func() bool { code := f.api("DELETE", s, nil, nil); return code == 204 || code == 404 })
	}
	took := time.Since(began)
	h := f.check()
	t.Log(summary(h, took))
}

func summary(h History, took time.Duration) string {
	victims, ends := map[string]int{}, map[string]int{}
	for _, k := range h.Kills {
		victims[k.Victim]++
		if k.Point != "" {
			victims["at a failpoint"]++
		}
	}
	for _, j := range h.Jobs {
		ends[j.Kind+" "+j.State]++
	}
	return fmt.Sprintf("%s: killed %v; jobs %v; Run now %d times, %d starts of restic, %d snapshots, %d locks of the dead removed",
		took.Round(time.Second), victims, ends, len(h.Runs), len(h.Starts), len(h.Snapshots), len(h.Unlocks))
}

// operate is an operator who presses Run now, mostly of a backup, and sometimes
// thinks better of it.
func (f *fleet) operate(ctx context.Context, r *rand.Rand) {
	for {
		pause := time.NewTimer(time.Duration(100+r.IntN(900)) * time.Millisecond)
		select {
		case <-ctx.Done():
			pause.Stop()
			return
		case <-pause.C:
		}
		h := f.hosts[r.IntN(len(f.hosts))]
		if r.IntN(6) == 0 {
			f.maintain(h, maintenance[r.IntN(len(maintenance))])
			continue
		}
		h.change(0)
		job, status := f.run(h, 0)
		if status == 202 && r.IntN(6) == 0 {
			f.cancel(job)
		}
	}
}

// killer works through a plan. It alone touches the fleet's programs.
type killer struct {
	*fleet
	starts []start
}

// start is a program that is to be started again.
type start struct {
	at time.Time
	p  *program
}

// pause waits, and starts what is due meanwhile.
func (k *killer) pause(d time.Duration) {
	over := time.Now().Add(d)
	within(time.Hour, func() bool {
		now := time.Now()
		for i := 0; i < len(k.starts); i++ {
			if s := k.starts[i]; !now.Before(s.at) {
				k.starts = append(k.starts[:i], k.starts[i+1:]...)
				i--
				if s.p.ended() {
					s.p.start()
				}
			}
		}
		return !now.Before(over)
	})
}

// wait is within that goes on with the starts.
func (k *killer) wait(patience time.Duration, ok func() bool) bool {
	for over := time.Now().Add(patience); time.Now().Before(over); k.pause(20 * time.Millisecond) {
		if ok() {
			return true
		}
	}
	return ok()
}

func (k *killer) again(p *program, down time.Duration) {
	k.starts = append(k.starts, start{time.Now().Add(down), p})
}

func (k *killer) do(a act) {
	k.pause(a.After)
	switch a.Victim {
	case cut:
		k.front.cut()
	case freeze:
		p := k.programs()[a.N]
		p.signal(syscall.SIGSTOP)
		k.pause(a.Down)
		p.signal(syscall.SIGCONT)
	case VictimPostgres:
		k.wait(10*time.Second, k.databaseUp)
		k.wait(10*time.Second, k.killPostgres)
	case VictimServer:
		if a.Point != "" && k.dieAt("servers", a) {
			return
		}
		p := k.servers[a.N]
		k.wait(10*time.Second, func() bool { return !p.ended() })
		k.killServer(a.N)
		k.again(p, a.Down)
	case VictimAgent:
		h := k.hosts[a.N]
		if a.Point != "" && k.dieAt(h.name, a) {
			return
		}
		k.wait(10*time.Second, func() bool { return !h.agent.ended() })
		h.killAgent()
		k.again(h.agent, a.Down)
	case power:
		h := k.hosts[a.N]
		k.wait(10*time.Second, func() bool { return len(h.underWay()) > 0 })
		h.killAgent()
		h.killWork(true, true)
		k.again(h.agent, a.Down)
	case VictimSupervisor, VictimRestic:
		if a.Point != "" && k.dieAt(k.hosts[a.N].name, a) {
			return
		}
		// The next host that has something to kill.
		k.wait(20*time.Second, func() bool {
			for n := range k.hosts {
				if h := k.hosts[(a.N+n)%len(k.hosts)]; h.killWork(a.Victim == VictimSupervisor, a.Victim == VictimRestic) > 0 {
					return true
				}
			}
			return false
		})
	}
}

// dieAt lets a program die at a failpoint, and says whether it came there.
func (k *killer) dieAt(name string, a act) bool {
	k.order(name, fmt.Sprint(a.Point, " ", a.Hit))
	args := ""
	came := k.wait(5*time.Second, func() (ok bool) { args, ok = k.obeyed(name); return ok })
	if !came {
		// It may be just about to come.
		file := k.failpoints(name)
		if os.Rename(file, file+".late") == nil {
			return false
		}
		came = k.wait(5*time.Second, func() (ok bool) { args, ok = k.obeyed(name); return ok })
	}
	if !came {
		k.t.Errorf("%s took the order to die at %s and didn't", name, a.Point)
		return true
	}
	death := Kill{Victim: a.Victim, Name: name, Point: a.Point}
	if _, step, ok := strings.Cut(args, " supervise "); ok {
		_, job, _ := strings.Cut(step, "/state/run/")
		death.Job, _, _ = strings.Cut(job, "/")
	}
	k.killed(death)
	for _, p := range k.programs() {
		if p.name == name || (name == "servers" && strings.HasPrefix(p.name, "server")) {
			k.wait(time.Second, p.ended) // the one of them that died
			k.again(p, a.Down)
		}
	}
	return true
}

func (f *fleet) programs() []*program {
	all := append([]*program{}, f.servers...)
	for _, h := range f.hosts {
		all = append(all, h.agent)
	}
	return all
}
