package models

import (
	"context"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/uptrace/bun"

	"resticfleet/agent/protocol"
)

// Retention is restic's policy; the zero value keeps everything.
type Retention = protocol.Retention

// Group is a source group: a named set of includes, excludes, a tag and a
// retention policy on one host.
type Group struct {
	bun.BaseModel `bun:"table:source_groups,alias:g"`

	ID        GroupID `bun:",pk"`
	HostID    HostID
	Name      string
	Tag       string
	Includes  []string  `bun:"type:jsonb"`
	Excludes  []string  `bun:"type:jsonb"`
	Retention Retention `bun:"type:jsonb"`
	MinFiles  int64
	MinBytes  int64

	// Kept as jobs end, schedules change and zones change; never written by a
	// form. See keepOutcome and keepLateness.
	NewestSnapshotID string
	GoodSnapshotID   string
	GoodAt           *time.Time
	GoodBytes        int64
	LastJobID        *JobID
	LastState        string
	LastError        string
	// CoveredAt is the newest due time that a good snapshot answers.
	CoveredAt *time.Time
	// DueAt is the due time that still waits for a good snapshot, and LateAt
	// when it makes the group late. Nil without an enabled schedule.
	DueAt         *time.Time
	LateAt        *time.Time
	DueScheduleID *ScheduleID
	// UsualFiles and UsualBytes are what the newest good snapshot of these
	// includes and excludes held, 0 before it.
	UsualFiles int64
	UsualBytes int64

	CreatedAt  time.Time `bun:",nullzero"`
	ArchivedAt *time.Time

	// Health is only there where a HostState was asked for.
	Health Health `bun:",scanonly"`
}

// GroupFields is what a person says of a group.
type GroupFields struct {
	Name      string
	Tag       string // "" takes the name, where that can be a tag
	Includes  []string
	Excludes  []string
	Retention Retention
	MinFiles  int64
	MinBytes  int64
}

var keepWithin = regexp.MustCompile(`^([0-9]{1,5}[ymdh]){1,4}$`)

const (
	maxPatterns   = 1000
	maxPathLength = 4096 // PATH_MAX of Linux, in bytes
)

func (f *GroupFields) normalize() error {
	var p problems
	f.Name = strings.TrimSpace(f.Name)
	checkName(&p, "name", f.Name)
	if f.Tag == "" {
		f.Tag = f.Name
	}
	checkTag(&p, "tag", f.Tag)
	checkIncludes(&p, f.Includes)
	checkExcludes(&p, f.Excludes)
	checkRetention(&p, f.Retention)
	if f.MinFiles < 0 {
		p.add("min_files", "must be 0 or more; 0 asks for nothing")
	}
	if f.MinBytes < 0 {
		p.add("min_bytes", "must be 0 or more; 0 asks for nothing")
	}
	if f.Excludes == nil {
		f.Excludes = []string{}
	}
	return p.err()
}

// checkTag: restic splits tags at commas and trims their ends, and job: is how
// we find a job's snapshot again.
func checkTag(p *problems, field, tag string) {
	switch {
	case strings.TrimSpace(tag) != tag || tag == "":
		p.add(field, "must not be empty or have blanks at its ends: restic trims them")
	case !utf8.ValidString(tag) || utf8.RuneCountInString(tag) > 100:
		p.add(field, "must be at most 100 characters of text")
	case strings.Contains(tag, ","):
		p.add(field, "must not contain a comma: restic would make two tags of it")
	case strings.ContainsFunc(tag, unicode.IsControl):
		p.add(field, "must not contain a control character")
	case strings.HasPrefix(tag, protocol.JobTagPrefix):
		p.add(field, "must not begin with job: since that marks the snapshots of one job")
	}
}

func checkIncludes(p *problems, includes []string) {
	const field = "includes"
	if len(includes) == 0 {
		p.add(field, "are missing: name at least one absolute path")
	}
	if len(includes) > maxPatterns {
		p.add(field, "are more than %d: include a folder above them", maxPatterns)
		return
	}
	seen := map[string]bool{}
	for i, s := range includes {
		at := fmt.Sprintf("%s[%d]", field, i)
		switch {
		case s == "":
			p.add(at, "is empty: remove it or name a path")
		case !strings.HasPrefix(s, "/"):
			p.add(at, "%q is relative: give the absolute path", CleanText(s, 200))
		case hasNUL(s) || !utf8.ValidString(s):
			p.add(at, "must be text without NUL bytes")
		case len(s) > maxPathLength:
			p.add(at, "is longer than %d bytes", maxPathLength)
		case seen[s]:
			p.add(at, "%q stands twice: remove one", s)
		}
		seen[s] = true
	}
}

