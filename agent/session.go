package agent

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"resticfleet/agent/protocol"
	"resticfleet/agent/transport"
)

// superseded is the code of a server that has a newer link of this agent.
const superseded = "superseded"

// session opens one link, serves it and returns why it ended; never nil. lived
// says that it was one worth the name.
func (a *Agent) session(ctx context.Context) (lived bool, err error) {
	link, cfg, err := a.dial(ctx)
	if err != nil {
		return false, err
	}
	defer link.Close()
	welcome, err := a.greet(ctx, link)
	if err != nil {
		return false, err
	}
	began := time.Now()
	log := a.log.With("host.id", cfg.HostID, "session", welcome.Session)
	log.InfoContext(ctx, "linked to the server", "server", cfg.Server)

	a.scheduler.SetJitter(max(0, time.Duration(welcome.ScheduleJitterMS)*time.Millisecond))
	a.scheduler.SetSender(sender{link})
	defer a.scheduler.SetSender(nil)

	serving, stop := context.WithCancel(ctx)
	var workers sync.WaitGroup
	defer workers.Wait()
	defer stop()
	// What these return is the link's end, which the reading below hears too.
	workers.Go(func() { _ = a.outbox.send(serving, link) })
	workers.Go(func() { a.beat(serving, link, heartbeatEvery(a.opts, welcome)) })

	err = a.listen(serving, link)
	return time.Since(began) >= a.opts.LivedAfter, err
}

// greet says hello and waits for the welcome.
func (a *Agent) greet(ctx context.Context, link transport.Link) (protocol.Welcome, error) {
	ctx, stop := context.WithTimeoutCause(ctx, a.opts.WelcomeAfter, errors.New("the server did not answer hello in time"))
	defer stop()
	hello := a.hello(ctx)
	if err := link.Send(ctx, protocol.Seal("hello", protocol.TypeHello, hello)); err != nil {
		return protocol.Welcome{}, inTime(ctx, err)
	}
	for {
		e, err := link.Receive(ctx)
		var malformed *transport.MalformedError
		switch {
		case errors.As(err, &malformed):
			a.ignore(ctx, "", err)
		case err != nil:
			return protocol.Welcome{}, inTime(ctx, err)
		case e.Type == protocol.TypeWelcome:
			welcome, err := protocol.Decode[protocol.Welcome](e)
			if err != nil {
				return welcome, err
			}
			link.Welcomed(welcome)
			a.outbox.begin(hello.Jobs)
			return welcome, nil
		case e.Type == protocol.TypeError:
			if said, err := protocol.Decode[protocol.Error](e); err == nil {
				return protocol.Welcome{}, fmt.Errorf("the server refused: %s (%s)", said.Reason, said.Code)
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

// listen takes the server's messages until the link ends.
func (a *Agent) listen(ctx context.Context, link transport.Link) error {
	var reason error
	for {
		e, err := link.Receive(ctx)
		var malformed *transport.MalformedError
		switch {
		case errors.As(err, &malformed):
			a.ignore(ctx, "", err)
		case err != nil && reason != nil && ctx.Err() == nil:
			return reason // which the close frame only repeats
		case err != nil:
			return err
		case e.Type == protocol.TypeError:
			if said, err := protocol.Decode[protocol.Error](e); err == nil {
				reason = fmt.Errorf("the server closed the link: %s (%s)", said.Reason, said.Code)
				if said.Code == superseded {
					reason = fmt.Errorf("%w; if that goes on, another machine works with a copy of this one's state directory: enrol that one as a host of its own", reason)
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
func (a *Agent) beat(ctx context.Context, link transport.Link, every time.Duration) {
	tick := time.NewTicker(every)
	defer tick.Stop()
	for n := 1; ; n++ {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		version, digest := a.scheduler.Applied()
		err := link.Send(ctx, protocol.Seal(fmt.Sprintf("heartbeat-%d", n), protocol.TypeHeartbeat, protocol.Heartbeat{
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
