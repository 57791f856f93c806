package agent

import (
	"encoding/json"
	"fmt"
	"log/slog"
	"math"
	"slices"
	"strings"
	"testing"
	"time"

	"resticfleet/agent/protocol"
)

// desk is an outbox over a runner whose jobs are as the test writes them down;
// nothing runs.
type desk struct {
	t testing.TB
	*outbox
	clock time.Time
	log   *logText
}

func newDesk(t testing.TB, limits outboxLimits) *desk {
	t.Helper()
	r, err := NewRunner(RunnerConfig{StateDir: t.TempDir(), Key: func() ([]byte, error) { return nil, nil }})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(r.Stop)
	d := &desk{t: t, clock: time.Now(), log: &logText{}}
	d.outbox = newOutbox(slog.New(slog.NewTextHandler(d.log, nil)), limits)
	d.runner = r
	d.begin(nil, nil)
	return d
}

// job writes down a job that runs and has said these lines.
func (d *desk) job(id string, lines ...string) *job {
	d.t.Helper()
	r := d.runner
	j := r.newJob(id)
	run := protocol.Run{JobID: id, Kind: protocol.KindBackup, Tag: "group"}
	if err := j.dir.create(run); err != nil {
		d.t.Fatal(err)
	}
	if _, _, err := r.journal.Accept(run, time.Now()); err != nil {
		d.t.Fatal(err)
	}
	r.mu.Lock()
	r.jobs[id] = j
	r.mu.Unlock()
	d.change(id, func(e *Entry) { e.State, e.StartedAt = protocol.JobRunning, time.Now() })
	d.say(j, lines...)
	return j
}

func (d *desk) say(j *job, lines ...string) {
	d.t.Helper()
	l, err := j.openLog()
	if err != nil {
		d.t.Fatal(err)
	}
	for _, line := range lines {
		if err := l.note(fmt.Sprint(l.last()), protocol.LevelInfo, line); err != nil {
			d.t.Fatal(err)
		}
	}
}

func (d *desk) change(id string, f func(*Entry)) {
	d.t.Helper()
	if _, err := d.runner.journal.Update(id, f); err != nil {
		d.t.Fatal(err)
	}
}

func (d *desk) end(j *job, f protocol.Finished) {
	d.t.Helper()
	l, err := j.openLog()
	if err != nil {
		d.t.Fatal(err)
	}
	f.JobID, f.LastLogSeq = j.id, l.last()
	d.change(j.id, func(e *Entry) { e.State, e.Result = protocol.JobFinished, &f })
}

// sent is all there is to send now.
func (d *desk) sent() []protocol.Envelope {
	d.t.Helper()
	var all []protocol.Envelope
	for {
		e, _ := d.next(d.clock)
		if e == nil {
			return all
		}
		if raw, err := json.Marshal(*e); err != nil || len(raw) > protocol.MaxFrame {
			d.t.Errorf("%s has %d bytes, %v", e.ID, len(raw), err)
		}
		if all = append(all, *e); len(all) > 1000 {
			d.t.Fatal("it never stops")
		}
	}
}

func ids(all []protocol.Envelope) []string {
	names := []string{}
	for _, e := range all {
		names = append(names, e.ID)
	}
	return names
}

func (d *desk) expect(want ...string) {
	d.t.Helper()
	if got := ids(d.sent()); !slices.Equal(got, append([]string{}, want...)) {
		d.t.Errorf("sent %q, want %q", got, want)
	}
}

func (d *desk) ack(ids ...string) { d.acknowledge(protocol.Ack{Acknowledged: ids}) }

func TestOutboxTellsInOrderAndOnce(t *testing.T) {
	t.Parallel()
	d := newDesk(t, outboxLimits{})
	j := d.job("a", "one", "two")
	d.expect("a-accepted", "a-started", "a-log-1")
	d.expect()
	d.say(j, "three")
	d.expect("a-log-3")
	j.setProgress(protocol.Progress{JobID: "a", Seq: 5, Percent: 10})
	d.expect("a-progress-5")
	j.setProgress(protocol.Progress{JobID: "a", Seq: 6, Percent: 11})
	j.setProgress(protocol.Progress{JobID: "a", Seq: 7, Percent: 12})
	d.expect() // at most one a second,
	d.clock = d.clock.Add(time.Second)
	d.expect("a-progress-7") // and only the newest
	d.end(j, protocol.Finished{Outcome: protocol.OutcomeSucceeded})
	j.setProgress(protocol.Progress{JobID: "a", Seq: 8, Percent: 13})
	d.clock = d.clock.Add(time.Second)
	d.expect("a-finished")
	d.ack("a-accepted", "a-started", "a-log-1", "a-log-3", "a-finished", "of another session")
	d.expect()
	if pending := d.runner.Pending(); len(pending) != 0 || len(d.jobs) != 0 || len(d.inFlight) != 0 {
		t.Errorf("left over: %v %v %v", pending, d.jobs, d.inFlight)
	}
}

