package jobs

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/google/uuid"

	"resticfleet/agent/failpoint"
	"resticfleet/agent/protocol"
	"resticfleet/models"
)

// Link is one session of one agent, whatever carries it. Safe for concurrent
// use.
type Link struct {
	HostID     models.HostID
	Generation int64
	Session    string
	// Repeats says that nothing tells whether what was sent arrived: commands
	// are repeated until they are accepted.
	Repeats bool

	mu           sync.Mutex
	sentSchedule int64 // the newest version sent over this link, -1 for none
	cancelled    map[models.JobID]time.Time
}

// Hello opens a link: it becomes the host's only one, what the agent says of
// itself and of its jobs is settled, and what it returns is to be sent first,
// in order.
func (s *Service) Hello(ctx context.Context, host *models.Host, transport string, hello protocol.Hello) (*Link, []protocol.Envelope, error) {
	received := time.Now()
	link := &Link{
		HostID: host.ID, Session: uuid.NewString(), Repeats: transport == protocol.LinkPolling,
		sentSchedule: -1, cancelled: map[models.JobID]time.Time{},
	}
	var settled *models.Settlement
	cloned := false
	err := models.Tx(ctx, s.DB, func(tx models.IDB) error {
		var err error
		if cloned, err = models.MeetAgent(ctx, tx, host.ID, hello, received); err != nil {
			return err
		}
		if link.Generation, err = models.OpenLink(ctx, tx, host.ID, host.AgentTokenHash, transport, link.Session); err != nil {
			return err
		}
		now, err := models.SaveHello(ctx, tx, host.ID, link.Generation, hello, received)
		if err != nil {
			return err
		}
		if _, err := s.applied(ctx, tx, host.ID, hello.AppliedScheduleVersion, hello.ScheduleDigest, true); err != nil {
			return err
		}
		settled, err = models.Settle(ctx, tx, now, hello.Jobs, models.Patience{Replaced: s.SettleAfter, Cloned: s.LostAfter})
		return err
	})
	if err != nil {
		return nil, nil, err
	}
	failpoint.Hit(failpoint.Settled)
	if _, err := models.AutoInit(ctx, s.DB, host.ID); err != nil {
		return nil, nil, err
	}
	if err := s.CatchUp(ctx, host.ID); err != nil {
		return nil, nil, err
	}
	if cloned {
		s.Log.WarnContext(ctx, "two machines work with the identity of one host: enrol the other one as a host of its own, or enrol this one anew",
			"host.id", host.ID, "instance", hello.Instance, "journal", hello.JournalID)
	}
	ping, poll, err := s.intervals(ctx, link.Repeats)
	if err != nil {
		return nil, nil, err
	}
	s.tellSettled(ctx, host.ID, settled)
	s.Hints.Publish(HostTopic(host.ID), FleetTopic, JobsTopic)

	first := []protocol.Envelope{protocol.Seal(uuid.NewString(), protocol.TypeWelcome, protocol.Welcome{
		Protocol: protocol.Version, Session: link.Session, ServerTime: time.Now().UTC(),
		PingIntervalMS: ping.Milliseconds(), PollIntervalMS: poll.Milliseconds(),
		ScheduleJitterMS: s.ScheduleJitter.Milliseconds(), Jobs: settled.Stored,
	})}
	rest, err := s.Outgoing(ctx, link)
	if err != nil {
		return nil, nil, err
	}
	failpoint.Hit(failpoint.Welcomed)
	first = append(first, rest...)
	return link, append(first, s.cancelMessages(link, settled.Cancels)...), nil
}

// tellSettled tells pages and log what a hello has settled.
func (s *Service) tellSettled(ctx context.Context, host models.HostID, settled *models.Settlement) {
	for _, j := range settled.Changed {
		s.Hints.Publish(JobTopic(j.ID))
	}
	for _, j := range settled.Remade {
		s.Log.WarnContext(ctx, "a job that this database did not know was made again by its agent's word",
			"host.id", host, "job.id", j.ID, "kind", j.Kind, "tag", j.Spec.Tag)
		s.Hints.Publish(JobTopic(j.ID), JobsTopic)
	}
	for _, j := range settled.ToSettle {
		s.Log.WarnContext(ctx, "an agent does not know a job that was sent to its host: the repository is asked what became of it",
			"host.id", host, "job.id", j.ID, "state", j.State, "journal", j.ClaimJournalID)
	}
	for _, j := range settled.Held {
		s.Log.InfoContext(ctx, "a job was sent before this start of its machine, perhaps to another one: it waits for that one's agent before it is sent again",
			"host.id", host, "job.id", j.ID, "until", j.OfferAfter)
	}
	for id, why := range settled.Refused {
		s.Log.WarnContext(ctx, "a job that an agent reports has no place here", "host.id", host, "job.id", id, "reason", why.Error())
	}
}

