package agentapi_test

import (
	"context"
	"database/sql"
	"errors"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/gorilla/websocket"
	"github.com/uptrace/bun"

	"resticfleet/agent/protocol"
	"resticfleet/models"
	"resticfleet/models/modeltest"
)

func ackOf(t testing.TB, e protocol.Envelope) protocol.Ack {
	t.Helper()
	return must[protocol.Ack](t)(protocol.Decode[protocol.Ack](e))
}

func TestTheHelloWindow(t *testing.T) {
	t.Parallel()
	b := setup(t)
	h, token := b.enrolled("web-1")
	g := b.group(h, "www")
	must[*models.Schedule](t)(models.AddSchedule(b.ctx, b.db, h.ID, models.ScheduleFields{Cron: "@daily", Enabled: true, GroupIDs: []string{g.ID.String()}}))
	j := b.run(g)
	c := b.link(token)
	c.next(protocol.TypeScheduleSet)
	run := must[protocol.Run](t)(protocol.Decode[protocol.Run](c.next(protocol.TypeRun)))
	if run.JobID != j.ID.String() {
		t.Errorf("told to run %s", run.JobID)
	}
	if now := must[*models.Host](t)(models.FindHost(b.ctx, b.db, h.ID)); *now.Link != protocol.LinkWebSocket || now.LastSeenAt == nil || now.JournalID != "j" {
		t.Errorf("the host is %+v", now)
	}
	// A click is a hint: it comes at once, and before the slow look (which
	// this server doesn't run).
	c.say("1", protocol.TypeAccepted, protocol.Accepted{JobID: run.JobID})
	c.say("2", protocol.TypeFinished, protocol.Finished{JobID: run.JobID, Outcome: protocol.OutcomeFailed})
	c.until(protocol.TypeAck)
	c.until(protocol.TypeAck)
	next := b.run(g)
	if run := must[protocol.Run](t)(protocol.Decode[protocol.Run](c.until(protocol.TypeRun))); run.JobID != next.ID.String() {
		t.Errorf("told to run %s", run.JobID)
	}
	_ = c.conn.Close()
	b.eventually("the host is seen to be gone", func() bool {
		return must[*models.Host](t)(models.FindHost(b.ctx, b.db, h.ID)).LinkClosedAt != nil
	})
}

func TestTheOlderOfTwoSocketsCountsForNothing(t *testing.T) {
	t.Parallel()
	b := setup(t)
	h, token := b.enrolled("web-1")
	g := b.group(h, "www")
	first := b.run(g)
	older := b.link(token)
	older.until(protocol.TypeRun)
	newer := b.link(token, protocol.HelloJob{JobID: first.ID.String(), State: protocol.JobAccepted})
	// What it sends in the moment before it hears of it.
	_ = older.conn.WriteJSON(protocol.Seal("x", protocol.TypeFinished, protocol.Finished{JobID: first.ID.String(), Outcome: protocol.OutcomeSucceeded, SnapshotID: strings.Repeat("a", 64)}))
	said, code, all := older.ended()
	if code != 4001 || said.Code != "superseded" || !b.log.has("link closed", said.Reason) {
		t.Errorf("closed with %d, %+v\n%s", code, said, b.log)
	}
	for _, e := range all {
		if e.Type == protocol.TypeAck || e.Type == protocol.TypeRun {
			t.Errorf("the older socket got %s %s", e.Type, e.Payload)
		}
	}
	if j := b.job(first.ID); j.State != models.JobSent || j.AcceptedAt == nil {
		t.Errorf("the job is %s", j.State)
	}
	newer.say("1", protocol.TypeFinished, protocol.Finished{JobID: first.ID.String(), Outcome: protocol.OutcomeFailed})
	newer.until(protocol.TypeAck)
	second := b.run(g)
	if run := must[protocol.Run](t)(protocol.Decode[protocol.Run](newer.until(protocol.TypeRun))); run.JobID != second.ID.String() {
		t.Errorf("told to run %s", run.JobID)
	}
	if now := must[*models.Host](t)(models.FindHost(b.ctx, b.db, h.ID)); now.LinkClosedAt != nil {
		t.Error("the older one's end closed the newer one's link")
	}
	if n := b.agents.Links(); n != 1 {
		t.Errorf("%d links", n)
	}
}

