package agentapi

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"

	"github.com/google/uuid"
	"github.com/gorilla/websocket"
	"github.com/labstack/echo/v4"

	"resticfleet/agent/protocol"
	"resticfleet/jobs"
	"resticfleet/models"
)

const (
	helloTimeout = 15 * time.Second
	writeTimeout = 10 * time.Second
	// goodbye is how long an ending link may take to say so.
	goodbye = time.Second
	// touchEvery is how often a link that only pings writes its last contact:
	// well within models.OnlineFor.
	touchEvery = 20 * time.Second
	// Close codes of our own, beside RFC 6455's.
	closeSuperseded = 4001
)

var (
	// errTooLarge ends a link whose agent sends a frame beyond the limit.
	errTooLarge = fmt.Errorf("a frame is larger than %d bytes", protocol.MaxFrame)
	errStopping = errors.New("the server is stopping; try again in a moment")
)

// maxDrained is how much of a frame that is too large is read all the same: a
// connection closed before its input is read would swallow the reason.
const maxDrained = 16 << 20

// readFrame is ReadMessage with a limit whose reason both ends are told.
func readFrame(conn *websocket.Conn) (typ int, frame []byte, err error) {
	typ, r, err := conn.NextReader()
	if err != nil {
		return 0, nil, err
	}
	frame, err = io.ReadAll(io.LimitReader(r, protocol.MaxFrame+1))
	if err == nil && len(frame) > protocol.MaxFrame {
		_, _ = io.CopyN(io.Discard, r, maxDrained)
		err = errTooLarge
	}
	return typ, frame, err
}

// socket is one WebSocket. Only its writer writes frames.
type socket struct {
	conn   *websocket.Conn
	host   *models.Host
	link   *jobs.Link
	out    chan protocol.Envelope
	cancel context.CancelCauseFunc
}

var upgrader = websocket.Upgrader{
	HandshakeTimeout: 10 * time.Second,
	// Agents send no Origin; a browser always does, and has no business here.
	CheckOrigin: func(r *http.Request) bool { return len(r.Header.Values("Origin")) == 0 },
	Error: func(w http.ResponseWriter, r *http.Request, status int, reason error) {
		text := reason.Error()
		if !websocket.IsWebSocketUpgrade(r) {
			text = stripped
		}
		http.Error(w, text, status)
	},
}

// stripped is shown on the host's page as the reason why its agent polls.
const stripped = "the request came without its upgrade to a WebSocket; let the proxy on the way pass on the headers Upgrade and Connection"

// WebSocket is GET /agent/v1/ws.
func (s *Server) WebSocket(c echo.Context) error {
	if !upgrader.CheckOrigin(c.Request()) {
		err := &models.Error{Code: models.EForbidden, Message: "The agents' link is not for browsers."}
		s.refused(c, "link", err)
		return err
	}
	host, err := s.host(c)
	if err != nil {
		return err
	}
	if err := s.enter(); err != nil {
		return err
	}
	defer s.open.Done()

	conn, err := upgrader.Upgrade(c.Response(), c.Request(), http.Header{BootHeader: {s.boot}})
	if err != nil {
		s.Counts.RefusedLinks.Add(1)
		s.Log.WarnContext(c.Request().Context(), "link refused", "host.id", host.ID, "reason", err.Error(), "address", c.RealIP())
		return nil // the upgrader has answered
	}
	defer func() { _ = conn.Close() }()
	s.serve(conn, host)
	return nil
}

// serve runs one link until it ends, and says why in the log and to the agent.
func (s *Server) serve(conn *websocket.Conn, host *models.Host) {
	ctx, cancel := context.WithCancelCause(s.closing)
	defer cancel(nil)
	log := s.Log.With("host.id", host.ID)
	// A blocked read ends only by its deadline.
	_ = conn.SetReadDeadline(time.Now().Add(helloTimeout))
	silent := context.AfterFunc(ctx, func() { _ = conn.SetReadDeadline(time.Now()) })
	hello, err := readHello(conn)
	silent()
	if ctx.Err() != nil {
		closeWith(conn, websocket.CloseServiceRestart, &protocol.Error{Code: "restart", Reason: errStopping.Error()})
		return
	}
	if err != nil {
		s.Counts.RefusedLinks.Add(1)
		if errors.Is(err, errTooLarge) {
			s.Counts.Oversized.Add(1)
		}
		log.WarnContext(ctx, "link refused", "reason", err.Error())
		closeWith(conn, websocket.ClosePolicyViolation, &protocol.Error{Code: "bad_hello", Reason: err.Error()})
		return
	}
	link, first, err := s.Jobs.Hello(ctx, host, protocol.LinkWebSocket, hello)
	if err != nil {
		log.ErrorContext(ctx, "hello can't be settled", "err", err)
		closeWith(conn, websocket.CloseTryAgainLater, &protocol.Error{Code: "try_again", Reason: "The server could not settle the hello; try again in a moment."})
		return
	}
	k := &socket{conn: conn, host: host, link: link, out: make(chan protocol.Envelope, 64), cancel: cancel}
	s.attach(k)
	defer s.detach(k)
	log.InfoContext(ctx, "link open", "link", protocol.LinkWebSocket, "generation", link.Generation, "agent", hello.AgentVersion)

	written := make(chan struct{})
	go func() { defer close(written); s.write(ctx, k) }()
	dispatched := make(chan struct{})
	go func() { defer close(dispatched); s.dispatch(ctx, k, first) }()
	// A blocked write, of a line that nobody reads any more, gets a moment.
	stop := context.AfterFunc(ctx, func() {
		_ = conn.SetReadDeadline(time.Now())
		_ = conn.NetConn().SetWriteDeadline(time.Now().Add(goodbye))
	})
	defer stop()

	cancel(s.read(ctx, k))
	<-dispatched
	<-written
	s.ended(log, k, context.Cause(ctx))
}

