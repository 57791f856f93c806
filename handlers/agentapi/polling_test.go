package agentapi_test

import (
	"encoding/json"
	"net/http"
	"slices"
	"testing"
	"time"

	"github.com/gorilla/websocket"

	"resticfleet/agent/protocol"
	"resticfleet/handlers/agentapi"
	"resticfleet/models"
)

// poller is an agent that polls.
type poller struct {
	b       *bundle
	token   string
	session string
}

type answer struct {
	Acknowledged []string
	Rejected     []protocol.Rejection
	Messages     []protocol.Envelope
}

func (a answer) types() []string {
	types := []string{}
	for _, e := range a.Messages {
		types = append(types, e.Type)
	}
	return types
}

func (p *poller) tell(messages ...protocol.Envelope) answer {
	p.b.t.Helper()
	path := "/agent/v1/messages"
	if p.session != "" {
		path += "?session=" + p.session
	}
	status, body := p.b.request("POST", path, p.token, map[string]any{"messages": messages})
	var a answer
	if err := json.Unmarshal(body, &a); err != nil || status != http.StatusOK {
		p.b.t.Fatalf("messages: %d %s", status, body)
	}
	return a
}

// hello opens the link and returns what came with the welcome.
func (p *poller) hello(known ...protocol.HelloJob) answer {
	p.b.t.Helper()
	a := p.tell(protocol.Seal("hello", protocol.TypeHello, protocol.Hello{
		Protocol: 1, JournalID: "j", Timezone: "UTC", Jobs: known, SentAt: time.Now(), LinkReason: "the upgrade was refused (403)",
	}))
	if len(a.Messages) == 0 || a.Messages[0].Type != protocol.TypeWelcome {
		p.b.t.Fatalf("hello was answered by %v", a.types())
	}
	p.session = must[protocol.Welcome](p.b.t)(protocol.Decode[protocol.Welcome](a.Messages[0])).Session
	return a
}

// poll returns the status and what came.
func (p *poller) poll(wait string) (int, answer) {
	p.b.t.Helper()
	status, body := p.b.request("GET", "/agent/v1/commands?session="+p.session+"&wait="+wait, p.token, nil)
	var a answer
	if status == http.StatusOK {
		if err := json.Unmarshal(body, &a); err != nil {
			p.b.t.Fatal(err)
		}
	}
	return status, a
}

func (b *bundle) poller(name string) (*models.Host, *poller) {
	b.t.Helper()
	h, token := b.enrolled(name)
	return h, &poller{b: b, token: token}
}

