package agent

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"resticfleet/agent/protocol"
	"resticfleet/e2e/stage"
)

// forge puts snapshots of any host, tag and time into the repository, behind a
// first one that restic made.
func (b *bundle) forge(all ...stage.Forged) []string {
	b.t.Helper()
	b.ask("backup", "--quiet", "--host=first", b.source)
	ids, err := stage.Forge(b.t.Context(), resticPath(b.t), b.repo, []string{"RESTIC_PASSWORD=" + b.password, "RESTIC_REPOSITORY=" + b.repo}, all)
	if err != nil {
		b.t.Fatal(err)
	}
	return ids
}

// hourly are n snapshots, the newest first.
func hourly(n int, host string, tags ...string) (all []stage.Forged) {
	for i := range n {
		all = append(all, stage.Forged{Time: time.Now().Add(-time.Duration(i+1) * time.Hour), Hostname: host, Tags: tags})
	}
	return all
}

// keepNothing are rules that fit no snapshot.
func keepNothing(tags ...string) protocol.ForgetGroup {
	return protocol.ForgetGroup{Name: tags[0], Tags: tags, Retention: protocol.Retention{KeepTags: []string{"never-given"}}}
}

func keepLast(n int, tags ...string) protocol.ForgetGroup {
	return protocol.ForgetGroup{Name: tags[0], Tags: tags, Retention: protocol.Retention{KeepLast: n}}
}

func (b *bundle) forget(policies ...protocol.ForgetGroup) protocol.Run {
	run := b.run(protocol.KindForget)
	run.Forget = policies
	return run
}

// ids are those in the repository.
func (b *bundle) ids() map[string]bool {
	all := map[string]bool{}
	for _, s := range b.snapshots() {
		all[s.ID] = true
	}
	return all
}

func TestForgetRemovesWhatPoliciesLetGoAndNothingElse(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.repository()
	docs := b.forge(hourly(10, "test-host", "docs", "job:1")...)
	var before []stage.Forged
	for _, s := range hourly(3, "test-host", "docs-before") {
		s.Time = s.Time.Add(-1000 * time.Hour)
		before = append(before, s)
	}
	old := b.forge(before...)
	www := b.forge(hourly(8, "test-host", "www")...)
	others := slices.Concat(b.forge(hourly(6, "other-host", "docs")...), b.forge(hourly(6, "test-host", "by-hand")...), b.forge(hourly(2, "test-host")...))
	b.start()
	run := b.forget(keepLast(3, "docs", "docs-before"), keepLast(2, "www"))
	run.Held = []string{www[5], docs[0]}
	end := b.do(run)
	if end.Outcome != protocol.OutcomeSucceeded || end.ExitCode == nil {
		t.Fatalf("%+v\n%s", end, b.text(run.JobID))
	}
	there := b.ids()
	for n, id := range docs {
		// Both tags are one group: the newest three of its thirteen stay.
		if want := n < 3; there[id] != want {
			t.Errorf("docs %d is there: %v", n, there[id])
		}
	}
	for n, id := range www {
		if want := n < 2 || n == 5; there[id] != want {
			t.Errorf("www %d is there: %v", n, there[id])
		}
	}
	for _, id := range others {
		if !there[id] {
			t.Errorf("%s is none of these groups' and is gone", id)
		}
	}
	left := 0
	for _, id := range slices.Concat(docs, old) {
		if there[id] {
			left++
		}
	}
	if left != 3 || fmt.Sprint(end.Stats["snapshots_removed"]) != "15" || fmt.Sprint(end.Stats["snapshots_held"]) != "1" {
		t.Errorf("%d left of the first group, %v", left, end.Stats)
	}
	if again := b.do(b.forget(keepLast(3, "docs", "docs-before"))); again.Outcome != protocol.OutcomeSucceeded || fmt.Sprint(again.Stats["snapshots_removed"]) != "0" {
		t.Errorf("again: %+v", again)
	}
}

func TestPolicyThatKeepsNothingRemovesNothing(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.repository()
	docs := b.forge(hourly(2, "test-host", "docs")...)
	www := b.forge(hourly(3, "test-host", "www")...)
	b.start()
	end := b.do(b.forget(keepNothing("docs"), keepLast(1, "www")))
	there := b.ids()
	if end.Outcome != protocol.OutcomeFailed || end.ErrorCode != protocol.ErrWouldRemoveAll || !there[docs[0]] {
		t.Errorf("%+v", end)
	}
	// One policy's fault is not the others'.
	if !there[www[0]] || there[www[1]] || there[www[2]] {
		t.Error("the other group was not cared for")
	}
}

