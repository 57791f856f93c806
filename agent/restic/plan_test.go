package restic

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"resticfleet/agent/protocol"
)

const testSnapshot = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"

// said makes an Output from lines: those with a leading ">" are stdout.
func said(document bool, lines ...string) *Output {
	o := &Output{Document: document}
	for _, l := range lines {
		stream := Stderr
		if rest, ok := strings.CutPrefix(l, ">"); ok {
			stream, l = Stdout, rest
		}
		feedAll(o, stream, l)
	}
	return o
}

func ended(step *Step, code int, lines ...string) StepResult {
	return StepResult{Purpose: step.Purpose, Args: step.Args, Output: said(step.Document, lines...), ExitCode: code}
}

// play runs a plan against ends for its steps and gives the commands it ran.
func play(t *testing.T, job Job, ends ...func(*Step) StepResult) (commands []string, end protocol.Finished) {
	t.Helper()
	var results []StepResult
	for {
		step, finished := Next(job, results)
		if (step == nil) == (finished == nil) {
			t.Fatal("neither a step nor an end, or both")
		}
		if finished != nil {
			if len(results) != len(ends) {
				t.Fatalf("ended after %v, before step %d: %+v", commands, len(results)+1, finished)
			}
			return commands, *finished
		}
		if len(results) == len(ends) {
			t.Fatalf("wants another step: %v", step.Args)
		}
		commands = append(commands, strings.Join(step.Args[:min(2, len(step.Args))], " "))
		results = append(results, ends[len(results)](step))
	}
}

func exit(code int, lines ...string) func(*Step) StepResult {
	return func(s *Step) StepResult { return ended(s, code, lines...) }
}

func signalled(signal int, lines ...string) func(*Step) StepResult {
	return func(s *Step) StepResult {
		r := ended(s, -1, lines...)
		r.Signal = signal
		return r
	}
}

func lost(lines ...string) func(*Step) StepResult {
	return func(s *Step) StepResult {
		r := ended(s, -1, lines...)
		r.Lost = true
		return r
	}
}

func interrupted(reason, detail string, end func(*Step) StepResult) func(*Step) StepResult {
	return func(s *Step) StepResult {
		r := end(s)
		r.Interrupt, r.Detail = reason, detail
		return r
	}
}

const (
	status    = `>{"message_type":"status"}`
	summary   = `>{"message_type":"summary","snapshot_id":"` + testSnapshot + `","files_new":1}`
	fileError = `{"message_type":"error","error":{"message":"open /x: denied"},"item":"/x"}`
)

func fatal(code int, text string) string {
	return fmt.Sprintf(`{"message_type":"exit_error","code":%d,"message":"Fatal: %s"}`, code, text)
}

