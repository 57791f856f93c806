package handlers

import (
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/labstack/echo/v4"

	"resticfleet/models"
	"resticfleet/models/cronspec"
	"resticfleet/views"
	"resticfleet/views/ui"
)

// fleetPage is how many hosts stand in the table at once.
const fleetPage = 100

func (h *Handlers) fleet(c echo.Context) error {
	ctx := c.Request().Context()
	hosts, err := models.LoadFleet(ctx, h.DB)
	if err != nil {
		return err
	}
	var groups []models.GroupID
	for _, host := range hosts {
		for _, g := range host.Groups {
			groups = append(groups, g.ID)
		}
	}
	days, err := models.ListDays(ctx, h.DB, groups, time.Now().AddDate(0, 0, -stripDays))
	if err != nil {
		return err
	}
	f := presentFleet(hosts, days, fleetQuery{
		match: c.QueryParam("q"), show: c.QueryParam("show"), after: c.QueryParam("cursor"),
		mayRun: who(c).Role.Allows(models.RoleOperator), mayAdd: who(c).Role.Allows(models.RoleAdmin),
	})
	if partial(c) {
		return render(c, http.StatusOK, views.FleetLive(f))
	}
	p := h.page(c, "Fleet", views.NavFleet)
	if f.Live() {
		p.StreamURL = "/events?on=fleet"
	}
	return render(c, http.StatusOK, views.FleetPage(p, f))
}

type fleetQuery struct {
	match, show, after string
	mayRun, mayAdd     bool
}

// presentFleet answers who is not safe, for the whole fleet, and fills the
// part of the table that was asked for.
func presentFleet(hosts []*models.HostState, days []models.DayOutcome, q fleetQuery) views.Fleet {
	clock := pageClock(nil)
	f := views.Fleet{Clock: clock, Total: len(hosts), Query: q.match, Show: q.show, Cursor: q.after, CanAddHost: q.mayAdd}
	strips := stripsByGroup(days)
	skipping := q.after != ""
	for _, host := range hosts {
		needs := attention(host, clock.Now, q)
		if len(needs) > 0 {
			f.NeedHand++
			f.Attention = append(f.Attention, needs...)
		}
		offline := host.EnrolledAt != nil && !host.Online(clock.Now)
		if offline {
			f.OfflineCount++
		}
		if skipping {
			skipping = host.ID.String() != q.after
			continue
		}
		if (q.show == "hand" && len(needs) == 0) || (q.show == "offline" && !offline) || !matches(host, q.match) {
			continue
		}
		if len(f.Hosts) == fleetPage {
			f.NextCursor = f.Hosts[fleetPage-1].ID
			break
		}
		f.Hosts = append(f.Hosts, presentFleetHost(host, strips, clock))
	}
	slices.SortStableFunc(f.Attention, func(a, b views.Attention) int {
		return slices.Index(ui.States, a.State) - slices.Index(ui.States, b.State)
	})
	return f
}

func matches(h *models.HostState, text string) bool {
	text = strings.ToLower(strings.TrimSpace(text))
	return text == "" || strings.Contains(strings.ToLower(h.Name), text) ||
		slices.ContainsFunc(h.Labels, func(l string) bool { return strings.Contains(strings.ToLower(l), text) })
}

func presentFleetHost(h *models.HostState, strips map[models.GroupID]map[string]models.DayOutcome, clock ui.Clock) views.FleetHost {
	row := views.FleetHost{
		ID: h.ID.String(), Name: h.Name, About: about(h, clock.Now), Groups: len(h.Groups),
		NextRun: h.Next(clock.Now), Days: stripOf(strips, h, clock.Now, h.Groups...),
	}
	row.State, row.StateText = hostState(h, clock.Now)
	for _, g := range h.Groups {
		// The oldest of the groups' newest: what would be lost.
		if g.GoodAt != nil && (row.NewestGood.IsZero() || g.GoodAt.Before(row.NewestGood)) {
			row.NewestGood = *g.GoodAt
		}
	}
	return row
}

// hostState is the worst of a host's groups, or what is under way.
func hostState(h *models.HostState, now time.Time) (ui.State, string) {
	for _, j := range h.Open {
		if j.State == models.JobRunning && j.Kind == models.KindBackup {
			if j.Progress != nil {
				return ui.Running, "Backing up " + ui.Percent(j.Progress.Percent)
			}
			return ui.Running, "Backing up"
		}
	}
	if h.EnrolledAt == nil {
		return ui.Waiting, "Waiting for its agent"
	}
	worst := ui.Good
	if len(h.Groups) == 0 {
		worst = ui.Never
	}
	for _, g := range h.Groups {
		state := ui.State(h.GroupHealth(g, now))
		if slices.Index(ui.States, state) < slices.Index(ui.States, worst) {
			worst = state
		}
	}
	if worst == ui.Good && !h.Online(now) {
		return ui.Offline, ""
	}
	return worst, ""
}

func about(h *models.HostState, now time.Time) string {
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

// attention is what of a host needs a hand, each with its cause and the one
// act, where the reader may do it.
func attention(h *models.HostState, now time.Time, q fleetQuery) []views.Attention {
	base := views.Attention{ID: h.ID.String(), HostID: h.ID.String(), HostName: h.Name}
	url := "/hosts/" + h.ID.String()
	switch {
	case h.EnrolledAt == nil:
		base.State, base.Cause = ui.Never, "Its agent has not enrolled yet."
		if q.mayAdd {
			base.Act = ui.Link{Text: "Show how", URL: url + "/enrol"}
		}
		return []views.Attention{base}
	case len(h.Groups) == 0:
		base.State, base.Cause = ui.Never, "No source group says what to back up yet."
		if q.mayRun {
			base.Act = ui.Link{Text: "Add source group", URL: url + "/source-groups/new"}
		}
		return []views.Attention{base}
	}
	var rows []views.Attention
	if h.Cloned(now) {
		row := base
		row.State, row.Cause = ui.Failed, "Two machines take turns with this host’s identity: one of them is a copy."
		row.Act = ui.Link{Text: "See what to do", URL: url}
		rows = append(rows, row)
	}
	for _, g := range h.Groups {
		row := base
		row.ID, row.GroupName = g.ID.String(), g.Name
		if q.mayRun && h.Active(g.ID) == nil {
			row.RunURL = url + "/source-groups/" + g.ID.String() + "/run"
		}
		if g.GoodAt != nil {
			row.Since = *g.GoodAt
		}
		switch h.GroupHealth(g, now) {
		case models.HealthFailed:
			row.State, row.Cause = ui.Failed, g.LastError
			row.Act = ui.Link{Text: "See what to do", URL: url}
			if g.LastJobID != nil {
				row.Act.URL = "/jobs/" + g.LastJobID.String()
			}
		case models.HealthLate:
			row.State, row.Cause = ui.Late, lateCause(h, g, now)
		case models.HealthNever:
			row.State, row.Cause = ui.Never, "It has no good snapshot yet."
		default:
			continue
		}
		rows = append(rows, row)
	}
	return rows
}

func lateCause(h *models.HostState, g *models.Group, now time.Time) string {
	due := h.LateSince(g, now)
	cause := "Due " + ui.Age(now.Sub(due)) + " ago"
	for _, s := range h.Schedules {
		if spec, err := cronspec.Parse(s.Cron); err == nil && s.Enabled && slices.Contains(s.GroupIDs, g.ID) {
			words := spec.Describe()
			cause += ", by the schedule “" + words + "” (" + h.Location().String() + ")"
			break
		}
	}
	if !h.Online(now) {
		return cause + ". The host is offline."
	}
	return cause + ". No good snapshot since."
}
