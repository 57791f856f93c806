package models

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/uptrace/bun"

	"resticfleet/agent/protocol"
	"resticfleet/models/cronspec"
)

// Work that fails is tried again later and later, and from some failures in a
// row on not at all, until a person has seen to it.
const (
	backOffFirst  = 10 * time.Minute
	backOffMost   = 24 * time.Hour
	breakerOpenAt = 5
)

// Work that is due and never succeeds counts as stale after some of its periods,
// but not before some days. A host that was silent for longer than staleAway
// wasn't there: its time begins anew.
const (
	stalePeriods = 3
	staleLeast   = 72 * time.Hour
	staleGrace   = time.Hour // for the last run to end
	staleAway    = 24 * time.Hour
)

// MaintenanceState is what became of one kind of a host's maintenance.
type MaintenanceState struct {
	bun.BaseModel `bun:"table:maintenance_states,alias:ms"`

	HostID      HostID  `bun:",pk"`
	Kind        JobKind `bun:",pk"`
	EffectiveAt time.Time
	DueAt       *time.Time
	Failures    int
	FailedAt    *time.Time
	LastJobID   *JobID
	LastState   JobState
	LastCode    string
	LastError   string
	LastEndedAt *time.Time
	GoodAt      *time.Time
	StaleAt     *time.Time
}

// Stale says that it has been due for long, while its host was there, and has
// not succeeded; the breaker tells that better where it is open.
func (s *MaintenanceState) Stale(now time.Time) bool {
	return !s.BreakerOpen() && s.StaleAt != nil && !s.StaleAt.After(now)
}

// BreakerOpen says that it failed so often that it doesn't run by itself.
func (s *MaintenanceState) BreakerOpen() bool { return s.Failures >= breakerOpenAt }

// BacksOffUntil is until when it is left alone after a failure; zero where it is
// not, or where the breaker is open.
func (s *MaintenanceState) BacksOffUntil() time.Time {
	if s.Failures == 0 || s.BreakerOpen() || s.FailedAt == nil {
		return time.Time{}
	}
	return s.FailedAt.Add(min(backOffFirst<<(s.Failures-1), backOffMost))
}

// maintenanceBroken is SQL for whether a kind ms of a host's maintenance, whose
// cadences are m, needs a hand: the repository that the host checks is damaged,
// or the kind failed so often that it doesn't run by itself, or it is stale. What
// another host does for a shared repository is that host's.
var maintenanceBroken = bun.SafeQuery(`(ms.kind = 'check' and ms.host_id in ? or (ms.failures >= ? or ms.stale_at <= now())
	and case ms.kind when 'forget' then m.forget_enabled when 'prune' then m.prune_enabled else m.check_enabled end
	and (ms.kind = 'forget' or not exists (select from host_repositories hr join repository_urls u on u.url = hr.url_key
		join repositories r on r.id = u.repository_id where hr.host_id = ms.host_id and r.owner_host_id <> ms.host_id)))`,
	bun.Safe(hostDamaged), breakerOpenAt)

// maintenanceStale is SQL for whether that is only because it is stale.
var maintenanceStale = bun.SafeQuery("(ms.failures < ? and not (ms.kind = 'check' and ms.host_id in ?))", breakerOpenAt, bun.Safe(hostDamaged))

// ListMaintenanceStates reads a host's three.
func ListMaintenanceStates(ctx context.Context, db IDB, host HostID) (map[JobKind]*MaintenanceState, error) {
	var all []*MaintenanceState
	if err := db.NewSelect().Model(&all).Where("host_id = ?", host).Scan(ctx); err != nil {
		return nil, fmt.Errorf("maintenance states: %w", err)
	}
	states := map[JobKind]*MaintenanceState{}
	for _, kind := range MaintenanceKinds {
		states[kind] = &MaintenanceState{HostID: host, Kind: kind}
	}
	for _, s := range all {
		states[s.Kind] = s
	}
	return states, nil
}

// DueMaintenance is a due time that has no row yet.
type DueMaintenance struct {
	HostID  HostID
	Kind    JobKind
	At      time.Time
	CatchUp bool
	// Linked: the host can do it now.
	Linked bool
	// Skip is why there would be nothing to run, "" where there is.
	Skip string
	// StaleAt is when it counts as stale unless it succeeds before; zero where
	// there is nothing that could succeed.
	StaleAt time.Time
}

// ListDueMaintenance finds what is due on all hosts, the newest due time of each
// kind alone, in one statement. Nothing was due before the cadence's last
// change, the host's zone, or its repository's binding.
func ListDueMaintenance(ctx context.Context, db IDB, now time.Time) ([]DueMaintenance, error) {
	return dueMaintenance(ctx, db, now, "true")
}

