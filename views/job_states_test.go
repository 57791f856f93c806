package views

import (
	"strings"
	"testing"
	"time"

	"resticfleet/agent/protocol"
	"resticfleet/models"
	"resticfleet/views/ui"
)

// Every state of a job's page, by what it tells: what is so, what is not said,
// and what can be done.
func TestTheJobsPageInEveryState(t *testing.T) {
	t.Parallel()
	queued := now.Add(-2 * time.Hour)
	base := func() Job {
		return Job{
			Clock: sampleClock(t), ID: "j1", HostID: "h1", HostName: "web-01", Kind: "backup", GroupID: "g1", GroupName: "www", State: "queued",
			Actor: Actor{Kind: "user", Name: "anna"}, QueuedAt: queued, CanOperate: true, CanAdminister: true,
			NewestGood: &Snapshot{ID: "9d1be07cffff", At: now.Add(-27 * time.Hour), JobID: "j0"},
		}
	}
	sent := func(j *Job) { j.State, j.SentAt, j.CanCancel = "sent", queued.Add(3*time.Millisecond), true }
	accepted := func(j *Job) { sent(j); j.AcceptedAt = queued.Add(12 * time.Millisecond) }
	running := func(j *Job) { accepted(j); j.State, j.StartedAt = "running", queued.Add(33*time.Millisecond) }
	end := func(j *Job, state, code string) {
		running(j)
		j.State, j.ErrorCode, j.FinishedAt, j.CanCancel, j.CanRunAgain = state, code, queued.Add(65*time.Second+33*time.Millisecond), false, true
		if code != "" {
			j.Error = "The cause. The remedy."
		}
	}
	never := func(j *Job, state, code string) {
		end(j, state, code)
		j.SentAt, j.AcceptedAt, j.StartedAt = time.Time{}, time.Time{}, time.Time{}
	}
	good := "The newest good snapshot of www is still"
	for name, c := range map[string]struct {
		is    func(*Job)
		says  []string
		never []string
	}{
		"queued, host away": {func(j *Job) { j.WaitingFor, j.CanCancel = "web-01 is not connected.", true },
			[]string{"Waiting", "web-01 is not connected.", ">Cancel"}, []string{"Run again", "id=\"written\"", good}},
		"queued behind another": {func(j *Job) {
			j.WaitingFor, j.WaitLink = "One at a time.", ui.Link{Text: "Prune on db-01", URL: "/jobs/j9"}
		},
			[]string{"One at a time.", `href="/jobs/j9"`, "Prune on db-01"}, nil},
		"sent":                       {func(j *Job) { sent(j); j.WaitingFor = "On its way to web-01." }, []string{"On its way to web-01.", "Sent +3 ms", ">Cancel"}, []string{"Accepted +"}},
		"accepted":                   {func(j *Job) { accepted(j); j.WaitingFor = "web-01 has it." }, []string{"web-01 has it.", "Accepted +9 ms"}, []string{"restic started"}},
		"accepted, silent":           {func(j *Job) { accepted(j); j.Silent = "Nothing has been heard of web-01 for 5 min." }, []string{"Out of touch", "Nothing has been heard of web-01"}, nil},
		"running, nothing known yet": {running, []string{"Running", "looks at what there is to do", "restic started +21 ms"}, []string{"%", "Waiting"}},
		"running": {func(j *Job) {
			running(j)
			j.Progress = &Progress{Percent: 63.9, FilesDone: 11470, TotalFiles: 18204, BytesDone: 2040109465, TotalBytes: 3328599654, Unreadable: 1, Remaining: 2 * time.Minute, CurrentFiles: []string{"/srv/a"}}
		}, []string{"63\u00a0%", "11,470 / 18,204", "1.9 / 3.1 GiB", "about 2 min left", "/srv/a", `value="63"`}, nil},
		"cancel asked for": {func(j *Job) { running(j); j.CancelRequestedAt = now.Add(-5 * time.Minute) }, []string{"asked to stop", "5 min ago", "Cancel asked for +"}, []string{">Cancel<", "/cancel"}},
		"succeeded": {func(j *Job) {
			end(j, "succeeded", "")
			j.SnapshotID = "5af0d1c2e3"
			j.Stats = &Stats{TotalFiles: 18204, AddedBytes: 212 << 20}
		},
			[]string{"Good", "Written as snapshot 5af0d1c2.", "18,204", "212 MiB", "Run again", "Ended +1 min 05.000 s"}, []string{"What to do", good}},
		"unreadable files": {func(j *Job) {
			end(j, "warning", protocol.ErrUnreadable)
			j.SnapshotID, j.Unreadable = "5af0d1c2e3", []string{"/srv/secret", "/srv/locked"}
		}, []string{"Warning", "2 files or folders could not be read", "/srv/secret", "/srv/locked", "counts as good", "holds everything but what could not be read"}, []string{"<details", good}},
		"a hundred unreadable": {func(j *Job) { end(j, "warning", protocol.ErrUnreadable); j.Unreadable = make([]string, 100) }, []string{"At least 100 files"}, nil},
		"below its minimum": {func(j *Job) { end(j, "warning", protocol.ErrBelowMinimum); j.SnapshotID = "5af0d1c2e3" },
			[]string{"smaller than its minimum", "Written as snapshot 5af0d1c2, which doesn’t count as good.", good, `href="/jobs/j0"`}, nil},
		"failed": {func(j *Job) { end(j, "failed", protocol.ErrRestic); exit := 1; j.ExitCode = &exit },
			[]string{"Failed", "The cause. The remedy.", "restic’s exit code was 1.", "What to do", "No snapshot was written. What restic had sent", good, "9d1be07c", "1 d 3 h"}, nil},
		"failed before restic": {func(j *Job) { end(j, "failed", protocol.ErrMissingInclude); j.StartedAt = time.Time{} }, []string{"Nothing was written."}, []string{"restic had sent", "after 0"}},
		"failed, nothing good": {func(j *Job) { end(j, "failed", protocol.ErrWrongPassword); j.NewestGood = nil }, []string{"Nothing was written.", "www has no good snapshot."}, nil},
		"failed, a good one since": {func(j *Job) { end(j, "failed", protocol.ErrWrongPassword); j.NewestGood.At = now.Add(-time.Hour) },
			[]string{"The newest good snapshot of www is"}, []string{"still"}},
		"failed, good one elsewhere": {func(j *Job) { end(j, "failed", protocol.ErrNoRepository); j.NewestGood.Elsewhere = "/srv/old" },
			[]string{"not in the repository that web-01 has now", "/srv/old"}, nil},
		"cancelled while it waited": {func(j *Job) { never(j, "cancelled", protocol.ErrCancelled) }, []string{"Cancelled", "Nothing was run, so nothing was written.", "Run again"}, nil},
		"cancelled while it ran":    {func(j *Job) { end(j, "cancelled", protocol.ErrCancelled) }, []string{"No snapshot was written.", good}, nil},
		"skipped": {func(j *Job) {
			never(j, "skipped", models.CodeStillBusy)
			j.Actor, j.ScheduledAt = Actor{Kind: "schedule", Name: "Every hour", URL: "/hosts/h1/schedules/s1"}, queued
		}, []string{"Skipped", "had not ended", "/hosts/h1/jobs?group=g1", "Nothing was run", "Every hour", "due today 12:52"}, nil},
		"expired":        {func(j *Job) { never(j, "expired", models.CodeExpired) }, []string{"Expired", "did not come in time", `href="/hosts/h1"`, "Nothing was run"}, nil},
		"lost":           {func(j *Job) { end(j, "lost", models.CodeHostSilent) }, []string{"Lost", "fell silent", "Whether anything was written is not known.", good}, []string{"No snapshot"}},
		"catch-up, late": {func(j *Job) { end(j, "succeeded", ""); j.SnapshotID, j.CatchUp, j.Late = "5af0d1c2e3", true, true }, []string{"catch-up for a missed run", "its end was reported late"}, nil},
		"init": {func(j *Job) {
			end(j, "succeeded", "")
			j.Kind, j.GroupName, j.RepositoryID, j.CanRunAgain = "init", "", "3f2c81aa99", false
		}, []string{"A new, empty repository was made.", "3f2c81aa"}, []string{good, "snapshot"}},
		"init of what was there": {func(j *Job) { end(j, "succeeded", protocol.ErrAlreadyExists); j.Kind, j.CanRunAgain = "init", false },
			[]string{"Good", "The cause. The remedy.", "Nothing was changed."}, []string{"What to do"}},
		"init failed": {func(j *Job) { end(j, "failed", protocol.ErrWrongPassword); j.Kind, j.CanRunAgain = "init", false },
			[]string{"No repository was made.", "Initialise again", "/hosts/h1/danger", "Enter password"}, []string{`action="/jobs/j1/again"`}},
		"unlock": {func(j *Job) { end(j, "succeeded", ""); j.Kind, j.LocksRemoved, j.CanRunAgain = "unlock", 2, false }, []string{"2 locks were removed, 0 are left."}, nil},
		"group deleted": {func(j *Job) { end(j, "failed", protocol.ErrMissingInclude); j.GroupGone, j.CanRunAgain = true, false },
			[]string{"What to do", good}, []string{"source-groups", "Run again"}},
		"host deleted": {func(j *Job) { end(j, "failed", protocol.ErrWrongPassword); j.HostGone, j.CanRunAgain = true, false },
			[]string{"web-01 (deleted)", `href="/hosts/h1/jobs"`, "enter the new one"}, []string{`href="/hosts/h1"`, "/repository", "Run again"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			j := base()
			c.is(&j)
			html := render(t, JobLive(j))
			for _, part := range c.says {
				if !strings.Contains(html, part) {
					t.Errorf("it doesn't say %q", part)
				}
			}
			for _, part := range c.never {
				if strings.Contains(html, part) {
					t.Errorf("it says %q", part)
				}
			}
		})
	}
}

