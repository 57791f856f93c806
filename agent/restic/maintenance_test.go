package restic

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"

	"resticfleet/agent/protocol"
)

func snapshotID(n int) string { return fmt.Sprintf("%064x", n) }

// listed is what restic says of a snapshot of testRun's host.
func listed(n int, tags ...string) string {
	raw, err := json.Marshal(map[string]any{"id": snapshotID(n), "hostname": "web 1", "tags": tags, "paths": []string{"/etc"}, "time": "2026-01-02T03:04:05Z"})
	if err != nil {
		panic(err)
	}
	return string(raw)
}

func list(all ...string) string { return ">[" + strings.Join(all, ",") + "]" }

func dryRun(keep, remove []string) string {
	return `>[{"keep":[` + strings.Join(keep, ",") + `],"remove":[` + strings.Join(remove, ",") + `],"reasons":[]}]`
}

func forgetRun(tags ...string) protocol.Run {
	run := testRun(protocol.KindForget)
	for _, tag := range tags {
		run.Forget = append(run.Forget, protocol.ForgetGroup{Name: tag, Tags: []string{tag}, Retention: protocol.Retention{KeepLast: 1}})
	}
	return run
}

const (
	refusal   = `{"message_type":"exit_error","code":1,"message":"refusing to delete last snapshot of snapshot group \"host web 1\""}`
	noPolicy  = `{"message_type":"exit_error","code":1,"message":"Fatal: no policy was specified, no snapshots will be removed"}`
	gone      = `{"message_type":"exit_error","code":10,"message":"Fatal: repository does not exist: unable to open config file"}`
	forbidden = "Remove(<snapshot/f01435b4fe>) failed: unexpected HTTP response (403): 403 Forbidden"
)

