package api

import (
	"context"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"resticfleet/models"
	"resticfleet/models/cronspec"
)

// shownRuns is how many next runs a schedule names.
const shownRuns = 5

type schedule struct {
	ID             string   `json:"id" format:"uuid"`
	Cron           string   `json:"cron"`
	Enabled        bool     `json:"enabled"`
	SourceGroupIDs []string `json:"source_group_ids" format:"uuid"`
	NextRuns       []string `json:"next_runs" format:"date-time" doc:"In the host's time zone unless cron names another; none while it is disabled."`
}

func newSchedule(s *models.Schedule, loc *time.Location, now time.Time) schedule {
	out := schedule{ID: s.ID.String(), Cron: s.Cron, Enabled: s.Enabled, SourceGroupIDs: []string{}, NextRuns: []string{}}
	for _, id := range s.GroupIDs {
		out.SourceGroupIDs = append(out.SourceGroupIDs, id.String())
	}
	// An expression that an older version accepted and this one doesn't has no
	// next runs; the schedule can still be read and mended.
	if spec, err := cronspec.Parse(s.Cron); err == nil && s.Enabled {
		out.NextRuns = nextRuns(spec, now, loc, shownRuns)
	}
	return out
}

func nextRuns(spec cronspec.Spec, after time.Time, loc *time.Location, n int) []string {
	runs := []string{}
	for _, run := range spec.Runs(after, loc, n) {
		runs = append(runs, timestamp(run.At))
	}
	return runs
}

type scheduleFields struct {
	Cron           string   `json:"cron" doc:"Five fields, a descriptor like @daily, or @every; CRON_TZ= in front names a zone."`
	Enabled        *bool    `json:"enabled,omitempty" doc:"True when a new schedule leaves it out, kept when a change does."`
	SourceGroupIDs []string `json:"source_group_ids" doc:"Source groups of the same host, at least one."`
}

func (scheduleFields) TransformSchema(r huma.Registry, s *huma.Schema) *huma.Schema {
	return acceptReadOnly[schedule](r, s)
}

func (f scheduleFields) fields(enabled bool) models.ScheduleFields {
	if f.Enabled != nil {
		enabled = *f.Enabled
	}
	return models.ScheduleFields{Cron: f.Cron, Enabled: enabled, GroupIDs: f.SourceGroupIDs}
}

// SchedulePath is the part of a path that names a schedule of a host.
type SchedulePath struct {
	HostPath
	ScheduleID string `path:"sid" doc:"The schedule's id."`
}

func (s *server) findSchedule(ctx context.Context, p SchedulePath) (*models.Host, *models.Schedule, error) {
	h, err := s.find(ctx, p.HostPath)
	if err != nil {
		return nil, nil, err
	}
	id, err := models.ParseID[models.ScheduleID](p.ScheduleID)
	if err != nil {
		return nil, nil, err
	}
	found, err := models.FindSchedule(ctx, s.DB, h.ID, id)
	return h, found, err
}

func (s *server) listSchedules(ctx context.Context, in *struct {
	HostPath
	Page
}) (*answer[list[schedule]], error) {
	h, err := s.find(ctx, in.HostPath)
	if err != nil {
		return nil, err
	}
	schedules, next, err := models.ListSchedules(ctx, s.DB, h.ID, in.page())
	if err != nil {
		return nil, err
	}
	loc, now := h.Location(), time.Now()
	return newList(schedules, next, func(one *models.Schedule) schedule { return newSchedule(one, loc, now) }), nil
}

func (s *server) addSchedule(ctx context.Context, in *struct {
	HostPath
	Body scheduleFields
}) (*created[schedule], error) {
	h, err := s.find(ctx, in.HostPath)
	if err != nil {
		return nil, err
	}
	added, err := models.AddSchedule(ctx, s.DB, h.ID, in.Body.fields(true))
	if err != nil {
		return nil, err
	}
	s.Jobs.HostChanged(h.ID)
	return &created[schedule]{
		"/api/hosts/" + h.ID.String() + "/schedules/" + added.ID.String(),
		newSchedule(added, h.Location(), time.Now()),
	}, nil
}

func (s *server) getSchedule(ctx context.Context, in *SchedulePath) (*answer[schedule], error) {
	h, found, err := s.findSchedule(ctx, *in)
	if err != nil {
		return nil, err
	}
	return &answer[schedule]{newSchedule(found, h.Location(), time.Now())}, nil
}

func (s *server) putSchedule(ctx context.Context, in *struct {
	SchedulePath
	Body scheduleFields
}) (*answer[schedule], error) {
	h, found, err := s.findSchedule(ctx, in.SchedulePath)
	if err != nil {
		return nil, err
	}
	changed, err := models.UpdateSchedule(ctx, s.DB, h.ID, found.ID, in.Body.fields(found.Enabled))
	if err != nil {
		return nil, err
	}
	s.Jobs.HostChanged(h.ID)
	return &answer[schedule]{newSchedule(changed, h.Location(), time.Now())}, nil
}

func (s *server) deleteSchedule(ctx context.Context, in *SchedulePath) (*struct{}, error) {
	h, found, err := s.findSchedule(ctx, *in)
	if err != nil {
		return nil, err
	}
	cancelled, err := models.DeleteSchedule(ctx, s.DB, h.ID, found.ID)
	if err != nil {
		return nil, err
	}
	s.Jobs.HostChanged(h.ID)
	s.Jobs.JobsCancelled(cancelled)
	return nil, nil
}