func TestPollingIsAFullLink(t *testing.T) {
	t.Parallel()
	b := setup(t)
	h, p := b.poller("web-1")
	g := b.group(h, "www")
	if a := p.hello(); !slices.Equal(a.types(), []string{protocol.TypeWelcome, protocol.TypeScheduleSet}) || !slices.Equal(a.Acknowledged, []string{"hello"}) {
		t.Errorf("hello: %v, acknowledged %v", a.types(), a.Acknowledged)
	}
	host := must[*models.Host](t)(models.FindHost(b.ctx, b.db, h.ID))
	if host.Link == nil || *host.Link != protocol.LinkPolling || host.LinkReason == "" || !host.Online(time.Now()) {
		t.Errorf("link %v because %q", host.Link, host.LinkReason)
	}

	// A poll that waits ends as soon as there is a command.
	type polled struct {
		status int
		answer answer
	}
	waiting := make(chan polled, 1)
	go func() { status, a := p.poll("20"); waiting <- polled{status, a} }()
	job := b.run(g)
	got := <-waiting
	if got.status != http.StatusOK || !slices.Equal(got.answer.types(), []string{protocol.TypeRun}) {
		t.Fatalf("poll: %d %v", got.status, got.answer.types())
	}

	// It is repeated until it is accepted, in case the answer was lost.
	if status, a := p.poll("20"); status != http.StatusOK || !slices.Equal(a.types(), []string{protocol.TypeRun}) {
		t.Errorf("an unaccepted command is not repeated: %d %v", status, a.types())
	}
	id := job.ID.String()
	a := p.tell(
		protocol.Seal("m1", protocol.TypeAccepted, protocol.Accepted{JobID: id}),
		protocol.Seal("m2", "from.the.future", nil),
		protocol.Seal("m3", protocol.TypeStarted, protocol.Started{JobID: models.NewID[models.JobID]().String()}),
		protocol.Seal("m4", protocol.TypeStarted, protocol.Started{JobID: id}),
	)
	if !slices.Equal(a.Acknowledged, []string{"m1", "m2", "m4"}) || len(a.Rejected) != 1 || a.Rejected[0].ID != "m3" || a.Rejected[0].Reason == "" {
		t.Errorf("acknowledged %v, rejected %v", a.Acknowledged, a.Rejected)
	}
	if status, a := p.poll("0"); status != http.StatusNoContent {
		t.Errorf("nothing to be sent: %d %v", status, a.types())
	}
	if got := b.job(job.ID); got.State != models.JobRunning {
		t.Errorf("job is %s", got.State)
	}

	// A cancel ends a poll, too.
	go func() { status, a := p.poll("20"); waiting <- polled{status, a} }()
	must[*models.Job](t)(b.jobs.Cancel(b.ctx, job.ID))
	if got := <-waiting; !slices.Equal(got.answer.types(), []string{protocol.TypeCancel}) {
		t.Errorf("cancel: %d %v", got.status, got.answer.types())
	}

	// So does a change of the schedules.
	go func() { status, a := p.poll("20"); waiting <- polled{status, a} }()
	must[*models.Schedule](t)(models.AddSchedule(b.ctx, b.db, h.ID, models.ScheduleFields{Cron: "@daily", Enabled: true, GroupIDs: []string{g.ID.String()}}))
	b.jobs.HostChanged(h.ID)
	if got := <-waiting; !slices.Equal(got.answer.types(), []string{protocol.TypeScheduleSet}) {
		t.Errorf("schedule change: %d %v", got.status, got.answer.types())
	}
}

func TestRepeatedBatchChangesNothing(t *testing.T) {
	t.Parallel()
	b := setup(t)
	h, p := b.poller("web-1")
	job := b.run(b.group(h, "www"))
	p.hello()
	id, exit := job.ID.String(), 0
	batch := []protocol.Envelope{
		protocol.Seal("m1", protocol.TypeStarted, protocol.Started{JobID: id}),
		protocol.Seal("m2", protocol.TypeLog, protocol.Log{JobID: id, Lines: []protocol.LogLine{{Seq: 1, At: time.Now(), Level: protocol.LevelInfo, Text: "one"}}}),
		protocol.Seal("m3", protocol.TypeFinished, protocol.Finished{JobID: id, Outcome: protocol.OutcomeSucceeded, ExitCode: &exit, SnapshotID: snapshotID}),
	}
	for range 3 {
		if a := p.tell(batch...); !slices.Equal(a.Acknowledged, []string{"m1", "m2", "m3"}) {
			t.Errorf("acknowledged %v, rejected %v", a.Acknowledged, a.Rejected)
		}
	}
	if got := b.job(job.ID); got.State != models.JobSucceeded || got.Late {
		t.Errorf("job is %s, late %v", got.State, got.Late)
	}
	if lines := must[[]models.LogLine](t)(models.ListLog(b.ctx, b.db, job.ID, 0, 10)); len(lines) != 1 {
		t.Errorf("%d log lines, want one", len(lines))
	}
}

const snapshotID = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"

