package conformance

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"net/http/httptest"
	"sync"
	"testing"
	"time"

	"resticfleet/handlers"
	"resticfleet/handlers/agentapi"
	"resticfleet/handlers/live"
	"resticfleet/jobs"
	"resticfleet/models"
	"resticfleet/models/modeltest"
	"resticfleet/static"
)

// patience is how long anything may take on a busy machine.
const patience = time.Minute

// text is a log that tests read.
type text struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (l *text) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(p)
}

func (l *text) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.String()
}

// server is one whole server. Over a restart it keeps nothing but the database
// and the key.
type server struct {
	t      *testing.T
	ping   time.Duration
	dbURL  string
	sealer *models.Sealer
	log    *text

	db     *models.DB
	hub    *live.Hub
	jobs   *jobs.Service
	agents *agentapi.Server
	url    string
	stop   func()
}

// assets are the same for all servers.
var assets = sync.OnceValues(static.New)

func newServer(t *testing.T, ping time.Duration) *server {
	t.Helper()
	s := &server{t: t, ping: ping, dbURL: modeltest.URL(t), sealer: modeltest.Sealer(t), log: &text{}}
	s.db = modeltest.Pool(t, s.dbURL)
	s.start()
	t.Cleanup(func() {
		s.stop()
		if t.Failed() && testing.Verbose() {
			t.Logf("the server's log:\n%s", s.log)
		}
	})
	return s
}

func (s *server) start() {
	s.t.Helper()
	assets := must[*static.Assets](s.t)(assets())
	log := slog.New(slog.NewTextHandler(s.log, nil))
	s.hub = live.NewHub()
	s.jobs = jobs.New(jobs.Config{DB: s.db, Sealer: s.sealer, Hints: s.hub, Log: log, PingInterval: s.ping, OfferAgain: 300 * time.Millisecond, PreviewWait: 5 * patience})
	agents := agentapi.New(agentapi.Config{DB: s.db, Jobs: s.jobs, Hub: s.hub, Log: log})
	s.agents = agents
	front := httptest.NewServer(handlers.New(handlers.Config{DB: s.db, Jobs: s.jobs, Hub: s.hub, Agents: agents, Assets: assets, Log: log}))
	s.url = front.URL
	ctx, cancel := context.WithCancel(context.WithoutCancel(s.t.Context()))
	var running sync.WaitGroup
	running.Go(func() { agents.Run(ctx) })
	running.Go(func() { s.jobs.Listen(ctx) })
	s.stop = sync.OnceFunc(func() {
		agents.Close()
		front.Close()
		cancel()
		running.Wait()
	})
}

// restart is another process on the same database, at another address.
func (s *server) restart() {
	s.t.Helper()
	s.stop()
	s.start()
}

func (s *server) job(id models.JobID) *models.Job {
	s.t.Helper()
	j, err := models.FindJob(s.t.Context(), s.db, id)
	if err != nil {
		s.t.Fatal(err)
	}
	return j
}

// eventually waits for what another goroutine or process brings about.
func eventually(t testing.TB, what string, so func() bool) {
	t.Helper()
	over := time.NewTimer(patience)
	defer over.Stop()
	again := time.NewTicker(50 * time.Millisecond)
	defer again.Stop()
	for !so() {
		select {
		case <-again.C:
		case <-over.C:
			t.Fatalf("waited in vain until %s", what)
		}
	}
}

func must[T any](t testing.TB) func(T, error) T {
	return func(v T, err error) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

// history is every state that a job was seen in.
type history struct {
	mu     sync.Mutex
	states []models.JobState
	seqs   []int64
	done   []float64 // percent
}

// watch notes what becomes of a job, until the test's end.
func (s *server) watch(t *testing.T, id models.JobID) *history {
	t.Helper()
	h := &history{}
	ctx, stop := context.WithCancel(context.WithoutCancel(t.Context()))
	hints := s.hub.Subscribe(jobs.JobTopic(id))
	look := func() {
		j, err := models.FindJob(ctx, s.db, id)
		if err != nil {
			return // the end
		}
		h.mu.Lock()
		defer h.mu.Unlock()
		if n := len(h.states); n == 0 || h.states[n-1] != j.State {
			h.states = append(h.states, j.State)
		}
		if n := len(h.seqs); j.Progress != nil && (n == 0 || h.seqs[n-1] != j.ProgressSeq) {
			h.seqs, h.done = append(h.seqs, j.ProgressSeq), append(h.done, j.Progress.Percent)
		}
	}
	look()
	var looking sync.WaitGroup
	looking.Go(func() {
		tick := time.NewTicker(300 * time.Millisecond) // the hints of a restarted server are others
		defer tick.Stop()
		for {
			select {
			case <-hints.Wake():
				hints.Take()
			case <-tick.C:
			case <-ctx.Done():
				return
			}
			look()
		}
	})
	t.Cleanup(func() {
		stop()
		looking.Wait()
		hints.Close()
	})
	return h
}

// seen says that the job has ended, as far as was looked.
func (h *history) seen() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return len(h.states) > 0 && h.states[len(h.states)-1].Ended()
}

// check says what is wrong with a job's history.
func (h *history) check() error {
	h.mu.Lock()
	defer h.mu.Unlock()
	ended := 0
	for i, s := range h.states {
		if s.Ended() {
			ended++
		}
		if s.Ended() && i < len(h.states)-1 {
			return fmt.Errorf("the job left a final state: %v", h.states)
		}
	}
	if ended != 1 {
		return fmt.Errorf("the job was in %d final states: %v", ended, h.states)
	}
	for i := 1; i < len(h.seqs); i++ {
		if h.seqs[i] <= h.seqs[i-1] || h.done[i] < h.done[i-1] {
			return fmt.Errorf("progress went back: %v, %v", h.seqs, h.done)
		}
	}
	return nil
}
