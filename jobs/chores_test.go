package jobs_test

import (
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"resticfleet/models"
)

// atOnce runs f on both servers, four times each, all at the same moment.
func (b *bundle) atOnce(f func(server int) error) {
	b.t.Helper()
	var all sync.WaitGroup
	begin := make(chan struct{})
	for n := range 8 {
		all.Go(func() {
			<-begin
			if err := f(n % len(b.servers)); err != nil {
				b.t.Error(err)
			}
		})
	}
	close(begin)
	all.Wait()
}

// Servers share their chores without asking each other: a missed run is caught
// up once, whoever does it.
func TestServersCatchUpAtOnceAndMakeOneJobEach(t *testing.T) {
	t.Parallel()
	b := setup(t)
	var hosts []models.HostID
	for n := range 5 {
		h := b.host(fmt.Sprint("web-", n), fmt.Sprint("/srv/", n))
		b.schedule(h, true, b.group(h, "www"), b.group(h, "db"))
		hosts = append(hosts, h.ID)
	}
	b.exec("update schedules set effective_at = now() - interval '7 days'")
	b.exec("update host_repositories set bound_at = now() - interval '7 days'")
	b.exec("update hosts set timezone_since = now() - interval '7 days'")
	b.atOnce(func(server int) error { return b.servers[server].CatchUp(b.ctx, hosts...) })
	if n := b.count("select count(*) from jobs where catch_up"); n != 10 {
		t.Errorf("%d jobs for ten groups", n)
	}
	if n := b.count("select count(distinct (scheduled_id, scheduled_at, source_group_id)) from jobs where catch_up and state = 'queued'"); n != 10 {
		t.Errorf("%d different ones", n)
	}
}

// A silent host's job is ended once, by one of the servers, and the time that
// all of them listened counts once.
func TestServersJudgeSilenceOnce(t *testing.T) {
	t.Parallel()
	b := setup(t)
	for n := range 5 {
		h := b.host(fmt.Sprint("web-", n), fmt.Sprint("/srv/", n))
		b.run(b.group(h, "www"))
	}
	b.exec("update hearing set heard = interval '25 hours', ticked_at = now() - interval '20 seconds'")
	var ended atomic.Int64
	b.atOnce(func(server int) error {
		db := b.servers[server].DB
		if err := models.TickHearing(b.ctx, db); err != nil {
			return err
		}
		jobs, err := models.EndSilent(b.ctx, db, models.Silence{Expire: 24 * time.Hour, Lose: time.Hour})
		ended.Add(int64(len(jobs)))
		return err
	})
	if n := ended.Load(); n != 5 {
		t.Errorf("five jobs were ended %d times", n)
	}
	if n := b.count("select count(*) from jobs where state = 'expired'"); n != 5 {
		t.Errorf("%d are expired", n)
	}
	if n := b.count("select count(*) from hearing where heard between interval '25 hours 19 seconds' and interval '25 hours 60 seconds'"); n != 1 {
		t.Error("the servers' common time was counted more than once")
	}
}
