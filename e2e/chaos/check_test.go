package chaos

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"resticfleet/agent/failpoint"
)

func code(n int) *int { return &n }

// good is a history in which a backup went well, another's restic was killed, a
// third was cancelled, a fourth skipped.
func good() History {
	h := History{
		Jobs: []Job{
			{ID: "a", Host: "h", Repository: 1, Kind: "backup", Group: "g", State: "succeeded", SnapshotID: "aa", ExitCode: code(0)},
			{ID: "b", Kind: "backup", Group: "g", State: "failed", ErrorCode: "killed"},
			{ID: "c", Kind: "backup", Group: "g", State: "cancelled", CancelAsked: true},
			{ID: "d", Kind: "backup", Group: "g", State: "skipped", ScheduledID: "s", ScheduledAt: time.Unix(60, 0)},
			{ID: "i", Kind: "init", State: "succeeded", ExitCode: code(0)},
		},
		Runs:      []Run{{202, "a"}, {202, "b"}, {0, ""}, {202, "c"}},
		Starts:    []Start{{"h", 7, "cat", ""}, {"h", 8, "backup", "a"}, {"h", 9, "backup", "b"}},
		Unlocks:   []Unlock{{"r", "l", 9, 10, false}},
		Kills:     []Kill{{Victim: VictimRestic, Job: "b"}, {Victim: VictimServer}},
		Snapshots: []Snapshot{{"r", "aa", "a"}},
	}
	for _, way := range []struct {
		job, kind string
		states    []string
	}{
		{"i", "init", []string{"queued", "sent", "succeeded"}},
		{"a", "backup", []string{"queued", "sent", "running", "succeeded"}},
		{"b", "backup", []string{"queued", "sent", "running", "failed"}},
		{"c", "backup", []string{"queued", "cancelled"}},
		{"d", "backup", []string{"skipped"}},
	} {
		from := ""
		for _, to := range way.states {
			h.Steps = append(h.Steps, Step{Job: way.job, Group: "g", Kind: way.kind, From: from, To: to})
			from = to
		}
	}
	for n := range SaidLines {
		h.Lines = append(h.Lines, Line{"a", int64(n + 1), fmt.Sprint(Said, n+1)})
	}
	return h
}

func TestAGoodHistory(t *testing.T) {
	t.Parallel()
	if found := Check(good()); len(found) != 0 {
		t.Error(found)
	}
}

