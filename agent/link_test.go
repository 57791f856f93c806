package agent

import (
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"resticfleet/agent/protocol"
)

// quick makes an agent poll where it must and look for a WebSocket often.
func quick(o *Options) {
	o.Link = LinkAuto
	o.ProbeAfter, o.ProbeAtMost, o.ProbeStays = 50*time.Millisecond, 100*time.Millisecond, 50*time.Millisecond
}

// hangUp ends a request's connection without an answer.
func hangUp(w http.ResponseWriter) {
	if conn, _, err := w.(http.Hijacker).Hijack(); err == nil {
		_ = conn.Close()
	}
}

func answers(status int, kind, body string) func(http.ResponseWriter, *http.Request) bool {
	return func(w http.ResponseWriter, _ *http.Request) bool {
		w.Header().Set("Content-Type", kind)
		w.WriteHeader(status)
		_, _ = io.WriteString(w, body)
		return true
	}
}

// A backup begins over polling and ends over the WebSocket that works again:
// restic starts once and every message is told.
func TestAutoFallsBackToPollingAndReturns(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		fault  func(http.ResponseWriter, *http.Request) bool
		reason string
	}{
		"bad request":      {answers(400, "text/plain", "no upgrades here"), "no upgrades here"},
		"forbidden":        {answers(403, "text/html", "<title>Blocked</title>"), "“Blocked”"},
		"not found":        {answers(404, "text/plain", "nothing"), "404"},
		"upgrade required": {answers(426, "text/plain", ""), "426"},
		"bad gateway":      {answers(502, "text/plain", ""), "502"},
		"stripped":         {answers(200, "application/json", "{}"), "200"},
		"a portal":         {answers(200, "text/html", "<title>Sign in</title>"), "“Sign in”"},
		"cut":              {func(w http.ResponseWriter, _ *http.Request) bool { hangUp(w); return true }, "EOF"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b, s := setup(t), newServer(t)
			b.repository()
			b.script(held)
			b.enrolled(s)
			s.wsFault = test.fault
			log, _ := b.agent(quick)
			hello := s.linked(1)
			if !strings.Contains(hello.LinkReason, test.reason) {
				t.Errorf("reason: %q", hello.LinkReason)
			}
			run := b.run(protocol.KindBackup)
			s.tell(protocol.TypeRun, run)
			s.until("it runs", func() bool { return len(s.of(protocol.TypeStarted, run.JobID)) > 0 })
			s.mu.Lock()
			tried := s.asked
			s.mu.Unlock()
			s.until("WebSockets are tried meanwhile", func() bool { return s.asked >= tried+3 })
			s.mu.Lock()
			if len(s.hellos) != 1 {
				t.Errorf("attempts disturbed the polling: %d hellos", len(s.hellos))
			}
			s.mu.Unlock()

			s.with(func() { s.wsFault = nil })
			if hello := s.linked(2); hello.LinkReason != "" || len(hello.Jobs) != 1 || hello.Jobs[0].State != protocol.JobRunning {
				t.Errorf("hello: %+v", hello)
			}
			b.write("go", "")
			if end := s.finished(run.JobID); end.Outcome != protocol.OutcomeSucceeded {
				t.Errorf("%+v", end)
			}
			b.acknowledged(run.JobID)
			s.mu.Lock()
			defer s.mu.Unlock()
			if want := []string{protocol.LinkPolling, protocol.LinkWebSocket}; !slices.Equal(s.kinds, want) || s.conn == nil {
				t.Errorf("links: %v", s.kinds)
			}
			if n := b.count("starts"); n != 1 {
				t.Errorf("restic started %d times", n)
			}
			if strings.Contains(log.String(), "no link to the server") {
				t.Errorf("there was always a link:\n%s", log)
			}
		})
	}
}

