package handlers

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"

	"github.com/labstack/echo/v4"

	"resticfleet/models"
	"resticfleet/views"
	"resticfleet/views/ui"
)

func (h *Handlers) groupOf(c echo.Context) (*models.Host, *models.Group, error) {
	host, err := h.hostOf(c)
	if err != nil {
		return nil, nil, err
	}
	id, err := models.ParseID[models.GroupID](c.Param("gid"))
	if err != nil {
		return nil, nil, err
	}
	group, err := models.FindGroup(c.Request().Context(), h.DB, host.ID, id)
	return host, group, err
}

// runGroup answers HTMX with the row as it is now, so that the click shows at
// once, whatever restic takes.
func (h *Handlers) runGroup(c echo.Context) error {
	host, group, err := h.groupOf(c)
	if err != nil {
		return err
	}
	if _, err := h.Jobs.RunGroup(c.Request().Context(), host.ID, group.ID, who(c).Actor()); err != nil {
		return err
	}
	url := "/hosts/" + host.ID.String()
	if !partial(c) || !strings.HasSuffix(c.Request().Header.Get("HX-Current-URL"), url) {
		return acted(c, url)
	}
	v, err := h.loadHost(c, host.ID)
	if err != nil {
		return err
	}
	i := slices.IndexFunc(v.Groups, func(g views.Group) bool { return g.ID == group.ID.String() })
	if i < 0 {
		return acted(c, url)
	}
	c.Response().Header().Set("HX-Trigger", "fleet,job,jobs")
	return render(c, http.StatusOK, views.GroupUpdate(v, v.Groups[i]))
}

func (h *Handlers) newGroup(c echo.Context) error {
	host, err := h.hostOf(c)
	if err != nil {
		return err
	}
	url := "/hosts/" + host.ID.String() + "/source-groups"
	return render(c, http.StatusOK, views.GroupFormPage(h.page(c, "New source group", views.NavFleet),
		views.GroupForm{HostID: host.ID.String(), HostName: host.Name, Action: url}))
}

func (h *Handlers) editGroup(c echo.Context) error {
	host, g, err := h.groupOf(c)
	if err != nil {
		return err
	}
	number := func(n int64) string {
		if n == 0 {
			return ""
		}
		return strconv.FormatInt(n, 10)
	}
	r := g.Retention
	form := views.GroupForm{
		HostID: host.ID.String(), HostName: host.Name, ID: g.ID.String(),
		Action: "/hosts/" + host.ID.String() + "/source-groups/" + g.ID.String(),
		Name:   g.Name, Tag: g.Tag, Includes: strings.Join(g.Includes, "\n"), Excludes: strings.Join(g.Excludes, "\n"),
		Retention: views.Retention{
			KeepLast: number(int64(r.KeepLast)), KeepHourly: number(int64(r.KeepHourly)), KeepDaily: number(int64(r.KeepDaily)),
			KeepWeekly: number(int64(r.KeepWeekly)), KeepMonthly: number(int64(r.KeepMonthly)), KeepYearly: number(int64(r.KeepYearly)),
			KeepWithin: r.KeepWithin, KeepTags: strings.Join(r.KeepTags, ", "),
		},
		MinFiles: number(g.MinFiles), MinBytes: number(g.MinBytes),
	}
	return render(c, http.StatusOK, views.GroupFormPage(h.page(c, "Edit "+g.Name, views.NavFleet), form))
}

// saveGroup makes a group, or changes the one whose id the path has.
func (h *Handlers) saveGroup(c echo.Context) error {
	host, err := h.hostOf(c)
	if err != nil {
		return err
	}
	form := readGroupForm(c, host)
	fields, errs := groupFields(form)
	if len(errs) == 0 {
		err = h.storeGroup(c.Request().Context(), host.ID, form.ID, fields)
		errs, _ = fieldErrors(err)
	}
	if len(errs) > 0 {
		form.Errors = errs
		if partial(c) {
			return render(c, http.StatusUnprocessableEntity, views.GroupFormBody(form))
		}
		return render(c, http.StatusUnprocessableEntity, views.GroupFormPage(h.page(c, "Source group", views.NavFleet), form))
	}
	if err != nil {
		return err
	}
	h.Jobs.HostChanged(host.ID)
	return done(c, "/hosts/"+host.ID.String())
}

