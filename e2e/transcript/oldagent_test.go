package transcript

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/gorilla/websocket"

	"resticfleet/agent/protocol"
)

// oldAgent says what a transcript's agent said to today's server, and listens
// for what that relied on. Of today's code it uses nothing but the key pair.
type oldAgent struct {
	t       *testing.T
	server  *server
	bound   binding
	private []byte
	public  []byte
	token   string

	inbox *inbox
	links [][]object // all that came down
	unmet []object   // of this link, not yet asked for
	acked map[string]bool
}

// inbox gathers what one connection brings.
type inbox struct {
	conn  *websocket.Conn
	mu    sync.Mutex
	queue []object
	ended error
	moved chan struct{} // has a value when there is something new
	done  chan struct{}
}

func newInbox(conn *websocket.Conn) *inbox {
	in := &inbox{conn: conn, moved: make(chan struct{}, 1), done: make(chan struct{})}
	go in.read()
	return in
}

func (in *inbox) read() {
	defer close(in.done)
	for {
		_, frame, err := in.conn.ReadMessage()
		var message object
		if err == nil {
			message, err = parse(frame)
		}
		in.mu.Lock()
		if err != nil {
			in.ended = err
		} else {
			in.queue = append(in.queue, message)
		}
		in.mu.Unlock()
		select {
		case in.moved <- struct{}{}:
		default:
		}
		if err != nil {
			return
		}
	}
}

// take returns what has come since the last call, and the connection's end.
func (in *inbox) take() ([]object, error) {
	in.mu.Lock()
	defer in.mu.Unlock()
	queue := in.queue
	in.queue = nil
	return queue, in.ended
}

// cut ends the connection without a word.
func (in *inbox) cut() {
	_ = in.conn.NetConn().Close()
	<-in.done
}

func newOldAgent(t *testing.T, s *server) *oldAgent {
	t.Helper()
	private, public, err := protocol.NewKey()
	if err != nil {
		t.Fatal(err)
	}
	a := &oldAgent{t: t, server: s, private: private, public: public, bound: binding{
		"$DIR": t.TempDir(), "$TOKEN1": s.token, "$HOST1": s.host.String(),
		"$KEY1": base64.StdEncoding.EncodeToString(public), "$HOSTNAME1": "laptop",
	}}
	t.Cleanup(func() {
		if a.inbox != nil {
			a.inbox.cut()
		}
	})
	return a
}

// fresh makes what an agent makes up itself.
func (a *oldAgent) fresh(name string) any {
	a.t.Helper()
	switch strings.TrimRight(name, "0123456789") {
	case "$TIME":
		return time.Now().UTC().Format(time.RFC3339Nano)
	case "$UNIX":
		return fmt.Sprint(time.Now().Unix())
	case "$JOURNAL", "$INSTANCE", "$BOOT":
		return uuid.NewString()
	case "$SNAPSHOT", "$REPOSITORY":
		return strings.ReplaceAll(uuid.NewString()+uuid.NewString(), "-", "")
	case "$SOON":
		return soon()
	}
	a.t.Fatalf("the old agent could not know %s: the server did not say it", name)
	return nil
}

