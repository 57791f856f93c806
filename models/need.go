package models

import (
	"context"
	"fmt"
	"time"

	"github.com/uptrace/bun"
)

// NeedReason is why something needs a hand.
type NeedReason string

// The reasons. A host that can't back up anything yet is listed once, by the
// first thing that is missing; any other by each of its groups that is not
// safe, by each kind of its maintenance that is broken, and once more while it
// seems to be two machines.
const (
	NeedEnrolment  NeedReason = "enrolment"
	NeedRepository NeedReason = "repository"
	NeedGroup      NeedReason = "group"
	NeedBackup     NeedReason = "backup"
	NeedOneMachine NeedReason = "cloned"
	// NeedMaintenance: its repository is damaged (said with check), or it failed
	// so often that it doesn't run by itself any more, or it is stale.
	NeedMaintenance NeedReason = "maintenance"
)

// Need is something that needs a hand: a host or, with NeedBackup, one of its
// groups.
type Need struct {
	Reason   NeedReason
	Health   Health
	HostID   HostID
	HostName string
	Timezone string
	Online   bool

	// Kind is what is broken with NeedMaintenance, and Failures how often it
	// failed in a row; its last success, cadence and last job are those below.
	// Damage is why, where there is any, and Damaged how much.
	Kind     JobKind
	Failures int
	Damage   []Damage `bun:"type:jsonb"`
	Damaged  int

	// The rest is the group's.
	GroupID   *GroupID
	GroupName string
	GoodAt    *time.Time
	// DueAt is the due time without a good snapshot since, and DueCron the
	// expression that asked for it.
	DueAt     *time.Time
	DueCron   string
	LastJobID *JobID
	LastState JobState
	LastError string
	// LastEndedAt is when the last job ended, nil while it runs again.
	LastEndedAt *time.Time

	// The group's backup under way, the running one before the waiting.
	ActiveID         *JobID
	ActiveState      JobState
	ActiveCancelling bool
	ActiveProgress   *Progress `bun:"type:jsonb"`
}

// ListNeeds returns the first of what needs a hand, worst first and then by
// name, at most limit of it, and whether there is more.
func ListNeeds(ctx context.Context, db IDB, limit int) ([]*Need, bool, error) {
	var needs []*Need
	err := db.NewRaw(`with ready as (
			select h.id as host_id, h.name as host_name, ? as unready, ? as cloned from hosts h where h.archived_at is null),
		need as (select * from (
			select host_id, host_name, null::uuid as group_id, '' as group_name, '' as kind, unready as reason, 'never' as health, 3 as rank from ready where unready is not null
			union all
			select host_id, host_name, null, '', '', 'cloned', 'failed', 1 from ready where unready is null and cloned
			union all
			select r.host_id, r.host_name, g.id, g.name, '', 'backup', ?, ? from source_groups g join ready r on r.host_id = g.host_id and r.unready is null where ?
			union all
			select r.host_id, r.host_name, null, '', ms.kind, 'maintenance', case when ? then 'late' else 'failed' end, case when ? then 2 else 1 end from maintenance_states ms
				join host_repo_maintenance m on m.host_id = ms.host_id join ready r on r.host_id = ms.host_id and r.unready is null where ?
			) u order by rank, lower(host_name), lower(group_name), kind, host_id limit ?)
		select need.*, h.timezone, ? as online, coalesce(g.good_at, ms.good_at) as good_at, g.due_at,
			coalesce(s.cron, case need.kind when 'forget' then m.forget_cron when 'prune' then m.prune_cron when 'check' then m.check_cron end, '') as due_cron,
			coalesce(ms.failures, 0) as failures, damage.damage, coalesce(damage.damaged, 0) as damaged, coalesce(g.last_job_id, ms.last_job_id) as last_job_id,
			coalesce(g.last_state, ms.last_state, '') as last_state, coalesce(g.last_error, ms.last_error, '') as last_error, last.finished_at as last_ended_at,
			a.id as active_id, coalesce(a.state, '') as active_state, a.cancel_requested_at is not null as active_cancelling, a.progress as active_progress
		from need join hosts h on h.id = need.host_id
		left join source_groups g on g.id = need.group_id
		left join schedules s on s.id = g.due_schedule_id
		left join maintenance_states ms on ms.host_id = need.host_id and ms.kind = need.kind
		left join host_repo_maintenance m on m.host_id = ms.host_id
		left join lateral (select ? as damage, (select count(*) from repository_damage where repository_id = r.id) as damaged
			from host_repositories hr join repository_urls u on u.url = hr.url_key join repositories r on r.id = u.repository_id
			where hr.host_id = ms.host_id and ms.kind = 'check') damage on true
		left join jobs last on last.id = coalesce(g.last_job_id, ms.last_job_id)
		left join lateral (select * from jobs j
			where j.host_id = g.host_id and j.source_group_id = g.id and j.kind = 'backup' and j.state in ('queued', 'sent', 'running')
			order by j.state = 'running' desc, j.id limit 1) a on true
		order by rank, lower(host_name), lower(need.group_name), need.kind, need.host_id`,
		bun.Safe(hostUnready), hostCloned, bun.Safe(groupHealth), bun.Safe(groupRank), bun.Safe(groupUnsafe),
		maintenanceStale, maintenanceStale, maintenanceBroken, limit+1, hostOnline, damageJSON).Scan(ctx, &needs)
	if err != nil {
		return nil, false, fmt.Errorf("list needs: %w", err)
	}
	if len(needs) <= limit {
		return needs, false, nil
	}
	return needs[:limit], true, nil
}
