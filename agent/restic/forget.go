package restic

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"resticfleet/agent/failpoint"
	"resticfleet/agent/protocol"
)

// forgetChunk is how many ids one forget is given: 64 digits each, far below
// what an argument list may hold.
const forgetChunk = 200

// nextForget removes snapshots in four steps, none of which trusts the one
// before: for each policy a dry run says what stays and what goes; what is held
// is left out; the rest is forgotten by its full id, which no filter can widen;
// and a new list says whether exactly that is gone, since restic exits 0 for ids
// that it doesn't know.
func nextForget(job Job, results []StepResult) (*Step, *protocol.Finished) {
	s := script{job: job, results: results}
	if step, end := sameRepository(&s); step != nil || end != nil {
		return step, end
	}
	f := forgetting{job: job, held: map[string]bool{}, spared: map[string]bool{}}
	for _, id := range job.Run.Held {
		f.held[id] = true
	}
	step, end := f.plan(&s)
	if step != nil || end != nil {
		return step, end
	}
	stopped, step := f.remove(&s)
	if step != nil {
		return step, nil
	}
	return f.verify(&s, stopped)
}

// script lets a plan read like what it does: take gives the result of the next
// step, or the step where it has not been done yet.
type script struct {
	job     Job
	results []StepResult
}

func (s *script) take(step Step) (*StepResult, *Step) {
	if len(s.results) == 0 {
		return nil, &step
	}
	r := s.results[0]
	s.results = s.results[1:]
	return &r, nil
}

// ask is take for what only looks: a restic that died while it did is asked
// again, some times.
func (s *script) ask(step Step) (*StepResult, *Step) {
	for asks := 1; ; asks++ {
		r, todo := s.take(step)
		if todo != nil || !r.died() || asks >= maxAsks || s.job.CancelAsked {
			return r, todo
		}
	}
}

// look is ask for a step of the job itself: a cancel that comes before it ends the
// job, which has changed nothing yet.
func (s *script) look(step Step) (*StepResult, *Step, *protocol.Finished) {
	return s.unlessCancelled(s.ask(step))
}

func (s *script) unlessCancelled(r *StepResult, todo *Step) (*StepResult, *Step, *protocol.Finished) {
	if todo != nil && s.job.CancelAsked {
		return nil, nil, Cancelled(s.job.Run.JobID)
	}
	return r, todo, nil
}

// anyRepository refuses second credentials as long as nobody knows which
// repository they must open: another's would be worked in outside its queue.
func anyRepository(job Job) *protocol.Finished {
	if repo := job.Run.Repository; !repo.Maintenance || repo.ID != "" {
		return nil
	}
	return Fail(job.Run.JobID, protocol.ErrNotYetKnown,
		"Whether the credentials for forget and prune open the repository that this host backs up to can't be told: which one that is, is not known yet. Nothing was changed.",
		"First initialise it with the everyday credentials in the host's danger zone, which learns which it is and leaves one that is there as it is; then run this again.")
}

// sameRepository is done before anything is removed with the second credentials:
// they must open the repository that the host backs up to.
func sameRepository(s *script) (*Step, *protocol.Finished) {
	repo := s.job.Run.Repository
	if !repo.Maintenance {
		return nil, nil
	}
	r, step, cancelled := s.look(Step{Purpose: PurposeMain, Args: catConfigArgs(), Document: true})
	switch {
	case step != nil || cancelled != nil:
		return step, cancelled
	case r.ExitCode != 0:
		return nil, end(s.job, *r, nil)
	case r.Output.configID() != repo.ID:
		return nil, Fail(s.job.Run.JobID, protocol.ErrWrongRepository,
			"The maintenance credentials open another repository than the one this host backs up to. Nothing was changed.",
			"Correct their address in the host's repository settings.")
	}
	return nil, nil
}

// forgetting is what a forget knows so far.
type forgetting struct {
	job    Job
	held   map[string]bool
	spared map[string]bool // kept by a policy, or of a group that is left alone
	groups []*forgetGroup
	doomed []string // full ids
	tried  int      // of the doomed, those that restic was told to remove
}

// forgetGroup is what one policy means; Err is why it is left alone.
type forgetGroup struct {
	ID      string `json:"id,omitempty"`
	Name    string `json:"name,omitempty"`
	Kept    int    `json:"kept"`
	Removed int    `json:"removed"`
	Held    int    `json:"held,omitempty"`
	Err     string `json:"error,omitempty"`

	code   string
	label  string
	keep   []string // full ids
	remove []string
}

func (f *forgetting) fault(g *forgetGroup, code, cause, remedy string) {
	g.code, g.Err, g.remove = code, sentences(cause, remedy), nil
}

