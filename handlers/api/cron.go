package api

import (
	"context"
	"time"

	"resticfleet/models"
	"resticfleet/models/cronspec"
)

type cronExplained struct {
	Description string   `json:"description"`
	NextRuns    []string `json:"next_runs" format:"date-time"`
}

func (s *server) explainCron(_ context.Context, in *struct {
	Expr     string `query:"expr"`
	Timezone string `query:"timezone" default:"UTC" doc:"Used unless the expression names its own zone."`
	After    string `query:"after" doc:"An RFC 3339 time; now, when it is left out."`
	Count    int    `query:"count" minimum:"1" maximum:"1000" default:"5"`
}) (*answer[cronExplained], error) {
	spec, err := cronspec.Parse(in.Expr)
	if err != nil {
		return nil, models.Invalid("expr", "%s", err)
	}
	loc, err := cronspec.LoadZone(in.Timezone)
	if err != nil {
		return nil, models.Invalid("timezone", "%s", err)
	}
	after := time.Now()
	if in.After != "" {
		if after, err = time.Parse(time.RFC3339, in.After); err != nil {
			return nil, models.Invalid("after", "must be an RFC 3339 time such as 2026-03-29T00:00:00Z (in a URL, write + as %%2B)")
		}
	}
	return &answer[cronExplained]{cronExplained{spec.Describe(), nextRuns(spec, after, loc, in.Count)}}, nil
}
