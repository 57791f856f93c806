package transport

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/gorilla/websocket"

	"resticfleet/agent/protocol"
)

// maxPingInterval bounds what a welcome may ask for: a dead line must be
// noticed within minutes.
const maxPingInterval = 5 * time.Minute

// goodbye is how long an ending link may take to say so.
const goodbye = time.Second

// webSocket is a Link with one goroutine that writes and one that reads.
type webSocket struct {
	conn         *websocket.Conn
	writeTimeout time.Duration
	lessons      *Lessons
	wanted       atomic.Int64 // the ping interval that the server asks for
	pingInterval atomic.Int64 // the one that the way to it allows
	heardAt      atomic.Int64 // UnixNano
	welcomed     atomic.Bool

	out      chan outgoing
	in       chan incoming
	pongs    chan []byte
	interval chan time.Duration

	ending sync.Once
	done   chan struct{} // closed once err is set
	err    error
	wg     sync.WaitGroup
}

type outgoing struct {
	frame []byte
	sent  chan error
}

type incoming struct {
	envelope protocol.Envelope
	err      error
}

// DialWebSocket opens the WebSocket link. A *RefusedError is the HTTP answer
// of a server that did not upgrade.
func DialWebSocket(ctx context.Context, c Config) (Link, error) {
	c = c.withDefaults()
	to, err := c.endpoint("ws")
	if err != nil {
		return nil, err
	}
	to.Scheme = map[string]string{"http": "ws", "https": "wss"}[to.Scheme]
	tlsConfig, err := c.tlsConfig()
	if err != nil {
		return nil, err
	}
	// The handshake doesn't listen to ctx: until it is over, the connection does.
	deaf := func() bool { return true }
	dialer := &websocket.Dialer{
		Proxy: c.Proxy, TLSClientConfig: tlsConfig, HandshakeTimeout: c.HandshakeTimeout,
		NetDialContext: func(dialCtx context.Context, network, address string) (net.Conn, error) {
			conn, err := new(net.Dialer).DialContext(dialCtx, network, address)
			if err == nil {
				deaf = context.AfterFunc(ctx, func() { _ = conn.Close() })
			}
			return conn, err
		},
	}
	header := http.Header{"Authorization": {"Bearer " + c.Token}, "User-Agent": {c.UserAgent}}
	conn, answer, err := dialer.DialContext(ctx, to.String(), header)
	if answer != nil {
		defer answer.Body.Close()
	}
	deaf()
	switch {
	case errors.Is(err, websocket.ErrBadHandshake) && answer != nil && answer.StatusCode != http.StatusSwitchingProtocols:
		return nil, refused(answer)
	case ctx.Err() != nil:
		if err == nil {
			_ = conn.Close() // nobody waits for it any more
		}
		return nil, ctx.Err()
	case err != nil:
		if !FallsBack(err) { // nobody is there
			c.Lessons.doubt()
		}
		return nil, c.unreachable(err)
	}
	c.Lessons.answeredBy(answer.Header.Get(bootHeader))
	return newWebSocket(conn, c), nil
}

func newWebSocket(conn *websocket.Conn, c Config) *webSocket {
	l := &webSocket{
		conn: conn, writeTimeout: c.WriteTimeout, lessons: c.Lessons,
		out: make(chan outgoing), in: make(chan incoming, 8),
		pongs: make(chan []byte, 1), interval: make(chan time.Duration, 1), done: make(chan struct{}),
	}
	every := c.Lessons.ping(c.PingInterval)
	l.wanted.Store(int64(c.PingInterval))
	l.pingInterval.Store(int64(every))
	conn.SetReadLimit(protocol.MaxFrame)
	conn.SetPongHandler(func(string) error { return l.heard() })
	conn.SetPingHandler(func(data string) error {
		select {
		case l.pongs <- []byte(data):
		default: // one is on its way
		}
		return l.heard()
	})
	conn.SetCloseHandler(func(int, string) error { return nil }) // the writer answers
	l.wg.Add(2)
	go l.read()
	go l.write(time.NewTicker(every))
	return l
}

// heard puts off the read deadline: two pings may be lost, a third means that
// the line is dead though nobody said so. Until the welcome there is none: a
// server that is busy with a hello answers no pings, and a fleet that took this
// for dead lines would ask ever more often, and less and less patiently.
func (l *webSocket) heard() error {
	l.heardAt.Store(time.Now().UnixNano())
	if !l.welcomed.Load() {
		return nil
	}
	return l.conn.SetReadDeadline(time.Now().Add(time.Duration(l.pingInterval.Load()) * 5 / 2))
}

func (l *webSocket) read() {
	defer l.wg.Done()
	for {
		if err := l.heard(); err != nil {
			l.end(err)
			return
		}
		kind, frame, err := l.conn.ReadMessage()
		if err != nil {
			l.learn(err)
			l.end(whyEnded(err))
			return
		}
		var m incoming
		if kind != websocket.TextMessage {
			m.err = &MalformedError{errors.New("a frame that is not text")}
		} else if m.envelope, err = protocol.Open(frame); err != nil {
			m.err = &MalformedError{err}
		}
		select {
		case l.in <- m:
		case <-l.done:
			return
		}
	}
}