func TestSocketsThatDieYoungMakeTheAgentPoll(t *testing.T) {
	t.Parallel()
	b, s := setup(t), newServer(t)
	b.enrolled(s)
	_, _ = b.agent(quick)
	for n := 1; n <= 3; n++ {
		if hello := s.linked(n); hello.LinkReason != "" {
			t.Errorf("hello %d: %q", n, hello.LinkReason)
		}
		s.cut()
	}
	hello := s.linked(4)
	s.mu.Lock()
	if s.kinds[3] != protocol.LinkPolling || !strings.Contains(hello.LinkReason, "3 in a row") {
		t.Errorf("%v: %q", s.kinds, hello.LinkReason)
	}
	s.mu.Unlock()
	// They are tried again, and one more that dies brings the polling back at once.
	s.linked(5)
	s.cut()
	hello = s.linked(6)
	s.mu.Lock()
	defer s.mu.Unlock()
	if want := []string{protocol.LinkWebSocket, protocol.LinkPolling}; !slices.Equal(s.kinds[4:6], want) || !strings.Contains(hello.LinkReason, "4 in a row") {
		t.Errorf("%v: %q", s.kinds, hello.LinkReason)
	}
}

func TestASocketThatOpensButDoesNotStayLeavesThePollingAlone(t *testing.T) {
	t.Parallel()
	b, s := setup(t), newServer(t)
	b.enrolled(s)
	s.wsFault = answers(403, "text/plain", "")
	b.agent(quick)
	s.linked(1)
	s.with(func() { s.wsFault, s.afterUpgrade = nil, "close" })
	s.mu.Lock()
	tried := s.asked
	s.mu.Unlock()
	s.until("sockets were tried", func() bool { return s.asked >= tried+4 })
	s.mu.Lock()
	if len(s.hellos) != 1 {
		t.Errorf("%d hellos", len(s.hellos))
	}
	s.mu.Unlock()
	// The server takes the hello, but its answer never arrives.
	s.with(func() { s.afterUpgrade = "swallow" })
	s.until("the agent polls again", func() bool {
		return len(s.kinds) >= 3 && s.kinds[1] == "swallowed" && s.kinds[2] == protocol.LinkPolling
	})
	s.with(func() { s.afterUpgrade = "" })
	s.until("a WebSocket is back", func() bool { return s.kinds[len(s.kinds)-1] == protocol.LinkWebSocket })
}

func TestAPinnedLinkIsTheOnlyOne(t *testing.T) {
	t.Parallel()
	b, s := setup(t), newServer(t)
	b.enrolled(s)
	_, stop := b.agent(quick, func(o *Options) { o.Link = LinkPolling })
	if hello := s.linked(1); hello.LinkReason != "" {
		t.Errorf("nothing forced it: %q", hello.LinkReason)
	}
	s.until("it polls", func() bool { return s.poll.polls >= 3 })
	stop()
	s.mu.Lock()
	if s.asked != 0 {
		t.Errorf("%d upgrades asked for", s.asked)
	}
	posts := s.poll.posts
	s.mu.Unlock()

	s.with(func() { s.wsFault = answers(403, "text/plain", "") })
	b.agent(quick, func(o *Options) { o.Link = LinkWebSocket })
	s.until("it tries again", func() bool { return s.asked >= 5 })
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.poll.posts != posts {
		t.Errorf("it polled")
	}
	if _, err := New(Options{StateDir: b.state, Link: "pigeon"}); err == nil || !strings.Contains(err.Error(), "pigeon") {
		t.Error(err)
	}
}

func TestTheServersOwnRefusalsAreNoReasonToPoll(t *testing.T) {
	t.Parallel()
	for _, status := range []int{http.StatusUnauthorized, http.StatusGone, http.StatusServiceUnavailable} {
		t.Run(http.StatusText(status), func(t *testing.T) {
			t.Parallel()
			b, s := setup(t), newServer(t)
			b.enrolled(s)
			s.refusal, s.detail = status, "For this reason."
			log, _ := b.agent(quick)
			s.until("it asks", func() bool { return s.asked >= 1 })
			eventually(t, "the reason is in the log", func() bool { return strings.Contains(log.String(), "For this reason.") })
			s.mu.Lock()
			defer s.mu.Unlock()
			if s.poll.posts != 0 {
				t.Error("it polled")
			}
		})
	}
}

