package models

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/uptrace/bun"
)

// Claim takes the next job that may leave for a host: it is a row before it is
// a message. Nil means that nothing may go now. ErrSuperseded means that the
// link is not the host's newest any more.
//
// A host's jobs are looked at in the order of asking. What waits: everything
// behind the host's init; a backup while the host's other one runs, or exclusive
// work runs or waits in the repository, of a host that is there; exclusive work
// while anything runs in the repository, or older exclusive work waits. So
// exclusive work begins within one backup's length, however many backups wait.
// A chain of it can't hold those back for ever: backups that one has overtaken
// go before the next. An init waits for nothing that waits, and its overtaking
// doesn't count. The look below is a courtesy; what decides between two servers
// is the constraint jobs_gate.
func Claim(ctx context.Context, db *DB, host HostID, generation int64) (*Job, error) {
	var claimed *Job
	err := Tx(ctx, db, func(tx IDB) error {
		claimed = nil
		if err := HoldGeneration(ctx, tx, host, generation); err != nil {
			return err
		}
		h, err := FindHost(ctx, tx, host)
		if err != nil {
			return err
		}
		open, err := OpenJobs(ctx, tx, host)
		if err != nil || !slices.ContainsFunc(open, func(j *Job) bool { return j.State == JobQueued }) {
			return err
		}
		repo, err := holdPlace(ctx, tx, host)
		if err != nil {
			return err
		}
		for _, j := range open {
			if j.State != JobQueued {
				continue
			}
			if repo == nil {
				if err := failUnbound(ctx, tx, j); err != nil {
					return err
				}
				continue
			}
			if j.Kind.owned() && repo.OwnerHostID != nil && *repo.OwnerHostID != host {
				// It was asked for just when its repository got another owner.
				if _, err := endElsewhere(ctx, tx, "j.id = ?", j.ID); err != nil {
					return fmt.Errorf("claim: %w", err)
				}
				continue
			}
			free, err := mayLeave(ctx, tx, h, repo, j, open)
			if err != nil {
				return err
			}
			if !free {
				continue
			}
			if claimed, err = take(ctx, tx, h, repo, j, generation); claimed != nil || err != nil {
				return err
			}
		}
		return nil
	})
	// Another server's claim came between the look and the take.
	if violated(err, pgExclusionViolation, "jobs_gate") {
		return nil, nil
	}
	return claimed, err
}

