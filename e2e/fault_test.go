package e2e

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"resticfleet/agent/protocol"
)

// settled checks what must be true of a backup whatever was killed on its way:
// restic backed up once, left one snapshot, and the job has one result, which
// the agent knows to be stored.
func (h *host) settled(id string, r *repo, backups int) {
	h.t.Helper()
	j := h.api().end(id)
	if j.State != "succeeded" || j.Late {
		h.t.Errorf("job %s is %s (late %v): %s", id, j.State, j.Late, j.Error)
	}
	h.acknowledged(id)
	again := h.api().job(id)
	if !again.FinishedAt.Equal(*j.FinishedAt) || again.State != j.State || again.snapshot() != j.snapshot() {
		h.t.Errorf("the result changed from %+v to %+v", j, again)
	}
	if n := h.started("backup"); n != backups {
		h.t.Errorf("restic backed up %d times, want %d", n, backups)
	}
	mine := 0
	for _, s := range r.snapshots() {
		for _, tag := range s.Tags {
			if tag == "job:"+id {
				mine++
				if s.ID != j.snapshot() {
					h.t.Errorf("the job names snapshot %s, the repository has %s", j.snapshot(), s.ID)
				}
			}
		}
	}
	if mine != 1 {
		h.t.Errorf("the job left %d snapshots", mine)
	}
	seen := map[string]int{}
	for line := range strings.Lines(h.api().log(id)) {
		if strings.Contains(line, "starts: backup") {
			seen["starts"]++
		}
	}
	if seen["starts"] != 1 {
		h.t.Errorf("the log tells of %d starts", seen["starts"])
	}
}

// acknowledged waits until the agent knows that a job's result is stored.
func (h *host) acknowledged(id string) {
	h.t.Helper()
	eventually(h.t, "the agent knows that the result is stored", func() bool {
		raw, err := os.ReadFile(filepath.Join(h.stateDir(), "journal", id+".json"))
		var entry struct {
			AckedAt string `json:"acked_at"`
		}
		return err == nil && json.Unmarshal(raw, &entry) == nil && entry.AckedAt != ""
	})
}

// host is one behind the proxy with a repository and a group.
func (p *linkProxy) host(t *testing.T) (*host, *repo, string) {
	t.Helper()
	// While the server is away the proxy answers for it, and an agent that may
	// would poll then: these tests' filters are about frames.
	pinned := p.target
	pinned.link = protocol.LinkWebSocket
	h := pinned.newHost(t)
	r := localRepo(t)
	h.bind(r)
	return h, r, h.group("docs", []string{writeFiles(t, h.dir+"/docs", map[string]string{"a": noise(1 << 20)})})
}

// once is closed by its first call.
func once() (signal <-chan struct{}, call func()) {
	c := make(chan struct{})
	return c, sync.OnceFunc(func() { close(c) })
}

// signalled waits for what happens once.
func signalled(t *testing.T, c <-chan struct{}, what string) {
	t.Helper()
	eventually(t, what, func() bool {
		select {
		case <-c:
			return true
		default:
			return false
		}
	})
}

// The agent's first words about a job are lost, so the server offers it again:
// it is still one job.
func TestFirstAcceptanceIsDropped(t *testing.T) {
	t.Parallel()
	p := before(t, suite.target)
	h, r, group := p.host(t)
	offers := 0
	p.filter(func(fromAgent bool, e protocol.Envelope) bool {
		if e.Type == protocol.TypeRun {
			offers++
		}
		return !fromAgent || !strings.HasPrefix(e.Type, "job.") || offers > 1
	})
	h.settled(h.run(group), r, 1)
	p.filter(nil)
	if offers < 2 {
		t.Errorf("offered %d times", offers)
	}
}

// The agent dies after restic has ended, before or after the server has the
// result, and in either case before it hears that the server has it.
func TestAgentIsKilledBeforeItsResultIsAcknowledged(t *testing.T) {
	t.Parallel()
	p := before(t, suite.target)
	h, r, group := p.host(t)
	for n, lost := range []string{protocol.TypeFinished, protocol.TypeAck} {
		lostNow, lose := once()
		id := ""
		var mu sync.Mutex
		p.filter(func(fromAgent bool, e protocol.Envelope) bool {
			mu.Lock()
			defer mu.Unlock()
			if e.Type != lost || !about(id, "finished", e) {
				return true
			}
			lose()
			return false
		})
		mu.Lock()
		id = h.run(group)
		mu.Unlock()
		signalled(t, lostNow, "the message to be lost comes")
		h.kill()
		p.filter(nil)
		if j := h.api().job(id); j.ended() != (lost == protocol.TypeAck) {
			t.Errorf("without %s the job is %s", lost, j.State)
		}
		h.start()
		h.settled(id, r, n+1)
	}
}

// The server dies when it has stored what the agent said and hasn't told it so,
// and comes back on the same data.
func TestServerIsKilledBetweenCommitAndAcknowledgement(t *testing.T) {
	t.Parallel()
	s := ownServer(t)
	p := before(t, s.target)
	h, r, group := p.host(t)
	for n, kind := range []string{"accepted", "started", "finished"} {
		lostNow, lose := once()
		id := ""
		var mu sync.Mutex
		p.filter(func(fromAgent bool, e protocol.Envelope) bool {
			mu.Lock()
			defer mu.Unlock()
			select {
			case <-lostNow:
				return false // dead already, as far as the agent can tell
			default:
			}
			if fromAgent || !about(id, kind, e) {
				return true
			}
			lose()
			return false
		})
		mu.Lock()
		id = h.run(group)
		mu.Unlock()
		signalled(t, lostNow, "the message to be lost comes")
		s.kill()
		p.filter(nil)
		if err := s.start(); err != nil {
			t.Fatal(err)
		}
		h.settled(id, r, n+1)
	}
}
