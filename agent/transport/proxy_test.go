package transport_test

import (
	"bufio"
	"context"
	"encoding/pem"
	"errors"
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

	"resticfleet/agent/protocol"
	"resticfleet/agent/transport"
)

// credentialProxy tunnels for those who know its password. What it was asked
// for goes to asked.
func credentialProxy(t *testing.T, asked chan<- string) *url.URL {
	t.Helper()
	l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	t.Cleanup(func() { _ = l.Close(); wg.Wait() })
	tunnel := func(client net.Conn) {
		defer client.Close()
		in := bufio.NewReader(client)
		r, err := http.ReadRequest(in)
		if err != nil {
			return
		}
		r.Header.Set("Authorization", r.Header.Get("Proxy-Authorization"))
		user, password, _ := r.BasicAuth()
		if user != "me" || password != "s3cret" {
			_, _ = io.WriteString(client, "HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n")
			return
		}
		asked <- r.Method + " " + r.Host
		server, err := new(net.Dialer).DialContext(context.Background(), "tcp", r.Host)
		if err != nil {
			return
		}
		defer server.Close()
		_, _ = io.WriteString(client, "HTTP/1.1 200 OK\r\n\r\n")
		wg.Go(func() { _, _ = io.Copy(server, in); _ = server.Close() })
		_, _ = io.Copy(client, server)
	}
	wg.Go(func() {
		for {
			client, err := l.Accept()
			if err != nil {
				return
			}
			wg.Go(func() { tunnel(client) })
		}
	})
	return &url.URL{Scheme: "http", Host: l.Addr().String(), User: url.UserPassword("me", "s3cret")}
}

func TestBothLinksGoThroughAProxyWithCredentialsOverTLS(t *testing.T) {
	t.Parallel()
	o, c := newOffice(t)
	s := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !hasPath(r, "/ws") {
			o.http.Config.Handler.ServeHTTP(w, r)
			return
		}
		if conn, err := new(websocket.Upgrader).Upgrade(w, r, nil); err == nil {
			defer conn.Close()
			echo(r, conn)
		}
	}))
	t.Cleanup(s.Close)
	c.Server = s.URL + "/below"
	c.CAFile = filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(c.CAFile, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate().Raw}), 0o600); err != nil {
		t.Fatal(err)
	}
	asked := make(chan string, 20)
	proxy := credentialProxy(t, asked)
	c.Proxy = http.ProxyURL(proxy)

	socket := dial(t, c)
	if err := socket.Send(t.Context(), beat("1")); err != nil {
		t.Fatal(err)
	}
	if e, err := receive(t, socket); err != nil || e.ID != "1" {
		t.Error(e, err)
	}
	socket.Close()
	link := polls(t, c)
	if err := link.Send(t.Context(), beat("1")); err != nil {
		t.Fatal(err)
	}
	if e, err := receive(t, link); err != nil || e.Type != protocol.TypeAck {
		t.Error(e, err)
	}
	link.Close()
	// A socket, and at least one for polling: messages and polls share a
	// connection when the one has ended before the other begins.
	if len(asked) < 2 {
		t.Errorf("%d connections through the proxy", len(asked))
	}
	for range len(asked) {
		if got := <-asked; got != "CONNECT "+strings.TrimPrefix(s.URL, "https://") {
			t.Errorf("the proxy was asked for %q", got)
		}
	}

	wrong := *proxy
	wrong.User = url.UserPassword("me", "wrong")
	c.Proxy = http.ProxyURL(&wrong)
	if _, err := transport.DialWebSocket(within(t, 10*time.Second), c); err == nil || !strings.Contains(err.Error(), "Proxy Authentication Required") {
		t.Error(err)
	}
	link, err := transport.DialPolling(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(link.Close)
	_ = link.Send(t.Context(), hello())
	if _, err := receive(t, link); err == nil || !strings.Contains(err.Error(), "Proxy Authentication Required") || strings.Contains(err.Error(), "wrong") {
		t.Error(err)
	}
}

func TestPollingNeedsAKnownAuthority(t *testing.T) {
	t.Parallel()
	s := httptest.NewTLSServer(http.NotFoundHandler())
	t.Cleanup(s.Close)
	l, err := transport.DialPolling(t.Context(), transport.Config{Server: s.URL})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(l.Close)
	_ = l.Send(t.Context(), hello())
	if _, err := receive(t, l); err == nil || !strings.Contains(err.Error(), "--ca-file") {
		t.Error(err)
	}
	if _, err := transport.DialPolling(t.Context(), transport.Config{Server: s.URL, CAFile: "/nonexistent"}); !errors.Is(err, os.ErrNotExist) {
		t.Error(err)
	}
}

// What cuts an idle socket is met by the next one's pings.
func TestPingsAdaptToWhatCutsAnIdleSocket(t *testing.T) {
	t.Parallel()
	const limit = 600 * time.Millisecond
	c := serve(t, func(_ *http.Request, conn *websocket.Conn) {
		pings := 0
		idle := func() { _ = conn.SetReadDeadline(time.Now().Add(limit)) }
		conn.SetPingHandler(func(data string) error {
			idle()
			if pings++; pings == 6 {
				_ = conn.WriteMessage(websocket.TextMessage, []byte(`{"id":"1","type":"done"}`))
			}
			return conn.WriteControl(websocket.PongMessage, []byte(data), time.Now().Add(time.Second))
		})
		idle()
		for {
			if _, _, err := conn.ReadMessage(); err != nil {
				return // which hangs up
			}
		}
	})
	c.PingInterval, c.Lessons = 2*time.Second, new(transport.Lessons)
	if _, err := receive(t, dial(t, c)); !errors.Is(err, transport.ErrBroken) {
		t.Fatal(err)
	}
	l := dial(t, c)
	l.Welcomed(protocol.Welcome{PingIntervalMS: 2000}) // the server can't know
	if e, err := receive(t, l); err != nil || e.Type != "done" {
		t.Errorf("%+v, %v", e, err)
	}
}
