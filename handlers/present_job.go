package handlers

import (
	"strings"
	"time"

	"resticfleet/models"
	"resticfleet/views"
	"resticfleet/views/ui"
)

func presentJobRow(j *models.Job) views.JobRow {
	row := views.JobRow{
		ID: j.ID.String(), State: string(j.State), Kind: string(j.Kind), GroupName: j.SourceGroupName,
		HostID: j.HostID.String(), HostName: j.HostName, Percent: -1, By: j.ActorName, QueuedAt: j.QueuedAt, Outcome: outcome(j),
	}
	if j.ActorKind != models.ActorUser {
		row.By = string(j.ActorKind)
	}
	if j.CatchUp {
		row.By += ", catch-up"
	}
	if j.Progress != nil && j.State == models.JobRunning {
		row.Percent = j.Progress.Percent
	}
	if j.StartedAt != nil {
		row.Took = time.Since(*j.StartedAt)
		if j.FinishedAt != nil {
			row.Took = j.FinishedAt.Sub(*j.StartedAt)
		}
	}
	return row
}

// outcome is what came of a job in a few words.
func outcome(j *models.Job) string {
	switch {
	case j.State == models.JobRunning && j.Progress != nil:
		return ui.Bytes(j.Progress.BytesDone) + " read"
	case len(j.Unreadable) > 0:
		return ui.Count(int64(len(j.Unreadable)), "file unreadable", "files unreadable")
	case j.ErrorCode != "" && j.State != models.JobSucceeded:
		return strings.ReplaceAll(j.ErrorCode, "_", " ")
	case j.State == models.JobSucceeded && j.Kind == models.KindBackup:
		return "+" + ui.Bytes(statOf(j, "data_added_packed"))
	}
	return "–"
}

func statOf(j *models.Job, name string) int64 {
	n, _ := j.Stats[name].(float64)
	return int64(n)
}

// presentJob fills the page of a job. Group is nil for a job without one.
func presentJob(j *models.Job, h *models.Host, g *models.Group, id *models.Identity) views.Job {
	v := views.Job{
		Clock: pageClock(h.Location()), ID: j.ID.String(), HostID: j.HostID.String(), HostName: h.Name, Kind: string(j.Kind),
		GroupName: j.SourceGroupName, State: string(j.State), CatchUp: j.CatchUp, Late: j.Late,
		ScheduledAt: timeOf(j.ScheduledAt), QueuedAt: j.QueuedAt, SentAt: timeOf(j.SentAt), AcceptedAt: timeOf(j.AcceptedAt),
		StartedAt: timeOf(j.StartedAt), FinishedAt: timeOf(j.FinishedAt), CancelRequestedAt: timeOf(j.CancelRequestedAt),
		ErrorCode: j.ErrorCode, Error: j.Error, ExitCode: j.ExitCode, Unreadable: j.Unreadable, SnapshotID: j.SnapshotID,
		Actor:         views.Actor{Kind: string(j.ActorKind), Name: j.ActorName},
		CanCancel:     !j.State.Ended() && id.Role.Allows(models.RoleOperator),
		CanAdminister: id.Role.Allows(models.RoleAdmin),
	}
	if j.ActorKind == models.ActorSchedule && j.ScheduledCron != "" {
		v.Actor.Name = words(j.ScheduledCron)
		v.Actor.URL = "/hosts/" + v.HostID
	}
	if j.SourceGroupID != nil {
		v.GroupID = j.SourceGroupID.String()
	}
	if g != nil {
		v.CanRunAgain = j.State.Ended() && id.Role.Allows(models.RoleOperator)
		if g.GoodAt != nil && g.GoodSnapshotID != j.SnapshotID {
			v.NewestGood = &views.Snapshot{ID: g.GoodSnapshotID, At: *g.GoodAt}
		}
	}
	if j.State == models.JobQueued && !h.Online(v.Clock.Now) {
		v.WaitingFor = h.Name + " is not connected. The job goes there as soon as it is back."
	}
	if p := j.Progress; p != nil && j.State == models.JobRunning {
		v.Progress = &views.Progress{
			Percent: p.Percent, FilesDone: p.FilesDone, TotalFiles: p.TotalFiles, BytesDone: p.BytesDone, TotalBytes: p.TotalBytes,
			Unreadable: p.ErrorCount, Remaining: time.Duration(p.SecondsRemaining) * time.Second, CurrentFiles: p.CurrentFiles,
		}
	}
	if j.Kind == models.KindBackup && j.SnapshotID != "" {
		v.Stats = &views.Stats{
			FilesNew: statOf(j, "files_new"), FilesChanged: statOf(j, "files_changed"), FilesUnmodified: statOf(j, "files_unmodified"),
			TotalFiles: statOf(j, "total_files_processed"), TotalBytes: statOf(j, "total_bytes_processed"), AddedBytes: statOf(j, "data_added_packed"),
		}
	}
	return v
}

func presentLog(lines []models.LogLine, job *models.Job, clock ui.Clock) views.Log {
	v := views.Log{Clock: clock, JobID: job.ID.String(), Follows: !job.State.Ended()}
	for _, l := range lines {
		v.Lines = append(v.Lines, views.LogLine{Seq: l.Seq, At: l.At, Level: l.Level, Text: l.Text})
	}
	v.Earlier = len(lines) > 0 && lines[0].Seq > 1
	return v
}
