package agent

import (
	"context"
	"errors"
	"net/http"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"resticfleet/agent/protocol"
)

func TestCommandBecomesASnapshotAndItsStoryIsToldInOrder(t *testing.T) {
	t.Parallel()
	b, s := setup(t), newServer(t)
	b.enrolled(s)
	log, stop := b.agent()
	hello := s.linked(1)
	if hello.Protocol != protocol.Version || hello.JournalID == "" || hello.ResticVersion == "" || hello.Timezone != "Europe/Berlin" ||
		hello.AgentVersion != "test" || hello.Jobs == nil || len(hello.Jobs) != 0 || hello.SentAt.IsZero() {
		t.Errorf("hello: %+v", hello)
	}
	if _, err := os.Stat("/proc/sys/kernel/random/boot_id"); (err == nil) != (hello.BootID != "") {
		t.Errorf("the machine's boot is %q (%v)", hello.BootID, err)
	}
	initial := b.run(protocol.KindInit)
	s.send(protocol.TypeRun, initial)
	if end := s.finished(initial.JobID); end.Outcome != protocol.OutcomeSucceeded {
		t.Fatalf("init: %+v", end)
	}
	run := b.run(protocol.KindBackup)
	s.send(protocol.TypeRun, run)
	end := s.finished(run.JobID)
	if end.Outcome != protocol.OutcomeSucceeded || len(end.SnapshotID) != 64 {
		t.Fatalf("backup: %+v", end)
	}
	if all := b.snapshots(); len(all) != 1 || all[0].ID != end.SnapshotID || !slices.Contains(all[0].Tags, "job:"+run.JobID) {
		t.Errorf("snapshots: %+v", all)
	}

	s.mu.Lock()
	var types []string
	var seq int64
	for _, m := range s.messages {
		if !strings.HasPrefix(m.ID, run.JobID) || m.Type == protocol.TypeProgress {
			continue
		}
		if len(types) == 0 || types[len(types)-1] != m.Type {
			types = append(types, m.Type)
		}
		if m.Type == protocol.TypeLog {
			lines, err := protocol.Decode[protocol.Log](m.Envelope)
			if err != nil {
				t.Error(err)
			}
			for _, l := range lines.Lines {
				if seq++; l.Seq != seq {
					t.Errorf("line %d stands at place %d", l.Seq, seq)
				}
			}
		}
	}
	accepted, err := protocol.Decode[protocol.Accepted](s.of(protocol.TypeAccepted, run.JobID)[0].Envelope)
	s.mu.Unlock()
	if err != nil || accepted.JournalID != hello.JournalID {
		t.Errorf("accepted: %+v, %v", accepted, err)
	}
	// Lines may come before the start was noticed, the result only behind all.
	if types[0] != protocol.TypeAccepted || types[len(types)-1] != protocol.TypeFinished || !slices.Contains(types, protocol.TypeStarted) || seq != end.LastLogSeq || seq == 0 {
		t.Errorf("types %v, %d of %d lines", types, seq, end.LastLogSeq)
	}

	b.acknowledged(run.JobID)
	// Neither this agent nor the next speaks of it again.
	s.cut()
	if again := s.linked(2); len(again.Jobs) != 0 {
		t.Errorf("hello: %+v", again)
	}
	stop()
	b.agent()
	if again := s.linked(3); len(again.Jobs) != 0 || again.JournalID != hello.JournalID || again.BootID != hello.BootID || again.Instance == hello.Instance {
		t.Errorf("hello: %+v", again)
	}
	for _, secret := range []string{testPassword, testToken} {
		if strings.Contains(log.String(), secret) {
			t.Errorf("the agent's log holds a secret:\n%s", log)
		}
	}
}

// counted is a restic that writes a line per start of a backup.
const counted = `case "$*" in *backup*) echo start >> "$DIR/starts";; esac
exec "$RESTIC" "$@"`

