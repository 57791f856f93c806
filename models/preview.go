package models

import (
	"cmp"
	"context"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"

	"resticfleet/agent/protocol"
)

// RetentionPlan is what a policy means for each of a group's snapshots, the
// newest first.
type RetentionPlan struct{ Keep, Remove []PlannedSnapshot }

// PlannedSnapshot is a snapshot with why it stays: restic's reasons, held, or
// none for one that goes.
type PlannedSnapshot struct {
	protocol.Snapshot
	Reasons []string
	Held    bool
}

const (
	reasonHeld       = "held"
	reasonEverything = "the policy keeps everything"
)

// previewKept is how long an answer that nobody fetched is kept.
const previewKept = 10 * time.Minute

// AskPreview makes the look-up that tells what a policy would do with the
// snapshots of a group, whatever tag of the group's they carry; JobFinished and
// PreviewAnswer do the rest. An empty policy keeps everything and needs no
// look-up where the snapshots are known: then the plan itself is the answer.
// EUnavailable while the host isn't there, EConflict where it can't be asked at
// all.
func AskPreview(ctx context.Context, db *DB, host HostID, group GroupID, policy Retention, actor Actor) (*Job, *RetentionPlan, error) {
	g, err := FindGroup(ctx, db, host, group)
	if err != nil {
		return nil, nil, err
	}
	var p problems
	checkRetention(&p, policy)
	if err := p.err(); err != nil {
		return nil, nil, err
	}
	if policy.Empty() {
		if plan, err := keepEverything(ctx, db, g); plan != nil || err != nil {
			return nil, plan, err
		}
		policy.KeepLast = keepAll
	}
	var j *Job
	err = Tx(ctx, db, func(tx IDB) error {
		h, err := lockHost(ctx, tx, host)
		if err != nil {
			return err
		}
		repo, err := repositoryToAsk(ctx, tx, h)
		if err != nil {
			return err
		}
		if !h.Online(time.Now()) {
			return &Error{Code: EUnavailable, Message: h.Name + " is not there to be asked. Bring it or its agent back, then look again; the policy can be saved without."}
		}
		var tags []string
		if err := tx.NewRaw("select tag from source_group_tags where source_group_id = ? order by tag", group).Scan(ctx, &tags); err != nil {
			return fmt.Errorf("preview: %w", err)
		}
		j = hostJob(host, KindSnapshots, actor, repo)
		j.Spec.Preview = &protocol.ForgetGroup{GroupID: g.ID.String(), Name: g.Name, Tags: tags, Retention: policy}
		return insertJob(ctx, tx, j)
	})
	return j, nil, err
}

var noSpan = regexp.MustCompile(`^(0+[ymdh])+$`)

// checkKeepsSomething: any number keeps the newest, and so does any span, which
// restic counts from the newest snapshot; tags are for checkTagsKeep.
func checkKeepsSomething(p *problems, r Retention) {
	if noSpan.MatchString(r.KeepWithin) && !r.Counts() && len(r.KeepTags) == 0 {
		p.add("retention.keep_within", "keeps nothing: give a longer span, or leave all fields empty to keep every snapshot. All snapshots of a group are removed in the host's danger zone only")
	}
}

// checkTagsKeep refuses a policy of tags alone that none of the group's known
// snapshots carries: it would remove them all. What else could, can't be told
// without restic, and the agent refuses it when it has restic's plan.
func checkTagsKeep(ctx context.Context, db IDB, g *Group, r Retention) error {
	if len(r.KeepTags) == 0 || r.Counts() || r.KeepWithin != "" && !noSpan.MatchString(r.KeepWithin) {
		return nil
	}
	var total, kept int
	err := db.QueryRowContext(ctx, `select count(*), count(*) filter (where exists (
			select from jsonb_array_elements_text(tags) t where t in (select jsonb_array_elements_text(?::jsonb))))
		from snapshots where source_group_id = ?`, jsonb{r.KeepTags}, g.ID).Scan(&total, &kept)
	if err != nil {
		return fmt.Errorf("snapshots kept: %w", err)
	}
	if total == 0 || kept > 0 {
		return nil
	}
	return Invalid("retention.keep_tags", "would remove %s, since none has any of these tags: add a number or a span. All snapshots of a group are removed in the host's danger zone only",
		counted(total, "the group's one snapshot", "all the group's %d snapshots"))
}

