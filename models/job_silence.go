package models

import (
	"context"
	"fmt"
	"time"
)

// Silence says how long a host may be silent while it has, or should fetch, a
// job. Only time in which a server was listening counts.
type Silence struct {
	// Expire ends a job that its host never came for.
	Expire time.Duration
	// Lose gives up on a job that its host had accepted. A late true result
	// still replaces it. One that was sent and not accepted is set aside.
	Lose time.Duration
}

// EndSilent ends the jobs of hosts that were silent for too long. Those that may
// have reached their host, which expire much later, it sets aside, so that nobody
// waits for a gate behind them. It returns both. Any server may call it at any
// time: the rows themselves say what is due.
func EndSilent(ctx context.Context, db *DB, s Silence) ([]*Job, error) {
	var ended []*Job
	err := Tx(ctx, db, func(tx IDB) error {
		ended = nil
		for _, rule := range []struct {
			state JobState
			which string
			after time.Duration
			code  string
			why   string
		}{
			{
				JobExpired, "j.accepted_at is null and j.state in ('queued', 'sent')", s.Expire, CodeExpired,
				"The host did not come for this job for %s. Nothing was run. Bring the host back, then run it again.",
			},
			{
				JobLost, "j.accepted_at is not null and j.state in ('sent', 'running')", s.Lose, CodeHostSilent,
				"The host has this job and has been silent for %s. Whether it still runs is not known; if the host comes back, its result replaces this.",
			},
		} {
			var jobs []*Job
			err := tx.NewRaw(`update jobs j set state = ?, finished_at = now(), error_code = ?, error = ?, claim_generation = h.link_generation
				from hosts h where h.id = j.host_id and `+rule.which+`
					and `+heardNow+` - greatest(j.heard, h.heard) > ?::interval
				returning j.*`,
				rule.state, rule.code, fmt.Sprintf(rule.why, inWords(rule.after)), interval(rule.after)).Scan(ctx, &jobs)
			if err != nil {
				return fmt.Errorf("end silent jobs: %w", err)
			}
			ended = append(ended, jobs...)
		}
		if err := keepLost(ctx, tx, ended); err != nil {
			return err
		}
		var aside []*Job
		err := tx.NewRaw(`update jobs j set gate = null, offered_at = null
			from hosts h where h.id = j.host_id and j.state = 'sent' and j.accepted_at is null and j.settle_after is null and j.offered_at is not null
				and j.kind in ('backup', 'init', 'forget', 'prune', 'check')
				and `+heardNow+` - greatest(j.heard, h.heard) > ?::interval
			returning j.*`, interval(s.Lose)).Scan(ctx, &aside)
		if err != nil {
			return fmt.Errorf("set jobs aside: %w", err)
		}
		ended = append(ended, aside...)
		return nil
	})
	return ended, err
}

// inWords is a span of time as one says it: "24 hours", "15 minutes", "1m30s".
func inWords(d time.Duration) string {
	for _, unit := range []struct {
		d    time.Duration
		name string
	}{{time.Hour, "hour"}, {time.Minute, "minute"}, {time.Second, "second"}} {
		switch n := d / unit.d; {
		case d == 0 || d%unit.d != 0:
		case n == 1:
			return "1 " + unit.name
		default:
			return fmt.Sprintf("%d %ss", n, unit.name)
		}
	}
	return d.String()
}

// keepLost shows a group whose backup was lost as one that needs a hand, and how
// maintenance ended that its host never told of.
func keepLost(ctx context.Context, tx IDB, ended []*Job) error {
	for _, j := range ended {
		if err := keepMaintenance(ctx, tx, j); err != nil {
			return err
		}
		if j.State != JobLost || j.Kind != KindBackup {
			continue
		}
		if err := keepLast(ctx, tx, j); err != nil {
			return err
		}
	}
	return nil
}
