package handlers

import (
	"context"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/labstack/echo/v4"

	"resticfleet/agent/protocol"
	"resticfleet/models"
	"resticfleet/views"
	"resticfleet/views/ui"
)

// snapshotsPlace is the page of a host's snapshots.
func snapshotsPlace(id models.HostID) string { return "/hosts/" + id.String() + "/snapshots" }

// snapshots lists what can be restored of a host.
func (h *Handlers) snapshots(c echo.Context) error {
	ctx := c.Request().Context()
	host, err := h.hostOf(c)
	if err != nil {
		return err
	}
	role := who(c).Role
	v := views.Snapshots{
		Clock: pageClock(host.Location()), HostID: host.ID.String(), HostName: host.Name, Arrived: host.Arrived(), AgentTooOld: !host.Maintains(), Away: !host.Online(time.Now()),
		CanOperate: role.Allows(models.RoleOperator), CanAdminister: role.Allows(models.RoleAdmin),
		Cursor: c.QueryParam("cursor"), Filter: readSnapshotsFilter(c), Errors: views.Errors{},
	}
	filter, err := h.snapshotFilter(ctx, &v, host)
	if err != nil {
		return err
	}
	if v.Cursor == "" {
		filter.Newest = c.QueryParam("newest") // of a list that someone is in
	}
	list, err := models.FindSnapshotList(ctx, h.DB, filter)
	if err != nil {
		return err
	}
	v.HasRepository, v.ListedAt, v.Count, v.Newer = list.HasRepository, timeOf(list.ListedAt), list.Count, list.Newer
	if list.Refresh != nil {
		v.RefreshState, v.RefreshError = string(list.Refresh.State), list.Refresh.Error
	}
	status := http.StatusOK
	if len(v.Errors) > 0 {
		status = http.StatusUnprocessableEntity
	} else if err := h.fillSnapshots(ctx, &v, filter); err != nil {
		return err
	}
	if v.MarkedOlder, err = h.markedSnapshot(ctx, host.ID, v.Rows, c.QueryParams()["a"]); err != nil {
		return err
	}
	if v.MarkedNewer, err = h.markedSnapshot(ctx, host.ID, v.Rows, c.QueryParams()["b"]); err != nil {
		return err
	}
	if partial(c) {
		return render(c, status, views.SnapshotsLive(v))
	}
	p := h.page(c, "Snapshots of "+host.Name, views.NavFleet)
	p.StreamURL = "/events?on=host:" + v.HostID
	return render(c, status, views.SnapshotsPage(p, v))
}

// readSnapshotsFilter takes what the filter's own choices offer; anything else
// is any.
func readSnapshotsFilter(c echo.Context) views.SnapshotsFilter {
	f := views.SnapshotsFilter{
		Group: c.QueryParam("group"), Tag: strings.TrimSpace(c.QueryParam("tag")),
		When: offered(c, "when", views.SnapshotWhenChoices), Held: offered(c, "held", views.SnapshotHeldChoices),
	}
	if f.When == views.WhenBetween {
		f.From, f.To = c.QueryParam("from"), c.QueryParam("to")
	}
	return f
}

// snapshotFilter turns the form's values into a filter, with what is wrong in
// v.Errors.
func (h *Handlers) snapshotFilter(ctx context.Context, v *views.Snapshots, host *models.Host) (models.SnapshotFilter, error) {
	f := models.SnapshotFilter{HostID: host.ID, Tag: v.Filter.Tag, HeldOnly: v.Filter.Held != "", NoGroup: v.Filter.Group == views.NoGroup}
	f.From, f.Until = readSpan(v.Clock, v.Filter.When, v.Filter.From, v.Filter.To, v.Errors)
	var err error
	v.Groups, f.SourceGroupID, err = h.groupChoices(ctx, host, v.Filter.Group)
	if len(v.Groups) == 0 {
		v.Groups = []views.Choice{{Text: "Any source group"}}
	}
	v.Groups = append(v.Groups, views.Choice{Value: views.NoGroup, Text: "No source group"})
	if f.SourceGroupID.IsZero() && !f.NoGroup {
		v.Filter.Group = ""
	}
	return f, err
}

func (h *Handlers) fillSnapshots(ctx context.Context, v *views.Snapshots, f models.SnapshotFilter) error {
	list, next, err := models.ListSnapshotRows(ctx, h.DB, f, models.Page{Cursor: v.Cursor})
	v.NextCursor = next
	for _, s := range list {
		v.Rows = append(v.Rows, presentSnapshot(s))
	}
	return err
}