func checkExcludes(p *problems, excludes []string) {
	const field = "excludes"
	if len(excludes) > maxPatterns {
		p.add(field, "are more than %d: use patterns", maxPatterns)
		return
	}
	for i, s := range excludes {
		at := fmt.Sprintf("%s[%d]", field, i)
		switch {
		case s == "":
			p.add(at, "is empty: remove it or give a pattern")
		case hasNUL(s) || !utf8.ValidString(s):
			p.add(at, "must be text without NUL bytes")
		case len(s) > maxPathLength:
			p.add(at, "is longer than %d bytes", maxPathLength)
		}
	}
}

func checkRetention(p *problems, r Retention) {
	for _, keep := range []struct {
		field string
		n     int
	}{
		{"keep_last", r.KeepLast}, {"keep_hourly", r.KeepHourly}, {"keep_daily", r.KeepDaily},
		{"keep_weekly", r.KeepWeekly}, {"keep_monthly", r.KeepMonthly}, {"keep_yearly", r.KeepYearly},
	} {
		if keep.n < 0 || keep.n > 100_000 {
			p.add("retention."+keep.field, "must be between 0 and 100000; 0 leaves the rule out")
		}
	}
	if r.KeepWithin != "" && !keepWithin.MatchString(r.KeepWithin) {
		p.add("retention.keep_within", "%q is not a duration: use restic's form, like 1y6m or 14d or 36h", CleanText(r.KeepWithin, 60))
	}
	checkKeepsSomething(p, r)
	if len(r.KeepTags) > 50 {
		p.add("retention.keep_tags", "are more than 50")
		return
	}
	for i, tag := range r.KeepTags {
		checkTag(p, fmt.Sprintf("retention.keep_tags[%d]", i), tag)
	}
}

// AddGroup makes a source group. Taken names and tags are EInvalid on the
// field; a tag that belongs to a deleted group says so.
func AddGroup(ctx context.Context, db *DB, host HostID, f GroupFields) (*Group, error) {
	if err := f.normalize(); err != nil {
		return nil, err
	}
	g := &Group{ID: NewID[GroupID](), HostID: host}
	g.set(f)
	err := Tx(ctx, db, func(tx IDB) error {
		if _, err := lockHost(ctx, tx, host); err != nil {
			return err
		}
		if err := takeTag(ctx, tx, g); err != nil {
			return err
		}
		if _, err := tx.NewInsert().Model(g).Returning("created_at").Exec(ctx); err != nil {
			return groupError(err, g)
		}
		return assignSnapshots(ctx, tx, host)
	})
	if err != nil {
		return nil, err
	}
	return g, nil
}

// UpdateGroup replaces what a person says of a group. Jobs that were made
// before keep what they were made with; the schedule version doesn't move.
func UpdateGroup(ctx context.Context, db *DB, host HostID, id GroupID, f GroupFields) (*Group, error) {
	if err := f.normalize(); err != nil {
		return nil, err
	}
	var g *Group
	err := Tx(ctx, db, func(tx IDB) error {
		var err error
		if _, err = lockHost(ctx, tx, host); err != nil {
			return err
		}
		if g, err = FindGroup(ctx, tx, host, id); err != nil {
			return err
		}
		if err := checkTagsKeep(ctx, tx, g, f.Retention); err != nil {
			return err
		}
		g.set(f)
		if err := takeTag(ctx, tx, g); err != nil {
			return err
		}
		// What other folders held says nothing of these.
		same := asksFor(g.Includes, g.Excludes)
		_, err = tx.NewUpdate().Model(g).Column("name", "tag", "includes", "excludes", "retention", "min_files", "min_bytes").
			Set("usual_files = case when ? then usual_files else 0 end, usual_bytes = case when ? then usual_bytes else 0 end", same, same).WherePK().Exec(ctx)
		if err != nil {
			return groupError(err, g)
		}
		return assignSnapshots(ctx, tx, host)
	})
	if err != nil {
		return nil, err
	}
	return g, nil
}