func TestCommandOfferedAgainIsAnsweredAgainAndRunOnce(t *testing.T) {
	t.Parallel()
	b, s := setup(t), newServer(t)
	b.repository()
	b.script(counted)
	b.enrolled(s)
	dropped := 0
	s.verdict = func(m got) string {
		if m.Type == protocol.TypeAccepted && dropped == 0 {
			dropped++
			return "drop"
		}
		return ""
	}
	b.agent()
	run := b.run(protocol.KindBackup)
	s.send(protocol.TypeRun, run)
	s.until("it was accepted", func() bool { return len(s.of(protocol.TypeAccepted, run.JobID)) == 1 })
	s.send(protocol.TypeRun, run)
	s.until("it was accepted again", func() bool { return len(s.of(protocol.TypeAccepted, run.JobID)) == 2 })
	s.finished(run.JobID)
	b.acknowledged(run.JobID)
	// Long done: a server that forgot it is told once more.
	s.mu.Lock()
	before := len(s.of(protocol.TypeFinished, run.JobID))
	s.mu.Unlock()
	s.send(protocol.TypeRun, run)
	s.until("the result came again", func() bool { return len(s.of(protocol.TypeFinished, run.JobID)) > before })
	if n := b.count("starts"); n != 1 || len(b.snapshots()) != 1 {
		t.Errorf("restic started %d times, %d snapshots", n, len(b.snapshots()))
	}
}

func TestResultIsToldInEverySessionUntilItIsAcknowledged(t *testing.T) {
	t.Parallel()
	b, s := setup(t), newServer(t)
	b.repository()
	b.script(counted)
	b.enrolled(s)
	s.verdict = func(m got) string {
		if m.Type == protocol.TypeFinished {
			return "drop"
		}
		return ""
	}
	_, stop := b.agent()
	run := b.run(protocol.KindBackup)
	s.send(protocol.TypeRun, run)
	told := func(link int) func() bool {
		return func() bool {
			return slices.ContainsFunc(s.of(protocol.TypeFinished, run.JobID), func(m got) bool { return m.link == link })
		}
	}
	s.until("the result came", told(1))
	for link := 2; link < 5; link++ {
		if link == 4 { // killed between restic's end and the acknowledgement
			stop()
			s.with(func() { s.verdict = func(got) string { return "" } })
			b.agent()
		} else {
			s.cut()
		}
		if hello := s.linked(link); len(hello.Jobs) != 1 || hello.Jobs[0].JobID != run.JobID || hello.Jobs[0].State != protocol.JobFinished {
			t.Errorf("hello %d: %+v", link, hello)
		}
		s.until("the result came again", told(link))
	}
	s.mu.Lock()
	for _, typ := range []string{protocol.TypeAccepted, protocol.TypeStarted} {
		for _, m := range s.of(typ, run.JobID) {
			if m.link != 1 {
				t.Errorf("%s came again over link %d though hello says more", typ, m.link)
			}
		}
	}
	s.mu.Unlock()
	if n := b.count("starts"); n != 1 || len(b.snapshots()) != 1 {
		t.Errorf("restic started %d times, %d snapshots", n, len(b.snapshots()))
	}
}

// held is a restic whose backup waits until the test lets it go.
const held = `case "$*" in *backup*) echo start >> "$DIR/starts"; while [ ! -e "$DIR/go" ]; do sleep 0.05; done;; esac
exec "$RESTIC" "$@"`

func TestResticOutlivesTheServerAndTheAgent(t *testing.T) {
	t.Parallel()
	b, s := setup(t), newServer(t)
	b.repository()
	b.script(held)
	b.enrolled(s)
	_, stop := b.agent()
	run := b.run(protocol.KindBackup)
	s.send(protocol.TypeRun, run)
	s.until("it runs", func() bool { return len(s.of(protocol.TypeStarted, run.JobID)) == 1 })

	s.with(func() { s.refusal, s.detail = http.StatusServiceUnavailable, "The server is stopping." })
	s.cut()
	s.until("the agent asks again", func() bool { return s.asked > 3 })
	stop()
	s.with(func() { s.refusal = 0 })
	_, stop = b.agent()
	if hello := s.linked(2); len(hello.Jobs) != 1 || hello.Jobs[0].State != protocol.JobRunning {
		t.Errorf("hello: %+v", hello)
	}
	s.with(func() { s.refusal = http.StatusServiceUnavailable })
	s.cut()
	b.write("go", "")
	s.until("the agent asks again", func() bool { return s.asked > 8 })
	eventually(t, "restic has ended", func() bool { return len(b.snapshots()) == 1 })
	s.with(func() { s.refusal = 0 })
	if end := s.finished(run.JobID); end.Outcome != protocol.OutcomeSucceeded {
		t.Errorf("%+v", end)
	}
	stop()
	if n := b.count("starts"); n != 1 {
		t.Errorf("restic started %d times", n)
	}
}

