package models

import (
	"context"
	"fmt"
	"time"

	"github.com/uptrace/bun"
)

// Wait is what a queued job waits for. Away: its host is not there. Behind: the
// job that has to end first. Neither: its turn has come, and it leaves with the
// next look.
type Wait struct {
	Away   bool
	Behind *Job
}

// Waits says what each of the queued jobs among these waits for, in two
// statements however many they are. It tells what Claim's look would find.
func Waits(ctx context.Context, db IDB, jobs []*Job) (map[JobID]Wait, error) {
	var hosts []HostID
	for _, j := range jobs {
		if j.State == JobQueued {
			hosts = append(hosts, j.HostID)
		}
	}
	if len(hosts) == 0 {
		return nil, nil
	}
	var places []struct {
		Host         HostID
		RepositoryID *int32
		There        bool
	}
	err := db.NewRaw(`select h.id as host, u.repository_id, coalesce(h.link_closed_at is null and h.last_seen_at > now() - ?::interval, false) as there
		from hosts h left join host_repositories r on r.host_id = h.id left join repository_urls u on u.url = r.url_key where h.id in (?)`,
		interval(OnlineFor), bun.List(hosts)).Scan(ctx, &places)
	if err != nil {
		return nil, fmt.Errorf("what jobs wait for: %w", err)
	}
	repositories, there := map[HostID]int32{}, map[HostID]bool{}
	var shared []int32
	for _, p := range places {
		there[p.Host] = p.There
		if p.RepositoryID != nil {
			repositories[p.Host] = *p.RepositoryID
			shared = append(shared, *p.RepositoryID)
		}
	}
	open, err := openBeside(ctx, db, hosts, shared)
	if err != nil {
		return nil, err
	}
	waits := map[JobID]Wait{}
	for _, j := range jobs {
		if j.State == JobQueued {
			waits[j.ID] = Wait{Away: !there[j.HostID], Behind: behind(j, repositories[j.HostID], open)}
		}
	}
	return waits, nil
}

// openJob is a job that has not ended, and whether its host is there.
type openJob struct {
	Job   `bun:",extend"`
	There bool
}

func openBeside(ctx context.Context, db IDB, hosts []HostID, repositories []int32) ([]*openJob, error) {
	var open []*openJob
	q := db.NewSelect().TableExpr("jobs as j").Join("join hosts h on h.id = j.host_id").
		ColumnExpr("j.id, j.host_id, j.kind, j.state, j.source_group_name, j.repository_id, h.name as host_name").
		ColumnExpr("coalesce(h.link_closed_at is null and h.last_seen_at > now() - ?::interval, false) as there", interval(OnlineFor)).
		Where("j.state in ('queued', 'sent', 'running')").OrderExpr("j.id").Limit(5000)
	if len(repositories) > 0 {
		q.Where("(j.host_id in (?) or j.repository_id in (?))", bun.List(hosts), bun.List(repositories))
	} else {
		q.Where("j.host_id in (?)", bun.List(hosts))
	}
	if err := q.Scan(ctx, &open); err != nil {
		return nil, fmt.Errorf("what jobs wait for: %w", err)
	}
	return open, nil
}

// behind is the job that another has to wait for, by the rules of mayLeave;
// nil for none. Of several it is the one that is under way, else the oldest.
func behind(j *Job, repository int32, open []*openJob) *Job {
	var asked *Job
	var besides []*Job
	for _, o := range open {
		other, underWay := &o.Job, o.State != JobQueued
		sameHost, sameRepository := other.HostID == j.HostID, other.RepositoryID != nil && *other.RepositoryID == repository
		switch {
		case other.ID == j.ID:
		case sameHost && other.Kind == KindInit && underWay:
			return other
		case sameHost && other.Kind == KindInit && j.Kind != KindInit:
			asked = first(asked, other)
		case !j.Kind.gated():
			if sameHost && underWay && !other.Kind.gated() {
				besides = append(besides, other)
			}
		case sameRepository && underWay && other.Kind.gated() && (sameHost || other.Kind.exclusive() || j.Kind.exclusive()):
			return other
		case sameRepository && !underWay && other.Kind.exclusive() && !j.Kind.exclusive() && older(other, j) && o.There:
			asked = first(asked, other)
		}
	}
	if asked == nil && len(besides) >= beside {
		return besides[0]
	}
	return asked
}

func first(a, b *Job) *Job {
	if a == nil {
		return b
	}
	return a
}

func older(a, b *Job) bool { return a.ID.String() < b.ID.String() }

// SilentFor is how long nothing has been heard of a host, 0 while it is there.
func (h *Host) SilentFor(at time.Time) time.Duration {
	if h.LastSeenAt == nil || h.Online(at) {
		return 0
	}
	return at.Sub(*h.LastSeenAt)
}
