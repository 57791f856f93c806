package transport_test

import (
	"bufio"
	"context"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gorilla/websocket"
	"go.uber.org/goleak"

	"resticfleet/agent/protocol"
	"resticfleet/agent/transport"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func within(t testing.TB, d time.Duration) context.Context {
	t.Helper()
	ctx, stop := context.WithTimeout(t.Context(), d)
	t.Cleanup(stop)
	return ctx
}

// serve upgrades every request and hands the socket to f; it is closed behind f.
func serve(t testing.TB, f func(*http.Request, *websocket.Conn)) transport.Config {
	t.Helper()
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		conn, err := new(websocket.Upgrader).Upgrade(w, r, nil)
		if err != nil {
			t.Error(err)
			return
		}
		defer conn.Close()
		f(r, conn)
	}))
	t.Cleanup(s.Close)
	return transport.Config{Server: s.URL, Token: "tok", UserAgent: "resticfleet-agent/test"}
}

func dial(t testing.TB, c transport.Config) transport.Link {
	t.Helper()
	l, err := transport.DialWebSocket(within(t, 10*time.Second), c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(l.Close)
	return l
}

func beat(id string) protocol.Envelope {
	return protocol.Seal(id, protocol.TypeHeartbeat, protocol.Heartbeat{})
}

// echo sends every frame back until the link ends.
func echo(_ *http.Request, conn *websocket.Conn) {
	for {
		kind, frame, err := conn.ReadMessage()
		if err != nil || conn.WriteMessage(kind, frame) != nil {
			return
		}
	}
}

func receive(t testing.TB, l transport.Link) (protocol.Envelope, error) {
	t.Helper()
	return l.Receive(within(t, 10*time.Second))
}

func TestMessagesGoBothWaysInOrder(t *testing.T) {
	t.Parallel()
	seen := make(chan *http.Request, 1)
	c := serve(t, func(r *http.Request, conn *websocket.Conn) { seen <- r; echo(r, conn) })
	c.Server += "/below/"
	l := dial(t, c)
	for i := range 50 {
		if err := l.Send(t.Context(), beat(fmt.Sprint(i))); err != nil {
			t.Fatal(err)
		}
	}
	for i := range 50 {
		e, err := receive(t, l)
		if err != nil || e.ID != fmt.Sprint(i) || e.Type != protocol.TypeHeartbeat {
			t.Fatalf("message %d: %+v, %v", i, e, err)
		}
	}
	r := <-seen
	if r.URL.Path != "/below/agent/v1/ws" || r.Header.Get("Authorization") != "Bearer tok" || r.UserAgent() != "resticfleet-agent/test" {
		t.Errorf("asked for %s with %v", r.URL, r.Header)
	}
	if _, has := r.Header["Origin"]; has {
		t.Error("an agent must send no Origin: the server takes it for a browser")
	}
}

func TestManySendersAndACloser(t *testing.T) {
	t.Parallel()
	l := dial(t, serve(t, echo))
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for {
				if err := l.Send(t.Context(), beat("x")); err != nil {
					if !errors.Is(err, transport.ErrClosed) {
						t.Errorf("Send: %v", err)
					}
					return
				}
			}
		})
	}
	for range 100 {
		if _, err := receive(t, l); err != nil {
			t.Fatal(err)
		}
	}
	l.Close()
	l.Close()
	wg.Wait()
	for {
		if _, err := receive(t, l); err != nil {
			if !errors.Is(err, transport.ErrClosed) {
				t.Errorf("Receive: %v", err)
			}
			return
		}
	}
}

