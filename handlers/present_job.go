package handlers

import (
	"regexp"
	"slices"
	"time"

	"resticfleet/models"
	"resticfleet/views"
	"resticfleet/views/ui"
)

func presentJobRow(j *models.Job, wait models.Wait) views.JobRow {
	row := views.JobRow{
		ID: j.ID.String(), State: string(j.State), Kind: string(j.Kind), GroupName: j.SourceGroupName,
		HostID: j.HostID.String(), HostName: j.HostName, HostGone: j.HostGone, Percent: -1, By: j.ActorName, QueuedAt: j.QueuedAt, Outcome: outcome(j), Waits: waitInBrief(j, wait),
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

// outcome is what came of a job in a few words, "" for nothing to say.
func outcome(j *models.Job) string {
	switch {
	case j.State == models.JobRunning && j.Progress != nil && j.Kind == models.KindBackup:
		return ui.Bytes(j.Progress.BytesDone) + " read"
	case len(j.Unreadable) > 0:
		return ui.Count(int64(len(j.Unreadable)), "file unreadable", "files unreadable")
	case j.ErrorCode != "":
		return views.JobBrief(j.ErrorCode, string(j.Kind), string(j.State))
	case j.State == models.JobSucceeded && j.Kind == models.KindBackup:
		return "+" + ui.Bytes(statOf(j, "data_added_packed"))
	case j.State == models.JobSucceeded && j.Kind == models.KindForget:
		return ui.Count(statOf(j, "snapshots_removed"), "snapshot removed", "snapshots removed")
	case j.State == models.JobSucceeded && j.Kind == models.KindPrune && j.Stats["removed_bytes"] != nil:
		return ui.Bytes(statOf(j, "removed_bytes")) + " freed"
	case j.State == models.JobSucceeded && j.Kind == models.KindCheck:
		return "no damage found"
	case j.State == models.JobSucceeded && j.Kind == models.KindInit:
		return "repository made"
	case j.State == models.JobSucceeded && j.Kind == models.KindUnlock:
		return ui.Count(statOf(j, "locks_removed"), "lock removed", "locks removed")
	}
	return ""
}

// waitInBrief is what a job that hasn't begun waits for, in the few words that
// a list has room for.
func waitInBrief(j *models.Job, w models.Wait) string {
	switch {
	case j.State == models.JobQueued && w.Away:
		return "host is away"
	case w.Behind != nil && w.Behind.SourceGroupName != "":
		return "behind " + w.Behind.SourceGroupName
	case w.Behind != nil:
		return "behind " + views.JobTitle(string(w.Behind.Kind), "")
	case j.State == models.JobSent && j.AcceptedAt != nil:
		return "host has it"
	case j.State == models.JobSent:
		return "on its way"
	}
	return ""
}

func statOf(j *models.Job, name string) int64 {
	n, _ := j.Stats[name].(float64)
	return int64(n)
}

// jobScene is a job with what surrounds it. Repo and group are nil where there
// is none; good is the job that made the group's newest good snapshot.
type jobScene struct {
	job  *models.Job
	host *models.Host
	repo *models.HostRepository

	group *models.Group
	good  *models.Job
	wait  models.Wait
	who   *models.Identity

	expireAfter, lostAfter time.Duration
}

// present fills the page of a job.
func (s jobScene) present() views.Job {
	j, h := s.job, s.host
	operator := s.who.Role.Allows(models.RoleOperator)
	v := views.Job{
		Clock: pageClock(h.Location()), ID: j.ID.String(), HostID: j.HostID.String(), HostName: h.Name, HostGone: h.ArchivedAt != nil,
		Kind: string(j.Kind), GroupName: j.SourceGroupName, State: string(j.State), CatchUp: j.CatchUp, Late: j.Late, Actor: jobActor(j, operator),
		ScheduledAt: timeOf(j.ScheduledAt), QueuedAt: j.QueuedAt, SentAt: timeOf(j.SentAt), AcceptedAt: timeOf(j.AcceptedAt),
		StartedAt: timeOf(j.StartedAt), FinishedAt: timeOf(j.FinishedAt), CancelRequestedAt: timeOf(j.CancelRequestedAt),
		ErrorCode: j.ErrorCode, Error: j.Error, ExitCode: j.ExitCode, Unreadable: j.Unreadable, SnapshotID: j.SnapshotID,
		LocksRemoved: statOf(j, "locks_removed"), LocksLeft: statOf(j, "locks_left"),
		CanCancel: !j.State.Ended() && operator, CanOperate: operator, CanAdminister: s.who.Role.Allows(models.RoleAdmin),
	}
	s.presentGroup(&v)
	s.presentWait(&v)
	if j.Kind == models.KindInit && j.State == models.JobSucceeded && s.repo != nil && s.repo.URL == j.RepositoryURL {
		v.RepositoryID = s.repo.ResticID
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
	v.Maintained = maintained(j)
	return v
}

// mayMaintain: these kinds are run again by an administrator, as they would be
// now. What removed snapshots that a person named isn't asked for twice.
func mayMaintain(j *models.Job) bool {
	return slices.Contains(models.MaintenanceKinds, j.Kind) && len(j.Spec.SnapshotIDs) == 0
}

// maintained reads what a forget, prune or check told of its work; nil for
// other kinds, and before there is anything.
func maintained(j *models.Job) *views.Maintained {
	if !slices.Contains(models.MaintenanceKinds, j.Kind) || !j.State.Ended() || len(j.Stats) == 0 {
		return nil
	}
	known := func(name string) *int64 {
		if _, ok := j.Stats[name].(float64); !ok {
			return nil
		}
		n := statOf(j, name)
		return &n
	}
	v := &views.Maintained{
		Removed: known("snapshots_removed"), Kept: known("snapshots_kept"), Held: statOf(j, "snapshots_held"),
		FreedBytes: known("removed_bytes"), RemainingBytes: known("remaining_bytes"), RepackedBytes: known("repacked_bytes"),
	}
	if j.Kind == models.KindCheck {
		v.Part, v.Errors = j.Spec.ReadDataSubset, known("num_errors")
	}
	groups, _ := j.Stats["groups"].([]any)
	for _, g := range groups {
		one, _ := g.(map[string]any)
		text := func(name string) string { s, _ := one[name].(string); return s }
		number := func(name string) int64 { n, _ := one[name].(float64); return int64(n) }
		if text("name") != "" {
			v.Groups = append(v.Groups, views.MaintainedGroup{Name: text("name"), Kept: number("kept"), Removed: number("removed"), Held: number("held"), Error: text("error")})
		}
	}
	return v
}

// jobActor is who asked; a schedule that is still there can be looked at.
func jobActor(j *models.Job, operator bool) views.Actor {
	a := views.Actor{Kind: string(j.ActorKind), Name: j.ActorName}
	if j.ActorKind != models.ActorSchedule || j.ScheduledCron == "" {
		return a
	}
	a.Name = words(j.ScheduledCron)
	switch {
	case j.HostGone || j.ScheduleGone:
	case operator:
		a.URL = "/hosts/" + j.HostID.String() + "/schedules/" + j.ScheduledID.String()
	default:
		a.URL = "/hosts/" + j.HostID.String()
	}
	return a
}

// presentGroup says what there is of the job's group, deleted or not.
func (s jobScene) presentGroup(v *views.Job) {
	g := s.group
	if g == nil {
		v.CanRunAgain = s.job.State.Ended() && v.CanAdminister && !v.HostGone && mayMaintain(s.job)
		return
	}
	v.GroupID, v.GroupGone = g.ID.String(), g.ArchivedAt != nil
	v.CanRunAgain = s.job.State.Ended() && v.CanOperate && !v.HostGone && !v.GroupGone && s.job.Kind == models.KindBackup
	if g.GoodAt == nil {
		return
	}
	v.NewestGood = &views.Snapshot{ID: g.GoodSnapshotID, At: *g.GoodAt}
	if s.good == nil {
		return
	}
	v.NewestGood.JobID = s.good.ID.String()
	if s.repo == nil || !s.good.InItsRepository(s.repo) {
		v.NewestGood.Elsewhere = s.good.RepositoryURL
	}
}

// presentWait says what a job that hasn't begun waits for, and when nothing is
// heard of the host that has one.
func (s jobScene) presentWait(v *views.Job) {
	j, name := s.job, s.host.Name
	silent := s.host.SilentFor(v.Clock.Now)
	switch {
	case j.State.Ended():
	case j.State == models.JobQueued && s.host.LastSeenAt == nil:
		v.WaitingFor = "No agent has come from " + name + " yet. The job goes there as soon as one is enrolled and runs."
	case j.State == models.JobQueued && s.wait.Away:
		v.WaitingFor = name + " is not connected. The job goes there as soon as it is back, and is given up after " + ui.Duration(s.expireAfter) + " without a sign of it."
	case s.wait.Behind != nil:
		v.WaitingFor, v.WaitLink = s.waitBehind()
	case j.State == models.JobQueued:
		v.WaitingFor = "It goes to " + name + " as soon as its turn comes."
	case j.SettleAfter != nil:
		v.WaitingFor = "The agent that had this job has been replaced. The one that is there now is asked what the repository knows of it; it is not run twice."
	case j.AcceptedAt == nil && j.OfferAfter != nil && j.OfferAfter.After(v.Clock.Now):
		v.WaitingFor = name + " was started anew after this was sent, or a copy of it has taken over. It is sent again in a few minutes, unless the machine that it was sent to comes back with it."
	case j.AcceptedAt != nil:
		v.WaitingFor = name + " has it and starts it as soon as it can."
	default:
		v.WaitingFor = "On its way to " + name + ", which has not answered yet. It is offered again until it does."
	}
	if j.CancelRequestedAt != nil && silent > 0 {
		v.WaitingFor += " It is told to stop as soon as it is back."
	}
	if j.AcceptedAt != nil && !j.State.Ended() && silent > 0 {
		v.Silent = "Nothing has been heard of " + name + " for " + ui.Duration(silent.Truncate(time.Second)) + ". restic goes on there without this server, and the agent tells how it ended when it is back. After " +
			ui.Duration(s.lostAfter) + " the job counts as lost until then."
	}
}

// waitBehind names the job that has to end first, and why.
func (s jobScene) waitBehind() (string, ui.Link) {
	b := s.wait.Behind
	title := views.JobTitle(string(b.Kind), b.SourceGroupName)
	link := ui.Link{Text: title + " on " + b.HostName, URL: "/jobs/" + b.ID.String()}
	switch {
	case b.Kind == models.KindInit && b.HostID == s.job.HostID:
		return "The repository is initialised first. It waits for", link
	case b.Kind == models.KindBackup && s.job.Kind == models.KindBackup:
		return "A host makes one backup at a time into a repository. It waits for", link
	case b.Kind == s.job.Kind:
		return "Only so many of these run on a host at a time. It waits for", link
	}
	return "Only one of the two may work in the repository at a time, and the other was first. It waits for", link
}

var notInFileNames = regexp.MustCompile(`[^\pL\pN._-]+`)

func presentLog(lines []models.LogLine, job *models.Job, clock ui.Clock) views.Log {
	v := views.Log{Clock: clock, JobID: job.ID.String(), Follows: !job.State.Ended()}
	for _, l := range lines {
		v.Lines = append(v.Lines, views.LogLine{Seq: l.Seq, At: l.At, Level: l.Level, Text: l.Text})
	}
	if len(lines) > 0 {
		v.Earlier = lines[0].Seq - 1
	}
	return v
}
