package chaos

import (
	"fmt"
	"strings"

	"resticfleet/agent/failpoint"
)

// Violation is a broken rule. Job is empty where it isn't one job's.
type Violation struct {
	Rule, Job, Text string
}

func (v Violation) String() string {
	if v.Job == "" {
		return v.Rule + ": " + v.Text
	}
	return fmt.Sprintf("%s: job %s %s", v.Rule, v.Job, v.Text)
}

// The rules.
const (
	RuleOneEnd      = "one end"              // every accepted run ends, once, and is there
	RuleForward     = "forward only"         // states move as they may
	RuleOneStart    = "one start"            // of restic's backup per job
	RuleOneSnapshot = "one snapshot"         // per job
	RuleTruth       = "truth"                // the state says what is in the repository
	RuleHealthy     = "healthy restic"       // only who was killed, or cancelled, fails
	RuleLiveLock    = "no live lock"         // is removed by another process
	RuleOnceDue     = "once when due"        // one job per due time, one waiting per group
	RuleAlone       = "exclusive work alone" // and one backup of a host at a time
	RuleForget      = "forgets its own"      // and of that only what its policy lets go
	RuleLog         = "every line once"      // gapless, nothing said twice
	RuleSound       = "sound repository"     // restic check has nothing to say
	RuleNothingLeft = "nothing left behind"  // no process, no file
)

// Check is every rule that a history breaks. It is a pure function.
func Check(h History) []Violation {
	c := &checker{h: h, jobs: map[string]Job{}, killed: map[string][]Kill{}, snapshots: map[string][]Snapshot{}, starts: map[string]int{}, forgotten: map[string]bool{}}
	for _, j := range h.Jobs {
		c.jobs[j.ID] = j
	}
	for _, k := range h.Kills {
		c.killed[k.Job] = append(c.killed[k.Job], k)
	}
	for _, s := range h.Snapshots {
		c.snapshots[s.Job] = append(c.snapshots[s.Job], s)
	}
	for _, s := range h.Starts {
		if s.Command == "backup" {
			c.starts[s.Job]++
		}
	}
	c.steps()
	c.alone()
	c.forgets()
	c.runs()
	for _, j := range h.Jobs {
		c.end(j)
		if j.Kind == "backup" {
			c.backup(j)
		}
	}
	c.strangers()
	c.schedules()
	c.logs()
	for _, u := range h.Unlocks {
		if u.OwnerLived {
			c.add(RuleLiveLock, "", "process %d removed the lock %.8s of process %d, which lives, from %s", u.By, u.Lock, u.Owner, u.Repository)
		}
	}
	for _, text := range h.Damage {
		c.add(RuleSound, "", "%s", text)
	}
	for _, text := range h.Left {
		c.add(RuleNothingLeft, "", "%s", text)
	}
	return c.found
}

type checker struct {
	h         History
	jobs      map[string]Job
	killed    map[string][]Kill
	snapshots map[string][]Snapshot
	starts    map[string]int
	forgotten map[string]bool
	found     []Violation
}

func (c *checker) add(rule, job, format string, args ...any) {
	c.found = append(c.found, Violation{rule, job, fmt.Sprintf(format, args...)})
}

func final(state string) bool {
	switch state {
	case "succeeded", "warning", "failed", "cancelled", "skipped", "expired", "lost":
		return true
	}
	return false
}

// true results are what a late message may bring.
func result(state string) bool { return final(state) && state != "skipped" && !silent(state) }

func silent(state string) bool { return state == "expired" || state == "lost" }

// allowed says whether a job may go from one state to another. Skipping ahead
// is fine.
func allowed(s Step) bool {
	switch s.From {
	case "":
		return s.To == "queued" || s.To == "skipped"
	case "queued":
		return s.To == "sent" || s.To == "running" || s.To == "skipped" || s.To == "expired" || result(s.To)
	case "sent":
		return s.To == "running" || silent(s.To) || result(s.To)
	case "running":
		return s.To == "lost" || result(s.To)
	case "lost":
		return s.To == "running" || (result(s.To) && s.Late)
	case "expired":
		return result(s.To) && s.Late
	}
	return false
}

func (c *checker) steps() {
	last := map[string]string{}
	for _, s := range c.h.Steps {
		if s.From != last[s.Job] || !allowed(s) {
			c.add(RuleForward, s.Job, "went from %q to %q, and was %q before (late %v)", s.From, s.To, last[s.Job], s.Late)
		}
		last[s.Job] = s.To
		if _, there := c.jobs[s.Job]; !there && s.From == "" {
			c.add(RuleOneEnd, s.Job, "was made and is gone")
		}
	}
	for _, j := range c.h.Jobs {
		if last[j.ID] != j.State {
			c.add(RuleForward, j.ID, "is %q, but its last step led to %q", j.State, last[j.ID])
		}
	}
}