func dueMaintenance(ctx context.Context, db IDB, now time.Time, where string, args ...any) ([]DueMaintenance, error) {
	var rows []struct {
		MaintenanceState `bun:",extend"`
		Cron             string
		Timezone         string
		Since            time.Time
		Linked           bool
		Owns             bool
		HasPolicy        bool
		Busy             bool
	}
	err := db.NewRaw(`select s.*, case s.kind when 'forget' then m.forget_cron when 'prune' then m.prune_cron else m.check_cron end as cron,
			h.timezone, greatest(s.effective_at, h.timezone_since, hr.bound_at, s.due_at) as since, ? as linked,
			r.owner_host_id is null or r.owner_host_id = s.host_id as owns,
			s.kind = 'forget' and exists (select from source_groups g where g.host_id = s.host_id and g.archived_at is null and g.retention <> '{}') as has_policy,
			exists (select from jobs j where j.host_id = s.host_id and j.kind = s.kind and j.state in ('queued', 'sent', 'running')
				and not jsonb_exists(j.spec, 'snapshot_ids')) as busy
		from maintenance_states s join host_repo_maintenance m on m.host_id = s.host_id join hosts h on h.id = s.host_id and h.archived_at is null
		join host_repositories hr on hr.host_id = s.host_id join repository_urls u on u.url = hr.url_key join repositories r on r.id = u.repository_id
		where case s.kind when 'forget' then m.forget_enabled when 'prune' then m.prune_enabled else m.check_enabled end and ?
		order by s.host_id, s.kind`, hostLinked, bun.SafeQuery(where, args...)).Scan(ctx, &rows)
	if err != nil {
		return nil, fmt.Errorf("due maintenance: %w", err)
	}
	var due []DueMaintenance
	specs := map[string]cronspec.Spec{} // a fleet has few, and parsing costs most
	for _, r := range rows {
		spec, parsed := specs[r.Cron]
		if !parsed {
			if spec, err = cronspec.Parse(r.Cron); err != nil {
				continue // stored by a version with other rules
			}
			specs[r.Cron] = spec
		}
		at, ok := spec.Latest(r.Since, now, zoneNamed(r.Timezone))
		if !ok {
			continue
		}
		d := DueMaintenance{HostID: r.HostID, Kind: r.Kind, At: at.UTC(), CatchUp: now.Sub(at) > missedAfter, Linked: r.Linked}
		switch {
		case r.Kind == KindForget && !r.HasPolicy:
			d.Skip = CodeNothingToDo
		case r.Kind.owned() && !r.Owns:
			d.Skip = CodeNotOwner
		case r.BreakerOpen():
			d.Skip = CodeBreakerOpen
		case r.BacksOffUntil().After(now):
			d.Skip = CodeBackingOff
		case r.Busy:
			d.Skip = CodeStillBusy
		}
		if d.Skip != CodeNothingToDo && d.Skip != CodeNotOwner {
			d.StaleAt = staleAt(at, spec.Next(at, zoneNamed(r.Timezone)))
		}
		due = append(due, d)
	}
	return due, nil
}

// staleAt is when something counts as stale whose first due time without success
// is at, by the time that is due next. It succeeded a period before, if ever.
func staleAt(at, next time.Time) time.Time {
	period := next.Sub(at)
	return at.Add(max(stalePeriods*period, staleLeast) - period + staleGrace).UTC()
}

// ForgetStale begins anew for hosts that were away.
func ForgetStale(ctx context.Context, db IDB) error {
	_, err := db.ExecContext(ctx, `update maintenance_states s set stale_at = null from hosts h
		where h.id = s.host_id and s.stale_at is not null and h.last_seen_at < now() - ?::interval`, interval(staleAway))
	if err != nil {
		return fmt.Errorf("stale maintenance: %w", err)
	}
	return nil
}