func TestSnapshotsThatAPersonNamesAreRemoved(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.repository()
	mine, others := b.forge(hourly(3, "test-host", "docs")...), b.forge(hourly(1, "other-host", "docs")...)
	b.start()
	for _, c := range []struct {
		ids, held []string
		code      string
	}{
		{ids: others, code: protocol.ErrSnapshotUnknown},
		{ids: []string{strings.Repeat("ab", 32)}, code: protocol.ErrSnapshotUnknown},
		{ids: mine[:1], held: mine[:1], code: protocol.ErrInvalidCommand},
		{ids: mine[1:2]},
	} {
		run := b.run(protocol.KindForget)
		run.SnapshotIDs, run.Held = c.ids, c.held
		if end := b.do(run); end.ErrorCode != c.code || (end.Outcome == protocol.OutcomeSucceeded) != (c.code == "") {
			t.Errorf("%v: %+v", c, end)
		}
	}
	there := b.ids()
	if !there[mine[0]] || there[mine[1]] || !there[mine[2]] || !there[others[0]] {
		t.Error(there)
	}
}

func TestPruneAndCheck(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.repository()
	b.start()
	for n := range 3 {
		b.bigFile(fmt.Sprint("source/", n%2), 300_000+n)
		if end := b.do(b.run(protocol.KindBackup)); end.Outcome != protocol.OutcomeSucceeded {
			t.Fatal(end)
		}
	}
	b.bigFile("source/0", 17)
	b.do(b.run(protocol.KindBackup))
	b.do(b.forget(keepLast(1, "group")))
	check := func() protocol.Finished {
		run := b.run(protocol.KindCheck)
		run.ReadDataSubset = "1/1"
		return b.do(run)
	}
	if end := check(); end.Outcome != protocol.OutcomeSucceeded || end.Stats["read_data_subset"] != "1/1" {
		t.Errorf("check: %+v", end)
	}
	end := b.do(b.run(protocol.KindPrune))
	removed, _ := end.Stats["removed_bytes"].(int64)
	remaining, _ := end.Stats["remaining_bytes"].(int64)
	if end.Outcome != protocol.OutcomeSucceeded || removed < 500_000 || remaining < 100_000 {
		t.Errorf("prune: %+v\n%s", end, b.text(end.JobID))
	}
	packs, err := filepath.Glob(filepath.Join(b.repo, "data", "*", "*"))
	if err != nil || len(packs) == 0 {
		t.Fatal(packs, err)
	}
	if err := os.Remove(packs[0]); err != nil {
		t.Fatal(err)
	}
	if end := check(); end.Outcome != protocol.OutcomeFailed || end.ErrorCode != protocol.ErrDamaged || !strings.Contains(end.Error, "repair") || fmt.Sprint(end.Stats["num_errors"]) != fmt.Sprint(b.errorsFound()) {
		t.Errorf("check of a damaged repository: %+v", end)
	}
	left, err := filepath.Glob(filepath.Join(b.state, "cache", "restic-check-cache-*"))
	if err != nil || len(left) > 0 {
		t.Error(left, err)
	}
}

// errorsFound is how many errors there are in the repository, by the summary of
// a check in JSON.
func (b *bundle) errorsFound() int {
	b.t.Helper()
	cmd := exec.CommandContext(b.t.Context(), resticPath(b.t), "check", "--json", "--read-data")
	cmd.Env = append(os.Environ(), "RESTIC_PASSWORD="+b.password, "RESTIC_REPOSITORY="+b.repo, "RESTIC_CACHE_DIR="+filepath.Join(b.dir, "own-cache"))
	out, err := cmd.Output()
	var summary struct {
		Errors int `json:"num_errors"`
	}
	if bad := json.Unmarshal(out, &summary); err == nil || bad != nil || summary.Errors == 0 {
		b.t.Fatalf("%s: %v, %v", out, err, bad)
	}
	return summary.Errors
}

// found is a look-up's whole answer.
func found[T any](b *bundle, end protocol.Finished) (items []T) {
	b.t.Helper()
	if end.Outcome != protocol.OutcomeSucceeded {
		b.t.Fatalf("%+v", end)
	}
	for seq := int64(1); seq <= end.LastAnswerSeq; seq++ {
		piece, err := b.runner.Answer(end.JobID, seq)
		if err != nil || len(piece) == 0 {
			b.t.Fatal(seq, piece, err)
		}
		for _, raw := range piece {
			var item T
			if err := json.Unmarshal(raw, &item); err != nil {
				b.t.Fatal(err)
			}
			items = append(items, item)
		}
	}
	return items
}