// plan finds out what goes. It changes nothing.
func (f *forgetting) plan(s *script) (*Step, *protocol.Finished) {
	run := f.job.Run
	if len(run.SnapshotIDs) > 0 {
		return f.planByID(s)
	}
	for _, policy := range run.Forget {
		r, step, cancelled := s.look(Step{Purpose: PurposeMain, Args: planArgs(run, policy), Document: true,
			Note: fmt.Sprintf("Asking restic what the policy of %s lets go.", policyName(policy))})
		if step != nil || cancelled != nil {
			return step, cancelled
		}
		g := &forgetGroup{ID: policy.GroupID, Name: policy.Name, label: policyName(policy)}
		f.groups = append(f.groups, g)
		if r.ExitCode != 0 && !r.keepsNothing() {
			return nil, end(f.job, *r, nil)
		}
		items, err := r.Output.plan()
		switch {
		case r.keepsNothing():
			f.keepsNothing(g, policy)
		case err != nil:
			f.fault(g, protocol.ErrRestic, err.Error(), "Run it again; see the job's log if it happens again.")
		default:
			f.judge(g, policy, items)
		}
	}
	f.condemn()
	return nil, nil
}

// condemn gathers what goes, once. What two groups have tagged, by hand, stays
// as long as one of them keeps it.
func (f *forgetting) condemn() {
	chosen := map[string]bool{}
	for _, g := range f.groups {
		g.remove = slices.DeleteFunc(g.remove, func(id string) bool {
			if f.spared[id] {
				g.Kept++
				return true
			}
			gone := chosen[id]
			chosen[id] = true
			return gone
		})
		f.doomed = append(f.doomed, g.remove...)
	}
}

// judge takes a dry run's answer for one policy.
func (f *forgetting) judge(g *forgetGroup, policy protocol.ForgetGroup, items []protocol.PlanItem) {
	for _, item := range items {
		switch {
		case item.Keep:
			g.Kept++
			g.keep = append(g.keep, item.Snapshot.ID)
			f.spared[item.Snapshot.ID] = true
		case f.held[item.Snapshot.ID]:
			g.Held++
		// The filter's answer is checked again, since data hangs on it.
		case !snapshotIDs.MatchString(item.Snapshot.ID) || item.Snapshot.Hostname != f.job.Run.ResticHost || !carries(item.Snapshot, policy.Tags):
			f.fault(g, protocol.ErrRestic, "restic listed a snapshot that is none of this group's: nothing of it was removed.", "Run it again; see the job's log if it happens again.")
			f.spare(g, items)
			return
		default:
			g.remove = append(g.remove, item.Snapshot.ID)
		}
	}
	if g.Kept == 0 && len(items) > 0 {
		f.keepsNothing(g, policy)
		f.spare(g, items)
	}
}

// spare leaves a group alone: no other policy removes its snapshots either.
func (f *forgetting) spare(g *forgetGroup, items []protocol.PlanItem) {
	g.Kept, g.Held, g.keep = len(items), 0, nil
	for _, item := range items {
		f.spared[item.Snapshot.ID] = true
	}
}

// keepsNothing: restic itself refuses where only tags would keep something and
// none of the snapshots has one of them, and a duration of nothing (0h).
func (r StepResult) keepsNothing() bool {
	said := r.Output.said()
	return r.ExitCode == 1 && r.is("forget") &&
		(strings.Contains(said, "refusing to delete last snapshot") || strings.Contains(said, "no policy was specified"))
}

func (f *forgetting) keepsNothing(g *forgetGroup, policy protocol.ForgetGroup) {
	f.fault(g, protocol.ErrWouldRemoveAll, fmt.Sprintf("The policy of %s keeps none of its snapshots: nothing of it was removed.", policyName(policy)),
		"Change the policy, or remove the snapshots in the host's danger zone.")
}

func carries(s protocol.Snapshot, tags []string) bool {
	return slices.ContainsFunc(tags, func(tag string) bool { return slices.Contains(s.Tags, tag) })
}

