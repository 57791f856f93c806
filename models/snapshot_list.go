package models

import (
	"context"
	"fmt"
	"time"
)

// SnapshotList says of which moment a host's list is, and what is asked of its
// agent just now.
type SnapshotList struct {
	// HasRepository is whether there is one to list at all.
	HasRepository bool
	// ListedAt is nil before the first list of this repository.
	ListedAt *time.Time
	// Count is how many snapshots the list has, Newer how many of those that fit
	// the filter came after its Newest.
	Count, Newer int
	// Refresh is the newest look at the list, nil for none yet.
	Refresh *Job
}

// FindSnapshotList reads what a page says above a host's snapshots.
func FindSnapshotList(ctx context.Context, db IDB, f SnapshotFilter) (SnapshotList, error) {
	var l SnapshotList
	var row struct {
		Job               `bun:",extend"`
		SnapshotsListedAt *time.Time
		Asked, Bound      bool
		Listed, Newer     int
	}
	err := db.NewRaw(`select h.snapshots_listed_at, j.id is not null as asked, j.*,
			exists (select from host_repositories r where r.host_id = h.id) as bound, (select count(*) from snapshots s where s.host_id = h.id) as listed,
			(select count(*) from (?0) as newer) as newer
		from hosts h left join lateral (select id, state, error, error_code, queued_at, finished_at from jobs
			where host_id = h.id and kind = 'snapshots' and spec->'preview' is null order by id desc limit 1) j on true
		where h.id = ?1`, f.newer(db), f.HostID).Scan(ctx, &row)
	if err != nil {
		return l, fmt.Errorf("snapshot list: %w", err)
	}
	l.ListedAt, l.HasRepository, l.Count, l.Newer = row.SnapshotsListedAt, row.Bound, row.Listed, row.Newer
	if row.Asked {
		l.Refresh = &row.Job
	}
	return l, nil
}

// RefreshSnapshots asks a host's agent for its snapshots; a look that waits is
// that look.
func RefreshSnapshots(ctx context.Context, db *DB, host HostID, actor Actor) (*Job, error) {
	var made JobID
	err := Tx(ctx, db, func(tx IDB) error {
		h, err := lockHost(ctx, tx, host)
		if err != nil {
			return err
		}
		repo, err := repositoryToAsk(ctx, tx, h)
		if err != nil {
			return err
		}
		if err := askSnapshots(ctx, tx, repo, actor); err != nil {
			return err
		}
		return tx.NewRaw("select id from jobs where host_id = ? and kind = 'snapshots' and state = 'queued' and spec->'preview' is null", host).Scan(ctx, &made)
	})
	if err != nil {
		return nil, err
	}
	return FindJob(ctx, db, made)
}

func askSnapshots(ctx context.Context, tx IDB, repo *HostRepository, actor Actor) error {
	_, err := tx.NewInsert().Model(hostJob(repo.HostID, KindSnapshots, actor, repo)).ExcludeColumn("stats", "unreadable").
		On("conflict do nothing").Returning("").Exec(ctx)
	if err != nil {
		return fmt.Errorf("ask for snapshots: %w", err)
	}
	return nil
}

// refreshAfter asks for the list after a job that may have changed it, in the
// job's own transaction. An init has only if it went well.
func refreshAfter(ctx context.Context, tx IDB, host *Host, j *Job) error {
	if !j.Kind.gated() || j.SentAt == nil || (j.Kind == KindInit && j.State != JobSucceeded) {
		return nil
	}
	return listAnew(ctx, tx, host)
}

// listAnew asks for the list of a host whose agent knows to give it.
func listAnew(ctx context.Context, tx IDB, host *Host) error {
	if host.AgentProtocol < lookUpProtocol {
		return nil
	}
	repo, err := FindRepository(ctx, tx, host.ID)
	if CodeOf(err) == ENotFound {
		return nil
	}
	if err != nil {
		return err
	}
	return askSnapshots(ctx, tx, repo, System)
}

