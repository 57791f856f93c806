package jobs_test

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"resticfleet/agent/protocol"
	"resticfleet/jobs"
	"resticfleet/models"
)

// plans are the items of an answer: snapshot n stays where keep says so.
func plans(t *testing.T, keep ...bool) []json.RawMessage {
	t.Helper()
	var items []json.RawMessage
	for i, k := range keep {
		item := protocol.PlanItem{Keep: k, Snapshot: protocol.Snapshot{
			ID: fmt.Sprintf("%064x", i+1), Time: time.Date(2026, 11, 1+i, 2, 0, 0, 0, time.UTC), Hostname: "web-1", Paths: []string{"/srv/www"},
		}}
		if k {
			item.Reasons = []string{"last snapshot"}
		}
		items = append(items, must[json.RawMessage](t)(json.Marshal(item)))
	}
	return items
}

type previewed struct {
	plan *models.RetentionPlan
	err  error
}

// preview asks the first server, and returns what the second sends to the agent
// for it.
func (b *bundle) preview(ctx context.Context, link *jobs.Link, g *models.Group, policy models.Retention) (protocol.Run, chan previewed) {
	b.t.Helper()
	answer := make(chan previewed, 1)
	go func() {
		plan, err := b.servers[0].PreviewRetention(ctx, g.HostID, g.ID, policy, models.System)
		answer <- previewed{plan, err}
	}()
	for {
		for _, m := range must[[]protocol.Envelope](b.t)(b.servers[1].Outgoing(b.ctx, link)) {
			if m.Type == protocol.TypeRun {
				return must[protocol.Run](b.t)(protocol.Decode[protocol.Run](m)), answer
			}
		}
		select {
		case a := <-answer:
			b.t.Fatalf("answered without asking: %+v", a)
		case <-b.ctx.Done():
			b.t.Fatal("nothing is sent")
		default:
		}
	}
}

// The answer comes to one server while another waits for it; what is held stays,
// and nothing of it is left behind.
func TestAPreviewIsAnsweredThroughAnotherServer(t *testing.T) {
	t.Parallel()
	b := setup(t)
	h := b.host("web-1", "/srv/repo")
	g := b.group(h, "www")
	g = must[*models.Group](t)(models.UpdateGroup(b.ctx, b.db, h.ID, g.ID, models.GroupFields{Name: "www", Tag: "site", Includes: g.Includes}))
	b.exec("insert into snapshot_holds (host_id, snapshot_id) values (?, ?)", h.ID, fmt.Sprintf("%064x", 2))
	link, _ := b.hello(1, h)
	b.exec("update hosts set agent_protocol = 3 where id = ?", h.ID)
	run, answer := b.preview(b.ctx, link, g, models.Retention{KeepLast: 1})
	if run.Kind != protocol.KindSnapshots || run.Preview == nil || !slices.Equal(run.Preview.Tags, []string{"site", "www"}) || run.Preview.Retention.KeepLast != 1 || len(run.Forget) != 0 {
		t.Errorf("asks %+v", run)
	}
	b.say(1, link, protocol.TypeAnswer, protocol.Answer{JobID: run.JobID, Seq: 1, Items: plans(t, false, false)})
	b.say(1, link, protocol.TypeAnswer, protocol.Answer{JobID: run.JobID, Seq: 2, Items: plans(t, false, false, true)[2:]})
	b.say(1, link, protocol.TypeFinished, protocol.Finished{JobID: run.JobID, Outcome: protocol.OutcomeSucceeded, LastAnswerSeq: 2})
	a := <-answer
	if a.err != nil || len(a.plan.Keep) != 2 || len(a.plan.Remove) != 1 {
		t.Fatalf("%+v", a)
	}
	newest, held := a.plan.Keep[0], a.plan.Keep[1]
	if newest.Reasons[0] != "last snapshot" || newest.Held || held.Reasons[0] != "held" || !held.Held || a.plan.Remove[0].ID != fmt.Sprintf("%064x", 1) || len(a.plan.Remove[0].Reasons) != 0 {
		t.Errorf("%+v", a.plan)
	}
	if n := b.count("select count(*) from job_answers"); n != 0 {
		t.Errorf("%d pieces are left", n)
	}
	// Before the first list an empty policy is asked about, too: as one that keeps
	// any number, since restic refuses none.
	run, answer = b.preview(b.ctx, link, g, models.Retention{})
	if run.Preview.Retention.KeepLast < 1_000_000 {
		t.Errorf("asks %+v", run.Preview)
	}
	b.say(1, link, protocol.TypeAnswer, protocol.Answer{JobID: run.JobID, Seq: 1, Items: plans(t, true, true)})
	b.say(1, link, protocol.TypeFinished, protocol.Finished{JobID: run.JobID, Outcome: protocol.OutcomeSucceeded, LastAnswerSeq: 1})
	if a := <-answer; a.err != nil || len(a.plan.Keep) != 2 || len(a.plan.Remove) != 0 || fmt.Sprint(a.plan.Keep[0].Reasons) != "[the policy keeps everything]" {
		t.Errorf("an empty policy: %+v", a)
	}
	if g := must[*models.Group](t)(models.FindGroup(b.ctx, b.db, h.ID, g.ID)); g.Retention.KeepLast != 0 {
		t.Error("the preview changed the policy")
	}
}

