package jobs_test

import (
	"bytes"
	"context"
	"log/slog"
	"slices"
	"sync"
	"testing"
	"time"

	"resticfleet/agent/protocol"
	"resticfleet/jobs"
	"resticfleet/models"
	"resticfleet/models/modeltest"
)

func TestMain(m *testing.M) { modeltest.Main(m) }

// hints remembers what was published.
type hints struct {
	mu   sync.Mutex
	seen []jobs.Topic
}

func (h *hints) Publish(topics ...jobs.Topic) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.seen = append(h.seen, topics...)
}

// take returns and forgets what was published.
func (h *hints) take() []jobs.Topic {
	h.mu.Lock()
	defer h.mu.Unlock()
	seen := h.seen
	h.seen = nil
	return seen
}

// bundle is two servers on one database.
type bundle struct {
	t       *testing.T
	ctx     context.Context
	db      *models.DB
	servers [2]*jobs.Service
	hints   [2]*hints
	logs    [2]*said
}

// said is what a server logs.
type said struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (s *said) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.buf.Write(p)
}

// logOf gives what a server logs from here on.
func (b *bundle) logOf(server int) func() string {
	s := b.logs[server]
	s.mu.Lock()
	defer s.mu.Unlock()
	begin := s.buf.Len()
	return func() string {
		s.mu.Lock()
		defer s.mu.Unlock()
		return s.buf.String()[begin:]
	}
}