func TestCheckBites(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name, rule string
		spoil      func(*History)
	}{
		{"an accepted run is forgotten", RuleOneEnd, func(h *History) { h.Runs = append(h.Runs, Run{202, "z"}) }},
		{"a made job is gone", RuleOneEnd, func(h *History) { h.Steps = append(h.Steps, Step{Job: "z", Kind: "init", To: "queued"}) }},
		{"a job never ends", RuleOneEnd, func(h *History) { h.Jobs[0].State, h.Steps = "running", without(h.Steps, "a", "succeeded") }},
		{"a job is lost and nobody was silent", RuleOneEnd, func(h *History) { h.Jobs[1].State, h.Steps = "lost", without(h.Steps, "b", "failed"); h.lose("b") }},
		{"a snapshot of nobody", RuleOneEnd, func(h *History) { h.Snapshots = append(h.Snapshots, Snapshot{"r", "zz", "z"}) }},
		{"a start of nobody", RuleOneEnd, func(h *History) { h.Starts = append(h.Starts, Start{"h", 11, "backup", "z"}) }},
		{"two ends", RuleForward, func(h *History) {
			h.Steps = append(h.Steps, Step{Job: "a", Kind: "backup", From: "succeeded", To: "failed"})
			h.Jobs[0].State = "failed"
		}},
		{"a step back", RuleForward, func(h *History) {
			h.Steps = append(h.Steps, Step{Job: "b", Kind: "backup", From: "failed", To: "running"})
		}},
		{"a late end without its mark", RuleForward, func(h *History) {
			h.Silent = true
			h.Steps = append(without(h.Steps, "b", "failed"), Step{Job: "b", Kind: "backup", From: "running", To: "lost"}, Step{Job: "b", Kind: "backup", From: "lost", To: "failed"})
		}},
		{"a beginning in the middle", RuleForward, func(h *History) { h.Steps = append(h.Steps, Step{Job: "c", Kind: "backup", To: "sent"}) }},
		{"a change that nobody saw", RuleForward, func(h *History) { h.Jobs[1].State = "cancelled"; h.Jobs[1].CancelAsked = true }},
		{"two starts", RuleOneStart, func(h *History) { h.Starts = append(h.Starts, Start{"h", 11, "backup", "a"}) }},
		{"two snapshots", RuleOneSnapshot, func(h *History) { h.Snapshots = append(h.Snapshots, Snapshot{"r", "ab", "a"}) }},
		{"success without a snapshot", RuleTruth, func(h *History) { h.Snapshots = nil }},
		{"another snapshot than it says", RuleTruth, func(h *History) { h.Jobs[0].SnapshotID = "zz" }},
		{"success without an exit code", RuleTruth, func(h *History) { h.Jobs[0].ExitCode = nil }},
		{"success with exit code 1", RuleTruth, func(h *History) { h.Jobs[0].ExitCode = code(1) }},
		{"success with exit code 3", RuleTruth, func(h *History) { h.Jobs[0].ExitCode = code(3) }},
		{"failure with a snapshot", RuleTruth, func(h *History) { h.Snapshots = append(h.Snapshots, Snapshot{"r", "bb", "b"}) }},
		{"cancelled with a snapshot", RuleTruth, func(h *History) { h.Snapshots = append(h.Snapshots, Snapshot{"r", "cc", "c"}) }},
		{"cancelled by nobody", RuleTruth, func(h *History) { h.Jobs[2].CancelAsked = false }},
		{"skipped, but started", RuleTruth, func(h *History) { h.Starts = append(h.Starts, Start{"h", 11, "backup", "d"}) }},
		{"failed by itself", RuleHealthy, func(h *History) { h.Kills = nil }},
		{"failed with its supervisor", RuleHealthy, func(h *History) { h.Kills[0].Victim = VictimSupervisor }},
		{"a live lock", RuleLiveLock, func(h *History) { h.Unlocks[0].OwnerLived = true }},
		{"two jobs for one due time", RuleOnceDue, func(h *History) {
			h.Jobs[2].ScheduledID, h.Jobs[2].ScheduledAt = h.Jobs[3].ScheduledID, h.Jobs[3].ScheduledAt
		}},
		{"two waiting backups", RuleOnceDue, func(h *History) { h.Steps[len(h.Steps)-1].To, h.Jobs[3].State = "queued", "queued"; h.queue("e") }},
		{"a prune beside a backup", RuleAlone, func(h *History) { h.exclusive("p", "prune", "sent") }},
		{"two backups of a host", RuleAlone, func(h *History) {
			h.Jobs = append(h.Jobs, Job{ID: "e", Kind: "backup", Repository: 1, Host: "h"})
			h.Steps = slices.Insert(h.Steps, 6, Step{Job: "e", Kind: "backup", To: "sent"})
		}},
		{"a snapshot of nobody goes", RuleForget, func(h *History) { h.Forgets = []Forget{{"r", "zz", "h"}} }},
		{"another host's goes", RuleForget, func(h *History) { h.Forgets, h.Keeps = []Forget{{"r", "aa", "other"}}, map[string]int{"g": 1} }},
		{"one goes and nothing should", RuleForget, func(h *History) { h.Forgets = []Forget{{"r", "aa", "h"}} }},
		{"one goes that the policy keeps", RuleForget, func(h *History) { h.Forgets, h.Keeps = []Forget{{"r", "aa", "h"}}, map[string]int{"g": 1} }},
		{"two checks for one due time", RuleOnceDue, func(h *History) {
			for _, id := range []string{"p", "q"} {
				h.exclusive(id, "check", "queued")
				h.Jobs[len(h.Jobs)-1].ScheduledAt = time.Unix(60, 0)
			}
		}},
		{"a gap in the log", RuleLog, func(h *History) { h.Lines[9].Seq++ }},
		{"a line twice", RuleLog, func(h *History) { h.Lines = append(h.Lines, Line{"a", SaidLines + 1, h.Lines[0].Text}) }},
		{"a line missing", RuleLog, func(h *History) { h.Lines = h.Lines[:SaidLines-1] }},
		{"a damaged repository", RuleSound, func(h *History) { h.Damage = []string{"pack is gone"} }},
		{"a process left", RuleNothingLeft, func(h *History) { h.Left = []string{"supervise"} }},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			h := good()
			c.spoil(&h)
			for _, v := range Check(h) {
				if v.Rule == c.rule {
					return
				}
			}
			t.Errorf("no violation of %q: %v", c.rule, Check(h))
		})
	}
}

