package handlers

import (
	"context"
	"mime"
	"net/http"
	"strings"

	"github.com/labstack/echo/v4"

	"resticfleet/models"
	"resticfleet/views"
)

// shownLines is how much of a log's end a page shows; the rest is a download.
const shownLines = 500

func (h *Handlers) jobOf(c echo.Context) (*models.Job, error) {
	id, err := models.ParseID[models.JobID](c.Param("id"))
	if err != nil {
		return nil, err
	}
	return models.FindJob(c.Request().Context(), h.DB, id)
}

func (h *Handlers) job(c echo.Context) error {
	id, err := models.ParseID[models.JobID](c.Param("id"))
	if err != nil {
		return err
	}
	job, v, err := h.loadJob(c.Request().Context(), id, who(c))
	if err != nil {
		return err
	}
	if partial(c) {
		return render(c, http.StatusOK, views.JobLive(v))
	}
	lines, err := models.TailLog(c.Request().Context(), h.DB, id, shownLines)
	if err != nil {
		return err
	}
	p := h.page(c, views.JobTitle(v.Kind, v.GroupName)+" on "+v.HostName, views.NavJobs)
	log := presentLog(lines, job, v.Clock)
	p.StreamURL = jobStream(id, log)
	return render(c, http.StatusOK, views.JobPage(p, v, log))
}

// loadJob reads a job with what its page says besides. Host and group may be
// deleted: what a job did stays.
func (h *Handlers) loadJob(ctx context.Context, id models.JobID, who *models.Identity) (*models.Job, views.Job, error) {
	job, err := models.FindJob(ctx, h.DB, id)
	if err != nil {
		return nil, views.Job{}, err
	}
	s := jobScene{job: job, who: who, expireAfter: h.Jobs.ExpireAfter, lostAfter: h.Jobs.LostAfter}
	if s.host, err = models.FindAnyHost(ctx, h.DB, job.HostID); err != nil {
		return nil, views.Job{}, err
	}
	s.repo, err = models.FindRepository(ctx, h.DB, job.HostID)
	if err != nil && models.CodeOf(err) != models.ENotFound {
		return nil, views.Job{}, err
	}
	if job.SourceGroupID != nil {
		if s.group, err = models.FindAnyGroup(ctx, h.DB, job.HostID, *job.SourceGroupID); err != nil {
			return nil, views.Job{}, err
		}
		if s.good, err = models.GoodJob(ctx, h.DB, s.group); err != nil {
			return nil, views.Job{}, err
		}
	}
	waits, err := models.Waits(ctx, h.DB, []*models.Job{job})
	if err != nil {
		return nil, views.Job{}, err
	}
	s.wait = waits[job.ID]
	return job, s.present(), nil
}

func (h *Handlers) cancelJob(c echo.Context) error {
	id, err := models.ParseID[models.JobID](c.Param("id"))
	if err != nil {
		return err
	}
	job, err := h.Jobs.Cancel(c.Request().Context(), id)
	if err != nil {
		return err
	}
	return acted(c, "/jobs/"+job.ID.String())
}

// runJobAgain backs up the job's group once more, as the group is now, or runs
// the maintenance again, and leads to the new job. What is done in the danger
// zone is asked for there.
func (h *Handlers) runJobAgain(c echo.Context) error {
	ctx := c.Request().Context()
	job, err := h.jobOf(c)
	if err != nil {
		return err
	}
	if mayMaintain(job) {
		if !who(c).Role.Allows(models.RoleAdmin) {
			return &models.Error{Code: models.EForbidden, Message: "Only an administrator may run maintenance. Ask one of them."}
		}
		again, err := h.Jobs.RunMaintenance(ctx, job.HostID, job.Kind, who(c).Actor())
		if err != nil {
			return err
		}
		return done(c, "/jobs/"+again.ID.String())
	}
	if job.Kind == models.KindForget {
		return models.Conflict("This one deleted snapshots that a person had named. Choose those that are still to go among the snapshots of %s.", job.HostName)
	}
	if job.Kind != models.KindBackup {
		return models.Conflict("Only backups and maintenance are run again from here. Ask for this one on the page of %s.", job.HostName)
	}
	again, err := h.Jobs.RunGroup(ctx, job.HostID, *job.SourceGroupID, who(c).Actor())
	if err != nil {
		return err
	}
	return done(c, "/jobs/"+again.ID.String())
}

// jobLog is the whole log as a file: when, how grave, what.
func (h *Handlers) jobLog(c echo.Context) error {
	ctx := c.Request().Context()
	job, err := h.jobOf(c)
	if err != nil {
		return err
	}
	head := c.Response().Header()
	head.Set("Content-Type", "text/plain; charset=utf-8")
	head.Set("Content-Disposition", mime.FormatMediaType("attachment", map[string]string{"filename": logName(job)}))
	for after := int64(0); ; {
		lines, err := models.ListLog(ctx, h.DB, job.ID, after, logChunk)
		if err != nil && c.Response().Committed {
			panic(http.ErrAbortHandler) // only a broken answer can still say that lines are missing
		}
		if err != nil {
			return err
		}
		var b strings.Builder
		for _, l := range lines {
			b.WriteString(l.At.UTC().Format("2006-01-02T15:04:05.000Z"))
			b.WriteString(" " + l.Level + " " + oneLine.Replace(l.Text) + "\n")
			after = l.Seq
		}
		if _, err := c.Response().Write([]byte(b.String())); err != nil || len(lines) < logChunk {
			return nil // the end, or whoever read it has gone
		}
	}
}

// logChunk is how many lines are read at once.
const logChunk = 1000

// oneLine keeps a line one line, whatever a file is called.
var oneLine = strings.NewReplacer("\n", `\n`, "\r", `\r`)

// logName tells the logs in a folder apart: web-01-backup-www-20261125-020004.log.
func logName(j *models.Job) string {
	parts := []string{j.HostName, string(j.Kind), j.SourceGroupName, j.QueuedAt.UTC().Format("20060102-150405")}
	name := strings.Join(parts, "-")
	return strings.Trim(notInFileNames.ReplaceAllString(name, "-"), "-.") + ".log"
}