func TestPlans(t *testing.T) {
	t.Parallel()
	backup, initJob, unlock := testRun(protocol.KindBackup), testRun(protocol.KindInit), testRun(protocol.KindUnlock)
	prune := backup
	prune.Kind = "prune"
	asked := func(run protocol.Run) protocol.Run {
		run.Settle = true
		return run
	}
	withParent := backup
	withParent.Parent = strings.Repeat("cd", 32)
	found := `>[{"id":"` + testSnapshot + `","tags":["documents","job:` + backup.JobID + `"]}]`
	foreign := `>[{"id":"` + testSnapshot + `","tags":["job:other"]}]`
	lockA, lockB := strings.Repeat("a", 64), strings.Repeat("b", 64)
	type ends = []func(*Step) StepResult

	for name, c := range map[string]struct {
		run      protocol.Run
		cancel   bool
		ends     ends
		commands []string
		outcome  string
		code     string
		snapshot bool
		says     string
	}{
		"backup": {run: backup, ends: ends{exit(0, status, summary)}, outcome: "succeeded", snapshot: true},
		"backup, some unreadable": {run: backup, ends: ends{exit(3, status, fileError, summary, fatal(3, "x"))},
			outcome: "warning", code: protocol.ErrUnreadable, snapshot: true, says: "/x"},
		"backup, exit 3 and no snapshot": {run: backup, ends: ends{exit(3, status, fileError), exit(0, ">[]")}, outcome: "failed", code: protocol.ErrRestic},
		"backup, exit 0 and no snapshot": {run: backup, ends: ends{exit(0, status), exit(0, foreign)}, outcome: "failed", code: protocol.ErrSnapshotMissing},
		"backup, exit 0 and its last words lost": {run: backup, ends: ends{exit(0), exit(0, found)},
			commands: []string{"backup --json", "snapshots --json"}, outcome: "succeeded", snapshot: true},
		"backup, exit 3 and its last words lost": {run: backup, ends: ends{exit(3, fileError), exit(0, found)},
			outcome: "warning", code: protocol.ErrUnreadable, snapshot: true},
		"backup, exit 0 and can't ask": {run: backup, ends: ends{exit(0), exit(1, "dial tcp: connection refused")},
			outcome: "failed", code: protocol.ErrSnapshotMissing, says: "could not be asked"},
		"backup, parent gone": {run: withParent, ends: ends{exit(1, fatal(1, `no matching ID found for prefix \"cd\"`)), exit(0, summary)},
			commands: []string{"backup --json", "backup --json"}, outcome: "succeeded", snapshot: true},
		"backup, full parent id gone": {run: withParent, ends: ends{exit(1, fatal(1, "failed to load snapshot cdcdcdcd: gone")), exit(0, summary)},
			outcome: "succeeded", snapshot: true},
		"backup, parent gone, then another fault": {run: withParent, ends: ends{exit(1, fatal(1, "no matching ID found")), exit(1, fatal(1, "no matching ID found"))},
			outcome: "failed", code: protocol.ErrRestic},
		"backup, parent gone, cancelled": {run: withParent, cancel: true, ends: ends{interrupted(InterruptCancel, "", exit(1, fatal(1, "no matching ID found")))},
			outcome: "cancelled", code: protocol.ErrCancelled},
		"backup, cancelled": {run: backup, cancel: true, ends: ends{interrupted(InterruptCancel, "", exit(130, status)), exit(0, ">[]")},
			commands: []string{"backup --json", "snapshots --json"}, outcome: "cancelled", code: protocol.ErrCancelled},
		"backup, cancelled before it spoke": {run: backup, cancel: true, ends: ends{interrupted(InterruptCancel, "", exit(130))},
			outcome: "cancelled", code: protocol.ErrCancelled},
		"backup, cancelled after its snapshot": {run: backup, cancel: true, ends: ends{interrupted(InterruptCancel, "", exit(130, status, summary))},
			outcome: "succeeded", snapshot: true},
		"backup, cancelled, killed": {run: backup, cancel: true, ends: ends{interrupted(InterruptCancel, "", signalled(9, status)), exit(0), exit(0, foreign)},
			commands: []string{"backup --json", "unlock", "snapshots --json"}, outcome: "cancelled", code: protocol.ErrCancelled},
		"backup, cancelled, killed, saved": {run: backup, cancel: true, ends: ends{interrupted(InterruptCancel, "", signalled(9, status)), exit(0), exit(0, found)},
			outcome: "succeeded", snapshot: true},
		"backup, cancel came too late for a failure": {run: backup, cancel: true, ends: ends{exit(12, fatal(12, "wrong password or no key found"))},
			outcome: "failed", code: protocol.ErrWrongPassword},
		"backup, killed by the kernel": {run: backup, ends: ends{signalled(9, status), exit(0), exit(0, ">[]")},
			outcome: "failed", code: protocol.ErrInterrupted, says: "signal 9"},
		"backup, interrupted by a person": {run: backup, ends: ends{exit(130, status), exit(0, ">[]")}, outcome: "failed", code: protocol.ErrInterrupted},
		"backup, lost": {run: backup, ends: ends{lost(status), exit(0), exit(0, ">[]")},
			commands: []string{"backup --json", "unlock", "snapshots --json"}, outcome: "failed", code: protocol.ErrInterrupted},
		"backup, lost, saved":             {run: backup, ends: ends{lost(status), exit(0), exit(0, found)}, outcome: "warning", code: protocol.ErrEndUnrecorded, snapshot: true, says: "01234567 is in the repository"},
		"backup, lost, saved with errors": {run: backup, ends: ends{lost(status, fileError), exit(0), exit(0, found)}, outcome: "warning", code: protocol.ErrUnreadable, snapshot: true},
		"backup, lost, can't ask": {run: backup, ends: ends{lost(status), exit(12), exit(12, "Fatal: wrong password")},
			outcome: "failed", code: protocol.ErrInterrupted, says: "could not be asked"},
		"backup, lost, the one that asked killed": {run: backup, ends: ends{lost(status), exit(0), signalled(9), exit(0, found)},
			commands: []string{"backup --json", "unlock", "snapshots --json", "snapshots --json"}, outcome: "warning", code: protocol.ErrEndUnrecorded, snapshot: true},
		"backup, lost, whoever asks killed": {run: backup, ends: ends{lost(status), exit(0), signalled(9), lost(), signalled(9)},
			outcome: "failed", code: protocol.ErrInterrupted, says: "could not be asked"},
		"backup, lost after its summary": {run: backup, ends: ends{lost(status, summary), exit(0)}, outcome: "succeeded", snapshot: true},
		"backup, killed after its summary": {run: backup, cancel: true, ends: ends{interrupted(InterruptCancel, "", signalled(9, status, summary)), exit(0)},
			commands: []string{"backup --json", "unlock"}, outcome: "succeeded", snapshot: true},
		"backup, crashed": {run: backup, ends: ends{exit(2, status, "fatal error: runtime: cannot allocate memory", "goroutine 1"), exit(0)},
			commands: []string{"backup --json", "unlock"}, outcome: "failed", code: protocol.ErrRestic, says: "out of memory"},
		"backup, unreachable": {run: backup, ends: ends{interrupted(InterruptUnreachable, "dial tcp: refused", exit(130))},
			outcome: "failed", code: protocol.ErrUnreachable, says: "dial tcp: refused. Check the address"},
		"backup, unreachable, restic says goodbye": {run: backup, ends: ends{interrupted(InterruptUnreachable, "dial tcp: refused", exit(130, "signal interrupt received, cleaning up", fatal(130, "context canceled")))},
			commands: []string{"backup --json"}, outcome: "failed", code: protocol.ErrUnreachable},
		"backup, unreachable after it began": {run: backup, ends: ends{interrupted(InterruptUnreachable, "dial tcp: refused", exit(130, status)), exit(0, found)},
			commands: []string{"backup --json", "snapshots --json"}, outcome: "warning", code: protocol.ErrEndUnrecorded, snapshot: true},

		"settle a backup": {run: asked(backup), ends: ends{exit(0, found), exit(0)},
			commands: []string{"snapshots --json", "unlock"}, outcome: "warning", code: protocol.ErrEndUnrecorded, snapshot: true, says: "01234567 is in the repository"},
		"settle a backup that left nothing": {run: asked(backup), ends: ends{exit(0, foreign), exit(0)},
			outcome: "failed", code: protocol.ErrInterrupted, says: "nothing was stored. Run it again."},
		"settle a cancelled backup": {run: asked(backup), cancel: true, ends: ends{exit(0, found), exit(0)},
			outcome: "warning", code: protocol.ErrEndUnrecorded, snapshot: true},
		"settle a cancelled backup that left nothing": {run: asked(backup), cancel: true, ends: ends{exit(0, ">[]"), exit(0)},
			outcome: "cancelled", code: protocol.ErrCancelled},
		"settle a backup, can't unlock": {run: asked(backup), ends: ends{exit(0, found), exit(1, "Fatal: no")},
			outcome: "warning", code: protocol.ErrEndUnrecorded, snapshot: true},
		"settle a backup, the one that asked killed": {run: asked(backup), ends: ends{signalled(9), exit(0, found), exit(0)},
			commands: []string{"snapshots --json", "snapshots --json", "unlock"}, outcome: "warning", code: protocol.ErrEndUnrecorded, snapshot: true},
		"settle a backup, can't ask": {run: asked(backup), ends: ends{exit(12, "Fatal: wrong password")},
			commands: []string{"snapshots --json"}, outcome: "failed", code: protocol.ErrInterrupted, says: "could not be asked what became of it: The password"},
		"settle a backup, unreachable": {run: asked(backup), ends: ends{interrupted(InterruptUnreachable, "dial tcp: refused", exit(130))},
			outcome: "failed", code: protocol.ErrInterrupted, says: "dial tcp: refused"},
		"settle an init": {run: asked(initJob), ends: ends{exit(0, `>{"id":"feed"}`), exit(0)},
			commands: []string{"cat config", "unlock"}, outcome: "succeeded", code: protocol.ErrAlreadyExists},
		"settle an init that made nothing": {run: asked(initJob), ends: ends{exit(10, "Fatal: repository does not exist")},
			commands: []string{"cat config"}, outcome: "failed", code: protocol.ErrInterrupted, says: "Run it again."},
		"settle an init with another password": {run: asked(initJob), ends: ends{exit(12, "Fatal: wrong password")},
			outcome: "failed", code: protocol.ErrInterrupted, says: "The password"},
		"settle an unlock": {run: asked(unlock), outcome: "failed", code: protocol.ErrInterrupted},
		"settle another kind": {run: asked(prune), ends: ends{exit(0)}, commands: []string{"unlock"},
			outcome: "failed", code: protocol.ErrInterrupted},

		"init": {run: initJob, ends: ends{exit(10, "Fatal: repository does not exist"), exit(0, `>{"message_type":"initialized","id":"feed"}`)},
			commands: []string{"cat config", "init --json"}, outcome: "succeeded"},
		"init, exists":         {run: initJob, ends: ends{exit(0, `>{`, `>"id": "feed"`, `>}`), exit(0)}, commands: []string{"cat config", "unlock"}, outcome: "succeeded", code: protocol.ErrAlreadyExists},
		"init, wrong password": {run: initJob, ends: ends{exit(12, "Fatal: wrong password or no key found")}, outcome: "failed", code: protocol.ErrWrongPassword},
		"init, appeared meanwhile": {run: initJob, ends: ends{exit(10), exit(1, fatal(1, "create repository at x failed: config file already exists")), exit(0, `>{"id":"feed"}`), exit(0)},
			commands: []string{"cat config", "init --json", "cat config", "unlock"}, outcome: "succeeded", code: protocol.ErrAlreadyExists},
		"init, appeared with another password": {run: initJob, ends: ends{exit(10), exit(1, fatal(1, "config file already exists")), exit(12)},
			outcome: "failed", code: protocol.ErrWrongPassword},
		"init, lost but made":   {run: initJob, ends: ends{exit(10), lost(), exit(0, `>{"id":"feed"}`), exit(0)}, outcome: "succeeded"},
		"init, lost and absent": {run: initJob, ends: ends{exit(10), lost(), exit(10)}, outcome: "failed", code: protocol.ErrInterrupted},
		"init, cancelled":       {run: initJob, cancel: true, ends: ends{exit(10)}, outcome: "cancelled", code: protocol.ErrCancelled},
		"init, killed": {run: initJob, cancel: true, ends: ends{exit(10), interrupted(InterruptCancel, "", signalled(9)), exit(0)},
			outcome: "cancelled", code: protocol.ErrCancelled},
		"init, refused": {run: initJob, ends: ends{exit(1, "Fatal: unable to open config file: unexpected HTTP response (401): 401 Unauthorized")},
			outcome: "failed", code: protocol.ErrBackendForbidden},

		"unlock": {run: unlock, ends: ends{exit(0, ">"+lockA), exit(0), exit(0)},
			commands: []string{"list locks", "unlock", "list locks"}, outcome: "succeeded"},
		"unlock, one left": {run: unlock, ends: ends{exit(0, ">"+lockA, ">"+lockB), exit(0), exit(0, ">"+lockB),
			exit(0, `>{"time":"2026-01-02T03:04:05Z","exclusive":true,"hostname":"other","username":"root","pid":7}`)},
			commands: []string{"list locks", "unlock", "list locks", "cat lock"}, outcome: "succeeded", code: protocol.ErrLocked,
			says: "1 locks removed, 1 left because another process may still be working: exclusive lock of root@other (process 7) since 2026-01-02T03:04:05Z"},
		"unlock, lock gone while asking": {run: unlock, ends: ends{exit(0), exit(0), exit(0, ">"+lockB), exit(1, "gone")},
			outcome: "succeeded", code: protocol.ErrLocked},
		"unlock, no repository": {run: unlock, ends: ends{exit(10)}, outcome: "failed", code: protocol.ErrNoRepository},
		"unlock, cancelled":     {run: unlock, cancel: true, ends: ends{exit(0)}, outcome: "cancelled", code: protocol.ErrCancelled},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			// A plan that was cancelled was asked for its first step before.
			job := Job{Run: c.run, IncludesFile: "/i", CancelAsked: c.cancel}
			var commands []string
			var end protocol.Finished
			if c.cancel {
				commands, end = playCancelled(t, job, c.ends...)
			} else {
				commands, end = play(t, job, c.ends...)
			}
			if end.Outcome != c.outcome || end.ErrorCode != c.code || (end.SnapshotID == testSnapshot) != c.snapshot || !strings.Contains(end.Error, c.says) {
				t.Errorf("%+v", end)
			}
			if end.JobID != c.run.JobID || (end.Error == "") != (end.ErrorCode == "") {
				t.Errorf("code %q with %q", end.ErrorCode, end.Error)
			}
			if c.commands != nil && !slices.Equal(commands, c.commands) {
				t.Errorf("ran %q, want %q", commands, c.commands)
			}
		})
	}
}

