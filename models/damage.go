package models

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/uptrace/bun"

	"resticfleet/agent/protocol"
)

// Damage is what a job found damaged of a repository, from then until a check
// has found the same good again.
type Damage struct {
	// Subset is what of the data had been read, as restic is told: 3/12, 10%,
	// 500M; "" for none of it.
	Subset  string    `json:"subset"`
	FoundAt time.Time `json:"found_at"`
	// JobID is the newest job that said so, SeenAt when, and Errors how many it
	// counted, 0 where it didn't.
	JobID  JobID     `json:"job_id"`
	SeenAt time.Time `json:"seen_at"`
	Errors int       `json:"errors"`
}

// damageShown is how much of a repository's damage is told one by one.
const damageShown = 10

// damageJSON is SQL for the damage of a repository r, what was seen longest ago
// first: it is read again first.
var damageJSON = bun.SafeQuery(`(select jsonb_agg(to_jsonb(d) - 'repository_id' order by d.job_id)
	from (select * from repository_damage where repository_id = r.id order by job_id limit ?) d)`, damageShown)

// hostDamaged is SQL for the hosts that are to see to a damaged repository: the
// one that checks it.
const hostDamaged = `(select hr.host_id from repository_damage d join repositories r on r.id = d.repository_id
	join repository_urls u on u.repository_id = r.id join host_repositories hr on hr.url_key = u.url and hr.host_id = coalesce(r.owner_host_id, hr.host_id))`

// wholeData reports whether a check reads everything.
func wholeData(subset string) bool {
	if _, t, ok := protocol.SubsetPart(subset); ok {
		return t == 1
	}
	percent, ok := strings.CutSuffix(subset, "%")
	f, err := strconv.ParseFloat(percent, 64)
	return ok && err == nil && f == 100
}

// keepCheck keeps what a job has found of its repository's data: damage, or that
// there is none, and how far the check that goes round is. The job's end may just
// have taught which repository its address leads to.
func keepCheck(ctx context.Context, tx IDB, j *Job) error {
	damaged := j.ErrorCode == protocol.ErrDamaged
	if j.RepositoryID == nil || !damaged && (j.Kind != KindCheck || j.State != JobSucceeded) {
		return nil
	}
	repo := *j.RepositoryID
	place, err := placeOf(ctx, tx, j.HostID, j.RepositoryURL)
	if err != nil {
		return err
	}
	err = tx.QueryRowContext(ctx, "select repository_id from repository_urls where url = ?", place).Scan(&repo)
	if err != nil && !isNoRows(err) {
		return err
	}
	if damaged {
		if err := keepDamage(ctx, tx, repo, j); err != nil {
			return err
		}
	}
	if j.Kind != KindCheck {
		return nil
	}
	whole, err := keepRound(ctx, tx, repo, j)
	if err != nil || damaged {
		return err
	}
	// A structure that is damaged fails every check, whatever it reads; what is
	// chosen at random is other data each time.
	same := ""
	if _, _, ok := protocol.SubsetPart(j.Spec.ReadDataSubset); ok {
		same = j.Spec.ReadDataSubset
	}
	_, err = tx.ExecContext(ctx, "delete from repository_damage where repository_id = ? and job_id < ? and (subset in ('', ?) or ?)",
		repo, j.ID, same, whole || wholeData(j.Spec.ReadDataSubset))
	return err
}

func keepDamage(ctx context.Context, tx IDB, repo int32, j *Job) error {
	errors, _ := j.Stats["num_errors"].(float64)
	_, err := tx.ExecContext(ctx, `insert into repository_damage as d (repository_id, subset, found_at, job_id, seen_at, errors) values (?0, ?1, ?2, ?3, ?2, ?4)
		on conflict (repository_id, subset) do update set job_id = excluded.job_id, seen_at = excluded.seen_at, errors = excluded.errors where excluded.job_id > d.job_id`,
		repo, j.Spec.ReadDataSubset, j.FinishedAt, j.ID, int(min(max(errors, 0), 1e9)))
	if err == nil {
		_, err = tx.ExecContext(ctx, "update repositories set check_good = 0 where id = ?", repo)
	}
	return err
}

// keepRound moves the rotating check on to its next part, and reports whether
// the last of all parts was just found good, each after the newest damage. Two
// checks that were made before either ended read the same part: it counts once.
func keepRound(ctx context.Context, tx IDB, repo int32, j *Job) (whole bool, err error) {
	if _, err := tx.ExecContext(ctx, "update repositories set check_reread = ? where id = ?", j.Spec.Reread, repo); err != nil {
		return false, err
	}
	n, t, ok := protocol.SubsetPart(j.Spec.ReadDataSubset)
	if !ok {
		return false, nil
	}
	err = tx.QueryRowContext(ctx, `update repositories set check_parts = ?0, check_next = ?1 % ?0 + 1,
			check_read = case when check_parts <> ?0 then 1 else check_read + 1 end % ?0,
			check_good = case when ?3 then 0 when check_parts <> ?0 then 1 else least(check_good + 1, ?0) end,
			check_round_at = case when check_parts <> ?0 or check_read = 0 then ?2::timestamptz else check_round_at end,
			checked_whole_at = case when case when check_parts <> ?0 then 1 else check_read + 1 end >= ?0 then ?2::timestamptz else checked_whole_at end
		where id = ?4 and (check_parts <> ?0 and not ?5 or check_parts = ?0 and check_next = ?1) returning check_good >= check_parts`,
		t, n, j.FinishedAt, j.State != JobSucceeded, repo, j.Spec.Reread).Scan(&whole)
	if isNoRows(err) {
		return false, nil
	}
	return whole, err
}

// nextSubset is what of the data the next check reads. n/t goes round: t checks
// in a row read everything. A part that was found damaged comes first, so that
// who has mended it sees that at once; of the checks that nobody asked for only
// every other one reads it, so that the rest is read even if nobody does.
func nextSubset(ctx context.Context, tx IDB, repo *HostRepository, asked bool) (subset string, reread bool, err error) {
	var damaged string
	var parts, next int
	err = tx.QueryRowContext(ctx, `select m.check_read_data_subset, r.check_parts, r.check_next, coalesce((select d.subset from repository_damage d
			where d.repository_id = r.id and d.subset like '%/%' and (? or not r.check_reread) order by d.job_id limit 1), '')
		from host_repo_maintenance m, repositories r where m.host_id = ? and r.id = ?`, asked, repo.HostID, repo.RepositoryID).Scan(&subset, &parts, &next, &damaged)
	if err != nil {
		return "", false, fmt.Errorf("part of the data: %w", err)
	}
	if damaged != "" {
		return damaged, true, nil
	}
	if _, t, ok := protocol.SubsetPart(subset); ok && t == parts {
		return fmt.Sprintf("%d/%d", next, t), false, nil
	}
	return subset, false, nil
}
