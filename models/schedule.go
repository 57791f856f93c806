package models

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/uptrace/bun"

	"resticfleet/agent/protocol"
	"resticfleet/models/cronspec"
)

// Schedule is a cron expression, an enabled flag and the source groups of the
// same host that it runs.
type Schedule struct {
	bun.BaseModel `bun:"table:schedules,alias:s"`

	ID        ScheduleID `bun:",pk"`
	HostID    HostID
	Cron      string
	Enabled   bool
	CreatedAt time.Time `bun:",nullzero"`
	// EffectiveAt is the last change or enabling; nothing before is caught up.
	EffectiveAt time.Time `bun:",nullzero"`
	ArchivedAt  *time.Time

	GroupIDs []GroupID `bun:"-"`
}

// ScheduleFields is what a person says of a schedule.
type ScheduleFields struct {
	Cron     string
	Enabled  bool
	GroupIDs []string
}

func (f *ScheduleFields) normalize() ([]GroupID, error) {
	var p problems
	f.Cron = strings.TrimSpace(f.Cron)
	if _, err := cronspec.Parse(f.Cron); err != nil {
		p.add("cron", "%s", err)
	}
	if len(f.GroupIDs) == 0 {
		p.add("source_group_ids", "are missing: choose at least one source group")
	}
	if len(f.GroupIDs) > maxPatterns {
		p.add("source_group_ids", "are more than %d", maxPatterns)
		return nil, p.err()
	}
	ids := []GroupID{}
	for i, s := range f.GroupIDs {
		id, err := ParseID[GroupID](s)
		switch {
		case err != nil:
			p.add(fmt.Sprintf("source_group_ids[%d]", i), "%q is no source group of this host: choose one of its groups", CleanText(s, 60))
		case !slices.Contains(ids, id):
			ids = append(ids, id)
		}
	}
	return ids, p.err()
}

// AddSchedule makes a schedule and raises the host's schedule version.
func AddSchedule(ctx context.Context, db *DB, host HostID, f ScheduleFields) (*Schedule, error) {
	groups, err := f.normalize()
	if err != nil {
		return nil, err
	}
	s := &Schedule{ID: NewID[ScheduleID](), HostID: host, Cron: f.Cron, Enabled: f.Enabled, GroupIDs: groups}
	err = Tx(ctx, db, func(tx IDB) error {
		if err := raiseScheduleVersion(ctx, tx, host); err != nil {
			return err
		}
		if _, err := tx.NewInsert().Model(s).Returning("created_at, effective_at").Exec(ctx); err != nil {
			return fmt.Errorf("add schedule: %w", err)
		}
		return setScheduleGroups(ctx, tx, s)
	})
	if err != nil {
		return nil, err
	}
	return s, nil
}

// UpdateSchedule replaces a schedule and raises the host's schedule version.
func UpdateSchedule(ctx context.Context, db *DB, host HostID, id ScheduleID, f ScheduleFields) (*Schedule, error) {
	groups, err := f.normalize()
	if err != nil {
		return nil, err
	}
	s := &Schedule{ID: id, HostID: host, Cron: f.Cron, Enabled: f.Enabled, GroupIDs: groups}
	err = Tx(ctx, db, func(tx IDB) error {
		if err := raiseScheduleVersion(ctx, tx, host); err != nil {
			return err
		}
		res, err := tx.NewUpdate().Model(s).Column("cron", "enabled").Set("effective_at = now()").
			Where("id = ? and host_id = ? and archived_at is null", id, host).Returning("created_at, effective_at").Exec(ctx)
		if err != nil {
			return fmt.Errorf("update schedule: %w", err)
		}
		if n, _ := res.RowsAffected(); n == 0 {
			return NotFound("schedule", id.String())
		}
		if _, err := tx.ExecContext(ctx, "delete from schedule_source_groups where schedule_id = ?", id); err != nil {
			return fmt.Errorf("update schedule: %w", err)
		}
		return setScheduleGroups(ctx, tx, s)
	})
	if err != nil {
		return nil, err
	}
	return s, nil
}

// DeleteSchedule archives a schedule and raises the host's schedule version.
// Its waiting jobs are cancelled; a running one may end.
func DeleteSchedule(ctx context.Context, db *DB, host HostID, id ScheduleID) (cancelled []JobID, err error) {
	err = Tx(ctx, db, func(tx IDB) error {
		if err := raiseScheduleVersion(ctx, tx, host); err != nil {
			return err
		}
		res, err := tx.ExecContext(ctx, "update schedules set archived_at = now(), enabled = false where id = ? and host_id = ? and archived_at is null", id, host)
		if err != nil {
			return fmt.Errorf("delete schedule: %w", err)
		}
		if n, _ := res.RowsAffected(); n == 0 {
			return NotFound("schedule", id.String())
		}
		if _, err := tx.ExecContext(ctx, "delete from schedule_source_groups where schedule_id = ?", id); err != nil {
			return fmt.Errorf("delete schedule: %w", err)
		}
		if err := keepLateness(ctx, tx, host); err != nil {
			return err
		}
		cancelled, err = cancelQueued(ctx, tx, "scheduled_id = ?", id)
		return err
	})
	return cancelled, err
}

