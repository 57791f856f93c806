package api

import (
	"context"
	"reflect"

	"github.com/danielgtaylor/huma/v2"

	"resticfleet/models"
)

type job struct {
	ID                string         `json:"id" format:"uuid"`
	HostID            string         `json:"host_id" format:"uuid"`
	HostName          string         `json:"host_name"`
	Kind              string         `json:"kind"`
	State             string         `json:"state"`
	ActorKind         string         `json:"actor_kind"`
	ActorID           *string        `json:"actor_id" format:"uuid"`
	ScheduledID       *string        `json:"scheduled_id" format:"uuid"`
	ScheduledAt       *string        `json:"scheduled_at" format:"date-time"`
	CatchUp           bool           `json:"catch_up"`
	Late              bool           `json:"late"`
	SourceGroupID     *string        `json:"source_group_id" format:"uuid"`
	SourceGroupName   string         `json:"source_group_name" doc:"As it was when the job was made."`
	SnapshotID        *string        `json:"snapshot_id"`
	ExitCode          *int           `json:"exit_code"`
	Error             string         `json:"error" doc:"The cause, then the remedy; empty when all is well."`
	ErrorCode         string         `json:"error_code"`
	Stats             map[string]any `json:"stats" doc:"restic's summary, under restic's names."`
	Progress          *progress      `json:"progress"`
	QueuedAt          string         `json:"queued_at" format:"date-time"`
	SentAt            *string        `json:"sent_at" format:"date-time"`
	AcceptedAt        *string        `json:"accepted_at" format:"date-time"`
	StartedAt         *string        `json:"started_at" format:"date-time"`
	FinishedAt        *string        `json:"finished_at" format:"date-time"`
	CancelRequestedAt *string        `json:"cancel_requested_at" format:"date-time"`
}

// TransformSchema says that progress may be null, which huma can't know of
// objects.
func (job) TransformSchema(r huma.Registry, s *huma.Schema) *huma.Schema {
	s.Properties["progress"] = &huma.Schema{AnyOf: []*huma.Schema{
		r.Schema(reflect.TypeFor[progress](), true, ""), {Type: "null"},
	}}
	return s
}

type progress struct {
	Percent          float64  `json:"percent"`
	FilesDone        int64    `json:"files_done"`
	TotalFiles       int64    `json:"total_files"`
	BytesDone        int64    `json:"bytes_done"`
	TotalBytes       int64    `json:"total_bytes"`
	SecondsRemaining int64    `json:"seconds_remaining"`
	CurrentFiles     []string `json:"current_files"`
}

func newJob(j *models.Job) job {
	stats := j.Stats
	if stats == nil {
		stats = map[string]any{}
	}
	return job{
		ID: j.ID.String(), HostID: j.HostID.String(), HostName: j.HostName,
		Kind: string(j.Kind), State: string(j.State),
		ActorKind: string(j.ActorKind), ActorID: idOrNull(j.ActorID),
		ScheduledID: idOrNull(j.ScheduledID), ScheduledAt: timestampOrNull(j.ScheduledAt), CatchUp: j.CatchUp, Late: j.Late,
		SourceGroupID: idOrNull(j.SourceGroupID), SourceGroupName: j.SourceGroupName,
		SnapshotID: orNull(j.SnapshotID), ExitCode: j.ExitCode, Error: j.Error, ErrorCode: j.ErrorCode,
		Stats: stats, Progress: newProgress(j.Progress),
		QueuedAt: timestamp(j.QueuedAt), SentAt: timestampOrNull(j.SentAt), AcceptedAt: timestampOrNull(j.AcceptedAt),
		StartedAt: timestampOrNull(j.StartedAt), FinishedAt: timestampOrNull(j.FinishedAt),
		CancelRequestedAt: timestampOrNull(j.CancelRequestedAt),
	}
}

func newProgress(p *models.Progress) *progress {
	if p == nil {
		return nil
	}
	files := p.CurrentFiles
	if files == nil {
		files = []string{}
	}
	return &progress{p.Percent, p.FilesDone, p.TotalFiles, p.BytesDone, p.TotalBytes, p.SecondsRemaining, files}
}

// startedJob is the answer to whoever asked for work: where to watch it.
func startedJob(j *models.Job) *created[job] {
	return &created[job]{"/api/jobs/" + j.ID.String(), newJob(j)}
}

// JobPath is the path of a job.
type JobPath struct {
	ID string `path:"id" doc:"The job's id."`
}

func (p JobPath) jobID() (models.JobID, error) { return models.ParseID[models.JobID](p.ID) }

func (s *server) listJobs(ctx context.Context, in *struct {
	Page
	HostID        string `query:"host_id"`
	SourceGroupID string `query:"source_group_id"`
	Kind          string `query:"kind" enum:"init,backup,forget,prune,check,unlock,restore,drill"`
	State         string `query:"state" enum:"queued,sent,running,succeeded,warning,failed,cancelled,skipped,expired,lost"`
}) (*answer[list[job]], error) {
	filter := models.JobFilter{Kind: models.JobKind(in.Kind)}
	if in.State != "" {
		filter.States = []models.JobState{models.JobState(in.State)}
	}
	var err error
	if in.HostID != "" {
		if filter.HostID, err = models.ParseID[models.HostID](in.HostID); err != nil {
			return nil, models.Invalid("host_id", "is not an id: give that of a host, or leave it out")
		}
	}
	if in.SourceGroupID != "" {
		if filter.SourceGroupID, err = models.ParseID[models.GroupID](in.SourceGroupID); err != nil {
			return nil, models.Invalid("source_group_id", "is not an id: give that of a source group, or leave it out")
		}
	}
	jobs, next, err := models.ListJobs(ctx, s.DB, filter, in.page())
	if err != nil {
		return nil, err
	}
	return newList(jobs, next, newJob), nil
}

func (s *server) getJob(ctx context.Context, in *JobPath) (*answer[job], error) {
	id, err := in.jobID()
	if err != nil {
		return nil, err
	}
	j, err := models.FindJob(ctx, s.DB, id)
	if err != nil {
		return nil, err
	}
	return &answer[job]{newJob(j)}, nil
}

func (s *server) cancelJob(ctx context.Context, in *JobPath) (*created[job], error) {
	id, err := in.jobID()
	if err != nil {
		return nil, err
	}
	j, err := s.Jobs.Cancel(ctx, id)
	if err != nil {
		return nil, err
	}
	return startedJob(j), nil
}