// planByID is for snapshots that a person named.
func (f *forgetting) planByID(s *script) (*Step, *protocol.Finished) {
	run := f.job.Run
	r, step, cancelled := s.look(Step{Purpose: PurposeMain, Args: listArgs(run), Document: true, Note: "Looking whether the snapshots are there."})
	switch {
	case step != nil || cancelled != nil:
		return step, cancelled
	case r.ExitCode != 0:
		return nil, end(f.job, *r, nil)
	}
	there, err := r.Output.snapshots()
	if err != nil {
		return nil, Fail(run.JobID, protocol.ErrRestic, err.Error(), "Run it again; see the job's log if it happens again.")
	}
	g := &forgetGroup{}
	f.groups = append(f.groups, g)
	named := map[string]bool{}
	for _, id := range run.SnapshotIDs {
		named[id] = true
		if f.held[id] {
			g.Held++
		}
	}
	for _, s := range there {
		if named[s.ID] && !f.held[s.ID] {
			g.remove = append(g.remove, s.ID)
		} else {
			g.keep = append(g.keep, s.ID)
		}
	}
	slices.Sort(g.remove)
	g.Kept = len(g.keep)
	switch {
	case len(g.remove) > 0:
	case g.Held > 0:
		return nil, Fail(run.JobID, protocol.ErrInvalidCommand, "The snapshots are held: nothing was removed.", "Let them go first, then remove them.")
	default:
		return nil, Fail(run.JobID, protocol.ErrSnapshotUnknown, "The repository has no such snapshot of this host any more: nothing was removed.", "Refresh the list of snapshots.")
	}
	f.doomed = g.remove
	return nil, nil
}

// remove forgets by id. stopped is the step that didn't do it.
func (f *forgetting) remove(s *script) (stopped *StepResult, todo *Step) {
	for chunk := range slices.Chunk(f.doomed, forgetChunk) {
		note := fmt.Sprintf("Removing %d of %d snapshots.", len(chunk), len(f.doomed))
		if f.tried == 0 {
			note = f.told() + note
		}
		r, step := s.take(Step{Purpose: PurposeMain, Args: forgetArgs(chunk), Note: note})
		if step != nil && f.job.CancelAsked {
			return nil, nil
		}
		if step != nil {
			return nil, step
		}
		f.tried += len(chunk)
		if r.died() {
			if _, step := s.take(*clearStep(diedNote)); step != nil {
				return nil, step
			}
		}
		if r.ExitCode != 0 {
			return r, nil
		}
	}
	return nil, nil
}

// verify reads a new list and makes the end of what it says.
func (f *forgetting) verify(s *script, stopped *StepResult) (*Step, *protocol.Finished) {
	run := f.job.Run
	there := map[string]bool{}
	if f.tried > 0 {
		r, step := s.ask(Step{Purpose: PurposeSettle, Args: listArgs(run), Document: true, Timeout: asideTimeout, Note: "Looking whether exactly these are gone."})
		if step != nil {
			return step, nil
		}
		var list []protocol.Snapshot
		err := error(nil)
		if r.ExitCode == 0 {
			list, err = r.Output.snapshots()
		}
		if r.ExitCode != 0 || err != nil {
			_, why := explain(run, *r)
			if err != nil {
				why = err.Error()
			}
			if stopped != nil {
				failed := end(f.job, *stopped, nil)
				failed.Error += " Which snapshots were removed before is not known: " + why
				return nil, failed
			}
			return nil, Fail(run.JobID, protocol.ErrNotRemoved, "Snapshots were removed, but the repository could not be asked which: "+why, "Refresh the list of snapshots, then run it again.")
		}
		for _, s := range list {
			there[s.ID] = true
		}
	}
	var left, lost []string
	removed, kept, held := 0, 0, 0
	for _, g := range f.groups {
		for _, id := range g.keep {
			if f.tried > 0 && !there[id] {
				lost = append(lost, id)
			}
		}
		for _, id := range g.remove {
			if f.tried > 0 && !there[id] {
				g.Removed++
			} else {
				left = append(left, id)
			}
		}
		g.Kept += len(g.remove) - g.Removed
		removed, kept, held = removed+g.Removed, kept+g.Kept, held+g.Held
	}
	stats := map[string]any{"snapshots_removed": removed, "snapshots_kept": kept, "snapshots_held": held, "groups": f.groups}
	done := &protocol.Finished{JobID: run.JobID, Outcome: protocol.OutcomeSucceeded, ExitCode: new(int), Stats: stats}
	switch {
	case len(lost) > 0:
		done.Outcome, done.ErrorCode = protocol.OutcomeFailed, protocol.ErrNotRemoved
		done.Error = sentences(fmt.Sprintf("%d snapshots that were to stay are gone (%s): somebody else removed them meanwhile.", len(lost), shorts(lost)),
			"Find out who else works on this repository.")
		return nil, done
	case stopped != nil && (len(left) > 0 || stopped.failedByItself()):
		failed := end(f.job, *stopped, stats)
		failed.Stats = stats
		if removed > 0 {
			failed.Error += fmt.Sprintf(" %d of %d snapshots were removed before; the next run goes on with the rest.", removed, len(f.doomed))
		}
		return nil, failed
	case f.job.CancelAsked && len(left) > 0:
		cancelled := Cancelled(run.JobID)
		cancelled.Stats = stats
		if removed > 0 {
			cancelled.Error += fmt.Sprintf(" %d of %d snapshots were removed before.", removed, len(f.doomed))
		}
		return nil, cancelled
	case len(left) > 0 && !failpoint.Planted(failpoint.InventSnapshot):
		done.Outcome, done.ErrorCode = protocol.OutcomeFailed, protocol.ErrNotRemoved
		done.Error = sentences(fmt.Sprintf("restic said that all was removed, and %d of %d snapshots are still there (%s).", len(left), len(f.doomed), shorts(left)),
			"Look at the job's log and at the rights of the credentials, then run it again.")
		return nil, done
	}
	var faults []string
	for _, g := range f.groups {
		if g.Err != "" {
			done.Outcome, done.ErrorCode = protocol.OutcomeFailed, g.code
			faults = append(faults, g.Err)
		}
	}
	done.Error = strings.Join(faults, " ")
	return nil, done
}

