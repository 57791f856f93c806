package models

import (
	"context"
	"fmt"
	"time"

	"github.com/google/uuid"

	"resticfleet/agent/protocol"
)

// remakeJob makes the row of a job that an agent has and that this database
// never had or has no more: it was restored from an older copy. The row keeps
// the job's id and stands where the agent says it does, so that its log and
// result are stored like any other's. It holds no gate, since the work is under
// way already; mayLeave counts it all the same.
//
// ENotFound when there is nothing to make: the job is another host's, or what
// the agent says doesn't tell what it was.
func remakeJob(ctx context.Context, tx IDB, host *Host, r protocol.HelloJob) (*Job, error) {
	id, err := ParseID[JobID](r.JobID)
	if err != nil {
		return nil, unknownJob(r.JobID)
	}
	var taken bool
	if err := tx.QueryRowContext(ctx, "select exists (select from jobs where id = ?)", id).Scan(&taken); err != nil {
		return nil, fmt.Errorf("remake job: %w", err)
	}
	if taken {
		return nil, &Error{Code: ENotFound, Message: "The job belongs to another host."}
	}
	j := &Job{
		ID: id, HostID: host.ID, Kind: JobKind(r.Kind), State: JobQueued, ActorKind: ActorSystem,
		Attempt: 1, ClaimGeneration: host.LinkGeneration, ClaimJournalID: host.JournalID, ClaimInstance: host.AgentInstance,
	}
	if !j.Kind.known() {
		return nil, &Error{Code: ENotFound, Message: "This database knows nothing of the job, and its agent doesn't tell what kind it is: update the agent."}
	}
	if j.Kind == KindBackup {
		tag := CleanText(r.Tag, 400)
		g, err := groupOfTag(ctx, tx, host.ID, tag)
		if err != nil {
			return nil, err
		}
		// What ran is not known; what makes its snapshot a good one is.
		j.SourceGroupID, j.SourceGroupName = &g.ID, g.Name
		j.Spec = JobSpec{Tag: tag, MinFiles: g.MinFiles, MinBytes: g.MinBytes}
	}
	if j.Kind == KindSnapshots {
		// Whether it lists or tells a policy's plan is not known. As a plan that
		// nobody waits for it changes no list.
		j.Spec.Preview = &protocol.ForgetGroup{}
	}
	if err := j.remakeRepository(ctx, tx); err != nil {
		return nil, err
	}
	j.remakeTimes(host, r)
	if err := insertJob(ctx, tx, j); err != nil {
		return nil, err
	}
	j.State = JobSent
	if r.State == protocol.JobRunning {
		j.State = JobRunning
	}
	if _, err := tx.ExecContext(ctx, "update jobs set state = ? where id = ?", j.State, j.ID); err != nil {
		return nil, fmt.Errorf("remake job: %w", err)
	}
	if j.Kind == KindSnapshots {
		return j, listAnew(ctx, tx, host)
	}
	return j, nil
}

// groupOfTag finds the group that has or had a tag, deleted ones too.
func groupOfTag(ctx context.Context, tx IDB, host HostID, tag string) (*Group, error) {
	g := &Group{}
	err := tx.NewSelect().Model(g).Where("id = (select source_group_id from source_group_tags where host_id = ? and tag = ?)", host, tag).Scan(ctx)
	if isNoRows(err) {
		return nil, &Error{Code: ENotFound, Message: fmt.Sprintf("This database knows nothing of the job, and no source group of the host ever had its tag %q.", tag)}
	}
	if err != nil {
		return nil, fmt.Errorf("group of tag: %w", err)
	}
	return g, nil
}

// remakeRepository takes the repository that the host has now for the job's. An
// init leaves out the address where another init of it is on record: there is
// one system init per host and address.
func (j *Job) remakeRepository(ctx context.Context, tx IDB) error {
	repo, err := FindRepository(ctx, tx, j.HostID)
	if CodeOf(err) == ENotFound {
		return nil
	}
	if err != nil {
		return err
	}
	j.RepositoryID, j.RepositoryURL = &repo.RepositoryID, repo.URL
	if j.Kind != KindInit {
		return nil
	}
	var another bool
	err = tx.QueryRowContext(ctx, `select exists (select from jobs where host_id = ? and repository_url = ? and kind = 'init'
		and actor_kind = 'system' and (accepted_at is not null or state in ('queued', 'sent')))`, j.HostID, repo.URL).Scan(&another)
	if err != nil {
		return fmt.Errorf("remake job: %w", err)
	}
	if another {
		j.RepositoryURL = ""
	}
	return nil
}

// remakeTimes takes the time of asking from the id, which has it from our
// clock, and the others from the agent's.
func (j *Job) remakeTimes(host *Host, r protocol.HelloJob) {
	now := time.Now().UTC()
	within := func(t, from time.Time) time.Time {
		switch {
		case t.After(now):
			return now
		case t.Before(from):
			return from
		}
		return t
	}
	corrected := func(t time.Time, otherwise, from time.Time) *time.Time {
		if said := known(t); said != nil {
			otherwise = said.Add(-time.Duration(host.ClockSkewMS) * time.Millisecond).UTC()
		}
		otherwise = within(otherwise, from)
		return &otherwise
	}
	j.QueuedAt = *corrected(r.AcceptedAt, now, time.Time{})
	if id := uuid.UUID(j.ID); id.Version() == 7 {
		j.QueuedAt = within(time.Unix(id.Time().UnixTime()).UTC(), time.Unix(0, 0))
	}
	j.AcceptedAt = corrected(r.AcceptedAt, j.QueuedAt, j.QueuedAt)
	j.SentAt = j.AcceptedAt
	if r.State == protocol.JobRunning {
		j.StartedAt = corrected(r.StartedAt, *j.AcceptedAt, *j.AcceptedAt)
	}
}
