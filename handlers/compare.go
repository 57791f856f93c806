package handlers

import (
	"net/http"
	"time"

	"github.com/labstack/echo/v4"

	"resticfleet/models"
	"resticfleet/views"
)

// shownChanges is how many changes between two snapshots a page lists.
const shownChanges = 500

// compareSnapshots shows what differs between two snapshots. Where nobody knows
// yet, opening the page asks the agent, and what it finds appears. A look that
// failed is tried again only when asked for: a live update must not.
func (h *Handlers) compareSnapshots(c echo.Context) error {
	ctx := c.Request().Context()
	host, err := h.hostOf(c)
	if err != nil {
		return err
	}
	v := views.Comparison{Clock: pageClock(host.Location()), HostID: host.ID.String(), HostName: host.Name, Away: !host.Online(time.Now())}
	a, b := c.QueryParam("a"), c.QueryParam("b")
	if a == "" || b == "" || a == b {
		v.Problem = "It takes two different snapshots: mark an older and a newer one in the list."
		return h.showComparison(c, http.StatusUnprocessableEntity, v)
	}
	one, err := models.FindSnapshot(ctx, h.DB, host.ID, a)
	if err != nil {
		return err
	}
	other, err := models.FindSnapshot(ctx, h.DB, host.ID, b)
	if err != nil {
		return err
	}
	older, newer := models.Ordered(one, other)
	v.Older, v.Newer = presentSnapshot(older), presentSnapshot(newer)
	job, err := models.LastDiffJob(ctx, h.DB, older, newer) // before the answer, which it keeps as it ends
	if err != nil {
		return err
	}
	diff, err := models.FindDiff(ctx, h.DB, older, newer)
	if err != nil {
		return err
	}
	again := c.QueryParam("again") != ""
	if diff == nil && !partial(c) && (again || job == nil || job.State == models.JobSucceeded) {
		if job, err = h.Jobs.CompareSnapshots(ctx, older, newer, true, who(c).Actor()); err != nil {
			return err
		}
	}
	if again { // or each reload would ask anew
		return c.Redirect(http.StatusSeeOther, v.URL())
	}
	if job != nil {
		v.JobID, v.JobState, v.JobError = job.ID.String(), string(job.State), job.Error
	}
	if diff != nil {
		v.Diff = presentDiff(diff)
	}
	return h.showComparison(c, http.StatusOK, v)
}

func (h *Handlers) showComparison(c echo.Context, status int, v views.Comparison) error {
	if partial(c) {
		return render(c, status, views.ComparisonLive(v))
	}
	p := h.page(c, "Compare snapshots of "+v.HostName, views.NavFleet)
	p.StreamURL = "/events?on=host:" + v.HostID
	return render(c, status, views.ComparisonPage(p, v))
}

func presentDiff(d *models.SnapshotDiff) *views.Diff {
	number := func(of map[string]any, key string) int64 {
		n, _ := of[key].(float64)
		return int64(n)
	}
	added, _ := d.Stats["added"].(map[string]any)
	removed, _ := d.Stats["removed"].(map[string]any)
	shown := d.Changes[:min(len(d.Changes), shownChanges)]
	v := &views.Diff{
		NewFiles: number(added, "files"), NewDirs: number(added, "dirs"), NewBytes: number(added, "bytes"),
		GoneFiles: number(removed, "files"), GoneDirs: number(removed, "dirs"), GoneBytes: number(removed, "bytes"),
		ChangedFiles: number(d.Stats, "changed_files"),
		More:         d.More + number(d.Stats, "changes_left_out") + int64(len(d.Changes)-len(shown)),
	}
	for _, change := range shown {
		v.Changes = append(v.Changes, views.DiffChange{Path: change.Path, Modifier: change.Modifier})
	}
	return v
}
