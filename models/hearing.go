package models

import (
	"context"
	"fmt"
	"time"
)

// hearingGap is the longest time between two ticks that still counts as
// listening.
const hearingGap = 30 * time.Second

// heardNow is SQL for the sum of all time in which some server was listening.
const heardNow = "(select heard from hearing)"

// TickHearing says that a server listens. Any number of servers may tick: the
// time between two ticks counts once, whoever made them, and not at all when
// it is longer than hearingGap, because then nobody was there.
func TickHearing(ctx context.Context, db IDB) error {
	_, err := db.ExecContext(ctx, `update hearing set ticked_at = now(),
		heard = heard + case when now() - ticked_at between interval '0' and ?::interval then now() - ticked_at else interval '0' end`,
		interval(hearingGap))
	if err != nil {
		return fmt.Errorf("tick: %w", err)
	}
	return nil
}