// applied keeps which schedule set an agent runs. It reports whether the
// agent's memory was ahead of ours, so that the set must go out anew. Nonsense
// is logged and otherwise ignored: a link is worth more.
func (s *Service) applied(ctx context.Context, tx models.IDB, host models.HostID, version int64, digest string, sure bool) (raised bool, err error) {
	raised, err = models.ApplySchedule(ctx, tx, host, version, digest, sure)
	switch {
	case models.CodeOf(err) == models.EInvalid:
		s.Log.WarnContext(ctx, "an agent's schedule version is ignored", "host.id", host, "err", err)
		return false, nil
	case raised:
		s.Log.WarnContext(ctx, "an agent's schedule set is not of this database, which was put back in time: it gets a newer one",
			"host.id", host, "version", version, "digest", digest)
	}
	return raised, err
}

// SawSchedule hears that an agent has seen a schedule version above ours; see
// models.PassSchedule.
func (s *Service) SawSchedule(ctx context.Context, host models.HostID, version int64) error {
	raised, err := models.PassSchedule(ctx, s.DB, host, version)
	switch {
	case err != nil:
		return err
	case !raised:
		s.Log.WarnContext(ctx, "an agent's schedule version is ignored", "host.id", host, "version", version)
		return nil
	}
	s.Log.WarnContext(ctx, "an agent's schedule set is not of this database, which was put back in time: it gets a newer one",
		"host.id", host, "version", version)
	s.HostChanged(host)
	return nil
}

// Resume goes on with a host's polling link, perhaps one that was opened on
// another server: it is told again what it has not applied.
func (s *Service) Resume(host *models.Host) *Link {
	return &Link{
		HostID: host.ID, Generation: host.LinkGeneration, Session: host.LinkSession, Repeats: true,
		sentSchedule: host.AppliedScheduleVersion, cancelled: map[models.JobID]time.Time{},
	}
}

// Outgoing is everything that should go down this link now: the schedule set
// if it moved, cancels, jobs offered again, and jobs claimed by this call. A
// claim is committed before its message exists. ErrSuperseded ends the link.
func (s *Service) Outgoing(ctx context.Context, link *Link) ([]protocol.Envelope, error) {
	var out []protocol.Envelope
	set, err := models.ScheduleSet(ctx, s.DB, link.HostID)
	if err != nil {
		return nil, err
	}
	if link.newSchedule(set.Version) {
		out = append(out, protocol.Seal(fmt.Sprintf("schedule-%d", set.Version), protocol.TypeScheduleSet, set))
	}
	cancels, err := models.CancelsFor(ctx, s.DB, link.HostID)
	if err != nil {
		return nil, err
	}
	after := s.OfferAgain
	if link.Repeats {
		after = 0
	}
	again, err := models.Reoffer(ctx, s.DB, link.HostID, link.Generation, after)
	if err != nil {
		return nil, err
	}
	link.repeatCancels(again)
	for _, j := range again {
		failpoint.Hit(failpoint.Offered)
		out = s.appendCommand(ctx, out, j)
	}
	for {
		j, err := models.Claim(ctx, s.DB, link.HostID, link.Generation)
		if err != nil {
			return nil, err
		}
		if j == nil {
			break
		}
		failpoint.Hit(failpoint.Claimed)
		s.Hints.Publish(JobTopic(j.ID), JobsTopic, HostTopic(j.HostID))
		out = s.appendCommand(ctx, out, j)
	}
	// After the commands: the agent must know a job before it can end it.
	return append(out, s.cancelMessages(link, cancels)...), nil
}

// cancelMessages are the cancels that this link has not been told, or perhaps
// has not heard.
func (s *Service) cancelMessages(link *Link, ids []models.JobID) []protocol.Envelope {
	link.mu.Lock()
	defer link.mu.Unlock()
	var out []protocol.Envelope
	for _, id := range ids {
		if told, ok := link.cancelled[id]; ok && (!link.Repeats || time.Since(told) < s.OfferAgain) {
			continue
		}
		link.cancelled[id] = time.Now()
		out = append(out, protocol.Seal("cancel-"+id.String(), protocol.TypeCancel, protocol.Cancel{JobID: id.String()}))
	}
	return out
}

// repeatCancels forgets the cancels of jobs that are offered again: an agent
// that never had the command has not heeded its cancel either.
func (l *Link) repeatCancels(offered []*models.Job) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, j := range offered {
		delete(l.cancelled, j.ID)
	}
}

// Applied says which version the agent runs: a newer one is sent again.
func (l *Link) Applied(version int64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.sentSchedule = version
}

// newSchedule reports whether this version has to be sent, and takes it as
// sent.
func (l *Link) newSchedule(version int64) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if version == l.sentSchedule || (version < l.sentSchedule && !l.Repeats) {
		return false
	}
	l.sentSchedule = version
	return true
}