func (g *Group) set(f GroupFields) {
	g.Name, g.Tag = f.Name, f.Tag
	g.Includes, g.Excludes = f.Includes, f.Excludes
	g.Retention, g.MinFiles, g.MinBytes = f.Retention, f.MinFiles, f.MinBytes
}

// takeTag books the tag for this group for ever.
func takeTag(ctx context.Context, tx IDB, g *Group) error {
	_, err := tx.ExecContext(ctx, "insert into source_group_tags (host_id, tag, source_group_id) values (?, ?, ?) on conflict (host_id, tag) do nothing", g.HostID, g.Tag, g.ID)
	if err != nil {
		return fmt.Errorf("take tag: %w", err)
	}
	var owner GroupID
	var name, tag string
	var archived bool
	err = tx.QueryRowContext(ctx, `select t.source_group_id, coalesce(g.name, ''), coalesce(g.tag, ''), g.archived_at is not null
		from source_group_tags t left join source_groups g on g.id = t.source_group_id
		where t.host_id = ? and t.tag = ?`, g.HostID, g.Tag).Scan(&owner, &name, &tag, &archived)
	switch {
	case err != nil:
		return fmt.Errorf("take tag: %w", err)
	case owner == g.ID:
		return nil
	case archived:
		return Invalid("tag", "%q belongs to the deleted group %q, whose snapshots still carry it: choose another tag", g.Tag, name)
	case tag != g.Tag:
		return Invalid("tag", "%q was a tag of the group %q, whose older snapshots still carry it: choose another tag", g.Tag, name)
	}
	return Invalid("tag", "%q belongs to the group %q already: choose another tag", g.Tag, name)
}

func groupError(err error, g *Group) error {
	if violated(err, pgUniqueViolation, "source_groups_name") {
		return Invalid("name", "this host has a group %q already: choose another name", g.Name)
	}
	return fmt.Errorf("save source group: %w", err)
}

// FindGroup reads a live group of this host.
func FindGroup(ctx context.Context, db IDB, host HostID, id GroupID) (*Group, error) {
	g, err := FindAnyGroup(ctx, db, host, id)
	if err == nil && g.ArchivedAt != nil {
		return nil, NotFound("source group", id.String())
	}
	return g, err
}

// FindAnyGroup reads a group, deleted or not: its snapshots and its jobs stay.
func FindAnyGroup(ctx context.Context, db IDB, host HostID, id GroupID) (*Group, error) {
	g := &Group{}
	err := db.NewSelect().Model(g).Where("id = ? and host_id = ?", id, host).Scan(ctx)
	if isNoRows(err) {
		return nil, NotFound("source group", id.String())
	}
	if err != nil {
		return nil, fmt.Errorf("find source group: %w", err)
	}
	return g, nil
}

// ListAnyGroups returns all groups that a host has or had, the living first.
func ListAnyGroups(ctx context.Context, db IDB, host HostID) ([]*Group, error) {
	var groups []*Group
	err := db.NewSelect().Model(&groups).Column("id", "name", "archived_at").Where("host_id = ?", host).
		OrderExpr("archived_at is not null, lower(name)").Limit(MaxLimit).Scan(ctx)
	if err != nil {
		return nil, fmt.Errorf("list source groups: %w", err)
	}
	return groups, nil
}

// GoodJob is the backup that made a group's newest good snapshot; nil where
// there is no such snapshot, or nobody knows who made it.
func GoodJob(ctx context.Context, db IDB, g *Group) (*Job, error) {
	if g.GoodSnapshotID == "" {
		return nil, nil
	}
	j := &Job{}
	err := withNames(db.NewSelect().Model(j).ColumnExpr("j.*")).Where("j.source_group_id = ? and j.snapshot_id = ?", g.ID, g.GoodSnapshotID).OrderExpr("j.id desc").Limit(1).Scan(ctx)
	if isNoRows(err) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("find good job: %w", err)
	}
	return j, nil
}

