package models

import (
	"context"
	"fmt"
	"time"

	"github.com/uptrace/bun"
	"github.com/uptrace/bun/schema"
)

// ownerAwayFor is how long the owner of a shared repository may be silent, while
// servers listened, before another host takes its work over.
const ownerAwayFor = 72 * time.Hour

// OwnerChange is what came along when repositories got another owner.
type OwnerChange struct {
	// Hosts share one of those repositories.
	Hosts []HostID
	// Ended are the prunes and checks that waited for hosts which don't own their
	// repository any more; they were never sent.
	Ended []*Job
}

// ownRepositories gives every repository, or the one that an address leads to,
// an owner that is there: the host that bound it first, where it has none, and
// another one where its owner was deleted, was bound elsewhere, or fell silent
// for too long while that other one is linked. What waits for a host that is not
// the owner ends; it changes nothing else.
func ownRepositories(ctx context.Context, tx IDB, urlKey string) (OwnerChange, error) {
	var changed []int32
	err := tx.NewRaw(`with bound as (
			select u.repository_id, hr.host_id, hr.bound_at, ?0 as there, not ?0 and `+heardNow+` - h.heard > ?1::interval as gone, r.owner_host_id is not null as taking
			from host_repositories hr join repository_urls u on u.url = hr.url_key join repositories r on r.id = u.repository_id join hosts h on h.id = hr.host_id and h.archived_at is null
			where ?2 = '' or u.repository_id = (select repository_id from repository_urls where url = ?2)),
		best as (select distinct on (repository_id) repository_id, host_id, there from bound order by repository_id, gone, taking and not there, bound_at, host_id)
		update repositories r set owner_host_id = best.host_id, owner_since = now(), owner_before = r.owner_host_id,
			owner_reason = case when r.owner_host_id is null then 'bound' else 'taken' end
		from best left join bound o on o.repository_id = best.repository_id and o.host_id = (select owner_host_id from repositories where id = best.repository_id)
		where r.id = best.repository_id and best.host_id is distinct from r.owner_host_id
			and (o.host_id is null or (o.gone and best.there)) returning r.id`,
		hostLinked, interval(ownerAwayFor), urlKey).Scan(ctx, &changed)
	if err != nil {
		return OwnerChange{}, fmt.Errorf("owners of repositories: %w", err)
	}
	return ownersChanged(ctx, tx, changed)
}

// ownersChanged ends what waits for hosts that don't own their repository: as a
// look at what is, not at what changed, so that nothing made meanwhile slips by.
func ownersChanged(ctx context.Context, tx IDB, repositories []int32) (c OwnerChange, err error) {
	if len(repositories) > 0 {
		if c.Hosts, err = hostsOf(ctx, tx, repositories); err == nil {
			err = handOver(ctx, tx, bun.SafeQuery("select id, owner_before from repositories where id in (?)", bun.List(repositories)))
		}
	}
	if err == nil {
		c.Ended, err = endElsewhere(ctx, tx, "true")
	}
	if err != nil {
		return c, fmt.Errorf("owners of repositories: %w", err)
	}
	return c, nil
}

// oneOwner decides between the owners of two repositories that proved to be one,
// reached by an address that led to the other. The one that goes leaves its
// cadences behind.
func oneOwner(ctx context.Context, tx IDB, urlKey string, from, to int32) error {
	var gone *HostID
	err := tx.NewRaw(`with f as (
			select * from repositories where id = ?1 and exists (select from host_repositories where host_id = owner_host_id and url_key = ?2)),
		first as (update repositories r set owner_host_id = f.owner_host_id, owner_since = f.owner_since, owner_before = r.owner_host_id
			from f where r.id = ?0 and r.owner_reason = 'bound' and f.owner_reason = 'bound' and f.owner_since < r.owner_since returning r.owner_before)
		select coalesce((select owner_before from first), (select owner_host_id from f))`, to, from, urlKey).Scan(ctx, &gone)
	if err != nil || gone == nil {
		return err
	}
	return handOver(ctx, tx, bun.SafeQuery("select ?::integer, ?::uuid", to, gone))
}

// hostsOf are the hosts that have any of these repositories.
func hostsOf(ctx context.Context, tx IDB, repositories []int32) (hosts []HostID, err error) {
	err = tx.NewRaw(`select hr.host_id from host_repositories hr join repository_urls u on u.url = hr.url_key
		where u.repository_id in (?)`, bun.List(repositories)).Scan(ctx, &hosts)
	return hosts, err
}