func TestDeletedHostIsToldByPollingToo(t *testing.T) {
	t.Parallel()
	b, s := setup(t), newServer(t)
	b.enrolled(s)
	log, _ := b.agent(func(o *Options) { o.Link = LinkPolling })
	s.linked(1)
	s.with(func() { s.pollRefusal, s.detail = http.StatusGone, "This host was deleted by admin." })
	eventually(t, "the agent says why", func() bool { return strings.Contains(log.String(), "This host was deleted by admin.") })
	if !strings.Contains(log.String(), "next_try_in=1h0m") {
		t.Errorf("log:\n%s", log)
	}
}

func TestAPollingLinkThatIsSupersededSaysThatAMachineMayBeCloned(t *testing.T) {
	t.Parallel()
	b, s := setup(t), newServer(t)
	b.enrolled(s)
	log, _ := b.agent(func(o *Options) { o.Link = LinkPolling })
	s.linked(1)
	// The server has said welcome; only an agent that has heard it was superseded.
	eventually(t, "the agent is linked", func() bool { return strings.Contains(log.String(), "linked to the server") })
	s.with(func() { s.links++; s.poll.session = s.links }) // somebody else
	s.until("it says hello again", func() bool { return len(s.hellos) == 2 })
	if text := log.String(); !strings.Contains(text, "A newer link has taken over.") || !strings.Contains(text, "copy of this one's state directory") {
		t.Error(text)
	}
}

// A server that was put back in time learns by the new hello what it has
// forgotten, and what it never acknowledged is told anew.
func TestANewServerProcessIsGreetedWithinTheSameLink(t *testing.T) {
	t.Parallel()
	b, s := setup(t), newServer(t)
	b.repository()
	b.enrolled(s)
	s.verdict = func(m got) string {
		if m.Type == protocol.TypeFinished {
			return "drop"
		}
		return ""
	}
	log, _ := b.agent(func(o *Options) { o.Link = LinkPolling })
	s.linked(1)
	run := b.run(protocol.KindBackup)
	s.tell(protocol.TypeRun, run)
	s.finished(run.JobID)
	s.with(func() {
		s.poll.boot = "another"
		s.verdict = func(got) string { return "" }
	})
	if hello := s.linked(2); len(hello.Jobs) != 1 || hello.Jobs[0].State != protocol.JobFinished {
		t.Errorf("hello: %+v", hello)
	}
	b.acknowledged(run.JobID)
	if text := log.String(); strings.Contains(text, "no link to the server") || strings.Count(text, "linked to the server") != 1 {
		t.Errorf("it is the same link:\n%s", text)
	}
}

func TestScheduleFiresOverPolling(t *testing.T) {
	t.Parallel()
	b, s := setup(t), newServer(t)
	b.enrolled(s)
	set := protocol.ScheduleSet{Version: 7, Schedules: []protocol.Schedule{{ID: "every", Cron: "@every 1s", Enabled: true, SourceGroups: []string{"g"}}}}
	s.first = []protocol.Envelope{protocol.Seal("schedule-7", protocol.TypeScheduleSet, set)}
	b.agent(func(o *Options) { o.Link = LinkPolling })
	s.until("the set is acknowledged", func() bool { return len(s.of(protocol.TypeScheduleAck, "")) > 0 })
	s.until("a fire came", func() bool { return len(s.of(protocol.TypeFire, "fire-every-")) > 0 })
	s.tell(protocol.TypeCancel, protocol.Cancel{JobID: "never-seen"})
	s.until("a heartbeat came", func() bool { return len(s.of(protocol.TypeHeartbeat, "")) > 0 })
}