// enrol posts the recorded body, or one like it, and returns the answer.
func (a *oldAgent) enrol(body object) object {
	a.t.Helper()
	raw, err := json.Marshal(a.bound.fill(body, a.fresh))
	if err != nil {
		a.t.Fatal(err)
	}
	req, err := http.NewRequestWithContext(a.t.Context(), http.MethodPost, a.server.url+"/agent/v1/enroll", bytes.NewReader(raw))
	if err != nil {
		a.t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/json")
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	resp, err := client.Do(req)
	if err != nil {
		a.t.Fatal(err)
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != http.StatusOK {
		a.t.Fatalf("enrolment: %s %s %v", resp.Status, answer, err)
	}
	given, err := parse(answer)
	if err != nil {
		a.t.Fatal(err)
	}
	a.token = text(given, "agent_token")
	return given
}

// say sends an upward message; a hello on a connection of its own.
func (a *oldAgent) say(message object) {
	a.t.Helper()
	if text(message, "type") == "hello" {
		a.dial()
	}
	if err := a.inbox.conn.WriteJSON(a.bound.fill(message, a.fresh)); err != nil {
		a.t.Fatalf("sending %s: %v", text(message, "type"), err)
	}
}

func (a *oldAgent) dial() {
	a.t.Helper()
	if a.inbox != nil {
		a.inbox.cut()
	}
	conn, resp, err := websocket.DefaultDialer.DialContext(a.t.Context(), "ws"+strings.TrimPrefix(a.server.url, "http")+"/agent/v1/ws", bearer(a.token))
	if err != nil {
		a.t.Fatalf("link: %v (%+v)", err, resp)
	}
	a.inbox = newInbox(conn)
	a.links = append(a.links, nil)
	a.unmet, a.acked = nil, map[string]bool{}
}

// expect waits until a message has come that says what the recorded one said.
func (a *oldAgent) expect(recorded object) object {
	a.t.Helper()
	if text(recorded, "type") == "ack" {
		return a.expectAck(recorded)
	}
	var found object
	var near error
	a.wait(func() bool {
		for i, m := range a.unmet {
			if text(m, "type") != text(recorded, "type") {
				continue
			}
			if near = a.bound.match(recorded, m); near == nil {
				found = m
				a.unmet = slices.Delete(a.unmet, i, i+1)
				return true
			}
		}
		return false
	}, func() string {
		return fmt.Sprintf("the old agent waits for %s\nthe closest: %v\nunasked came: %s", show(recorded), near, show(a.unmet))
	})
	return found
}

// expectAck waits until the messages are acknowledged; one ack may speak for
// more or for fewer than the recorded one.
func (a *oldAgent) expectAck(recorded object) object {
	a.t.Helper()
	ids := acknowledged(a.bound.fill(recorded, a.fresh0).(object))
	a.wait(func() bool {
		return !slices.ContainsFunc(ids, func(id string) bool { return !a.acked[id] })
	}, func() string {
		return fmt.Sprintf("the old agent waits for the acknowledgement of %v; there are %v", ids, slices.Sorted(maps.Keys(a.acked)))
	})
	return recorded
}

// fresh0 leaves the ack's own id out of account.
func (a *oldAgent) fresh0(name string) any {
	a.t.Helper()
	if name == "$ID" {
		return name
	}
	return a.fresh(name)
}

// wait takes what comes until met.
func (a *oldAgent) wait(met func() bool, why func() string) {
	a.t.Helper()
	timeout := time.NewTimer(patience)
	defer timeout.Stop()
	for {
		ended := a.take()
		if met() {
			return
		}
		if ended != nil {
			a.t.Fatalf("the server closed the link (%v)\n%s", ended, why())
		}
		select {
		case <-a.inbox.moved:
		case <-timeout.C:
			a.t.Fatalf("not in time: %s", why())
		}
	}
}

// take looks at what has come; it holds to the laws at every moment.
func (a *oldAgent) take() (ended error) {
	a.t.Helper()
	came, ended := a.inbox.take()
	n := len(a.links) - 1
	for _, m := range came {
		a.links[n] = append(a.links[n], m)
		if text(m, "type") != "ack" {
			a.unmet = append(a.unmet, m)
			continue
		}
		if _, ok := payload(m)["acknowledged"].([]any); !ok {
			a.t.Fatalf("an ack without its list: %s", show(m))
		}
		for _, id := range acknowledged(m) {
			a.acked[id] = true
		}
	}
	if err := downLaws(a.links); err != nil {
		a.t.Fatal(err)
	}
	return ended
}

func TestNewServerGetsAlongWithOldAgents(t *testing.T) {
	t.Parallel()
	for name, lines := range transcripts(t) {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newServer(t, name)
			a := newOldAgent(t, s)
			if len(links(lines, up)) == 0 {
				if err := a.bound.match(lines[1].Message, a.enrol(lines[0].Message)); err != nil {
					t.Fatal(err)
				}
				return
			}
			a.enrol(object{"token": "$TOKEN1", "hostname": "$HOSTNAME1", "public_key": "$KEY1", "timezone": "Europe/Berlin"})
			for _, l := range lines {
				switch l.Dir {
				case do:
					action := a.bound.known(l.Message, a.fresh)
					if err := a.bound.match(l.Message, s.do(action)); err != nil {
						t.Fatal(err)
					}
				case up:
					a.say(l.Message)
				case down:
					a.relyOn(l, a.expect(l.Message))
				case state:
					for _, recorded := range l.Message["jobs"].([]any) {
						want := a.bound.fill(recorded, a.fresh).(object)
						if got := s.jobRow(text(want, "job_id")); !maps.Equal(got, want) {
							t.Errorf("the job is   %s\nand was then %s", show(got), show(want))
						}
					}
				}
			}
		})
	}
}

// relyOn is what an old agent does with a message beyond reading its fields.
func (a *oldAgent) relyOn(l line, actual object) {
	a.t.Helper()
	if l.Digest != "" {
		digest, err := digestV1(payload(actual))
		if err != nil {
			a.t.Fatal(err)
		}
		a.bound[l.Digest] = digest
	}
	if l.is(down, "command.run") {
		repository, _ := payload(actual)["repository"].(object)
		secrets, err := openV1(a.private, text(payload(actual), "job_id"), text(repository, "sealed"))
		if err != nil || secrets.Password != password {
			a.t.Fatalf("the old agent can't open what is sealed for it: %v", err)
		}
	}
}
