package handlers

import (
	"context"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/labstack/echo/v4"

	"resticfleet/models"
	"resticfleet/views"
)

func (h *Handlers) jobs(c echo.Context) error { return h.jobList(c, nil) }

// hostJobs is the history of one host, also of a deleted one.
func (h *Handlers) hostJobs(c echo.Context) error {
	id, err := models.ParseID[models.HostID](c.Param("id"))
	if err != nil {
		return err
	}
	host, err := models.FindAnyHost(c.Request().Context(), h.DB, id)
	if err != nil {
		return err
	}
	return h.jobList(c, host)
}

func (h *Handlers) jobList(c echo.Context, host *models.Host) error {
	ctx := c.Request().Context()
	v := views.Jobs{Clock: pageClock(nil), Cursor: c.QueryParam("cursor"), Filter: readJobsFilter(c), MaxUnderWay: models.MaxCounted}
	title := "Jobs"
	if host != nil {
		v.HostID, v.HostName, v.HostGone = host.ID.String(), host.Name, host.ArchivedAt != nil
		v.CanAdminister = who(c).Role.Allows(models.RoleAdmin)
		v.Clock, title, v.Filter.Host = pageClock(host.Location()), "Jobs of "+host.Name, ""
	}
	filter, err := h.jobFilter(ctx, &v, host)
	if err != nil {
		return err
	}
	status := http.StatusOK
	if len(v.Errors) > 0 {
		status = http.StatusUnprocessableEntity
	} else if err := h.fillJobs(ctx, &v, filter, c.QueryParam("newest")); err != nil {
		return err
	}
	if err := h.jobsHeading(ctx, &v, filter.HostID); err != nil {
		return err
	}
	if partial(c) {
		return render(c, status, views.JobsLive(v))
	}
	p := h.page(c, title, views.NavJobs)
	p.StreamURL = "/events?on=jobs"
	return render(c, status, views.JobsPage(p, v))
}

// readJobsFilter takes what the filter's own choices offer; anything else is
// any.
func readJobsFilter(c echo.Context) views.JobsFilter {
	offered := func(name string, choices []views.Choice) string {
		value := c.QueryParam(name)
		if !slices.ContainsFunc(choices, func(c views.Choice) bool { return c.Value == value }) {
			return ""
		}
		return value
	}
	f := views.JobsFilter{
		State: offered("state", views.JobStateChoices), Kind: offered("kind", views.JobKindChoices), When: offered("when", views.JobWhenChoices),
		Host: strings.TrimSpace(c.QueryParam("host")), Group: c.QueryParam("group"),
	}
	if f.When == views.WhenBetween {
		f.From, f.To = c.QueryParam("from"), c.QueryParam("to")
	}
	return f
}

// jobFilter turns the form's values into a filter, with what is wrong in
// v.Errors. The source groups are those of the one host that is looked at.
func (h *Handlers) jobFilter(ctx context.Context, v *views.Jobs, host *models.Host) (models.JobFilter, error) {
	v.Errors = views.Errors{}
	f := models.JobFilter{Kind: models.JobKind(v.Filter.Kind), States: jobStates(v.Filter.State)}
	jobSpan(v, &f)
	var err error
	if host == nil && v.Filter.Host != "" {
		if host, err = h.namedHost(ctx, v); err != nil {
			return f, err
		}
	}
	if host == nil {
		v.Filter.Group = ""
		return f, nil
	}
	f.HostID = host.ID
	groups, err := models.ListAnyGroups(ctx, h.DB, host.ID)
	chosen := ""
	for _, g := range groups {
		name := g.Name
		if g.ArchivedAt != nil {
			name += " (deleted)"
		}
		v.Groups = append(v.Groups, views.Choice{Value: g.ID.String(), Text: name})
		if g.ID.String() == v.Filter.Group {
			chosen, f.SourceGroupID = v.Filter.Group, g.ID
		}
	}
	if len(v.Groups) > 0 {
		v.Groups = slices.Insert(v.Groups, 0, views.Choice{Text: "Any source group"})
	}
	v.Filter.Group = chosen
	return f, err
}

