package handlers

import (
	"net/http"
	"strings"
	"time"

	"github.com/labstack/echo/v4"

	"resticfleet/models"
	"resticfleet/views"
	"resticfleet/views/ui"
)

// recentJobs is how many jobs a host's page shows.
const recentJobs = 10

func (h *Handlers) hostOf(c echo.Context) (*models.Host, error) {
	id, err := models.ParseID[models.HostID](c.Param("id"))
	if err != nil {
		return nil, err
	}
	return models.FindHost(c.Request().Context(), h.DB, id)
}

func (h *Handlers) host(c echo.Context) error {
	id, err := models.ParseID[models.HostID](c.Param("id"))
	if err != nil {
		return err
	}
	v, err := h.loadHost(c, id)
	if err != nil {
		return err
	}
	if partial(c) {
		return render(c, http.StatusOK, views.HostLive(v))
	}
	p := h.page(c, v.Name, views.NavFleet)
	p.StreamURL = "/events?on=host:" + v.ID
	return render(c, http.StatusOK, views.HostPage(p, v))
}

// loadHost is a host's whole page, in nine statements whatever it has.
func (h *Handlers) loadHost(c echo.Context, id models.HostID) (views.Host, error) {
	ctx := c.Request().Context()
	host, err := models.FindHostState(ctx, h.DB, id)
	if err != nil {
		return views.Host{}, err
	}
	groups := make([]models.GroupID, len(host.Groups))
	for i, g := range host.Groups {
		groups[i] = g.ID
	}
	days, err := models.ListDays(ctx, h.DB, groups, time.Now().AddDate(0, 0, -models.FleetStripDays))
	if err != nil {
		return views.Host{}, err
	}
	recent, _, err := models.ListJobs(ctx, h.DB, models.JobFilter{HostID: id}, models.Page{Limit: recentJobs})
	if err != nil {
		return views.Host{}, err
	}
	repo, err := models.FindKeptRepository(ctx, h.DB, id)
	if err != nil && models.CodeOf(err) != models.ENotFound {
		return views.Host{}, err
	}
	shown, err := h.presentRepository(c, host, repo)
	if err != nil {
		return views.Host{}, err
	}
	return presentHost(host, days, recent, shown, who(c)), nil
}

// presentRepository says whether a host's repository is ready, from its newest
// init.
func (h *Handlers) presentRepository(c echo.Context, host *models.HostState, repo *models.KeptRepository) (*views.Repository, error) {
	if repo == nil {
		return nil, nil
	}
	v := &views.Repository{URL: repo.URL, EnvNames: repo.EnvNames(), ID: repo.ResticID, State: ui.Waiting, Upkeep: presentUpkeep(host.Host, repo)}
	if repo.ResticID != "" {
		v.State = ui.Good
		return v, nil
	}
	inits, _, err := models.ListJobs(c.Request().Context(), h.DB, models.JobFilter{HostID: host.ID, Kind: models.KindInit}, models.Page{Limit: 1})
	if err != nil || len(inits) == 0 || inits[0].RepositoryURL != repo.URL {
		return v, err
	}
	init := inits[0]
	v.JobID, v.State, v.Cause = init.ID.String(), views.JobState(string(init.State)), init.Error
	v.Changed = init.FinishedAt != nil && repo.BoundAt.After(*init.FinishedAt)
	return v, nil
}

// presentUpkeep says when a repository is kept small and checked, or why not.
func presentUpkeep(host *models.Host, repo *models.KeptRepository) []views.Upkeep {
	var upkeep []views.Upkeep
	for _, k := range repo.Upkeep {
		u := views.Upkeep{Name: views.JobTitle(string(k.Kind), ""), Value: "off", URL: maintenancePlace(host.ID) + "/" + string(k.Kind)}
		switch {
		case !k.Elsewhere.IsZero():
			u.Value, u.URL = "by another host", maintenancePlace(k.Elsewhere)
		case k.Broken:
			u.Value, u.URL, u.Wrong = "needs a hand", maintenancePlace(host.ID), true
		case k.Enabled && !host.Maintains():
			u.Value, u.URL, u.Wrong = "needs a newer agent", maintenancePlace(host.ID), true
		case k.Enabled:
			u.Value = words(k.Cron)
		}
		upkeep = append(upkeep, u)
	}
	second := views.Upkeep{Name: "Second credentials", Value: "none", URL: "/hosts/" + host.ID.String() + "/repository/maintenance"}
	if repo.HasMaintenance() {
		second.Value = "set"
	}
	return append(upkeep, second)
}

func (h *Handlers) renameHost(c echo.Context) error {
	host, err := h.hostOf(c)
	if err != nil {
		return err
	}
	return h.showHostEdit(c, http.StatusOK, host, views.HostEdit{Name: host.Name, Labels: host.Labels})
}

func (h *Handlers) showHostEdit(c echo.Context, status int, host *models.Host, form views.HostEdit) error {
	form.HostID, form.HostName, form.ResticHost = host.ID.String(), host.Name, host.ResticHost
	if partial(c) {
		return render(c, status, views.HostEditBody(form))
	}
	return render(c, status, views.HostEditPage(h.page(c, "Name and labels of "+host.Name, views.NavFleet), form))
}

// saveHost changes a host's name and labels.
func (h *Handlers) saveHost(c echo.Context) error {
	host, err := h.hostOf(c)
	if err != nil {
		return err
	}
	params, err := formParams(c)
	if err != nil {
		return err
	}
	form, edit := views.HostEdit{Name: params.Get("name")}, params.Get("edit")
	form.Labels = readRows(params["labels"], nil, edit, "labels", &form.Focus)
	if edit != "" {
		noteDrawn(c)
		return h.showHostEdit(c, http.StatusOK, host, form)
	}
	_, err = models.UpdateHost(c.Request().Context(), h.DB, host.ID, models.HostFields{Name: form.Name, Labels: form.Labels})
	if errs, bad := fieldErrors(err); bad {
		form.Errors = errs
		return h.showHostEdit(c, http.StatusUnprocessableEntity, host, form)
	}
	if err != nil {
		return err
	}
	h.Jobs.HostChanged(host.ID)
	return done(c, "/hosts/"+host.ID.String())
}

// splitList reads a comma separated field.
func splitList(s string) []string {
	var out []string
	for part := range strings.SplitSeq(s, ",") {
		if part = strings.TrimSpace(part); part != "" {
			out = append(out, part)
		}
	}
	return out
}

// confirm asks in the dialog or on a page of its own.
func (h *Handlers) confirm(c echo.Context, status int, q views.Confirm) error {
	if partial(c) {
		return render(c, status, views.ConfirmDialog(q))
	}
	nav := views.NavFleet
	if strings.HasPrefix(q.KeepURL, "/settings/") {
		nav = views.NavSettings
	}
	return render(c, status, views.ConfirmPage(h.page(c, q.Heading, nav), q))
}