func TestTheLogSaysWhereItsBeginningIs(t *testing.T) {
	t.Parallel()
	log := sampleLog(t)
	log.Earlier = 1234
	html := render(t, LogPanel(log))
	for _, part := range []string{"1,234 earlier lines are in the download.", `href="/jobs/j2/log"`, "download"} {
		if !strings.Contains(html, part) {
			t.Errorf("the log has no %q", part)
		}
	}
	log.Earlier, log.Lines = 0, nil
	if html := render(t, LogPanel(log)); strings.Contains(html, "earlier") || !strings.Contains(html, "No lines yet.") {
		t.Error("a log without lines doesn't say so")
	}
}

func TestTheListSaysWhyItIsEmptyAndLeadsOn(t *testing.T) {
	t.Parallel()
	for want, j := range map[string]Jobs{
		"Nothing has run yet.":             {},
		"Nothing has run on web-01 yet.":   {HostID: "h1", HostName: "web-01"},
		"Nothing ever ran on web-01.":      {HostID: "h1", HostName: "web-01", HostGone: true},
		"No job fits this filter.":         {Filter: JobsFilter{State: "failed"}},
		"There are no older jobs.":         {Cursor: "abc", Filter: JobsFilter{State: "failed"}},
		"No job is shown until the filter": {Filter: JobsFilter{Host: "web"}, Errors: Errors{"host": "No host is called “web”."}},
	} {
		j.Clock = sampleClock(t)
		html := render(t, JobsLive(j))
		if !strings.Contains(html, want) || strings.Contains(html, "<table") {
			t.Errorf("it doesn't say %q", want)
		}
		if _, way, _ := strings.Cut(html, want); !j.HostGone && !strings.Contains(way, "<a href=") {
			t.Errorf("%q leads nowhere", want)
		}
	}
}
