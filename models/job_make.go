package models

import (
	"context"
	"fmt"
	"time"

	"github.com/uptrace/bun"

	"resticfleet/agent/protocol"
)

// RunGroup makes a backup job of a group for a person. A job of the group that
// still waits, never sent, is that job, refreshed from the group; beside a
// running one, one may wait.
func RunGroup(ctx context.Context, db *DB, host HostID, id GroupID, actor Actor) (*Job, error) {
	var made JobID
	err := Tx(ctx, db, func(tx IDB) error {
		if _, err := lockHost(ctx, tx, host); err != nil {
			return err
		}
		g, err := lockGroup(ctx, tx, host, id)
		if err != nil {
			return err
		}
		repo, err := FindRepository(ctx, tx, host)
		if CodeOf(err) == ENotFound {
			return Conflict("This host has no repository yet. Set one up, then run “%s”.", g.Name)
		}
		if err != nil {
			return err
		}
		err = tx.NewRaw("update jobs set spec = ?, source_group_name = ? where source_group_id = ? and kind = 'backup' and state = 'queued' returning id",
			jsonb{g.spec()}, g.Name, id).Scan(ctx, &made)
		if err == nil || !isNoRows(err) {
			return err
		}
		j := g.backup(actor)
		j.RepositoryID = &repo.RepositoryID
		made = j.ID
		return insertJob(ctx, tx, j)
	})
	if err != nil {
		return nil, err
	}
	return FindJob(ctx, db, made)
}

// ScheduledRun is one due time of a schedule.
type ScheduledRun struct {
	Schedule *Schedule
	At       time.Time
	CatchUp  bool
}

// RunSchedule makes one backup job per source group of a due schedule. The
// same (schedule, due time, group) never makes a second job, whoever reports
// it; a group whose last backup has not ended gets a skipped one with the
// reason. It returns the jobs made by this call.
func RunSchedule(ctx context.Context, tx IDB, run ScheduledRun) ([]JobID, error) {
	s := run.Schedule
	repo, err := FindRepository(ctx, tx, s.HostID)
	if err != nil && CodeOf(err) != ENotFound {
		return nil, err
	}
	made := []JobID{}
	for _, id := range s.GroupIDs {
		g, err := lockGroup(ctx, tx, s.HostID, id)
		if CodeOf(err) == ENotFound {
			continue // deleted since
		}
		if err != nil {
			return nil, err
		}
		by := ActorID(s.ID)
		j := g.backup(Actor{Kind: ActorSchedule, ID: &by})
		j.ScheduledID, j.ScheduledAt, j.CatchUp = &s.ID, &run.At, run.CatchUp
		var busy bool
		err = tx.QueryRowContext(ctx, "select exists (select from jobs where source_group_id = ? and kind = 'backup' and state in ('queued', 'sent', 'running'))", id).Scan(&busy)
		if err != nil {
			return nil, fmt.Errorf("run schedule: %w", err)
		}
		switch {
		case repo == nil:
			j.skip(CodeNoRepositoryBound, "The host had no repository when this was due. Set one up on the host's page.")
		case busy:
			j.skip(CodeStillBusy, "The backup before it had not ended yet. If that happens often, run this schedule less often or split the group.")
		}
		if repo != nil {
			j.RepositoryID = &repo.RepositoryID
		}
		res, err := tx.NewInsert().Model(j).ExcludeColumn("stats", "unreadable").On("conflict on constraint jobs_once do nothing").Returning("").Exec(ctx)
		if err != nil {
			return nil, fmt.Errorf("run schedule: %w", err)
		}
		if n, _ := res.RowsAffected(); n > 0 {
			made = append(made, j.ID)
		}
	}
	return made, nil
}

func (j *Job) skip(code, why string) {
	at := time.Now().UTC()
	j.State, j.ErrorCode, j.Error, j.FinishedAt = JobSkipped, code, why, &at
}

func lockGroup(ctx context.Context, tx IDB, host HostID, id GroupID) (*Group, error) {
	g := &Group{}
	err := tx.NewSelect().Model(g).Where("id = ? and host_id = ? and archived_at is null", id, host).For("no key update").Scan(ctx)
	if isNoRows(err) {
		return nil, NotFound("source group", id.String())
	}
	if err != nil {
		return nil, fmt.Errorf("lock source group: %w", err)
	}
	return g, nil
}

func (g *Group) spec() JobSpec {
	return JobSpec{
		Includes: g.Includes, Excludes: g.Excludes, Tag: g.Tag, Retention: g.Retention,
		MinFiles: g.MinFiles, MinBytes: g.MinBytes,
	}
}

func (g *Group) backup(actor Actor) *Job {
	return &Job{
		ID: NewID[JobID](), HostID: g.HostID, Kind: KindBackup, State: JobQueued,
		ActorKind: actor.Kind, ActorID: actor.ID, ActorName: actor.Name,
		SourceGroupID: &g.ID, SourceGroupName: g.Name, Spec: g.spec(),
	}
}

