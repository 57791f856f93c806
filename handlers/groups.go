package handlers

import (
	"context"
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
	if !onPage(c, url) {
		return acted(c, hostAgain(c, host.ID))
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
	form := views.GroupForm{
		HostID: host.ID.String(), HostName: host.Name, ID: g.ID.String(), Was: g.Name,
		Action: "/hosts/" + host.ID.String() + "/source-groups/" + g.ID.String(),
		Name:   g.Name, Tag: g.Tag, Includes: g.Includes, Excludes: g.Excludes, Retention: views.RetentionOf(g.Retention),
	}
	if g.MinFiles > 0 {
		form.MinFiles = ui.Number(g.MinFiles)
	}
	if g.MinBytes > 0 {
		form.MinBytes = ui.ExactBytes(g.MinBytes)
	}
	return render(c, http.StatusOK, views.GroupFormPage(h.page(c, "Edit "+g.Name, views.NavFleet), form))
}

// saveGroup makes a group, or changes the one whose id the path has.
func (h *Handlers) saveGroup(c echo.Context) error {
	host, stored, err := h.groupIfAny(c)
	if err != nil {
		return err
	}
	form, edited, err := readGroupForm(c, host, stored)
	if err != nil {
		return err
	}
	if edited {
		noteDrawn(c)
		if stored != nil && c.FormValue("edit") == "preview" {
			return h.previewGroup(c)
		}
		return h.showGroup(c, http.StatusOK, form)
	}
	fields, errs := groupFields(form)
	if len(errs) == 0 {
		err = h.storeGroup(c.Request().Context(), host.ID, stored, fields)
		errs, _ = fieldErrors(err)
	}
	if len(errs) > 0 {
		form.Errors = errs
		return h.showGroup(c, http.StatusUnprocessableEntity, form)
	}
	if err != nil {
		return err
	}
	h.Jobs.HostChanged(host.ID)
	return done(c, hostAgain(c, host.ID))
}

func (h *Handlers) showGroup(c echo.Context, status int, form views.GroupForm) error {
	if partial(c) {
		return render(c, status, views.GroupFormBody(form))
	}
	if form.Setup {
		return h.setupAgain(c, status, func(v *views.Enrolment) { v.GroupForm = &form })
	}
	return render(c, status, views.GroupFormPage(h.page(c, "Source group", views.NavFleet), form))
}

// groupIfAny is groupOf, with nil for the group where the path has none.
func (h *Handlers) groupIfAny(c echo.Context) (*models.Host, *models.Group, error) {
	if c.Param("gid") != "" {
		return h.groupOf(c)
	}
	host, err := h.hostOf(c)
	return host, nil, err
}

// storeGroup leaves a group its tag where the form has none: parting it from
// its snapshots must be said.
func (h *Handlers) storeGroup(ctx context.Context, host models.HostID, stored *models.Group, f models.GroupFields) error {
	if stored == nil {
		_, err := models.AddGroup(ctx, h.DB, host, f)
		return err
	}
	if f.Tag == "" {
		f.Tag = stored.Tag
	}
	_, err := models.UpdateGroup(ctx, h.DB, host, stored.ID, f)
	return err
}

// readGroupForm also reports whether the form was sent to get a row more or
// less, and not to be stored.
func readGroupForm(c echo.Context, host *models.Host, stored *models.Group) (views.GroupForm, bool, error) {
	params, err := formParams(c)
	if err != nil {
		return views.GroupForm{}, false, err
	}
	f := views.GroupForm{
		HostID: host.ID.String(), HostName: host.Name, ID: c.Param("gid"), Action: c.Request().URL.Path,
		Name: params.Get("name"), Tag: strings.TrimSpace(params.Get("tag")),
		MinFiles: params.Get("min_files"), MinBytes: params.Get("min_bytes"), Retention: readRetention(c), Setup: inSetup(c),
	}
	if stored == nil {
		stored = &models.Group{}
	}
	edit := params.Get("edit")
	f.Was = stored.Name
	f.Includes = readRows(params["includes"], stored.Includes, edit, "includes", &f.Focus)
	f.Excludes = readRows(params["excludes"], stored.Excludes, edit, "excludes", &f.Focus)
	return f, edit != "", nil
}

func readRetention(c echo.Context) views.Retention {
	return views.Retention{
		KeepLast: c.FormValue("keep_last"), KeepHourly: c.FormValue("keep_hourly"), KeepDaily: c.FormValue("keep_daily"),
		KeepWeekly: c.FormValue("keep_weekly"), KeepMonthly: c.FormValue("keep_monthly"), KeepYearly: c.FormValue("keep_yearly"),
		KeepWithin: c.FormValue("keep_within"), KeepTags: c.FormValue("keep_tags"),
	}
}

// readRows reads a list's rows. One of several lines was pasted and is several
// entries, unless it is stored just so: names may contain newlines. Blanks
// inside and at the ends belong to a path; only empty rows go. The edit
// "includes+" adds a row, "includes-2" takes the third away.
func readRows(values, stored []string, edit, name string, focus *string) []string {
	var rows []string
	for i, v := range values {
		if edit == name+"-"+strconv.Itoa(i) {
			*focus = name
			continue
		}
		v = strings.ReplaceAll(v, "\r\n", "\n") // the browser's
		if slices.Contains(stored, v) {
			rows = append(rows, v)
			continue
		}
		for line := range strings.SplitSeq(v, "\n") {
			if strings.TrimSpace(line) != "" {
				rows = append(rows, line)
			}
		}
	}
	if edit == name+"+" {
		*focus = name
		rows = append(rows, "")
	}
	return rows
}

// groupFields reads the numbers; what isn't one is said at its field.
func groupFields(form views.GroupForm) (models.GroupFields, views.Errors) {
	retention, errs := form.Retention.Policy()
	f := models.GroupFields{Name: form.Name, Tag: form.Tag, Includes: form.Includes, Excludes: form.Excludes, Retention: retention}
	var ok bool
	if f.MinFiles, ok = ui.ParseCount(form.MinFiles); !ok && strings.TrimSpace(form.MinFiles) != "" {
		errs["min_files"] = "This must be a whole number, or empty."
	}
	if f.MinBytes, ok = ui.ParseBytes(form.MinBytes); !ok && strings.TrimSpace(form.MinBytes) != "" {
		errs["min_bytes"] = "This must be a size like 10 GiB, or empty."
	}
	return f, errs
}

// retentionWords is asked as one types: what the policy in the form keeps.
func (h *Handlers) retentionWords(c echo.Context) error {
	return render(c, http.StatusOK, views.RetentionWords(readRetention(c)))
}

func (h *Handlers) confirmDeleteGroup(c echo.Context) error {
	host, group, err := h.groupOf(c)
	if err != nil {
		return err
	}
	return h.askDeleteGroup(c, host, group, false)
}

// askDeleteGroup asks, or shows the schedules that stand in the way, each
// removable in place; again, when one of them has just been removed.
func (h *Handlers) askDeleteGroup(c echo.Context, host *models.Host, g *models.Group, again bool) error {
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
	crumbs := views.HostCrumbs(host.ID.String(), host.Name, ui.Crumb{Text: g.Name, URL: groupURL}, ui.Crumb{Text: "delete"})
	var rows []views.RemoveRow
	for _, s := range state.Schedules {
		if slices.Contains(s.GroupIDs, g.ID) {
			rows = append(rows, removeRow(s, g, names, groupURL))
		}
	}
	stay, err := h.snapshotsStay(c, g)
	if err != nil {
		return err
	}
	act, keep := "Delete “"+g.Name+"”", "Keep “"+g.Name+"”"
	if len(rows) == 0 {
		return h.confirm(c, http.StatusOK, views.Confirm{
			Heading: act + "?", Lost: "It is no longer backed up; a waiting job is cancelled, a running one may end.",
			Stays:  stay + " in the repository under the tag “" + g.Tag + "”.",
			Action: groupURL + "/delete", Act: act, Keep: keep, KeepURL: url, Crumbs: crumbs,
		})
	}
	r := views.RemoveFirst{
		Heading: "“" + g.Name + "” is still in " + models.Counted(len(rows), "schedule", "schedules"),
		Text:    "Remove it from these first, then delete it. " + stay + " in the repository either way.",
		Rows:    rows, Again: again, Act: act, Keep: keep, KeepURL: url, Crumbs: crumbs,
	}
	if partial(c) {
		return render(c, http.StatusConflict, views.RemoveFirstDialog(r))
	}
	return render(c, http.StatusConflict, views.RemoveFirstPage(h.page(c, r.Heading, views.NavFleet), r))
}

// snapshotsStay begins the sentence of what a group leaves behind, with their
// count where any are known.
func (h *Handlers) snapshotsStay(c echo.Context, g *models.Group) (string, error) {
	counts, err := models.CountSnapshots(c.Request().Context(), h.DB, g.HostID)
	if err != nil {
		return "", err
	}
	for _, n := range counts {
		if n.GroupID == g.ID {
			return "Its " + ui.Count(int64(n.Count), "snapshot stays", "snapshots stay"), nil
		}
	}
	return "Its snapshots stay", nil
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
		return h.askDeleteGroup(c, host, group, false)
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
	id, err := models.ParseID[models.ScheduleID](c.Param("sid"))
	if err != nil {
		return err
	}
	cancelled, err := models.LeaveSchedule(c.Request().Context(), h.DB, host.ID, group.ID, id)
	if err != nil {
		return err
	}
	h.Jobs.JobsCancelled(cancelled)
	h.Jobs.HostChanged(host.ID)
	if !partial(c) {
		return c.Redirect(http.StatusSeeOther, "/hosts/"+host.ID.String()+"/source-groups/"+group.ID.String()+"/delete")
	}
	return h.askDeleteGroup(c, host, group, true)
}
