package e2e

import (
	"encoding/json"
	"strings"
	"testing"

	"resticfleet/agent/protocol"
	"resticfleet/e2e/weather"
)

// linkProxy stands between agents and a server; the weather in it is fine
// until told.
type linkProxy struct {
	*weather.Proxy
	target target // the server, by the proxy's address
}

// before puts a proxy before a server.
func before(t *testing.T, at target) *linkProxy {
	t.Helper()
	p, err := weather.New(at.url, 1)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Close)
	at.url = p.URL
	return &linkProxy{p, at}
}

// filter sets which messages get through from now on; nil lets all.
func (p *linkProxy) filter(pass func(fromAgent bool, e protocol.Envelope) bool) {
	if pass == nil {
		p.Filter(nil)
		return
	}
	p.Filter(func(up bool, e protocol.Envelope) []protocol.Envelope {
		if pass(up, e) {
			return []protocol.Envelope{e}
		}
		return nil
	})
}

// about reports whether a message upward is of a job, and an acknowledgement
// one of its message of this kind: accepted, started, finished.
func about(job, kind string, e protocol.Envelope) bool {
	if e.Type != protocol.TypeAck {
		return strings.HasPrefix(e.Type, "job.") && e.ID == job+"-"+kind
	}
	var ack protocol.Ack
	if json.Unmarshal(e.Payload, &ack) != nil {
		return false
	}
	for _, id := range ack.Acknowledged {
		if id == job+"-"+kind {
			return true
		}
	}
	return false
}