func TestRefusals(t *testing.T) {
	t.Parallel()
	problem := func(status int, detail string) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "application/problem+json")
			w.Header().Set("Retry-After", "7")
			w.WriteHeader(status)
			_ = json.NewEncoder(w).Encode(map[string]any{"title": "T", "status": status, "detail": detail})
		}
	}
	tests := map[string]struct {
		answer http.HandlerFunc
		status int
		detail string
	}{
		"replaced":   {problem(401, "The credential was replaced by a newer enrolment."), 401, "The credential was replaced by a newer enrolment."},
		"deleted":    {problem(410, "This host was deleted."), 410, "This host was deleted."},
		"no detail":  {problem(503, ""), 503, "T"},
		"two lines":  {problem(400, "a\nb\x1b[31m"), 400, "a b [31m"},
		"a proxy's":  {func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "nobody home", http.StatusBadGateway) }, 502, "nobody home"},
		"a web page": {func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "<html>") }, 200, "a web page"},
		"a portal": {func(w http.ResponseWriter, _ *http.Request) {
			_, _ = io.WriteString(w, "<!DOCTYPE html><head><title>\nSign in &amp; pay</title>")
		}, 200, "the web page “Sign in & pay”"},
		"redirected": {func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, "https://else.example/agent", http.StatusFound)
		}, 302, "it redirects to https://else.example/agent, give that address as the server's"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := httptest.NewServer(test.answer)
			t.Cleanup(s.Close)
			c := transport.Config{Server: s.URL}
			_, err := transport.DialWebSocket(within(t, 10*time.Second), c)
			var refused *transport.RefusedError
			if !errors.As(err, &refused) || refused.Status != test.status || refused.Detail != test.detail {
				t.Errorf("dial: %v", err)
			}
			if test.status == 200 {
				if !refused.Foreign || !strings.Contains(err.Error(), test.detail) {
					t.Errorf("dial: %v", err)
				}
				return
			}
			_, err = transport.Enroll(within(t, 10*time.Second), c, protocol.EnrollRequest{})
			if !errors.As(err, &refused) || refused.Status != test.status || refused.Detail != test.detail {
				t.Errorf("enrol: %v", err)
			}
			if name == "replaced" && refused.RetryAfter != 7*time.Second {
				t.Errorf("Retry-After: %v", refused.RetryAfter)
			}
		})
	}
}

func TestHalfOpenLinkEndsAfterTwoAndAHalfPings(t *testing.T) {
	t.Parallel()
	over := make(chan struct{})
	c := serve(t, func(*http.Request, *websocket.Conn) { <-over }) // reads nothing: no pong
	c.PingInterval = 40 * time.Millisecond
	t.Cleanup(func() { close(over) }) // before the server's own end
	began := time.Now()
	l := dial(t, c)
	l.Welcomed(protocol.Welcome{})
	_, err := receive(t, l)
	if took := time.Since(began); err == nil || !strings.Contains(err.Error(), "silent") || took < 95*time.Millisecond || took > 5*time.Second {
		t.Errorf("after %v: %v", took, err)
	}
	if err := l.Send(t.Context(), beat("x")); err == nil || !strings.Contains(err.Error(), "silent") {
		t.Errorf("Send must give the link's reason: %v", err)
	}
}

// A server that is busy with a hello answers no pings: that is no dead line.
func TestAServerMayTakeItsTimeForTheWelcome(t *testing.T) {
	t.Parallel()
	c := serve(t, func(_ *http.Request, conn *websocket.Conn) {
		pings := 0
		conn.SetPingHandler(func(string) error {
			if pings++; pings == 6 {
				_ = conn.WriteMessage(websocket.TextMessage, []byte(`{"id":"1","type":"welcome"}`))
			}
			return nil
		})
		_, _, _ = conn.ReadMessage()
	})
	c.PingInterval = 40 * time.Millisecond
	if e, err := receive(t, dial(t, c)); err != nil || e.Type != protocol.TypeWelcome {
		t.Errorf("%+v, %v", e, err)
	}
}

func TestWelcomeShortensADeadlineUnderWay(t *testing.T) {
	t.Parallel()
	over := make(chan struct{})
	c := serve(t, func(*http.Request, *websocket.Conn) { <-over })
	t.Cleanup(func() { close(over) })
	c.PingInterval = time.Hour
	l := dial(t, c)
	l.Welcomed(protocol.Welcome{PingIntervalMS: 40})
	if _, err := receive(t, l); err == nil || !strings.Contains(err.Error(), "silent") {
		t.Error(err)
	}
}