func TestAPreviewThatBringsNothingSaysWhy(t *testing.T) {
	t.Parallel()
	b := setup(t)
	h := b.host("web-1", "/srv/repo")
	g := b.group(h, "www")
	policy := models.Retention{KeepDaily: 7}
	ask := func() error {
		_, err := b.servers[0].PreviewRetention(b.ctx, h.ID, g.ID, policy, models.System)
		return err
	}
	b.exec("update hosts set agent_protocol = 3 where id = ?", h.ID)
	if err := ask(); models.CodeOf(err) != models.EUnavailable || !strings.Contains(err.Error(), "web-1 is not there") {
		t.Errorf("an absent host: %v", err)
	}
	if n := b.count("select count(*) from jobs where kind = 'snapshots'"); n != 0 {
		t.Error("a job is made for an absent host")
	}
	link, _ := b.hello(1, h)
	b.exec("update hosts set agent_protocol = 3 where id = ?", h.ID)
	// Pieces that are missing are no plan.
	run, answer := b.preview(b.ctx, link, g, policy)
	b.say(1, link, protocol.TypeAnswer, protocol.Answer{JobID: run.JobID, Seq: 1, Items: plans(t, true)})
	b.say(1, link, protocol.TypeFinished, protocol.Finished{JobID: run.JobID, Outcome: protocol.OutcomeSucceeded, LastAnswerSeq: 2})
	if a := <-answer; models.CodeOf(a.err) != models.EUnavailable || !strings.Contains(a.err.Error(), "2 pieces") {
		t.Errorf("half an answer: %+v", a)
	}
	run, answer = b.preview(b.ctx, link, g, policy)
	b.say(1, link, protocol.TypeFinished, protocol.Finished{JobID: run.JobID, Outcome: protocol.OutcomeFailed, Error: "Wrong password.", ErrorCode: protocol.ErrWrongPassword})
	if a := <-answer; models.CodeOf(a.err) != models.EUnavailable || !strings.Contains(a.err.Error(), "Wrong password.") {
		t.Errorf("a failure: %+v", a)
	}
	// Who goes away takes the question along, and so does the end of patience.
	ctx, leave := context.WithCancel(b.ctx)
	run, answer = b.preview(ctx, link, g, policy)
	leave()
	if a := <-answer; a.err == nil {
		t.Error("answered nobody")
	}
	asked := func(id string) bool {
		return b.count("select count(*) from jobs where id = ? and cancel_requested_at is not null", id) == 1
	}
	if !asked(run.JobID) {
		t.Error("the look-up goes on for nobody")
	}
	b.finish(1, link, must[models.JobID](t)(models.ParseID[models.JobID](run.JobID)))
	b.servers[0].PreviewWait = time.Millisecond
	if err := ask(); models.CodeOf(err) != models.EUnavailable || !strings.Contains(err.Error(), "in time") {
		t.Errorf("a slow host: %v", err)
	}
	if n := b.count("select count(*) from jobs where kind = 'snapshots' and state = 'queued'"); n != 0 {
		t.Error("the look-up stays")
	}
	// What came too late is swept.
	b.exec("insert into job_answers (job_id, seq, items) values (?, 1, '[]')", run.JobID)
	sweep := func(age string, left int) {
		t.Helper()
		b.exec("update jobs set finished_at = now() - ?::interval where id = ?", age, run.JobID)
		if err := models.SweepPreviews(b.ctx, b.db); err != nil {
			t.Fatal(err)
		}
		if n := b.count("select count(*) from job_answers"); n != left {
			t.Errorf("after %s %d pieces", age, n)
		}
	}
	sweep("9 minutes", 1)
	sweep("11 minutes", 0)
}

