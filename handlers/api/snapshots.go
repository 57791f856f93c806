package api

import (
	"context"
	"net/http"
	"reflect"

	"github.com/danielgtaylor/huma/v2"

	"resticfleet/agent/protocol"
	"resticfleet/models"
)

type snapshot struct {
	ID            string   `json:"id" doc:"restic's, 64 hex digits."`
	ShortID       string   `json:"short_id"`
	Time          string   `json:"time" format:"date-time"`
	Hostname      string   `json:"hostname"`
	Paths         []string `json:"paths"`
	Tags          []string `json:"tags"`
	SourceGroupID *string  `json:"source_group_id" format:"uuid" doc:"The group it belongs to, where that is clear."`
	JobID         *string  `json:"job_id" format:"uuid" doc:"The job that made it."`
	SizeBytes     *int64   `json:"size_bytes" doc:"Null where restic didn't tell."`
	FileCount     *int64   `json:"file_count"`
	Held          bool     `json:"held" doc:"Whether no policy may forget it."`
}

func newSnapshot(s *models.Snapshot) snapshot {
	out := snapshot{
		ID: s.ID, ShortID: s.ShortID(), Time: timestamp(s.At), Hostname: s.Hostname, Paths: s.Paths, Tags: s.Tags,
		SourceGroupID: idOrNull(s.SourceGroupID), JobID: idOrNull(s.JobID), SizeBytes: s.SizeBytes, FileCount: s.FileCount, Held: s.Held,
	}
	if out.Paths == nil {
		out.Paths = []string{}
	}
	if out.Tags == nil {
		out.Tags = []string{}
	}
	return out
}

type snapshotPatch struct {
	Held *bool `json:"held,omitempty"`
}

func (snapshotPatch) TransformSchema(r huma.Registry, s *huma.Schema) *huma.Schema {
	return acceptReadOnly[snapshot](r, s)
}

// SnapshotPath is the part of a path that names a snapshot of a host.
type SnapshotPath struct {
	HostPath
	Snap string `path:"snap" doc:"The snapshot's id, or 8 or more digits of it that no other begins with."`
}

func (s *server) findSnapshot(ctx context.Context, in SnapshotPath) (*models.Snapshot, error) {
	h, err := s.find(ctx, in.HostPath)
	if err != nil {
		return nil, err
	}
	return models.FindSnapshot(ctx, s.DB, h.ID, in.Snap)
}

func (s *server) listSnapshots(ctx context.Context, in *struct {
	HostPath
	Page
	SourceGroupID string `query:"source_group_id"`
	Tag           string `query:"tag" maxLength:"400"`
}) (*answer[list[snapshot]], error) {
	h, err := s.find(ctx, in.HostPath)
	if err != nil {
		return nil, err
	}
	filter := models.SnapshotFilter{HostID: h.ID, Tag: in.Tag}
	if in.SourceGroupID != "" {
		if filter.SourceGroupID, err = models.ParseID[models.GroupID](in.SourceGroupID); err != nil {
			return nil, models.Invalid("source_group_id", "is not an id: give that of a source group, or leave it out")
		}
	}
	snapshots, next, err := models.ListSnapshots(ctx, s.DB, filter, in.page())
	if err != nil {
		return nil, err
	}
	return newList(snapshots, next, newSnapshot), nil
}

func (s *server) refreshSnapshots(ctx context.Context, in *HostPath) (*created[job], error) {
	who, err := actor(ctx)
	if err != nil {
		return nil, err
	}
	id, err := in.hostID()
	if err != nil {
		return nil, err
	}
	j, err := s.Jobs.RefreshSnapshots(ctx, id, who)
	if err != nil {
		return nil, err
	}
	return startedJob(j), nil
}

func (s *server) patchSnapshot(ctx context.Context, in *struct {
	SnapshotPath
	Body snapshotPatch
}) (*answer[snapshot], error) {
	who, err := actor(ctx)
	if err != nil {
		return nil, err
	}
	found, err := s.findSnapshot(ctx, in.SnapshotPath)
	if err != nil {
		return nil, err
	}
	if in.Body.Held != nil {
		if found, err = s.Jobs.HoldSnapshot(ctx, found.HostID, found.ID, *in.Body.Held, who); err != nil {
			return nil, err
		}
	}
	return &answer[snapshot]{newSnapshot(found)}, nil
}

func (s *server) deleteSnapshot(ctx context.Context, in *SnapshotPath) (*created[job], error) {
	who, err := actor(ctx)
	if err != nil {
		return nil, err
	}
	id, err := in.hostID()
	if err != nil {
		return nil, err
	}
	j, err := s.Jobs.DeleteSnapshot(ctx, id, in.Snap, who)
	if err != nil {
		return nil, err
	}
	return startedJob(j), nil
}

type snapshotDiff struct {
	Older       string            `json:"older" doc:"The id of the older of the two."`
	Newer       string            `json:"newer"`
	Statistics  map[string]any    `json:"statistics" doc:"restic's, under restic's names, of all changes."`
	Changes     []protocol.Change `json:"changes" doc:"The first 5000; modifier is + - M T U or several."`
	MoreChanges int64             `json:"more_changes" doc:"How many there are besides."`
}

// diffAnswer is a 200 with what is known, or a 202 with the job that finds out.
type diffAnswer struct {
	Status   int
	Location string `header:"Location"`
	Body     any
}

// documentDiff tells what both answers hold.
func documentDiff(register registrar) registrar {
	return func(s *server, h huma.API, op huma.Operation) {
		body := func(description string, t reflect.Type) *huma.Response {
			schema := h.OpenAPI().Components.Schemas.Schema(t, true, "")
			return &huma.Response{Description: description, Content: map[string]*huma.MediaType{"application/json": {Schema: schema}}}
		}
		op.Responses = map[string]*huma.Response{"200": body("What differs", reflect.TypeFor[snapshotDiff]())}
		register(s, h, op)
		// Beside a second one huma would not describe the errors.
		h.OpenAPI().Paths[op.Path].Get.Responses["202"] = body("The job that finds out", reflect.TypeFor[job]())
	}
}

func (s *server) getDiff(ctx context.Context, in *struct {
	SnapshotPath
	Against string `query:"against" required:"true" doc:"Another snapshot of the host."`
}) (*diffAnswer, error) {
	who, err := actor(ctx)
	if err != nil {
		return nil, err
	}
	one, err := s.findSnapshot(ctx, in.SnapshotPath)
	if err != nil {
		return nil, err
	}
	other, err := models.FindSnapshot(ctx, s.DB, one.HostID, in.Against)
	if models.CodeOf(err) == models.ENotFound {
		return nil, models.Invalid("against", "is no snapshot of this host: choose one from its list")
	}
	if err != nil {
		return nil, err
	}
	older, newer := models.Ordered(one, other)
	d, err := models.FindDiff(ctx, s.DB, older, newer)
	if err != nil {
		return nil, err
	}
	if d != nil {
		return &diffAnswer{Status: http.StatusOK, Body: snapshotDiff{d.Older, d.Newer, d.Stats, d.Changes, d.More}}, nil
	}
	j, err := s.Jobs.CompareSnapshots(ctx, older, newer, false, who)
	if err != nil {
		return nil, err
	}
	started := startedJob(j)
	return &diffAnswer{Status: http.StatusAccepted, Location: started.Location, Body: started.Body}, nil
}
