package weather

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"maps"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/gorilla/websocket"

	"resticfleet/agent/protocol"
)

// Pass decides about one message: what goes on in its place, itself most of the
// time, nothing to lose it. It is called for one message at a time. What a
// server acknowledges in an answer to a batch is shown as an ack of its own for
// every id.
type Pass func(up bool, e protocol.Envelope) []protocol.Envelope

// Proxy stands between agents and a server. Its weather is fine until told.
type Proxy struct {
	// URL is what agents take for the server.
	URL string

	seed     seed
	front    *http.Server
	back     *http.Transport
	handlers sync.WaitGroup
	done     chan struct{} // closed at the end
	close    func()

	lines  atomic.Uint64
	served atomic.Uint64
	asked  atomic.Uint64 // requests
	links  atomic.Uint64 // sockets

	mu       sync.Mutex
	now      Climate
	pass     Pass
	upstream *url.URL
	open     map[*line]struct{}
	counts   map[Fault]int

	passing sync.Mutex // one message at a time
}

// New puts a proxy before the server at an address, on the loopback.
func New(server string, random uint64) (*Proxy, error) {
	p := &Proxy{seed: seed(random), done: make(chan struct{}), open: map[*line]struct{}{}, counts: map[Fault]int{}}
	if err := p.To(server); err != nil {
		return nil, err
	}
	l, err := new(net.ListenConfig).Listen(context.Background(), "tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	p.URL = "http://" + l.Addr().String()
	p.back = &http.Transport{DialContext: p.dial, DisableCompression: true}
	plain := &httputil.ReverseProxy{
		Rewrite:   func(r *httputil.ProxyRequest) { r.SetURL(p.server()) },
		Transport: p.back, FlushInterval: -1, ErrorLog: log.New(io.Discard, "", 0),
	}
	mux := http.NewServeMux()
	mux.Handle("/", plain)
	mux.HandleFunc("GET /agent/v1/ws", func(w http.ResponseWriter, r *http.Request) { p.upgrade(w, r, plain) })
	mux.HandleFunc("POST /agent/v1/messages", p.exchange)
	mux.HandleFunc("GET /agent/v1/commands", p.exchange)
	p.front = &http.Server{
		ReadHeaderTimeout: time.Minute, ErrorLog: log.New(io.Discard, "", 0),
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if !p.enter() {
				panic(http.ErrAbortHandler)
			}
			defer p.handlers.Done()
			mux.ServeHTTP(w, r)
		}),
	}
	serving := make(chan struct{})
	go func() {
		defer close(serving)
		_ = p.front.Serve(listener{l, p}) // until Close
	}()
	p.close = sync.OnceFunc(func() {
		p.mu.Lock()
		close(p.done)
		p.mu.Unlock()
		_ = p.front.Close()
		<-serving
		p.Cut()
		p.handlers.Wait()
		p.back.CloseIdleConnections()
		p.Cut()
	})
	return p, nil
}

// Close ends the proxy and every connection through it. Idempotent.
func (p *Proxy) Close() { p.close() }

// To sends what comes from now on to another address: the server's new one.
func (p *Proxy) To(server string) error {
	to, err := url.Parse(server)
	if err != nil {
		return err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.upstream = to
	return nil
}

// Set changes the weather. Idle counts for connections that begin later.
func (p *Proxy) Set(c Climate) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.now = c
}

// Filter sets what decides about messages from now on; nil lets all through.
func (p *Proxy) Filter(pass Pass) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.pass = pass
}

// Cut ends every connection there is.
func (p *Proxy) Cut() {
	for _, l := range p.all() {
		l.cut()
	}
}

// Stall makes every connection there is half-open. New ones work.
func (p *Proxy) Stall() {
	for _, l := range p.all() {
		if !l.served {
			l.stall()
		}
	}
}

// Report says what has happened how often.
func (p *Proxy) Report() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	var b strings.Builder
	for _, what := range slices.Sorted(maps.Keys(p.counts)) {
		fmt.Fprintf(&b, "%s %d, ", what, p.counts[what])
	}
	return strings.TrimSuffix(b.String(), ", ")
}