func TestOutboxCountsLogLinesOnlyWithoutAGap(t *testing.T) {
	t.Parallel()
	d := newDesk(t, outboxLimits{logBytes: 1, resendAfter: time.Minute})
	j := d.job("a", "one", "two", "three")
	d.end(j, protocol.Finished{Outcome: protocol.OutcomeSucceeded})
	d.expect("a-accepted", "a-started", "a-log-1", "a-log-2", "a-log-3", "a-finished")
	d.ack("a-accepted", "a-started", "a-log-2", "a-log-3", "a-finished")
	if s, ok := d.runner.Status("a"); !ok || s.AckedLogSeq != 0 {
		t.Fatalf("the first line isn't there: %+v", s)
	}
	d.expect()
	d.clock = d.clock.Add(time.Minute)
	d.expect("a-log-1")
	d.ack("a-log-1")
	if _, ok := d.runner.Status("a"); ok {
		t.Error("everything is there")
	}
}

func TestOutboxStartsWhereTheServerIsInANewSession(t *testing.T) {
	t.Parallel()
	d := newDesk(t, outboxLimits{logBytes: 1})
	j := d.job("a", "one", "two")
	d.expect("a-accepted", "a-started", "a-log-1", "a-log-2")
	d.ack("a-log-1")
	d.begin(d.runner.Hello(), nil) // which has said that it runs
	d.expect("a-log-2")
	d.end(j, protocol.Finished{})
	d.expect("a-finished")
	d.begin(d.runner.Hello(), nil)
	d.expect("a-log-2", "a-finished")

	k := d.job("b", "one")
	d.end(k, protocol.Finished{})
	d.begin([]protocol.HelloJob{{JobID: "a", State: protocol.JobFinished}, {JobID: "b", State: protocol.JobAccepted}}, nil)
	if got := ids(d.sent()); !slices.Contains(got, "b-started") || slices.Contains(got, "b-accepted") || slices.Contains(got, "a-started") {
		t.Error(got)
	}
	d.offered("b")
	d.expect("b-accepted", "b-started", "b-finished")
}

// A server whose database was put back in time has less than it acknowledged.
func TestOutboxTellsAgainWhatTheServerHasLost(t *testing.T) {
	t.Parallel()
	d := newDesk(t, outboxLimits{logBytes: 1})
	d.job("a", "one", "two", "three")
	d.expect("a-accepted", "a-started", "a-log-1", "a-log-2", "a-log-3")
	d.ack("a-log-1", "a-log-2", "a-log-3")
	d.begin(d.runner.Hello(), []protocol.WelcomeJob{{JobID: "a", LogSeq: 3}})
	d.expect()
	d.begin(d.runner.Hello(), []protocol.WelcomeJob{{JobID: "b", LogSeq: 0}}) // of a job that isn't ours
	d.expect()
	d.begin(d.runner.Hello(), []protocol.WelcomeJob{{JobID: "a", LogSeq: 1}})
	d.expect("a-log-2", "a-log-3")
	d.begin(d.runner.Hello(), []protocol.WelcomeJob{{JobID: "a", LogSeq: -7}})
	d.expect("a-log-1", "a-log-2", "a-log-3")
}

// What of an answer a broken link has brought over is not told again: over a slow
// one a long answer would never end.
func TestOutboxGoesOnInAnAnswer(t *testing.T) {
	t.Parallel()
	d := newDesk(t, outboxLimits{answerWindow: 2})
	d.answered("a", 4)
	d.expect("a-accepted", "a-started", "a-answer-1", "a-answer-2")
	stored := func(seq int64) { d.begin(d.runner.Hello(), []protocol.WelcomeJob{{JobID: "a", AnswerSeq: seq}}) }
	stored(1)
	d.expect("a-answer-2", "a-answer-3")
	stored(-5)
	d.expect("a-answer-1", "a-answer-2")
	stored(4)
	d.expect("a-finished")
	stored(1000) // it has ended there
	d.expect("a-finished")
}

func TestOutboxKeepsItsWindows(t *testing.T) {
	t.Parallel()
	d := newDesk(t, outboxLimits{logBytes: 1, window: 8, logWindow: 3, resendAfter: time.Minute})
	var many []string
	for i := range 50 {
		many = append(many, fmt.Sprint("line ", i))
	}
	d.job("a", many...)
	d.expect("a-accepted", "a-started", "a-log-1", "a-log-2", "a-log-3")
	for _, id := range []string{"b", "c", "d"} {
		d.job(id)
	}
	d.expect("b-accepted", "b-started", "c-accepted")
	d.clock = d.clock.Add(time.Minute)
	if got := ids(d.sent()); len(got) != 8 {
		t.Errorf("after a silence the same eight go again: %q", got)
	}
	d.ack("a-log-1", "b-accepted", "c-accepted")
	d.expect("a-log-4", "c-started", "d-accepted")
}

func TestOutboxTellsAJobThatCouldNotBeWrittenDown(t *testing.T) {
	t.Parallel()
	d := newDesk(t, outboxLimits{})
	j := d.runner.newJob("a")
	j.unsaved = &protocol.Finished{JobID: "a", Outcome: protocol.OutcomeFailed, ErrorCode: protocol.ErrNoSpace, Stats: map[string]any{"nan": math.NaN()}}
	d.runner.mu.Lock()
	d.runner.jobs["a"] = j
	d.runner.mu.Unlock()
	d.expect("a-finished") // and never accepted: that would promise a journal entry
	d.ack("a-finished")
	d.expect()
	if len(d.runner.Pending()) != 0 {
		t.Error("it is still pending")
	}
}