func TestPingsKeepALinkThatSaysNothing(t *testing.T) {
	t.Parallel()
	for _, whose := range []string{"the agent's", "the server's"} {
		t.Run(whose, func(t *testing.T) {
			t.Parallel()
			c := serve(t, func(_ *http.Request, conn *websocket.Conn) {
				pinged, pings := make(chan struct{}), 0
				heard := func() {
					if pings++; pings == 10 {
						close(pinged)
					}
				}
				read := func() {
					for {
						if _, _, err := conn.ReadMessage(); err != nil {
							return
						}
					}
				}
				if whose == "the agent's" {
					conn.SetPingHandler(func(data string) error {
						heard()
						return conn.WriteControl(websocket.PongMessage, []byte(data), time.Now().Add(time.Second))
					})
					go read()
					<-pinged
				} else {
					tick := time.NewTicker(20 * time.Millisecond)
					defer tick.Stop()
					conn.SetPingHandler(func(string) error { return nil })
					conn.SetPongHandler(func(string) error { heard(); return nil })
					go read()
					for {
						select {
						case <-pinged:
							goto done
						case <-tick.C:
							_ = conn.WriteControl(websocket.PingMessage, []byte("p"), time.Now().Add(time.Second))
						}
					}
				}
			done:
				_ = conn.WriteMessage(websocket.TextMessage, []byte(`{"id":"1","type":"done"}`))
			})
			c.PingInterval = 100 * time.Millisecond
			if whose == "the server's" {
				c.PingInterval = 60 * time.Millisecond
			}
			l := dial(t, c)
			if e, err := receive(t, l); err != nil || e.Type != "done" {
				t.Errorf("%+v, %v", e, err)
			}
		})
	}
}

func TestMalformedFramesAreToldAndTheLinkGoesOn(t *testing.T) {
	t.Parallel()
	bad := []string{"", "{", "[]", `{"id":"1"}`, `{"id":"1","type":"x"} {}`, "\x00\xff", `{"id":"` + strings.Repeat("x", 300) + `","type":"x"}`}
	c := serve(t, func(_ *http.Request, conn *websocket.Conn) {
		for _, frame := range bad {
			_ = conn.WriteMessage(websocket.TextMessage, []byte(frame))
		}
		_ = conn.WriteMessage(websocket.BinaryMessage, []byte(`{"id":"1","type":"x"}`))
		_ = conn.WriteMessage(websocket.TextMessage, []byte(`{"id":"1","type":"from.the.future","payload":{"a":[1]},"more":1}`))
		_ = conn.WriteControl(websocket.CloseMessage, websocket.FormatCloseMessage(websocket.ClosePolicyViolation, "enough"), time.Now().Add(time.Second))
		_, _, _ = conn.ReadMessage()
	})
	l := dial(t, c)
	for range len(bad) + 1 {
		var malformed *transport.MalformedError
		if e, err := receive(t, l); !errors.As(err, &malformed) {
			t.Fatalf("%+v, %v", e, err)
		}
	}
	if e, err := receive(t, l); err != nil || e.Type != "from.the.future" {
		t.Fatalf("%+v, %v", e, err)
	}
	for range 2 {
		if _, err := receive(t, l); err == nil || !strings.Contains(err.Error(), "enough (1008)") {
			t.Fatal(err)
		}
	}
}