// What looks like a violation and is none.
func TestCheckForgives(t *testing.T) {
	t.Parallel()
	for name, spoil := range map[string]func(*History){
		"a supervisor's death before restic's start": func(h *History) {
			h.Kills[0] = Kill{Victim: VictimSupervisor, Job: "b", Point: failpoint.Marked}
		},
		"a snapshot that only the repository knew": func(h *History) {
			h.Jobs[0].ExitCode, h.Kills = nil, append(h.Kills, Kill{Victim: VictimSupervisor, Job: "a"})
		},
		"a prune behind a backup": func(h *History) {
			h.exclusive("p", "prune", "queued")
			h.Jobs[len(h.Jobs)-1].State = "succeeded"
			h.Steps = append(h.Steps, Step{Job: "p", Kind: "prune", From: "queued", To: "sent"}, Step{Job: "p", Kind: "prune", From: "sent", To: "succeeded"})
		},
		"a prune with its supervisor": func(h *History) {
			h.exclusive("p", "prune", "queued")
			h.Jobs[len(h.Jobs)-1].State = "failed"
			h.Steps = append(h.Steps, Step{Job: "p", Kind: "prune", From: "queued", To: "sent"}, Step{Job: "p", Kind: "prune", From: "sent", To: "failed"})
			h.Kills = append(h.Kills, Kill{Victim: VictimSupervisor, Job: "p"})
		},
		"a snapshot that its policy let go": func(h *History) {
			h.Jobs = append(h.Jobs, Job{ID: "e", Host: "h", Kind: "backup", Group: "g", State: "warning", SnapshotID: "ee", ExitCode: code(0)})
			h.Steps = append(h.Steps, Step{Job: "e", Kind: "backup", To: "queued"}, Step{Job: "e", Kind: "backup", From: "queued", To: "warning"})
			for n := range SaidLines {
				h.Lines = append(h.Lines, Line{"e", int64(n + 1), fmt.Sprint(Said, n+1)})
			}
			h.Snapshots = []Snapshot{{"r", "ee", "e"}}
			h.Forgets, h.Keeps = []Forget{{"r", "aa", "h"}}, map[string]int{"g": 1}
		},
		"a lost job that came back": func(h *History) {
			h.Silent = true
			h.Steps = append(without(h.Steps, "b", "failed"), Step{Job: "b", Kind: "backup", From: "running", To: "lost"},
				Step{Job: "b", Kind: "backup", From: "lost", To: "running"}, Step{Job: "b", Kind: "backup", From: "running", To: "failed"})
		},
		"a late end": func(h *History) {
			h.Silent = true
			h.Steps = append(without(h.Steps, "b", "failed"), Step{Job: "b", Kind: "backup", From: "running", To: "lost"},
				Step{Job: "b", Kind: "backup", From: "lost", To: "failed", Late: true})
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := good()
			spoil(&h)
			if found := Check(h); len(found) != 0 {
				t.Error(found)
			}
		})
	}
}

func without(steps []Step, job, to string) []Step {
	var kept []Step
	for _, s := range steps {
		if s.Job != job || s.To != to {
			kept = append(kept, s)
		}
	}
	return kept
}

func (h *History) lose(job string) {
	h.Steps = append(h.Steps, Step{Job: job, Kind: "backup", From: "running", To: "lost"})
}

// exclusive is work in the repository of the first job, which comes in while
// that runs.
func (h *History) exclusive(job, kind, state string) {
	h.Jobs = append(h.Jobs, Job{ID: job, Kind: kind, Host: "h", Repository: 1, State: state})
	step := Step{Job: job, Kind: kind, To: state}
	h.Steps = append(h.Steps, step)
	if state == "sent" {
		h.Steps = slices.Insert(h.Steps[:len(h.Steps)-1], 6, step) // behind the backup's running
	}
}

func (h *History) queue(job string) {
	h.Jobs = append(h.Jobs, Job{ID: job, Kind: "backup", Group: "g", State: "queued"})
	h.Steps = append(h.Steps, Step{Job: job, Group: "g", Kind: "backup", To: "queued"})
}
