package chaos

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"time"

	"resticfleet/agent/failpoint"
)

// maintenance is the exclusive work that a host may be asked for.
var maintenance = []string{"forget", "prune", "check"}

// maintain is Run now of maintenance. The answer is kept for the history.
func (f *fleet) maintain(h *host, kind string) (job string, status int) {
	var j struct{ ID string }
	status = f.api("POST", "/api/hosts/"+h.id+"/repo-maintenance/"+kind+"/run", nil, &j)
	f.mu.Lock()
	defer f.mu.Unlock()
	f.history.Runs = append(f.history.Runs, Run{Status: status, Job: j.ID})
	return j.ID, status
}

// keep lets a group keep its newest snapshots only.
func (h *host) keep(group, newest int) {
	h.f.t.Helper()
	name := []string{"0", "1"}[group]
	h.f.must("PUT", "/api/hosts/"+h.id+"/source-groups/"+h.groups[group], map[string]any{
		"name": name, "tag": name, "includes": []string{h.path(name)}, "excludes": []string{}, "retention": map[string]any{"keep_last": newest},
	}, nil, 200)
	h.f.mu.Lock()
	defer h.f.mu.Unlock()
	if h.f.history.Keeps == nil {
		h.f.history.Keeps = map[string]int{}
	}
	h.f.history.Keeps[h.groups[group]] = newest
}

// rest lets nothing be due any more.
func (h *host) rest() (status int) {
	daily := map[string]any{"cron": "0 0 1 1 *", "enabled": false}
	return h.f.api("PUT", "/api/hosts/"+h.id+"/repo-maintenance", map[string]any{"forget": daily, "prune": daily, "check": daily}, nil)
}

// Forget, prune and check are killed in the middle of their work, each by
// whatever can die on a host. The next run of each succeeds without a hand, and
// the repository, which another host keeps backing up to, is whole.
func TestMaintenanceKilled(t *testing.T) {
	t.Parallel()
	victims := []struct {
		name   string
		strike func(h *host)
		// healthy: nobody touched restic or who watches it.
		healthy bool
	}{
		{"the agent", func(h *host) { h.killAgent() }, true},
		{"the supervisor", func(h *host) { h.killWork(true, false) }, false},
		{"restic", func(h *host) { h.killWork(false, true) }, false},
		{"all of them", func(h *host) { h.killAgent(); h.killWork(true, true) }, false},
	}
	f := newFleet(t, options{hosts: 2 * len(victims)})
	for n := range victims {
		f.hosts[2*n].keep(0, 1)
	}
	for range 3 {
		for _, h := range f.hosts {
			h.run(0)
		}
		f.settled()
	}
	for _, x := range []struct{ kind, place string }{{"forget", atForget}, {"prune", atPrune}, {"check", atCheck}} {
		jobs, behind := make([]string, len(victims)), make([]string, len(victims))
		var holds []*hold
		for n := range victims {
			hold := f.gate.hold(f.hosts[2*n].name, x.place)
			holds = append(holds, hold)
			jobs[n] = f.mustMaintain(f.hosts[2*n], x.kind)
		}
		for n, v := range victims {
			h, neighbour := f.hosts[2*n], f.hosts[2*n+1]
			h.await(holds[n].reached, x.place)
			behind[n] = neighbour.run(0)
			v.strike(h)
		}
		f.revive()
		for _, h := range holds {
			h.free()
		}
		f.settled()
		again := make([]string, len(victims))
		for n := range victims {
			again[n] = f.mustMaintain(f.hosts[2*n], x.kind)
		}
		f.settled()
		for n, v := range victims {
			t.Run(x.kind+", "+v.name, func(t *testing.T) {
				if v.healthy {
					f.ended(t, jobs[n], "succeeded")
				}
				f.ended(t, behind[n], "succeeded")
				f.ended(t, again[n], "succeeded")
			})
		}
	}
	f.check()
}

func (f *fleet) mustMaintain(h *host, kind string) string {
	f.t.Helper()
	job, status := f.maintain(h, kind)
	if status != 202 {
		f.t.Fatalf("%s of %s: status %d", kind, h.name, status)
	}
	return job
}

