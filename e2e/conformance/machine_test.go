package conformance

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/fstest"
	"time"

	"resticfleet/agent"
	"resticfleet/agent/protocol"
	"resticfleet/agent/transport"
	"resticfleet/e2e/stage"
	"resticfleet/e2e/weather"
	"resticfleet/models"
)

const password = "canary-pass-7Q"

// wrapper stands in restic's place. It writes every start down. A backup tells
// of progress and drips lines into its log while the host holds it, and at
// least as often as the host asks for.
const wrapper = `#!/bin/sh
cd %[1]q
case "$*" in *job:*)
  echo "$*" >> starts
  case " $* " in *" backup "*)
    n=0
    while read drips < drips; [ -e hold ] || [ $n -lt "$drips" ]; do
      n=$((n+1))
      echo "drip $n" >&2
      echo "{\"message_type\":\"status\",\"percent_done\":0.$((1000000+n)),\"total_files\":2,\"files_done\":1,\"total_bytes\":9,\"bytes_done\":5}"
      sleep 0.05
    done;;
  esac;;
esac
exec %[2]q "$@"
`

// machine is a host of the fleet: a folder with something to back up, an agent,
// and the way from it to the server.
type machine struct {
	t     *testing.T
	s     *server
	proxy *weather.Proxy
	link  link
	host  *models.Host
	dir   string
	log   *text
	boot  string // what it calls its boot, this system's if empty
	turns int
	// resend is how long the agent waits for an acknowledgement; 1 s if 0.
	resend time.Duration
	// stop ends the agent that runs.
	stop func()
}

// template is an empty repository, made once. Its 256 folders of data are left
// out, restic makes those that it needs.
var template = sync.OnceValues(func() (fs.FS, error) {
	dir, err := os.MkdirTemp("", "resticfleet-test-")
	if err != nil {
		return nil, err
	}
	defer func() { _ = os.RemoveAll(dir) }()
	restic, err := filepath.Abs("../../bin/restic")
	if err != nil {
		return nil, err
	}
	ctx, stop := context.WithTimeout(context.Background(), patience)
	defer stop()
	if _, err := stage.NewRepository(ctx, restic, dir, password); err != nil {
		return nil, fmt.Errorf("%w; is there a bin/restic? run `make tools`", err)
	}
	repo := fstest.MapFS{}
	return repo, fs.WalkDir(os.DirFS(dir), ".", func(path string, d fs.DirEntry, err error) error {
		switch {
		case err != nil || path == ".":
			return err
		case filepath.Dir(path) == "data":
			return fs.SkipDir
		case d.IsDir():
			repo[path] = &fstest.MapFile{Mode: fs.ModeDir | 0o700}
			return nil
		}
		data, err := os.ReadFile(filepath.Join(dir, path))
		repo[path] = &fstest.MapFile{Data: data, Mode: 0o600}
		return err
	})
})

// newMachine makes a host that is enrolled through its proxy; its agent does
// not run yet. Its repository is bound, and made.
func newMachine(t *testing.T, s *server, l link, seed uint64) *machine {
	t.Helper()
	m := bareMachine(t, s, l, seed)
	if err := os.CopyFS(m.path("repo"), must[fs.FS](t)(template())); err != nil {
		t.Fatal(err)
	}
	ctx := t.Context()
	must[*models.HostRepository](t)(s.jobs.BindRepository(ctx, m.host.ID, models.RepositoryFields{URL: m.path("repo"), Password: password}))
	must[bool](t)(models.AutoInit(ctx, s.db, m.host.ID))
	if _, err := s.db.ExecContext(ctx, "update jobs set state = 'succeeded', accepted_at = now(), finished_at = now() where host_id = ?", m.host.ID); err != nil {
		t.Fatal(err)
	}
	return m
}

