package agent

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"time"

	"resticfleet/agent/protocol"
	"resticfleet/agent/transport"
)

// outbox tells the server what the runner knows. It is no queue: it compares,
// job by job, what there is to tell with what the server has acknowledged, and
// sends the difference. So nothing is lost with a link, and nothing piles up
// without one; log lines are read from the runner when they are sent.
//
// A job's messages leave in order: accepted, started, log, finished; the end of a
// look-up waits until its answer is settled. The job is done with once its result
// and every log line before it are settled: acknowledged, or rejected as what the
// server can never store.
type outbox struct {
	runner *Runner
	log    *slog.Logger
	limits outboxLimits
	woken  chan struct{}

	mu       sync.Mutex
	jobs     map[string]*report
	inFlight map[string]*message // by envelope id
}

type outboxLimits struct {
	resendAfter   time.Duration // an unacknowledged message goes again; 20 s
	progressEvery time.Duration // of one job; 1 s
	window        int           // unacknowledged messages at once; 32
	logWindow     int           // of them log batches of one job; 4
	logBytes      int           // of one batch; 256 KiB
	answerWindow  int           // pieces of one job's answer; 4
}

func (l outboxLimits) withDefaults() outboxLimits {
	if l.resendAfter <= 0 {
		l.resendAfter = 20 * time.Second
	}
	if l.progressEvery <= 0 {
		l.progressEvery = time.Second
	}
	if l.window <= 0 {
		l.window = 32
	}
	if l.logWindow <= 0 {
		l.logWindow = 4
	}
	if l.answerWindow <= 0 {
		l.answerWindow = 4
	}
	if l.logBytes <= 0 {
		l.logBytes = 256 << 10
	}
	return l
}

// report is what this session has told of one job; nil messages aren't sent.
type report struct {
	accepted, started, finished *message
	logs                        []*message // in order, the first one unsettled
	answers                     []*message // of a look-up, likewise
	answerSent                  int64      // the newest piece on its way or settled
	logSent                     int64      // the newest line on its way or settled; -1: ask the runner
	progressSeq                 int64
	progressAt                  time.Time
}

type message struct {
	jobID, kind string
	first, last int64 // of a log batch; first numbers a piece of an answer
	sentAt      time.Time
	settled     bool
}

func (m *message) id() string {
	switch m.kind {
	case protocol.TypeLog:
		return fmt.Sprintf("%s-log-%d", m.jobID, m.first)
	case protocol.TypeAnswer:
		return fmt.Sprintf("%s-answer-%d", m.jobID, m.first)
	}
	return m.jobID + "-" + strings.TrimPrefix(m.kind, "job.")
}

// idle is how long the outbox sleeps when it waits for nothing but a change.
const idle = time.Hour

// maxLogText cuts a single line; the server keeps less of it.
const maxLogText = 64 << 10

func newOutbox(log *slog.Logger, limits outboxLimits) *outbox {
	return &outbox{
		log: log, limits: limits.withDefaults(), woken: make(chan struct{}, 1),
		jobs: map[string]*report{}, inFlight: map[string]*message{},
	}
}

// wake makes the outbox look again. It never blocks.
func (o *outbox) wake() {
	select {
	case o.woken <- struct{}{}:
	default:
	}
}

// begin starts a session whose hello has told of these jobs: what it said
// needs no saying again, whatever else was under way is open once more. stored
// is what the server has of them.
func (o *outbox) begin(told []protocol.HelloJob, stored []protocol.WelcomeJob) {
	o.mu.Lock()
	defer o.mu.Unlock()
	clear(o.jobs)
	clear(o.inFlight)
	for _, j := range told {
		r := &report{logSent: -1, accepted: &message{settled: true}}
		if j.State != protocol.JobAccepted {
			r.started = &message{settled: true}
		}
		o.jobs[j.JobID] = r
	}
	for _, j := range stored {
		o.runner.rewindLog(j.JobID, j.LogSeq)
		// A long answer over a slow link may need more than one session.
		if r := o.jobs[j.JobID]; r != nil {
			r.answerSent = max(j.AnswerSeq, 0)
		}
	}
}

// offered notes that the server sends a job's command. If it was told of that
// job before, it missed the answer: what is known is told again.
func (o *outbox) offered(jobID string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if r := o.jobs[jobID]; r != nil {
		for _, m := range []*message{r.accepted, r.started, r.finished} {
			if m != nil && m.kind != "" {
				delete(o.inFlight, m.id())
			}
		}
		for _, m := range r.answers {
			delete(o.inFlight, m.id())
		}
		r.accepted, r.started, r.finished, r.answers, r.answerSent = nil, nil, nil, nil, 0
	}
}