func TestMaintenancePlans(t *testing.T) {
	t.Parallel()
	one, two := forgetRun("a"), forgetRun("a", "b")
	held := one
	held.Held = []string{snapshotID(2)}
	picked := testRun(protocol.KindForget)
	picked.SnapshotIDs = []string{snapshotID(1), snapshotID(2)}
	second := one
	second.Repository.Maintenance, second.Repository.ID = true, "feed"
	prune, check := testRun(protocol.KindPrune), testRun(protocol.KindCheck)
	secondPrune := prune
	secondPrune.Repository.Maintenance, secondPrune.Repository.ID = true, "feed"
	lookup, diff := testRun(protocol.KindSnapshots), testRun(protocol.KindDiff)
	diff.SnapshotIDs = []string{snapshotID(1), snapshotID(2)}
	preview := lookup
	preview.Preview = &one.Forget[0]
	asked := func(run protocol.Run) protocol.Run {
		run.Settle = true
		return run
	}
	nowhere := func(run protocol.Run) protocol.Run {
		run.Repository.Maintenance, run.Repository.ID = true, ""
		return run
	}
	clearLock := exit(0)
	plan := exit(0, dryRun([]string{listed(1, "a")}, []string{listed(2, "a"), listed(3, "a")}))
	left := exit(0, list(listed(1, "a")))
	all := exit(0, list(listed(1, "a"), listed(2, "a"), listed(3, "a")))
	half := exit(0, list(listed(1, "a"), listed(3, "a")))
	cancelled := func(end func(*Step) StepResult) func(*Step) StepResult { return interrupted(InterruptCancel, "", end) }
	type ends = []func(*Step) StepResult

	for name, c := range map[string]struct {
		run      protocol.Run
		cancel   bool
		ends     ends
		commands []string
		outcome  string
		code     string
		says     string
		never    string // is said
		stats    map[string]int
	}{
		"forget": {run: one, ends: ends{clearLock, plan, exit(0), left},
			commands: []string{"unlock", "forget --dry-run", "forget --json", "snapshots --json"}, outcome: "succeeded",
			stats: map[string]int{"snapshots_removed": 2, "snapshots_kept": 1, "snapshots_held": 0}},
		"forget, the unlock failed": {run: one, ends: ends{exit(1), plan, exit(0), left}, outcome: "succeeded"},
		"forget, one held": {run: held, ends: ends{clearLock, plan, exit(0), exit(0, list(listed(1, "a"), listed(2, "a")))}, outcome: "succeeded",
			stats: map[string]int{"snapshots_removed": 1, "snapshots_held": 1}},
		"forget, nothing goes": {run: one, ends: ends{clearLock, exit(0, dryRun([]string{listed(1, "a")}, nil))},
			commands: []string{"unlock", "forget --dry-run"}, outcome: "succeeded"},
		"forget, no snapshots":       {run: one, ends: ends{clearLock, exit(0)}, outcome: "succeeded"},
		"forget, keeps none":         {run: one, ends: ends{clearLock, exit(0, dryRun(nil, []string{listed(1, "a")}))}, outcome: "failed", code: protocol.ErrWouldRemoveAll, says: "“a”"},
		"forget, restic refuses":     {run: one, ends: ends{clearLock, exit(1, refusal)}, outcome: "failed", code: protocol.ErrWouldRemoveAll},
		"forget, a duration of none": {run: one, ends: ends{clearLock, exit(1, noPolicy)}, outcome: "failed", code: protocol.ErrWouldRemoveAll},
		"forget, one group keeps none": {run: two, ends: ends{clearLock, exit(1, refusal), exit(0, dryRun([]string{listed(4, "b")}, []string{listed(5, "b")})), exit(0), exit(0, list(listed(4, "b")))},
			outcome: "failed", code: protocol.ErrWouldRemoveAll, stats: map[string]int{"snapshots_removed": 1}},
		"forget, of two groups": {run: two, ends: ends{clearLock, plan, exit(0, dryRun([]string{listed(2, "a", "b")}, []string{listed(3, "a", "b")})), exit(0), exit(0, list(listed(1, "a"), listed(2, "a", "b")))},
			outcome: "succeeded", stats: map[string]int{"snapshots_removed": 1}},
		"forget, of a group left alone": {run: two, ends: ends{clearLock, exit(0, dryRun(nil, []string{listed(5, "a", "b")})), exit(0, dryRun([]string{listed(4, "b")}, []string{listed(5, "a", "b")}))},
			outcome: "failed", code: protocol.ErrWouldRemoveAll, stats: map[string]int{"snapshots_removed": 0}},
		"forget, another's snapshot listed": {run: one, ends: ends{clearLock, exit(0, dryRun([]string{listed(1, "a")}, []string{listed(2, "foreign")}))}, outcome: "failed", code: protocol.ErrRestic},
		"forget, another host's snapshot listed": {run: one, ends: ends{clearLock, exit(0, dryRun([]string{listed(1, "a")}, []string{strings.Replace(listed(2, "a"), "web 1", "web 2", 1)}))},
			outcome: "failed", code: protocol.ErrRestic},
		"forget, no id listed": {run: one, ends: ends{clearLock, exit(0, dryRun([]string{listed(1, "a")}, []string{strings.Replace(listed(2, "a"), snapshotID(2), "--prune", 1)}))},
			outcome: "failed", code: protocol.ErrRestic},
		"forget, no JSON":       {run: one, ends: ends{clearLock, exit(0, ">oops")}, outcome: "failed", code: protocol.ErrRestic},
		"forget, password":      {run: one, ends: ends{clearLock, exit(12)}, outcome: "failed", code: protocol.ErrWrongPassword},
		"forget, all are there": {run: one, ends: ends{clearLock, plan, exit(0), all}, outcome: "failed", code: protocol.ErrNotRemoved},
		"forget, too many are gone": {run: one, ends: ends{clearLock, plan, exit(0), exit(0, ">[]")},
			outcome: "failed", code: protocol.ErrNotRemoved, says: "to stay are gone"},
		"forget, can't look": {run: one, ends: ends{clearLock, plan, exit(0), exit(12)}, outcome: "failed", code: protocol.ErrNotRemoved, says: "could not be asked"},
		"forget, locked":     {run: one, ends: ends{clearLock, plan, exit(11, fatal(11, "locked")), all}, outcome: "failed", code: protocol.ErrLocked},
		"forget, append-only": {run: one, ends: ends{clearLock, plan, exit(3, forbidden, fatal(3, "failed to remove one or more snapshots")), all},
			outcome: "failed", code: protocol.ErrAppendOnly, says: "Store credentials"},
		"forget, killed half way": {run: one, ends: ends{clearLock, plan, signalled(9), exit(0), half},
			commands: []string{"unlock", "forget --dry-run", "forget --json", "unlock", "snapshots --json"},
			outcome:  "failed", code: protocol.ErrInterrupted, says: "1 of 2 snapshots were removed before", stats: map[string]int{"snapshots_removed": 1}},
		"forget, lost behind its work": {run: one, ends: ends{clearLock, plan, lost(), exit(0), left}, outcome: "succeeded", stats: map[string]int{"snapshots_removed": 2}},
		"forget, lost, can't look": {run: one, ends: ends{clearLock, plan, lost(), exit(0), exit(12)},
			outcome: "failed", code: protocol.ErrInterrupted, says: "is not known"},
		"forget, the plan killed": {run: one, ends: ends{clearLock, signalled(9), plan, exit(0), signalled(9), left}, outcome: "succeeded"},
		"forget, cancelled while it asks": {run: one, cancel: true, ends: ends{clearLock, cancelled(exit(130))},
			outcome: "cancelled", code: protocol.ErrCancelled},
		"forget, cancelled half way": {run: one, cancel: true, ends: ends{clearLock, plan, cancelled(exit(130)), half},
			outcome: "cancelled", code: protocol.ErrCancelled, says: "1 of 2 snapshots were removed", stats: map[string]int{"snapshots_removed": 1}},
		"forget, cancelled too late": {run: one, cancel: true, ends: ends{clearLock, plan, cancelled(exit(130)), left}, outcome: "succeeded"},
		"forget with a second credential": {run: second, ends: ends{clearLock, exit(0, `>{"id":"feed"}`), plan, exit(0), left},
			commands: []string{"unlock", "cat config", "forget --dry-run", "forget --json", "snapshots --json"}, outcome: "succeeded"},
		"forget in another repository":         {run: second, ends: ends{clearLock, exit(0, `>{"id":"beef"}`)}, outcome: "failed", code: protocol.ErrWrongRepository},
		"forget, the second password is wrong": {run: second, ends: ends{clearLock, exit(12)}, outcome: "failed", code: protocol.ErrWrongPassword, says: "credentials for forget and prune"},
		"forget, the second may not remove":    {run: second, ends: ends{clearLock, exit(0, `>{"id":"feed"}`), plan, exit(3, forbidden), all}, outcome: "failed", code: protocol.ErrAppendOnly, says: "Give them the right"},
		"forget in any repository":             {run: nowhere(one), commands: []string{}, outcome: "failed", code: protocol.ErrNotYetKnown, says: "Nothing was changed. First initialise it with the everyday credentials"},
		"forget by id in any repository":       {run: nowhere(picked), commands: []string{}, outcome: "failed", code: protocol.ErrNotYetKnown},
		"prune in any repository":              {run: nowhere(prune), commands: []string{}, outcome: "failed", code: protocol.ErrNotYetKnown},
		"forget by id":                         {run: picked, ends: ends{clearLock, exit(0, list(listed(1), listed(2), listed(3))), exit(0), exit(0, list(listed(3)))}, outcome: "succeeded", stats: map[string]int{"snapshots_removed": 2, "snapshots_kept": 1}},
		"forget by id, unknown":                {run: picked, ends: ends{clearLock, exit(0, list(listed(3)))}, outcome: "failed", code: protocol.ErrSnapshotUnknown},
		"prune":                                {run: prune, ends: ends{clearLock, exit(0, ">total prune:           3 blobs / 2 KiB", ">remaining:            10 blobs / 1 MiB")}, commands: []string{"unlock", "prune --retry-lock=10m"}, outcome: "succeeded", stats: map[string]int{"removed_bytes": 2048, "remaining_bytes": 1 << 20}},
		"prune, killed":                        {run: prune, ends: ends{clearLock, signalled(9), exit(0)}, commands: []string{"unlock", "prune --retry-lock=10m", "unlock"}, outcome: "failed", code: protocol.ErrInterrupted},
		"prune, cancelled":                     {run: prune, cancel: true, ends: ends{clearLock, cancelled(exit(130))}, outcome: "cancelled", code: protocol.ErrCancelled},
		"prune, append-only":                   {run: prune, ends: ends{clearLock, exit(1, "Remove(<index/4351fbc413>) failed: unexpected HTTP response (403): 403 Forbidden")}, outcome: "failed", code: protocol.ErrAppendOnly},
		"prune, no access at all":              {run: prune, ends: ends{clearLock, exit(1, "Fatal: unable to open config file: unexpected HTTP response (403): 403 Forbidden")}, outcome: "failed", code: protocol.ErrBackendForbidden},
		"prune of a damaged repository":        {run: prune, ends: ends{clearLock, exit(1, "Fatal: packs from index missing in repo")}, outcome: "failed", code: protocol.ErrDamaged},
		"prune in another repository":          {run: secondPrune, ends: ends{clearLock, exit(0, `>{"id":"beef"}`)}, outcome: "failed", code: protocol.ErrWrongRepository},
		"check":                                {run: check, ends: ends{clearLock, exit(0, ">no errors were found")}, outcome: "succeeded"},
		"check, damage":                        {run: check, ends: ends{clearLock, exit(1, "error for tree 2454a858:", "Fatal: repository contains errors")}, outcome: "failed", code: protocol.ErrDamaged, says: "2454a858"},
		"check, many errors": {run: check, ends: ends{clearLock, exit(1, "Load(<data/1c0d06dd>) returned error, retrying after 1s: no", "error: index 12", "pack "+snapshotID(1)+": does not exist",
			"pack "+snapshotID(2)+" contains 2 errors: [blob a: no blob b: no]", "error for tree 1c0d06dd:", "  id 1 not found in repository", "  id 2 not found in repository",
			"", "The repository contains damaged pack files.", "restic repair packs "+snapshotID(2), "Fatal: repository contains errors")}, outcome: "failed", code: protocol.ErrDamaged, stats: map[string]int{"num_errors": 5}},
		"check, lost":                          {run: check, ends: ends{clearLock, lost(), exit(0)}, outcome: "failed", code: protocol.ErrInterrupted},
		"check, cancelled":                     {run: check, cancel: true, ends: ends{clearLock, cancelled(signalled(9)), exit(0)}, outcome: "cancelled", code: protocol.ErrCancelled},
		"forget, the repository is gone":       {run: one, ends: ends{clearLock, exit(10, gone)}, commands: []string{"unlock", "forget --dry-run"}, outcome: "failed", code: protocol.ErrNoRepository, says: "Check the address"},
		"forget, it goes half way":             {run: one, ends: ends{clearLock, plan, exit(10, gone), exit(10, gone)}, outcome: "failed", code: protocol.ErrNoRepository, says: "is not known"},
		"forget by id, the repository is gone": {run: picked, ends: ends{clearLock, exit(10, gone)}, commands: []string{"unlock", "snapshots --json"}, outcome: "failed", code: protocol.ErrNoRepository, says: "Check the address"},
		"forget, the second finds none":        {run: second, ends: ends{clearLock, exit(10, gone)}, commands: []string{"unlock", "cat config"}, outcome: "failed", code: protocol.ErrNoRepository, says: "With the credentials for forget and prune: There is no restic repository", never: "initialise"},
		"prune, the repository is gone":        {run: prune, ends: ends{clearLock, exit(10, gone)}, commands: []string{"unlock", "prune --retry-lock=10m"}, outcome: "failed", code: protocol.ErrNoRepository, says: "Check the address"},
		"prune, the second finds none":         {run: secondPrune, ends: ends{clearLock, exit(10, gone)}, commands: []string{"unlock", "cat config"}, outcome: "failed", code: protocol.ErrNoRepository, says: "check the address of these credentials", never: "initialise"},
		"check, the repository is gone":        {run: check, ends: ends{clearLock, exit(10, gone)}, commands: []string{"unlock", "check --retry-lock=10m"}, outcome: "failed", code: protocol.ErrNoRepository, says: "Check the address"},
		"preview, the repository is gone":      {run: preview, ends: ends{exit(10, gone)}, commands: []string{"forget --dry-run"}, outcome: "failed", code: protocol.ErrNoRepository, says: "Check the address"},
		"snapshots, the repository is gone":    {run: lookup, ends: ends{exit(10, gone)}, outcome: "failed", code: protocol.ErrNoRepository, says: "Check the address"},
		"snapshots":                            {run: lookup, ends: ends{exit(0, list(listed(1)))}, commands: []string{"snapshots --json"}, outcome: "succeeded"},
		"snapshots, killed":                    {run: lookup, ends: ends{signalled(9), exit(0, list(listed(1)))}, outcome: "succeeded"},
		"snapshots, killed again and again":    {run: lookup, ends: ends{signalled(9), lost(), signalled(9)}, outcome: "failed", code: protocol.ErrInterrupted},
		"snapshots, cancelled":                 {run: lookup, cancel: true, ends: ends{cancelled(exit(130))}, outcome: "cancelled", code: protocol.ErrCancelled},
		"snapshots, no JSON":                   {run: lookup, ends: ends{exit(0, ">[{")}, outcome: "failed", code: protocol.ErrRestic},
		"preview":                              {run: preview, ends: ends{plan}, commands: []string{"forget --dry-run"}, outcome: "succeeded"},
		"preview that keeps none":              {run: preview, ends: ends{exit(1, refusal), exit(0, list(listed(1, "a")))}, commands: []string{"forget --dry-run", "snapshots --json"}, outcome: "succeeded"},
		"diff":                                 {run: diff, ends: ends{exit(0, `>{"message_type":"change","path":"/a","modifier":"+"}`, `>{"message_type":"statistics","changed_files":0}`)}, commands: []string{"diff --json"}, outcome: "succeeded"},
		"diff without its statistics":          {run: diff, ends: ends{exit(0, `>{"message_type":"change","path":"/a","modifier":"+"}`)}, outcome: "failed", code: protocol.ErrRestic},
		"settle a forget":                      {run: asked(one), ends: ends{exit(0)}, commands: []string{"unlock"}, outcome: "failed", code: protocol.ErrInterrupted, says: "stays removed"},
		"settle a check":                       {run: asked(check), ends: ends{exit(0)}, commands: []string{"unlock"}, outcome: "failed", code: protocol.ErrInterrupted},
		"settle a look-up":                     {run: asked(lookup), outcome: "failed", code: protocol.ErrInterrupted, says: "changed nothing"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			job := Job{Run: c.run}
			player := play
			if c.cancel {
				player = playCancelled
			}
			commands, end := player(t, job, c.ends...)
			if end.Outcome != c.outcome || end.ErrorCode != c.code || !strings.Contains(end.Error, c.says) || (c.never != "" && strings.Contains(end.Error, c.never)) || (end.Error == "") != (end.ErrorCode == "") {
				t.Errorf("%+v", end)
			}
			for figure, want := range c.stats {
				if got := fmt.Sprint(end.Stats[figure]); got != fmt.Sprint(want) {
					t.Errorf("%s is %s, want %d", figure, got, want)
				}
			}
			if c.commands != nil && !slices.Equal(commands, c.commands) {
				t.Errorf("ran %q, want %q", commands, c.commands)
			}
		})
	}
}

