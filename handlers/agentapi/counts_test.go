package agentapi_test

import (
	"bytes"
	"compress/gzip"
	"io"
	"net/http"
	"strconv"
	"strings"
	"testing"

	"github.com/gorilla/websocket"

	"resticfleet/agent/protocol"
	"resticfleet/models"
)

// metrics reads /metrics as Prometheus does: compressed.
func (b *bundle) metrics(token string) map[string]int {
	b.t.Helper()
	res := b.do("GET", "/metrics", token, nil, "Accept-Encoding", "gzip")
	defer res.Body.Close()
	if res.StatusCode != http.StatusOK || res.Header.Get("Content-Encoding") != "gzip" {
		b.t.Fatalf("metrics: %d, %q", res.StatusCode, res.Header.Get("Content-Encoding"))
	}
	plain := must[*gzip.Reader](b.t)(gzip.NewReader(res.Body))
	values := map[string]int{}
	for line := range bytes.Lines(must[[]byte](b.t)(io.ReadAll(plain))) {
		if name, value, ok := strings.Cut(strings.TrimSpace(string(line)), " "); ok && strings.HasPrefix(name, "resticfleet_agent_") {
			values[strings.TrimSuffix(strings.TrimPrefix(name, "resticfleet_agent_"), "_total")] = must[int](b.t)(strconv.Atoi(value))
		}
	}
	return values
}

// Whatever is refused or ignored is counted, once, over both transports.
func TestWhatIsRefusedIsCounted(t *testing.T) {
	t.Parallel()
	b := replicas(t, 1)[0].bundle
	viewer, _, err := models.AddAPIToken(b.ctx, b.db, "prometheus", models.RoleViewer)
	if err != nil {
		t.Fatal(err)
	}
	before := b.metrics(viewer)
	counted := func(what, want string, then func()) {
		t.Helper()
		then()
		b.eventually(what+" is counted", func() bool {
			now := b.metrics(viewer)
			if now[want] == before[want] {
				return false
			}
			before[want]++
			for name, value := range now {
				if name != "links" && value != before[name] {
					t.Errorf("%s: %s went from %d to %d", what, name, before[name], value)
				}
			}
			before = now
			return true
		})
	}
	huge := `{"id":"x","type":"heartbeat","payload":"` + strings.Repeat("x", protocol.MaxFrame) + `"}`
	foreign := protocol.Started{JobID: models.NewID[models.JobID]().String()}

	// Over a WebSocket.
	h, token := b.enrolled("socket")
	c := b.link(token)
	c.next(protocol.TypeScheduleSet)
	counted("a malformed frame", "messages_malformed", func() { _ = c.conn.WriteMessage(websocket.TextMessage, []byte("{")) })
	counted("an unknown frame", "messages_unknown", func() { c.say("1", "weather.report", nil) })
	counted("a frame about a foreign job", "messages_rejected", func() { c.say("2", protocol.TypeStarted, foreign) })
	counted("a frame too large", "messages_oversized", func() { _ = c.conn.WriteMessage(websocket.TextMessage, []byte(huge)) })
	c.ended()
	counted("a frame of an older link", "messages_superseded", func() {
		// The server may notice by itself before it reads the frame.
		for b.agents.Counts.Superseded.Load() == 0 {
			older := b.link(token)
			if _, err := models.OpenLink(b.ctx, b.db, h.ID, models.HashToken(token), protocol.LinkWebSocket, "another server's"); err != nil {
				t.Fatal(err)
			}
			_ = older.conn.WriteJSON(protocol.Seal("3", protocol.TypeHeartbeat, protocol.Heartbeat{}))
			older.ended()
		}
	})
	counted("a bad hello", "links_refused", func() { b.dial(token).say("4", protocol.TypeHeartbeat, protocol.Heartbeat{}) })

	// Over polling.
	_, p := b.poller("poller")
	p.hello()
	post := func(body string) {
		t.Helper()
		b.request("POST", "/agent/v1/messages?session="+p.session, p.token, body)
	}
	counted("a malformed batch", "messages_malformed", func() { post("{") })
	counted("an unknown message", "messages_unknown", func() { p.tell(protocol.Seal("1", "weather.report", nil)) })
	counted("a message about a foreign job", "messages_rejected", func() { p.tell(protocol.Seal("2", protocol.TypeStarted, foreign)) })
	counted("a batch too large", "messages_oversized", func() { post("[" + huge + "]") })
	counted("a batch of an older session", "messages_superseded", func() {
		b.request("POST", "/agent/v1/messages?session=older", p.token, []protocol.Envelope{protocol.Seal("3", protocol.TypeHeartbeat, protocol.Heartbeat{})})
	})
	counted("an unknown credential", "links_refused", func() { b.request("GET", "/agent/v1/commands?wait=0", "rfa_made-up", nil) })
}
