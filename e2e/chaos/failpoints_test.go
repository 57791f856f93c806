package chaos

import (
	"context"
	"strings"
	"syscall"
	"testing"

	"resticfleet/agent/failpoint"
	"resticfleet/agent/protocol"
)

// diesAt waits until a program has come to the point it was ordered to.
func (f *fleet) diesAt(name, point string) {
	f.t.Helper()
	eventually(f.t, name+" dies at "+point, func() bool { _, ok := f.obeyed(name); return ok })
	args, _ := f.obeyed(name)
	death := Kill{Name: name, Point: point, Victim: VictimAgent}
	if _, step, ok := strings.Cut(args, " supervise "); ok {
		_, job, _ := strings.Cut(step, "/state/run/")
		death.Victim = VictimSupervisor
		death.Job, _, _ = strings.Cut(job, "/")
	}
	if name == "servers" {
		death.Victim = VictimServer
		eventually(f.t, "a server has ended", func() bool {
			for _, s := range f.servers {
				if s.ended() {
					return true
				}
			}
			return false
		})
	} else if death.Victim == VictimAgent {
		eventually(f.t, name+" has ended", func() bool {
			for _, h := range f.hosts {
				if h.name == name && h.agent.ended() {
					return true
				}
			}
			return false
		})
	}
	f.killed(death)
}

// Agents and supervisors die at each of their points, once, and the job comes
// to a true end.
func TestAgentFailpoints(t *testing.T) {
	t.Parallel()
	const hosts = 7
	f := newFleet(t, options{hosts: hosts})
	points := append(append([]string{}, supervisorPoints...), agentPoints...)
	want := map[string]string{failpoint.Marked: "failed", failpoint.CancelKept: "cancelled", failpoint.Interrupting: "cancelled"}
	for ; len(points) > 0; points = points[min(hosts, len(points)):] {
		f.relink()
		jobs := map[string]string{}
		var holds []*hold
		round := points[:min(hosts, len(points))]
		for n, point := range round {
			h := f.hosts[n]
			if want[point] != "cancelled" {
				f.order(h.name, point)
				jobs[point] = h.run(0)
				continue
			}
			hold := f.gate.hold(h.name, atData)
			holds = append(holds, hold)
			jobs[point] = h.run(0)
			h.await(hold.reached, "the data")
			f.order(h.name, point)
			if status := f.cancel(jobs[point]); status != 202 {
				t.Fatalf("cancel: status %d", status)
			}
		}
		for n, point := range round {
			f.diesAt(f.hosts[n].name, point)
		}
		f.revive()
		f.settled()
		for _, h := range holds {
			h.free()
		}
		for point, job := range jobs {
			t.Run(point, func(t *testing.T) { f.ended(t, job, want[point]) })
		}
	}
	f.check()
}

// ended checks a job's end, succeeded unless told.
func (f *fleet) ended(t *testing.T, job, want string) {
	t.Helper()
	if want == "" {
		want = "succeeded"
	}
	if got := f.row(job).State; got != want {
		t.Errorf("job %s is %s, want %s", job, got, want)
	}
}

// newest is a group's newest job, for when nobody was told its id.
func (h *host) newest(group int) string {
	h.f.t.Helper()
	id := ""
	eventually(h.f.t, "the group has a job", func() bool { id = h.last(group); return id != "" })
	return id
}

// last is the group's newest job so far, "" for none.
func (h *host) last(group int) (id string) {
	_ = h.f.db.QueryRowContext(context.Background(), "select id::text from jobs where source_group_id = ? order by id desc limit 1", h.groups[group]).Scan(&id)
	return id
}