// LeaveSchedule takes a group out of a schedule and raises the host's schedule
// version; a schedule left without groups is deleted as by DeleteSchedule. Where
// the group isn't in the schedule, or that is gone, there is nothing to do.
func LeaveSchedule(ctx context.Context, db *DB, host HostID, group GroupID, id ScheduleID) (cancelled []JobID, err error) {
	err = Tx(ctx, db, func(tx IDB) error {
		if _, err := lockHost(ctx, tx, host); err != nil {
			return err
		}
		res, err := tx.ExecContext(ctx, "delete from schedule_source_groups where host_id = ? and schedule_id = ? and source_group_id = ?", host, id, group)
		if err != nil {
			return fmt.Errorf("leave schedule: %w", err)
		}
		if n, _ := res.RowsAffected(); n == 0 {
			return nil
		}
		if err := raiseScheduleVersion(ctx, tx, host); err != nil {
			return err
		}
		res, err = tx.ExecContext(ctx, `update schedules set archived_at = now(), enabled = false where id = ?
			and not exists (select from schedule_source_groups where schedule_id = ?)`, id, id)
		if err != nil {
			return fmt.Errorf("leave schedule: %w", err)
		}
		if n, _ := res.RowsAffected(); n > 0 {
			if cancelled, err = cancelQueued(ctx, tx, "scheduled_id = ?", id); err != nil {
				return err
			}
		} else if _, err := tx.ExecContext(ctx, "update schedules set effective_at = now() where id = ?", id); err != nil {
			return fmt.Errorf("leave schedule: %w", err)
		}
		return keepLateness(ctx, tx, host)
	})
	return cancelled, err
}

// raiseScheduleVersion also takes the host's row, so that changes of one
// host's set go one after the other.
func raiseScheduleVersion(ctx context.Context, tx IDB, host HostID) error {
	res, err := tx.ExecContext(ctx, "update hosts set schedule_version = schedule_version + 1 where id = ? and archived_at is null", host)
	if err != nil {
		return fmt.Errorf("schedule version: %w", err)
	}
	if n, _ := res.RowsAffected(); n == 0 {
		return NotFound("host", host.String())
	}
	return nil
}

// maxScheduleJump is how far a server raises a schedule version for an agent's
// word alone.
const maxScheduleJump = 1_000_000

// ApplySchedule keeps which version of the set an agent's cron runs; digest is
// empty where it isn't told. A version above ours, or ours with another set,
// comes from before this database was restored: agents pass over what is older
// than they have, so ours is raised past theirs, and raised says that the set
// must go out anew. What no server of ours can have sent is EInvalid and
// changes nothing. A repetition of what is known costs one look at the row. The
// set itself is compared for a digest that was not heard before, so that one
// which can never fit doesn't drive the version up for ever, or with sure.
func ApplySchedule(ctx context.Context, tx IDB, host HostID, version int64, digest string, sure bool) (raised bool, err error) {
	var current, applied int64
	var known string
	digest = clip(digest)
	err = tx.QueryRowContext(ctx, `select schedule_version, applied_schedule_version, applied_schedule_digest
		from hosts where id = ? for no key update`, host).Scan(&current, &applied, &known)
	if err != nil {
		return false, fmt.Errorf("apply schedule: %w", err)
	}
	if version < 0 || version-maxScheduleJump >= current {
		return false, Invalid("version", "%d is no schedule version of this host: it is at %d", version, current)
	}
	same := version == applied && digest == known
	if same && version <= current && !sure {
		return false, nil
	}
	raised = version > current
	if version == current && version > 0 && digest != "" && (digest != known || sure) {
		set, err := ScheduleSet(ctx, tx, host)
		if err != nil {
			return false, err
		}
		raised = set.Digest() != digest
	}
	if raised {
		current = version + 1
	} else if same {
		return false, nil
	}
	_, err = tx.ExecContext(ctx, "update hosts set schedule_version = ?, applied_schedule_version = ?, applied_schedule_digest = ? where id = ?",
		current, version, digest, host)
	if err != nil {
		return false, fmt.Errorf("apply schedule: %w", err)
	}
	return raised, nil
}

// PassSchedule raises a host's schedule version past one that its agent has
// seen, whether or not it runs it; see ApplySchedule.
func PassSchedule(ctx context.Context, db *DB, host HostID, seen int64) (raised bool, err error) {
	err = Tx(ctx, db, func(tx IDB) error {
		res, err := tx.ExecContext(ctx, "update hosts set schedule_version = ? where id = ? and schedule_version between ? and ?",
			seen+1, host, seen-maxScheduleJump+1, seen-1)
		if err != nil {
			return fmt.Errorf("pass schedule: %w", err)
		}
		n, _ := res.RowsAffected()
		raised = n > 0
		return nil
	})
	return raised, err
}