func counted(n int, one, many string) string {
	if n == 1 {
		return one
	}
	return fmt.Sprintf(many, n)
}

// keepAll is the number that an empty policy has when restic is asked: without
// any it would refuse. More than anybody may give, it keeps all there are.
const keepAll = 1 << 30

// keepEverything is the plan of an empty policy, from the list that is known; nil
// before there is one. A policy is for what carries one of the group's tags, and
// so is this.
func keepEverything(ctx context.Context, db IDB, g *Group) (*RetentionPlan, error) {
	var listed bool
	if err := db.QueryRowContext(ctx, "select snapshots_listed_at is not null from hosts where id = ?", g.HostID).Scan(&listed); err != nil || !listed {
		return nil, err
	}
	var rows []struct {
		ID, Hostname string
		At           time.Time
		Paths, Tags  []string `bun:"type:jsonb"`
		Held         bool
	}
	err := db.NewRaw(`select s.id, s.hostname, s.at, s.paths, s.tags, h.snapshot_id is not null as held
		from snapshots s left join snapshot_holds h on h.host_id = s.host_id and h.snapshot_id = s.id
		where s.host_id = ? and jsonb_exists_any(s.tags, array(select tag from source_group_tags where source_group_id = ?))
		order by s.at desc, s.id desc limit 10000`, g.HostID, g.ID).Scan(ctx, &rows)
	if err != nil {
		return nil, fmt.Errorf("snapshots of group: %w", err)
	}
	plan := &RetentionPlan{}
	for _, r := range rows {
		s := PlannedSnapshot{Snapshot: protocol.Snapshot{ID: r.ID, Time: r.At, Hostname: r.Hostname, Paths: r.Paths, Tags: r.Tags}, Reasons: []string{reasonEverything}, Held: r.Held}
		plan.Keep = append(plan.Keep, s)
	}
	return plan, nil
}

