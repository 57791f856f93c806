package handlers

import (
	"net/http"
	"strings"
	"time"

	"github.com/labstack/echo/v4"

	"resticfleet/models"
	"resticfleet/models/cronspec"
	"resticfleet/views"
	"resticfleet/views/ui"
)

const (
	// fleetPage is how many hosts stand in the table at once: with them the first
	// load of a full fleet weighs under 45 KB.
	fleetPage = 30
	// fleetNeeds is how much of what needs a hand is shown with its cause; the
	// table has the rest.
	fleetNeeds = 8
)

func (h *Handlers) fleet(c echo.Context) error {
	f, err := h.loadFleet(c)
	if err != nil {
		return err
	}
	if partial(c) {
		return render(c, http.StatusOK, views.FleetLive(f))
	}
	p := h.page(c, "Fleet", views.NavFleet)
	if f.Live() {
		p.StreamURL = "/events?on=fleet"
	}
	return render(c, http.StatusOK, views.FleetPage(p, f))
}

// loadFleet is the whole page, in three statements whatever the fleet has. The
// pages behind the first are for going on in the table.
func (h *Handlers) loadFleet(c echo.Context) (views.Fleet, error) {
	ctx, role := c.Request().Context(), who(c).Role
	f := views.Fleet{
		Clock: pageClock(nil), Query: c.QueryParam("q"), Show: c.QueryParam("show"), Cursor: c.QueryParam("cursor"),
		CanAddHost: role.Allows(models.RoleAdmin),
	}
	sum, err := models.SummarizeFleet(ctx, h.DB)
	if err != nil || sum.Total == 0 {
		return f, err
	}
	f.Total, f.NeedHand, f.OfflineCount = sum.Total, sum.NeedHand, sum.Offline
	if f.Cursor == "" && f.NeedHand > 0 {
		needs, more, err := models.ListNeeds(ctx, h.DB, fleetNeeds)
		if err != nil {
			return f, err
		}
		f.MoreAttention = more
		for _, n := range needs {
			f.Attention = append(f.Attention, presentNeed(n, role, f.Clock.Now))
		}
	}
	filter := models.FleetFilter{Match: strings.TrimSpace(f.Query), Show: models.FleetShow(f.Show)}
	hosts, next, err := models.ListFleet(ctx, h.DB, filter, f.Cursor, fleetPage)
	if err != nil {
		return f, err
	}
	f.NextCursor = next
	runs := nextRuns{}
	for _, host := range hosts {
		f.Hosts = append(f.Hosts, presentFleetHost(host, runs, f.Clock.Now))
	}
	return f, nil
}

func presentFleetHost(h *models.FleetHost, runs nextRuns, now time.Time) views.FleetHost {
	row := views.FleetHost{
		ID: h.ID.String(), Name: h.Name, About: about(&h.Host, now), Groups: h.Groups, NewestGood: timeOf(h.OldestGood),
		NextRun: runs.of(h, now), Days: strip(&h.Host, h.Strip, now),
	}
	row.State, row.StateText = fleetState(h, now)
	return row
}

// fleetState is what is under way on a host, or else the worst of its groups and
// of its maintenance.
// What waits for a host that isn't there hides nothing.
func fleetState(h *models.FleetHost, now time.Time) (ui.State, string) {
	online := h.Online(now)
	switch {
	case h.ActiveState == models.JobRunning:
		return ui.Running, backingUp(h.ActiveProgress)
	case h.EnrolledAt == nil:
		return ui.Waiting, "Waiting for its agent"
	case h.Cloned(now):
		return ui.Failed, "Two machines"
	case !h.Bound:
		return ui.Never, "No repository"
	case h.ActiveState != "" && online:
		return ui.Waiting, ""
	case h.Worst == "":
		return ui.Never, ""
	case h.Unmaintained != "" && (h.Worst == models.HealthGood || h.Worst == models.HealthWarning):
		return ui.State(h.Unmaintained), "Maintenance"
	case h.Worst == models.HealthGood && !online:
		return ui.Offline, ""
	}
	return ui.State(h.Worst), ""
}

func backingUp(p *models.Progress) string {
	if p == nil {
		return "Backing up"
	}
	return "Backing up " + ui.Percent(p.Percent)
}

func about(h *models.Host, now time.Time) string {
	var parts []string
	if h.OS != "" {
		parts = append(parts, h.OS)
	}
	switch {
	case h.EnrolledAt == nil:
		parts = append(parts, "not enrolled yet")
	case h.Online(now) && h.Link != nil:
		parts = append(parts, *h.Link)
	case h.LastSeenAt != nil:
		parts = append(parts, "offline "+ui.Age(now.Sub(*h.LastSeenAt)))
	default:
		parts = append(parts, "never seen")
	}
	return strings.Join(parts, " · ")
}

// nextRuns remembers when an expression is due next in a zone: most hosts of a
// fleet share a few.
type nextRuns map[[2]string]time.Time

// of is the earliest next run of a host's schedules, zero for none.
func (r nextRuns) of(h *models.FleetHost, now time.Time) time.Time {
	var next time.Time
	for _, cron := range h.Crons {
		key := [2]string{cron, h.Timezone}
		at, known := r[key]
		if !known {
			if spec, err := cronspec.Parse(cron); err == nil {
				at = spec.Next(now, h.Location())
			}
			r[key] = at
		}
		if !at.IsZero() && (next.IsZero() || at.Before(next)) {
			next = at
		}
	}
	return next
}
