package handlers

import (
	"net/http"
	"slices"

	"github.com/labstack/echo/v4"

	"resticfleet/models"
	"resticfleet/models/cronspec"
	"resticfleet/views"
	"resticfleet/views/ui"
)

// previewRuns is how many coming runs a form shows.
const previewRuns = 5

func (h *Handlers) scheduleOf(c echo.Context) (*models.Host, *models.Schedule, error) {
	host, err := h.hostOf(c)
	if err != nil {
		return nil, nil, err
	}
	id, err := models.ParseID[models.ScheduleID](c.Param("sid"))
	if err != nil {
		return nil, nil, err
	}
	s, err := models.FindSchedule(c.Request().Context(), h.DB, host.ID, id)
	return host, s, err
}

func (h *Handlers) newSchedule(c echo.Context) error {
	host, err := h.hostOf(c)
	if err != nil {
		return err
	}
	return h.showSchedule(c, http.StatusOK, host, views.ScheduleForm{Cron: "0 2 * * *", Enabled: true}, nil)
}

func (h *Handlers) editSchedule(c echo.Context) error {
	host, s, err := h.scheduleOf(c)
	if err != nil {
		return err
	}
	var chosen []string
	for _, g := range s.GroupIDs {
		chosen = append(chosen, g.String())
	}
	return h.showSchedule(c, http.StatusOK, host, views.ScheduleForm{ID: s.ID.String(), Cron: s.Cron, Enabled: s.Enabled}, chosen)
}

// showSchedule fills in the host's groups and what the expression means.
func (h *Handlers) showSchedule(c echo.Context, status int, host *models.Host, form views.ScheduleForm, chosen []string) error {
	state, err := models.FindHostState(c.Request().Context(), h.DB, host.ID)
	if err != nil {
		return err
	}
	form.HostID, form.HostName = host.ID.String(), host.Name
	form.Action = "/hosts/" + form.HostID + "/schedules"
	if form.ID != "" {
		form.Action += "/" + form.ID
	}
	for _, g := range state.Groups {
		form.Groups = append(form.Groups, views.GroupChoice{
			ID: g.ID.String(), Name: g.Name, Includes: g.Includes, Checked: slices.Contains(chosen, g.ID.String()),
			Unscheduled: !slices.ContainsFunc(state.Schedules, func(s *models.Schedule) bool { return slices.Contains(s.GroupIDs, g.ID) }),
		})
	}
	form.Preview = previewCron(form.Cron, host)
	if partial(c) {
		return render(c, status, views.ScheduleFormBody(form))
	}
	return render(c, status, views.ScheduleFormPage(h.page(c, "Schedule", views.NavFleet), form))
}

// saveSchedule makes a schedule, or changes the one whose id the path has.
func (h *Handlers) saveSchedule(c echo.Context) error {
	host, err := h.hostOf(c)
	if err != nil {
		return err
	}
	params, err := formParams(c)
	if err != nil {
		return err
	}
	form := views.ScheduleForm{ID: c.Param("sid"), Cron: params.Get("cron"), Enabled: params.Get("enabled") != ""}
	if params.Has("edit") {
		noteDrawn(c)
		if preset := params.Get("edit"); preset != "" {
			form.Cron = preset
		}
		return h.showSchedule(c, http.StatusOK, host, form, params["source_group_ids"])
	}
	fields := models.ScheduleFields{Cron: form.Cron, Enabled: form.Enabled, GroupIDs: params["source_group_ids"]}
	ctx := c.Request().Context()
	if form.ID == "" {
		_, err = models.AddSchedule(ctx, h.DB, host.ID, fields)
	} else {
		var id models.ScheduleID
		if id, err = models.ParseID[models.ScheduleID](form.ID); err != nil {
			return err
		}
		_, err = models.UpdateSchedule(ctx, h.DB, host.ID, id, fields)
	}
	if errs, bad := fieldErrors(err); bad {
		form.Errors = errs
		return h.showSchedule(c, http.StatusUnprocessableEntity, host, form, fields.GroupIDs)
	}
	if err != nil {
		return err
	}
	h.Jobs.HostChanged(host.ID)
	return done(c, "/hosts/"+host.ID.String())
}

func (h *Handlers) switchSchedule(c echo.Context) error {
	host, s, err := h.scheduleOf(c)
	if err != nil {
		return err
	}
	fields := models.ScheduleFields{Cron: s.Cron, Enabled: c.FormValue("enabled") == "on"}
	for _, g := range s.GroupIDs {
		fields.GroupIDs = append(fields.GroupIDs, g.String())
	}
	if _, err := models.UpdateSchedule(c.Request().Context(), h.DB, host.ID, s.ID, fields); err != nil {
		return err
	}
	h.Jobs.HostChanged(host.ID)
	return acted(c, "/hosts/"+host.ID.String())
}

func (h *Handlers) confirmDeleteSchedule(c echo.Context) error {
	host, s, err := h.scheduleOf(c)
	if err != nil {
		return err
	}
	url := "/hosts/" + host.ID.String()
	name := words(s.Cron)
	return h.confirm(c, http.StatusOK, views.Confirm{
		Heading: "Delete “" + name + "”?", Lost: "Its source groups no longer run by this schedule.",
		Stays: "The source groups and their snapshots stay.", Action: url + "/schedules/" + s.ID.String() + "/delete",
		Act: "Delete the schedule", Keep: "Keep the schedule", KeepURL: url,
		Crumbs: views.HostCrumbs(host.ID.String(), host.Name, ui.Crumb{Text: "delete schedule"}),
	})
}

func (h *Handlers) deleteSchedule(c echo.Context) error {
	host, s, err := h.scheduleOf(c)
	if err != nil {
		return err
	}
	cancelled, err := models.DeleteSchedule(c.Request().Context(), h.DB, host.ID, s.ID)
	if err != nil {
		return err
	}
	h.Jobs.JobsCancelled(cancelled)
	h.Jobs.HostChanged(host.ID)
	return done(c, "/hosts/"+host.ID.String())
}

// cronPreview is asked as one types: what the expression means, or what is
// wrong with it.
func (h *Handlers) cronPreview(c echo.Context) error {
	id, err := models.ParseID[models.HostID](c.QueryParam("host_id"))
	if err != nil {
		return err
	}
	host, err := models.FindHost(c.Request().Context(), h.DB, id)
	if err != nil {
		return err
	}
	return render(c, http.StatusOK, views.CronPreviewBody(previewCron(c.QueryParam("cron"), host)))
}

func previewCron(expr string, host *models.Host) views.CronPreview {
	v := views.CronPreview{Clock: pageClock(host.Location()), HostName: host.Name}
	if expr == "" {
		return v
	}
	spec, err := cronspec.Parse(expr)
	if err != nil {
		v.Error = sentence(err.Error())
		return v
	}
	v.Words = spec.Describe()
	if zone, err := cronspec.LoadZone(spec.Zone()); err == nil {
		v.Clock.Zone, v.HostName = zone, ""
	}
	for _, run := range spec.Runs(v.Clock.Now, host.Location(), previewRuns) {
		v.Runs = append(v.Runs, views.CronRun{At: run.At, Note: run.Note})
	}
	return v
}