// reconcileSnapshots makes a host's list what a complete answer says. Restic
// looked at the moment when the job was started: an answer from before the one
// that is there changes nothing, whatever comes last. Holds stay.
func reconcileSnapshots(ctx context.Context, tx IDB, host *Host, repo *HostRepository, j *Job) error {
	looked := j.SentAt
	if j.StartedAt != nil {
		looked = j.StartedAt
	}
	res, err := tx.ExecContext(ctx, "update hosts set snapshots_listed_at = ? where id = ? and (snapshots_listed_at is null or snapshots_listed_at < ?)", looked, host.ID, looked)
	if err != nil {
		return fmt.Errorf("snapshots: %w", err)
	}
	if n, _ := res.RowsAffected(); n == 0 {
		return nil
	}
	// Materialized and sorted once: neither statement looks into the answer twice.
	_, err = tx.ExecContext(ctx, `with listed as materialized (
			select distinct on (x.id) x.* from job_answers a, jsonb_to_recordset(a.items) as x(id text, at timestamptz, hostname text, username text,
				paths jsonb, tags jsonb, job_id uuid, size_bytes bigint, file_count bigint)
			where a.job_id = ?0 and x.hostname = ?2 order by x.id),
		gone as (delete from snapshots s where s.host_id = ?1 and s.id not in (select id from listed))
		insert into snapshots as s (host_id, id, at, hostname, username, paths, tags, job_id, size_bytes, file_count)
			select ?1, id, at, hostname, username, paths, tags, job_id, size_bytes, file_count from listed
		on conflict (host_id, id) do update set at = excluded.at, hostname = excluded.hostname, username = excluded.username, paths = excluded.paths,
			tags = excluded.tags, job_id = excluded.job_id, size_bytes = excluded.size_bytes, file_count = excluded.file_count
		where (s.at, s.hostname, s.username, s.paths, s.tags, s.job_id, s.size_bytes, s.file_count)
			is distinct from (excluded.at, excluded.hostname, excluded.username, excluded.paths, excluded.tags, excluded.job_id, excluded.size_bytes, excluded.file_count)`,
		j.ID, host.ID, host.ResticHost)
	if err != nil {
		return fmt.Errorf("snapshots: %w", err)
	}
	_, err = tx.ExecContext(ctx, `delete from snapshot_diffs d where d.host_id = ?0 and (
		not exists (select from snapshots s where s.host_id = ?0 and s.id = d.older) or not exists (select from snapshots s where s.host_id = ?0 and s.id = d.newer))`, host.ID)
	if err != nil {
		return fmt.Errorf("snapshots: %w", err)
	}
	if err := assignSnapshots(ctx, tx, host.ID); err != nil {
		return err
	}
	if j.SentAt == nil {
		return nil // nobody asked for it
	}
	// By our own clock, and surely before restic looked.
	return keepExisting(ctx, tx, repo, *j.SentAt)
}

// assignSnapshots says to which group each of a host's snapshots belongs. Its
// job's tag is certain. Else it is the one group that has or had a tag of it,
// and where it carries none of ours the one living group that backs up exactly
// its paths. Else it belongs to none.
func assignSnapshots(ctx context.Context, tx IDB, host HostID) error {
	_, err := tx.ExecContext(ctx, `with tagged as (
			select s.id, count(distinct t.source_group_id) as n, min(t.source_group_id::text)::uuid as grp
			from snapshots s cross join lateral jsonb_array_elements_text(s.tags) as tag(text)
			join source_group_tags t on t.host_id = s.host_id and t.tag = tag.text
			where s.host_id = ?0 group by s.id),
		paths as (
			select p.sorted, count(*) as n, min(p.id::text)::uuid as grp from (
				select g.id, (select jsonb_agg(v order by v) from jsonb_array_elements_text(g.includes) v) as sorted
				from source_groups g where g.host_id = ?0 and g.archived_at is null) p group by 1),
		belongs as (
			select s.id, case when j.source_group_id is not null then j.source_group_id when t.n = 1 then t.grp
				when t.n is null and s.job_id is null and p.n = 1 then p.grp end as grp
			from snapshots s
			left join jobs j on j.id = s.job_id and j.host_id = s.host_id
			left join tagged t on t.id = s.id
			left join paths p on p.sorted = (select jsonb_agg(v order by v) from jsonb_array_elements_text(s.paths) v)
			where s.host_id = ?0)
		update snapshots s set source_group_id = b.grp from belongs b
		where s.host_id = ?0 and s.id = b.id and s.source_group_id is distinct from b.grp`, host)
	if err != nil {
		return fmt.Errorf("groups of snapshots: %w", err)
	}
	return nil
}