func TestSizesAreBounded(t *testing.T) {
	t.Parallel()
	c := serve(t, func(_ *http.Request, conn *websocket.Conn) {
		if _, _, err := conn.ReadMessage(); err == nil {
			_ = conn.WriteMessage(websocket.TextMessage, []byte(`{"id":"1","type":"`+strings.Repeat("x", protocol.MaxFrame)+`"}`))
		}
		_, _, _ = conn.ReadMessage()
	})
	l := dial(t, c)
	large := protocol.Seal("1", protocol.TypeLog, protocol.Log{Lines: []protocol.LogLine{{Text: strings.Repeat("x", protocol.MaxFrame)}}})
	if err := l.Send(t.Context(), large); !errors.Is(err, transport.ErrTooLarge) {
		t.Error(err)
	}
	if err := l.Send(t.Context(), beat("1")); err != nil {
		t.Error("a message that is too large must not end the link:", err)
	}
	if _, err := receive(t, l); err == nil || !errors.Is(err, websocket.ErrReadLimit) {
		t.Error(err)
	}
}

func TestReceiveAndSendFollowTheirContext(t *testing.T) {
	t.Parallel()
	l := dial(t, serve(t, echo))
	if _, err := l.Receive(within(t, 20*time.Millisecond)); !errors.Is(err, context.DeadlineExceeded) {
		t.Error(err)
	}
	if err := l.Send(t.Context(), beat("1")); err != nil {
		t.Fatal(err)
	}
	if e, err := receive(t, l); err != nil || e.ID != "1" {
		t.Error("a Receive that ended by its context must cost no message:", e, err)
	}
}

// A server that stops reading: Send's deadline counts, and the write timeout
// ends the link.
func TestServerThatStopsReading(t *testing.T) {
	t.Parallel()
	over := make(chan struct{})
	c := serve(t, func(*http.Request, *websocket.Conn) { <-over })
	t.Cleanup(func() { close(over) })
	c.PingInterval, c.WriteTimeout = time.Hour, 300*time.Millisecond
	l := dial(t, c)
	big := protocol.Seal("1", protocol.TypeLog, protocol.Log{Lines: []protocol.LogLine{{Text: strings.Repeat("x", 1<<19)}}})
	var err error
	waited := false
	for err == nil || errors.Is(err, context.DeadlineExceeded) {
		waited = waited || err != nil
		err = l.Send(within(t, 100*time.Millisecond), big)
	}
	if !waited || !strings.Contains(err.Error(), "timeout") {
		t.Errorf("waited: %v, %v", waited, err)
	}
	if _, err := receive(t, l); err == nil || !strings.Contains(err.Error(), "the link broke") {
		t.Error(err)
	}
}

func TestDialEndsWithItsContextAlsoInTheHandshake(t *testing.T) {
	t.Parallel()
	silent, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = silent.Close() })
	ctx, stop := context.WithCancel(t.Context())
	go func() {
		conn, err := silent.Accept()
		stop()
		if err == nil {
			_, _ = io.Copy(io.Discard, conn) // ends with the other side
			_ = conn.Close()
		}
	}()
	began := time.Now()
	if _, err := transport.DialWebSocket(ctx, transport.Config{Server: "http://" + silent.Addr().String()}); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	if took := time.Since(began); took > 5*time.Second {
		t.Errorf("took %v", took)
	}
}

func TestTLSNeedsAKnownAuthority(t *testing.T) {
	t.Parallel()
	s := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasSuffix(r.URL.Path, "/enroll") {
			_ = json.NewEncoder(w).Encode(protocol.EnrollResponse{HostID: "h", AgentToken: "t"})
			return
		}
		if conn, err := new(websocket.Upgrader).Upgrade(w, r, nil); err == nil {
			defer conn.Close()
			echo(r, conn)
		}
	}))
	t.Cleanup(s.Close)
	c := transport.Config{Server: s.URL}
	_, err := transport.DialWebSocket(within(t, 10*time.Second), c)
	_, enrolErr := transport.Enroll(within(t, 10*time.Second), c, protocol.EnrollRequest{})
	for _, err := range []error{err, enrolErr} {
		if err == nil || !strings.Contains(err.Error(), "--ca-file") {
			t.Error(err)
		}
	}
	c.CAFile = filepath.Join(t.TempDir(), "ca.pem")
	if _, err := transport.DialWebSocket(t.Context(), c); !errors.Is(err, os.ErrNotExist) {
		t.Error(err)
	}
	if err := os.WriteFile(c.CAFile, []byte("nothing"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := transport.DialWebSocket(t.Context(), c); err == nil || !strings.Contains(err.Error(), "PEM") {
		t.Error(err)
	}
	if err := os.WriteFile(c.CAFile, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate().Raw}), 0o600); err != nil {
		t.Fatal(err)
	}
	l := dial(t, c)
	if err := l.Send(t.Context(), beat("1")); err != nil {
		t.Error(err)
	}
	if e, err := receive(t, l); err != nil || e.ID != "1" {
		t.Error(e, err)
	}
	if granted, err := transport.Enroll(within(t, 10*time.Second), c, protocol.EnrollRequest{}); err != nil || granted.HostID != "h" {
		t.Error(granted, err)
	}
}