func TestRejectedMessagesBlockNothing(t *testing.T) {
	t.Parallel()
	b, s := setup(t), newServer(t)
	b.repository()
	b.enrolled(s)
	unknown, fine := b.run(protocol.KindBackup), b.run(protocol.KindBackup)
	s.verdict = func(m got) string {
		if strings.HasPrefix(m.ID, unknown.JobID) {
			return "There is no job of this host with that id."
		}
		return ""
	}
	log, _ := b.agent()
	s.send(protocol.TypeRun, unknown)
	s.send(protocol.TypeRun, fine)
	s.finished(unknown.JobID)
	s.finished(fine.JobID)
	b.acknowledged(unknown.JobID)
	b.acknowledged(fine.JobID)
	if n := strings.Count(log.String(), "no job of this host"); n < 4 {
		t.Errorf("%d rejections in the log:\n%s", n, log)
	}
	s.cut()
	if hello := s.linked(2); len(hello.Jobs) != 0 {
		t.Errorf("hello: %+v", hello)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	ids := map[string]int{}
	for _, m := range s.of("", unknown.JobID) {
		ids[m.ID]++
	}
	for id, n := range ids {
		if n != 1 {
			t.Errorf("%s was rejected and came %d times", id, n)
		}
	}
}

func TestUnacknowledgedMessagesComeAgainWithinTheSession(t *testing.T) {
	t.Parallel()
	b, s := setup(t), newServer(t)
	b.repository()
	b.enrolled(s)
	seen := map[string]int{}
	s.verdict = func(m got) string {
		if seen[m.ID]++; seen[m.ID] < 3 && strings.HasPrefix(m.Type, "job.") {
			return "drop" // the database was away
		}
		return ""
	}
	b.agent(func(o *Options) { o.ResendAfter = 100 * time.Millisecond })
	run := b.run(protocol.KindBackup)
	s.send(protocol.TypeRun, run)
	for _, typ := range []string{protocol.TypeAccepted, protocol.TypeStarted, protocol.TypeLog, protocol.TypeFinished} {
		s.until(typ+" came three times", func() bool {
			all := s.of(typ, run.JobID)
			return len(all) >= 3 && all[0].ID == all[1].ID || typ == protocol.TypeLog && len(all) >= 3
		})
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.links != 1 {
		t.Errorf("%d links", s.links)
	}
}

func TestRefusalsAreLoggedWithTheServersReason(t *testing.T) {
	t.Parallel()
	for status, detail := range map[int]string{
		http.StatusUnauthorized: "The credential was replaced by a newer enrolment.",
		http.StatusForbidden:    "Not from there.",
	} {
		t.Run(http.StatusText(status), func(t *testing.T) {
			t.Parallel()
			b, s := setup(t), newServer(t)
			b.enrolled(s)
			s.refusal, s.detail = status, detail
			log, _ := b.agent()
			s.until("the agent asks again", func() bool { return s.asked > 3 })
			if !strings.Contains(log.String(), detail) {
				t.Errorf("log:\n%s", log)
			}
			s.with(func() { s.refusal = 0 })
			s.linked(1)
		})
	}
}

func TestDeletedHostAsksNoMoreButLetsResticEndAndSeesANewEnrolment(t *testing.T) {
	t.Parallel()
	b, s := setup(t), newServer(t)
	b.repository()
	b.script(held)
	b.enrolled(s)
	log, _ := b.agent()
	run := b.run(protocol.KindBackup)
	s.send(protocol.TypeRun, run)
	s.until("it runs", func() bool { return len(s.of(protocol.TypeStarted, run.JobID)) == 1 })
	s.with(func() { s.refusal, s.detail = http.StatusGone, "This host was deleted by admin." })
	s.cut()
	s.until("the agent asks again", func() bool { return s.asked == 2 })
	b.write("go", "")
	eventually(t, "restic has ended", func() bool { return strings.Contains(log.String(), "job ended") })
	eventually(t, "the agent says why", func() bool { return strings.Contains(log.String(), "This host was deleted by admin.") })
	if !strings.Contains(log.String(), "next_try_in=1h0m") {
		t.Errorf("log:\n%s", log)
	}
	s.mu.Lock()
	if s.asked != 2 {
		t.Errorf("asked %d times", s.asked)
	}
	s.mu.Unlock()

	s.with(func() { s.refusal = 0 })
	if host, err := Enroll(t.Context(), Enrollment{Server: s.http.URL, Token: "once", StateDir: b.state, Version: "test"}); err != nil || host != "host-1" {
		t.Fatal(host, err)
	}
	if hello := s.linked(2); len(hello.Jobs) != 1 || hello.Jobs[0].State != protocol.JobFinished {
		t.Errorf("the journal must outlive a new enrolment: %+v", hello)
	}
}

func TestHalfOpenLinkIsReplaced(t *testing.T) {
	t.Parallel()
	b, s := setup(t), newServer(t)
	b.enrolled(s)
	s.ping = 50 * time.Millisecond
	log, _ := b.agent()
	s.linked(1)
	s.with(func() { s.deaf = true })
	s.linked(2)
	if !strings.Contains(log.String(), "silent") {
		t.Errorf("log:\n%s", log)
	}
}

func TestSupersededLinkSaysThatAMachineMayBeCloned(t *testing.T) {
	t.Parallel()
	b, s := setup(t), newServer(t)
	b.enrolled(s)
	log, _ := b.agent()
	s.send(protocol.TypeError, protocol.Error{Code: superseded, Reason: "a newer link has taken over"})
	eventually(t, "the agent has heard it", func() bool { return strings.Contains(log.String(), "complains") })
	s.cut()
	s.linked(2)
	if text := log.String(); !strings.Contains(text, "a newer link has taken over (superseded)") || !strings.Contains(text, "copy of this one's state directory") {
		t.Error(text)
	}
}

func TestScheduleSetIsAppliedAcknowledgedAndFires(t *testing.T) {
	t.Parallel()
	b, s := setup(t), newServer(t)
	b.enrolled(s)
	set := protocol.ScheduleSet{Version: 7, Schedules: []protocol.Schedule{
		{ID: "every", Cron: "@every 1s", Enabled: true, SourceGroups: []string{"g"}},
		{ID: "off", Cron: "@every 1s", SourceGroups: []string{"g"}},
	}}
	s.first = []protocol.Envelope{protocol.Seal("schedule-7", protocol.TypeScheduleSet, set)}
	log, _ := b.agent()
	s.until("the set is acknowledged", func() bool { return len(s.of(protocol.TypeScheduleAck, "")) > 0 })
	s.until("a fire came", func() bool { return len(s.of(protocol.TypeFire, "fire-every-")) > 0 })
	s.send(protocol.TypeScheduleSet, protocol.ScheduleSet{Version: 6})
	s.until("a heartbeat names the set", func() bool {
		all := s.of(protocol.TypeHeartbeat, "")
		if len(all) == 0 {
			return false
		}
		beat, err := protocol.Decode[protocol.Heartbeat](all[len(all)-1].Envelope)
		return err == nil && beat.AppliedScheduleVersion == 7 && beat.ScheduleDigest == set.Digest()
	})
	s.with(func() { s.refusal = http.StatusServiceUnavailable })
	s.cut()
	eventually(t, "ticks are dropped", func() bool { return strings.Contains(log.String(), "dropped") })
	s.with(func() { s.refusal = 0 })
	if hello := s.linked(2); hello.AppliedScheduleVersion != 7 || hello.ScheduleDigest != set.Digest() {
		t.Errorf("hello: %+v", hello)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if n := len(s.of(protocol.TypeFire, "fire-off-")); n != 0 {
		t.Errorf("a disabled schedule fired %d times", n)
	}
}

func TestNonsenseIsIgnoredAndTheLinkGoesOn(t *testing.T) {
	t.Parallel()
	b, s := setup(t), newServer(t)
	b.enrolled(s)
	log, _ := b.agent()
	for _, frame := range []string{
		"", "{", `{"id":"1","type":"from.the.future","payload":{}}`, `{"id":"1","type":"command.run"}`,
		`{"id":"1","type":"command.run","payload":{"job_id":7}}`, `{"id":"1","type":"command.run","payload":{"job_id":"../../etc"}}`,
		`{"id":"1","type":"command.cancel","payload":{"job_id":"never-seen"}}`, `{"id":"1","type":"schedule.set","payload":[]}`,
		`{"id":"1","type":"ack","payload":{"acknowledged":["nothing"],"rejected":[{"id":"nothing","reason":"r"}]}}`,
		`{"id":"1","type":"welcome","payload":{}}`, `{"id":"1","type":"error","payload":{"code":"c","reason":"just so"}}`,
	} {
		s.raw(frame)
	}
	run := b.run(protocol.KindInit)
	s.send(protocol.TypeRun, run)
	if end := s.finished(run.JobID); end.Outcome != protocol.OutcomeSucceeded {
		t.Errorf("%+v", end)
	}
	if text := log.String(); strings.Count(text, "message of the server is ignored") != 7 || !strings.Contains(text, "just so") {
		t.Errorf("log:\n%s", text)
	}
}

func TestCancelEndsARunningBackup(t *testing.T) {
	t.Parallel()
	b, s := setup(t), newServer(t)
	b.repository()
	b.script(held)
	b.enrolled(s)
	b.agent()
	run := b.run(protocol.KindBackup)
	s.send(protocol.TypeRun, run)
	s.until("it runs", func() bool { return len(s.of(protocol.TypeStarted, run.JobID)) == 1 })
	s.send(protocol.TypeCancel, protocol.Cancel{JobID: run.JobID})
	if end := s.finished(run.JobID); end.Outcome != protocol.OutcomeCancelled {
		t.Errorf("%+v", end)
	}
}

func TestBackoffGrowsAndALinkThatLivedResetsIt(t *testing.T) {
	t.Parallel()
	b, s := setup(t), newServer(t)
	b.enrolled(s)
	log, _ := b.agent(func(o *Options) {
		o.Backoff.Rand = func() float64 { return 0 } // always the whole window
		o.Backoff.Cap = 20 * time.Millisecond
		o.LivedAfter = 300 * time.Millisecond
	})
	for n := 1; n <= 4; n++ { // dies young
		s.linked(n)
		s.cut()
	}
	s.linked(5)
	began := time.Now()
	s.until("the link is old enough", func() bool {
		return time.Since(began) > 400*time.Millisecond && len(s.of(protocol.TypeHeartbeat, "")) > 0
	})
	s.cut()
	s.linked(6)
	var waits []string
	for line := range strings.Lines(log.String()) {
		if _, wait, ok := strings.Cut(line, "next_try_in="); ok {
			waits = append(waits, strings.TrimSpace(wait))
		}
	}
	if want := []string{"5ms", "10ms", "20ms", "20ms", "5ms"}; !slices.Equal(waits, want) {
		t.Errorf("waits %v, want %v", waits, want)
	}
}

func TestRunNeedsAnEnrolmentAndTheStateDirectoryForItself(t *testing.T) {
	t.Parallel()
	b, s := setup(t), newServer(t)
	again := func() error {
		a, err := New(Options{StateDir: b.state, Runner: b.config()})
		if err != nil {
			t.Fatal(err)
		}
		return a.Run(context.WithoutCancel(t.Context()))
	}
	if err := again(); !errors.Is(err, ErrNotEnrolled) {
		t.Error(err)
	}
	b.enrolled(s)
	b.agent()
	s.linked(1)
	if err := again(); err == nil || !strings.Contains(err.Error(), "another agent") {
		t.Error(err)
	}
}