func (h *Handlers) storeGroup(ctx context.Context, host models.HostID, id string, f models.GroupFields) error {
	if id == "" {
		_, err := models.AddGroup(ctx, h.DB, host, f)
		return err
	}
	group, err := models.ParseID[models.GroupID](id)
	if err != nil {
		return err
	}
	_, err = models.UpdateGroup(ctx, h.DB, host, group, f)
	return err
}

func readGroupForm(c echo.Context, host *models.Host) views.GroupForm {
	f := views.GroupForm{
		HostID: host.ID.String(), HostName: host.Name, ID: c.Param("gid"), Action: c.Request().URL.Path,
		Name: c.FormValue("name"), Tag: strings.TrimSpace(c.FormValue("tag")),
		Includes: c.FormValue("includes"), Excludes: c.FormValue("excludes"),
		MinFiles: c.FormValue("min_files"), MinBytes: c.FormValue("min_bytes"),
	}
	f.Retention = views.Retention{
		KeepLast: c.FormValue("keep_last"), KeepHourly: c.FormValue("keep_hourly"), KeepDaily: c.FormValue("keep_daily"),
		KeepWeekly: c.FormValue("keep_weekly"), KeepMonthly: c.FormValue("keep_monthly"), KeepYearly: c.FormValue("keep_yearly"),
		KeepWithin: strings.TrimSpace(c.FormValue("keep_within")), KeepTags: c.FormValue("keep_tags"),
	}
	return f
}

// groupFields reads the numbers; what isn't one is said at its field.
func groupFields(form views.GroupForm) (models.GroupFields, views.Errors) {
	errs := views.Errors{}
	number := func(field, s string) int64 {
		if s = strings.TrimSpace(s); s == "" {
			return 0
		}
		n, err := strconv.ParseInt(s, 10, 64)
		if err != nil {
			errs[field] = "This must be a whole number, or empty."
		}
		return n
	}
	r := form.Retention
	return models.GroupFields{
		Name: form.Name, Tag: form.Tag, Includes: lines(form.Includes), Excludes: lines(form.Excludes),
		MinFiles: number("min_files", form.MinFiles), MinBytes: number("min_bytes", form.MinBytes),
		Retention: models.Retention{
			KeepLast: int(number("keep_last", r.KeepLast)), KeepHourly: int(number("keep_hourly", r.KeepHourly)),
			KeepDaily: int(number("keep_daily", r.KeepDaily)), KeepWeekly: int(number("keep_weekly", r.KeepWeekly)),
			KeepMonthly: int(number("keep_monthly", r.KeepMonthly)), KeepYearly: int(number("keep_yearly", r.KeepYearly)),
			KeepWithin: r.KeepWithin, KeepTags: splitList(r.KeepTags),
		},
	}, errs
}

// lines reads one entry a line. Blanks inside and at the ends belong to the
// path; only empty lines and the browser's carriage returns go.
func lines(s string) []string {
	var out []string
	for line := range strings.SplitSeq(s, "\n") {
		if line = strings.TrimSuffix(line, "\r"); strings.TrimSpace(line) != "" {
			out = append(out, line)
		}
	}
	return out
}

func (h *Handlers) confirmDeleteGroup(c echo.Context) error {
	host, group, err := h.groupOf(c)
	if err != nil {
		return err
	}
	return h.askDeleteGroup(c, host, group)
}