func TestLookUps(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.repository()
	b.start()
	first := b.do(b.run(protocol.KindBackup))
	b.write("source/c.txt", "gamma")
	second := b.do(b.run(protocol.KindBackup))
	b.forge(hourly(2000, "test-host", "old")...)
	b.forge(hourly(2, "other-host", "group")...)

	list := b.do(b.run(protocol.KindSnapshots))
	all := found[protocol.Snapshot](b, list)
	if len(all) != 2002 || list.LastAnswerSeq < 2 {
		t.Fatalf("%d snapshots in %d pieces", len(all), list.LastAnswerSeq)
	}
	at := slices.IndexFunc(all, func(s protocol.Snapshot) bool { return s.ID == second.SnapshotID })
	if s := all[at]; s.Hostname != "test-host" || !slices.Contains(s.Tags, "job:"+second.JobID) || s.FileCount == nil || *s.FileCount != 3 || *s.SizeBytes == 0 || s.Time.IsZero() || s.Paths[0] != b.source {
		t.Errorf("%+v", s)
	}

	preview := b.run(protocol.KindSnapshots)
	preview.Preview = new(keepLast(1, "group"))
	items := found[protocol.PlanItem](b, b.do(preview))
	if len(items) != 2 || !items[0].Keep || items[0].Snapshot.ID != second.SnapshotID || items[0].Reasons[0] != "last snapshot" || items[1].Keep || items[1].Snapshot.ID != first.SnapshotID {
		t.Errorf("%+v", items)
	}
	preview = b.run(protocol.KindSnapshots)
	preview.Preview = new(keepNothing("old"))
	if items := found[protocol.PlanItem](b, b.do(preview)); len(items) != 2000 || slices.ContainsFunc(items, func(i protocol.PlanItem) bool { return i.Keep }) {
		t.Errorf("%d items of a policy that keeps nothing", len(items))
	}
	preview = b.run(protocol.KindSnapshots)
	preview.Preview = new(keepLast(1, "nobody's"))
	if end := b.do(preview); end.Outcome != protocol.OutcomeSucceeded || end.LastAnswerSeq != 0 {
		t.Errorf("no snapshots: %+v", end)
	}

	diff := b.run(protocol.KindDiff)
	diff.SnapshotIDs = []string{first.SnapshotID, second.SnapshotID}
	end := b.do(diff)
	changes := found[protocol.Change](b, end)
	if !slices.Contains(changes, protocol.Change{Path: b.source + "/c.txt", Modifier: "+"}) || end.Stats["added"] == nil {
		t.Errorf("%+v, %v", changes, end.Stats)
	}
	if len(b.ids()) != 2006 {
		t.Errorf("a look-up changed something: %d", len(b.ids()))
	}
}

// A look-up doesn't wait for what works in the repository.
func TestLookUpRunsBesideABackup(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.repository()
	b.script(`if [ "$1" = backup ]; then echo held >&2; while [ ! -e "$DIR/go" ]; do sleep 0.02; done; fi
exec "$RESTIC" "$@"`)
	b.start()
	backup := b.run(protocol.KindBackup)
	b.accept(backup)
	if end := b.do(b.run(protocol.KindSnapshots)); end.Outcome != protocol.OutcomeSucceeded {
		t.Errorf("%+v", end)
	}
	b.write("go", "")
	b.result(backup.JobID)
}

func TestAppendOnlyRepositoryIsCalledThat(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.repo = "rest:http://" + b.restServer("--append-only") + "/r"
	b.start()
	id := b.initialised()
	b.bigFile("source/big", 100_000)
	first := b.do(b.run(protocol.KindBackup))
	b.bigFile("source/big", 99)
	b.do(b.run(protocol.KindBackup))
	forget := b.do(b.forget(keepLast(1, "group")))
	if forget.ErrorCode != protocol.ErrAppendOnly || !strings.Contains(forget.Error, "append-only") || len(b.ids()) != 2 {
		t.Errorf("forget: %+v", forget)
	}
	second := b.forget(keepLast(1, "group"))
	second.Repository.Maintenance, second.Repository.ID = true, id
	if end := b.do(second); end.ErrorCode != protocol.ErrAppendOnly || strings.Contains(end.Error, "Store") {
		t.Errorf("with the second credentials: %+v", end)
	}
	other := b.forget(keepLast(1, "group"))
	other.Repository.Maintenance, other.Repository.ID = true, strings.Repeat("0", 64)
	if end := b.do(other); end.ErrorCode != protocol.ErrWrongRepository {
		t.Errorf("another repository: %+v", end)
	}
	unknown := b.forget(keepLast(1, "group"))
	unknown.Repository.Maintenance = true
	if end := b.do(unknown); end.ErrorCode != protocol.ErrNotYetKnown || len(b.ids()) != 2 {
		t.Errorf("a repository that may be any: %+v", end)
	}
	if err := os.Remove(filepath.Join(b.dir, "served", "r", "snapshots", first.SnapshotID)); err != nil {
		t.Fatal(err)
	}
	if end := b.do(b.run(protocol.KindPrune)); end.ErrorCode != protocol.ErrAppendOnly {
		t.Errorf("prune: %+v", end)
	}
	if end := b.do(b.run(protocol.KindCheck)); end.Outcome != protocol.OutcomeSucceeded {
		t.Errorf("check: %+v", end)
	}
}