// RunDueMaintenance makes the row of a due time, once, whoever does it: a job
// that waits, or a skipped one with the reason. Nil where another server has
// made it, or where it is not due any more.
func RunDueMaintenance(ctx context.Context, db *DB, host HostID, kind JobKind, now time.Time) (*Job, error) {
	var made *Job
	err := Tx(ctx, db, func(tx IDB) error {
		made = nil
		if _, err := lockHost(ctx, tx, host); err != nil {
			return err
		}
		due, err := dueMaintenance(ctx, tx, now, "s.host_id = ? and s.kind = ?", host, kind)
		if err != nil || len(due) == 0 {
			return err
		}
		d := due[0]
		if d.Skip == "" && !d.Linked {
			return nil // when it is there again, once
		}
		repo, err := FindRepository(ctx, tx, host)
		if err != nil {
			return err
		}
		j := hostJob(host, kind, System, repo)
		j.ScheduledAt, j.CatchUp = &d.At, d.CatchUp
		if j.Spec, err = maintenanceSpec(ctx, tx, kind, repo, false); err != nil {
			return err
		}
		if d.Skip != "" {
			why, err := whySkipped(ctx, tx, repo, kind, d.Skip)
			if err != nil {
				return err
			}
			j.skip(d.Skip, why)
		}
		res, err := tx.NewInsert().Model(j).ExcludeColumn("stats", "unreadable").On("conflict do nothing").Returning("").Exec(ctx)
		if err != nil {
			return fmt.Errorf("due maintenance: %w", err)
		}
		if n, _ := res.RowsAffected(); n > 0 {
			made = j
		}
		_, err = tx.ExecContext(ctx, `update maintenance_states s set due_at = greatest(s.due_at, ?0::timestamptz), stale_at = case
				when ?1::timestamptz is not null and h.last_seen_at > now() - ?2::interval then coalesce(s.stale_at, ?1) end
			from hosts h where h.id = s.host_id and s.host_id = ?3 and s.kind = ?4`, d.At, known(d.StaleAt), interval(staleAway), host, kind)
		if err != nil {
			return fmt.Errorf("due maintenance: %w", err)
		}
		return nil
	})
	if CodeOf(err) == ENotFound {
		return nil, nil // deleted meanwhile
	}
	return made, err
}

func whySkipped(ctx context.Context, tx IDB, repo *HostRepository, kind JobKind, code string) (string, error) {
	switch code {
	case CodeNothingToDo:
		return "Nothing to do: no source group of this host has a retention policy, so all snapshots stay. Give a group one to let old snapshots go.", nil
	case CodeNotOwner:
		name, err := ownerName(ctx, tx, repo)
		return fmt.Sprintf("The %s of this shared repository is done by %s. Make this host its owner to do it here.", kind, name), err
	case CodeBreakerOpen:
		return fmt.Sprintf("It failed %d times in a row and doesn't run by itself any more. Look at its last job, mend what it names, and run it now: when that works, it goes on by itself.", breakerOpenAt), nil
	case CodeBackingOff:
		return "It failed just before and is not tried again at once. Look at its last job; Run now doesn't wait.", nil
	}
	return fmt.Sprintf("The %s before it had not ended yet. If that happens often, run it less often.", kind), nil
}

func ownerName(ctx context.Context, tx IDB, repo *HostRepository) (string, error) {
	owner, err := FindOwner(ctx, tx, repo.HostID)
	if err != nil || owner == nil {
		return "another host", err
	}
	return "“" + owner.Name + "”", nil
}

// maintenanceSpec is what a run of a kind does, fixed now; asked says that a
// person asked for it.
func maintenanceSpec(ctx context.Context, tx IDB, kind JobKind, repo *HostRepository, asked bool) (JobSpec, error) {
	switch kind {
	case KindForget:
		groups, err := forgetGroups(ctx, tx, repo.HostID)
		return JobSpec{Forget: groups}, err
	case KindCheck:
		subset, reread, err := nextSubset(ctx, tx, repo, asked)
		return JobSpec{ReadDataSubset: subset, Reread: reread}, err
	}
	return JobSpec{}, nil
}

// forgetGroups are the host's groups that let anything go, each with every tag
// that it ever had.
func forgetGroups(ctx context.Context, tx IDB, host HostID) ([]protocol.ForgetGroup, error) {
	var rows []struct {
		ID        GroupID
		Name      string
		Retention Retention `bun:"type:jsonb"`
		Tags      []string  `bun:"type:jsonb"`
	}
	err := tx.NewRaw(`select g.id, g.name, g.retention, (select jsonb_agg(t.tag order by t.tag) from source_group_tags t where t.source_group_id = g.id) as tags
		from source_groups g where g.host_id = ? and g.archived_at is null and g.retention <> '{}' order by lower(g.name)`, host).Scan(ctx, &rows)
	if err != nil {
		return nil, fmt.Errorf("retention policies: %w", err)
	}
	var groups []protocol.ForgetGroup
	for _, r := range rows {
		groups = append(groups, protocol.ForgetGroup{GroupID: r.ID.String(), Name: r.Name, Tags: r.Tags, Retention: r.Retention})
	}
	return groups, nil
}