// markedSnapshot is the one of the last id, which is read where it isn't among
// the rows; none where it is gone. The filter sends what was marked before the
// page came, and then what is now.
func (h *Handlers) markedSnapshot(ctx context.Context, host models.HostID, rows []views.SnapshotRow, ids []string) (views.SnapshotRow, error) {
	if len(ids) == 0 {
		return views.SnapshotRow{}, nil
	}
	id := ids[len(ids)-1]
	if i := slices.IndexFunc(rows, func(r views.SnapshotRow) bool { return r.ID == id }); i >= 0 {
		return rows[i], nil
	}
	s, err := models.FindSnapshot(ctx, h.DB, host, id)
	if models.CodeOf(err) == models.ENotFound {
		return views.SnapshotRow{}, nil
	}
	if err != nil {
		return views.SnapshotRow{}, err
	}
	return presentSnapshot(s), nil
}

func presentSnapshot(s *models.Snapshot) views.SnapshotRow {
	row := views.SnapshotRow{
		ID: s.ID, ShortID: s.ShortID(), Place: s.Cursor(), At: s.At, GroupName: s.GroupName, SizeBytes: -1, Files: -1, MorePaths: max(s.PathCount-1, 0), Held: s.Held,
	}
	if s.SizeBytes != nil {
		row.SizeBytes = *s.SizeBytes
	}
	if s.FileCount != nil {
		row.Files = *s.FileCount
	}
	if len(s.Paths) > 0 {
		row.Path = s.Paths[0]
	}
	if s.KnownJob {
		row.JobID = s.JobID.String()
	}
	for _, tag := range s.Tags {
		if !strings.HasPrefix(tag, protocol.JobTagPrefix) && tag != s.GroupName {
			row.Tags = append(row.Tags, tag)
		}
	}
	return row
}

func (h *Handlers) refreshSnapshots(c echo.Context) error {
	host, err := h.hostOf(c)
	if err != nil {
		return err
	}
	if _, err := h.Jobs.RefreshSnapshots(c.Request().Context(), host.ID, who(c).Actor()); err != nil {
		return err
	}
	return acted(c, snapshotsPlace(host.ID))
}

// snapshotOf is the host and the snapshot of it that the path names.
func (h *Handlers) snapshotOf(c echo.Context) (*models.Host, *models.Snapshot, error) {
	host, err := h.hostOf(c)
	if err != nil {
		return nil, nil, err
	}
	s, err := models.FindSnapshot(c.Request().Context(), h.DB, host.ID, c.Param("snap"))
	return host, s, err
}

func (h *Handlers) holdSnapshot(c echo.Context) error {
	host, s, err := h.snapshotOf(c)
	if err != nil {
		return err
	}
	if _, err := h.Jobs.HoldSnapshot(c.Request().Context(), host.ID, s.ID, c.FormValue("held") == "on", who(c).Actor()); err != nil {
		return err
	}
	return acted(c, snapshotsPlace(host.ID))
}

// deleteSnapshotQuestion has the short id typed, since data goes. One that is
// held can't be deleted: EConflict says how it could.
func deleteSnapshotQuestion(host *models.Host, s *models.Snapshot) (views.Confirm, error) {
	if s.Held {
		return views.Confirm{}, models.Conflict("The snapshot %s is held, so that nothing removes it. Let it go in the list of snapshots first, then delete it.", s.ShortID())
	}
	url := snapshotsPlace(host.ID)
	of := "from " + pageClock(host.Location()).Exact(s.At)
	if s.GroupName != "" {
		of = "of “" + s.GroupName + "” " + of
	}
	return views.Confirm{
		Heading: "Delete the snapshot " + s.ShortID() + "?",
		Lost:    "The snapshot " + of + " is removed from the repository. Nobody can restore from it any more.",
		Stays:   "Every other snapshot stays, with all that it holds. Space is freed only by the next prune.",
		Action:  url + "/" + s.ID + "/delete", Act: "Delete " + s.ShortID(), Keep: "Keep it", KeepURL: url, TypeName: s.ShortID(),
		Crumbs: views.HostCrumbs(host.ID.String(), host.Name, ui.Crumb{Text: "snapshots", URL: url}, ui.Crumb{Text: "delete"}),
	}, nil
}

// deleteSnapshot asks on a GET, and has a snapshot removed from the repository
// where its short id was typed.
func (h *Handlers) deleteSnapshot(c echo.Context) error {
	host, s, err := h.snapshotOf(c)
	if err != nil {
		return err
	}
	q, err := deleteSnapshotQuestion(host, s)
	if err != nil {
		return err
	}
	if safe(c.Request().Method) {
		return h.confirm(c, http.StatusOK, q)
	}
	if ok, err := h.named(c, q); !ok {
		return err
	}
	job, err := h.Jobs.DeleteSnapshot(c.Request().Context(), host.ID, s.ID, who(c).Actor())
	if err != nil {
		return err
	}
	return done(c, "/jobs/"+job.ID.String())
}
