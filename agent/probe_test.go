package agent

import (
	"context"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"os/exec"
	"testing"

	"resticfleet/agent/restic"
)

func TestProbeTakesEveryAnswerButAGatewaysForAnAnswer(t *testing.T) {
	t.Parallel()
	for status, reachable := range map[int]bool{200: true, 301: true, 401: true, 404: true, 500: true, 502: false, 503: false, 504: false} {
		server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path != "/" || r.Header.Get("Authorization") != "" {
				t.Errorf("probed %s with %v", r.URL, r.Header)
			}
			w.WriteHeader(status)
		}))
		p := newProber(restic.EndpointOf("rest:"+server.URL+"/user/repo/", nil), nil)
		if err := p.try(context.Background()); (err == nil) != reachable {
			t.Errorf("%d: %v", status, err)
		}
		server.Close()
		if err := p.try(context.Background()); err == nil {
			t.Errorf("%d: a closed server was reached", status)
		}
	}
	untrusted := httptest.NewUnstartedServer(http.NotFoundHandler())
	untrusted.Config.ErrorLog = log.New(io.Discard, "", 0) // the refused handshake
	untrusted.StartTLS()
	defer untrusted.Close()
	if err := newProber(restic.EndpointOf("rest:"+untrusted.URL, nil), nil).try(context.Background()); err == nil {
		t.Error("an untrusted certificate counts as an answer, which restic would never get")
	}
	if newProber(restic.EndpointOf("/srv/repo", nil), nil) != nil {
		t.Error("a local path is probed")
	}
}

func TestProbeDialsWhereSSHWould(t *testing.T) {
	t.Parallel()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := newProber(restic.EndpointOf("sftp://u@"+listener.Addr().String()+"/srv", nil), nil)
	if err := p.try(context.Background()); err != nil {
		t.Error(err)
	}
	if err := listener.Close(); err != nil {
		t.Fatal(err)
	}
	err = p.try(context.Background())
	if err == nil && sshInstalled() {
		t.Error("a closed port was reached")
	}
}

// sshInstalled: without ssh restic itself can do nothing, and says so at once.
func sshInstalled() bool {
	_, err := exec.LookPath("ssh")
	return err == nil
}
