package agent

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"sync"
	"time"

	"resticfleet/agent/protocol"
	"resticfleet/agent/transport"
)

// superseded is the code of a server that has a newer link of this agent.
const superseded = "superseded"

// linked keeps a session with the server, by one link after the other where a
// better one is found, and returns why the last has ended; never nil. lived
// says that it was one worth the name.
func (a *Agent) linked(ctx context.Context) (lived bool, err error) {
	s, err := a.open(ctx)
	for err == nil {
		began := time.Now()
		var next *session
		next, err = a.serve(ctx, s)
		age := time.Since(began)
		lived = lived || age >= a.opts.LivedAfter
		if s.kind == LinkWebSocket && ctx.Err() == nil {
			a.way.ended(age, a.opts.LivedAfter, err)
		}
		switch {
		case next != nil:
			s, err = next, nil
		case errors.Is(err, errProbed):
			s, err = a.fall(ctx, s.reason, err)
		case s.kind == LinkWebSocket && lived && a.auto() && a.way.young >= maxYoung && ctx.Err() == nil:
			// The socket that the polling was left for died as young as those
			// before: no time without a link for that.
			a.log.InfoContext(ctx, "back to polling", "err", err)
			s, err = a.fall(ctx, a.way.death, err)
		}
	}
	return lived, err
}

// errProbed is a polling link that ended for the hello of a probe, which then
// came to nothing.
var errProbed = errors.New("the server turned to a WebSocket that did not hold")

func (a *Agent) auto() bool { return a.opts.Link == LinkAuto }

// serve works with a session until its link ends or a better one is found,
// which is then the first result.
func (a *Agent) serve(ctx context.Context, s *session) (*session, error) {
	defer s.link.Close()
	log := a.log.With("host.id", s.cfg.HostID, "session", s.welcome.Session)
	log.InfoContext(ctx, "linked to the server", "server", s.cfg.Server, "link", s.kind)
	if s.reason != "" {
		log.WarnContext(ctx, "the agent polls", "reason", s.reason)
	}
	a.begin(s)
	a.scheduler.SetSender(sender{s.link})
	defer a.scheduler.SetSender(nil)

	serving, stop := context.WithCancel(ctx)
	var workers sync.WaitGroup
	defer workers.Wait()
	defer stop()
	// What these return is the link's end, which the reading below hears too.
	workers.Go(func() { _ = a.outbox.send(serving, s.link) })
	workers.Go(func() { a.beat(serving, s) })
	if s.kind != LinkPolling || !a.auto() {
		return nil, a.listen(serving, s, &workers)
	}

	search := a.search(ctx, stop)
	err := a.listen(serving, s, &workers)
	found, said := search.finish()
	a.way.probe = search.wait
	switch {
	case found != nil && ctx.Err() == nil:
		log.InfoContext(ctx, "a WebSocket works again")
		return found, err
	case found != nil:
		found.link.Close()
	case said && superseding(err):
		return nil, errProbed
	}
	return nil, err
}

// superseding tells whether a link ended because the server has a newer one.
func superseding(err error) bool {
	var refused *transport.RefusedError
	return errors.As(err, &refused) && refused.Status == http.StatusConflict
}

// begin takes over what a welcome says, and what its hello has told.
func (a *Agent) begin(s *session) {
	s.beats.Store(int64(heartbeatEvery(a.opts, s.welcome)))
	a.scheduler.SetJitter(max(0, time.Duration(s.welcome.ScheduleJitterMS)*time.Millisecond))
	a.outbox.begin(s.hello.Jobs, s.welcome.Jobs)
}

// greet says hello and waits for the welcome.
func (a *Agent) greet(ctx context.Context, s *session) error {
	ctx, stop := context.WithTimeoutCause(ctx, a.opts.WelcomeAfter, errSilent)
	defer stop()
	s.hello = a.hello(ctx, s.reason)
	if err := s.link.Send(ctx, protocol.Seal("hello", protocol.TypeHello, s.hello)); err != nil {
		return inTime(ctx, err)
	}
	for {
		e, err := s.link.Receive(ctx)
		var malformed *transport.MalformedError
		switch {
		case errors.As(err, &malformed):
			a.ignore(ctx, "", err)
		case err != nil:
			return inTime(ctx, err)
		case e.Type == protocol.TypeWelcome:
			if s.welcome, err = protocol.Decode[protocol.Welcome](e); err != nil {
				return err
			}
			s.link.Welcomed(s.welcome)
			return nil
		case e.Type == protocol.TypeError:
			if said, err := protocol.Decode[protocol.Error](e); err == nil {
				return fmt.Errorf("%w: %s (%s)", errSaid, said.Reason, said.Code)
			}
		default:
			// Nothing can be done with it before the welcome; it comes again.
			a.ignore(ctx, e.Type, errors.New("it came before the welcome"))
		}
	}
}

// inTime gives a deadline its own words.
func inTime(ctx context.Context, err error) error {
	if errors.Is(err, context.DeadlineExceeded) {
		return context.Cause(ctx)
	}
	return err
}

// clone is the remedy for a link that was superseded and didn't expect it.
const clone = "if that goes on, another machine works with a copy of this one's state directory: enrol that one as a host of its own"