// One generation for both transports: whoever came last is the host's link.
func TestSocketAndPollEndEachOther(t *testing.T) {
	t.Parallel()
	b := setup(t)
	h, p := b.poller("web-1")
	p.hello()
	socket := b.link(p.token)
	socket.until(protocol.TypeScheduleSet)
	if status, _ := p.poll("1"); status != http.StatusConflict {
		t.Errorf("the older poll got %d, want 409", status)
	}
	status, _ := b.request("POST", "/agent/v1/messages?session="+p.session, p.token, map[string]any{"messages": []protocol.Envelope{
		protocol.Seal("m", protocol.TypeHeartbeat, protocol.Heartbeat{}),
	}})
	if status != http.StatusConflict {
		t.Errorf("the older session's messages got %d, want 409", status)
	}
	p.session = ""
	p.hello()
	if said, _, _ := socket.ended(); said.Code != "superseded" {
		t.Errorf("the older socket was told %q", said.Code)
	}
	b.run(b.group(h, "www"))
	if status, a := p.poll("5"); status != http.StatusOK || !slices.Equal(a.types(), []string{protocol.TypeRun}) {
		t.Errorf("the newer poll got %d %v", status, a.types())
	}
}

func TestANewerPollEndsTheOlder(t *testing.T) {
	t.Parallel()
	b := setup(t)
	_, p := b.poller("web-1")
	p.hello()
	if status, a := p.poll("0"); status != http.StatusNoContent && !slices.Equal(a.types(), []string{protocol.TypeScheduleSet}) {
		t.Fatalf("%d %v", status, a.types())
	}
	older := make(chan int, 1)
	go func() { status, _ := p.poll("60"); older <- status }()
	for {
		p.poll("0")
		select {
		case status := <-older:
			if status != http.StatusNoContent {
				t.Errorf("the older poll got %d, want 204", status)
			}
			return
		case <-time.After(20 * time.Millisecond):
		case <-b.ctx.Done():
			t.Fatal("the older poll goes on")
		}
	}
}

func TestPollsAreRefusedWithAReason(t *testing.T) {
	t.Parallel()
	b := setup(t)
	h, p := b.poller("web-1")
	p.hello()
	for name, body := range map[string]string{
		"not JSON":       "{",
		"not envelopes":  `{"messages":[1]}`,
		"without a type": `{"messages":[{"id":"x"}]}`,
	} {
		res := b.do("POST", "/agent/v1/messages", p.token, body)
		if detail := problem(t, res); res.StatusCode != http.StatusUnprocessableEntity || detail == "" || !b.log.has("messages refused", detail) {
			t.Errorf("%s: %d %q\n%s", name, res.StatusCode, detail, b.log)
		}
	}
	res := b.do("GET", "/agent/v1/commands?wait=0", p.token, nil)
	_ = res.Body.Close()
	if res.Header.Get(agentapi.BootHeader) == "" {
		t.Error("answers don't name the server's process")
	}
	must[[]models.JobID](t)(models.DeleteHost(b.ctx, b.db, h.ID))
	if res := b.do("GET", "/agent/v1/commands?wait=0", p.token, nil); res.StatusCode != http.StatusGone || problem(t, res) == "" {
		t.Errorf("a deleted host's poll got %d", res.StatusCode)
	}
}

// What cuts polls may leave them less than a second.
func TestAPollMayLastAFractionOfASecond(t *testing.T) {
	t.Parallel()
	b := setup(t)
	_, p := b.poller("web-1")
	p.hello()
	for wait, want := range map[string]int{"0.050": http.StatusNoContent, "-1": 422, "NaN": 422, "soon": 422} {
		if status, a := p.poll(wait); status != want {
			t.Errorf("a poll of %q got %d %v", wait, status, a.types())
		}
	}
}

// By the process an agent knows that a link was cut by a restart, and not by
// something on the way.
func TestASocketsAnswerNamesTheServersProcess(t *testing.T) {
	t.Parallel()
	b := setup(t)
	_, token := b.enrolled("web-1")
	conn, res, err := websocket.DefaultDialer.DialContext(b.ctx, b.wsURL(), http.Header{"Authorization": {"Bearer " + token}})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if got := res.Header.Get(agentapi.BootHeader); got == "" {
		t.Error("it doesn't")
	}
}
