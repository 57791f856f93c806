package models

import (
	"context"
	"fmt"
	"slices"
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

// Waits says what each of the queued jobs among these waits for, in one
// statement however many they are. It tells what Claim's look would find.
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
	open, err := openBeside(ctx, db, hosts)
	if err != nil {
		return nil, err
	}
	waits := map[JobID]Wait{}
	for _, o := range open {
		// The rest of them are only in the way.
		if o.State == JobQueued && slices.ContainsFunc(jobs, func(j *Job) bool { return j.ID == o.ID }) {
			waits[o.ID] = Wait{Away: !o.There, Behind: behind(o, open)}
		}
	}
	return waits, nil
}

// openJob is a job that has not ended, with the repository that its host has
// now, 0 for none, and whether the host is there. Waits: it is queued, or set
// aside.
type openJob struct {
	Job        `bun:",extend"`
	Repository int32
	There      bool
	Waits      bool
}

// openBeside reads the open jobs of hosts, and those of others in the hosts'
// repositories, oldest first.
func openBeside(ctx context.Context, db IDB, hosts []HostID) ([]*openJob, error) {
	var open []*openJob
	err := db.NewRaw(`with r as materialized (select r.host_id, u.repository_id from host_repositories r join repository_urls u on u.url = r.url_key where r.host_id in (?0)),
			o as (select id from jobs where state in ('queued', 'sent', 'running') and host_id in (?0)
				union select id from jobs where state in ('queued', 'sent', 'running') and repository_id in (select repository_id from r))
		select j.id, j.host_id, j.kind, j.state, j.overtaken, j.source_group_name, j.repository_id, h.name as host_name, coalesce(r.repository_id, 0) as repository,
			?1 as there, `+waiting+` as waits
		from o join jobs j on j.id = o.id join hosts h on h.id = j.host_id left join r on r.host_id = j.host_id
		order by j.id limit 5000`, bun.List(hosts), hostLinked).Scan(ctx, &open)
	if err != nil {
		return nil, fmt.Errorf("what jobs wait for: %w", err)
	}
	return open, nil
}

// behind is the job that another has to wait for, by the rules of mayLeave;
// nil for none. Of several it is the one that is under way, else the oldest.
func behind(waits *openJob, open []*openJob) *Job {
	var asked *Job
	var besides []*Job
	j := &waits.Job
	for _, o := range open {
		other, underWay := &o.Job, !o.Waits
		sameHost, sameRepository := other.HostID == j.HostID, other.RepositoryID != nil && *other.RepositoryID == waits.Repository
		switch {
		case other.ID == j.ID:
		case sameHost && other.Kind == KindInit && other.State != JobQueued:
			return other
		case sameHost && other.Kind == KindInit && j.Kind != KindInit:
			asked = first(asked, other)
		case !j.Kind.gated():
			if sameHost && underWay && !other.Kind.gated() {
				besides = append(besides, other)
			}
		case sameRepository && underWay && other.Kind.gated() && (sameHost || other.Kind.exclusive() || j.Kind.exclusive()):
			return other
		case sameRepository && !underWay && other.Kind.exclusive() && !j.Kind.exclusive() && !j.Overtaken && o.There:
			asked = first(asked, other)
		case sameRepository && !underWay && j.Kind.overtakes() && o.There && !initOpen(other.HostID, open) &&
			((other.Kind == KindBackup && other.Overtaken) || (other.Kind.overtakes() && older(other, j))):
			asked = first(asked, other)
		}
	}
	if asked == nil && len(besides) >= beside {
		return besides[0]
	}
	return asked
}

func initOpen(host HostID, open []*openJob) bool {
	return slices.ContainsFunc(open, func(o *openJob) bool { return o.HostID == host && o.Kind == KindInit })
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