// ListGroups returns a page of a host's live groups, newest first.
func ListGroups(ctx context.Context, db IDB, host HostID, page Page) ([]*Group, string, error) {
	var groups []*Group
	q := db.NewSelect().Model(&groups).Where("host_id = ? and archived_at is null", host)
	if err := page.apply(q); err != nil {
		return nil, "", err
	}
	if err := q.Scan(ctx); err != nil {
		return nil, "", fmt.Errorf("list source groups: %w", err)
	}
	groups, next := cut(groups, page, func(g *Group) string { return g.ID.String() })
	return groups, next, nil
}

// DeleteGroup archives a group: its name becomes free, its tag and snapshots
// stay its own, waiting jobs are cancelled, a running one may end. While any
// schedule refers to it, enabled or not, it is EConflict with the schedules.
func DeleteGroup(ctx context.Context, db *DB, host HostID, id GroupID) (cancelled []JobID, err error) {
	err = Tx(ctx, db, func(tx IDB) error {
		if _, err := lockHost(ctx, tx, host); err != nil {
			return err
		}
		g, err := FindGroup(ctx, tx, host, id)
		if err != nil {
			return err
		}
		refs, err := schedulesOf(ctx, tx, id)
		if err != nil {
			return err
		}
		if len(refs) > 0 {
			return groupInUse(g, refs)
		}
		_, err = tx.ExecContext(ctx, "update source_groups set archived_at = now() where id = ?", id)
		if violated(err, pgForeignKeyViolation, "") {
			return groupInUse(g, refs)
		}
		if err != nil {
			return fmt.Errorf("delete source group: %w", err)
		}
		if err := assignSnapshots(ctx, tx, host); err != nil {
			return err
		}
		cancelled, err = cancelQueued(ctx, tx, "source_group_id = ?", id)
		return err
	})
	return cancelled, err
}

// ScheduleRef names a schedule that stands in the way of a deletion.
type ScheduleRef struct {
	ID      ScheduleID `json:"id"`
	Cron    string     `json:"cron"`
	Enabled bool       `json:"enabled"`
}

func groupInUse(g *Group, refs []ScheduleRef) *Error {
	e := Conflict("“%s” is still in %s. Remove it from there first, then delete it.", g.Name, Counted(len(refs), "schedule", "schedules"))
	e.Detail = map[string]any{"schedules": refs}
	return e
}

func schedulesOf(ctx context.Context, db IDB, id GroupID) ([]ScheduleRef, error) {
	refs := []ScheduleRef{}
	err := db.NewRaw(`select s.id, s.cron, s.enabled from schedules s
		join schedule_source_groups sg on sg.schedule_id = s.id where sg.source_group_id = ? order by s.id`, id).Scan(ctx, &refs)
	if err != nil {
		return nil, fmt.Errorf("schedules of group: %w", err)
	}
	return refs, nil
}

// Counted is a number in words with the fitting one of two nouns: two schedules.
func Counted(n int, one, many string) string {
	words := []string{"no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"}
	unit := many
	if n == 1 {
		unit = one
	}
	if n < len(words) {
		return words[n] + " " + unit
	}
	return fmt.Sprintf("%d %s", n, unit)
}

// DayOutcome is what became of a group on one local day of its host.
type DayOutcome struct {
	SourceGroupID         GroupID
	Day                   time.Time
	Good, Warning, Failed int
}

// ListDays returns the last days of the given groups, oldest first.
func ListDays(ctx context.Context, db IDB, groups []GroupID, since time.Time) ([]DayOutcome, error) {
	var days []DayOutcome
	if len(groups) == 0 {
		return days, nil
	}
	err := db.NewRaw(`select source_group_id, day, good, warning, failed from source_group_days
		where source_group_id in (?) and day >= ? order by day`, bun.List(slices.Clone(groups)), since.Format(time.DateOnly)).Scan(ctx, &days)
	if err != nil {
		return nil, fmt.Errorf("list days: %w", err)
	}
	return days, nil
}

// NewestSnapshot is the id of a group's newest snapshot, "" before the first:
// the parent that makes its next backup quick.
func NewestSnapshot(ctx context.Context, db IDB, id GroupID) (string, error) {
	var snapshot string
	err := db.QueryRowContext(ctx, "select newest_snapshot_id from source_groups where id = ?", id).Scan(&snapshot)
	if err != nil {
		return "", fmt.Errorf("newest snapshot: %w", err)
	}
	return snapshot, nil
}