// Forget, prune and check die in the middle with agent, supervisor, restic or
// all of them. Nobody has to lend a hand: the lock is cleared, the end is told
// once and is true, and the next run does the rest.
func TestMaintenanceThatDies(t *testing.T) {
	t.Parallel()
	for _, kind := range []string{protocol.KindForget, protocol.KindPrune, protocol.KindCheck} {
		for _, victim := range []string{"agent", "supervisor", "restic", "all"} {
			t.Run(kind+" with "+victim, func(t *testing.T) {
				t.Parallel()
				maintenanceDies(t, kind, victim)
			})
		}
	}
}

func maintenanceDies(t *testing.T, kind, victim string) {
	t.Helper()
	b := setup(t)
	b.repository()
	b.bigFile("source/big", 200_000)
	b.ask("backup", "--quiet", "--host=test-host", "--tag=group", b.source)
	b.bigFile("source/big", 100)
	b.ask("backup", "--quiet", "--host=test-host", "--tag=group", b.source)
	if kind == protocol.KindPrune {
		b.ask("forget", "--quiet", "--keep-last=1", "--host=test-host")
	}
	// restic holds its lock and stands still; it writes down that it is there.
	b.script(`case "$1 $2" in "forget --dry-run"*) ;; ` + kind + `*)
  if [ ! -e "$DIR/struck" ]; then
    (while ! ls "$DIR/repo/locks/"* >/dev/null 2>&1; do sleep 0.01; done; kill -STOP $$; echo $$ >"$DIR/pid") &
  fi ;; esac
exec "$RESTIC" "$@"`)
	b.start()
	command := func() protocol.Run {
		if kind == protocol.KindForget {
			return b.forget(keepLast(1, "group"))
		}
		return b.run(kind)
	}
	b.runner.Stop()
	run := command()
	p := b.spawnAgent(&run, "")
	b.settled(func() bool { return b.count("pid") == 1 })
	step := b.runDirOf(run.JobID)
	strike := func() {
		for n := 1; exists(string(step.step(n))); n++ {
			var record processRecord
			if found, err := readJSON(step.step(n).pidPath(), &record); err == nil && found {
				_ = syscall.Kill(-record.PID, syscall.SIGKILL) // it may have ended
			}
		}
	}
	switch victim {
	case "agent":
		p.kill()
	case "supervisor":
		b.killSupervisor(run.JobID)
	case "restic":
		strike()
	case "all":
		p.kill()
		b.killSupervisor(run.JobID)
		strike()
	}
	b.write("struck", "")
	raw, err := os.ReadFile(filepath.Join(b.dir, "pid"))
	if err != nil {
		t.Fatal(err)
	}
	if pid, err := strconv.Atoi(strings.TrimSpace(string(raw))); err != nil {
		t.Fatal(err)
	} else {
		_ = syscall.Kill(pid, syscall.SIGCONT) // it may be dead
	}
	p.kill()
	b.start()
	end := b.result(run.JobID)
	if end.Outcome != protocol.OutcomeSucceeded && end.ErrorCode != protocol.ErrInterrupted {
		t.Errorf("%+v\n%s", end, b.text(run.JobID))
	}
	if victim == "agent" && end.Outcome != protocol.OutcomeSucceeded {
		t.Errorf("only the agent died: %+v", end)
	}
	if again := b.do(command()); again.Outcome != protocol.OutcomeSucceeded {
		t.Errorf("the next run: %+v\n%s", again, b.text(again.JobID))
	}
	b.ask("check", "--read-data")
	if kind == protocol.KindForget && len(b.ids()) != 1 {
		t.Errorf("%d snapshots are left", len(b.ids()))
	}
}
