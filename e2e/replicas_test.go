package e2e

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"

	"resticfleet/models/postgres"
)

// fleet is several servers on one database behind one address.
type fleet struct {
	target // by the balancer's address
	t      *testing.T
	all    []*server
}

func newFleet(t *testing.T, n int) *fleet {
	t.Helper()
	dir, err := os.MkdirTemp(suite.dir, "fleet-") //nolint:usetesting // PostgreSQL's account has to pass through
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(dir, 0o711); err != nil { //nolint:gosec // see above
		t.Fatal(err)
	}
	db, err := postgres.Start(t.Context(), postgres.Config{DataDir: filepath.Join(dir, "postgres"), Fast: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(db.Stop)
	f := &fleet{t: t}
	var backends []string
	for i := range n {
		s := &server{dir: filepath.Join(dir, "server"), log: filepath.Join(dir, fmt.Sprintf("server-%d.log", i)), args: []string{"--database-url", db.URL()}}
		keepLog(t, filepath.Base(s.log), s.log)
		if err := s.start(); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if s.process.ended() {
				return
			}
			if err := s.stop(); err != nil {
				t.Error(err)
			}
		})
		f.all = append(f.all, s)
		u, err := url.Parse(s.url)
		if err != nil {
			t.Fatal(err)
		}
		backends = append(backends, u.Host)
	}
	f.user, f.password = "admin", "correct horse battery"
	if _, err := f.all[0].command(f.password+"\n", "user", "add", f.user, "--role", "admin", "--database-url", db.URL()); err != nil {
		t.Fatal(err)
	}
	f.url = "http://" + balance(t, backends)
	if f.session, err = login(t.Context(), f.url, f.user, f.password); err != nil {
		t.Fatal(err)
	}
	return f
}

// by is the fleet by one server's own address.
func (f *fleet) by(s *server) target {
	return target{url: s.url, user: f.user, password: f.password, session: f.session}
}

var linksMetric = regexp.MustCompile(`(?m)^resticfleet_agent_links(?:\{[^}]*\})? (\d+)$`)

// links is how many agents are linked to a server.
func (f *fleet) links(s *server) int {
	f.t.Helper()
	a := f.by(s).api(f.t).send("GET", "/metrics", nil)
	if a.status != http.StatusOK {
		f.t.Fatalf("metrics: %d %s", a.status, a.body)
	}
	sum := 0
	for _, found := range linksMetric.FindAllSubmatch(a.body, -1) {
		n, err := strconv.Atoi(string(found[1]))
		if err != nil {
			f.t.Fatal(err)
		}
		sum += n
	}
	return sum
}

// balance hands each new connection to the backend with the fewest, passing
// over those that don't answer, and cuts it when either end does. It returns
// its address.
func balance(t *testing.T, backends []string) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var mu sync.Mutex
	var open sync.WaitGroup
	conns := map[net.Conn]bool{}
	load := map[string]int{}
	keep := func(c net.Conn, there bool) {
		mu.Lock()
		defer mu.Unlock()
		if conns[c] = true; !there {
			delete(conns, c)
			_ = c.Close()
		}
	}
	dial := func() (net.Conn, string) {
		mu.Lock()
		defer mu.Unlock()
		order := slices.Clone(backends)
		slices.SortStableFunc(order, func(a, b string) int { return load[a] - load[b] })
		for _, b := range order {
			if c, err := net.DialTimeout("tcp", b, time.Second); err == nil {
				load[b]++
				return c, b
			}
		}
		return nil, ""
	}
	carry := func(client net.Conn) {
		defer keep(client, false)
		keep(client, true)
		server, backend := dial()
		if server == nil {
			return
		}
		defer func() {
			mu.Lock()
			defer mu.Unlock()
			load[backend]--
		}()
		defer keep(server, false)
		keep(server, true)
		var up sync.WaitGroup
		up.Go(func() { _, _ = io.Copy(server, client); _, _ = server.Close(), client.Close() })
		_, _ = io.Copy(client, server)
		_, _ = server.Close(), client.Close()
		up.Wait()
	}
	open.Go(func() {
		for {
			client, err := listener.Accept()
			if err != nil {
				return
			}
			open.Go(func() { carry(client) })
		}
	})
	t.Cleanup(func() {
		_ = listener.Close()
		mu.Lock()
		for c := range conns {
			_ = c.Close()
		}
		mu.Unlock()
		open.Wait()
	})
	return listener.Addr().String()
}

const (
	// relink is the jitter window in which agents come back after a link's end.
	relink = time.Second
	// startsWithin is how soon a Run now through the others must have started.
	startsWithin = 5 * time.Second
)

// One of three servers is killed while backups run: those go on and end well,
// the next Run now starts, and every agent is back, in seconds.
func TestAKilledServersAgentsMoveToTheOthers(t *testing.T) {
	t.Parallel()
	f := newFleet(t, 3)
	const agents = 6
	var hosts []*host
	var running, next []string // a group's id each
	for range agents {
		h := f.newHost(t, slowly(1024)...)
		h.bind(localRepo(t))
		hosts = append(hosts, h)
		running = append(running, h.group("big", []string{writeFiles(t, h.dir+"/big", map[string]string{"a": noise(6 << 20)})}))
		next = append(next, h.group("small", []string{writeFiles(t, h.dir+"/small", map[string]string{"a": noise(100)})}))
	}
	polls := f.bareHost(t, unique("polls"))
	polls.join("--link", "polling")
	polls.bind(localRepo(t))
	polled := polls.group("small", []string{writeFiles(t, polls.dir+"/small", map[string]string{"a": noise(100)})})

	var jobs []string
	for i, h := range hosts {
		jobs = append(jobs, h.run(running[i]))
	}
	for _, id := range jobs {
		f.api(t).state(id, "running")
	}
	victim := slices.MaxFunc(f.all, func(a, b *server) int { return f.links(a) - f.links(b) })
	moving := f.links(victim)
	if moving == 0 {
		t.Fatal("nobody is linked")
	}
	others := slices.DeleteFunc(slices.Clone(f.all), func(s *server) bool { return s == victim })

	killed := time.Now()
	victim.kill()
	through := f.by(others[0]).api(t)
	var started job
	through.call("POST", "/api/hosts/"+polls.id+"/source-groups/"+polled+"/run", nil, http.StatusAccepted, &started)
	var back, ran time.Duration
	within(t, startsWithin, "all agents are back and the next backup has started", func() bool {
		if back == 0 && f.links(others[0])+f.links(others[1]) >= agents {
			back = time.Since(killed)
		}
		if j := through.job(started.ID); ran == 0 && j.StartedAt != nil {
			ran = time.Since(killed)
		}
		return back > 0 && ran > 0
	})
	t.Logf("%d of %d agents moved; all were back after %v, the next backup started after %v", moving, agents, back, ran)
	if back > relink+2*time.Second {
		t.Errorf("the last agent was back after %v, want %v", back, relink+2*time.Second)
	}

	for i, h := range hosts { // nothing was lost, nothing ran twice
		if j := through.end(jobs[i]); j.State != "succeeded" || j.Late {
			t.Errorf("%s: %s (late %v): %s", h.name, j.State, j.Late, j.Error)
		}
		var again job
		through.call("POST", "/api/hosts/"+h.id+"/source-groups/"+next[i]+"/run", nil, http.StatusAccepted, &again)
		if j := through.end(again.ID); j.State != "succeeded" {
			t.Errorf("%s: the next backup is %s: %s", h.name, j.State, j.Error)
		}
		if n := h.started("backup"); n != 2 {
			t.Errorf("%s: restic backed up %d times, want 2", h.name, n)
		}
	}
}