// holdPlace reads a host's repository, nil for none, and keeps its address in it
// until the transaction ends: while somebody learns that it leads to another, its
// gate is not known. What was made just then waits in the repository before, where
// nobody asks for it; it waits here from now on.
func holdPlace(ctx context.Context, tx IDB, host HostID) (*HostRepository, error) {
	_, err := tx.ExecContext(ctx, "select from repository_urls where url = (select url_key from host_repositories where host_id = ?) for share", host)
	if err != nil {
		return nil, fmt.Errorf("claim: %w", err)
	}
	repo, err := FindRepository(ctx, tx, host)
	if CodeOf(err) == ENotFound {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	_, err = tx.ExecContext(ctx, "update jobs set repository_id = ? where host_id = ? and state = 'queued' and repository_id is distinct from ?",
		repo.RepositoryID, host, repo.RepositoryID)
	if err != nil {
		return nil, fmt.Errorf("claim: %w", err)
	}
	return repo, nil
}

func failUnbound(ctx context.Context, tx IDB, j *Job) error {
	ended := &Job{}
	err := tx.NewRaw(`update jobs set state = 'failed', finished_at = now(), error_code = ?,
		error = 'The host has no repository any more. Set one up on the host''s page, then run this again.' where id = ? and state = 'queued' returning *`, CodeNoRepositoryBound, j.ID).Scan(ctx, ended)
	if isNoRows(err) {
		return nil // cancelled since the look
	}
	if err != nil {
		return fmt.Errorf("claim: %w", err)
	}
	return keepMaintenance(ctx, tx, ended)
}

// beside is how many jobs that need no gate may run on a host at once.
const beside = 2

func mayLeave(ctx context.Context, tx IDB, h *Host, repo *HostRepository, j *Job, open []*Job) (bool, error) {
	running := 0
	for _, other := range open {
		if other.Kind == KindInit && other.ID != j.ID && (other.State != JobQueued || j.Kind != KindInit) {
			return false, nil
		}
		if other.State != JobQueued && !other.Kind.gated() {
			running++
		}
	}
	if !j.Kind.gated() {
		return running < beside, nil
	}
	var blocked bool
	// A lost job that came back, or one that was made again from its agent's
	// memory, has no gate: it counts all the same.
	err := tx.QueryRowContext(ctx, `select exists (
			select from jobs where gate && ?::int8range
		) or exists (
			select from jobs where state in ('sent', 'running') and gate is null and not `+setAside+` and repository_id = ? and id <> ?
				and (kind in ('init', 'prune', 'check', 'forget') or (kind = 'backup' and (? or host_id = ?)))
		) or (? and exists (
			select from jobs w join hosts h on h.id = w.host_id
			where `+waiting+` and w.repository_id = ? and w.kind in ('init', 'prune', 'check', 'forget') and ?
		)) or (? and exists (
			select from jobs w join hosts h on h.id = w.host_id
			where `+waiting+` and w.repository_id = ? and ?
				and ((w.kind = 'backup' and w.overtaken) or (w.kind in ('prune', 'check', 'forget') and w.id < ?))
				and not exists (select from jobs i where i.host_id = w.host_id and i.kind = 'init' and i.state in ('queued', 'sent', 'running'))
		))`,
		gate(repo.RepositoryID, h.No, j.Kind), repo.RepositoryID, j.ID, j.Kind.exclusive(), h.ID,
		j.Kind == KindBackup && !j.Overtaken, repo.RepositoryID, hostLinked,
		j.Kind.overtakes(), repo.RepositoryID, hostLinked, j.ID).Scan(&blocked)
	if err != nil {
		return false, fmt.Errorf("claim: %w", err)
	}
	return !blocked, nil
}

// setAside is SQL for a job that was sent to a host which then fell silent, and
// that may have arrived or not: it holds nobody back, see EndSilent. It waits like
// a queued one and takes its gate again before it is offered again.
const setAside = "(state = 'sent' and accepted_at is null and offered_at is null and settle_after is null)"

// waiting is SQL for a job that waits for its gate.
const waiting = "(state = 'queued' or " + setAside + ") and state in ('queued', 'sent')"

// gate is the range a job takes: its host's point for a backup, the whole of
// its repository for exclusive work.
func gate(repository, hostNo int32, kind JobKind) string {
	base := int64(repository) << 32
	if kind.exclusive() {
		return fmt.Sprintf("[%d,%d)", base, base+1<<32)
	}
	return fmt.Sprintf("[%d,%d]", base+int64(hostNo), base+int64(hostNo))
}

// take is nil for a job that was cancelled since the look.
func take(ctx context.Context, tx IDB, h *Host, repo *HostRepository, j *Job, generation int64) (*Job, error) {
	var taken *string
	if j.Kind.gated() {
		s := gate(repo.RepositoryID, h.No, j.Kind)
		taken = &s
	}
	claimed := &Job{}
	err := tx.NewRaw(`update jobs set state = 'sent', sent_at = now(), offered_at = now(), attempt = attempt + 1,
			claim_generation = ?, claim_journal_id = ?, claim_instance = ?, repository_id = ?, repository_url = ?, gate = ?::int8range
		where id = ? and state = 'queued' returning *`,
		generation, h.JournalID, h.AgentInstance, repo.RepositoryID, repo.URL, taken, j.ID).Scan(ctx, claimed)
	if isNoRows(err) {
		return nil, nil
	}
	if err == nil {
		err = overtake(ctx, tx, repo, j)
	}
	if err != nil {
		return nil, fmt.Errorf("claim: %w", err)
	}
	return claimed, nil
}

// overtake marks the backups that wait while a job goes before them.
func overtake(ctx context.Context, tx IDB, repo *HostRepository, j *Job) error {
	if !j.Kind.overtakes() {
		return nil
	}
	_, err := tx.ExecContext(ctx, "update jobs set overtaken = true where "+waiting+" and repository_id = ? and kind = 'backup' and not overtaken", repo.RepositoryID)
	return err
}

// Reoffer returns the claimed jobs that the agent has not accepted and that are
// not left to another (OfferAfter), and those that it is to be asked about
// (SettleAfter), that were last offered over an older link, or longer ago than
// after, and marks them as offered now. Once a job went to several agents it
// belongs to none. One is Doubtful unless the link's hello came after the last
// offer: that would have named it.
func Reoffer(ctx context.Context, db *DB, host HostID, generation int64, after time.Duration) ([]*Job, error) {
	var jobs []*Job
	err := Tx(ctx, db, func(tx IDB) error {
		jobs = nil
		if err := HoldGeneration(ctx, tx, host, generation); err != nil {
			return err
		}
		if err := takeAgain(ctx, tx, host); err != nil {
			return err
		}
		err := tx.NewRaw(`with was as (select id, claim_generation = ?0 or offer_after is not null as doubtful from jobs
				where host_id = ?1 and (settle_after <= now() or `+toOffer+`) and not `+setAside+`
					and (claim_generation <> ?0 or offered_at < now() - ?2::interval) order by id for no key update)
			update jobs j set offered_at = now(), claim_generation = ?0,
				claim_instance = case when claim_instance = (select agent_instance from hosts where id = host_id) then claim_instance else '' end
			from was where j.id = was.id returning j.*, was.doubtful`, generation, host, interval(after)).Scan(ctx, &jobs)
		if err != nil {
			return fmt.Errorf("offer again: %w", err)
		}
		return nil
	})
	// Another server's claim came between the look and the take.
	if violated(err, pgExclusionViolation, "jobs_gate") {
		return nil, nil
	}
	return jobs, err
}

// takeAgain gives those of a host's jobs that were set aside their gates again,
// by the rules of a claim. One that was for another repository needs none: it
// won't be sent.
func takeAgain(ctx context.Context, tx IDB, host HostID) error {
	var aside []*Job
	err := tx.NewSelect().Model(&aside).Where("host_id = ? and "+setAside+" and "+toOffer, host).OrderExpr("id").Scan(ctx)
	if err != nil {
		return fmt.Errorf("offer again: %w", err)
	}
	if len(aside) == 0 {
		return nil
	}
	h, err := FindHost(ctx, tx, host)
	if err != nil {
		return err
	}
	repo, err := holdPlace(ctx, tx, host)
	if err != nil {
		return err
	}
	open, err := OpenJobs(ctx, tx, host)
	if err != nil {
		return err
	}
	for _, j := range aside {
		in, taken := j.RepositoryID, (*string)(nil)
		if repo != nil && j.InItsRepository(repo) {
			free, err := mayLeave(ctx, tx, h, repo, j, open)
			if err != nil {
				return err
			}
			if !free {
				continue
			}
			s := gate(repo.RepositoryID, h.No, j.Kind)
			in, taken = &repo.RepositoryID, &s
			if err := overtake(ctx, tx, repo, j); err != nil {
				return fmt.Errorf("offer again: %w", err)
			}
		}
		_, err := tx.ExecContext(ctx, "update jobs set gate = ?::int8range, repository_id = ?, offered_at = 'epoch' where id = ? and "+setAside, taken, in, j.ID)
		if err != nil {
			return fmt.Errorf("offer again: %w", err)
		}
	}
	return nil
}

// CancelsFor returns the jobs of a host that the agent has and should end.
func CancelsFor(ctx context.Context, db IDB, host HostID) ([]JobID, error) {
	var ids []JobID
	err := db.NewRaw("select id from jobs where host_id = ? and state in ('sent', 'running') and cancel_requested_at is not null", host).Scan(ctx, &ids)
	if err != nil {
		return nil, fmt.Errorf("cancels: %w", err)
	}
	return ids, nil
}

// toOffer is SQL for a job that waits for its agent's acceptance and is not left
// to another one, or to be settled.
const toOffer = "(settle_after is null and state = 'sent' and accepted_at is null and (offer_after <= now() or offer_after is null))"

// HostsWithWork returns those of the given hosts that have something to be
// sent: the slow look that stands behind every hint.
func HostsWithWork(ctx context.Context, db IDB, linked []HostID) ([]HostID, error) {
	var ids []HostID
	if len(linked) == 0 {
		return nil, nil
	}
	err := db.NewRaw(`select host_id from jobs where host_id in (?) and (state = 'queued' or `+toOffer+` or (state in ('sent', 'running') and cancel_requested_at is not null))
		union
		select host_id from jobs where host_id in (?) and settle_after <= now()
		union
		select id from hosts where id in (?) and schedule_version <> applied_schedule_version`,
		bun.List(linked), bun.List(linked), bun.List(linked)).Scan(ctx, &ids)
	if err != nil {
		return nil, fmt.Errorf("hosts with work: %w", err)
	}
	return ids, nil
}

// HostsWaitingFor returns the hosts whose jobs wait for a repository's gate.
func HostsWaitingFor(ctx context.Context, db IDB, repository int32) ([]HostID, error) {
	var ids []HostID
	err := db.NewRaw("select distinct host_id from jobs where "+waiting+" and repository_id = ?", repository).Scan(ctx, &ids)
	if err != nil {
		return nil, fmt.Errorf("hosts waiting: %w", err)
	}
	return ids, nil
}
