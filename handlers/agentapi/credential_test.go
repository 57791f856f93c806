package agentapi_test

import (
	"context"
	"encoding/json"
	"strings"
	"testing"
	"time"

	"resticfleet/agent/protocol"
	"resticfleet/models"
	"resticfleet/models/modeltest"
)

// replica is another server on the same database that hears no hint of the
// first: what it knows of it, it has from looking.
func (b *bundle) replica() *bundle {
	b.t.Helper()
	r := &bundle{t: b.t, ctx: b.ctx, dbURL: b.dbURL, log: &lines{}}
	r.serve(modeltest.Sealer(b.t), time.Hour)
	ctx, stop := context.WithCancel(context.WithoutCancel(b.ctx))
	looked := make(chan struct{})
	go func() { defer close(looked); r.agents.Run(ctx) }()
	b.t.Cleanup(func() { stop(); <-looked })
	return r
}

// Whoever loses the credential loses the link with it, on whatever server,
// within a second, and hears why.
func TestALinkEndsWithItsCredentialOnEveryServer(t *testing.T) {
	t.Parallel()
	for _, end := range []struct {
		name   string
		do     func(b *bundle, h *models.Host)
		code   string
		status int
		says   string
	}{
		{"enrolled anew", func(b *bundle, h *models.Host) { b.enroll(h) }, "unauthorized", 401, "replaced by a newer enrolment"},
		{"deleted", func(b *bundle, h *models.Host) {
			must[[]models.JobID](b.t)(models.DeleteHost(b.ctx, b.db, h.ID))
			b.jobs.HostChanged(h.ID)
		}, "gone", 410, "was deleted"},
	} {
		for _, where := range []string{"the same server", "another server"} {
			for _, link := range []string{protocol.LinkWebSocket, protocol.LinkPolling} {
				t.Run(end.name+", "+link+" to "+where, func(t *testing.T) {
					t.Parallel()
					b := setup(t)
					h, token := b.enrolled("web-1")
					at := b
					if where == "another server" {
						at = b.replica()
					}
					if link == protocol.LinkWebSocket {
						c := at.link(token)
						c.next(protocol.TypeScheduleSet)
						began := time.Now()
						end.do(b, h)
						said, closed, _ := c.ended()
						took := time.Since(began)
						if said.Code != end.code || closed != 4001 || !strings.Contains(said.Reason, end.says) || !at.log.has("link closed", said.Reason) {
							t.Errorf("closed with %d %+v\n%s", closed, said, at.log)
						}
						wantSoon(t, took)
						return
					}
					first := at.post(token, "", protocol.Seal("hello", protocol.TypeHello, protocol.Hello{JournalID: "j"}))
					session := must[protocol.Welcome](t)(protocol.Decode[protocol.Welcome](first[0])).Session
					b.exec("update hosts set last_seen_at = null")
					answer := make(chan struct {
						status int
						detail string
					}, 1)
					go func() {
						status, body := at.request("GET", "/agent/v1/commands?wait=60&session="+session, token, nil)
						var p struct{ Detail string }
						_ = json.Unmarshal(body, &p) // no problem has no detail
						answer <- struct {
							status int
							detail string
						}{status, p.Detail}
					}()
					b.eventually("the poll waits", func() bool {
						return must[*models.Host](t)(models.FindHost(b.ctx, b.db, h.ID)).LastSeenAt != nil
					})
					began := time.Now()
					end.do(b, h)
					got := <-answer
					took := time.Since(began)
					if got.status != end.status || !strings.Contains(got.detail, end.says) {
						t.Errorf("%d %s\n%s", got.status, got.detail, at.log)
					}
					wantSoon(t, took)
				})
			}
		}
	}
}

// wantSoon is the promised second, and what a busy machine adds: nothing else
// than the look for what has changed comes in less than many times of it.
func wantSoon(t *testing.T, took time.Duration) {
	t.Helper()
	t.Logf("after %v", took.Round(time.Millisecond))
	if took > 5*time.Second {
		t.Errorf("only after %v", took)
	}
}