// namedHost finds the host whose name was typed, or whose id a link has, or says
// which there are.
func (h *Handlers) namedHost(ctx context.Context, v *views.Jobs) (*models.Host, error) {
	if id, err := models.ParseID[models.HostID](v.Filter.Host); err == nil {
		host, err := models.FindAnyHost(ctx, h.DB, id)
		if err == nil && host.ArchivedAt == nil {
			v.Filter.Host = host.Name
		}
		if models.CodeOf(err) != models.ENotFound {
			return host, err
		}
	}
	host, err := models.FindHostNamed(ctx, h.DB, v.Filter.Host)
	if models.CodeOf(err) != models.ENotFound {
		return host, err
	}
	v.HostNames, err = models.HostNames(ctx, h.DB, v.Filter.Host, offeredHosts)
	v.Errors["host"] = "No host is called “" + v.Filter.Host + "”."
	if len(v.HostNames) > 0 {
		v.Errors["host"] += " There is " + strings.Join(v.HostNames[:min(len(v.HostNames), 5)], ", ") + "."
	}
	return nil, err
}

// jobStates are the states that one of the filter's words stands for.
func jobStates(word string) []models.JobState {
	switch word {
	case "":
		return nil
	case "open":
		return []models.JobState{models.JobQueued, models.JobSent, models.JobRunning}
	case "waiting":
		return []models.JobState{models.JobQueued, models.JobSent}
	}
	return []models.JobState{models.JobState(word)}
}

// jobSpan reads the span of time, in the page's zone.
func jobSpan(v *views.Jobs, f *models.JobFilter) {
	if last, err := time.ParseDuration(v.Filter.When); err == nil {
		f.From = v.Clock.Now.Add(-last)
	}
	read := func(field, value string) time.Time {
		if value == "" {
			return time.Time{}
		}
		for _, form := range []string{"2006-01-02T15:04", "2006-01-02T15:04:05", time.DateOnly} {
			if at, err := time.ParseInLocation(form, value, v.Clock.Zone); err == nil {
				return at
			}
		}
		v.Errors[field] = "This is not a time. Write it like 2026-11-25T02:00."
		return time.Time{}
	}
	if v.Filter.When != views.WhenBetween {
		return
	}
	f.From, f.Until = read("from", v.Filter.From), read("to", v.Filter.To)
	if !f.From.IsZero() && !f.Until.IsZero() && !f.Until.After(f.From) {
		v.Errors["to"] = "This is not after the beginning. Choose a later time."
	}
}

// fillJobs reads the rows. Newest, if any, is the first row of a list that
// someone is in: what came after it is counted and not shown.
func (h *Handlers) fillJobs(ctx context.Context, v *views.Jobs, f models.JobFilter, newest string) error {
	if id, err := models.ParseID[models.JobID](newest); err == nil && v.Cursor == "" {
		if v.Newer, err = models.CountNewer(ctx, h.DB, f, id); err != nil {
			return err
		}
		f.NotAfter = id
	}
	list, next, err := models.ListJobs(ctx, h.DB, f, models.Page{Cursor: v.Cursor})
	if err != nil {
		return err
	}
	waits, err := models.Waits(ctx, h.DB, list)
	v.NextCursor = next
	for _, j := range list {
		row := presentJobRow(j)
		row.Waits = waitInBrief(j, waits[j.ID])
		v.Rows = append(v.Rows, row)
	}
	return err
}

func (h *Handlers) jobsHeading(ctx context.Context, v *views.Jobs, host models.HostID) error {
	today, err := models.CountToday(ctx, h.DB, host, v.Clock.Now.In(v.Clock.Zone))
	if err != nil {
		return err
	}
	v.GoodToday, v.WarnedToday, v.FailedToday = today.Good, today.Warning, today.Failed
	v.UnderWay, err = models.UnderWay(ctx, h.DB, host)
	return err
}

// offeredHosts is how many names are offered while one is typed.
const offeredHosts = 20

// jobHosts offers names of hosts to the filter while one types.
func (h *Handlers) jobHosts(c echo.Context) error {
	names, err := models.HostNames(c.Request().Context(), h.DB, strings.TrimSpace(c.QueryParam("host")), offeredHosts)
	if err != nil {
		return err
	}
	return render(c, http.StatusOK, views.HostNames(names))
}