// bareMachine is one without a repository.
func bareMachine(t *testing.T, s *server, l link, seed uint64) *machine {
	t.Helper()
	ctx := t.Context()
	m := &machine{t: t, s: s, link: l, dir: t.TempDir(), log: &text{}, stop: func() {}}
	m.write("source/a.txt", "alpha")
	m.write("drips", "1\n")
	m.write("restic", fmt.Sprintf(wrapper, m.dir, must[string](t)(filepath.Abs("../../bin/restic"))))
	if err := os.Chmod(m.path("restic"), 0o700); err != nil {
		t.Fatal(err)
	}
	m.proxy = must[*weather.Proxy](t)(weather.New(s.url, seed))
	t.Cleanup(m.proxy.Close)
	m.host = must[*models.Host](t)(models.AddHost(ctx, s.db, models.HostFields{Name: fmt.Sprintf("%s-%x", l.name, seed) + filepath.Base(filepath.Dir(m.dir))}))
	token, _, err := models.NewEnrollmentToken(ctx, s.db, m.host.ID)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := agent.Enroll(ctx, agent.Enrollment{Server: m.proxy.URL, Token: token, StateDir: m.path("state"), Version: "test", Timezone: "UTC"}); err != nil {
		t.Fatal(err)
	}
	m.proxy.Set(l.climate)
	return m
}

func (m *machine) path(name string) string { return filepath.Join(m.dir, name) }

func (m *machine) write(name, content string) {
	m.t.Helper()
	if err := os.MkdirAll(filepath.Dir(m.path(name)), 0o700); err != nil {
		m.t.Fatal(err)
	}
	// At once: the script may be reading it.
	next := m.path(name) + ".new"
	if err := os.WriteFile(next, []byte(content), 0o600); err != nil {
		m.t.Fatal(err)
	}
	if err := os.Rename(next, m.path(name)); err != nil {
		m.t.Fatal(err)
	}
}

// hold keeps backups that begin from now on until release.
func (m *machine) hold() { m.write("hold", "") }

func (m *machine) release() {
	m.t.Helper()
	if err := os.Remove(m.path("hold")); err != nil {
		m.t.Fatal(err)
	}
}

// start runs the machine's agent, and waits until both ends know their link.
func (m *machine) start() {
	m.t.Helper()
	m.run()
	m.linked(m.link.first())
	eventually(m.t, "the agent has its welcome", func() bool { return strings.Contains(m.log.String(), "linked to the server") })
}

// run runs the machine's agent.
func (m *machine) run() {
	m.t.Helper()
	o := agent.Options{
		StateDir: m.path("state"), Version: "test", Timezone: "UTC", Link: m.link.pin, BootID: m.boot,
		Logger:  slog.New(slog.NewTextHandler(m.log, nil)),
		Backoff: transport.Backoff{Base: 5 * time.Millisecond, Cap: 100 * time.Millisecond},
		Runner: agent.RunnerConfig{
			Restic: m.path("restic"), Self: must[string](m.t)(os.Executable()), TailEvery: 20 * time.Millisecond, MinFreeInodes: 10,
		},
		WelcomeAfter: 3 * time.Second, LivedAfter: 200 * time.Millisecond, PingInterval: m.s.ping, ResendAfter: cmp.Or(m.resend, time.Second),
		ProbeAfter: 100 * time.Millisecond, ProbeAtMost: 200 * time.Millisecond, ProbeStays: 50 * time.Millisecond,
	}
	o.DialWebSocket = func(ctx context.Context, c transport.Config) (transport.Link, error) {
		c.HandshakeTimeout = 3 * time.Second
		return transport.DialWebSocket(ctx, c)
	}
	o.DialPolling = func(ctx context.Context, c transport.Config) (transport.Link, error) {
		c.RetryPause, c.HandshakeTimeout, c.WriteTimeout = 20*time.Millisecond, 3*time.Second, 3*time.Second
		return transport.DialPolling(ctx, c)
	}
	a := must[*agent.Agent](m.t)(agent.New(o))
	ctx, cancel := context.WithCancel(context.WithoutCancel(m.t.Context()))
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := a.Run(ctx); err != nil {
			m.t.Errorf("Run: %v", err)
		}
	}()
	stop := sync.OnceFunc(func() { cancel(); <-done })
	m.stop = stop
	m.t.Cleanup(func() {
		// A backup that is still held would outlive its agent, as it should.
		_ = os.Remove(m.path("hold"))
		stop()
		if m.t.Failed() {
			m.t.Logf("weather: %s\nthe agent's log:\n%s", m.proxy.Report(), m.log)
		}
	})
}

