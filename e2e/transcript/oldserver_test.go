package transcript

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/gorilla/websocket"
)

// oldServer says what a transcript's server said to today's agent, and listens
// for what that relied on. Of today's code it uses nothing.
type oldServer struct {
	t     *testing.T
	host  *host
	url   string
	bound binding
	key   []byte // the agent's public one

	credential string
	enrolled   chan object // what was asked
	dialled    chan *websocket.Conn
	over       chan struct{}

	inbox  *inbox
	links  [][]object        // all that came up
	unmet  []object          // of this link, not yet asked for
	ids    map[string]string // of this link's messages, by the recorded ones
	script []line            // what is left of this link

	samples map[string][]object // all that was recorded upward, by type
}

func newOldServer(t *testing.T, h *host) *oldServer {
	t.Helper()
	s := &oldServer{
		t: t, host: h, bound: binding{"$DIR": h.dir}, credential: "rfa_" + uuid.NewString(),
		enrolled: make(chan object, 1), dialled: make(chan *websocket.Conn), over: make(chan struct{}),
	}
	mux := http.NewServeMux()
	mux.HandleFunc("POST /agent/v1/enroll", s.enrol)
	mux.HandleFunc("GET /agent/v1/ws", s.upgrade)
	front := httptest.NewServer(mux)
	s.url = front.URL
	t.Cleanup(func() {
		close(s.over)
		if s.inbox != nil {
			s.inbox.cut()
		}
		front.Close()
	})
	return s
}

// enrolment is the answer of version 1.
func (s *oldServer) enrolment() object {
	return object{"host_id": uuid.NewString(), "agent_token": s.credential}
}