// RunMaintenance makes a run of forget, prune or check for a person, now. One
// that still waits is that run, refreshed; where no group has a policy, a forget
// is a skipped job that says so.
func RunMaintenance(ctx context.Context, db *DB, host HostID, kind JobKind, actor Actor) (*Job, error) {
	var made JobID
	err := Tx(ctx, db, func(tx IDB) error {
		if _, err := lockHost(ctx, tx, host); err != nil {
			return err
		}
		plan, err := FindMaintenance(ctx, tx, host)
		if err != nil {
			return err
		}
		repo, err := FindRepository(ctx, tx, host)
		if CodeOf(err) == ENotFound {
			return Conflict("This host has no repository yet. Set one up, then run %s.", kind)
		}
		if err != nil {
			return err
		}
		if err := mayMaintain(ctx, tx, repo, kind); err != nil {
			return err
		}
		if why := plan.SubsetProblem(); kind == KindCheck && why != "" {
			return Conflict("No check can run (read_data_subset): %s. Change when check runs, then run it.", why)
		}
		spec, err := maintenanceSpec(ctx, tx, kind, repo, true)
		if err != nil {
			return err
		}
		j := hostJob(host, kind, actor, repo)
		j.Spec = spec
		made = j.ID
		if kind == KindForget && len(spec.Forget) == 0 {
			why, err := whySkipped(ctx, tx, repo, kind, CodeNothingToDo)
			if err != nil {
				return err
			}
			j.skip(CodeNothingToDo, why)
			return insertJob(ctx, tx, j)
		}
		err = tx.NewRaw(`update jobs set spec = ? where id = (select id from jobs where host_id = ? and kind = ? and state = 'queued'
			and not jsonb_exists(spec, 'snapshot_ids') order by id limit 1) returning id`, jsonb{spec}, host, kind).Scan(ctx, &made)
		if err == nil || !isNoRows(err) {
			return err
		}
		return insertJob(ctx, tx, j)
	})
	if err != nil {
		return nil, err
	}
	return FindJob(ctx, db, made)
}

// mayMaintain: what concerns a whole shared repository is its owner's.
func mayMaintain(ctx context.Context, tx IDB, repo *HostRepository, kind JobKind) error {
	if !kind.owned() {
		return nil
	}
	if _, err := ownRepositories(ctx, tx, repo.URLKey); err != nil {
		return err
	}
	owner, err := FindOwner(ctx, tx, repo.HostID)
	if err != nil || owner == nil || owner.HostID.IsZero() || owner.HostID == repo.HostID {
		return err
	}
	e := Conflict("The %s of this shared repository is done by “%s”. Run it there, or make this host the repository's owner.", kind, owner.Name)
	e.Detail = map[string]any{"owner_host_id": owner.HostID, "owner_host_name": owner.Name}
	return e
}

// keepMaintenance keeps how a forget, prune or check ended; it does nothing for
// any other kind. Snapshots that a person removed are no news of the cadence.
func keepMaintenance(ctx context.Context, tx IDB, j *Job) error {
	if !slices.Contains(MaintenanceKinds, j.Kind) || len(j.Spec.SnapshotIDs) > 0 {
		return nil
	}
	_, err := tx.ExecContext(ctx, `update maintenance_states set
			failures = case when ?0 in ('succeeded', 'warning') then 0 when ?0 = 'failed' then failures + 1 else failures end,
			failed_at = case when ?0 in ('succeeded', 'warning') then null when ?0 = 'failed' then ?1::timestamptz else failed_at end,
			good_at = case when ?0 in ('succeeded', 'warning') then greatest(good_at, ?1::timestamptz) else good_at end,
			stale_at = case when ?0 in ('succeeded', 'warning') then null else stale_at end,
			last_job_id = ?2, last_state = ?0, last_code = ?3, last_error = ?4, last_ended_at = ?1
		where host_id = ?5 and kind = ?6 and (last_job_id is null or last_job_id <= ?2)`,
		j.State, j.FinishedAt, j.ID, j.ErrorCode, j.Error, j.HostID, j.Kind)
	if err == nil {
		err = keepCheck(ctx, tx, j)
	}
	if err != nil {
		return fmt.Errorf("keep maintenance: %w", err)
	}
	return nil
}

// CheckRound is what the checks of a repository say of it: how far the one that
// reads the data part by part is round, and what is damaged.
type CheckRound struct {
	// Parts is in how many the data is read, 0 before the first; Read of them
	// were, since Since, and Next is the next one.
	Parts, Read, Next int
	Since             *time.Time
	// WholeAt is when the last of all parts was read.
	WholeAt *time.Time
	// Damage is what of the repository is damaged, at most damageShown of it, and
	// Damaged how much there is.
	Damage  []Damage `bun:"type:jsonb"`
	Damaged int
}

// FindCheckRound reads how far the check of a host's repository is round.
func FindCheckRound(ctx context.Context, db IDB, host HostID) (CheckRound, error) {
	var c CheckRound
	err := db.NewRaw(`select r.check_parts as parts, r.check_read as read, r.check_next as next, r.check_round_at as since, r.checked_whole_at as whole_at,
			? as damage, (select count(*) from repository_damage where repository_id = r.id) as damaged
		from host_repositories hr join repository_urls u on u.url = hr.url_key join repositories r on r.id = u.repository_id where hr.host_id = ?`, damageJSON, host).Scan(ctx, &c)
	if err != nil && !isNoRows(err) {
		return c, fmt.Errorf("check round: %w", err)
	}
	return c, nil
}