// told is a line for the log with what each policy means.
func (f *forgetting) told() string {
	var b strings.Builder
	for _, g := range f.groups {
		if g.Err == "" && len(f.job.Run.Forget) > 0 {
			fmt.Fprintf(&b, "%s: %d stay, %d held, %d go", g.label, g.Kept, g.Held, len(g.remove))
			if len(g.remove) > 0 {
				fmt.Fprintf(&b, " (%s)", shorts(g.remove))
			}
			b.WriteString(". ")
		}
	}
	return clip(b.String(), false)
}

func shorts(ids []string) string {
	var out []string
	for _, id := range ids[:min(len(ids), 5)] {
		out = append(out, short(id))
	}
	if len(ids) > 5 {
		out = append(out, "…")
	}
	return strings.Join(out, ", ")
}

func policyName(p protocol.ForgetGroup) string {
	if p.Name != "" {
		return "“" + p.Name + "”"
	}
	return "tag " + strings.Join(p.Tags, ", ")
}

// resticSnapshot is one of restic's, as its lists have it.
type resticSnapshot struct {
	protocol.Snapshot
	Summary *struct {
		Files *int64 `json:"total_files_processed"`
		Bytes *int64 `json:"total_bytes_processed"`
	} `json:"summary"`
}

func (s resticSnapshot) said() protocol.Snapshot {
	out := s.Snapshot
	out.Paths, out.Tags = bounded(out.Paths), bounded(out.Tags)
	out.Username = clip(out.Username, false)
	out.SizeBytes, out.FileCount = nil, nil
	if s.Summary != nil {
		out.SizeBytes, out.FileCount = s.Summary.Bytes, s.Summary.Files
	}
	return out
}

// maxNames bounds the paths of a snapshot, and its tags: what is told of it must
// fit into a message, and a list without it would say that it is gone.
const maxNames = 8 << 10

func bounded(names []string) []string {
	size := 0
	for i, name := range names {
		if size += len(name); size > maxNames {
			return append(slices.Clone(names[:i]), "…")
		}
	}
	return names
}

// snapshots reads restic snapshots --json.
func (o *Output) snapshots() ([]protocol.Snapshot, error) {
	var all []resticSnapshot
	if err := o.read(&all); err != nil {
		return nil, err
	}
	var out []protocol.Snapshot
	for _, s := range all {
		out = append(out, s.said())
	}
	return out, nil
}

// plan reads restic forget --dry-run --json: what stays with restic's reasons,
// then what goes. restic says nothing at all where no snapshot matches.
func (o *Output) plan() ([]protocol.PlanItem, error) {
	if o.text.Len() == 0 {
		return nil, nil
	}
	var groups []struct {
		Keep    []resticSnapshot `json:"keep"`
		Remove  []resticSnapshot `json:"remove"`
		Reasons []struct {
			Snapshot struct {
				ID string `json:"id"`
			} `json:"snapshot"`
			Matches []string `json:"matches"`
		} `json:"reasons"`
	}
	if err := o.read(&groups); err != nil {
		return nil, err
	}
	var items []protocol.PlanItem
	for _, g := range groups {
		reasons := map[string][]string{}
		for _, r := range g.Reasons {
			reasons[r.Snapshot.ID] = r.Matches
		}
		for _, s := range g.Keep {
			items = append(items, protocol.PlanItem{Snapshot: s.said(), Keep: true, Reasons: reasons[s.ID]})
		}
		for _, s := range g.Remove {
			items = append(items, protocol.PlanItem{Snapshot: s.said()})
		}
	}
	return items, nil
}

func (o *Output) read(into any) error {
	if o.overflowed {
		return fmt.Errorf("restic's answer is longer than %d MiB.", maxDocument>>20) //nolint:staticcheck // a sentence for a person
	}
	if err := json.Unmarshal([]byte(o.text.String()), into); err != nil {
		return fmt.Errorf("restic's answer could not be read: %w.", err) //nolint:staticcheck // a sentence for a person
	}
	return nil
}
