package models

import (
	"context"
	"fmt"
	"time"
)

// Today is what became of a day's backups, of one host or of all.
type Today struct{ Good, Warning, Failed int }

// CountToday sums the strips' newest day: no page counts jobs.
func CountToday(ctx context.Context, db IDB, host HostID, day time.Time) (Today, error) {
	var t Today
	q := db.NewSelect().TableExpr("source_group_days as d").
		ColumnExpr("coalesce(sum(good), 0), coalesce(sum(warning), 0), coalesce(sum(failed), 0)").
		Where("d.day = ?", day.Format(time.DateOnly))
	if !host.IsZero() {
		q.Join("join source_groups g on g.id = d.source_group_id").Where("g.host_id = ?", host)
	}
	if err := q.Scan(ctx, &t.Good, &t.Warning, &t.Failed); err != nil {
		return Today{}, fmt.Errorf("count today: %w", err)
	}
	return t, nil
}