// Many snapshots go in several commands, each short enough for any system.
func TestForgetInChunks(t *testing.T) {
	t.Parallel()
	var remove []string
	for n := 2; n < 2+forgetChunk*2+1; n++ {
		remove = append(remove, listed(n, "a"))
	}
	run := forgetRun("a")
	commands, end := play(t, Job{Run: run}, exit(0), exit(0, dryRun([]string{listed(1, "a")}, remove)), exit(0), exit(0), exit(0), exit(0, list(listed(1, "a"))))
	if end.Outcome != protocol.OutcomeSucceeded || end.Stats["snapshots_removed"] != len(remove) {
		t.Errorf("%q: %+v", commands, end)
	}
	_, end = play(t, Job{Run: run}, exit(0), exit(0, dryRun([]string{listed(1, "a")}, remove)), exit(0), exit(1, fatal(1, "no")), exit(0, list(append([]string{listed(1, "a")}, remove[forgetChunk:]...)...)))
	if end.Outcome != protocol.OutcomeFailed || end.Stats["snapshots_removed"] != forgetChunk {
		t.Errorf("%+v", end)
	}
}

func TestValidateMaintenance(t *testing.T) {
	t.Parallel()
	for name, change := range map[string]func(*protocol.Run){
		"no policy":           func(r *protocol.Run) { r.Forget = nil },
		"policies and ids":    func(r *protocol.Run) { r.SnapshotIDs = []string{snapshotID(1)} },
		"a short id":          func(r *protocol.Run) { r.Forget, r.SnapshotIDs = nil, []string{"abcd"} },
		"an option for an id": func(r *protocol.Run) { r.Forget, r.SnapshotIDs = nil, []string{"--prune"} },
		"an id with more":     func(r *protocol.Run) { r.Forget, r.SnapshotIDs = nil, []string{snapshotID(1) + "\n"} },
		"a held one":          func(r *protocol.Run) { r.Held = []string{"latest"} },
		"no host":             func(r *protocol.Run) { r.ResticHost = "" },
		"no tag":              func(r *protocol.Run) { r.Forget[0].Tags = nil },
		"an empty tag":        func(r *protocol.Run) { r.Forget[0].Tags = []string{""} },
		"a blank tag":         func(r *protocol.Run) { r.Forget[0].Tags = []string{"a", " "} },
		"a comma":             func(r *protocol.Run) { r.Forget[0].Tags = []string{"a,b"} },
		"NUL":                 func(r *protocol.Run) { r.Forget[0].Tags = []string{"a\x00"} },
		"a job's tag":         func(r *protocol.Run) { r.Forget[0].Tags = []string{" job:1"} },
		"an empty policy":     func(r *protocol.Run) { r.Forget[0].Retention = protocol.Retention{} },
		"less than nothing":   func(r *protocol.Run) { r.Forget[0].Retention.KeepDaily = -1 },
		"no duration":         func(r *protocol.Run) { r.Forget[0].Retention.KeepWithin = "soon" },
		"an empty keep tag":   func(r *protocol.Run) { r.Forget[0].Retention.KeepTags = []string{""} },
		"a preview's empty one": func(r *protocol.Run) {
			r.Kind, r.Preview = protocol.KindSnapshots, &protocol.ForgetGroup{Tags: []string{"a"}}
		},
		"a diff of one": func(r *protocol.Run) { r.Kind, r.SnapshotIDs = protocol.KindDiff, []string{snapshotID(1)} },
		"a subset":      func(r *protocol.Run) { r.Kind, r.ReadDataSubset = protocol.KindCheck, "1/2 --force" },
		"a part of 257": func(r *protocol.Run) { r.Kind, r.ReadDataSubset = protocol.KindCheck, "1/257" },
		"no unit":       func(r *protocol.Run) { r.Kind, r.ReadDataSubset = protocol.KindCheck, "1048576" },
		"too much":      func(r *protocol.Run) { r.Kind, r.ReadDataSubset = protocol.KindCheck, "9999999999T" },
	} {
		run := forgetRun("a")
		if err := Validate(run); err != nil {
			t.Fatal(err)
		}
		change(&run)
		if err := Validate(run); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
	for _, subset := range []string{"", "1/2", "256/256", "5%", "2.5%", "500M", "10G"} {
		run := testRun(protocol.KindCheck)
		run.ReadDataSubset = subset
		if err := Validate(run); err != nil {
			t.Errorf("%q: %v", subset, err)
		}
	}
}

func TestPlainProgressAndFigures(t *testing.T) {
	t.Parallel()
	for line, percent := range map[string]float64{
		"[0:01] 50.00%  1 / 2 packs repacked": 50, "[1:02:03] 100.00%  9 / 9 packs processed": 100, "[0:00] 80.00%  4 / 5 snapshots": 80,
		"0:01 50%": -1, "[0:01] x%  1 / 2 y": -1, "": -1,
	} {
		p := plainProgress(line)
		if (p == nil) != (percent < 0) || (p != nil && p.Percent != percent) {
			t.Errorf("%q: %+v", line, p)
		}
	}
	for text, want := range map[string]int64{"0 B": 0, "622 B": 622, "783.211 KiB": 802008, "1.500 GiB": 3 << 29, "2 TiB": 2 << 40} {
		if got, ok := parseBytes(text); !ok || got != want {
			t.Errorf("%q: %d, %v", text, got, ok)
		}
	}
}

// A snapshot with more paths than a message holds is cut, never left out: the
// list would say that it is gone.
func TestSnapshotsAreCutToSize(t *testing.T) {
	t.Parallel()
	var many []string
	for range 100_000 {
		many = append(many, "\x01<>&")
	}
	raw, err := json.Marshal([]any{map[string]any{"id": snapshotID(1), "paths": many, "tags": many, "username": strings.Repeat("\x01", 1<<20)}})
	if err != nil {
		t.Fatal(err)
	}
	o := &Output{Document: true}
	o.Feed(Stdout, Line{Text: raw})
	all, err := o.snapshots()
	if err != nil || len(all) != 1 {
		t.Fatal(err)
	}
	if out, err := json.Marshal(all[0]); err != nil || len(out) > 256<<10 || len(all[0].Paths) < 100 {
		t.Errorf("%d bytes, %d paths, %v", len(out), len(all[0].Paths), err)
	}
}

func TestDiffKeepsSoManyChanges(t *testing.T) {
	t.Parallel()
	o := &Output{Document: true}
	for range maxChanges + 7 {
		o.Feed(Stdout, Line{Text: []byte(`{"message_type":"change","path":"/a","modifier":"M"}`)})
	}
	o.Feed(Stdout, Line{Text: []byte(`{"message_type":"statistics","changed_files":3}`)})
	items, stats, err := o.changes()
	if err != nil || len(items) != maxChanges || stats["changes_left_out"] != 7 || stats["changed_files"] != 3.0 {
		t.Errorf("%d, %v, %v", len(items), stats, err)
	}
}

// Masking changes what people read, never what programs compare.
func TestScrubberLeavesIDsAlone(t *testing.T) {
	t.Parallel()
	s := NewScrubber(protocol.Secrets{Password: "0000"})
	in := protocol.Snapshot{ID: snapshotID(1), Paths: []string{"/a/0000"}, Tags: []string{"0000"}, Username: "0000"}
	out, _ := s.Item(protocol.PlanItem{Snapshot: in}).(protocol.PlanItem)
	if out.Snapshot.ID != in.ID || out.Snapshot.Paths[0] != "/a/"+Mask || out.Snapshot.Tags[0] != Mask || out.Snapshot.Username != Mask || in.Paths[0] != "/a/0000" {
		t.Errorf("%+v", out)
	}
	if c, _ := s.Item(protocol.Change{Path: "/0000"}).(protocol.Change); c.Path != "/"+Mask {
		t.Errorf("%+v", c)
	}
}

func FuzzMaintenanceOutput(f *testing.F) {
	for _, s := range []string{
		"[]", "null", "{}", dryRun([]string{listed(1, "a")}, []string{listed(2)})[1:], list(listed(1, "a"))[1:], `[{"keep":null,"remove":[{}]}]`,
		`{"message_type":"change","path":"/a","modifier":"+"}` + "\n" + `{"message_type":"statistics","added":{}}`,
		"[0:01] 50.00%  1 / 2 packs repacked", "total prune: 3 blobs / 820 B", "remaining: 999999999999999999999999 blobs / 99999999999999999999999 TiB",
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		for line := range strings.Lines(string(raw)) {
			if p := plainProgress(strings.TrimSpace(line)); p != nil && (p.Percent < 0 || p.Percent > 100) {
				t.Fatalf("%+v", p)
			}
			o := &Output{}
			o.figure(strings.TrimSpace(line))
			for name, n := range o.figures {
				if bytes, ok := n.(int64); !ok || bytes < 0 {
					t.Fatalf("%s: %v", name, n)
				}
			}
		}
		o := &Output{Document: true}
		lines := NewLines(1 << 20)
		emit := func(l Line) { o.Feed(Stdout, l) }
		lines.Feed(raw, emit)
		lines.End(emit)
		_, _ = o.snapshots()
		_, _ = o.plan()
		items, _, _ := o.changes()
		for _, item := range items {
			if c, ok := item.(protocol.Change); !ok || !utf8.ValidString(c.Path) {
				t.Fatalf("%+v", item)
			}
		}
		// Whatever a dry run says, only ids of this host's tagged snapshots go.
		step, _ := Next(Job{Run: forgetRun("a")}, []StepResult{{Purpose: PurposeClear, Output: &Output{}}, {Purpose: PurposeMain, Args: []string{"forget"}, Output: o}})
		if step != nil {
			for _, arg := range step.Args[3:] {
				if !snapshotIDs.MatchString(arg) {
					t.Fatalf("%q", step.Args)
				}
			}
		}
	})
}