// Happened is how often something has happened: a fault, Polled or Lost.
func (p *Proxy) Happened(what Fault) int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.counts[what]
}

func (p *Proxy) climate() Climate {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.now
}

func (p *Proxy) server() *url.URL {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.upstream
}

func (p *Proxy) count(what Fault) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.counts[what]++
}

func (p *Proxy) happens(c Climate, f Fault, place ...uint64) bool {
	if !p.seed.happens(c, f, place...) {
		return false
	}
	p.count(f)
	return true
}

func (p *Proxy) all() []*line {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Collect(maps.Keys(p.open))
}

func (p *Proxy) add(c net.Conn) *line {
	return p.keep(newLine(p, c, p.lines.Add(1), false))
}

func (p *Proxy) dial(ctx context.Context, network, address string) (net.Conn, error) {
	c, err := new(net.Dialer).DialContext(ctx, network, address)
	if err != nil {
		return nil, err
	}
	return p.keep(newLine(p, c, p.served.Add(1), true)), nil
}

func (p *Proxy) keep(l *line) *line {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.open[l] = struct{}{}
	return l
}

// enter counts a request; Close waits for it.
func (p *Proxy) enter() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	select {
	case <-p.done:
		return false
	default:
		p.handlers.Add(1)
		return true
	}
}

func (p *Proxy) has(l *line) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	_, ok := p.open[l]
	return ok
}

func (p *Proxy) forget(l *line) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.open, l)
}

func (p *Proxy) pause(d time.Duration) {
	over := time.NewTimer(d)
	defer over.Stop()
	select {
	case <-over.C:
	case <-p.done:
	}
}

// upgrade is a request for a WebSocket.
func (p *Proxy) upgrade(w http.ResponseWriter, r *http.Request, plain http.Handler) {
	n, c := p.asked.Add(1), p.climate()
	switch {
	case p.happens(c, Refuse, n):
		statuses := c.statuses()
		http.Error(w, "no upgrades here", statuses[p.seed.draw("status", n).IntN(len(statuses))])
	case p.happens(c, Portal, n):
		w.Header().Set("Content-Type", "text/html")
		_, _ = io.WriteString(w, "<!doctype html><title>Sign in</title>")
	case p.happens(c, Strip, n):
		for name := range r.Header {
			if name == "Upgrade" || name == "Connection" || strings.HasPrefix(name, "Sec-Websocket-") {
				r.Header.Del(name)
			}
		}
		plain.ServeHTTP(w, r)
	default:
		p.socket(w, r)
	}
}

func (p *Proxy) socket(w http.ResponseWriter, r *http.Request) {
	to := *p.server()
	to.Scheme = "ws"
	to = *to.JoinPath(r.URL.Path)
	dialer := &websocket.Dialer{NetDialContext: p.dial, HandshakeTimeout: time.Minute}
	header := http.Header{"Authorization": r.Header["Authorization"], "User-Agent": r.Header["User-Agent"]}
	server, res, err := dialer.DialContext(r.Context(), to.String(), header)
	if err != nil {
		if res == nil {
			http.Error(w, "the server is away", http.StatusBadGateway)
			return
		}
		defer res.Body.Close()
		if r, err := read(res); err == nil {
			r.write(w)
		}
		return
	}
	defer server.Close()
	agent, err := new(websocket.Upgrader).Upgrade(w, r, http.Header{"Resticfleet-Boot": res.Header["Resticfleet-Boot"]})
	if err != nil {
		return // the agent is gone
	}
	defer agent.Close()
	number := p.links.Add(1)
	var both sync.WaitGroup
	both.Go(func() { p.carry(&stream{p: p, from: agent, to: server, up: true, number: number}) })
	both.Go(func() { p.carry(&stream{p: p, from: server, to: agent, number: number}) })
	both.Wait()
}

// reply is a server's answer.
type reply struct {
	status int
	header http.Header
	body   []byte
}

func read(res *http.Response) (*reply, error) {
	body, err := io.ReadAll(res.Body)
	return &reply{res.StatusCode, res.Header, body}, err
}

