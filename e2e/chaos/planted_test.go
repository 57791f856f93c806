package chaos

import (
	"os"
	"path/filepath"
	"testing"

	"resticfleet/agent/failpoint"
)

// Each mistake is really made by programs that were told to, and Check finds
// it: no rule is there in vain.
func TestPlanted(t *testing.T) {
	t.Parallel()
	hosts := []struct {
		plant, rule string
		play        func(h *host, hold *hold)
	}{
		{failpoint.ClearAll, RuleLiveLock, func(h *host, hold *hold) {
			// The next host works in the same repository.
			neighbour := h.f.hosts[h.n+1]
			other := h.f.gate.hold(neighbour.name, atData)
			neighbour.run(1)
			neighbour.await(other.reached, "the data")
			h.killWork(false, true)
			eventually(h.f.t, "the lock is removed", func() bool {
				h.f.gate.mu.Lock()
				defer h.f.gate.mu.Unlock()
				return len(h.f.gate.unlocks) > 0
			})
			other.free()
		}},
		{failpoint.SayTwice, RuleLog, func(h *host, hold *hold) {
			eventually(h.f.t, "the lines are told", func() bool { return h.f.lines(h) >= SaidLines })
			h.killAgent()
			h.agent.start()
			eventually(h.f.t, "the lines are told again", func() bool { return h.f.lines(h) >= 2*SaidLines })
			hold.free()
		}},
		{failpoint.InventSnapshot, RuleTruth, func(h *host, _ *hold) { h.killWork(false, true) }},
		{failpoint.KillFound, RuleHealthy, func(h *host, _ *hold) { h.killAgent(); h.agent.start() }},
		{failpoint.StartTwice, RuleOneStart, func(h *host, hold *hold) { h.killWork(true, true); hold.free() }},
	}
	leaver := len(hosts)
	f := newFleet(t, options{servers: 1, hosts: leaver + 1, args: []string{"--expire-after=8s"}})
	f.plant(f.hosts[leaver].agent, failpoint.LeaveFolder)
	for n, x := range hosts {
		f.plant(f.hosts[n].agent, x.plant)
	}
	f.relink()
	left := f.hosts[leaver].leaveUnaccepted()
	for n, x := range hosts {
		h := f.hosts[n]
		hold := f.gate.hold(h.name, atData)
		h.run(0)
		h.await(hold.reached, "the data")
		x.play(h, hold)
	}
	f.expect(left, row{State: "expired"})
	history := f.finish()
	found := map[string][]Violation{} // by host; "" for those of none
	by := map[string]string{}
	for _, j := range history.Jobs {
		by[j.ID] = j.Host
	}
	for _, v := range Check(history) {
		found[by[v.Job]] = append(found[by[v.Job]], v)
	}
	for n, x := range append(hosts, struct {
		plant, rule string
		play        func(h *host, hold *hold)
	}{failpoint.LeaveFolder, RuleNothingLeft, nil}) {
		bitten(t, x.plant, x.rule, append(found[hostName(n)], found[""]...))
	}
}

// The server's mistake needs a fleet of its own.
func TestPlantedAtTheServer(t *testing.T) {
	t.Parallel()
	f := newFleet(t, options{servers: 1, hosts: 1})
	f.plant(f.servers[0], failpoint.AckUnstored)
	f.startServer(0)
	f.hosts[0].run(0)
	bitten(t, failpoint.AckUnstored, RuleOneEnd, Check(f.finish()))
}

// What no program can be told to do wrong is done by hand: a state taken back,
// which the database refuses, and a repository that is damaged.
func TestPlantedByHand(t *testing.T) {
	t.Parallel()
	f := newFleet(t, options{servers: 1, hosts: 1})
	h := f.hosts[0]
	job := h.run(0)
	f.settled()
	// One statement: nobody sees the job waiting again.
	_, err := f.db.ExecContext(t.Context(), `alter table jobs disable trigger jobs_moved;
		update jobs set state = 'sent', finished_at = null where id = '`+job+`';
		update jobs set state = 'succeeded', finished_at = now() where id = '`+job+`';
		alter table jobs enable trigger jobs_moved`)
	if err != nil {
		t.Fatal(err)
	}
	packs, err := filepath.Glob(filepath.Join(f.gate.dir, h.repository, "data", "*", "*"))
	if err != nil || len(packs) == 0 {
		t.Fatal(packs, err)
	}
	if err := os.Remove(packs[0]); err != nil {
		t.Fatal(err)
	}
	found := Check(f.finish())
	bitten(t, "an end taken back", RuleForward, found)
	bitten(t, "a pack lost", RuleSound, found)
}

func bitten(t *testing.T, plant, rule string, found []Violation) {
	t.Run(plant, func(t *testing.T) {
		for _, v := range found {
			if v.Rule == rule {
				return
			}
		}
		t.Errorf("nobody noticed %s; found %v", rule, found)
	})
}

// lines counts what is stored of the lines that a host's restic said.
func (f *fleet) lines(h *host) (n int) {
	_ = f.db.QueryRowContext(f.t.Context(), "select count(*) from job_log_lines l join jobs j on j.id = l.job_id where j.host_id = ? and text like ?", h.id, Said+"%").Scan(&n)
	return n
}