// askDeleteGroup asks, or shows the schedules that stand in the way, each
// removable in place.
func (h *Handlers) askDeleteGroup(c echo.Context, host *models.Host, g *models.Group) error {
	state, err := models.FindHostState(c.Request().Context(), h.DB, host.ID)
	if err != nil {
		return err
	}
	names := map[models.GroupID]string{}
	for _, other := range state.Groups {
		names[other.ID] = other.Name
	}
	url := "/hosts/" + host.ID.String()
	groupURL := url + "/source-groups/" + g.ID.String()
	crumbs := []ui.Crumb{{Text: "Fleet", URL: "/"}, {Text: host.Name, URL: url}, {Text: g.Name, URL: groupURL}, {Text: "delete"}}
	var rows []views.RemoveRow
	for _, s := range state.Schedules {
		if slices.Contains(s.GroupIDs, g.ID) {
			rows = append(rows, removeRow(s, g, names, groupURL))
		}
	}
	act, keep := "Delete “"+g.Name+"”", "Keep “"+g.Name+"”"
	if len(rows) == 0 {
		return h.confirm(c, http.StatusOK, views.Confirm{
			Heading: act + "?", Lost: "It is no longer backed up; a waiting job is cancelled, a running one may end.",
			Stays:  "Its snapshots stay in the repository under the tag “" + g.Tag + "”.",
			Action: groupURL + "/delete", Act: act, Keep: keep, KeepURL: url, Crumbs: crumbs,
		})
	}
	r := views.RemoveFirst{
		Heading: fmt.Sprintf("“%s” is still in %s", g.Name, ui.Count(int64(len(rows)), "schedule", "schedules")),
		Text:    "Remove it from these first, then delete it. Its snapshots stay in the repository either way.",
		Rows:    rows, Act: act, Keep: keep, KeepURL: url, Crumbs: crumbs,
	}
	if partial(c) {
		return render(c, http.StatusConflict, views.RemoveFirstDialog(r))
	}
	return render(c, http.StatusConflict, views.RemoveFirstPage(h.page(c, r.Heading, views.NavFleet), r))
}

func removeRow(s *models.Schedule, g *models.Group, names map[models.GroupID]string, groupURL string) views.RemoveRow {
	row := views.RemoveRow{ID: s.ID.String(), Words: words(s.Cron), Action: groupURL + "/leave/" + s.ID.String()}
	var others []string
	for _, id := range s.GroupIDs {
		if id != g.ID {
			others = append(others, names[id])
		}
	}
	if len(others) == 0 {
		row.Warning = "its only group: the schedule goes too"
	} else {
		row.Detail = "with " + strings.Join(others, ", ")
	}
	return row
}

func (h *Handlers) deleteGroup(c echo.Context) error {
	host, group, err := h.groupOf(c)
	if err != nil {
		return err
	}
	cancelled, err := models.DeleteGroup(c.Request().Context(), h.DB, host.ID, group.ID)
	if models.CodeOf(err) == models.EConflict {
		return h.askDeleteGroup(c, host, group)
	}
	if err != nil {
		return err
	}
	h.Jobs.JobsCancelled(cancelled)
	h.Jobs.HostChanged(host.ID)
	return done(c, "/hosts/"+host.ID.String())
}

// leaveSchedule takes a group out of one schedule; a schedule without groups
// is deleted. It answers with what is left to do.
func (h *Handlers) leaveSchedule(c echo.Context) error {
	host, group, err := h.groupOf(c)
	if err != nil {
		return err
	}
	ctx := c.Request().Context()
	id, err := models.ParseID[models.ScheduleID](c.Param("sid"))
	if err != nil {
		return err
	}
	s, err := models.FindSchedule(ctx, h.DB, host.ID, id)
	if err != nil {
		return err
	}
	fields := models.ScheduleFields{Cron: s.Cron, Enabled: s.Enabled}
	for _, g := range s.GroupIDs {
		if g != group.ID {
			fields.GroupIDs = append(fields.GroupIDs, g.String())
		}
	}
	if len(fields.GroupIDs) == 0 {
		_, err = models.DeleteSchedule(ctx, h.DB, host.ID, id)
	} else {
		_, err = models.UpdateSchedule(ctx, h.DB, host.ID, id, fields)
	}
	if err != nil {
		return err
	}
	h.Jobs.HostChanged(host.ID)
	if !partial(c) {
		return c.Redirect(http.StatusSeeOther, "/hosts/"+host.ID.String()+"/source-groups/"+group.ID.String()+"/delete")
	}
	return h.askDeleteGroup(c, host, group)
}