func setup(t *testing.T) *bundle {
	t.Helper()
	url, sealer := modeltest.URL(t), modeltest.Sealer(t)
	b := &bundle{t: t, ctx: t.Context()}
	for i := range b.servers {
		b.hints[i], b.logs[i] = &hints{}, &said{}
		b.servers[i] = jobs.New(jobs.Config{
			DB: modeltest.Pool(t, url), Sealer: sealer, Hints: b.hints[i], Log: slog.New(slog.NewTextHandler(b.logs[i], nil)), OfferAgain: time.Hour,
		})
	}
	b.db = b.servers[0].DB
	return b
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

func (b *bundle) exec(query string, args ...any) {
	b.t.Helper()
	if _, err := b.db.ExecContext(b.ctx, query, args...); err != nil {
		b.t.Fatalf("%s: %v", query, err)
	}
}

func (b *bundle) count(query string, args ...any) int {
	b.t.Helper()
	var n int
	if err := b.db.QueryRowContext(b.ctx, query, args...).Scan(&n); err != nil {
		b.t.Fatalf("%s: %v", query, err)
	}
	return n
}

// host is an enrolled host with a repository whose init is behind it.
func (b *bundle) host(name, url string) *models.Host {
	b.t.Helper()
	h := must[*models.Host](b.t)(models.AddHost(b.ctx, b.db, models.HostFields{Name: name}))
	_, hash := models.NewToken("rfa_")
	b.exec("update hosts set agent_token_hash = ? where id = ?", hash, h.ID)
	h.AgentTokenHash = hash
	if url == "" {
		return h
	}
	must[*models.HostRepository](b.t)(b.servers[0].BindRepository(b.ctx, h.ID, models.RepositoryFields{URL: url, Password: "correct horse"}))
	must[bool](b.t)(models.AutoInit(b.ctx, b.db, h.ID))
	b.exec("update jobs set state = 'succeeded', accepted_at = now(), finished_at = now() where host_id = ? and kind = 'init'", h.ID)
	return h
}

func (b *bundle) group(h *models.Host, name string) *models.Group {
	b.t.Helper()
	return must[*models.Group](b.t)(models.AddGroup(b.ctx, b.db, h.ID, models.GroupFields{Name: name, Includes: []string{"/srv/" + name}}))
}

func (b *bundle) schedule(h *models.Host, enabled bool, groups ...*models.Group) *models.Schedule {
	b.t.Helper()
	f := models.ScheduleFields{Cron: "0 2 * * *", Enabled: enabled}
	for _, g := range groups {
		f.GroupIDs = append(f.GroupIDs, g.ID.String())
	}
	return must[*models.Schedule](b.t)(models.AddSchedule(b.ctx, b.db, h.ID, f))
}

func (b *bundle) run(g *models.Group) *models.Job {
	b.t.Helper()
	return must[*models.Job](b.t)(b.servers[0].RunGroup(b.ctx, g.HostID, g.ID, models.System))
}

func (b *bundle) job(id models.JobID) *models.Job {
	b.t.Helper()
	return must[*models.Job](b.t)(models.FindJob(b.ctx, b.db, id))
}

// exclusive makes a waiting job of a kind that runs alone in its repository.
func (b *bundle) exclusive(h *models.Host, kind models.JobKind) models.JobID {
	b.t.Helper()
	repo := must[*models.HostRepository](b.t)(models.FindRepository(b.ctx, b.db, h.ID))
	id := models.NewID[models.JobID]()
	b.exec("insert into jobs (id, host_id, kind, state, actor_kind, repository_id, repository_url) values (?, ?, ?, 'queued', 'user', ?, ?)",
		id, h.ID, kind, repo.RepositoryID, repo.URL)
	return id
}

// hello opens a link to one of the servers.
func (b *bundle) hello(server int, h *models.Host, known ...protocol.HelloJob) (*jobs.Link, []protocol.Envelope) {
	b.t.Helper()
	link, first, err := b.servers[server].Hello(b.ctx, h, protocol.LinkWebSocket, protocol.Hello{
		JournalID: "journal of " + h.Name, Timezone: "Europe/Vienna", Jobs: known, SentAt: time.Now(),
	})
	if err != nil {
		b.t.Fatal(err)
	}
	return link, first
}

// say sends one message and returns what became of it.
func (b *bundle) say(server int, link *jobs.Link, typ string, payload any) jobs.Verdict {
	b.t.Helper()
	return must[jobs.Verdict](b.t)(b.servers[server].Receive(b.ctx, link, protocol.Seal("m", typ, payload)))
}

func types(messages []protocol.Envelope) []string {
	out := []string{}
	for _, m := range messages {
		out = append(out, m.Type)
	}
	return out
}

// commands are the ids of the jobs that messages tell to run.
func commands(t testing.TB, messages []protocol.Envelope) []string {
	t.Helper()
	ids := []string{}
	for _, m := range messages {
		if m.Type == protocol.TypeRun {
			ids = append(ids, must[protocol.Run](t)(protocol.Decode[protocol.Run](m)).JobID)
		}
	}
	return ids
}

func (b *bundle) wantCommands(server int, link *jobs.Link, want ...models.JobID) {
	b.t.Helper()
	before := b.waits(link.HostID)
	got := commands(b.t, must[[]protocol.Envelope](b.t)(b.servers[server].Outgoing(b.ctx, link)))
	b.wantWaits(before, b.waits(link.HostID), got)
	ids := []string{}
	for _, id := range want {
		ids = append(ids, id.String())
	}
	if !slices.Equal(got, ids) {
		b.t.Errorf("commands %v, want %v", got, ids)
	}
}

// waits is what pages say of a host's queued jobs.
func (b *bundle) waits(host models.HostID) map[models.JobID]models.Wait {
	b.t.Helper()
	open := must[[]*models.Job](b.t)(models.OpenJobs(b.ctx, b.db, host))
	return must[map[models.JobID]models.Wait](b.t)(models.Waits(b.ctx, b.db, open))
}

// wantWaits: what pages say is what the claim found. The job that left first was
// said to wait for nothing, and whatever stays waits for something.
func (b *bundle) wantWaits(before, after map[models.JobID]models.Wait, left []string) {
	b.t.Helper()
	for _, id := range left {
		if w, queued := before[must[models.JobID](b.t)(models.ParseID[models.JobID](id))]; queued {
			if w.Behind != nil || w.Away {
				b.t.Errorf("job %s left and was said to wait: %+v", id, w)
			}
			break
		}
	}
	for id, w := range after {
		if w.Behind == nil && !w.Away {
			b.t.Errorf("job %s stays and is said to wait for nothing", id)
		}
	}
}

func (b *bundle) finish(server int, link *jobs.Link, id models.JobID) {
	b.t.Helper()
	if v := b.say(server, link, protocol.TypeFinished, protocol.Finished{JobID: id.String(), Outcome: protocol.OutcomeFailed, Error: "over"}); v.Rejected != "" {
		b.t.Fatal(v.Rejected)
	}
}