// learn draws the lesson from a socket that ended without a word.
func (l *webSocket) learn(err error) {
	select {
	case <-l.done: // our own doing
		return
	default:
	}
	wanted := time.Duration(l.wanted.Load())
	var closed *websocket.CloseError
	var timeout net.Error
	switch {
	case errors.Is(err, websocket.ErrReadLimit), errors.As(err, &closed) && closed.Code != websocket.CloseAbnormalClosure:
	case errors.As(err, &timeout) && timeout.Timeout():
		l.lessons.socketSilent(time.Duration(l.pingInterval.Load()), wanted)
	default:
		l.lessons.socketCut(time.Since(time.Unix(0, l.heardAt.Load())), wanted)
	}
}

func whyEnded(err error) error {
	var closed *websocket.CloseError
	var timeout net.Error
	switch {
	case errors.As(err, &closed) && closed.Text != "" && closed.Code != websocket.CloseAbnormalClosure:
		return fmt.Errorf("the server closed the link: %s (%d)", oneLine(closed.Text), closed.Code)
	case errors.As(err, &closed) && closed.Code != websocket.CloseAbnormalClosure:
		return fmt.Errorf("the server closed the link: %w", err)
	case errors.Is(err, websocket.ErrReadLimit):
		return fmt.Errorf("the server sent more than %d bytes at once: %w", protocol.MaxFrame, err)
	case errors.As(err, &timeout) && timeout.Timeout():
		return fmt.Errorf("%w: the server has been silent for two and a half ping intervals", ErrBroken)
	}
	return fmt.Errorf("%w: %w", ErrBroken, err)
}

func (l *webSocket) write(ping *time.Ticker) {
	defer l.wg.Done()
	defer ping.Stop()
	defer l.conn.Close()
	for {
		var err error
		select {
		case <-l.done:
			// It may be broken: then this fails, and nobody misses it.
			_ = l.conn.WriteControl(websocket.CloseMessage, websocket.FormatCloseMessage(websocket.CloseGoingAway, ""), time.Now().Add(goodbye))
			return
		case m := <-l.out:
			if err = l.conn.SetWriteDeadline(time.Now().Add(l.writeTimeout)); err == nil {
				err = l.conn.WriteMessage(websocket.TextMessage, m.frame)
			}
			m.sent <- err
		case data := <-l.pongs:
			err = l.conn.WriteControl(websocket.PongMessage, data, time.Now().Add(l.writeTimeout))
		case <-ping.C:
			err = l.conn.WriteControl(websocket.PingMessage, nil, time.Now().Add(l.writeTimeout))
		case every := <-l.interval:
			ping.Reset(every)
		}
		if err != nil {
			l.end(fmt.Errorf("%w: %w", ErrBroken, err))
		}
	}
}

// end gives the link its reason to be over; the first one counts. What still
// reads or writes gets a moment, then the writer closes the connection.
func (l *webSocket) end(why error) {
	l.ending.Do(func() {
		l.err = why
		close(l.done)
		_ = l.conn.NetConn().SetDeadline(time.Now().Add(goodbye)) // a closed one needs none
	})
}

func (l *webSocket) Send(ctx context.Context, e protocol.Envelope) error {
	frame, err := json.Marshal(e)
	if err != nil {
		return fmt.Errorf("message %s: %w", e.Type, err)
	}
	if len(frame) > protocol.MaxFrame {
		return ErrTooLarge
	}
	m := outgoing{frame: frame, sent: make(chan error, 1)}
	select {
	case l.out <- m:
	case <-ctx.Done():
		return ctx.Err()
	case <-l.done:
		return l.err
	}
	select {
	case err := <-m.sent:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (l *webSocket) Receive(ctx context.Context) (protocol.Envelope, error) {
	select { // what came before the end is still heard
	case m := <-l.in:
		return m.envelope, m.err
	default:
	}
	select {
	case m := <-l.in:
		return m.envelope, m.err
	case <-ctx.Done():
		return protocol.Envelope{}, ctx.Err()
	case <-l.done:
	}
	select {
	case m := <-l.in:
		return m.envelope, m.err
	default:
		return protocol.Envelope{}, l.err
	}
}

func (l *webSocket) Welcomed(w protocol.Welcome) {
	l.welcomed.Store(true)
	every := min(time.Duration(w.PingIntervalMS)*time.Millisecond, maxPingInterval)
	if every <= 0 {
		every = time.Duration(l.wanted.Load())
	}
	l.wanted.Store(int64(every))
	every = l.lessons.ping(every)
	l.pingInterval.Store(int64(every))
	// The deadline of the read under way may be a longer one's; net.Conn lets
	// it be moved meanwhile.
	_ = l.conn.NetConn().SetReadDeadline(time.Now().Add(every * 5 / 2)) // a closed one needs none
	select {
	case l.interval <- every:
	case <-l.done:
	}
}

func (l *webSocket) Close() {
	l.end(ErrClosed)
	l.wg.Wait()
}