// handOver gives the owners of repositories the prune and check cadences of those
// who were it before, a query for pairs of a repository and a host, where they
// have none that is on: the work goes on, whoever does it.
func handOver(ctx context.Context, tx IDB, before schema.QueryAppender) error {
	_, err := tx.ExecContext(ctx, `with given as (
			select r.owner_host_id as heir, o.* from (?) b (repository_id, host_id) join repositories r on r.id = b.repository_id
			join host_repo_maintenance o on o.host_id = b.host_id where b.host_id <> r.owner_host_id),
		taken as (update host_repo_maintenance n set updated_at = now(),
			prune_enabled = n.prune_enabled or g.prune_enabled, prune_cron = case when n.prune_enabled or not g.prune_enabled then n.prune_cron else g.prune_cron end,
			check_enabled = n.check_enabled or g.check_enabled, check_cron = case when n.check_enabled or not g.check_enabled then n.check_cron else g.check_cron end,
			check_read_data_subset = case when n.check_enabled or not g.check_enabled then n.check_read_data_subset else g.check_read_data_subset end
			from given g where n.host_id = g.heir)
		update maintenance_states s set effective_at = now(), failures = 0, failed_at = null, stale_at = null
		from given g join host_repo_maintenance was on was.host_id = g.heir
		where s.host_id = g.heir and ((s.kind = 'prune' and g.prune_enabled and not was.prune_enabled) or (s.kind = 'check' and g.check_enabled and not was.check_enabled))`,
		before)
	return err
}

// endElsewhere ends the prunes and checks j that wait for a host whose repository
// another one owns.
func endElsewhere(ctx context.Context, tx IDB, where string, args ...any) ([]*Job, error) {
	var ended []*Job
	err := tx.NewRaw(`update jobs j set state = 'cancelled', finished_at = now(), error_code = ?, error = 'Cancelled: “' || o.name || '” prunes and checks this shared repository now. '
			|| 'Run it there, or make this host the repository''s owner, then run it here.'
		from host_repositories hr join repository_urls u on u.url = hr.url_key join repositories r on r.id = u.repository_id join hosts o on o.id = r.owner_host_id
		where j.state = 'queued' and j.kind in ('prune', 'check') and hr.host_id = j.host_id and r.owner_host_id <> j.host_id and ? returning j.*`,
		CodeNotOwner, bun.SafeQuery(where, args...)).Scan(ctx, &ended)
	if err != nil {
		return nil, err
	}
	for _, j := range ended {
		if err := keepMaintenance(ctx, tx, j); err != nil {
			return nil, err
		}
	}
	return ended, nil
}

// OwnRepositories is ownRepositories for the whole fleet.
func OwnRepositories(ctx context.Context, db *DB) (c OwnerChange, err error) {
	err = Tx(ctx, db, func(tx IDB) error {
		c, err = ownRepositories(ctx, tx, "")
		return err
	})
	return c, err
}

// OwnRepository makes a host the owner of its repository's prune and check, for
// all hosts that share it. What the owner before has begun still ends; what
// waits for it never begins.
func OwnRepository(ctx context.Context, db *DB, host HostID) (c OwnerChange, err error) {
	err = Tx(ctx, db, func(tx IDB) error {
		if _, err := lockHost(ctx, tx, host); err != nil {
			return err
		}
		repo, err := neededRepository(ctx, tx, host)
		if err != nil {
			return err
		}
		var changed []int32
		err = tx.NewRaw(`update repositories set owner_before = owner_host_id, owner_host_id = ?, owner_since = now(), owner_reason = 'chosen'
			where id = ? and owner_host_id is distinct from ? returning id`, host, repo.RepositoryID, host).Scan(ctx, &changed)
		if err != nil {
			return fmt.Errorf("own repository: %w", err)
		}
		c, err = ownersChanged(ctx, tx, changed)
		return err
	})
	return c, err
}

// Owner tells who prunes and checks a host's repository, and with whom it is
// shared.
type Owner struct {
	HostID HostID
	Name   string
	Since  *time.Time
	// Reason is bound (first), chosen (by a person) or taken (from one that was
	// gone, whose name is Before).
	Reason string
	Before string
	// Sharers are all hosts that have the repository, by name.
	Sharers []Sharer `bun:"type:jsonb"`
}

// Sharer is a host that has a repository.
type Sharer struct {
	ID   HostID `json:"id"`
	Name string `json:"name"`
}

// FindOwner reads who owns a host's repository; nil where the host has none.
func FindOwner(ctx context.Context, db IDB, host HostID) (*Owner, error) {
	o := &Owner{}
	err := db.NewRaw(`select o.id as host_id, coalesce(o.name, '') as name, r.owner_since as since, r.owner_reason as reason, coalesce(b.name, '') as before,
			(select jsonb_agg(jsonb_build_object('id', h.id, 'name', h.name) order by lower(h.name))
				from host_repositories hr join repository_urls u on u.url = hr.url_key join hosts h on h.id = hr.host_id and h.archived_at is null
				where u.repository_id = r.id) as sharers
		from host_repositories mine join repository_urls u on u.url = mine.url_key join repositories r on r.id = u.repository_id
		left join hosts o on o.id = r.owner_host_id left join hosts b on b.id = r.owner_before
		where mine.host_id = ?`, host).Scan(ctx, o)
	if isNoRows(err) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("find owner: %w", err)
	}
	return o, nil
}
