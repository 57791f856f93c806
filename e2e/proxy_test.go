package e2e

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"strings"
	"sync"
	"testing"

	"github.com/gorilla/websocket"

	"resticfleet/agent/protocol"
)

// linkProxy stands between agents and a server, and decides frame by frame what
// gets through. Everything but the WebSocket passes unseen.
type linkProxy struct {
	t      *testing.T
	target target // the server, by the proxy's address

	mu sync.Mutex
	// pass says whether a message goes on; it is called for one message at a
	// time. Nil lets everything through.
	pass func(fromAgent bool, e protocol.Envelope) bool
}

// before puts a proxy before a server.
func before(t *testing.T, at target) *linkProxy {
	t.Helper()
	to, err := url.Parse(at.url)
	if err != nil {
		t.Fatal(err)
	}
	p := &linkProxy{t: t, target: at}
	plain := &httputil.ReverseProxy{Rewrite: func(r *httputil.ProxyRequest) { r.SetURL(to) }}
	mux := http.NewServeMux()
	mux.Handle("/", plain)
	mux.HandleFunc("/agent/v1/ws", func(w http.ResponseWriter, r *http.Request) { p.link(w, r, "ws://"+to.Host+r.URL.Path) })
	web := httptest.NewServer(mux)
	t.Cleanup(web.Close)
	p.target.url = web.URL
	// While the server is away the proxy answers for it, and an agent that may
	// would poll then, past the filter.
	p.target.link = protocol.LinkWebSocket
	return p
}

// filter sets what gets through from now on.
func (p *linkProxy) filter(pass func(fromAgent bool, e protocol.Envelope) bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.pass = pass
}

func (p *linkProxy) passes(fromAgent bool, frame []byte) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	var e protocol.Envelope
	return p.pass == nil || json.Unmarshal(frame, &e) != nil || p.pass(fromAgent, e)
}

func (p *linkProxy) link(w http.ResponseWriter, r *http.Request, to string) {
	server, res, err := websocket.DefaultDialer.DialContext(r.Context(), to, http.Header{"Authorization": r.Header["Authorization"]})
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadGateway) // the server is away
		return
	}
	_ = res.Body.Close()
	defer server.Close()
	agent, err := new(websocket.Upgrader).Upgrade(w, r, nil)
	if err != nil {
		p.t.Error(err)
		return
	}
	defer agent.Close()
	var both sync.WaitGroup
	carry := func(from, to *websocket.Conn, fromAgent bool) {
		defer func() { _, _ = from.Close(), to.Close() }() // the other one ends with this
		for {
			typ, frame, err := from.ReadMessage()
			if err != nil {
				return
			}
			if p.passes(fromAgent, frame) && to.WriteMessage(typ, frame) != nil {
				return
			}
		}
	}
	both.Go(func() { carry(agent, server, true) })
	both.Go(func() { carry(server, agent, false) })
	both.Wait()
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
