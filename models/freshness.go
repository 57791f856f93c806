package models

import (
	"context"
	"fmt"
	"time"

	"github.com/uptrace/bun"
	"github.com/uptrace/bun/schema"

	"resticfleet/agent/protocol"
)

// goodWarnings are the codes of a backup's warning whose snapshot is good all
// the same.
var goodWarnings = []string{protocol.ErrUnreadable, protocol.ErrEndUnrecorded}

// wentWell is SQL for whether a job j was a backup that made a good snapshot: what
// judge says, of its row.
var wentWell = bun.SafeQuery("(j.kind = 'backup' and (j.state = 'succeeded' or j.state = 'warning' and j.error_code in (?)))", bun.List(goodWarnings))

// listed is SQL for whether the snapshot that a column of a group g names is in
// its host's list, by as much of its id as is known.
func listed(column string) schema.QueryAppender {
	id := bun.Ident("g." + column)
	return bun.SafeQuery("exists (select from snapshots s where s.host_id = g.host_id and s.id >= ? and s.id <= rpad(?, 64, 'f'))", id, id)
}

// keepExisting lets a host's groups name only snapshots that exist, after a list
// of its repository that was asked for at that time: whatever a group has lost,
// its freshness is that of the newest good snapshot that is left, and so are its
// lateness and the parent of its next backup. A snapshot whose job ended after
// that time may be missing from the list, and one in a former repository is:
// neither is gone. A good one that nobody here made may lie anywhere, so that it
// is gone where it isn't listed.
func keepExisting(ctx context.Context, tx IDB, repo *HostRepository, asked time.Time) error {
	lost, err := loseGood(ctx, tx, repo, asked)
	if err != nil {
		return err
	}
	var left []*Job
	err = tx.NewRaw(`select distinct on (g.id) j.*, s.id as snapshot_id from source_groups g
		join snapshots s on s.host_id = g.host_id and s.source_group_id = g.id
		join jobs j on j.id = s.job_id and j.host_id = s.host_id and j.source_group_id = g.id and ?
		where g.host_id = ? and coalesce(j.started_at, j.queued_at) > coalesce(g.good_at, '-infinity')
		order by g.id, coalesce(j.started_at, j.queued_at) desc, s.at desc`, wentWell, repo.HostID).Scan(ctx, &left)
	if err != nil {
		return fmt.Errorf("good snapshots that are left: %w", err)
	}
	for _, j := range left {
		if err := keepGood(ctx, tx, j); err != nil {
			return err
		}
	}
	if err := keepNewest(ctx, tx, repo.HostID, asked); err != nil || len(lost) == 0 {
		return err
	}
	// What was made before Resticfleet, or is of a job that nobody knows, is better
	// than nothing.
	_, err = tx.ExecContext(ctx, `update source_groups g set good_snapshot_id = s.id, good_at = s.at, good_bytes = coalesce(s.size_bytes, 0), covered_at = s.at
		from (select distinct on (s.source_group_id) s.source_group_id, s.id, s.at, s.size_bytes from snapshots s
			where s.host_id = ? and not exists (select from jobs j where j.id = s.job_id and j.host_id = s.host_id)
			order by s.source_group_id, s.at desc, s.id desc) s
		where g.id = s.source_group_id and g.id in (?) and g.good_at is null`, repo.HostID, bun.List(lost))
	if err != nil {
		return fmt.Errorf("adopted snapshots that are left: %w", err)
	}
	return keepLateness(ctx, tx, repo.HostID)
}

// loseGood takes the good snapshot from the groups whose is gone, and returns
// them.
func loseGood(ctx context.Context, tx IDB, repo *HostRepository, asked time.Time) ([]GroupID, error) {
	var lost []GroupID
	err := tx.NewRaw(`update source_groups g set good_snapshot_id = '', good_at = null, good_bytes = 0, usual_files = 0, usual_bytes = 0, covered_at = null
		where g.host_id = ? and g.good_snapshot_id <> '' and not ?
			and not exists (select from jobs j where j.source_group_id = g.id and j.snapshot_id = g.good_snapshot_id
				and (j.finished_at > ? or (j.repository_id <> ? and j.repository_url <> ?)))
		returning g.id`, repo.HostID, listed("good_snapshot_id"), asked, repo.RepositoryID, repo.URL).Scan(ctx, &lost)
	if err != nil {
		return nil, fmt.Errorf("good snapshots that are gone: %w", err)
	}
	return lost, nil
}

// keepNewest names the newest snapshot that is left where a group's is gone. As a
// parent, one in another repository is of no use.
func keepNewest(ctx context.Context, tx IDB, host HostID, asked time.Time) error {
	_, err := tx.ExecContext(ctx, `update source_groups g set newest_snapshot_id = coalesce(
			(select s.id from snapshots s where s.source_group_id = g.id and s.host_id = g.host_id order by s.at desc, s.id desc limit 1), '')
		where g.host_id = ? and g.newest_snapshot_id <> '' and not ?
			and not exists (select from jobs j where j.source_group_id = g.id and j.snapshot_id = g.newest_snapshot_id and j.finished_at > ?)`,
		host, listed("newest_snapshot_id"), asked)
	if err != nil {
		return fmt.Errorf("newest snapshots that are left: %w", err)
	}
	return nil
}
