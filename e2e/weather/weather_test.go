package weather_test

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/gorilla/websocket"
	"go.uber.org/goleak"

	"resticfleet/agent/protocol"
	"resticfleet/e2e/weather"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const patience = 30 * time.Second

// before puts a proxy before a server whose sockets echo, and whose other
// requests are answered with their body.
func before(t *testing.T, seed uint64) *weather.Proxy {
	t.Helper()
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/agent/v1/ws" {
			_, _ = io.Copy(w, r.Body)
			return
		}
		conn, err := new(websocket.Upgrader).Upgrade(w, r, nil)
		if err != nil {
			return
		}
		defer conn.Close()
		for {
			kind, frame, err := conn.ReadMessage()
			if err != nil || conn.WriteMessage(kind, frame) != nil {
				return
			}
		}
	}))
	t.Cleanup(s.Close)
	p, err := weather.New(s.URL, seed)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Close)
	return p
}

func dial(t *testing.T, p *weather.Proxy) (*websocket.Conn, int) {
	t.Helper()
	conn, res, err := websocket.DefaultDialer.DialContext(t.Context(), "ws"+strings.TrimPrefix(p.URL, "http")+"/agent/v1/ws", nil)
	if err != nil {
		if res == nil {
			t.Fatal(err)
		}
		return nil, res.StatusCode
	}
	t.Cleanup(func() { _ = conn.Close() })
	return conn, res.StatusCode
}

// say sends numbered messages and returns what comes back before the last one.
func say(t *testing.T, conn *websocket.Conn, n int) []string {
	t.Helper()
	for i := range n {
		if err := conn.WriteJSON(protocol.Seal(fmt.Sprint(i), "word", nil)); err != nil {
			t.Fatal(err)
		}
	}
	if err := conn.WriteMessage(websocket.BinaryMessage, []byte("end")); err != nil {
		t.Fatal(err)
	}
	var got []string
	_ = conn.SetReadDeadline(time.Now().Add(patience))
	for {
		kind, frame, err := conn.ReadMessage()
		if err != nil {
			t.Fatal(err)
		}
		if kind == websocket.BinaryMessage {
			return got
		}
		e, err := protocol.Open(frame)
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, e.ID)
	}
}

func TestASeedReplays(t *testing.T) {
	t.Parallel()
	const n = 200
	night := func(seed uint64) []string {
		p := before(t, seed)
		p.Set(weather.Climate{Odds: map[weather.Fault]float64{weather.Drop: 0.1, weather.Repeat: 0.1, weather.Slice: 0.5}})
		conn, _ := dial(t, p)
		return say(t, conn, n)
	}
	first, again, other := night(7), night(7), night(8)
	if !slices.Equal(first, again) {
		t.Errorf("the same seed gave %v and %v", first, again)
	}
	if slices.Equal(first, other) {
		t.Error("another seed gives the same night")
	}
	distinct := slices.Compact(slices.Sorted(slices.Values(first)))
	if len(distinct) == n || len(distinct) == len(first) {
		t.Errorf("nothing was lost or nothing repeated: %v", first)
	}
}

func TestFineWeatherChangesNothing(t *testing.T) {
	t.Parallel()
	p := before(t, 1)
	conn, _ := dial(t, p)
	for i, id := range say(t, conn, 100) {
		if id != fmt.Sprint(i) {
			t.Fatalf("message %s came at place %d", id, i)
		}
	}
	if r := p.Report(); r != "" {
		t.Error(r)
	}
}

func TestMessagesOvertakeEachOther(t *testing.T) {
	t.Parallel()
	p := before(t, 3)
	p.Set(weather.Climate{Odds: map[weather.Fault]float64{weather.Shuffle: 0.3}})
	conn, _ := dial(t, p)
	got := say(t, conn, 100)
	sorted := slices.Clone(got)
	slices.Sort(sorted)
	if len(slices.Compact(sorted)) != 100 || len(got) != 100 || p.Happened(weather.Shuffle) < 10 {
		t.Errorf("%s: %v", p.Report(), got)
	}
	if slices.IsSortedFunc(got, func(a, b string) int { return len(a)*1000 - len(b)*1000 + strings.Compare(a, b) }) {
		t.Error("they came in order")
	}
}

func TestUpgradesAreRefused(t *testing.T) {
	t.Parallel()
	p := before(t, 1)
	for _, want := range []int{400, 403, 404, 426, 502} {
		p.Set(weather.Climate{Odds: map[weather.Fault]float64{weather.Refuse: 1}, Statuses: []int{want}})
		if _, got := dial(t, p); got != want {
			t.Errorf("status %d, want %d", got, want)
		}
	}
	for _, f := range []weather.Fault{weather.Strip, weather.Portal} {
		p.Set(weather.Climate{Odds: map[weather.Fault]float64{f: 1}})
		if conn, got := dial(t, p); conn != nil || p.Happened(f) != 1 {
			t.Errorf("%s: %d", f, got)
		}
	}
	p.Set(weather.Climate{})
	if conn, _ := dial(t, p); conn == nil {
		t.Error("the weather doesn't clear up")
	}
}

// raw is a connection through the proxy without anything in it.
func raw(t *testing.T, p *weather.Proxy) net.Conn {
	t.Helper()
	u, err := url.Parse(p.URL)
	if err != nil {
		t.Fatal(err)
	}
	conn, err := new(net.Dialer).DialContext(t.Context(), "tcp", u.Host)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return conn
}

func TestIdleConnectionsAreCut(t *testing.T) {
	t.Parallel()
	p := before(t, 1)
	p.Set(weather.Climate{Idle: 50 * time.Millisecond})
	conn := raw(t, p)
	_ = conn.SetReadDeadline(time.Now().Add(patience))
	if _, err := conn.Read(make([]byte, 1)); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("not cut: %v", err)
	}
}

func TestAStalledConnectionTellsNobody(t *testing.T) {
	t.Parallel()
	p := before(t, 1)
	conn, _ := dial(t, p)
	say(t, conn, 1)
	p.Stall()
	if err := conn.WriteJSON(protocol.Seal("x", "word", nil)); err != nil {
		t.Fatal(err)
	}
	_ = conn.SetReadDeadline(time.Now().Add(300 * time.Millisecond))
	var timeout net.Error
	if _, _, err := conn.ReadMessage(); !errors.As(err, &timeout) || !timeout.Timeout() {
		t.Errorf("something came: %v", err)
	}
	if other, _ := dial(t, p); other == nil || len(say(t, other, 1)) != 1 {
		t.Error("new connections don't work")
	}
}

func TestAFilterDecidesAboutMessages(t *testing.T) {
	t.Parallel()
	p := before(t, 1)
	p.Filter(func(up bool, e protocol.Envelope) []protocol.Envelope {
		switch {
		case up && e.ID == "1":
			return nil
		case up && e.ID == "2":
			return []protocol.Envelope{e, protocol.Seal("extra", "word", nil)}
		}
		return []protocol.Envelope{e}
	})
	conn, _ := dial(t, p)
	if got := say(t, conn, 4); !slices.Equal(got, []string{"0", "2", "extra", "3"}) {
		t.Error(got)
	}
	body := `{"messages":[{"id":"0","type":"a"},{"id":"1","type":"a"}]}`
	res, err := http.Post(p.URL+"/agent/v1/messages", "application/json", strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	said, err := io.ReadAll(res.Body)
	if err != nil || string(said) != `{"messages":[{"id":"0","type":"a"}]}` {
		t.Errorf("%s, %v", said, err)
	}
	http.DefaultClient.CloseIdleConnections()
}