func (c *checker) runs() {
	for _, r := range c.h.Runs {
		if _, there := c.jobs[r.Job]; r.Status == 202 && !there {
			c.add(RuleOneEnd, r.Job, "was answered with 202 and is not there")
		}
	}
}

func (c *checker) end(j Job) {
	switch {
	case !final(j.State):
		c.add(RuleOneEnd, j.ID, "never ended: it is still %s", j.State)
	case silent(j.State) && !c.h.Silent:
		c.add(RuleOneEnd, j.ID, "ended as %s, though no host was silent for long: %s", j.State, j.Error)
	}
	if n := c.starts[j.ID]; n > 1 {
		c.add(RuleOneStart, j.ID, "was started %d times", n)
	}
	if n := len(c.snapshots[j.ID]); n > 1 {
		c.add(RuleOneSnapshot, j.ID, "left %d snapshots", n)
	}
	if j.State == "failed" && !c.mayFail(j) {
		c.add(RuleHealthy, j.ID, "failed although nobody touched its restic: %s %s", j.ErrorCode, j.Error)
	}
}

// mayFail: restic was killed, or its supervisor was before restic began. What
// makes no snapshot has nothing to tell how it ended when nobody saw that.
func (c *checker) mayFail(j Job) bool {
	for _, k := range c.killed[j.ID] {
		if k.Victim == VictimRestic || k.Point == failpoint.Marked || (k.Victim == VictimSupervisor && j.Kind != "backup") {
			return true
		}
	}
	return false
}

func exclusive(kind string) bool {
	return kind == "init" || kind == "forget" || kind == "prune" || kind == "check"
}

// alone reads from the order of events that no exclusive work was under way in a
// repository beside anything else there, nor two backups of one host.
func (c *checker) alone() {
	underWay := map[int]map[string]Job{}
	for _, s := range c.h.Steps {
		j := c.jobs[s.Job]
		if j.Repository == 0 || (j.Kind != "backup" && !exclusive(j.Kind)) {
			continue
		}
		here := underWay[j.Repository]
		if here == nil {
			here = map[string]Job{}
			underWay[j.Repository] = here
		}
		if s.To != "sent" && s.To != "running" {
			delete(here, j.ID)
			continue
		}
		for _, other := range here {
			if other.ID != j.ID && (exclusive(j.Kind) || exclusive(other.Kind) || j.Host == other.Host) {
				c.add(RuleAlone, j.ID, "(%s of %s) was under way beside %s (%s of %s)", j.Kind, j.Host, other.ID, other.Kind, other.Host)
			}
		}
		here[j.ID] = j
	}
}

// forgets: a snapshot goes only by its own host, where its group has a policy
// and as many newer ones as that keeps.
func (c *checker) forgets() {
	by := map[string]Job{}
	good := map[string][]string{} // snapshots' jobs by group
	for _, j := range c.h.Jobs {
		if j.SnapshotID != "" {
			by[j.SnapshotID] = j
			good[j.Group] = append(good[j.Group], j.ID)
		}
	}
	for _, f := range c.h.Forgets {
		c.forgotten[f.ID] = true
		j, known := by[f.ID]
		newer := 0
		for _, id := range good[j.Group] {
			if id > j.ID {
				newer++
			}
		}
		switch keeps := c.h.Keeps[j.Group]; {
		case !known:
			c.add(RuleForget, "", "%s removes snapshot %.8s of nobody", f.Host, f.ID)
		case j.Host != f.Host:
			c.add(RuleForget, j.ID, "of %s lost its snapshot by %s", j.Host, f.Host)
		case keeps == 0:
			c.add(RuleForget, j.ID, "lost its snapshot, and its group keeps everything")
		case newer < keeps:
			c.add(RuleForget, j.ID, "lost its snapshot with %d newer ones, and its group keeps %d", newer, keeps)
		}
	}
}

// unrecorded: nobody could see how restic ended, so a snapshot stands for it.
func (c *checker) unrecorded(j Job) bool {
	for _, k := range c.killed[j.ID] {
		if k.Victim == VictimRestic || k.Victim == VictimSupervisor {
			return true
		}
	}
	// A cancel that came too late: restic was interrupted behind its snapshot.
	return j.CancelAsked
}