func (m *machine) now() *models.Host {
	m.t.Helper()
	return must[*models.Host](m.t)(models.FindHost(m.t.Context(), m.s.db, m.host.ID))
}

// linked waits until the server shows a link of this kind.
func (m *machine) linked(kind string) {
	m.t.Helper()
	eventually(m.t, "the host is linked by "+kind, func() bool {
		h := m.now()
		return h.Online(time.Now()) && h.Link != nil && *h.Link == kind
	})
}

func (m *machine) group(name string) *models.Group {
	m.t.Helper()
	return must[*models.Group](m.t)(models.AddGroup(m.t.Context(), m.s.db, m.host.ID, models.GroupFields{Name: name, Includes: []string{m.path("source")}}))
}

// runNow is Run now.
func (m *machine) runNow(g *models.Group) *models.Job {
	m.t.Helper()
	return must[*models.Job](m.t)(m.s.jobs.RunGroup(m.t.Context(), m.host.ID, g.ID, models.System))
}

// in waits until a job is in a state.
func (m *machine) in(id models.JobID, state models.JobState) *models.Job {
	m.t.Helper()
	var j *models.Job
	eventually(m.t, fmt.Sprintf("job %s is %s", id, state), func() bool {
		if j = m.s.job(id); j.State.Ended() && j.State != state {
			m.t.Fatalf("job %s is %s, not %s: %s", id, j.State, state, j.Error)
		}
		return j.State == state
	})
	return j
}

// starts counts how often restic was started to do a job's work.
func (m *machine) starts(id models.JobID) int {
	m.t.Helper()
	raw, err := os.ReadFile(m.path("starts"))
	if err != nil && !os.IsNotExist(err) {
		m.t.Fatal(err)
	}
	n := 0
	for line := range strings.Lines(string(raw)) {
		if words := strings.Fields(line); slices.Contains(words, "backup") && slices.Contains(words, "--tag=job:"+id.String()) {
			n++
		}
	}
	return n
}

// snapshots are the repository's.
func (m *machine) snapshots() []string {
	m.t.Helper()
	files, err := os.ReadDir(m.path("repo/snapshots"))
	if err != nil {
		m.t.Fatal(err)
	}
	ids := []string{}
	for _, f := range files {
		ids = append(ids, f.Name())
	}
	return ids
}

// acknowledged waits until the agent has nothing left to tell.
func (m *machine) acknowledged() {
	m.t.Helper()
	eventually(m.t, "the agent knows that every result is stored", func() bool {
		files, err := filepath.Glob(m.path("state/journal/*-*-*-*-*.json"))
		if err != nil {
			m.t.Fatal(err)
		}
		for _, f := range files {
			raw, err := os.ReadFile(f)
			if err != nil {
				return false
			}
			var e agent.Entry
			if json.Unmarshal(raw, &e) != nil || e.AckedAt.IsZero() {
				return false
			}
		}
		return true
	})
}

// settled waits until jobs have ended like that, and checks them.
func (m *machine) settled(want models.JobState, histories map[models.JobID]*history) {
	m.t.Helper()
	for id := range histories {
		m.in(id, want)
	}
	m.checked(histories)
}