// setScheduleGroups lets a new or changed schedule run these groups, which may
// move when they, and those it ran before, become late.
func setScheduleGroups(ctx context.Context, tx IDB, s *Schedule) error {
	var live []GroupID
	err := tx.NewRaw("select id from source_groups where id in (?) and host_id = ? and archived_at is null for key share",
		bun.List(s.GroupIDs), s.HostID).Scan(ctx, &live)
	if err != nil {
		return fmt.Errorf("schedule groups: %w", err)
	}
	for i, id := range s.GroupIDs {
		if !slices.Contains(live, id) {
			return Invalid(fmt.Sprintf("source_group_ids[%d]", i), "%q is no source group of this host: choose one of its groups", id)
		}
		_, err := tx.ExecContext(ctx, "insert into schedule_source_groups (schedule_id, source_group_id, host_id) values (?, ?, ?)", s.ID, id, s.HostID)
		if err != nil {
			return fmt.Errorf("schedule groups: %w", err)
		}
	}
	return keepLateness(ctx, tx, s.HostID)
}

// FindSchedule reads a schedule of this host with its groups.
func FindSchedule(ctx context.Context, db IDB, host HostID, id ScheduleID) (*Schedule, error) {
	s := &Schedule{}
	err := db.NewSelect().Model(s).Where("id = ? and host_id = ? and archived_at is null", id, host).Scan(ctx)
	if isNoRows(err) {
		return nil, NotFound("schedule", id.String())
	}
	if err != nil {
		return nil, fmt.Errorf("find schedule: %w", err)
	}
	return s, loadScheduleGroups(ctx, db, []*Schedule{s})
}

// ListSchedules returns a page of a host's schedules with their groups, newest
// first.
func ListSchedules(ctx context.Context, db IDB, host HostID, page Page) ([]*Schedule, string, error) {
	var list []*Schedule
	q := db.NewSelect().Model(&list).Where("host_id = ? and archived_at is null", host)
	if err := page.apply(q); err != nil {
		return nil, "", err
	}
	if err := q.Scan(ctx); err != nil {
		return nil, "", fmt.Errorf("list schedules: %w", err)
	}
	list, next := cut(list, page, func(s *Schedule) string { return s.ID.String() })
	return list, next, loadScheduleGroups(ctx, db, list)
}

func loadScheduleGroups(ctx context.Context, db IDB, list []*Schedule) error {
	byID := map[ScheduleID]*Schedule{}
	ids := []ScheduleID{}
	for _, s := range list {
		s.GroupIDs = []GroupID{}
		byID[s.ID] = s
		ids = append(ids, s.ID)
	}
	if len(ids) == 0 {
		return nil
	}
	var links []struct {
		ScheduleID    ScheduleID
		SourceGroupID GroupID
	}
	err := db.NewRaw("select schedule_id, source_group_id from schedule_source_groups where schedule_id in (?) order by source_group_id", bun.List(ids)).Scan(ctx, &links)
	if err != nil {
		return fmt.Errorf("groups of schedules: %w", err)
	}
	for _, l := range links {
		s := byID[l.ScheduleID]
		s.GroupIDs = append(s.GroupIDs, l.SourceGroupID)
	}
	return nil
}

// ScheduleSet is all schedules of a host as its agent sees them, with the
// version it had in the same instant.
func ScheduleSet(ctx context.Context, db IDB, host HostID) (protocol.ScheduleSet, error) {
	set := protocol.ScheduleSet{Schedules: []protocol.Schedule{}}
	var rows []struct {
		Version int64
		ID      *ScheduleID
		Cron    string
		Enabled bool
		Groups  []string `bun:",array"`
	}
	// One statement sees one state: the version and the set can't disagree.
	err := db.NewRaw(`select h.schedule_version as version, s.id, coalesce(s.cron, '') as cron, coalesce(s.enabled, false) as enabled,
			array(select sg.source_group_id::text from schedule_source_groups sg where sg.schedule_id = s.id order by 1) as groups
		from hosts h left join schedules s on s.host_id = h.id and s.archived_at is null
		where h.id = ? order by s.id`, host).Scan(ctx, &rows)
	if err != nil {
		return set, fmt.Errorf("schedule set: %w", err)
	}
	if len(rows) == 0 {
		return set, NotFound("host", host.String())
	}
	set.Version = rows[0].Version
	for _, r := range rows {
		if r.ID == nil {
			continue
		}
		set.Schedules = append(set.Schedules, protocol.Schedule{ID: r.ID.String(), Cron: r.Cron, Enabled: r.Enabled, SourceGroups: r.Groups})
	}
	return set, nil
}
