package agentapi_test

import (
	"bufio"
	"context"
	"log/slog"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"resticfleet/agent/protocol"
	"resticfleet/handlers/live"
	"resticfleet/models"
	"resticfleet/models/modeltest"
)

// replica is one of several whole servers on one database.
type replica struct {
	*bundle
	relay *live.Relay
}

// replicas start without their loops: a test runs those it is about.
func replicas(t *testing.T, n int) []*replica {
	t.Helper()
	url, sealer := modeltest.URL(t), modeltest.Sealer(t)
	var all []*replica
	for range n {
		b := &bundle{t: t, ctx: t.Context(), dbURL: url, log: &lines{}}
		b.serve(sealer, time.Hour) // what arrives was not merely offered again
		all = append(all, &replica{b, live.NewRelay(b.hub, url, slog.New(slog.NewJSONHandler(b.log, nil)))})
	}
	return all
}

// during runs f until the test ends or stop is called, which waits.
func (r *replica) during(f func(context.Context)) (stop func()) {
	ctx, cancel := context.WithCancel(r.ctx)
	var running sync.WaitGroup
	running.Go(func() { f(ctx) })
	stop = func() { cancel(); running.Wait() }
	r.t.Cleanup(stop)
	return stop
}

// hears runs the relay, and returns when other servers are heard.
func (r *replica) hears() (stop func()) {
	r.t.Helper()
	stop = r.during(r.relay.Run)
	r.eventually("other servers are heard", r.relay.Listening)
	return stop
}

// Nothing but a NOTIFY can bring this command: no slow look runs.
func TestRunNowReachesTheAgentOnAnotherServer(t *testing.T) {
	t.Parallel()
	all := replicas(t, 3)
	for _, r := range all {
		r.hears()
	}
	h, token := all[0].enrolled("web-1")
	g := all[0].group(h, "www")
	agent := all[1].link(token)
	agent.next(protocol.TypeScheduleSet)
	all[2].run(g)
	agent.next(protocol.TypeRun)

	// The connection is lost, comes back by itself, and hints work again.
	all[0].exec("select pg_terminate_backend(pid) from pg_stat_activity where datname = current_database() and query = 'listen resticfleet'")
	all[1].eventually("the loss is noticed", func() bool {
		return strings.Contains(all[1].log.String(), "listening to other servers was interrupted")
	})
	all[1].eventually("other servers are heard again", all[1].relay.Listening)
	for range 2 { // the first may be found by the look that begins a connection
		must[*models.Schedule](t)(models.AddSchedule(all[2].ctx, all[2].db, h.ID, models.ScheduleFields{Cron: "@daily", Enabled: true, GroupIDs: []string{g.ID.String()}}))
		all[2].jobs.HostChanged(h.ID)
		agent.until(protocol.TypeScheduleSet)
	}
}

// Without any NOTIFY the slow look of the server that has the link finds the
// command within a second or two.
func TestRunNowReachesTheAgentWithoutHints(t *testing.T) {
	t.Parallel()
	all := replicas(t, 2)
	all[1].during(all[1].agents.Run)
	h, token := all[0].enrolled("web-1")
	agent := all[1].link(token)
	agent.next(protocol.TypeScheduleSet)
	quickest := time.Hour
	for _, name := range []string{"a", "b", "c"} {
		began := time.Now()
		job := all[0].run(all[0].group(h, name))
		agent.until(protocol.TypeRun)
		quickest = min(quickest, time.Since(began))
		all[0].exec("update jobs set state = 'failed', accepted_at = now(), finished_at = now() where id = ?", job.ID)
	}
	if quickest > 2*time.Second {
		t.Errorf("the quickest of three took %v", quickest)
	}
}