// Two policies are looked at, one after the other, and the host answers the
// older question last: each is answered with its own plan, piece by piece, and
// one that nobody waits for any more changes nothing.
func TestAnOlderPreviewsLateAnswerIsNotTheNewerOnes(t *testing.T) {
	t.Parallel()
	b := setup(t)
	h := b.host("web-1", "/srv/repo")
	g := b.group(h, "www")
	link, _ := b.hello(1, h)
	b.exec("update hosts set agent_protocol = 3 where id = ?", h.ID)
	answers := func(run protocol.Run, seq int64, items []json.RawMessage) {
		t.Helper()
		b.say(1, link, protocol.TypeAnswer, protocol.Answer{JobID: run.JobID, Seq: seq, Items: items})
	}
	ends := func(run protocol.Run, last int64) {
		t.Helper()
		b.say(1, link, protocol.TypeFinished, protocol.Finished{JobID: run.JobID, Outcome: protocol.OutcomeSucceeded, LastAnswerSeq: last})
	}
	counts := func(what string, a previewed, keep, remove int) {
		t.Helper()
		if a.err != nil || len(a.plan.Keep) != keep || len(a.plan.Remove) != remove {
			t.Errorf("%s: %+v, want %d kept and %d removed", what, a, keep, remove)
		}
	}
	keep := func(n int) []json.RawMessage { // the newest of three
		return plans(t, n > 2, n > 1, n > 0)
	}
	for _, gone := range []bool{false, true} {
		ctx, leave := context.WithCancel(b.ctx)
		older, first := b.preview(ctx, link, g, models.Retention{KeepLast: 1})
		newer, second := b.preview(b.ctx, link, g, models.Retention{KeepLast: 2})
		if older.Preview.Retention.KeepLast != 1 || newer.Preview.Retention.KeepLast != 2 {
			t.Fatalf("asked %+v and %+v", older.Preview, newer.Preview)
		}
		if gone {
			leave()
			if a := <-first; a.err == nil {
				t.Error("answered nobody")
			}
		}
		answers(older, 1, keep(1)[:2])
		answers(newer, 1, keep(2)[:1])
		answers(older, 2, keep(1)[2:])
		answers(newer, 2, keep(2)[1:])
		if gone {
			ends(older, 2)
		}
		ends(newer, 2)
		counts("the newer one", <-second, 2, 1)
		if !gone {
			ends(older, 2)
			counts("the older one", <-first, 1, 2)
		}
		leave()
	}
	if n := b.count("select count(*) from job_answers"); n != 2 { // swept in a while
		t.Errorf("%d pieces are left, want those that nobody came for", n)
	}
}