func (r *reply) write(w http.ResponseWriter) {
	maps.Copy(w.Header(), r.header)
	w.Header().Del("Content-Length") // of what may have changed
	w.WriteHeader(r.status)
	_, _ = w.Write(r.body)
}

// exchange is a poll or a batch of messages, and its answer.
func (p *Proxy) exchange(w http.ResponseWriter, r *http.Request) {
	n, c := p.asked.Add(1), p.climate()
	broken := p.happens(c, Gateway, n)
	early := p.seed.draw("early", n).IntN(2) == 0
	body, err := io.ReadAll(io.LimitReader(r.Body, 64<<20))
	if err != nil {
		panic(http.ErrAbortHandler)
	}
	if broken && early {
		http.Error(w, "bad gateway", http.StatusBadGateway)
		return
	}
	times := 1
	if r.Method == http.MethodPost {
		body, times = p.batch(c, n, body)
	}
	if r.Method == http.MethodGet {
		p.count(Polled)
	}
	var said *reply
	for range times {
		if said, err = p.forward(r, body); err != nil {
			if r.Context().Err() != nil {
				if r.Method == http.MethodGet {
					p.count(Lost)
				}
				panic(http.ErrAbortHandler)
			}
			http.Error(w, "the server is away", http.StatusBadGateway)
			return
		}
	}
	if broken {
		said = &reply{status: http.StatusBadGateway, body: []byte("bad gateway")}
	}
	if said.status == http.StatusOK {
		said.body = p.answered(c, n, said.body)
	}
	said.write(w)
}

func (p *Proxy) forward(r *http.Request, body []byte) (*reply, error) {
	out := r.Clone(r.Context())
	to := p.server()
	out.URL.Scheme, out.URL.Host, out.Host, out.RequestURI = to.Scheme, to.Host, to.Host, ""
	out.Body, out.ContentLength = io.NopCloser(bytes.NewReader(body)), int64(len(body))
	out.Header.Del("Connection")
	res, err := p.back.RoundTrip(out)
	if err != nil {
		return nil, err
	}
	defer res.Body.Close()
	return read(res)
}

// batch does to a request's messages what the weather does, and tells how
// often the request is made.
func (p *Proxy) batch(c Climate, n uint64, body []byte) ([]byte, int) {
	var batch struct {
		Messages []protocol.Envelope `json:"messages"`
	}
	if json.Unmarshal(body, &batch) != nil {
		return body, 1 // not ours to judge
	}
	times := 1
	if len(batch.Messages) > 0 && batch.Messages[0].Type == protocol.TypeHello && p.happens(c, Repeat, n) {
		times = 2
	}
	batch.Messages = p.messages(c, n, true, batch.Messages)
	raw, err := json.Marshal(batch)
	if err != nil {
		return body, 1
	}
	return raw, times
}

// messages is what is left of the messages of one request.
func (p *Proxy) messages(c Climate, n uint64, up bool, all []protocol.Envelope) []protocol.Envelope {
	out := []protocol.Envelope{}
	i := uint64(0)
	for _, said := range all {
		for _, e := range p.passed(up, said) {
			i++
			place := []uint64{n, direction(up), i}
			hello := e.Type == protocol.TypeHello
			if p.happens(c, Drop, place...) {
				continue
			}
			out = append(out, e)
			if !hello && p.happens(c, Repeat, place...) {
				out = append(out, e)
			}
			if last := len(out) - 1; up && last > 0 && !hello && out[last-1].Type != protocol.TypeHello && p.happens(c, Shuffle, place...) {
				out[last-1], out[last] = out[last], out[last-1]
			}
		}
	}
	return out
}

func direction(up bool) uint64 {
	if up {
		return 1
	}
	return 0
}

func (p *Proxy) passed(up bool, e protocol.Envelope) []protocol.Envelope {
	p.mu.Lock()
	pass := p.pass
	p.mu.Unlock()
	if pass == nil {
		return []protocol.Envelope{e}
	}
	p.passing.Lock()
	defer p.passing.Unlock()
	return pass(up, e)
}

