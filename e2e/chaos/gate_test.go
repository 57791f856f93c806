package chaos

import (
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// gate is rest-server with a proxy before it, which can hold restic at some
// places and sees which process makes and removes which lock: the hosts' restic
// gives its host as the user and its process id as the password.
type gate struct {
	dir    string // of the repositories
	url    string
	server *program

	mu sync.Mutex
	// slow is how long restic waits at each place, held or not.
	slow    func() time.Duration
	holds   map[string]*hold // by host and place
	owners  map[string]int   // of locks, by path
	unlocks []Unlock
	forgets []Forget
}

// The places where restic can be held.
const (
	atData     = "POST data"        // it is about to store the first file, or to repack one
	atSnapshot = "POST snapshots"   // the snapshot is stored; restic doesn't know
	atForget   = "DELETE snapshots" // it is about to remove the first snapshot
	atPrune    = "DELETE index"     // the new index is stored; the old one and what is in no index is still there
	atCheck    = "GET data"         // it is about to read what is stored
)

type hold struct {
	reached chan struct{}
	reach   func()
	freed   chan struct{}
	free    func()
}

func newGate(t testing.TB, dir string) *gate {
	t.Helper()
	g := &gate{dir: filepath.Join(dir, "repositories"), slow: func() time.Duration { return 0 }, holds: map[string]*hold{}, owners: map[string]int{}}
	g.server = &program{t: t, name: "rest-server", log: filepath.Join(dir, "rest-server.log"), command: func() []string {
		return []string{suite.restServer, "--no-auth", "--path", g.dir, "--listen", "127.0.0.1:0"}
	}}
	if err := os.MkdirAll(g.dir, 0o755); err != nil {
		t.Fatal(err)
	}
	g.server.start()
	to := &url.URL{Scheme: "http", Host: g.server.said("start server on ")}
	pass := &httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) { r.SetURL(to) },
		ModifyResponse: func(res *http.Response) error {
			g.wait(res.Request, atSnapshot)
			return nil
		},
		ErrorHandler: func(w http.ResponseWriter, _ *http.Request, _ error) { w.WriteHeader(http.StatusBadGateway) }, // restic was killed
	}
	front := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		g.see(r)
		for _, place := range []string{atData, atForget, atPrune, atCheck} {
			g.wait(r, place)
		}
		pass.ServeHTTP(w, r)
	}))
	g.url = front.URL
	t.Cleanup(func() {
		g.freeAll()
		g.server.signal(syscall.SIGTERM)
		<-g.server.done
		front.Close()
	})
	return g
}

// repository is a new, empty one; its name is its folder below dir.
func (g *gate) repository(t testing.TB, name string) {
	t.Helper()
	if err := suite.empty.Copy(filepath.Join(g.dir, name), password); err != nil {
		t.Fatal(err)
	}
}

func (g *gate) address(name string) string { return "rest:" + g.url + "/" + name + "/" }

// hold stops a host's restic at a place until it is freed.
func (g *gate) hold(host, place string) *hold {
	h := &hold{reached: make(chan struct{}), freed: make(chan struct{})}
	h.reach = sync.OnceFunc(func() { close(h.reached) })
	h.free = sync.OnceFunc(func() { close(h.freed) })
	g.mu.Lock()
	defer g.mu.Unlock()
	g.holds[host+"/"+place] = h
	return h
}

// slowDown lets every restic wait at each place for up to half a second, so that
// kills find it there.
func (g *gate) slowDown(r *rand.Rand) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.slow = func() time.Duration { return time.Duration(r.IntN(500)) * time.Millisecond }
}

func (g *gate) freeAll() {
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, h := range g.holds {
		h.free()
	}
}

// see keeps who made and who removes a lock, and who removes a snapshot.
func (g *gate) see(r *http.Request) {
	if repository, id, ok := strings.Cut(strings.Trim(r.URL.Path, "/"), "/snapshots/"); ok && r.Method == http.MethodDelete {
		host, _ := caller(r)
		g.mu.Lock()
		defer g.mu.Unlock()
		g.forgets = append(g.forgets, Forget{repository, id, host})
		return
	}
	if !strings.Contains(r.URL.Path, "/locks/") {
		return
	}
	_, by := caller(r)
	g.mu.Lock()
	defer g.mu.Unlock()
	switch r.Method {
	case http.MethodPost:
		g.owners[r.URL.Path] = by
	case http.MethodDelete:
		if owner := g.owners[r.URL.Path]; owner != by {
			repository, lock, _ := strings.Cut(strings.Trim(r.URL.Path, "/"), "/locks/")
			g.unlocks = append(g.unlocks, Unlock{Repository: repository, Lock: lock, Owner: owner, By: by, OwnerLived: owner != 0 && alive(owner)})
		}
	}
}

func (g *gate) wait(r *http.Request, place string) {
	method, kind, _ := strings.Cut(place, " ")
	if r.Method != method || !strings.Contains(r.URL.Path, "/"+kind+"/") {
		return
	}
	host, _ := caller(r)
	g.mu.Lock()
	h := g.holds[host+"/"+place]
	slow := g.slow()
	g.mu.Unlock()
	within(slow, func() bool { return r.Context().Err() != nil })
	if h == nil {
		return
	}
	h.reach()
	select {
	case <-h.freed:
	case <-r.Context().Done():
	}
}

// caller is the host whose restic asks, and that restic's process.
func caller(r *http.Request) (host string, pid int) {
	host, number, _ := r.BasicAuth()
	pid, _ = strconv.Atoi(number)
	return host, pid
}