func insertJob(ctx context.Context, tx IDB, j *Job) error {
	if _, err := tx.NewInsert().Model(j).ExcludeColumn("stats", "unreadable").Returning("").Exec(ctx); err != nil {
		return fmt.Errorf("make job: %w", err)
	}
	return nil
}

// RunOnHost makes a job that belongs to no group: init or unlock by a person.
// A waiting one of the same kind is that job.
func RunOnHost(ctx context.Context, db *DB, host HostID, kind JobKind, actor Actor) (*Job, error) {
	var made JobID
	err := Tx(ctx, db, func(tx IDB) error {
		if _, err := lockHost(ctx, tx, host); err != nil {
			return err
		}
		repo, err := neededRepository(ctx, tx, host)
		if err != nil {
			return err
		}
		err = tx.NewRaw("select id from jobs where host_id = ? and kind = ? and state = 'queued' limit 1", host, kind).Scan(ctx, &made)
		if err == nil || !isNoRows(err) {
			return err
		}
		j := hostJob(host, kind, actor, repo)
		made = j.ID
		return insertJob(ctx, tx, j)
	})
	if err != nil {
		return nil, err
	}
	return FindJob(ctx, db, made)
}

func hostJob(host HostID, kind JobKind, actor Actor, repo *HostRepository) *Job {
	return &Job{
		ID: NewID[JobID](), HostID: host, Kind: kind, State: JobQueued,
		ActorKind: actor.Kind, ActorID: actor.ID, ActorName: actor.Name,
		RepositoryID: &repo.RepositoryID, RepositoryURL: repo.URL,
	}
}

// AutoInit makes the one system init of a host and its repository's URL, when
// credentials are bound and no init job for them has reached the agent yet. It
// reports whether this call made it.
func AutoInit(ctx context.Context, db *DB, host HostID) (bool, error) {
	made := false
	err := Tx(ctx, db, func(tx IDB) error {
		_, err := lockHost(ctx, tx, host)
		if CodeOf(err) == ENotFound {
			return nil // deleted meanwhile
		}
		if err != nil {
			return err
		}
		repo, err := FindRepository(ctx, tx, host)
		if CodeOf(err) == ENotFound {
			return nil
		}
		if err != nil {
			return err
		}
		var has bool
		err = tx.QueryRowContext(ctx, `select exists (select from jobs where host_id = ? and kind = 'init' and repository_url = ?
			and (accepted_at is not null or state in ('queued', 'sent', 'running')))`, host, repo.URL).Scan(&has)
		if err != nil || has {
			return err
		}
		j := hostJob(host, KindInit, System, repo)
		res, err := tx.NewInsert().Model(j).ExcludeColumn("stats", "unreadable").On("conflict do nothing").Returning("").Exec(ctx)
		if err != nil {
			return fmt.Errorf("auto-init: %w", err)
		}
		n, _ := res.RowsAffected()
		made = n > 0
		return nil
	})
	return made, err
}

// cancelQueued ends every waiting job that matches and returns their ids.
func cancelQueued(ctx context.Context, tx IDB, where string, arg any) ([]JobID, error) {
	var ids []JobID
	err := tx.NewRaw("update jobs set state = 'cancelled', finished_at = now(), cancel_requested_at = now(), error_code = ?, error = ? where state = 'queued' and ? returning id",
		protocol.ErrCancelled, "Cancelled: what it belonged to was deleted.", bun.SafeQuery(where, arg)).Scan(ctx, &ids)
	if err != nil {
		return nil, fmt.Errorf("cancel waiting jobs: %w", err)
	}
	return ids, nil
}

// RequestCancel cancels a job that was never claimed, and asks for the end of
// any other; the agent's answer decides. A job that has ended is EConflict
// with its state.
func RequestCancel(ctx context.Context, db *DB, id JobID) (*Job, error) {
	err := Tx(ctx, db, func(tx IDB) error {
		j := &Job{}
		err := tx.NewSelect().Model(j).Where("id = ?", id).For("update").Scan(ctx)
		if isNoRows(err) {
			return NotFound("job", id.String())
		}
		if err != nil {
			return fmt.Errorf("cancel: %w", err)
		}
		if j.State.Ended() {
			e := Conflict("This job has ended already: it is %s.", j.State)
			e.Detail = map[string]any{"state": j.State}
			return e
		}
		if j.State == JobQueued {
			err = tx.NewRaw(`update jobs set cancel_requested_at = now(), state = 'cancelled', finished_at = now(),
				error_code = ?, error = 'Cancelled before it was sent to the host. Run it again when it suits.' where id = ? returning *`, protocol.ErrCancelled, id).Scan(ctx, j)
			if err == nil {
				err = keepMaintenance(ctx, tx, j)
			}
		} else {
			_, err = tx.ExecContext(ctx, "update jobs set cancel_requested_at = coalesce(cancel_requested_at, now()) where id = ?", id)
		}
		if err != nil {
			return fmt.Errorf("cancel: %w", err)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return FindJob(ctx, db, id)
}
