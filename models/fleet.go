package models

import (
	"context"
	"fmt"
	"time"

	"github.com/uptrace/bun"
)

// The fleet's page is three statements, whatever the fleet has: how many hosts
// are not safe, the first of what needs a hand with its reason, and one page of
// hosts. They read columns that are kept as things happen, and of the jobs only
// those under way and the last ones of groups that need a hand.

// What a host h is, in SQL, as Host.Online and Host.Cloned say it in Go. One
// that is linked can take a job now.
var (
	hostLinked = bun.SafeQuery("coalesce(h.link_closed_at is null and h.last_seen_at > now() - ?::interval, false)", interval(OnlineFor))
	hostOnline = bun.SafeQuery("coalesce(h.last_seen_at > now() - ?::interval and (h.link_closed_at is null or h.last_seen_at > h.link_closed_at), false)", interval(OnlineFor))
	hostCloned = bun.SafeQuery("coalesce(h.cloned_at > now() - ?::interval, false)", interval(clonedFor))
)

// hostUnready is SQL for the first thing that is missing before a host h can
// back up anything, null when nothing is: a NeedReason.
const hostUnready = `(case
	when h.enrolled_at is null then 'enrolment'
	when h.id not in (select host_id from host_repositories) then 'repository'
	when h.id not in (select host_id from source_groups where archived_at is null) then 'group' end)`

// hostNeedsHand is SQL for whether a host h is not safe.
var hostNeedsHand = bun.SafeQuery("(? is not null or ? or h.id in (select g.host_id from source_groups g where ?) or ?)",
	bun.Safe(hostUnready), hostCloned, bun.Safe(groupUnsafe), hostUnmaintained)

// hostUnmaintained is SQL for whether the maintenance of a host h needs a hand.
var hostUnmaintained = bun.SafeQuery(`h.id in (select ms.host_id from maintenance_states ms
	join host_repo_maintenance m on m.host_id = ms.host_id where ?)`, maintenanceBroken)

// FleetSummary says how many hosts there are, and how many of them are not safe
// or not there.
type FleetSummary struct{ Total, NeedHand, Offline int }

// SummarizeFleet counts the whole fleet.
func SummarizeFleet(ctx context.Context, db IDB) (FleetSummary, error) {
	var s FleetSummary
	err := db.NewRaw(`select count(*), count(*) filter (where ?), count(*) filter (where h.enrolled_at is not null and not ?)
		from hosts h where h.archived_at is null`, hostNeedsHand, hostOnline).Scan(ctx, &s.Total, &s.NeedHand, &s.Offline)
	if err != nil {
		return FleetSummary{}, fmt.Errorf("summarize fleet: %w", err)
	}
	return s, nil
}

// FleetShow is which hosts a list of the fleet shows.
type FleetShow string

// The lists.
const (
	ShowAll     FleetShow = ""
	ShowHand    FleetShow = "hand"
	ShowOffline FleetShow = "offline"
)

// FleetFilter narrows the list; Match is a part of the name or of a label.
type FleetFilter struct {
	Match string
	Show  FleetShow
}

// FleetHost is a host as the list shows it. Of the embedded Host only what the
// list needs is read.
type FleetHost struct {
	Host `bun:",extend"`

	Bound  bool // to a repository
	Groups int
	// Worst is the health of the worst of its groups, "" without any.
	Worst Health `bun:"-"`
	Rank  int
	// OldestGood is the oldest of its groups' newest good snapshots: what would
	// be lost. Nil without any.
	OldestGood *time.Time
	// Unmaintained is how bad it is that its maintenance needs a hand, "" where
	// it doesn't.
	Unmaintained Health
	// Crons are the expressions of the enabled schedules.
	Crons []string `bun:",array"`
	// The backup under way, the running one before the waiting; "" for none.
	ActiveState    JobState
	ActiveProgress *Progress `bun:"type:jsonb"`

	// Strip is what became of each of the last days, in any order.
	Strip []FleetDay `bun:"-"`
	Days  []int64    `bun:",array"`
	Good  []int64    `bun:",array"`
	Warn  []int64    `bun:",array"`
	Fail  []int64    `bun:",array"`
}