func (c *checker) backup(j Job) {
	var there *Snapshot
	if all := c.snapshots[j.ID]; len(all) > 0 {
		there = &all[0]
	}
	switch j.State {
	case "succeeded", "warning":
		switch {
		case there == nil && c.forgotten[j.SnapshotID]:
		case there == nil:
			c.add(RuleTruth, j.ID, "%s with snapshot %.8q, which is not there", j.State, j.SnapshotID)
		case there.ID != j.SnapshotID:
			c.add(RuleTruth, j.ID, "names snapshot %.8q, the repository has %.8s", j.SnapshotID, there.ID)
		case j.ExitCode == nil && !c.unrecorded(j):
			c.add(RuleTruth, j.ID, "%s without an exit code, though nobody was killed", j.State)
		case j.ExitCode != nil && *j.ExitCode != 0 && *j.ExitCode != 3 && !c.unrecorded(j):
			c.add(RuleTruth, j.ID, "%s with exit code %d", j.State, *j.ExitCode)
		case j.ExitCode != nil && *j.ExitCode == 3 && j.State == "succeeded":
			c.add(RuleTruth, j.ID, "succeeded with exit code 3")
		}
	case "failed", "cancelled", "skipped", "expired":
		if there != nil {
			c.add(RuleTruth, j.ID, "%s, but the repository has its snapshot %.8s", j.State, there.ID)
		}
	}
	if j.State == "cancelled" && !j.CancelAsked {
		c.add(RuleTruth, j.ID, "cancelled, and nobody had asked for it")
	}
	if (j.State == "skipped" || j.State == "expired") && c.starts[j.ID] > 0 {
		c.add(RuleTruth, j.ID, "%s, but restic was started", j.State)
	}
}

// strangers are snapshots and starts of jobs that nobody knows.
func (c *checker) strangers() {
	for id := range c.snapshots {
		if _, known := c.jobs[id]; !known {
			c.add(RuleOneEnd, id, "left a snapshot and is unknown")
		}
	}
	for id := range c.starts {
		if _, known := c.jobs[id]; !known {
			c.add(RuleOneEnd, id, "was started and is unknown")
		}
	}
}

func (c *checker) schedules() {
	due := map[string]string{}
	for _, j := range c.h.Jobs {
		if j.ScheduledAt.IsZero() {
			continue
		}
		key := fmt.Sprintf("schedule %s, group %s at %s", j.ScheduledID, j.Group, j.ScheduledAt.UTC())
		if j.ScheduledID == "" {
			key = fmt.Sprintf("%s of %s at %s", j.Kind, j.Host, j.ScheduledAt.UTC())
		}
		if other, twice := due[key]; twice {
			c.add(RuleOnceDue, j.ID, "is for %s, and so is %s", key, other)
		}
		due[key] = j.ID
	}
	waiting := map[string]string{} // the queued backup of each group
	for _, s := range c.h.Steps {
		if s.Kind != "backup" {
			continue
		}
		if waiting[s.Group] == s.Job {
			delete(waiting, s.Group)
		}
		if s.To != "queued" {
			continue
		}
		if other := waiting[s.Group]; other != "" {
			c.add(RuleOnceDue, s.Job, "waits, and so does %s of the same group", other)
		}
		waiting[s.Group] = s.Job
	}
}

// Said is how the hosts' restic begins the lines it says before each backup,
// numbered from 1 to SaidLines.
const (
	Said      = "chaos says "
	SaidLines = 20
)

func (c *checker) logs() {
	newest := map[string]int64{}
	said := map[string]map[string]int{}
	for _, l := range c.h.Lines {
		if l.Seq != newest[l.Job]+1 {
			c.add(RuleLog, l.Job, "has line %d behind line %d", l.Seq, newest[l.Job])
		}
		newest[l.Job] = l.Seq
		// The end repeats restic's last words; only what stands alone counts.
		if strings.HasPrefix(l.Text, Said) {
			if said[l.Job] == nil {
				said[l.Job] = map[string]int{}
			}
			said[l.Job][l.Text]++
		}
	}
	for _, j := range c.h.Jobs {
		for text, n := range said[j.ID] {
			if n > 1 {
				c.add(RuleLog, j.ID, "says %q %d times", text, n)
			}
		}
		whole := j.Kind == "backup" && (j.State == "succeeded" || j.State == "warning")
		if n := len(said[j.ID]); whole && n != SaidLines {
			c.add(RuleLog, j.ID, "%s and has %d of the %d lines that restic said", j.State, n, SaidLines)
		}
	}
}