func TestADroppedAcceptanceIsAskedForAgain(t *testing.T) {
	t.Parallel()
	b := offering(t, 100*time.Millisecond)
	h, token := b.enrolled("web-1")
	j := b.run(b.group(h, "www"))
	c := b.link(token)
	// job.accepted of the first offer never arrives.
	for range 3 {
		if run := must[protocol.Run](t)(protocol.Decode[protocol.Run](c.until(protocol.TypeRun))); run.JobID != j.ID.String() || run.Attempt != 1 {
			t.Errorf("offered %+v", run)
		}
	}
	c.say("1", protocol.TypeAccepted, protocol.Accepted{JobID: j.ID.String()})
	c.until(protocol.TypeAck)
	// A newer hello shows that the offers have ended, without waiting for one.
	again := b.link(token, protocol.HelloJob{JobID: j.ID.String(), State: protocol.JobAccepted})
	again.next(protocol.TypeScheduleSet)
	again.say("2", protocol.TypeHeartbeat, protocol.Heartbeat{})
	again.next(protocol.TypeAck)
}

func TestAnAcknowledgementFollowsTheCommit(t *testing.T) {
	t.Parallel()
	b := setup(t)
	h, token := b.enrolled("web-1")
	j := b.run(b.group(h, "www"))
	c := b.link(token)
	c.until(protocol.TypeRun)
	// Somebody holds the job's row: the message can't be committed.
	other := modeltest.Pool(t, b.dbURL)
	err := other.RunInTx(b.ctx, &sql.TxOptions{}, func(ctx context.Context, tx bun.Tx) error {
		if _, err := tx.ExecContext(ctx, "select from jobs where id = ? for update", j.ID); err != nil {
			return err
		}
		c.say("1", protocol.TypeAccepted, protocol.Accepted{JobID: j.ID.String()})
		b.eventually("the message waits for the row", func() bool {
			var n int
			err := other.QueryRowContext(ctx, "select count(*) from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock' and query like '%update%'").Scan(&n)
			return err == nil && n > 0
		})
		for {
			select {
			case e := <-c.got:
				if e.Type == protocol.TypeAck {
					t.Errorf("acknowledged before the commit: %s", e.Payload)
				}
				continue
			default:
			}
			return nil
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	if ack := ackOf(t, c.until(protocol.TypeAck)); !slices.Equal(ack.Acknowledged, []string{"1"}) || b.job(j.ID).AcceptedAt == nil {
		t.Errorf("ack %+v", ack)
	}
}

func TestWhatIsNotStoredIsNotAcknowledged(t *testing.T) {
	t.Parallel()
	b := setup(t)
	h, token := b.enrolled("web-1")
	j := b.run(b.group(h, "www"))
	c := b.link(token)
	c.until(protocol.TypeRun)
	b.exec("alter table jobs rename to jobs_away")
	c.say("1", protocol.TypeAccepted, protocol.Accepted{JobID: j.ID.String()})
	b.eventually("the server can't store it", func() bool { return strings.Contains(b.log.String(), "message not stored yet") })
	b.exec("alter table jobs_away rename to jobs")
	c.say("2", protocol.TypeAccepted, protocol.Accepted{JobID: j.ID.String()})
	if ack := ackOf(t, c.until(protocol.TypeAck)); !slices.Equal(ack.Acknowledged, []string{"2"}) || b.job(j.ID).AcceptedAt == nil {
		t.Errorf("ack %+v", ack)
	}
}

func TestWhatCantBeReadHarmsNobody(t *testing.T) {
	t.Parallel()
	b := setup(t)
	_, token := b.enrolled("web-1")
	c := b.link(token)
	c.next(protocol.TypeScheduleSet)
	for _, frame := range []string{"", "{", "[]", "7", `"x"`, "null", `{"id":"1"}`, `{"type":7}`, `{"type":"heartbeat"}{"type":"heartbeat"}`, "\xff\xfe", `{"id":"` + strings.Repeat("x", 300) + `","type":"heartbeat"}`} {
		if err := c.conn.WriteMessage(websocket.TextMessage, []byte(frame)); err != nil {
			t.Fatal(err)
		}
		said := must[protocol.Error](t)(protocol.Decode[protocol.Error](c.next(protocol.TypeError)))
		if said.Code != "malformed" || said.Reason == "" || !b.log.has("message refused", said.Reason) {
			t.Errorf("%q: %+v", frame, said)
		}
	}
	if err := c.conn.WriteMessage(websocket.BinaryMessage, []byte(`{}`)); err != nil {
		t.Fatal(err)
	}
	c.next(protocol.TypeError)
	if n := b.agents.Counts.Malformed.Load(); n != 12 {
		t.Errorf("%d malformed", n)
	}

	c.say("known", protocol.TypeHeartbeat, protocol.Heartbeat{})
	c.say("new", "weather.report", map[string]any{"sky": "blue"})
	for _, id := range []string{"known", "new"} {
		if ack := ackOf(t, c.next(protocol.TypeAck)); !slices.Equal(ack.Acknowledged, []string{id}) {
			t.Errorf("%s: %+v", id, ack)
		}
	}
	c.say("never", protocol.TypeStarted, protocol.Started{JobID: models.NewID[models.JobID]().String()})
	ack := ackOf(t, c.next(protocol.TypeAck))
	if len(ack.Acknowledged) != 0 || len(ack.Rejected) != 1 || ack.Rejected[0].ID != "never" || !b.log.has("message refused", ack.Rejected[0].Reason) {
		t.Errorf("%+v", ack)
	}
	if n := b.agents.Counts.Unknown.Load(); n != 1 {
		t.Errorf("%d unknown", n)
	}
	if n := b.agents.Counts.Rejected.Load(); n != 1 {
		t.Errorf("%d rejected", n)
	}
}

func TestAFrameThatIsTooLargeEndsItsLinkOnly(t *testing.T) {
	t.Parallel()
	b := setup(t)
	_, bystanderToken := b.enrolled("web-2")
	_, token := b.enrolled("web-1")
	bystander := b.link(bystanderToken)
	bystander.next(protocol.TypeScheduleSet)
	exact := b.link(token)
	exact.next(protocol.TypeScheduleSet)
	fitting := `{"id":"x","type":"heartbeat","payload":{"x":"` + strings.Repeat("x", protocol.MaxFrame) + `"}}`
	fitting = strings.Replace(fitting, strings.Repeat("x", len(fitting)-protocol.MaxFrame), "", 1)
	if err := exact.conn.WriteMessage(websocket.TextMessage, []byte(fitting)); err != nil || len(fitting) != protocol.MaxFrame {
		t.Fatal(len(fitting), err)
	}
	exact.next(protocol.TypeAck)
	for _, c := range []*client{exact, b.dial(token)} {
		if err := c.conn.WriteMessage(websocket.TextMessage, []byte(fitting+strings.Repeat(" ", 4<<20))); err != nil {
			t.Fatal(err)
		}
		said, code, _ := c.ended()
		if !strings.Contains(said.Reason, "larger than 1048576 bytes") || (!b.log.has("link closed", said.Reason) && !b.log.has("link refused", said.Reason)) {
			t.Errorf("closed with %d, %+v\n%s", code, said, b.log)
		}
	}
	bystander.say("1", protocol.TypeHeartbeat, protocol.Heartbeat{})
	bystander.next(protocol.TypeAck)
}

func TestABadHelloIsRefusedWithItsReason(t *testing.T) {
	t.Parallel()
	b := setup(t)
	h, token := b.enrolled("web-1")
	for _, frame := range []string{"{", `{"type":"heartbeat","payload":{}}`, `{"type":"hello"}`, `{"type":"hello","payload":[]}`} {
		c := b.dial(token)
		if err := c.conn.WriteMessage(websocket.TextMessage, []byte(frame)); err != nil {
			t.Fatal(err)
		}
		said, code, _ := c.ended()
		if code != websocket.ClosePolicyViolation || said.Code != "bad_hello" || said.Reason == "" || !b.log.has("link refused", said.Reason) {
			t.Errorf("%q: %d %+v\n%s", frame, code, said, b.log)
		}
	}
	if now := must[*models.Host](t)(models.FindHost(b.ctx, b.db, h.ID)); now.LastSeenAt != nil || now.LinkGeneration != 1 {
		t.Errorf("a refused hello opened a link: %+v", now)
	}
}

func TestARefusedSocketSaysWhyOnBothEnds(t *testing.T) {
	t.Parallel()
	b := setup(t)
	h, replaced := b.enrolled("web-1")
	current := b.enroll(h)
	deleted, deletedToken := b.enrolled("web-2")
	must[[]models.JobID](t)(models.DeleteHost(b.ctx, b.db, deleted.ID))
	for _, c := range []struct {
		name   string
		header http.Header
		status int
		msg    string
	}{
		{"no token", http.Header{}, 401, "agent refused"},
		{"another scheme", http.Header{"Authorization": {"Basic " + current}}, 401, "agent refused"},
		{"unknown token", http.Header{"Authorization": {"Bearer rfa_made-up"}}, 401, "agent refused"},
		{"replaced token", http.Header{"Authorization": {"Bearer " + replaced}}, 401, "agent refused"},
		{"deleted host", http.Header{"Authorization": {"Bearer " + deletedToken}}, 410, "agent refused"},
		{"our own origin", http.Header{"Authorization": {"Bearer " + current}, "Origin": {b.web.URL}}, 403, "link refused"},
		{"another origin", http.Header{"Authorization": {"Bearer " + current}, "Origin": {"https://evil.example"}}, 403, "link refused"},
		{"an empty origin", http.Header{"Authorization": {"Bearer " + current}, "Origin": {""}}, 403, "link refused"},
		{"null", http.Header{"Authorization": {"Bearer " + current}, "Origin": {"null"}}, 403, "link refused"},
	} {
		_, res, err := websocket.DefaultDialer.DialContext(b.ctx, b.wsURL(), c.header)
		if !errors.Is(err, websocket.ErrBadHandshake) {
			t.Errorf("%s: %v", c.name, err)
			continue
		}
		detail := problem(t, res)
		if res.StatusCode != c.status || detail == "" || !b.log.has(c.msg, detail) {
			t.Errorf("%s: %d %q\n%s", c.name, res.StatusCode, detail, b.log)
		}
	}
	// Not a WebSocket at all.
	if status, _ := b.request("GET", "/agent/v1/ws", current, nil); status != 400 {
		t.Errorf("a plain GET: %d", status)
	}
	b.link(current)
}

func TestEnrolmentRefusals(t *testing.T) {
	t.Parallel()
	b := setup(t)
	h := must[*models.Host](t)(models.AddHost(b.ctx, b.db, models.HostFields{Name: "web-1"}))
	token := func() string {
		s, _, err := models.NewEnrollmentToken(b.ctx, b.db, h.ID)
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	used, expired := token(), token()
	b.exec("update enrollment_tokens set expires_at = now() - interval '1 second' where token_hash = ?", models.HashToken(expired))
	if status, body := b.request("POST", "/agent/v1/enroll", "", protocol.EnrollRequest{Token: used}); status != 200 {
		t.Fatalf("%d %s", status, body)
	}
	for _, c := range []struct {
		name   string
		body   any
		status int
		why    string
	}{
		{"used", protocol.EnrollRequest{Token: used}, 401, "was used at"},
		{"expired", protocol.EnrollRequest{Token: expired}, 401, "has expired"},
		{"unknown", protocol.EnrollRequest{Token: "rfe_x"}, 401, "is not known"},
		{"none", protocol.EnrollRequest{}, 401, "is not known"},
		{"a bad key", protocol.EnrollRequest{Token: token(), PublicKey: "AAAA"}, 422, "public_key"},
		{"long names", protocol.EnrollRequest{Token: token(), Hostname: strings.Repeat("x", 300)}, 422, "hostname"},
		{"NUL", protocol.EnrollRequest{Token: token(), OS: "a\x00b"}, 422, "os"},
		{"not JSON", "{", 422, "JSON"},
	} {
		res := b.do("POST", "/agent/v1/enroll", "", c.body)
		detail := problem(t, res)
		if res.StatusCode != c.status || !strings.Contains(detail, c.why) || !b.log.has("enrolment refused", detail) {
			t.Errorf("%s: %d %q\n%s", c.name, res.StatusCode, detail, b.log)
		}
	}
	if strings.Contains(b.log.String(), used) {
		t.Error("the log holds a token")
	}
	// A huge body is refused before it is read whole.
	if status, _ := b.request("POST", "/agent/v1/enroll", "", `{"token":"`+strings.Repeat("x", 2<<20)+`"}`); status != 413 {
		t.Errorf("a huge body: %d", status)
	}
}

func TestRevokedAgentsLinkEnds(t *testing.T) {
	t.Parallel()
	b := setup(t)
	h, token := b.enrolled("web-1")
	c := b.link(token)
	must[[]models.JobID](t)(models.DeleteHost(b.ctx, b.db, h.ID))
	b.jobs.HostChanged(h.ID)
	if _, code, _ := c.ended(); code == 0 {
		t.Error("closed without a word")
	}
	again, againToken := b.enrolled("web-2")
	c = b.link(againToken)
	b.enroll(again)
	if said, code, _ := c.ended(); code != 4001 || said.Reason == "" {
		t.Errorf("closed with %d %+v", code, said)
	}
}

func TestAServerThatStopsEndsItsLinksAndTakesNoNewOnes(t *testing.T) {
	t.Parallel()
	b := setup(t)
	_, token := b.enrolled("web-1")
	c := b.link(token)
	_, other := b.enrolled("web-2")
	silent := b.dial(other)
	began := time.Now()
	b.agents.Close()
	if took := time.Since(began); took > 5*time.Second {
		t.Errorf("a socket that says nothing held it up for %v", took)
	}
	if said, code, _ := silent.ended(); code != websocket.CloseServiceRestart || said.Code != "restart" {
		t.Errorf("the silent one was closed with %d %+v", code, said)
	}
	if said, code, _ := c.ended(); code != websocket.CloseServiceRestart || said.Code != "restart" || !b.log.has("link closed", said.Reason) {
		t.Errorf("closed with %d %+v\n%s", code, said, b.log)
	}
	_, res, err := websocket.DefaultDialer.DialContext(b.ctx, b.wsURL(), http.Header{"Authorization": {"Bearer " + token}})
	if err == nil || res.StatusCode != 503 || res.Header.Get("Retry-After") == "" {
		t.Errorf("a new link: %v", err)
	}
	problem(t, res)
}
