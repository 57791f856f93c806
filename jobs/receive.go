package jobs

import (
	"context"
	"errors"
	"time"

	"resticfleet/agent/failpoint"
	"resticfleet/agent/protocol"
	"resticfleet/models"
)

// Verdict is what becomes of one message: acknowledged when both are zero.
type Verdict struct {
	// Rejected says why the message can never be stored; it must not be
	// repeated.
	Rejected string
	// Unknown marks a type this server doesn't know: ignored and counted.
	Unknown bool
}

// fireWindow is how far a fire may be from now, beyond the clocks' difference.
const fireWindow = 10 * time.Minute

// Receive stores one message of a link, whatever carried it. It returns after
// the commit, so that an acknowledgement never runs ahead of it. An error
// means "try again", ErrSuperseded that the link is not the newest any more.
func (s *Service) Receive(ctx context.Context, link *Link, e protocol.Envelope) (Verdict, error) {
	var hints []Topic
	var end models.JobEnd
	var unknown bool
	if e.Type == protocol.TypeFinished && failpoint.Planted(failpoint.AckUnstored) {
		return Verdict{}, nil
	}
	err := models.Tx(ctx, s.DB, func(tx models.IDB) error {
		hints, end = nil, models.JobEnd{}
		if err := models.HoldGeneration(ctx, tx, link.HostID, link.Generation); err != nil {
			return err
		}
		r := receiver{s: s, ctx: ctx, tx: tx, host: link.HostID}
		err := r.store(e)
		hints, end, unknown = r.hints, r.end, r.unknown
		return err
	})
	if err != nil {
		var bad *models.Error
		if errors.As(err, &bad) {
			return Verdict{Rejected: bad.Error()}, nil
		}
		var malformed malformedError
		if errors.As(err, &malformed) {
			return Verdict{Rejected: malformed.Error()}, nil
		}
		if models.Unstorable(err) {
			s.Log.ErrorContext(ctx, "a message holds what the database can't", "host.id", link.HostID, "type", e.Type, "err", err)
			return Verdict{Rejected: "This message holds a value that can't be stored; the server's log says which."}, nil
		}
		return Verdict{}, err
	}
	failpoint.Hit(failpoint.Stored + e.Type)
	s.Hints.Publish(hints...)
	if end.Job != nil {
		s.wakeWaiting(ctx, end.Job)
	}
	s.ownersChanged(ctx, end.Owners)
	return Verdict{Unknown: unknown}, nil
}

// wakeWaiting hints to the links of all hosts that waited for the gate which
// a job has just left.
func (s *Service) wakeWaiting(ctx context.Context, j *models.Job) {
	s.jobChanged(j)
	if j.RepositoryID == nil {
		return
	}
	hosts, err := models.HostsWaitingFor(ctx, s.DB, *j.RepositoryID)
	if err != nil {
		s.Log.WarnContext(ctx, "waiting hosts can't be woken; the slow look will", "job.id", j.ID, "err", err)
		return
	}
	for _, h := range hosts {
		s.Hints.Publish(DispatchTopic(h))
	}
}

// malformedError is a payload that this protocol can't read.
type malformedError struct{ error }

type receiver struct {
	s       *Service
	ctx     context.Context
	tx      models.IDB
	host    models.HostID
	hints   []Topic
	end     models.JobEnd
	unknown bool
}

func (r *receiver) store(e protocol.Envelope) error {
	switch e.Type {
	case protocol.TypeScheduleAck:
		return handle(e, r.scheduleAck)
	case protocol.TypeFire:
		return handle(e, r.fire)
	case protocol.TypeAccepted:
		return handle(e, r.accepted)
	case protocol.TypeStarted:
		return handle(e, r.started)
	case protocol.TypeProgress:
		return handle(e, r.progress)
	case protocol.TypeLog:
		return handle(e, r.log)
	case protocol.TypeAnswer:
		return handle(e, r.answer)
	case protocol.TypeFinished:
		return handle(e, r.finished)
	case protocol.TypeHeartbeat:
		return handle(e, r.heartbeat)
	case protocol.TypeHello:
		return malformedError{errors.New("hello opens a link; it can't be said twice")}
	}
	r.unknown = true
	return nil
}

func handle[T any](e protocol.Envelope, f func(T) error) error {
	m, err := protocol.Decode[T](e)
	if err != nil {
		return malformedError{err}
	}
	return f(m)
}

