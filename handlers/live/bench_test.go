package live_test

import (
	"context"
	"log/slog"
	"os"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"resticfleet/agent/protocol"
	"resticfleet/handlers/live"
	"resticfleet/jobs"
	"resticfleet/models"
	"resticfleet/models/modeltest"
	"resticfleet/models/postgres"
)

const (
	eventWriters = 16
	eventRounds  = 30
	eventRound   = 300 * time.Millisecond
	// pageRest is how long a page's stream rests between two looks, as the
	// product's do.
	pageRest = 300 * time.Millisecond
	// minEvents is the share of plain writes per second that writes with
	// wake-ups must reach.
	minEvents = 0.90
)

// silent tells nobody.
type silent struct{}

func (silent) Publish(...jobs.Topic) {}

// Sixteen agents report log lines and progress of a running backup each,
// through jobs.Service.Receive, into a PostgreSQL that syncs every commit to
// disk. Once their commits wake everybody: the pages of this server through
// its hub, those of a second server by NOTIFY. Once nobody is told, and the
// same statements run in the same transactions over the same pool. The two
// take turns.
func BenchmarkEventWrites(b *testing.B) {
	url := durable(b)
	db := modeltest.Pool(b, url)
	log := slog.New(slog.DiscardHandler)
	var running sync.WaitGroup
	ctx, stop := context.WithCancel(b.Context())
	defer running.Wait()
	defer stop()
	here, there := live.NewHub(), live.NewHub()
	relays := []*live.Relay{live.NewRelay(here, url, log), live.NewRelay(there, url, log)}
	for _, r := range relays {
		running.Go(func() { r.Run(ctx) })
	}
	config := jobs.Config{DB: db, Sealer: modeltest.Sealer(b), Hints: silent{}, Log: log}
	plain := jobs.New(config)
	config.Hints = here
	waking := jobs.New(config)

	var writers []*writer
	var heard [2]atomic.Int64
	for n := range eventWriters {
		w := newWriter(b, plain, "host-"+strconv.Itoa(n))
		writers = append(writers, w)
		for i, hub := range []*live.Hub{here, there} { // somebody looks at every job, and at the lists
			sub := hub.Subscribe(jobs.JobTopic(w.job), jobs.JobsTopic, jobs.FleetTopic)
			defer sub.Close()
			running.Go(func() {
				for {
					select {
					case <-ctx.Done():
						return
					case <-sub.Wake():
						heard[i].Add(int64(len(sub.Take())))
					}
					select {
					case <-ctx.Done():
						return
					case <-time.After(pageRest):
					}
				}
			})
		}
	}
	run := func(s *jobs.Service) (perSecond float64) {
		var all sync.WaitGroup
		var written atomic.Int64
		began := time.Now()
		for _, w := range writers {
			all.Go(func() {
				for time.Since(began) < eventRound {
					w.report(b, s)
					written.Add(1)
				}
			})
		}
		all.Wait()
		return float64(written.Load()) / time.Since(began).Seconds()
	}
	// Warm, and until the second server listens.
	for run(plain); !relays[1].Listening() || heard[1].Load() == 0; {
		run(waking)
	}

	var shares []float64
	var best [2]float64
	before := heard[1].Load()
	for b.Loop() {
		for round := range eventRounds {
			var perSecond [2]float64
			for turn := range 2 {
				i := (turn + round) % 2
				perSecond[i] = run([]*jobs.Service{waking, plain}[i])
				best[i] = max(best[i], perSecond[i])
			}
			shares = append(shares, perSecond[0]/perSecond[1])
		}
	}
	slices.Sort(shares)
	share := shares[len(shares)/2]
	b.ReportMetric(best[0], "events/s")
	b.ReportMetric(best[1], "plain-events/s")
	b.ReportMetric(share, "share-median")
	if heard[1].Load() == before {
		b.Error("the second server heard nothing")
	}
	if share < minEvents {
		b.Errorf("%.2f times as many events a second are written with wake-ups as without (median of %d rounds), want %.2f", share, len(shares), minEvents)
	}
}