func TestOutboxLeavesOutWhatCanNotArrive(t *testing.T) {
	t.Parallel()
	d := newDesk(t, outboxLimits{})
	j := d.job("a", strings.Repeat("ä\x01", maxLogText), "after")
	names := make([]string, 100)
	for i := range names {
		names[i] = strings.Repeat("\x01", 4096)
	}
	d.end(j, protocol.Finished{Error: strings.Repeat("\x01", protocol.MaxFrame), Unreadable: names, Stats: map[string]any{"big": strings.Repeat("x", protocol.MaxFrame)}})
	if got := ids(d.sent()); len(got) == 0 || got[len(got)-1] != "a-finished" {
		t.Error(got)
	}
	d.acknowledge(protocol.Ack{Rejected: []protocol.Rejection{{ID: "a-log-1", Reason: "too long"}, {ID: "a-finished", Reason: "no such job"}, {ID: "a-log-2"}}})
	d.sent()
	for id := range d.inFlight {
		d.ack(id)
	}
	if len(d.runner.Pending()) != 0 || !strings.Contains(d.log.String(), "no such job") {
		t.Errorf("%+v\n%s", d.runner.Pending(), d.log)
	}
}

func TestOutboxDoesWithoutALogThatIsGone(t *testing.T) {
	t.Parallel()
	d := newDesk(t, outboxLimits{resendAfter: time.Minute})
	j := d.job("a", "one")
	d.end(j, protocol.Finished{})
	d.change("a", func(e *Entry) { e.Result.LastLogSeq = 99 })
	d.expect("a-accepted", "a-started", "a-log-1", "a-finished")
	d.ack("a-accepted", "a-started", "a-log-1", "a-finished")
	if len(d.runner.Pending()) != 0 {
		t.Errorf("%+v", d.runner.Pending())
	}
}

// answered writes down a look-up that has ended, with so many pieces of answer.
func (d *desk) answered(id string, pieces int) {
	d.t.Helper()
	j := d.job(id)
	var file strings.Builder
	for n := range pieces {
		fmt.Fprintf(&file, "[{\"n\":%d}]\n", n+1)
	}
	if err := writeDurably(j.dir.answer(), []byte(file.String())); err != nil {
		d.t.Fatal(err)
	}
	d.end(j, protocol.Finished{Outcome: protocol.OutcomeSucceeded, LastAnswerSeq: int64(pieces)})
}

// The end of a look-up is told behind its whole answer: a lost piece goes again,
// and a new session begins anew.
func TestOutboxTellsAnAnswerBeforeItsEnd(t *testing.T) {
	t.Parallel()
	d := newDesk(t, outboxLimits{resendAfter: time.Minute, answerWindow: 2})
	d.answered("a", 3)
	d.expect("a-accepted", "a-started", "a-answer-1", "a-answer-2")
	d.ack("a-accepted", "a-started", "a-answer-2")
	d.expect()
	d.clock = d.clock.Add(time.Minute)
	d.expect("a-answer-1")
	d.ack("a-answer-1")
	again := d.sent()
	if got := ids(again); !slices.Equal(got, []string{"a-answer-3"}) {
		t.Fatalf("%q", got)
	}
	if piece, err := protocol.Decode[protocol.Answer](again[0]); err != nil || piece.JobID != "a" || piece.Seq != 3 || string(piece.Items[0]) != `{"n":3}` {
		t.Errorf("%+v, %v", piece, err)
	}
	d.begin(d.runner.Hello(), nil)
	d.expect("a-answer-1", "a-answer-2")
	d.ack("a-answer-1", "a-answer-2")
	d.expect("a-answer-3")
	d.ack("a-answer-3")
	d.expect("a-finished")
	d.ack("a-finished")
	if _, ok := d.runner.Status("a"); ok {
		t.Error("everything is there")
	}
	if exists(d.runner.runDir("a").answer()) {
		t.Error("the answer is kept although the server has it")
	}
}

// What can't be told stands in nobody's way: the server sees by the end's number
// that something is missing.
func TestOutboxDoesWithoutAPieceThatCanNotArrive(t *testing.T) {
	t.Parallel()
	d := newDesk(t, outboxLimits{})
	d.answered("a", 2)
	d.expect("a-accepted", "a-started", "a-answer-1", "a-answer-2")
	d.acknowledge(protocol.Ack{Acknowledged: []string{"a-answer-1"}, Rejected: []protocol.Rejection{{ID: "a-answer-2", Reason: "no"}}})
	d.expect("a-finished")

	gone := newDesk(t, outboxLimits{})
	gone.answered("b", 2)
	if err := writeDurably(gone.runner.runDir("b").answer(), []byte("torn")); err != nil {
		t.Fatal(err)
	}
	gone.expect("b-accepted", "b-started", "b-finished")
}