// appendCommand puts a claimed job into words. One that can't be is ended here
// and now, so that it doesn't stand in the others' way: as failed, or as lost
// where its agent may have it already.
func (s *Service) appendCommand(ctx context.Context, out []protocol.Envelope, j *models.Job) []protocol.Envelope {
	run, err := s.command(ctx, j)
	if err == nil {
		id := fmt.Sprintf("run-%s-%d", j.ID, j.Attempt)
		if run.Settle {
			id = "settle-" + j.ID.String()
		}
		m := protocol.Seal(id, protocol.TypeRun, run)
		if err = fits(m, j.Kind); err == nil {
			return append(out, m)
		}
	}
	s.Log.ErrorContext(ctx, "command can't be sent", "job.id", j.ID, "host.id", j.HostID, "err", err)
	why, code := "The server could not prepare this job: its own log says why. Mend that, then run it again.", protocol.ErrNoSecrets
	var e *models.Error
	if errors.As(err, &e) {
		why = e.Error()
	}
	switch {
	case errors.Is(err, errOtherRepository):
		code = models.CodeOtherRepository
	case models.CodeOf(err) == models.EInvalid:
		code = protocol.ErrInvalidCommand
	}
	switch {
	case j.SettleAfter != nil:
		err = models.GiveUp(ctx, s.DB, j.ID, models.CodeJournalLost,
			"The agent's state directory was replaced or rolled back since this job was sent, and its repository can't be asked what became of it: "+why)
	case j.Doubtful:
		err = models.GiveUp(ctx, s.DB, j.ID, code, why+" It was sent before, and the host may have it all the same: then its result replaces this.")
	default:
		err = models.FailUnsendable(ctx, s.DB, j.ID, code, why)
	}
	if err != nil {
		s.Log.ErrorContext(ctx, "job can't be ended", "job.id", j.ID, "err", err)
	}
	s.wakeWaiting(ctx, j)
	return out
}

// errOtherRepository is of a job that was claimed for the repository that its
// host had before: it would run outside the new one's gate.
var errOtherRepository = models.Conflict("The host has another repository now, and this job was for the former one. If it is wanted there too, run it again.")

// fits refuses what is larger than a frame: the agent would end its link at it,
// and again at every offer.
func fits(m protocol.Envelope, kind models.JobKind) error {
	frame, err := json.Marshal(m)
	if err != nil || len(frame) <= protocol.MaxFrame {
		return err
	}
	smaller := "Shorten the source group's lists of includes and excludes"
	if kind == models.KindForget {
		smaller = "Let go of snapshots that are held, or shorten the lists of tags that the policies keep"
	}
	return &models.Error{Code: models.EInvalid, Message: fmt.Sprintf(
		"The command for the agent would be %d KiB, and an agent takes %d KiB at once. %s, then run this again.", (len(frame)+1023)>>10, protocol.MaxFrame>>10, smaller)}
}

// command is what an agent needs to run a job; credentials are added here, at
// sending, sealed to the agent's key.
func (s *Service) command(ctx context.Context, j *models.Job) (protocol.Run, error) {
	host, err := models.FindHost(ctx, s.DB, j.HostID)
	if err != nil {
		return protocol.Run{}, err
	}
	repo, err := models.FindRepository(ctx, s.DB, j.HostID)
	if err != nil {
		return protocol.Run{}, err
	}
	run := protocol.Run{
		JobID: j.ID.String(), Kind: string(j.Kind), Attempt: j.Attempt, ResticHost: host.ResticHost,
		Repository: protocol.Repository{URL: repo.URL, ID: repo.ResticID},
		Tag:        j.Spec.Tag, Settle: j.SettleAfter != nil,
	}
	switch {
	case run.Settle && !j.InItsRepository(repo):
		return protocol.Run{}, models.Conflict("The host has another repository now. Look in the former one whether a snapshot was made.")
	case !j.InItsRepository(repo):
		return protocol.Run{}, errOtherRepository
	case !run.Settle:
		run.Includes, run.Excludes = j.Spec.Includes, j.Spec.Excludes
		run.Forget, run.SnapshotIDs, run.Preview = j.Spec.Forget, j.Spec.SnapshotIDs, j.Spec.Preview
		run.ReadDataSubset = j.Spec.ReadDataSubset
	}
	if j.Kind == models.KindForget {
		// Read now, not when the job was made: what was held meanwhile stays.
		if run.Held, err = models.HeldSnapshots(ctx, s.DB, j.HostID); err != nil {
			return protocol.Run{}, err
		}
		if len(run.SnapshotIDs) > 0 {
			held := run.Held
			run.Held = slices.DeleteFunc(slices.Clone(run.SnapshotIDs), func(id string) bool {
				_, is := slices.BinarySearch(held, id)
				return !is
			})
		}
	}
	if j.SourceGroupID != nil && !run.Settle {
		run.Retention = &j.Spec.Retention
		if run.Parent, err = models.NewestSnapshot(ctx, s.DB, *j.SourceGroupID); err != nil {
			return protocol.Run{}, err
		}
	}
	if len(host.PublicKey) == 0 {
		return run, nil // an agent without a key gets no secrets, and says so
	}
	kind := j.Kind
	if run.Settle {
		kind = models.KindSnapshots // it looks, whatever the job was to do
	}
	var secrets protocol.Secrets
	run.Repository.URL, run.Repository.Maintenance, secrets, err = repo.SecretsFor(kind, s.Sealer)
	if err != nil {
		return protocol.Run{}, err
	}
	run.Repository.Sealed, err = protocol.SealSecrets(host.PublicKey, run.JobID, secrets)
	return run, err
}