// connectProxy is an HTTP proxy that only tunnels.
func connectProxy(t *testing.T, asked chan<- string) *url.URL {
	t.Helper()
	l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	t.Cleanup(func() { _ = l.Close(); wg.Wait() })
	wg.Go(func() {
		for {
			client, err := l.Accept()
			if err != nil {
				return
			}
			wg.Go(func() {
				defer client.Close()
				in := bufio.NewReader(client)
				r, err := http.ReadRequest(in)
				if err != nil {
					return
				}
				asked <- r.Method + " " + r.Host
				server, err := new(net.Dialer).DialContext(context.Background(), "tcp", r.Host)
				if err != nil {
					return
				}
				defer server.Close()
				_, _ = io.WriteString(client, "HTTP/1.1 200 OK\r\n\r\n")
				go func() { _, _ = io.Copy(server, in); _ = server.Close() }()
				_, _ = io.Copy(client, server)
			})
		}
	})
	return &url.URL{Scheme: "http", Host: l.Addr().String()}
}

func TestLinkGoesThroughTheProxy(t *testing.T) {
	t.Parallel()
	asked := make(chan string, 1)
	c := serve(t, echo)
	proxy := connectProxy(t, asked)
	c.Proxy = func(r *http.Request) (*url.URL, error) { return proxy, nil }
	l := dial(t, c)
	if err := l.Send(t.Context(), beat("1")); err != nil {
		t.Fatal(err)
	}
	if e, err := receive(t, l); err != nil || e.ID != "1" {
		t.Error(e, err)
	}
	if got := <-asked; got != "CONNECT "+strings.TrimPrefix(c.Server, "http://") {
		t.Errorf("the proxy was asked for %q", got)
	}
	l.Close() // before the proxy's end
}

func TestEnrollSpeaksToAResticfleetServerOnly(t *testing.T) {
	t.Parallel()
	for name, body := range map[string]string{"a web page": "<html>", "other JSON": "{}", "half of it": `{"host_id":"h"}`} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, body) }))
			t.Cleanup(s.Close)
			_, err := transport.Enroll(within(t, 10*time.Second), transport.Config{Server: s.URL}, protocol.EnrollRequest{})
			if err == nil || !strings.Contains(err.Error(), "check the address") {
				t.Error(err)
			}
		})
	}
}

func TestBackoffDrawsFromWholeWindowsThatDoubleToTheCap(t *testing.T) {
	t.Parallel()
	ceilings := []time.Duration{1, 2, 4, 8, 16, 32, 60, 60, 60}
	for _, random := range []float64{0, 0.25, 0.999999999} {
		b := transport.Backoff{Rand: func() float64 { return random }}
		for round := range 2 {
			for i, c := range ceilings {
				want := time.Duration((1 - random) * float64(c*time.Second))
				if got := b.Next(); got != max(want, 1) {
					t.Errorf("random %v, round %d, attempt %d: %v, want %v", random, round, i, got, want)
				}
			}
			b.Reset()
		}
	}
	var b transport.Backoff
	for range 1000 {
		if d := b.Next(); d <= 0 || d > time.Minute {
			t.Fatal(d)
		}
	}
}