func (s *oldServer) enrol(w http.ResponseWriter, r *http.Request) {
	var asked object
	if err := json.NewDecoder(r.Body).Decode(&asked); err != nil {
		s.t.Error(err)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(s.enrolment())
	s.enrolled <- asked
}

func (s *oldServer) upgrade(w http.ResponseWriter, r *http.Request) {
	if token(r) != s.credential {
		s.t.Errorf("the agent shows %v, not its credential", r.Header)
	}
	conn, err := new(websocket.Upgrader).Upgrade(w, r, nil)
	if err != nil {
		return
	}
	select {
	case s.dialled <- conn:
	case <-s.over:
		_ = conn.Close()
	}
}

// fresh makes what a server makes up itself.
func (s *oldServer) fresh(name string) any {
	kind := strings.TrimRight(name, "0123456789")
	switch kind {
	case "$TIME":
		return time.Now().UTC().Format(time.RFC3339Nano)
	case "$VERSION":
		return float64(1)
	case "$SOON":
		return soon()
	case "$ID", "$SESSION", "$JOB", "$SCHEDULE", "$GROUP":
		return uuid.NewString()
	}
	s.t.Errorf("the old server could not know %s: the agent did not say it", name)
	return name
}

// say sends a downward message.
func (s *oldServer) say(l line) {
	s.t.Helper()
	message := l.Message
	if l.is(down, "ack") {
		ids := []any{}
		for _, id := range acknowledged(message) {
			if actual, ok := s.ids[id]; ok {
				ids = append(ids, actual)
			}
		}
		s.acknowledge(ids)
		return
	}
	fresh := s.fresh
	if l.is(down, "command.run") {
		job := s.bound.fill(payload(message)["job_id"], s.fresh).(string)
		fresh = func(name string) any {
			if name != "$SEALED" {
				return s.fresh(name)
			}
			sealed, err := sealV1(s.key, job, secretsV1{Password: password})
			if err != nil {
				s.t.Error(err)
			}
			return sealed
		}
	}
	message = s.bound.fill(message, fresh).(object)
	if l.Digest != "" {
		digest, err := digestV1(payload(message))
		if err != nil {
			s.t.Fatal(err)
		}
		s.bound[l.Digest] = digest
	}
	s.write(message)
}

func (s *oldServer) acknowledge(ids []any) {
	s.t.Helper()
	if len(ids) > 0 {
		s.write(object{"id": uuid.NewString(), "type": "ack", "payload": object{"acknowledged": ids}})
	}
}

func (s *oldServer) write(message object) {
	s.t.Helper()
	if err := s.inbox.conn.WriteJSON(message); err != nil {
		s.t.Fatalf("sending %s: %v", text(message, "type"), err)
	}
}

// often are the types of which an agent may send more or fewer than it did:
// the first of a job on a link must come.
var often = []string{"job.log", "job.progress", "heartbeat"}

// expect waits until a message has come that says what the recorded one said.
func (s *oldServer) expect(recorded object) {
	s.t.Helper()
	typ := text(recorded, "type")
	var near error
	met := func() bool {
		for i, m := range s.unmet {
			if !about(recorded, m, s.bound) {
				continue
			}
			if near = s.bound.match(recorded, m); near == nil {
				s.ids[text(recorded, "id")] = text(m, "id")
				s.unmet = slices.Delete(s.unmet, i, i+1)
				return true
			}
		}
		return false
	}
	timeout := time.NewTimer(patience)
	defer timeout.Stop()
	for {
		ended := s.take()
		if met() {
			return
		}
		s.acknowledgeExtras(recorded)
		if slices.Contains(often, typ) && s.had(recorded) {
			return
		}
		why := func() string {
			return fmt.Sprintf("the old server waits for %s\nthe closest: %v\nunasked came: %s", show(recorded), near, show(s.unmet))
		}
		if ended != nil {
			s.t.Fatalf("the agent closed the link (%v)\n%s", ended, why())
		}
		select {
		case <-s.inbox.moved:
		case <-timeout.C:
			s.t.Fatalf("not in time: %s", why())
		}
	}
}

// about says whether m may be the recorded message: its type, of the same job.
func about(recorded, m object, b binding) bool {
	return text(recorded, "type") == text(m, "type") && (b[text(payload(recorded), "job_id")] == nil ||
		b[text(payload(recorded), "job_id")] == payload(m)["job_id"])
}

// had says whether one like the recorded message was matched on this link.
func (s *oldServer) had(recorded object) bool {
	link := s.links[len(s.links)-1]
	n := 0
	for _, m := range link {
		if about(recorded, m, s.bound) {
			n++
		}
	}
	for _, m := range s.unmet {
		if about(recorded, m, s.bound) {
			n--
		}
	}
	return n > 0
}

// acknowledgeExtras answers what no line is left for, as a server does. Of a
// type that the old server knows, it must be one that it can read.
func (s *oldServer) acknowledgeExtras(awaited object) {
	s.t.Helper()
	ids := []any{}
	s.unmet = slices.DeleteFunc(s.unmet, func(m object) bool {
		still := about(awaited, m, s.bound)
		for _, l := range s.script {
			still = still || l.Dir == up && about(l.Message, m, s.bound)
		}
		if still {
			return false
		}
		ids = append(ids, text(m, "id"))
		var err error
		for _, sample := range s.samples[text(m, "type")] {
			if err = maps.Clone(s.bound).match(sample, m); err == nil {
				break
			}
		}
		if err != nil {
			s.t.Errorf("the old server can't read %s: %v", show(m), err)
		}
		return true
	})
	s.acknowledge(ids)
}

// take looks at what has come; it holds to the laws at every moment.
func (s *oldServer) take() (ended error) {
	s.t.Helper()
	came, ended := s.inbox.take()
	n := len(s.links) - 1
	s.links[n] = append(s.links[n], came...)
	s.unmet = append(s.unmet, came...)
	if err := upLaws(s.links); err != nil {
		s.t.Fatal(err)
	}
	return ended
}

// next takes the agent's next link, which begins now that the one before is
// cut.
func (s *oldServer) next() {
	s.t.Helper()
	if s.inbox != nil {
		_ = s.take() // the laws count for what came last, too
		s.inbox.cut()
	}
	select {
	case conn := <-s.dialled:
		s.inbox = newInbox(conn)
	case <-time.After(patience):
		s.t.Fatal("the agent opens no link")
	}
	s.links = append(s.links, nil)
	s.unmet, s.ids, s.script = nil, map[string]string{}, nil
}

// farewell ends the link in order, so that all that was sent is read, and
// checks that the next hello tells of no job: the agent is done with them.
func (s *oldServer) farewell(hello object) {
	s.t.Helper()
	goodbye := websocket.FormatCloseMessage(websocket.CloseServiceRestart, "")
	if err := s.inbox.conn.WriteControl(websocket.CloseMessage, goodbye, time.Now().Add(patience)); err != nil {
		s.t.Fatal(err)
	}
	select {
	case <-s.inbox.done: // the agent has closed it
	case <-time.After(patience):
		s.t.Fatal("the agent goes on after the server's farewell")
	}
	s.next()
	s.expect(hello)
	link := s.links[len(s.links)-1]
	if jobs, _ := payload(link[0])["jobs"].([]any); len(jobs) != 0 {
		s.t.Errorf("all is acknowledged, and the agent still tells of %s", show(jobs))
	}
}

func TestNewAgentGetsAlongWithOldServers(t *testing.T) {
	t.Parallel()
	template := emptyRepository(t)
	for name, lines := range transcripts(t) {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			repository := template
			if strings.HasSuffix(name, "/init") {
				repository = ""
			}
			h := newHost(t, repository)
			s := newOldServer(t, h)
			h.enrol(s.url, "rfe_token")
			asked := <-s.enrolled
			if len(links(lines, up)) == 0 {
				if err := s.bound.match(lines[0].Message, asked); err != nil {
					t.Fatal(err)
				}
				if err := (binding{}).match(lines[1].Message, s.enrolment()); err != nil {
					t.Fatal(err)
				}
				return
			}
			var err error
			if s.key, err = base64.StdEncoding.DecodeString(text(asked, "public_key")); err != nil {
				t.Fatal(err)
			}
			stop := h.run()
			s.play(lines)
			stop()
		})
	}
}

func (s *oldServer) play(lines []line) {
	s.t.Helper()
	var hello object
	s.samples = map[string][]object{}
	for _, l := range lines {
		if l.Dir == up {
			typ := text(l.Message, "type")
			s.samples[typ] = append(s.samples[typ], l.Message)
		}
	}
	for i, l := range lines {
		if l.is(up, "hello") {
			hello = l.Message
			s.next()
		}
		if s.inbox != nil {
			s.script = thisLink(lines[i+1:])
		}
		switch l.Dir {
		case do:
			s.host.do(l.Message)
		case up:
			s.expect(l.Message)
		case down:
			s.say(l)
		}
	}
	s.acknowledgeExtras(object{})
	last := object{"type": "hello", "payload": object{}}
	for key, value := range payload(hello) {
		if !slices.Contains([]string{"jobs", "applied_schedule_version", "schedule_digest"}, key) {
			payload(last)[key] = value
		}
	}
	s.farewell(last)
}

// thisLink is the beginning of a transcript's rest that is of the same link.
func thisLink(rest []line) []line {
	for i, l := range rest {
		if l.is(up, "hello") {
			return rest[:i]
		}
	}
	return rest
}