// FleetDay is what became of a host's backups on one of its local days.
type FleetDay struct {
	// Day counts from 1 January 1970.
	Day                   int64
	Good, Warning, Failed int
}

// FleetStripDays is how far back a FleetHost's strip reaches. It begins a day
// earlier, because a host's day may be another one than the database's.
const FleetStripDays = 30

// ListFleet returns up to limit hosts by name, beginning behind the name that
// cursor is, and the cursor of the next page ("" at the end). Cursors stay good
// when their host is renamed or deleted.
func ListFleet(ctx context.Context, db IDB, f FleetFilter, cursor string, limit int) ([]*FleetHost, string, error) {
	var hosts []*FleetHost
	// The page is cut before anything is gathered for its rows.
	page := db.NewSelect().TableExpr("hosts as h").ColumnExpr("h.*").
		Where("h.archived_at is null").OrderExpr("lower(h.name)").Limit(int64(limit + 1))
	if cursor != "" {
		page.Where("lower(h.name) > lower(?)", CleanText(cursor, 400))
	}
	if f.Match != "" {
		like := "%" + likeEscaper.Replace(CleanText(f.Match, 400)) + "%"
		page.Where("(h.name ilike ? or exists (select from jsonb_array_elements_text(h.labels) l where l ilike ?))", like, like)
	}
	switch f.Show {
	case ShowHand:
		page.Where("?", hostNeedsHand)
	case ShowOffline:
		page.Where("h.enrolled_at is not null and not ?", hostOnline)
	}
	err := db.NewRaw(`select h.id, h.name, h.os, h.timezone, h.enrolled_at, h.link, h.last_seen_at, h.link_closed_at, h.cloned_at,
			exists (select from host_repositories r where r.host_id = h.id) as bound, g.groups, coalesce(g.rank, 0) as rank, g.oldest_good, coalesce((select case when bool_and(?) then 'late' when count(*) > 0 then 'failed' end
				from maintenance_states ms join host_repo_maintenance m on m.host_id = ms.host_id where ms.host_id = h.id and ?), '') as unmaintained,
			array(select distinct s.cron from schedules s where s.host_id = h.id and s.enabled and s.archived_at is null) as crons,
			coalesce(j.state, '') as active_state, j.progress as active_progress, d.days, d.good, d.warn, d.fail
		from (?) h
		cross join lateral (select count(*) as groups, min(?) as rank, min(g.good_at) as oldest_good
			from source_groups g where g.host_id = h.id and g.archived_at is null) g
		cross join lateral (select array_agg(day) as days, array_agg(good) as good, array_agg(warn) as warn, array_agg(fail) as fail from (
			select d.day - date '1970-01-01' as day, sum(d.good) as good, sum(d.warning) as warn, sum(d.failed) as fail
			from source_group_days d where d.day >= current_date - ?::int
				and d.source_group_id in (select id from source_groups where host_id = h.id and archived_at is null)
			group by 1) d) d
		left join lateral (select j.state, j.progress from jobs j
			where j.host_id = h.id and j.kind = 'backup' and j.state in ('queued', 'sent', 'running')
			order by j.state = 'running' desc, j.id limit 1) j on true
		order by lower(h.name)`, maintenanceStale, maintenanceBroken, page, bun.Safe(groupRank), FleetStripDays).Scan(ctx, &hosts)
	if err != nil {
		return nil, "", fmt.Errorf("list fleet: %w", err)
	}
	for _, h := range hosts {
		h.Worst = healthByRank[h.Rank]
		h.Strip = make([]FleetDay, len(h.Days))
		for i := range h.Days {
			h.Strip[i] = FleetDay{h.Days[i], int(h.Good[i]), int(h.Warn[i]), int(h.Fail[i])}
		}
	}
	if len(hosts) <= limit {
		return hosts, "", nil
	}
	return hosts[:limit], hosts[limit-1].Name, nil
}
