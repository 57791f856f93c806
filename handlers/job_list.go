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
	"resticfleet/views/ui"
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

// offered is a parameter's value where a choice has it, "" otherwise.
func offered(c echo.Context, name string, choices []views.Choice) string {
	value := c.QueryParam(name)
	if !slices.ContainsFunc(choices, func(c views.Choice) bool { return c.Value == value }) {
		return ""
	}
	return value
}

// readJobsFilter takes what the filter's own choices offer; anything else is
// any.
func readJobsFilter(c echo.Context) views.JobsFilter {
	f := views.JobsFilter{
		State: offered(c, "state", views.JobStateChoices), Kind: offered(c, "kind", views.JobKindChoices), When: offered(c, "when", views.JobWhenChoices),
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
	f.From, f.Until = readSpan(v.Clock, v.Filter.When, v.Filter.From, v.Filter.To, v.Errors)
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
	v.Groups, f.SourceGroupID, err = h.groupChoices(ctx, host, v.Filter.Group)
	if f.SourceGroupID.IsZero() {
		v.Filter.Group = ""
	}
	return f, err
}

// groupChoices offers a host's source groups, if it has any, and reads which of
// them is chosen.
func (h *Handlers) groupChoices(ctx context.Context, host *models.Host, value string) (choices []views.Choice, chosen models.GroupID, err error) {
	groups, err := models.ListAnyGroups(ctx, h.DB, host.ID)
	for _, g := range groups {
		name := g.Name
		if g.ArchivedAt != nil {
			name += " (deleted)"
		}
		choices = append(choices, views.Choice{Value: g.ID.String(), Text: name})
		if g.ID.String() == value {
			chosen = g.ID
		}
	}
	if len(choices) > 0 {
		choices = slices.Insert(choices, 0, views.Choice{Text: "Any source group"})
	}
	return choices, chosen, err
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

// readSpan reads a span of time in the page's zone: up to now, or between two
// times. What is wrong with them is in errs.
func readSpan(clock ui.Clock, when, from, to string, errs views.Errors) (since, until time.Time) {
	if last, err := time.ParseDuration(when); err == nil {
		since = clock.Now.Add(-last)
	}
	read := func(field, value string) time.Time {
		if value == "" {
			return time.Time{}
		}
		for _, form := range []string{"2006-01-02T15:04", "2006-01-02T15:04:05", time.DateOnly} {
			if at, err := time.ParseInLocation(form, value, clock.Zone); err == nil {
				return at
			}
		}
		errs[field] = "This is not a time. Write it like 2026-11-25T02:00."
		return time.Time{}
	}
	if when != views.WhenBetween {
		return since, until
	}
	since, until = read("from", from), read("to", to)
	if !since.IsZero() && !until.IsZero() && !until.After(since) {
		errs["to"] = "This is not after the beginning. Choose a later time."
	}
	return since, until
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
		v.Rows = append(v.Rows, presentJobRow(j, waits[j.ID]))
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
