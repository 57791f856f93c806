package jobs_test

import (
	"sync"
	"testing"
	"time"

	"resticfleet/models"
)

// Sweep and hello, here and on another server, find the same miss at once.
func TestAMissIsCaughtUpOnceWhoeverFindsIt(t *testing.T) {
	t.Parallel()
	b := setup(t)
	h := b.host("laptop", "/srv/repo")
	s := b.schedule(h, true, b.group(h, "www"), b.group(h, "etc"))
	long := time.Now().AddDate(0, 0, -7)
	b.exec("update schedules set effective_at = ?", long)
	b.exec("update host_repositories set bound_at = ?", long)
	b.exec("update hosts set timezone_since = ?", long)
	begin := make(chan struct{})
	var sweeps sync.WaitGroup
	for i := range 8 {
		sweeps.Go(func() {
			<-begin
			if err := b.servers[i%2].CatchUp(b.ctx, h.ID); err != nil {
				t.Error(err)
			}
		})
	}
	close(begin)
	sweeps.Wait()
	if err := b.servers[0].CatchUp(b.ctx, h.ID); err != nil {
		t.Error(err)
	}
	// Seven days, one run: a job per group, for the newest of them.
	if all, marked := b.count("select count(*) from jobs where scheduled_id = ?", s.ID),
		b.count("select count(*) from jobs where scheduled_id = ? and catch_up and state = 'queued' and scheduled_at > now() - interval '25 hours'", s.ID); all != 2 || marked != 2 {
		t.Errorf("%d jobs, %d of them caught up for the newest time", all, marked)
	}
	if waiting := b.count("select coalesce(max(n), 0) from (select count(*) n from jobs where state = ? group by source_group_id) w", models.JobQueued); waiting != 1 {
		t.Errorf("%d wait for one group", waiting)
	}
}