// checked checks what must be true of backups that have ended, whatever
// happened on their way: each has one end, one start of restic and, if it
// succeeded, one snapshot; its log has every line once and in order; nothing
// is left open.
func (m *machine) checked(histories map[models.JobID]*history) {
	m.t.Helper()
	eventually(m.t, "nothing is open, the look-ups neither", func() bool {
		return len(must[[]*models.Job](m.t)(models.OpenJobs(m.t.Context(), m.s.db, m.host.ID))) == 0
	})
	m.acknowledged()
	snapshots := []string{}
	for id, h := range histories {
		eventually(m.t, "the watcher has seen the end", h.seen)
		if err := h.check(); err != nil {
			m.t.Errorf("job %s: %v", id, err)
		}
		j := m.s.job(id)
		if n := m.starts(id); n > 1 || n == 0 && j.State != models.JobCancelled {
			m.t.Errorf("restic was started %d times for job %s", n, id)
		}
		if j.SnapshotID != "" {
			snapshots = append(snapshots, j.SnapshotID)
		}
		if (j.State == models.JobSucceeded) != (j.SnapshotID != "") {
			m.t.Errorf("job %s is %s with the snapshot %q: %s", id, j.State, j.SnapshotID, j.Error)
		}
		m.logIsWhole(j)
	}
	slices.Sort(snapshots)
	if got := m.snapshots(); !slices.Equal(got, snapshots) {
		m.t.Errorf("the repository has the snapshots %v, the jobs name %v", got, snapshots)
	}
	// What a look-up answered has come whole, too.
	if list := m.listed(); !slices.Equal(list, snapshots) {
		m.t.Errorf("the list has the snapshots %v, the jobs name %v", list, snapshots)
	}
}

// listed are the snapshots that the database knows, sorted.
func (m *machine) listed() []string {
	m.t.Helper()
	ids := []string{}
	if err := m.s.db.NewRaw("select id from snapshots where host_id = ? order by id", m.host.ID).Scan(m.t.Context(), &ids); err != nil {
		m.t.Fatal(err)
	}
	return ids
}

// logIsWhole checks that a log has no gap and no line twice.
func (m *machine) logIsWhole(j *models.Job) {
	m.t.Helper()
	lines := must[[]models.LogLine](m.t)(models.ListLog(m.t.Context(), m.s.db, j.ID, 0, 100_000))
	drips := 0
	for i, l := range lines {
		if l.Seq != int64(i)+1 {
			m.t.Fatalf("job %s: log line %d stands at place %d", j.ID, l.Seq, i+1)
		}
		if n, ok := strings.CutPrefix(l.Text, "drip "); ok {
			if drips++; n != fmt.Sprint(drips) {
				m.t.Errorf("job %s: drip %s comes as number %d", j.ID, n, drips)
			}
		}
	}
	if drips == 0 && j.State == models.JobSucceeded {
		m.t.Errorf("job %s: its log has none of restic's words: %v", j.ID, lines)
	}
}

// link is a way for agent and server to be linked.
type link struct {
	name    string
	pin     string // --link
	climate weather.Climate
	changes bool // in the middle of the story, and back again
	// alike is a link that is another's once it stands: it tells but few of
	// the stories.
	alike bool
}

func (l link) first() string {
	if l.pin == agent.LinkPolling || l.climate.Odds[weather.Strip] > 0 {
		return protocol.LinkPolling
	}
	return protocol.LinkWebSocket
}

var links = []link{
	{name: "websocket", pin: agent.LinkWebSocket},
	{name: "polling", pin: agent.LinkPolling},
	{name: "stripped", pin: agent.LinkAuto, climate: weather.Climate{Odds: map[weather.Fault]float64{weather.Strip: 1}}, alike: true},
	{name: "changing", pin: agent.LinkAuto, changes: true},
}

// turn changes the link where it changes: to polling at the first call, back
// to the WebSocket at the next.
func (m *machine) turn() {
	m.t.Helper()
	if !m.link.changes {
		return
	}
	if m.turns++; m.turns%2 == 1 {
		m.proxy.Set(weather.Climate{Odds: map[weather.Fault]float64{weather.Refuse: 1}})
		m.proxy.Cut()
		m.linked(protocol.LinkPolling)
		return
	}
	m.proxy.Set(weather.Climate{})
	m.linked(protocol.LinkWebSocket)
}