// Five hosts back up to one repository without a pause, each with one backup
// under way and one behind it. Work that needs the repository alone begins as
// soon as what was under way has ended, whatever waits; and no backup is
// overtaken twice.
func TestExclusiveWorkGetsItsTurn(t *testing.T) {
	t.Parallel()
	f := newFleet(t, options{hosts: 5, sharing: 5})
	f.hosts[0].keep(0, 2)
	f.gate.slowDown(rand.New(rand.NewPCG(1, 2)))
	pressing, stop := context.WithCancel(context.WithoutCancel(t.Context()))
	var operators sync.WaitGroup
	defer operators.Wait()
	defer stop()
	for _, h := range f.hosts {
		for group := range h.groups {
			operators.Go(func() {
				for pressing.Err() == nil {
					h.change(group)
					job, status := f.run(h, group)
					within(patience, func() bool { return pressing.Err() != nil || status != 202 || final(f.row(job).State) })
				}
			})
		}
	}
	count := func(query string, args ...any) (n int) {
		if err := f.db.QueryRowContext(t.Context(), query, args...).Scan(&n); err != nil {
			t.Error(err)
		}
		return n
	}
	for _, kind := range maintenance {
		eventually(t, "the hosts are busy, and backups wait", func() bool {
			return count(`select count(distinct r.host_id) from jobs r join jobs w on w.host_id = r.host_id and w.kind = 'backup' and w.state = 'queued'
				where r.kind = 'backup' and r.state in ('sent', 'running')`) >= len(f.hosts)-1
		})
		job := f.mustMaintain(f.hosts[0], kind)
		asked := f.newestStep()
		eventually(t, kind+" has ended", func() bool { return final(f.row(job).State) })
		f.ended(t, job, "succeeded")
		// A claim that was in the middle when the work was asked for may still
		// end; one behind an end that came later may not.
		if n := count(`select count(*) from chaos_steps sent join jobs b on b.id = sent.job
			where sent.kind = 'backup' and sent.is_now = 'sent' and not b.overtaken
				and sent.n < (select n from chaos_steps where job = ? and is_now = 'sent')
				and exists (select from chaos_steps done join jobs d on d.id = done.job where d.host_id = b.host_id and d.kind = 'backup'
					and done.is_now in ('succeeded', 'warning', 'failed') and done.n > ? and done.n < sent.n)`, job, asked); n > 0 {
			t.Errorf("%s waited for %d backups that hadn't begun", kind, n)
		}
	}
	stop()
	operators.Wait()
	if n := count(`select coalesce(max(times), 0) from (
		select count(*) as times from chaos_steps made join chaos_steps sent on sent.job = made.job and sent.is_now = 'sent'
			join chaos_steps x on x.kind in ('forget', 'prune', 'check') and x.is_now = 'sent' and x.n > made.n and x.n < sent.n
		where made.kind = 'backup' and made.was = '' group by made.job) o`); n != 1 {
		t.Errorf("one backup was overtaken %d times", n)
	}
	f.check()
}

// newestStep numbers the change of a state that was the last so far.
func (f *fleet) newestStep() (n int64) {
	f.t.Helper()
	if err := f.db.QueryRowContext(f.t.Context(), "select max(n) from chaos_steps").Scan(&n); err != nil {
		f.t.Fatal(err)
	}
	return n
}

// Three servers look what is due, each many times while it is. One dies right
// behind a row that it made, and leaves the rest of what it had found to the
// others: every time that a cadence named has its row, for each host and kind,
// and one only.
func TestServerDiesWhileMaintenanceIsDue(t *testing.T) {
	t.Parallel()
	f := newFleet(t, options{servers: 3, hosts: 2, args: []string{"--maintain-every=1s"}})
	f.order("servers", failpoint.Maintained)
	const every = 15 // seconds, whole ones of the clock
	on := map[string]any{"cron": fmt.Sprintf("@every %ds", every), "enabled": true}
	off := map[string]any{"cron": "0 0 1 1 *", "enabled": false}
	for _, h := range f.hosts {
		f.must("PUT", "/api/hosts/"+h.id+"/repo-maintenance", map[string]any{
			"forget": on, "prune": off, "check": map[string]any{"cron": on["cron"], "enabled": true, "read_data_subset": "1/2"},
		}, nil, 200)
	}
	from := map[string]int64{} // of a host, in seconds: what is due later has a row
	for _, h := range f.hosts {
		var at time.Time
		if err := f.db.QueryRowContext(t.Context(), "select max(effective_at) from maintenance_states where host_id = ? and kind in ('forget', 'check')", h.id).Scan(&at); err != nil {
			t.Fatal(err)
		}
		from[h.id] = at.Unix()
	}
	f.diesAt("servers", failpoint.Maintained)
	f.revive()
	counted := func(h *host, kind, state string) (n int) {
		_ = f.db.QueryRowContext(t.Context(), "select count(*) from jobs where host_id = ? and kind = ? and scheduled_at is not null and state = ?", h.id, kind, state).Scan(&n)
		return n
	}
	// The first host bound the repository: it checks it for both. Neither has a
	// policy to forget by.
	eventually(t, "the owner has checked, and what has nothing to do is told", func() bool {
		return counted(f.hosts[0], "check", "succeeded") >= 2 && counted(f.hosts[1], "check", "skipped") >= 2 &&
			counted(f.hosts[0], "forget", "skipped") >= 2 && counted(f.hosts[1], "forget", "skipped") >= 2
	})
	for _, h := range f.hosts {
		eventually(t, "maintenance rests", func() bool { return h.rest() == 200 })
	}
	if counted(f.hosts[1], "check", "succeeded") > 0 {
		t.Error("the other host checked the repository as well")
	}
	for _, h := range f.hosts {
		for _, kind := range []string{"forget", "check"} {
			var got, want []int64
			if err := f.db.NewRaw("select extract(epoch from scheduled_at)::bigint from jobs where host_id = ? and kind = ? and scheduled_at is not null order by 1", h.id, kind).Scan(t.Context(), &got); err != nil {
				t.Fatal(err)
			}
			for at := from[h.id] - from[h.id]%every + every; at <= got[len(got)-1]; at += every {
				want = append(want, at)
			}
			if !slices.Equal(got, want) {
				t.Errorf("%s of %s has rows of %v, and was due at %v", kind, h.name, got, want)
			}
		}
	}
	f.check()
}
