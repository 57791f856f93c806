package agentapi_test

import (
	"testing"
	"time"

	"resticfleet/agent/protocol"
	"resticfleet/models"
)

// silentFor puts a host's last contact back.
func (b *bundle) silentFor(h *models.Host, d time.Duration) time.Time {
	b.t.Helper()
	b.exec("update hosts set last_seen_at = now() - make_interval(secs => ?) where id = ?", d.Seconds(), h.ID)
	return *b.host(h).LastSeenAt
}

func (b *bundle) host(h *models.Host) *models.Host {
	b.t.Helper()
	return must[*models.Host](b.t)(models.FindHost(b.ctx, b.db, h.ID))
}

// Whatever an agent asks or says is contact; a contact of a moment ago is not
// written again.
func TestContactIsByAnyTransport(t *testing.T) {
	t.Parallel()
	b := setup(t)
	h, p := b.poller("web-1")
	p.hello()
	for name, speak := range map[string]func(){
		"messages": func() { p.tell(protocol.Seal("beat", protocol.TypeHeartbeat, protocol.Heartbeat{})) },
		"schedule": func() {
			if status, _ := b.request("GET", "/agent/v1/schedule", p.token, nil); status != 200 {
				t.Errorf("schedule: %d", status)
			}
		},
		"poll": func() { p.poll("0") },
	} {
		b.silentFor(h, time.Hour)
		if b.host(h).Online(time.Now()) {
			t.Error("online after an hour of silence")
		}
		speak()
		if !b.host(h).Online(time.Now()) {
			t.Errorf("%s: no contact", name)
		}
		if name == "poll" {
			continue
		}
		before := b.silentFor(h, 10*time.Second)
		speak()
		if at := b.host(h).LastSeenAt; !at.Equal(before) {
			t.Errorf("%s: written again after 10 s", name)
		}
	}
}

// A superseded session's messages are no contact.
func TestMessagesOfAnOlderLinkAreNoContact(t *testing.T) {
	t.Parallel()
	b := setup(t)
	h, p := b.poller("web-1")
	p.hello()
	old := p.session
	p.session = ""
	p.hello()
	b.silentFor(h, time.Hour)
	status, _ := b.request("POST", "/agent/v1/messages?session="+old, p.token, []protocol.Envelope{
		protocol.Seal("beat", protocol.TypeHeartbeat, protocol.Heartbeat{}),
	})
	if status != 409 || b.host(h).Online(time.Now()) {
		t.Errorf("status %d, online %v", status, b.host(h).Online(time.Now()))
	}
}