// ended closes the socket with the reason and keeps that the link is gone.
func (s *Server) ended(log logger, k *socket, cause error) {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	code, said := websocket.CloseGoingAway, (*protocol.Error)(nil)
	if errors.Is(cause, models.ErrSuperseded) {
		cause = s.whyVoid(ctx, k.host.AgentTokenHash)
	}
	switch {
	case errors.Is(cause, models.ErrSuperseded):
		code, said = closeSuperseded, &protocol.Error{Code: "superseded", Reason: cause.Error()}
	case models.CodeOf(cause) == models.EGone:
		code, said = closeSuperseded, &protocol.Error{Code: "gone", Reason: cause.Error()}
	case models.CodeOf(cause) == models.EUnauthorized:
		code, said = closeSuperseded, &protocol.Error{Code: "unauthorized", Reason: cause.Error()}
	case errors.Is(cause, errTooLarge):
		s.Counts.Oversized.Add(1)
		code, said = websocket.CloseMessageTooBig, &protocol.Error{Code: "too_large", Reason: cause.Error()}
	case s.closing.Err() != nil:
		cause = errStopping
		code, said = websocket.CloseServiceRestart, &protocol.Error{Code: "restart", Reason: cause.Error()}
	}
	log.InfoContext(ctx, "link closed", "generation", k.link.Generation, "reason", reason(cause))
	closeWith(k.conn, code, said)
	if err := models.CloseLink(ctx, s.DB, k.host.ID, k.link.Generation); err != nil {
		log.WarnContext(ctx, "link's end can't be kept; it will show by silence", "err", err)
	}
	s.Hub.Publish(jobs.HostTopic(k.host.ID), jobs.FleetTopic)
}

// whyVoid is why a link of this credential doesn't count any more: the
// credential's end, or else a newer link.
func (s *Server) whyVoid(ctx context.Context, tokenHash []byte) error {
	_, err := models.AgentHostByHash(ctx, s.DB, tokenHash)
	var refused *models.Error
	if errors.As(err, &refused) {
		return refused
	}
	return models.ErrSuperseded
}

type logger interface {
	InfoContext(ctx context.Context, msg string, args ...any)
	WarnContext(ctx context.Context, msg string, args ...any)
}

func reason(err error) string {
	if err == nil || errors.Is(err, context.Canceled) {
		return "ended"
	}
	return err.Error()
}

func readHello(conn *websocket.Conn) (protocol.Hello, error) {
	typ, frame, err := readFrame(conn)
	if err != nil {
		return protocol.Hello{}, err
	}
	if typ != websocket.TextMessage {
		return protocol.Hello{}, errors.New("frames must be text")
	}
	e, err := protocol.Open(frame)
	if err != nil {
		return protocol.Hello{}, err
	}
	if e.Type != protocol.TypeHello {
		return protocol.Hello{}, errors.New("the first message must be hello, not " + models.CleanText(e.Type, 60))
	}
	return protocol.Decode[protocol.Hello](e)
}

// attach makes k the host's link on this server; an older one ends.
func (s *Server) attach(k *socket) {
	s.mu.Lock()
	defer s.mu.Unlock()
	old := s.links[k.host.ID]
	switch {
	case old == nil || old.link.Generation < k.link.Generation:
		s.links[k.host.ID] = k
		if old != nil {
			old.cancel(models.ErrSuperseded)
		}
		if p := s.polls[k.host.ID]; p != nil && p.link.Generation < k.link.Generation {
			p.end()
			delete(s.polls, k.host.ID)
		}
	default:
		k.cancel(models.ErrSuperseded)
	}
}

func (s *Server) detach(k *socket) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.links[k.host.ID] == k {
		delete(s.links, k.host.ID)
	}
}

