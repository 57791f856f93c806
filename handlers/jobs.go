package handlers

import (
	"context"
	"net/http"
	"time"

	"github.com/labstack/echo/v4"

	"resticfleet/models"
	"resticfleet/views"
)

// shownLines is how much of a log's end a page shows; the rest is a download.
const shownLines = 500

func (h *Handlers) jobs(c echo.Context) error { return h.jobList(c, nil) }

func (h *Handlers) hostJobs(c echo.Context) error {
	host, err := h.hostOf(c)
	if err != nil {
		return err
	}
	return h.jobList(c, host)
}

func (h *Handlers) jobList(c echo.Context, host *models.Host) error {
	ctx := c.Request().Context()
	v := views.Jobs{
		Clock: pageClock(nil), Cursor: c.QueryParam("cursor"),
		Filter: views.JobsFilter{State: c.QueryParam("state"), Kind: c.QueryParam("kind"), Host: c.QueryParam("host")},
	}
	filter := models.JobFilter{State: models.JobState(v.Filter.State), Kind: models.JobKind(v.Filter.Kind)}
	title, day := "Jobs", v.Clock.Now
	switch {
	case host != nil:
		filter.HostID, v.HostID, v.HostName = host.ID, host.ID.String(), host.Name
		v.Clock, title = pageClock(host.Location()), "Jobs of "+host.Name
		day = v.Clock.Now.In(host.Location())
	case v.Filter.Host != "":
		id, err := models.ParseID[models.HostID](v.Filter.Host)
		if err != nil {
			return err
		}
		filter.HostID = id
	}
	list, next, err := models.ListJobs(ctx, h.DB, filter, models.Page{Cursor: v.Cursor})
	if err != nil {
		return err
	}
	v.NextCursor = next
	for _, j := range list {
		v.Rows = append(v.Rows, presentJobRow(j))
	}
	if err := h.jobsHeading(ctx, &v, filter.HostID, day); err != nil {
		return err
	}
	if partial(c) {
		return render(c, http.StatusOK, views.JobsLive(v))
	}
	p := h.page(c, title, views.NavJobs)
	p.StreamURL = "/events?on=jobs"
	return render(c, http.StatusOK, views.JobsPage(p, v))
}

func (h *Handlers) jobsHeading(ctx context.Context, v *views.Jobs, host models.HostID, day time.Time) error {
	today, err := models.CountToday(ctx, h.DB, host, day)
	if err != nil {
		return err
	}
	v.GoodToday, v.WarnedToday, v.FailedToday = today.Good, today.Warning, today.Failed
	if v.UnderWay, err = models.UnderWay(ctx, h.DB, host); err != nil {
		return err
	}
	if v.HostID != "" {
		return nil
	}
	hosts, err := models.ListHostNames(ctx, h.DB)
	for _, host := range hosts {
		v.HostChoices = append(v.HostChoices, views.Choice{Value: host.ID.String(), Text: host.Name})
	}
	return err
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
	p := h.page(c, views.JobTitle(v.Kind, v.GroupName), views.NavJobs)
	log := presentLog(lines, job, v.Clock)
	p.StreamURL = jobStream(id, log)
	return render(c, http.StatusOK, views.JobPage(p, v, log))
}

// loadJob reads a job with what its page says besides.
func (h *Handlers) loadJob(ctx context.Context, id models.JobID, who *models.Identity) (*models.Job, views.Job, error) {
	job, err := models.FindJob(ctx, h.DB, id)
	if err != nil {
		return nil, views.Job{}, err
	}
	host, err := models.FindHost(ctx, h.DB, job.HostID)
	if models.CodeOf(err) == models.ENotFound {
		host = &models.Host{ID: job.HostID, Name: job.HostName, Timezone: "UTC"} // deleted since
	} else if err != nil {
		return nil, views.Job{}, err
	}
	var group *models.Group
	if job.SourceGroupID != nil {
		group, err = models.FindGroup(ctx, h.DB, job.HostID, *job.SourceGroupID)
		if err != nil && models.CodeOf(err) != models.ENotFound {
			return nil, views.Job{}, err
		}
	}
	v := presentJob(job, host, group, who)
	if job.Kind == models.KindInit && job.State == models.JobSucceeded {
		repo, err := models.FindRepository(ctx, h.DB, job.HostID)
		if err == nil && repo.URL == job.RepositoryURL {
			v.RepositoryID = repo.ResticID
		}
	}
	return job, v, nil
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