// playCancelled plays with the cancel arriving during the last main step given.
func playCancelled(t *testing.T, job Job, ends ...func(*Step) StepResult) ([]string, protocol.Finished) {
	t.Helper()
	var results []StepResult
	var commands []string
	for {
		now := job
		now.CancelAsked = len(results) >= 1 && (results[len(results)-1].Interrupt == InterruptCancel || len(results) == len(ends) || cancelledBefore(results))
		step, finished := Next(now, results)
		if finished != nil {
			return commands, *finished
		}
		if len(results) == len(ends) {
			t.Fatalf("wants another step: %v", step.Args)
		}
		commands = append(commands, strings.Join(step.Args[:min(2, len(step.Args))], " "))
		results = append(results, ends[len(results)](step))
	}
}

func cancelledBefore(results []StepResult) bool {
	return slices.ContainsFunc(results, func(r StepResult) bool { return r.Interrupt == InterruptCancel })
}

// No kind of today needs the exclusive lock; those that will are marked so.
func TestExclusiveWorkBeginsWithPlainUnlock(t *testing.T) {
	t.Parallel()
	var seen [][]StepResult
	p := plan{exclusive: true, next: func(_ Job, results []StepResult) (*Step, *protocol.Finished) {
		seen = append(seen, results)
		if len(results) == 0 {
			return &Step{Purpose: PurposeMain, Args: []string{"prune"}}, nil
		}
		return nil, &protocol.Finished{Outcome: protocol.OutcomeSucceeded}
	}}
	var results []StepResult
	var commands []string
	for {
		step, finished := p.step(Job{}, results)
		if finished != nil {
			break
		}
		commands = append(commands, strings.Join(step.Args, " "))
		results = append(results, exit(len(results))(step)) // whatever became of the unlock
	}
	if !slices.Equal(commands, []string{"unlock", "prune"}) || len(seen) != 2 || len(seen[0]) != 0 || len(seen[1]) != 1 || !seen[1][0].is("prune") {
		t.Errorf("ran %q, the plan saw %+v", commands, seen)
	}
}