// read takes messages in order. Each is acknowledged after its commit; one
// that can't be stored now is left unanswered, and comes again.
func (s *Server) read(ctx context.Context, k *socket) error {
	silence := s.Jobs.PingInterval * 5 / 2
	alive := func() { _ = k.conn.SetReadDeadline(time.Now().Add(silence)) }
	touched := time.Now()
	contact := func(string) error {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		alive()
		if time.Since(touched) < touchEvery {
			return nil
		}
		touched = time.Now()
		err := models.TouchLink(ctx, s.DB, k.host.ID, k.link.Generation)
		if err != nil && !errors.Is(err, models.ErrSuperseded) {
			// A database that is away for a while ends no link.
			s.Log.WarnContext(ctx, "contact not kept", "host.id", k.host.ID, "err", err)
			return nil
		}
		return err
	}
	k.conn.SetPongHandler(contact)
	k.conn.SetPingHandler(func(data string) error {
		// Control frames may be written beside the writer.
		_ = k.conn.WriteControl(websocket.PongMessage, []byte(data), time.Now().Add(writeTimeout))
		return contact(data)
	})
	alive()
	for {
		typ, frame, err := readFrame(k.conn)
		if err != nil {
			if cause := context.Cause(ctx); cause != nil {
				return cause
			}
			return err
		}
		if err := contact(""); err != nil {
			return err
		}
		if typ != websocket.TextMessage {
			s.malformed(ctx, k, "frames must be text")
			continue
		}
		e, err := protocol.Open(frame)
		if err != nil {
			s.malformed(ctx, k, err.Error())
			continue
		}
		if err := s.receive(ctx, k, e); err != nil {
			return err
		}
	}
}

func (s *Server) malformed(ctx context.Context, k *socket, why string) {
	s.Counts.Malformed.Add(1)
	s.Log.WarnContext(ctx, "message refused", "host.id", k.host.ID, "reason", why)
	k.send(ctx, protocol.Seal(uuid.NewString(), protocol.TypeError, protocol.Error{Code: "malformed", Reason: why}))
}

func (s *Server) receive(ctx context.Context, k *socket, e protocol.Envelope) error {
	verdict, err := s.Jobs.Receive(ctx, k.link, e)
	switch {
	case errors.Is(err, models.ErrSuperseded):
		s.Counts.Superseded.Add(1)
		return err
	case err != nil:
		// The database is away or busy: no answer, so the agent says it again.
		s.Log.WarnContext(ctx, "message not stored yet", "host.id", k.host.ID, "type", e.Type, "err", err)
		return nil
	}
	ack := protocol.Ack{Acknowledged: []string{}}
	switch {
	case verdict.Rejected != "":
		s.reject(ctx, k.host, e.Type, verdict.Rejected)
		ack.Rejected = []protocol.Rejection{{ID: e.ID, Reason: verdict.Rejected}}
	default:
		if verdict.Unknown {
			s.Counts.Unknown.Add(1)
		}
		ack.Acknowledged = append(ack.Acknowledged, e.ID)
	}
	k.send(ctx, protocol.Seal(uuid.NewString(), protocol.TypeAck, ack))
	return nil
}

// send queues a frame for the writer; it gives up when the link ends.
func (k *socket) send(ctx context.Context, e protocol.Envelope) {
	select {
	case k.out <- e:
	case <-ctx.Done():
	}
}

// dispatch sends what the hello window asked for, then whatever a hint or the
// clock says may be there.
func (s *Server) dispatch(ctx context.Context, k *socket, first []protocol.Envelope) {
	hints := s.Hub.Subscribe(jobs.DispatchTopic(k.host.ID))
	defer hints.Close()
	for _, e := range first {
		k.send(ctx, e)
	}
	tick := time.NewTicker(s.Jobs.OfferAgain)
	defer tick.Stop()
	for {
		out, err := s.Jobs.Outgoing(ctx, k.link)
		if errors.Is(err, models.ErrSuperseded) || models.CodeOf(err) == models.ENotFound {
			k.cancel(models.ErrSuperseded)
			return
		}
		if err != nil && ctx.Err() == nil {
			s.Log.WarnContext(ctx, "nothing can be sent now; trying again", "host.id", k.host.ID, "err", err)
		}
		for _, e := range out {
			k.send(ctx, e)
		}
		select {
		case <-ctx.Done():
			return
		case <-hints.Wake():
			hints.Take()
		case <-tick.C:
		}
	}
}

// write is the socket's only writer of messages; it also pings.
func (s *Server) write(ctx context.Context, k *socket) {
	ping := time.NewTicker(s.Jobs.PingInterval)
	defer ping.Stop()
	for {
		var err error
		select {
		case <-ctx.Done():
			return
		case e := <-k.out:
			var frame []byte
			if frame, err = json.Marshal(e); err == nil {
				_ = k.conn.SetWriteDeadline(time.Now().Add(writeTimeout))
				err = k.conn.WriteMessage(websocket.TextMessage, frame)
			}
		case <-ping.C:
			err = k.conn.WriteControl(websocket.PingMessage, nil, time.Now().Add(writeTimeout))
		}
		if err != nil {
			k.cancel(err)
			return
		}
	}
}

// closeWith says why and closes; called when nobody else writes any more.
func closeWith(conn *websocket.Conn, code int, why *protocol.Error) {
	deadline := time.Now().Add(goodbye)
	text := ""
	if why != nil {
		_ = conn.SetWriteDeadline(deadline)
		_ = conn.WriteJSON(protocol.Seal(uuid.NewString(), protocol.TypeError, why))
		text = models.CleanText(why.Reason, 120)
	}
	_ = conn.WriteControl(websocket.CloseMessage, websocket.FormatCloseMessage(code, text), deadline)
}