// answered does to the messages of an answer what the weather does.
func (p *Proxy) answered(c Climate, n uint64, body []byte) []byte {
	var said struct {
		Acknowledged []string             `json:"acknowledged,omitempty"`
		Rejected     []protocol.Rejection `json:"rejected,omitempty"`
		Messages     []protocol.Envelope  `json:"messages"`
	}
	if json.Unmarshal(body, &said) != nil {
		return body
	}
	said.Acknowledged = slices.DeleteFunc(said.Acknowledged, func(id string) bool {
		return len(p.passed(false, protocol.Seal("", protocol.TypeAck, protocol.Ack{Acknowledged: []string{id}}))) == 0
	})
	said.Messages = p.messages(c, n, false, said.Messages)
	changed, err := json.Marshal(said)
	if err != nil {
		return body
	}
	return changed
}

// stream carries one direction of a WebSocket.
type stream struct {
	p        *Proxy
	from, to *websocket.Conn
	up       bool
	number   uint64

	mu    sync.Mutex
	held  [][]byte
	timer *time.Timer
}

// heldFor is how long a message waits to be overtaken.
const heldFor = 30 * time.Millisecond

func (p *Proxy) carry(s *stream) {
	// The other direction ends with this one.
	defer func() { _, _ = s.from.Close(), s.to.Close() }()
	defer s.flush()
	passOn := func(kind int) func(string) error {
		return func(data string) error {
			_ = s.to.WriteControl(kind, []byte(data), time.Now().Add(time.Minute))
			return nil
		}
	}
	s.from.SetPingHandler(passOn(websocket.PingMessage))
	s.from.SetPongHandler(passOn(websocket.PongMessage))
	s.from.SetCloseHandler(func(int, string) error { return nil })
	for n := uint64(0); ; {
		kind, frame, err := s.from.ReadMessage()
		var closed *websocket.CloseError
		if errors.As(err, &closed) && closed.Code != websocket.CloseAbnormalClosure && closed.Code != websocket.CloseNoStatusReceived {
			s.flush()
			_ = s.to.WriteControl(websocket.CloseMessage, websocket.FormatCloseMessage(closed.Code, closed.Text), time.Now().Add(time.Minute))
		}
		if err != nil {
			return
		}
		e, err := protocol.Open(frame)
		if kind != websocket.TextMessage || err != nil {
			if s.write(kind, frame) != nil {
				return
			}
			continue
		}
		for _, e := range p.passed(s.up, e) {
			n++
			if s.message(n, e) != nil {
				return
			}
		}
	}
}

func (s *stream) message(n uint64, e protocol.Envelope) error {
	p, c := s.p, s.p.climate()
	place := []uint64{s.number, 2 + direction(s.up), n}
	frame, err := json.Marshal(e)
	if err != nil {
		return err
	}
	hello := e.Type == protocol.TypeHello
	switch {
	case p.happens(c, Drop, place...):
		return nil
	case s.up && !hello && p.happens(c, Shuffle, place...):
		s.hold(frame)
		return nil
	case !hello && p.happens(c, Repeat, place...):
		if err := s.write(websocket.TextMessage, frame); err != nil {
			return err
		}
	}
	return s.write(websocket.TextMessage, frame)
}

// hold keeps a message until another has overtaken it, or for a moment.
func (s *stream) hold(frame []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.held = append(s.held, frame)
	if s.timer == nil {
		s.timer = time.AfterFunc(heldFor, s.flush)
	}
}

func (s *stream) flush() {
	s.mu.Lock()
	defer s.mu.Unlock()
	_ = s.release()
}

func (s *stream) release() error {
	if s.timer != nil {
		s.timer.Stop()
		s.timer = nil
	}
	held := s.held
	s.held = nil
	for _, frame := range held {
		if err := s.to.WriteMessage(websocket.TextMessage, frame); err != nil {
			return err
		}
	}
	return nil
}

func (s *stream) write(kind int, frame []byte) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.to.WriteMessage(kind, frame); err != nil {
		return err
	}
	return s.release()
}