// PreviewAnswer is the plan that a preview's job has brought, on whichever
// server, and takes it away; nil while the job goes on. EUnavailable, with the
// reason, where it brought none.
func PreviewAnswer(ctx context.Context, db *DB, id JobID) (*RetentionPlan, error) {
	j, err := FindJob(ctx, db, id)
	if err != nil || !j.State.Ended() {
		return nil, err
	}
	var plan *RetentionPlan
	err = Tx(ctx, db, func(tx IDB) error {
		if j.State != JobSucceeded {
			if _, err := tx.ExecContext(ctx, "delete from job_answers where job_id = ?", id); err != nil {
				return fmt.Errorf("preview: %w", err)
			}
			return nil
		}
		var pieces []struct {
			Items []protocol.PlanItem `bun:"type:jsonb"`
		}
		if err := tx.NewRaw("with gone as (delete from job_answers where job_id = ? returning seq, items) select items from gone order by seq", id).Scan(ctx, &pieces); err != nil {
			return fmt.Errorf("preview: %w", err)
		}
		ids, err := HeldSnapshots(ctx, tx, j.HostID)
		if err != nil {
			return err
		}
		held := make(map[string]bool, len(ids))
		for _, id := range ids {
			held[id] = true
		}
		plan = &RetentionPlan{}
		for _, piece := range pieces {
			for _, item := range piece.Items {
				if item.Keep && j.Spec.Preview != nil && j.Spec.Preview.Retention.KeepLast == keepAll {
					item.Reasons = []string{reasonEverything}
				}
				plan.add(item, held)
			}
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	if plan == nil {
		why := cmp.Or(strings.TrimSpace(j.Error), "It was "+string(j.State)+".")
		return nil, &Error{Code: EUnavailable, Message: "The host could not say what this policy would do. " + why}
	}
	for _, list := range [][]PlannedSnapshot{plan.Keep, plan.Remove} {
		slices.SortFunc(list, func(a, b PlannedSnapshot) int { return cmp.Or(b.Time.Compare(a.Time), strings.Compare(b.ID, a.ID)) })
	}
	return plan, nil
}

func (p *RetentionPlan) add(item protocol.PlanItem, held map[string]bool) {
	if !resticID.MatchString(item.Snapshot.ID) {
		return
	}
	s := PlannedSnapshot{Snapshot: item.Snapshot, Held: held[item.Snapshot.ID]}
	for _, reason := range item.Reasons[:min(len(item.Reasons), 20)] {
		s.Reasons = append(s.Reasons, CleanText(reason, 200))
	}
	switch {
	case item.Keep:
		p.Keep = append(p.Keep, s)
	case s.Held:
		s.Reasons = []string{reasonHeld}
		p.Keep = append(p.Keep, s)
	default:
		s.Reasons = nil
		p.Remove = append(p.Remove, s)
	}
}

// SweepPreviews removes answers that nobody came for: their server died, or had
// given up before they came.
func SweepPreviews(ctx context.Context, db IDB) error {
	_, err := db.ExecContext(ctx, `delete from job_answers where job_id in (
		select a.job_id from job_answers a join jobs j on j.id = a.job_id
		where j.spec->'preview' is not null and j.finished_at < now() - ?::interval)`, interval(previewKept))
	if err != nil {
		return fmt.Errorf("sweep previews: %w", err)
	}
	return nil
}

// GroupSnapshots is how many snapshots of a group are known, and of which time.
type GroupSnapshots struct {
	GroupID        GroupID
	Name           string
	Count, Held    int
	Newest, Oldest time.Time
}

// CountSnapshots tells of the known snapshots of a host's groups, deleted ones
// included; a group without any is left out.
func CountSnapshots(ctx context.Context, db IDB, host HostID) ([]GroupSnapshots, error) {
	var all []GroupSnapshots
	err := db.NewRaw(`select g.id as group_id, g.name, count(*) as count, count(h.snapshot_id) as held, max(s.at) as newest, min(s.at) as oldest
		from snapshots s join source_groups g on g.id = s.source_group_id
		left join snapshot_holds h on h.host_id = s.host_id and h.snapshot_id = s.id
		where s.host_id = ? group by g.id, g.name order by lower(g.name), g.id limit 500`, host).Scan(ctx, &all)
	if err != nil {
		return nil, fmt.Errorf("count snapshots: %w", err)
	}
	return all, nil
}

// RemovedAtOnce is how many snapshots one removal names at most, the oldest:
// they have to fit into one protocol.MaxFrame.
const RemovedAtOnce = 10_000

// RemoveSnapshots makes the job that forgets all of a group's known snapshots
// but the held ones, up to RemovedAtOnce, whatever its policy says. EConflict
// where there are none.
func RemoveSnapshots(ctx context.Context, db *DB, host HostID, group GroupID, actor Actor) (*Job, error) {
	var made JobID
	err := Tx(ctx, db, func(tx IDB) error {
		h, err := lockHost(ctx, tx, host)
		if err != nil {
			return err
		}
		g, err := FindAnyGroup(ctx, tx, host, group)
		if err != nil {
			return err
		}
		var ids []string
		err = tx.NewRaw(`select id from snapshots s where source_group_id = ? and host_id = ?
			and not exists (select from snapshot_holds h where h.host_id = s.host_id and h.snapshot_id = s.id) order by at, id limit ?`, group, host, RemovedAtOnce).Scan(ctx, &ids)
		if err != nil {
			return fmt.Errorf("remove snapshots: %w", err)
		}
		if len(ids) == 0 {
			return Conflict("No snapshot of “%s” is known that could be removed: there is none, or all are held.", g.Name)
		}
		made, err = forgetThese(ctx, tx, h, g.Name, ids, actor)
		return err
	})
	if err != nil {
		return nil, err
	}
	return FindJob(ctx, db, made)
}
