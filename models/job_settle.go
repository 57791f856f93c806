package models

import (
	"context"
	"fmt"
	"time"
)

// settleProtocol is the protocol version from which on agents can be asked what
// the repository knows of a job.
const settleProtocol = 2

// unknownFor is how long a job that was given up for its host's silence may be
// asked about when the host is back.
const unknownFor = 30 * 24 * time.Hour

// Patience is how long the agent that a job was sent to may be out of sight
// before another one that speaks for its host is asked about the job, or told
// to run it.
type Patience struct {
	// Replaced is for an agent that another one took over from: it may be a
	// second machine, and then it comes back.
	Replaced time.Duration
	// Cloned is for an agent that is known to come back.
	Cloned time.Duration
}

// unreported settles the jobs that were sent to the host's agent and that its
// hello doesn't name. One that was never accepted, and was claimed under the
// same journal, is offered again: at once to an agent of the same boot. After
// another boot that journal may be on two disks, and the job with the agent on
// the other one, which is given the time to come back for it: a machine that was
// only started anew has its job later, and of two that are as like as an image
// can make them only one has it. Any other may have run where nobody remembers
// it (on a disk that was replaced or rolled back, on another machine with the
// same identity), so that it is never run again: what became of it is asked of
// the repository. An agent that can't ask leaves it lost.
func (s *Settlement) unreported(ctx context.Context, tx IDB, host *Host, known map[JobID]bool, p Patience) error {
	var jobs []*Job
	err := tx.NewSelect().Model(&jobs).Where(`host_id = ? and (state in ('sent', 'running')
			or (state = 'lost' and error_code = ? and finished_at > now() - ?::interval)
			or (state = 'expired' and sent_at is not null and claim_journal_id <> ? and finished_at > now() - ?::interval))`,
		host.ID, CodeHostSilent, interval(unknownFor), host.JournalID, interval(unknownFor)).OrderExpr("id desc").Limit(500).Scan(ctx)
	if err != nil {
		return fmt.Errorf("settle: %w", err)
	}
	speaks, former, err := agentsOf(ctx, tx, host)
	if err != nil {
		return err
	}
	now := time.Now()
	patience := p.Replaced
	if host.Cloned(now) {
		patience = p.Cloned
	}
	var lost []*Job
	for _, j := range jobs {
		may := holders(former, j)
		switch {
		case known[j.ID]:
			continue
		case !j.State.Ended() && j.AcceptedAt == nil && j.ClaimJournalID == host.JournalID && (!host.Cloned(now) || j.ClaimInstance == host.AgentInstance):
			err = s.leave(ctx, tx, j, comeBack(speaks.elsewhere(may), p.Replaced, now), now)
		case host.AgentProtocol >= settleProtocol:
			_, err = tx.ExecContext(ctx, "update jobs set settle_after = ? where id = ?", comeBack(may, patience, now), j.ID)
			s.ToSettle = append(s.ToSettle, j)
		case !j.State.Ended():
			err = tx.NewRaw(`update jobs set state = 'lost', finished_at = now(), error_code = ?, error = ? where id = ? returning *`,
				CodeJournalLost, "The agent's state directory was replaced or rolled back since this job was sent: it no longer knows the job, and whether it ran can't be told. "+
					"Look whether a snapshot was made, then run it again. A newer agent would ask the repository by itself.", j.ID).Scan(ctx, j)
			lost = append(lost, j)
		}
		if err != nil {
			return fmt.Errorf("settle: %w", err)
		}
	}
	s.Changed = append(s.Changed, lost...)
	return keepLost(ctx, tx, lost)
}

// leave leaves a job to Reoffer, from a time on. Perhaps it was to be settled
// while another agent spoke.
func (s *Settlement) leave(ctx context.Context, tx IDB, j *Job, from, now time.Time) error {
	j.OfferAfter = nil
	if from.After(now) {
		j.OfferAfter = &from
		s.Held = append(s.Held, j)
	}
	_, err := tx.ExecContext(ctx, "update jobs set settle_after = null, offer_after = ? where id = ? and (settle_after is not null or offer_after is distinct from ?)",
		j.OfferAfter, j.ID, j.OfferAfter)
	return err
}

// taken keeps that the agent of this hello has a job; see JobAccepted.
func taken(ctx context.Context, tx IDB, host *Host, id JobID) error {
	_, err := tx.ExecContext(ctx, `update jobs set claim_generation = ?, claim_journal_id = ?, claim_instance = ?, settle_after = null, offer_after = null,
		accepted_at = coalesce(accepted_at, case when settle_after is not null then sent_at end) where id = ?`,
		host.LinkGeneration, host.JournalID, host.AgentInstance, id)
	if err != nil {
		return fmt.Errorf("settle: %w", err)
	}
	return nil
}

// GiveUp leaves a claimed job lost that can be neither sent nor asked about. Its
// agent's word still replaces that.
func GiveUp(ctx context.Context, db *DB, id JobID, code, why string) error {
	return Tx(ctx, db, func(tx IDB) error {
		_, err := tx.ExecContext(ctx, "update jobs set settle_after = null where id = ?", id)
		var lost []*Job
		if err == nil {
			err = tx.NewRaw(`update jobs set state = 'lost', finished_at = now(), error_code = ?, error = ?
				where id = ? and state in ('sent', 'running') returning *`, code, why, id).Scan(ctx, &lost)
		}
		if err != nil {
			return fmt.Errorf("give up job: %w", err)
		}
		return keepLost(ctx, tx, lost)
	})
}

// InItsRepository reports whether a job worked in this repository, as far as
// that is known.
func (j *Job) InItsRepository(repo *HostRepository) bool {
	return j.RepositoryID == nil || *j.RepositoryID == repo.RepositoryID || j.RepositoryURL == repo.URL
}
