package handlers

import (
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/labstack/echo/v4"

	"resticfleet/handlers/api"
	"resticfleet/models"
	"resticfleet/views"
	"resticfleet/views/ui"
)

func (h *Handlers) newHost(c echo.Context) error {
	return render(c, http.StatusOK, views.HostFormPage(h.page(c, "Add host", views.NavFleet), views.HostForm{}))
}

// addHost makes the host and the line to paste on it, which the next page shows.
func (h *Handlers) addHost(c echo.Context) error {
	form := views.HostForm{Name: c.FormValue("name"), Labels: c.FormValue("labels"), ResticHost: c.FormValue("restic_host")}
	noteTarget(c, strings.TrimSpace(form.Name))
	host, err := models.AddHost(c.Request().Context(), h.DB, models.HostFields{
		Name: form.Name, Labels: splitList(form.Labels), ResticHost: strings.TrimSpace(form.ResticHost),
	})
	if errs, bad := fieldErrors(err); bad {
		form.Errors = errs
		if partial(c) {
			return render(c, http.StatusUnprocessableEntity, views.HostFormBody(form))
		}
		return render(c, http.StatusUnprocessableEntity, views.HostFormPage(h.page(c, "Add host", views.NavFleet), form))
	}
	if err != nil {
		return err
	}
	h.Jobs.HostChanged(host.ID)
	return h.makeLine(c, host)
}

func (h *Handlers) newEnrolment(c echo.Context) error {
	host, err := h.hostOf(c)
	if err != nil {
		return err
	}
	return h.makeLine(c, host)
}

// lineCookie holds the token of the line that this browser made, for as long
// as it works: a reload, or another step, shows the same line again. The server
// keeps only its hash.
const lineCookie = "enrolment"

func (h *Handlers) makeLine(c echo.Context, host *models.Host) error {
	token, _, err := models.NewEnrollmentToken(c.Request().Context(), h.DB, host.ID)
	if err != nil {
		return err
	}
	h.keepLine(c, host.ID, token, models.EnrollmentTokenLife)
	return done(c, views.EnrolURL(host.ID.String()))
}

func (h *Handlers) keepLine(c echo.Context, host models.HostID, token string, life time.Duration) {
	h.setCookie(c, &http.Cookie{
		Name: lineCookie, Value: token, Path: "/hosts/" + host.String(), MaxAge: int(life.Seconds()), SameSite: http.SameSiteStrictMode,
	})
}

// enrolment is the page of a host's setup.
func (h *Handlers) enrolment(c echo.Context) error {
	v, err := h.loadEnrolment(c)
	if err != nil {
		return err
	}
	if err := h.openForm(c, &v); err != nil {
		return err
	}
	if partial(c) {
		return render(c, http.StatusOK, views.EnrolmentLive(v))
	}
	return h.renderEnrolment(c, http.StatusOK, v)
}

func (h *Handlers) renderEnrolment(c echo.Context, status int, v views.Enrolment) error {
	p := h.page(c, v.Heading(), views.NavFleet)
	p.StreamURL = "/events?on=host:" + v.HostID
	return render(c, status, views.EnrolmentPage(p, v))
}

// setupAgain shows the setup with a form as it was sent, with its mistakes.
func (h *Handlers) setupAgain(c echo.Context, status int, fill func(*views.Enrolment)) error {
	v, err := h.loadEnrolment(c)
	if err != nil {
		return err
	}
	fill(&v)
	return h.renderEnrolment(c, status, v)
}

// inSetup tells a form of the setup from the same form on a page of its own.
func inSetup(c echo.Context) bool { return c.FormValue("setup") == "on" }

// hostAgain is where a form about a host leads to.
func hostAgain(c echo.Context, host models.HostID) string {
	if inSetup(c) {
		return views.EnrolURL(host.String())
	}
	return "/hosts/" + host.String()
}

// loadEnrolment is a host's setup, as far as it is, without an open form.
func (h *Handlers) loadEnrolment(c echo.Context) (views.Enrolment, error) {
	ctx := c.Request().Context()
	id, err := models.ParseID[models.HostID](c.Param("id"))
	if err != nil {
		return views.Enrolment{}, err
	}
	host, err := models.FindHostState(ctx, h.DB, id)
	if err != nil {
		return views.Enrolment{}, err
	}
	v := presentEnrolment(host, who(c).Role.Allows(models.RoleAdmin))
	if v.Line, err = h.lineOf(c, host.Host); err != nil {
		return v, err
	}
	repo, err := models.FindKeptRepository(ctx, h.DB, id)
	if err != nil && models.CodeOf(err) != models.ENotFound {
		return v, err
	}
	v.Repository, err = h.presentRepository(c, host, repo)
	return v, err
}