// A server dies at each of its points while another stays, and the job comes
// to a true end.
func TestServerFailpoints(t *testing.T) {
	t.Parallel()
	f := newFleet(t, options{hosts: 4})
	const servers = "servers"
	// The server that dies may be the one that was asked, before or after it has
	// made the job.
	during := func(h *host) (job string) {
		h.change(0)
		before := h.last(0)
		eventually(t, "there is a new job", func() bool {
			var status int
			if job, status = f.run(h, 0); status != 202 {
				job = h.last(0)
			}
			return job != before
		})
		return job
	}
	schedule := func(h *host) string {
		// Again where the server that was asked died before it had made one.
		eventually(t, "there is a schedule", func() bool {
			if len(f.schedules(h)) > 0 {
				return true
			}
			return f.api("POST", "/api/hosts/"+h.id+"/schedules", map[string]any{"cron": "@every 2s", "enabled": true, "source_group_ids": h.groups[1:]}, nil) == 201
		})
		return ""
	}
	for n, x := range []struct {
		point string
		want  string
		// begin leads a server to the point; the result is the job to look at, ""
		// for the newest of the second group.
		begin func(h *host) (job string)
	}{
		{point: failpoint.Made, begin: func(h *host) string {
			if _, status := f.run(h, 1); status == 202 {
				t.Error("the dead server answered")
			}
			return ""
		}},
		{point: failpoint.Asked, want: "cancelled", begin: func(h *host) string {
			hold := f.gate.hold(h.name, atData)
			job := h.run(0)
			h.await(hold.reached, "the data")
			if f.cancel(job) == 202 {
				t.Error("the dead server answered")
			}
			return job
		}},
		{point: failpoint.Claimed, begin: during},
		{point: failpoint.Offered, begin: func(h *host) string {
			h.agent.signal(syscall.SIGSTOP)
			job := h.run(0)
			f.expect(job, row{State: "sent"})
			h.killAgent()
			h.agent.start()
			return job
		}},
		{point: failpoint.Settled, begin: func(h *host) string { job := during(h); f.front.cut(); return job }},
		{point: failpoint.Welcomed, begin: func(h *host) string { job := during(h); f.front.cut(); return job }},
		{point: failpoint.Stored + protocol.TypeScheduleAck, begin: schedule},
		{point: failpoint.Firing, begin: schedule},
		{point: failpoint.Stored + protocol.TypeFire, begin: schedule},
		{point: failpoint.Stored + protocol.TypeAccepted, begin: during},
		{point: failpoint.Stored + protocol.TypeStarted, begin: during},
		{point: failpoint.Stored + protocol.TypeLog, begin: during},
		{point: failpoint.Stored + protocol.TypeFinished, begin: during},
		{point: failpoint.CaughtUp, begin: func(h *host) string {
			schedule(h)
			_, err := f.db.ExecContext(context.Background(), `with a as (update schedules set cron = '*/1 * * * *', effective_at = now() - interval '1 hour' where host_id = ?),
				b as (update host_repositories set bound_at = now() - interval '1 hour' where host_id = ?)
				update hosts set timezone_since = now() - interval '1 hour' where id = ?`, h.id, h.id, h.id)
			if err != nil {
				t.Error(err)
			}
			f.front.cut()
			return ""
		}},
	} {
		f.relink()
		h := f.hosts[n%4]
		f.order(servers, x.point)
		job := x.begin(h)
		f.diesAt(servers, x.point)
		f.revive()
		if job == "" {
			job = h.newest(1)
		}
		if x.want == "" {
			eventually(t, "the job has ended", func() bool { return final(f.row(job).State) })
		}
		f.unschedule()
		if x.want != "" { // before it can end otherwise
			f.expect(job, row{State: x.want, Accepted: true})
		}
		f.gate.freeAll()
		f.settled()
		t.Run(x.point, func(t *testing.T) { f.ended(t, job, x.want) })
	}
	fresh := f.bareHost(len(f.hosts))
	f.hosts = append(f.hosts, fresh)
	f.order(servers, failpoint.Bound)
	if fresh.bind() == 200 {
		t.Error("the dead server answered")
	}
	f.diesAt(servers, failpoint.Bound)
	f.revive()
	fresh.ready()
	job := fresh.run(0)
	f.settled()
	t.Run(failpoint.Bound, func(t *testing.T) { f.ended(t, job, "") })
	f.check()
}

// unschedule deletes every schedule, as an operator would.
func (f *fleet) unschedule() {
	f.t.Helper()
	for _, h := range f.hosts {
		for _, id := range f.schedules(h) {
			f.must("DELETE", "/api/hosts/"+h.id+"/schedules/"+id, nil, nil, 204)
		}
	}
}

// schedules are the ids of a host's, none where no answer came.
func (f *fleet) schedules(h *host) (ids []string) {
	var list struct{ Items []struct{ ID string } }
	f.api("GET", "/api/hosts/"+h.id+"/schedules", nil, &list)
	for _, s := range list.Items {
		ids = append(ids, s.ID)
	}
	return ids
}