// listen takes the server's messages until the link ends.
func (a *Agent) listen(ctx context.Context, s *session, workers *sync.WaitGroup) error {
	var reason error
	greeting := false // a new hello is under way
	for {
		e, err := s.link.Receive(ctx)
		var malformed *transport.MalformedError
		switch {
		case errors.As(err, &malformed):
			a.ignore(ctx, "", err)
		case errors.Is(err, transport.ErrHelloAgain):
			greeting = true
			s.hello = a.hello(ctx, s.reason)
			hello := protocol.Seal("hello", protocol.TypeHello, s.hello)
			// Beside the reading: what Send waits for may be that.
			workers.Go(func() { _ = s.link.Send(ctx, hello) }) // an error is the link's end
		case superseding(err):
			return fmt.Errorf("%w; %s", err, clone)
		case err != nil && reason != nil && ctx.Err() == nil:
			return reason // which the close frame only repeats
		case err != nil:
			return err
		case e.Type == protocol.TypeWelcome && greeting:
			greeting = false
			if s.welcome, err = protocol.Decode[protocol.Welcome](e); err != nil {
				a.ignore(ctx, e.Type, err)
				continue
			}
			s.link.Welcomed(s.welcome)
			a.begin(s)
			a.outbox.wake()
			a.log.InfoContext(ctx, "the server has a new hello", "session", s.welcome.Session)
		case e.Type == protocol.TypeError:
			if said, err := protocol.Decode[protocol.Error](e); err == nil {
				reason = fmt.Errorf("the server closed the link: %s (%s)", said.Reason, said.Code)
				if said.Code == superseded {
					reason = fmt.Errorf("%w; %s", reason, clone)
				}
				a.log.WarnContext(ctx, "the server complains", "code", said.Code, "reason", said.Reason)
			}
		default:
			reason = nil // the link went on: that was no farewell
			a.handle(ctx, e)
		}
	}
}

// handle does what one message asks for. It waits for nothing but the journal.
func (a *Agent) handle(ctx context.Context, e protocol.Envelope) {
	var err error
	switch e.Type {
	case protocol.TypeScheduleSet:
		var set protocol.ScheduleSet
		if set, err = protocol.Decode[protocol.ScheduleSet](e); err == nil {
			a.scheduler.Apply(set)
		}
	case protocol.TypeRun:
		var run protocol.Run
		if run, err = protocol.Decode[protocol.Run](e); err == nil {
			a.accept(ctx, run)
		}
	case protocol.TypeCancel:
		var cancel protocol.Cancel
		if cancel, err = protocol.Decode[protocol.Cancel](e); err == nil {
			a.cancel(ctx, cancel)
		}
	case protocol.TypeAck:
		var ack protocol.Ack
		if ack, err = protocol.Decode[protocol.Ack](e); err == nil {
			a.outbox.acknowledge(ack)
		}
	default:
		err = errors.New("its type is unknown here")
	}
	if err != nil {
		a.ignore(ctx, e.Type, err)
	}
}

func (a *Agent) accept(ctx context.Context, run protocol.Run) {
	log := a.log.With("job.id", run.JobID, "kind", run.Kind)
	// Before: a job that is new here has said nothing yet that it must repeat.
	a.outbox.offered(run.JobID)
	defer a.outbox.wake()
	state, err := a.runner.Accept(run)
	if err != nil {
		log.ErrorContext(ctx, "a command can't be taken", "err", err)
		return
	}
	log.InfoContext(ctx, "the server sent a command", "attempt", run.Attempt, "state", state)
}

func (a *Agent) cancel(ctx context.Context, c protocol.Cancel) {
	log := a.log.With("job.id", c.JobID)
	switch err := a.runner.Cancel(c.JobID); {
	case errors.Is(err, ErrUnknownJob):
		log.InfoContext(ctx, "the server cancels a job that never came here")
	case err != nil:
		log.ErrorContext(ctx, "a cancel can't be written down", "err", err)
	default:
		log.InfoContext(ctx, "the server cancels a job")
	}
}

// ignore counts a message that nothing can be done with: of a newer server, or
// damaged.
func (a *Agent) ignore(ctx context.Context, typ string, err error) {
	a.log.WarnContext(ctx, "a message of the server is ignored", "type", typ, "err", err, "ignored_so_far", a.ignored.Add(1))
}

func heartbeatEvery(o Options, w protocol.Welcome) time.Duration {
	if w.PingIntervalMS > 0 {
		return 2 * time.Duration(w.PingIntervalMS) * time.Millisecond
	}
	return 2 * o.PingInterval
}

// beat repeats what the cron runs, for a server that was put back in time.
func (a *Agent) beat(ctx context.Context, s *session) {
	for n := 1; ; n++ {
		next := time.NewTimer(time.Duration(s.beats.Load()))
		select {
		case <-ctx.Done():
			next.Stop()
			return
		case <-next.C:
		}
		version, digest := a.scheduler.Applied()
		err := s.link.Send(ctx, protocol.Seal(fmt.Sprintf("heartbeat-%d", n), protocol.TypeHeartbeat, protocol.Heartbeat{
			AppliedScheduleVersion: version, ScheduleDigest: digest, SentAt: time.Now().UTC(),
		}))
		if err != nil {
			return
		}
	}
}

// sender is the link as the scheduler sees it.
type sender struct{ link transport.Link }

func (s sender) Fire(ctx context.Context, f protocol.Fire) error {
	id := fmt.Sprintf("fire-%s-%d", f.ScheduleID, f.ScheduledAt.Unix())
	return s.link.Send(ctx, protocol.Seal(id, protocol.TypeFire, f))
}

func (s sender) Ack(ctx context.Context, a protocol.ScheduleAck) error {
	return s.link.Send(ctx, protocol.Seal(fmt.Sprintf("schedule-ack-%d", a.Version), protocol.TypeScheduleAck, a))
}
