package e2e

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
)

// fleetName is the server's name for those who ask the way out; nothing on this
// machine resolves it.
const fleetName = "fleet.test"

// wayOut is the only way from a host to its server: an HTTP proxy that wants a
// password. asked is what it was asked for, by those who knew it.
type wayOut struct {
	url string

	mu      sync.Mutex
	asked   map[string]int // "CONNECT", or the path
	tunnels sync.WaitGroup
}

func newWayOut(t *testing.T, to target) *wayOut {
	t.Helper()
	server, err := url.Parse(to.url)
	if err != nil {
		t.Fatal(err)
	}
	w := &wayOut{asked: map[string]int{}}
	forward := &httputil.ReverseProxy{Rewrite: func(r *httputil.ProxyRequest) { r.SetURL(server) }}
	front := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		login := &http.Request{Header: http.Header{"Authorization": r.Header["Proxy-Authorization"]}}
		user, password, _ := login.BasicAuth()
		if user != "me" || password != "s3cret" || !strings.HasPrefix(r.Host, fleetName) {
			rw.WriteHeader(http.StatusProxyAuthRequired)
			return
		}
		what := r.URL.Path
		if r.Method == http.MethodConnect {
			what = r.Method
		}
		w.mu.Lock()
		w.asked[what]++
		w.mu.Unlock()
		if r.Method == http.MethodConnect {
			w.tunnel(t, rw, server.Host)
			return
		}
		forward.ServeHTTP(rw, r)
	}))
	t.Cleanup(func() { front.Close(); w.tunnels.Wait() })
	w.url = strings.Replace(front.URL, "http://", "http://me:s3cret@", 1)
	return w
}

func (w *wayOut) tunnel(t *testing.T, rw http.ResponseWriter, to string) {
	server, err := new(net.Dialer).DialContext(t.Context(), "tcp", to)
	if err != nil {
		rw.WriteHeader(http.StatusBadGateway)
		return
	}
	agent, in, err := rw.(http.Hijacker).Hijack()
	if err != nil {
		server.Close()
		return
	}
	_, _ = io.WriteString(agent, "HTTP/1.1 200 OK\r\n\r\n")
	w.tunnels.Go(func() { _, _ = io.Copy(server, in); server.Close() })
	w.tunnels.Go(func() { _, _ = io.Copy(agent, server); agent.Close() })
}

func (w *wayOut) count(what string) int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.asked[what]
}

// The environment names the proxy and its credentials: enrolment and both links
// go through it, unless NO_PROXY names the server.
func TestTheEnvironmentsProxyIsTheWayOut(t *testing.T) {
	t.Parallel()
	at, err := url.Parse(suite.target.url)
	if err != nil {
		t.Fatal(err)
	}
	address := fmt.Sprintf("http://%s:%s", fleetName, at.Port())
	for link, asked := range map[string]string{"websocket": "CONNECT", "polling": "/agent/v1/commands"} {
		t.Run(link, func(t *testing.T) {
			t.Parallel()
			out := newWayOut(t, suite.target)
			h := suite.target.bareHost(t, unique("host"))
			var added struct{ ID string }
			h.api().call("POST", "/api/hosts", map[string]any{"name": h.name}, http.StatusCreated, &added)
			h.id = added.ID
			var token struct{ Token string }
			h.api().call("POST", "/api/hosts/"+h.id+"/enrollment-tokens", nil, http.StatusCreated, &token)

			env := func(noProxy string) []string {
				return append(os.Environ(), "RESTICFLEET_TOKEN="+token.Token, "HTTP_PROXY="+out.url, "HTTPS_PROXY="+out.url, "NO_PROXY="+noProxy)
			}
			enroll := func(noProxy string) ([]byte, error) {
				cmd := exec.CommandContext(t.Context(), filepath.Join(suite.bin, "resticfleet-agent"),
					"enroll", "--server", address, "--allow-plain-http", "--state-dir", h.stateDir())
				cmd.Env = env(noProxy)
				return cmd.CombinedOutput()
			}
			if said, err := enroll(fleetName); err == nil || !strings.Contains(string(said), fleetName) || out.count("/agent/v1/enroll") != 0 {
				t.Errorf("in spite of NO_PROXY: %v, %s", err, said)
			}
			if said, err := enroll(""); err != nil || out.count("/agent/v1/enroll") != 1 {
				t.Fatalf("%v: %s", err, said)
			}
			cmd := exec.Command(filepath.Join(suite.bin, "resticfleet-agent"), "run", "--state-dir", h.stateDir(), "--restic", h.restic, "--link", link)
			cmd.Env = env("")
			agent, err := startProcess(h.logPath(), cmd)
			if err != nil {
				t.Fatal(err)
			}
			h.agent = agent
			h.waitOnline()
			var shown struct{ Link string }
			h.api().call("GET", "/api/hosts/"+h.id, nil, http.StatusOK, &shown)
			if shown.Link != link {
				t.Errorf("the host is linked by %s", shown.Link)
			}
			eventually(t, "the link goes through the proxy", func() bool { return out.count(asked) > 0 })
		})
	}
}