func TestExplanations(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		exit int
		says string
		code string
	}{
		{10, "Fatal: repository does not exist: unable to open config file", protocol.ErrNoRepository},
		{11, "unable to create lock in backend: repository is already locked exclusively by PID 7 on other", protocol.ErrLocked},
		{12, "Fatal: wrong password or no key found", protocol.ErrWrongPassword},
		{1, "Fatal: all source directories/files do not exist", protocol.ErrMissingInclude},
		{1, "Fatal: --exclude: invalid pattern(s) provided:\n[", protocol.ErrInvalidCommand},
		{1, "Save(<data/ab>) failed: write /r/data: no space left on device", protocol.ErrNoSpace},
		{1, "unexpected HTTP response (507): 507 Insufficient Storage", protocol.ErrRestic},
		{1, "Head https://h/config: tls: failed to verify certificate: x509: certificate signed by unknown authority", protocol.ErrUnreachable},
		{1, "unexpected HTTP response (401): 401 Unauthorized", protocol.ErrBackendForbidden},
		{1, "unexpected HTTP response (403): 403 Forbidden", protocol.ErrBackendForbidden},
		{1, "client.BucketExists: The AWS Access Key Id you provided does not exist: InvalidAccessKeyId", protocol.ErrBackendForbidden},
		{1, "Fatal: create repository at rest:http://h/ failed: dial tcp 127.0.0.1:9: connect: connection refused", protocol.ErrUnreachable},
		{1, "dial tcp: lookup nowhere.invalid: no such host", protocol.ErrUnreachable},
		{1, "subprocess ssh: ssh: Could not resolve hostname nowhere", protocol.ErrUnreachable},
		{1, "subprocess ssh: me@h: Permission denied (publickey).", protocol.ErrBackendForbidden},
		{1, "Fatal: unable to open cache: mkdir /x: permission denied", protocol.ErrInternal},
		{1, "Fatal: unable to open config file: open /srv/r/config: permission denied", protocol.ErrBackendForbidden},
		{2, "fatal error: runtime: cannot allocate memory\n\ngoroutine 1", protocol.ErrRestic},
		{130, "", protocol.ErrInterrupted},
		{1, "something nobody has seen", protocol.ErrRestic},
		{99, "", protocol.ErrRestic},
	} {
		run := testRun(protocol.KindBackup)
		r := StepResult{Purpose: PurposeMain, Args: []string{"backup"}, Output: said(false, strings.Split(c.says, "\n")...), ExitCode: c.exit}
		code, text := explain(run, r)
		if code != c.code {
			t.Errorf("%d %q: %s, want %s", c.exit, c.says, code, c.code)
		}
		if !strings.HasSuffix(text, ".") || strings.Contains(text, "{") || strings.Count(text, ". ") < 1 {
			t.Errorf("%d %q: not a cause and a remedy: %q", c.exit, c.says, text)
		}
	}
	if got := displayURL("rest:https://me:hunter2@h:8000/x"); got != "rest:https://me:***@h:8000/x" {
		t.Error(got)
	}
	for _, url := range []string{"/srv/x@y", "sftp:me@h:/x", "s3:https://h/b", "rest:https://me@h/"} {
		if got := displayURL(url); got != url {
			t.Errorf("%s became %s", url, got)
		}
	}
	if code, text := explain(testRun("backup"), StepResult{StartError: "exec: no such file", Output: said(false)}); code != protocol.ErrNoRestic || !strings.Contains(text, "0.17") {
		t.Errorf("%s %s", code, text)
	}
}