// send tells what there is to tell, until ctx ends or the link fails.
func (o *outbox) send(ctx context.Context, link transport.Link) error {
	again := time.NewTimer(0)
	defer again.Stop()
	for {
		e, wait := o.next(time.Now())
		if e == nil {
			again.Reset(wait)
			select {
			case <-ctx.Done():
				return ctx.Err()
			case <-o.woken:
			case <-again.C:
			}
			continue
		}
		switch err := link.Send(ctx, *e); {
		case errors.Is(err, transport.ErrTooLarge):
			o.reject(protocol.Rejection{ID: e.ID, Reason: err.Error()})
		case err != nil:
			return err
		}
	}
}

// next gives the message to send now; nil when there is none before the wait
// is over or something changes. The message counts as under way from here on:
// its acknowledgement may come before Send has returned, and a link that fails
// ends the session and with it all that was under way.
func (o *outbox) next(now time.Time) (*protocol.Envelope, time.Duration) {
	o.mu.Lock()
	defer o.mu.Unlock()
	wait := idle
	pending := o.runner.Pending()
	alive := make(map[string]bool, len(pending))
	for _, s := range pending {
		alive[s.JobID] = true
		r := o.jobs[s.JobID]
		if r == nil {
			r = &report{logSent: -1}
			o.jobs[s.JobID] = r
		}
		e, due := o.due(r, s, now)
		if e != nil {
			return e, 0
		}
		wait = min(wait, due)
	}
	for id := range o.jobs {
		if !alive[id] {
			o.forget(id)
		}
	}
	return nil, max(wait, time.Millisecond)
}

// due gives one job's next message, or how long there is surely none.
func (o *outbox) due(r *report, s JobStatus, now time.Time) (*protocol.Envelope, time.Duration) {
	if r.logSent < 0 {
		r.logSent = s.AckedLogSeq
	}
	wait := idle
	// late says whether a message that may be under way must (again) be sent.
	late := func(m *message) bool {
		if m == nil {
			return len(o.inFlight) < o.limits.window
		}
		if m.settled {
			return false
		}
		left := m.sentAt.Add(o.limits.resendAfter).Sub(now)
		if left > 0 {
			wait = min(wait, left)
		}
		return left <= 0
	}

	// A job that could not be written down was never accepted.
	if !s.AcceptedAt.IsZero() && late(r.accepted) {
		return o.seal(&r.accepted, s.JobID, protocol.TypeAccepted, now,
			protocol.Accepted{JobID: s.JobID, JournalID: o.runner.JournalID()}), 0
	}
	if !s.StartedAt.IsZero() && late(r.started) {
		return o.seal(&r.started, s.JobID, protocol.TypeStarted, now, protocol.Started{JobID: s.JobID, At: s.StartedAt}), 0
	}
	for _, m := range r.logs {
		if !late(m) {
			continue
		}
		if e := o.batch(m, now); e != nil {
			return e, 0
		}
		o.settle(m) // its lines are gone
	}
	if r.logSent < s.LastLogSeq && len(r.logs) < o.limits.logWindow && late(nil) {
		m := &message{jobID: s.JobID, kind: protocol.TypeLog, first: r.logSent + 1, last: s.LastLogSeq}
		e := o.batch(m, now)
		r.logSent = m.last
		if e != nil {
			r.logs = append(r.logs, m)
			return e, 0
		}
	}
	if p := s.Progress; p != nil && s.State == protocol.JobRunning && p.Seq > r.progressSeq {
		left := r.progressAt.Add(o.limits.progressEvery).Sub(now)
		if left <= 0 {
			r.progressSeq, r.progressAt = p.Seq, now
			e := protocol.Seal(fmt.Sprintf("%s-progress-%d", s.JobID, p.Seq), protocol.TypeProgress, *p)
			return &e, 0
		}
		wait = min(wait, left)
	}
	if s.Result != nil && r.answerSent < s.Result.LastAnswerSeq && len(r.answers) < o.limits.answerWindow && late(nil) {
		r.answerSent++
		r.answers = append(r.answers, &message{jobID: s.JobID, kind: protocol.TypeAnswer, first: r.answerSent})
	}
	for _, m := range r.answers {
		if !late(m) {
			continue
		}
		if e := o.piece(m, now); e != nil {
			return e, 0
		}
		o.settle(m) // it is gone, and the server says so
		return o.due(r, s, now)
	}
	told := s.Result != nil && r.answerSent >= s.Result.LastAnswerSeq && len(r.answers) == 0
	if told && r.logSent >= s.Result.LastLogSeq && late(r.finished) {
		return o.seal(&r.finished, s.JobID, protocol.TypeFinished, now, fitting(*s.Result)), 0
	}
	return nil, wait
}

func (o *outbox) seal(slot **message, jobID, kind string, now time.Time, payload any) *protocol.Envelope {
	if *slot == nil {
		*slot = &message{jobID: jobID, kind: kind}
	}
	m := *slot
	return o.leaves(m, now, payload)
}