// A page on one server hears what agents tell another: by NOTIFY, by its own
// look while nothing can be heard, and by NOTIFY again.
func TestLivePagesHearOfAllServers(t *testing.T) {
	t.Parallel()
	all := replicas(t, 2)
	all[1].hears()
	h, token := all[0].enrolled("web-1")
	job := all[0].run(all[0].group(h, "www"))
	agent := all[1].link(token)
	agent.until(protocol.TypeRun)
	page := all[0].page("/events?on=job:" + job.ID.String())
	seq := int64(0)
	said := func(text string) {
		t.Helper()
		seq++
		agent.say(text, protocol.TypeLog, protocol.Log{JobID: job.ID.String(), Lines: []protocol.LogLine{{Seq: seq, At: time.Now(), Level: protocol.LevelInfo, Text: text}}})
		agent.until(protocol.TypeAck)
		page.until(text)
	}
	agent.say("1", protocol.TypeStarted, protocol.Started{JobID: job.ID.String()})
	agent.until(protocol.TypeAck)
	deafen := all[0].hears()
	said("heard-by-notify")
	deafen()
	// As a relay that can't connect: everybody looks for themselves.
	lost := live.NewRelay(all[0].hub, "postgres://nobody@/nowhere?host=/nowhere", slog.New(slog.DiscardHandler))
	looking := all[0].during(lost.Run)
	said("seen-by-looking")
	looking()
	all[0].hears()
	said("heard-again")
}

// stream is a page's event stream.
type stream struct {
	b     *bundle
	lines chan string
}

func (b *bundle) page(path string) *stream {
	b.t.Helper()
	user := models.NewID[models.UserID]()
	b.exec("insert into users (id, name, role, password_hash) values (?, 'viewer', 'viewer', '')", user)
	session := must[string](b.t)(models.StartSession(b.ctx, b.db, user, "", ""))
	res := b.do("GET", path, "", nil, "Cookie", "session="+session)
	if res.StatusCode != http.StatusOK {
		b.t.Fatalf("%s: %d", path, res.StatusCode)
	}
	s := &stream{b: b, lines: make(chan string, 1000)}
	var reading sync.WaitGroup
	reading.Go(func() {
		for read := bufio.NewScanner(res.Body); read.Scan(); {
			s.lines <- read.Text()
		}
	})
	b.t.Cleanup(func() {
		_ = res.Body.Close()
		reading.Wait()
	})
	return s
}

// until waits for a line with text in it.
func (s *stream) until(text string) {
	s.b.t.Helper()
	late := time.After(patience)
	for {
		select {
		case line := <-s.lines:
			if strings.Contains(line, text) {
				return
			}
		case <-late:
			s.b.t.Fatalf("the page is not told of %q", text)
		}
	}
}

// A server that nobody tells anything must not go on saying that nothing has
// changed: what another server has committed counts within a second.
func TestAServerThatHearsNothingIsNotTrustedForLong(t *testing.T) {
	t.Parallel()
	all := replicas(t, 2)
	a, b := all[0], all[1]
	b.during(b.agents.Run) // and no relay: its LISTEN is cut and stays so
	for name, c := range map[string]struct {
		change func(h *models.Host, g *models.Group)
		want   int
	}{
		"changed": {func(h *models.Host, g *models.Group) {
			must[*models.Schedule](t)(models.AddSchedule(a.ctx, a.db, h.ID, models.ScheduleFields{Cron: "@daily", Enabled: true, GroupIDs: []string{g.ID.String()}}))
		}, http.StatusOK},
		"deleted":  {func(h *models.Host, _ *models.Group) { must[[]models.JobID](t)(models.DeleteHost(a.ctx, a.db, h.ID)) }, http.StatusGone},
		"replaced": {func(h *models.Host, _ *models.Group) { a.enroll(h) }, http.StatusUnauthorized},
	} {
		h, token := a.enrolled(name)
		g := a.group(h, "www")
		ask := func() int {
			status, _ := b.request("GET", "/agent/v1/schedule", token, nil, "If-None-Match", `"0"`)
			return status
		}
		for range 3 {
			if status := ask(); status != http.StatusNotModified {
				t.Fatalf("%s: %d before anything happened", name, status)
			}
		}
		c.change(h, g)
		changed := time.Now()
		for asked := changed; ; asked = time.Now() { // a question asked later than that must be answered by the new truth
			status := ask()
			if status == c.want {
				break
			}
			if status != http.StatusNotModified || asked.Sub(changed) > time.Second {
				t.Errorf("%s: %d to what was asked %v after the change, want %d", name, status, asked.Sub(changed), c.want)
				break
			}
		}
	}
}
