package api

import (
	"context"

	"github.com/danielgtaylor/huma/v2"

	"resticfleet/models"
)

type sourceGroup struct {
	ID        string           `json:"id" format:"uuid"`
	Name      string           `json:"name"`
	Includes  []string         `json:"includes"`
	Excludes  []string         `json:"excludes"`
	Tag       string           `json:"tag"`
	Retention models.Retention `json:"retention"`
	MinFiles  int64            `json:"min_files"`
	MinBytes  int64            `json:"min_bytes"`
}

func newSourceGroup(g *models.Group) sourceGroup {
	return sourceGroup{
		ID: g.ID.String(), Name: g.Name, Includes: g.Includes, Excludes: g.Excludes, Tag: g.Tag,
		Retention: g.Retention, MinFiles: g.MinFiles, MinBytes: g.MinBytes,
	}
}

type sourceGroupFields struct {
	Name      string           `json:"name"`
	Includes  []string         `json:"includes" doc:"Absolute paths."`
	Excludes  []string         `json:"excludes,omitempty" doc:"restic's patterns, as on its command line."`
	Tag       string           `json:"tag,omitempty" doc:"The group's for ever. Taken from the name when a new group leaves it out, kept when a change does."`
	Retention models.Retention `json:"retention,omitzero" doc:"restic's policy; an empty one keeps everything."`
	MinFiles  int64            `json:"min_files,omitempty" doc:"A backup of fewer files is a warning."`
	MinBytes  int64            `json:"min_bytes,omitempty" doc:"A backup of fewer bytes is a warning."`
}

func (sourceGroupFields) TransformSchema(r huma.Registry, s *huma.Schema) *huma.Schema {
	return acceptReadOnly[sourceGroup](r, s)
}

func (f sourceGroupFields) fields() models.GroupFields {
	return models.GroupFields{
		Name: f.Name, Tag: f.Tag, Includes: f.Includes, Excludes: f.Excludes,
		Retention: f.Retention, MinFiles: f.MinFiles, MinBytes: f.MinBytes,
	}
}

// GroupPath is the part of a path that names a source group of a host.
type GroupPath struct {
	HostPath
	GroupID string `path:"gid" doc:"The source group's id."`
}

func (s *server) findGroup(ctx context.Context, p GroupPath) (*models.Group, error) {
	h, err := s.find(ctx, p.HostPath)
	if err != nil {
		return nil, err
	}
	id, err := models.ParseID[models.GroupID](p.GroupID)
	if err != nil {
		return nil, err
	}
	return models.FindGroup(ctx, s.DB, h.ID, id)
}

func (s *server) listGroups(ctx context.Context, in *struct {
	HostPath
	Page
}) (*answer[list[sourceGroup]], error) {
	h, err := s.find(ctx, in.HostPath)
	if err != nil {
		return nil, err
	}
	groups, next, err := models.ListGroups(ctx, s.DB, h.ID, in.page())
	if err != nil {
		return nil, err
	}
	return newList(groups, next, newSourceGroup), nil
}

func (s *server) addGroup(ctx context.Context, in *struct {
	HostPath
	Body sourceGroupFields
}) (*created[sourceGroup], error) {
	id, err := in.hostID()
	if err != nil {
		return nil, err
	}
	g, err := models.AddGroup(ctx, s.DB, id, in.Body.fields())
	if err != nil {
		return nil, err
	}
	s.Jobs.HostChanged(id)
	return &created[sourceGroup]{"/api/hosts/" + id.String() + "/source-groups/" + g.ID.String(), newSourceGroup(g)}, nil
}

func (s *server) getGroup(ctx context.Context, in *GroupPath) (*answer[sourceGroup], error) {
	g, err := s.findGroup(ctx, *in)
	if err != nil {
		return nil, err
	}
	return &answer[sourceGroup]{newSourceGroup(g)}, nil
}

func (s *server) putGroup(ctx context.Context, in *struct {
	GroupPath
	Body sourceGroupFields
}) (*answer[sourceGroup], error) {
	g, err := s.findGroup(ctx, in.GroupPath)
	if err != nil {
		return nil, err
	}
	f := in.Body.fields()
	if f.Tag == "" {
		f.Tag = g.Tag // a rename must not part a group from its snapshots
	}
	g, err = models.UpdateGroup(ctx, s.DB, g.HostID, g.ID, f)
	if err != nil {
		return nil, err
	}
	s.Jobs.HostChanged(g.HostID)
	return &answer[sourceGroup]{newSourceGroup(g)}, nil
}

func (s *server) deleteGroup(ctx context.Context, in *GroupPath) (*struct{}, error) {
	g, err := s.findGroup(ctx, *in)
	if err != nil {
		return nil, err
	}
	cancelled, err := models.DeleteGroup(ctx, s.DB, g.HostID, g.ID)
	if err != nil {
		return nil, err
	}
	s.Jobs.HostChanged(g.HostID)
	s.Jobs.JobsCancelled(cancelled)
	return nil, nil
}

func (s *server) runGroup(ctx context.Context, in *GroupPath) (*created[job], error) {
	who, err := actor(ctx)
	if err != nil {
		return nil, err
	}
	g, err := s.findGroup(ctx, *in)
	if err != nil {
		return nil, err
	}
	j, err := s.Jobs.RunGroup(ctx, g.HostID, g.ID, who)
	if err != nil {
		return nil, err
	}
	return startedJob(j), nil
}

// plannedSnapshot is a snapshot with why it stays.
type plannedSnapshot struct {
	ID       string   `json:"id"`
	ShortID  string   `json:"short_id"`
	Time     string   `json:"time" format:"date-time"`
	Hostname string   `json:"hostname"`
	Paths    []string `json:"paths"`
	Tags     []string `json:"tags"`
	Reasons  []string `json:"reasons" doc:"restic's reasons to keep it; held where only its hold does. None for one that goes."`
	Held     bool     `json:"held"`
}

type retentionPreview struct {
	Keep   []plannedSnapshot `json:"keep"`
	Remove []plannedSnapshot `json:"remove"`
}

func newPlannedSnapshots(all []models.PlannedSnapshot) []plannedSnapshot {
	out := make([]plannedSnapshot, len(all))
	for i, s := range all {
		out[i] = plannedSnapshot{
			ID: s.ID, ShortID: s.ID[:8], Time: timestamp(s.Time), Hostname: s.Hostname, Held: s.Held,
			Paths: append([]string{}, s.Paths...), Tags: append([]string{}, s.Tags...), Reasons: append([]string{}, s.Reasons...),
		}
	}
	return out
}

// previewRetention waits for the host.
func (s *server) previewRetention(ctx context.Context, in *struct {
	GroupPath
	Body struct {
		Retention models.Retention `json:"retention" doc:"restic's policy; an empty one keeps everything."`
	}
}) (*answer[retentionPreview], error) {
	who, err := actor(ctx)
	if err != nil {
		return nil, err
	}
	g, err := s.findGroup(ctx, in.GroupPath)
	if err != nil {
		return nil, err
	}
	plan, err := s.Jobs.PreviewRetention(ctx, g.HostID, g.ID, in.Body.Retention, who)
	if err != nil {
		return nil, err
	}
	return &answer[retentionPreview]{retentionPreview{Keep: newPlannedSnapshots(plan.Keep), Remove: newPlannedSnapshots(plan.Remove)}}, nil
}