// leaves marks a message as under way.
func (o *outbox) leaves(m *message, now time.Time, payload any) *protocol.Envelope {
	m.sentAt = now
	o.inFlight[m.id()] = m
	e := protocol.Seal(m.id(), m.kind, payload)
	return &e
}

// batch reads a batch's lines; its last is moved to what fits. nil when there
// are none: a line that can't be read must not hold up the result.
func (o *outbox) batch(m *message, now time.Time) *protocol.Envelope {
	lines, err := o.runner.Log(m.jobID, m.first-1, o.limits.logBytes)
	if err != nil {
		o.log.Error("log lines can't be read and are left out", "job.id", m.jobID, "after", m.first-1, "err", err)
		return nil
	}
	for i := range lines {
		if lines[i].Seq > m.last {
			lines = lines[:i]
			break
		}
		if len(lines[i].Text) > maxLogText {
			lines[i].Text = strings.ToValidUTF8(lines[i].Text[:maxLogText], "") + "…"
		}
	}
	if len(lines) == 0 {
		return nil
	}
	if last := lines[len(lines)-1].Seq; m.sentAt.IsZero() {
		m.last = last
	}
	return o.leaves(m, now, protocol.Log{JobID: m.jobID, Lines: lines})
}

// piece reads a piece of a look-up's answer; nil where it can't be read.
func (o *outbox) piece(m *message, now time.Time) *protocol.Envelope {
	items, err := o.runner.Answer(m.jobID, m.first)
	if err != nil || items == nil {
		o.log.Error("a piece of an answer can't be read and is left out", "job.id", m.jobID, "seq", m.first, "err", err)
		return nil
	}
	return o.leaves(m, now, protocol.Answer{JobID: m.jobID, Seq: m.first, Items: items})
}

// fitting leaves out of a result what would make it larger than a frame: the
// end itself must arrive.
func fitting(f protocol.Finished) protocol.Finished {
	const most = protocol.MaxFrame - 4<<10
	size := func() int {
		raw, err := json.Marshal(f)
		if err != nil { // NaN in restic's figures
			f.Stats = nil
			return 0
		}
		return len(raw)
	}
	for size() > most && len(f.Unreadable) > 0 {
		f.Unreadable = f.Unreadable[:len(f.Unreadable)/2]
	}
	if size() > most {
		f.Stats = nil
	}
	if size() > most {
		f.Error = strings.ToValidUTF8(f.Error[:min(len(f.Error), 16<<10)], "") + "…"
	}
	return f
}

// acknowledge takes an ack. Ids that aren't under way are another session's or
// of no interest.
func (o *outbox) acknowledge(a protocol.Ack) {
	o.mu.Lock()
	for _, id := range a.Acknowledged {
		o.settleID(id)
	}
	o.mu.Unlock()
	for _, r := range a.Rejected {
		o.reject(r)
	}
	o.wake()
}

// reject settles a message that the server can never store: repeating it would
// change nothing, and it must not stand in the way of others.
func (o *outbox) reject(r protocol.Rejection) {
	o.mu.Lock()
	defer o.mu.Unlock()
	m := o.inFlight[r.ID]
	if m == nil {
		o.log.Warn("the server rejects a message", "id", r.ID, "reason", r.Reason)
		return
	}
	o.log.Warn("the server rejects a message about a job", "id", r.ID, "job.id", m.jobID, "type", m.kind, "reason", r.Reason)
	o.settleID(r.ID)
}

func (o *outbox) settleID(id string) {
	if m := o.inFlight[id]; m != nil {
		o.settle(m)
	}
}

func (o *outbox) settle(m *message) {
	m.settled = true
	delete(o.inFlight, m.id())
	r := o.jobs[m.jobID]
	if r == nil {
		return
	}
	// Only what has no gap before it counts: the runner remembers one number.
	for len(r.logs) > 0 && r.logs[0].settled {
		o.runner.AckLog(m.jobID, r.logs[0].last)
		r.logs = r.logs[1:]
	}
	for len(r.answers) > 0 && r.answers[0].settled {
		r.answers = r.answers[1:]
	}
	if r.finished == nil || !r.finished.settled || len(r.logs) > 0 {
		return
	}
	if err := o.runner.AckFinished(m.jobID); err != nil {
		// Told again later, and acknowledged again: then the disk may do it.
		o.log.Error("a result's acknowledgement can't be written down", "job.id", m.jobID, "err", err)
		r.finished.settled, r.finished.sentAt = false, time.Now()
		o.inFlight[r.finished.id()] = r.finished
		return
	}
	o.forget(m.jobID)
}

func (o *outbox) forget(jobID string) {
	delete(o.jobs, jobID)
	for id, m := range o.inFlight {
		if m.jobID == jobID {
			delete(o.inFlight, id)
		}
	}
}