// durable is the address of a database whose commits are on disk.
func durable(b *testing.B) string {
	b.Helper()
	dir, err := os.MkdirTemp("", "resticfleet-bench-") //nolint:usetesting // PostgreSQL's account has to pass through
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o711); err != nil { //nolint:gosec // see above
		b.Fatal(err)
	}
	server, err := postgres.Start(b.Context(), postgres.Config{DataDir: dir})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		server.Stop()
		_ = os.RemoveAll(server.Dir())
	})
	db := modeltest.Pool(b, server.URL())
	if err := models.Migrate(b.Context(), db); err != nil {
		b.Fatal(err)
	}
	return server.URL()
}

// writer is an agent whose backup runs.
type writer struct {
	link *jobs.Link
	job  models.JobID
	seq  int64
}

func newWriter(b *testing.B, s *jobs.Service, name string) *writer {
	b.Helper()
	ctx := b.Context()
	h := must[*models.Host](b)(models.AddHost(ctx, s.DB, models.HostFields{Name: name}))
	token, _, err := models.NewEnrollmentToken(ctx, s.DB, h.ID)
	if err != nil {
		b.Fatal(err)
	}
	if _, _, err := models.Enroll(ctx, s.DB, protocol.EnrollRequest{Token: token, Hostname: name}); err != nil {
		b.Fatal(err)
	}
	must[*models.HostRepository](b)(s.BindRepository(ctx, h.ID, models.RepositoryFields{URL: "/srv/" + name, Password: "correct horse"}))
	must[bool](b)(models.AutoInit(ctx, s.DB, h.ID))
	if _, err := s.DB.ExecContext(ctx, "update jobs set state = 'succeeded', accepted_at = now(), finished_at = now() where host_id = ?", h.ID); err != nil {
		b.Fatal(err)
	}
	g := must[*models.Group](b)(models.AddGroup(ctx, s.DB, h.ID, models.GroupFields{Name: "www", Includes: []string{"/srv/www"}}))
	link, _, err := s.Hello(ctx, must[*models.Host](b)(models.FindHost(ctx, s.DB, h.ID)), protocol.LinkWebSocket, protocol.Hello{Protocol: 1, JournalID: name})
	if err != nil {
		b.Fatal(err)
	}
	w := &writer{link: link, job: must[*models.Job](b)(s.RunGroup(ctx, h.ID, g.ID, models.System)).ID}
	must[[]protocol.Envelope](b)(s.Outgoing(ctx, link))
	w.say(b, s, protocol.TypeAccepted, protocol.Accepted{JobID: w.job.String()})
	w.say(b, s, protocol.TypeStarted, protocol.Started{JobID: w.job.String()})
	return w
}

// report writes one event: log lines and progress by turns.
func (w *writer) report(b *testing.B, s *jobs.Service) {
	w.seq++
	if w.seq%2 == 0 {
		w.say(b, s, protocol.TypeProgress, protocol.Progress{JobID: w.job.String(), Seq: w.seq, Percent: 40, FilesDone: w.seq, TotalFiles: 1 << 20, CurrentFiles: []string{"/srv/www/index.html"}})
		return
	}
	w.say(b, s, protocol.TypeLog, protocol.Log{JobID: w.job.String(), Lines: []protocol.LogLine{{Seq: w.seq, At: time.Now(), Level: protocol.LevelInfo, Text: "/srv/www/index.html was read"}}})
}

func (w *writer) say(b *testing.B, s *jobs.Service, typ string, payload any) {
	verdict, err := s.Receive(b.Context(), w.link, protocol.Seal("m", typ, payload))
	if err != nil || verdict != (jobs.Verdict{}) {
		b.Errorf("%s: %+v, %v", typ, verdict, err)
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