// lineOf is the line that this browser has made for the host.
func (h *Handlers) lineOf(c echo.Context, host *models.Host) (views.Line, error) {
	base := h.baseURL(c.Request())
	reach := api.ReachOf(base)
	line := views.Line{RunCommand: api.RunCommand, Server: base, OnlyHere: reach == api.ReachLoopback, Plain: reach == api.ReachPlain}
	cookie, err := c.Cookie(lineCookie)
	if err != nil || !who(c).Role.Allows(models.RoleAdmin) {
		return line, nil
	}
	token, err := models.FindEnrollmentToken(c.Request().Context(), h.DB, host.ID, cookie.Value)
	if models.CodeOf(err) == models.ENotFound {
		return line, nil
	}
	if err != nil {
		return line, err
	}
	line.MadeAt, line.ExpiresAt = token.CreatedAt, token.ExpiresAt
	switch {
	case token.Open():
		line.Command = api.EnrollCommand(base, cookie.Value)
	case token.UsedAt != nil:
		h.keepLine(c, host.ID, "", -time.Second)
	default:
		line.Expired = true
	}
	return line, nil
}

// openForm opens the form of the step that was asked for, or else of the one
// that is next, where the reader may fill it in.
func (h *Handlers) openForm(c echo.Context, v *views.Enrolment) error {
	step, err := strconv.Atoi(c.QueryParam("step"))
	asked := err == nil
	if !asked {
		step = v.Next()
	}
	switch {
	case step == views.StepRepository && v.CanAdminister && (asked || !v.Retry()):
		form, err := h.repositoryForm(c, everyday)
		if err != nil {
			return err
		}
		form.Setup = true
		v.RepositoryForm = &form
	case step == views.StepGroup:
		form := firstGroup(v)
		v.GroupForm = &form
	}
	return nil
}

func presentEnrolment(h *models.HostState, mayAdminister bool) views.Enrolment {
	now := time.Now()
	v := views.Enrolment{
		Clock: pageClock(h.Location()), HostID: h.ID.String(), HostName: h.Name, CanAdminister: mayAdminister,
		Enrolled: h.EnrolledAt != nil, Arrived: h.Arrived(), Online: h.Online(now), OS: h.OS,
		NoRestic: h.Arrived() && h.ResticVersion == "",
	}
	if h.OS != "" {
		v.About = append(v.About, h.OS)
	}
	if h.ResticVersion != "" {
		v.About = append(v.About, "restic "+h.ResticVersion)
	}
	for _, g := range h.Groups {
		v.Groups = append(v.Groups, ui.Link{Text: g.Name, URL: "/hosts/" + v.HostID + "/source-groups/" + g.ID.String()})
	}
	for _, s := range h.Schedules {
		v.Schedules = append(v.Schedules, words(s.Cron))
	}
	if g := setupGroup(h); g != nil {
		v.First = &views.FirstBackup{Group: presentGroup(h, g, nil, now), Cause: g.LastError, SnapshotID: g.GoodSnapshotID}
		if g.LastJobID != nil {
			v.First.JobID = g.LastJobID.String()
		}
	}
	return v
}

// setupGroup is the source group that is the farthest on its way to a first
// good snapshot; nil without any.
func setupGroup(h *models.HostState) *models.Group {
	var first *models.Group
	far := -1
	for _, g := range h.Groups {
		at := 0
		switch {
		case g.GoodAt != nil:
			at = 3
		case h.Active(g.ID) != nil:
			at = 2
		case g.LastJobID != nil:
			at = 1
		}
		if at > far {
			first, far = g, at
		}
	}
	return first
}

// firstGroup is the form for a new source group; the first is filled in with
// what is worth keeping of most machines, and with a retention to change.
func firstGroup(v *views.Enrolment) views.GroupForm {
	form := views.GroupForm{HostID: v.HostID, HostName: v.HostName, Action: "/hosts/" + v.HostID + "/source-groups", Setup: true}
	if len(v.Groups) > 0 {
		return form
	}
	form.Name, form.Tag = "system", "system"
	form.Retention = views.Retention{KeepDaily: "7", KeepWeekly: "5", KeepMonthly: "12"}
	switch v.OS {
	case "darwin":
		form.Includes, form.Excludes = []string{"/Users"}, []string{"/Users/*/Library/Caches", "/Users/*/.Trash"}
	case "freebsd", "openbsd", "netbsd":
		form.Includes, form.Excludes = []string{"/etc", "/usr/local/etc", "/root", "/home"}, []string{"/home/*/.cache", "/root/.cache"}
	default:
		form.Includes, form.Excludes = []string{"/etc", "/root", "/home"}, []string{"/home/*/.cache", "/root/.cache"}
	}
	return form
}
