package transcript

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gorilla/websocket"
)

// tap stands between an agent and a server and writes down what they say. A
// message is written before it is passed on, so that what a line answers stands
// above it.
type tap struct {
	t        *testing.T
	url      string
	upstream string

	mu    sync.Mutex
	moved chan struct{} // closed and replaced at every line
	lines []line
	// drop says that a downward message is lost on the way; it is called
	// under the lock, with the number of the link.
	drop  func(link int, message object) bool
	link  int
	conns [2]*websocket.Conn // of the link there is: the agent's, the server's
	pumps sync.WaitGroup
}

func newTap(t *testing.T, upstream string) *tap {
	t.Helper()
	p := &tap{t: t, upstream: upstream, moved: make(chan struct{}), drop: func(int, object) bool { return false }}
	mux := http.NewServeMux()
	mux.HandleFunc("POST /agent/v1/enroll", p.enrol)
	mux.HandleFunc("GET /agent/v1/ws", p.upgrade)
	front := httptest.NewServer(mux)
	p.url = front.URL
	t.Cleanup(func() {
		p.cut()
		front.Close()
		p.pumps.Wait()
	})
	return p
}

// write adds a line.
func (p *tap) write(l line) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.append(l)
}

func (p *tap) append(l line) {
	p.lines = append(p.lines, l)
	close(p.moved)
	p.moved = make(chan struct{})
}

// until waits for a state of affairs, asked under the lock.
func (p *tap) until(what string, met func() bool) {
	p.t.Helper()
	timeout := time.NewTimer(patience)
	defer timeout.Stop()
	for {
		p.mu.Lock()
		ok, moved := met(), p.moved
		p.mu.Unlock()
		if ok {
			return
		}
		select {
		case <-moved:
		case <-timeout.C:
			p.mu.Lock()
			defer p.mu.Unlock()
			p.t.Fatalf("waited in vain until %s; said so far:\n%v", what, p.lines)
		}
	}
}

// quiet says that the newest link's messages are all acknowledged.
func (p *tap) quiet() bool {
	waiting := map[string]bool{}
	for _, l := range p.lines {
		switch {
		case l.is(up, "hello"):
			waiting = map[string]bool{}
		case l.Dir == up:
			waiting[text(l.Message, "id")] = true
		case l.is(down, "ack"):
			for _, id := range acknowledged(l.Message) {
				delete(waiting, id)
			}
		}
	}
	return len(waiting) == 0
}

// said says that there was a message of this type about this job on the newest
// link; "" for any.
func (p *tap) said(dir, typ, job string) bool {
	said := false
	for _, l := range p.lines {
		if l.is(up, "hello") {
			said = false
		}
		said = said || l.is(dir, typ) && (job == "" || text(payload(l.Message), "job_id") == job)
	}
	return said
}

// cut ends the link there is without a word.
func (p *tap) cut() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for i, conn := range p.conns {
		if conn != nil {
			_ = conn.NetConn().Close()
			p.conns[i] = nil
		}
	}
}

func (p *tap) enrol(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return
	}
	asked, err := parse(body)
	if err != nil {
		p.t.Error(err)
	}
	p.write(line{Dir: up, Message: asked})
	req, err := http.NewRequestWithContext(r.Context(), http.MethodPost, p.upstream+r.URL.Path, bytes.NewReader(body))
	if err != nil {
		p.t.Error(err)
		return
	}
	req.Header.Set("Content-Type", r.Header.Get("Content-Type"))
	resp, err := http.DefaultTransport.RoundTrip(req)
	if err != nil {
		p.t.Error(err)
		return
	}
	defer resp.Body.Close()
	defer http.DefaultTransport.(*http.Transport).CloseIdleConnections()
	answer, err := io.ReadAll(resp.Body)
	if err != nil {
		p.t.Error(err)
		return
	}
	given, err := parse(answer)
	if err != nil {
		p.t.Error(err)
	}
	p.write(line{Dir: down, Message: given})
	w.Header().Set("Content-Type", resp.Header.Get("Content-Type"))
	w.WriteHeader(resp.StatusCode)
	_, _ = w.Write(answer)
}

func (p *tap) upgrade(w http.ResponseWriter, r *http.Request) {
	server, resp, err := websocket.DefaultDialer.DialContext(r.Context(), "ws"+strings.TrimPrefix(p.upstream, "http")+r.URL.Path, bearer(token(r)))
	if resp != nil {
		defer resp.Body.Close()
	}
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadGateway)
		return
	}
	defer server.Close()
	agent, err := new(websocket.Upgrader).Upgrade(w, r, nil)
	if err != nil {
		return
	}
	defer agent.Close()
	p.mu.Lock()
	p.link++
	link := p.link
	p.conns = [2]*websocket.Conn{agent, server}
	p.mu.Unlock()
	p.pumps.Add(1)
	go func() { defer p.pumps.Done(); p.pump(down, link, server, agent) }()
	p.pump(up, link, agent, server)
}

func token(r *http.Request) string {
	return strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer ")
}

// pump passes messages on until either side ends.
func (p *tap) pump(dir string, link int, from, to *websocket.Conn) {
	defer to.NetConn().Close()
	for {
		_, frame, err := from.ReadMessage()
		if err != nil {
			return
		}
		message, err := parse(frame)
		if err != nil {
			p.t.Error(err)
			return
		}
		if !p.note(dir, link, message) {
			continue
		}
		if err := to.WriteMessage(websocket.TextMessage, frame); err != nil {
			return
		}
	}
}

// note writes a message down; false when it is lost, or of a link that is cut.
func (p *tap) note(dir string, link int, message object) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if link != p.link || p.conns[0] == nil {
		return false
	}
	if dir == down && p.drop(link, message) {
		close(p.moved)
		p.moved = make(chan struct{})
		return false
	}
	l := line{Dir: dir, Message: message}
	if l.is(down, "schedule.set") {
		digest, err := digestV1(payload(message))
		if err != nil {
			p.t.Error(fmt.Errorf("digest: %w", err))
		}
		l.Digest = digest
	}
	p.append(l)
	return true
}
