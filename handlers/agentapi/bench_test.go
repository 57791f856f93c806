package agentapi_test

import (
	"bufio"
	"context"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/uptrace/bun"

	"resticfleet/models/modeltest"
)

const (
	notModifiedRounds  = 40
	notModifiedRound   = 150 * time.Millisecond
	notModifiedClients = 8
	// minNotModified is the share of a bare handler's requests per second that
	// the whole server must reach.
	minNotModified = 0.80
)

// Agents that poll ask whether their schedules moved, and nearly always they
// have not. The whole server (every middleware, the route table, the
// credential) is compared with a net/http handler that does nothing but answer
// 304 with the tag, turn by turn, over kept connections, by clients
// that cost next to nothing: they share the processors, and what they cost
// would make the two more alike. The requests may cause no SQL statement.
func BenchmarkNotModified(b *testing.B) {
	var statements counter
	s := &bundle{t: b, ctx: b.Context(), dbURL: modeltest.URL(b), log: &lines{}, hook: &statements}
	s.serve(modeltest.Sealer(b), time.Hour)
	h, token := s.enrolled("web-1")
	s.group(h, "www")
	ctx, stop := context.WithCancel(context.WithValue(b.Context(), background{}, true))
	var watch sync.WaitGroup
	watch.Go(func() { s.agents.Run(ctx) })
	defer watch.Wait()
	defer stop()

	request := "GET /agent/v1/schedule HTTP/1.1\r\nHost: server\r\nUser-Agent: resticfleet-agent/1\r\nAccept: application/json\r\n" +
		"Authorization: Bearer " + token + "\r\nIf-None-Match: \"0\"\r\n\r\n"
	whole := newPolls(b, s.web.Listener.Addr(), request)
	s.request("GET", "/agent/v1/schedule", token, nil) // it is known from here on
	bareServer := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("ETag", `"0"`)
		w.WriteHeader(http.StatusNotModified)
	}))
	defer bareServer.Close()
	bare := newPolls(b, bareServer.Listener.Addr(), request)

	for _, p := range []*polls{whole, bare} { // warm
		p.run(notModifiedRound)
	}
	statements.Store(0)
	var shares []float64
	var best [2]float64
	for b.Loop() {
		for round := range notModifiedRounds {
			var perSecond [2]float64
			for turn := range 2 {
				i := (turn + round) % 2
				perSecond[i] = []*polls{whole, bare}[i].run(notModifiedRound)
				best[i] = max(best[i], perSecond[i])
			}
			shares = append(shares, perSecond[0]/perSecond[1])
		}
	}
	slices.Sort(shares)
	share := shares[len(shares)/2]
	b.ReportMetric(best[0], "304/s")
	b.ReportMetric(best[1], "bare-304/s")
	b.ReportMetric(share, "share-median")
	if n := statements.Load(); n > 0 {
		b.Errorf("the requests caused %d SQL statements, want none", n)
	}
	if share < minNotModified {
		b.Errorf("the server answers %.2f times as many 304 a second as a bare handler (median of %d rounds), want %.2f", share, len(shares), minNotModified)
	}
}

// background marks what the server does by itself.
type background struct{}

// counter counts the SQL statements that requests cause.
type counter struct{ atomic.Int64 }

func (c *counter) BeforeQuery(ctx context.Context, _ *bun.QueryEvent) context.Context {
	if ctx.Value(background{}) == nil {
		c.Add(1)
	}
	return ctx
}

func (c *counter) AfterQuery(context.Context, *bun.QueryEvent) {}

// polls are kept connections that ask the same again and again.
type polls struct {
	b       *testing.B
	request []byte
	conns   []*bufio.ReadWriter
}

func newPolls(b *testing.B, to net.Addr, request string) *polls {
	b.Helper()
	p := &polls{b: b, request: []byte(request)}
	for range notModifiedClients {
		conn, err := net.Dial(to.Network(), to.String())
		if err != nil {
			b.Fatal(err)
		}
		b.Cleanup(func() { _ = conn.Close() })
		p.conns = append(p.conns, bufio.NewReadWriter(bufio.NewReader(conn), bufio.NewWriter(conn)))
	}
	return p
}

// run asks for about d, and tells how often it was answered in a second.
func (p *polls) run(d time.Duration) (perSecond float64) {
	p.b.Helper()
	var clients sync.WaitGroup
	var answers atomic.Int64
	began := time.Now()
	for _, conn := range p.conns {
		clients.Go(func() {
			for time.Since(began) < d {
				if err := p.ask(conn); err != nil {
					p.b.Error(err)
					return
				}
				answers.Add(1)
			}
		})
	}
	clients.Wait()
	return float64(answers.Load()) / time.Since(began).Seconds()
}

func (p *polls) ask(conn *bufio.ReadWriter) error {
	if _, err := conn.Write(p.request); err != nil {
		return err
	}
	if err := conn.Flush(); err != nil {
		return err
	}
	for line := 0; ; line++ {
		text, err := conn.ReadSlice('\n')
		switch {
		case err != nil:
			return err
		case line == 0 && !strings.Contains(string(text), " 304 "):
			return fmt.Errorf("answered %q", text)
		case len(text) == 2:
			return nil
		}
	}
}