func (r *receiver) changed(j *models.Job, err error) error {
	if err != nil {
		return err
	}
	r.hints = append(r.hints, JobTopic(j.ID), JobsTopic, HostTopic(j.HostID), FleetTopic)
	return nil
}

func (r *receiver) scheduleAck(m protocol.ScheduleAck) error {
	r.hints = append(r.hints, HostTopic(r.host))
	return r.applied(m.Version, m.Digest)
}

func (r *receiver) heartbeat(m protocol.Heartbeat) error {
	if !m.SentAt.IsZero() {
		mended, err := models.ClockMended(r.ctx, r.tx, r.host, time.Until(m.SentAt))
		if err != nil {
			return err
		}
		if mended {
			r.hints = append(r.hints, HostTopic(r.host))
		}
	}
	return r.applied(m.AppliedScheduleVersion, m.ScheduleDigest)
}

func (r *receiver) applied(version int64, digest string) error {
	raised, err := r.s.applied(r.ctx, r.tx, r.host, version, digest, false)
	if raised {
		r.hints = append(r.hints, HostTopic(r.host), DispatchTopic(r.host))
	}
	return err
}

func (r *receiver) accepted(m protocol.Accepted) error {
	return r.changed(models.JobAccepted(r.ctx, r.tx, r.host, m))
}

func (r *receiver) started(m protocol.Started) error {
	return r.changed(models.JobStarted(r.ctx, r.tx, r.host, m))
}

func (r *receiver) progress(m protocol.Progress) error {
	j, newer, err := models.JobProgress(r.ctx, r.tx, r.host, m)
	if err != nil || !newer {
		return err
	}
	r.hints = append(r.hints, JobTopic(j.ID), HostTopic(j.HostID), JobsTopic, FleetTopic)
	return nil
}

func (r *receiver) log(m protocol.Log) error {
	j, err := models.JobLog(r.ctx, r.tx, r.host, m)
	if err == nil {
		r.hints = append(r.hints, JobTopic(j.ID))
	}
	return err
}

func (r *receiver) answer(m protocol.Answer) error {
	return models.JobAnswer(r.ctx, r.tx, r.host, m)
}

func (r *receiver) finished(m protocol.Finished) error {
	host, err := models.FindHost(r.ctx, r.tx, r.host)
	if err != nil {
		return err
	}
	r.end, err = models.JobFinished(r.ctx, r.tx, host, m)
	if models.CodeOf(err) == models.ENotFound {
		// The last that is heard of it here: an operator may have to find it.
		r.s.Log.WarnContext(r.ctx, "the result of a job that has no place here is refused", "host.id", r.host,
			"job.id", models.CleanText(m.JobID, 100), "outcome", models.CleanText(m.Outcome, 20), "snapshot_id", models.CleanText(m.SnapshotID, 64))
	}
	return err
}

// fire turns a due schedule into jobs. What can't be acted on is acknowledged
// and logged: repeating it would change nothing.
func (r *receiver) fire(m protocol.Fire) error {
	log := r.s.Log.With("host.id", r.host, "schedule.id", m.ScheduleID, "scheduled_at", m.ScheduledAt)
	id, err := models.ParseID[models.ScheduleID](m.ScheduleID)
	if err != nil {
		return models.NotFound("schedule of this host", m.ScheduleID)
	}
	schedule, err := models.FindSchedule(r.ctx, r.tx, r.host, id)
	if models.CodeOf(err) == models.ENotFound {
		log.InfoContext(r.ctx, "fire of a schedule that is gone")
		return nil
	}
	if err != nil {
		return err
	}
	if !schedule.Enabled {
		log.InfoContext(r.ctx, "fire of a disabled schedule")
		return nil
	}
	host, err := models.FindHost(r.ctx, r.tx, r.host)
	if err != nil {
		return err
	}
	window := fireWindow + time.Duration(max(host.ClockSkewMS, -host.ClockSkewMS))*time.Millisecond
	if away := time.Since(m.ScheduledAt).Abs(); away > window {
		log.WarnContext(r.ctx, "fire is too far from now", "away", away)
		return nil
	}
	failpoint.Hit(failpoint.Firing)
	made, err := models.RunSchedule(r.ctx, r.tx, models.ScheduledRun{Schedule: schedule, At: m.ScheduledAt.UTC().Truncate(time.Microsecond)})
	for _, job := range made {
		r.hints = append(r.hints, JobTopic(job))
	}
	r.hints = append(r.hints, JobsTopic, HostTopic(r.host), FleetTopic, DispatchTopic(r.host))
	return err
}
