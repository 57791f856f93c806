package handlers

import (
	"context"
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

const (
	// recentMaintenance is how many runs the page shows.
	recentMaintenance = 10
	// shownRuns is how many coming runs a row names.
	shownRuns = 3
)

// maintenancePlace is the page of a host's maintenance.
func maintenancePlace(id models.HostID) string { return "/hosts/" + id.String() + "/maintenance" }

// maintenance shows what keeps a host's repository small and checked.
func (h *Handlers) maintenance(c echo.Context) error {
	host, err := h.hostOf(c)
	if err != nil {
		return err
	}
	s, err := h.loadMaintenance(c.Request().Context(), host)
	if err != nil {
		return err
	}
	s.who = who(c)
	v := s.present()
	if partial(c) {
		return render(c, http.StatusOK, views.MaintenanceLive(v))
	}
	p := h.page(c, "Maintenance of "+host.Name, views.NavFleet)
	p.StreamURL = "/events?on=host:" + v.HostID
	return render(c, http.StatusOK, views.MaintenancePage(p, v))
}

// maintenanceScene is what the page tells of; repo and owner are nil where there
// is none.
type maintenanceScene struct {
	host   *models.Host
	repo   *models.HostRepository
	owner  *models.Owner
	plan   *models.Maintenance
	states map[models.JobKind]*models.MaintenanceState
	round  models.CheckRound
	groups []*models.Group
	recent []*models.Job
	waits  map[models.JobID]models.Wait
	who    *models.Identity
}

func (h *Handlers) loadMaintenance(ctx context.Context, host *models.Host) (s maintenanceScene, err error) {
	s.host = host
	if s.plan, err = models.FindMaintenance(ctx, h.DB, host.ID); err != nil {
		return s, err
	}
	if s.states, err = models.ListMaintenanceStates(ctx, h.DB, host.ID); err != nil {
		return s, err
	}
	s.repo, err = models.FindRepository(ctx, h.DB, host.ID)
	if err != nil && models.CodeOf(err) != models.ENotFound {
		return s, err
	}
	if s.owner, err = models.FindOwner(ctx, h.DB, host.ID); err != nil {
		return s, err
	}
	if s.round, err = models.FindCheckRound(ctx, h.DB, host.ID); err != nil {
		return s, err
	}
	if s.groups, err = models.ListPolicies(ctx, h.DB, host.ID); err != nil {
		return s, err
	}
	if s.recent, err = models.ListMaintenanceJobs(ctx, h.DB, host.ID, recentMaintenance); err != nil {
		return s, err
	}
	s.waits, err = models.Waits(ctx, h.DB, s.recent)
	return s, err
}

func (s maintenanceScene) present() views.Maintenance {
	v := views.Maintenance{
		Clock: pageClock(s.host.Location()), HostID: s.host.ID.String(), HostName: s.host.Name, HasRepository: s.repo != nil,
		CanAdminister: s.who.Role.Allows(models.RoleAdmin), AgentTooOld: !s.host.Maintains(),
	}
	for _, g := range s.groups {
		keeps, _, lets := strings.Cut(views.RetentionSentence(g.Retention), ";")
		if !lets { // an empty policy: everything stays
			v.GroupsWithout = append(v.GroupsWithout, g.Name)
			continue
		}
		v.GroupsKept = append(v.GroupsKept, g.Name+" k"+strings.TrimPrefix(keeps, "K"))
	}
	if o := s.owner; o != nil && !o.HostID.IsZero() {
		v.Owner = &views.RepositoryOwner{HostID: o.HostID.String(), Name: o.Name, Reason: o.Reason, Before: o.Before, Since: timeOf(o.Since), Mine: o.HostID == s.host.ID}
		for _, other := range o.Sharers {
			v.Owner.Sharers = append(v.Owner.Sharers, ui.Link{Text: other.Name, URL: maintenancePlace(other.ID)})
		}
	}
	for _, kind := range models.MaintenanceKinds {
		v.Rows = append(v.Rows, s.presentKind(kind, v.Clock))
	}
	s.presentRound(&v)
	if s.round.Damaged > 0 {
		v.Damage = presentDamage(s.round.Damage, s.round.Damaged)
	}
	for _, j := range s.recent {
		v.Recent = append(v.Recent, presentJobRow(j, s.waits[j.ID]))
	}
	return v
}

// presentKind is one row: what is planned, what was, and what stands in the way.
func (s maintenanceScene) presentKind(kind models.JobKind, clock ui.Clock) views.MaintenanceRow {
	cron, enabled := s.plan.Cadence(kind)
	st := s.states[kind]
	row := views.MaintenanceRow{
		Kind: string(kind), Cron: cron, Words: words(cron), Enabled: enabled, LastState: string(st.LastState), LastCode: st.LastCode, LastError: st.LastError,
		LastEndedAt: timeOf(st.LastEndedAt), GoodAt: timeOf(st.GoodAt), BacksOffUntil: st.BacksOffUntil(), BreakerOpen: st.BreakerOpen(), Failures: st.Failures, Percent: -1,
		Stale: enabled && st.Stale(clock.Now) && (kind != models.KindCheck || s.round.Damaged == 0),
	}
	if st.LastJobID != nil {
		row.LastJobID = st.LastJobID.String()
	}
	if kind == models.KindCheck {
		row.Subset, row.SubsetProblem = s.plan.CheckReadDataSubset, s.plan.SubsetProblem()
	}
	if o := s.owner; kind != models.KindForget && o != nil && !o.HostID.IsZero() && o.HostID != s.host.ID {
		row.Elsewhere = ui.Link{Text: o.Name, URL: maintenancePlace(o.HostID)}
	}
	if runs := previewRunsOf(cron, s.host, clock.Now); len(runs) > 0 {
		row.FirstRun = runs[0].At
		if enabled && !row.BreakerOpen {
			row.Runs = runs
		}
	}
	for _, j := range slices.Backward(s.recent) { // the oldest that is open goes first
		if j.Kind == kind && !j.State.Ended() && row.OpenJobID == "" {
			s.presentOpen(&row, j)
		}
	}
	return row
}

func (s maintenanceScene) presentOpen(row *views.MaintenanceRow, j *models.Job) {
	row.OpenJobID, row.OpenState = j.ID.String(), string(j.State)
	if j.Progress != nil && j.State == models.JobRunning {
		row.Percent = j.Progress.Percent
	}
	switch w := s.waits[j.ID]; {
	case j.State == models.JobRunning:
	case w.Behind != nil:
		title := views.JobTitle(string(w.Behind.Kind), w.Behind.SourceGroupName)
		row.WaitText, row.WaitsFor = "It waits for the", ui.Link{Text: strings.ToLower(title[:1]) + title[1:] + " on " + w.Behind.HostName, URL: "/jobs/" + w.Behind.ID.String()}
	case j.State == models.JobQueued && w.Away:
		row.WaitText = s.host.Name + " is away. It goes there when it is back."
	default:
		row.WaitText = "It is on its way to " + s.host.Name + "."
	}
}

// previewRunsOf are the next times by an expression.
func previewRunsOf(cron string, host *models.Host, now time.Time) []views.CronRun {
	spec, err := cronspec.Parse(cron)
	if err != nil {
		return nil
	}
	var out []views.CronRun
	for _, run := range spec.Runs(now, host.Location(), shownRuns) {
		out = append(out, views.CronRun{At: run.At, Note: run.Note})
	}
	return out
}

// presentRound says how far the check is round, once a part was read in as many
// parts as are asked for now, and when all will have been read.
func (s maintenanceScene) presentRound(v *views.Maintenance) {
	parts := s.plan.CheckParts()
	if parts == 0 || v.Owner != nil && !v.Owner.Mine {
		return
	}
	round := &views.CheckRound{Parts: parts, WholeAt: timeOf(s.round.WholeAt)}
	if s.round.Parts == round.Parts {
		round.Read = s.round.Read
	}
	if spec, err := cronspec.Parse(s.plan.CheckCron); err == nil && s.plan.CheckEnabled && !s.states[models.KindCheck].BreakerOpen() {
		if left := min(round.Parts-round.Read, 1000); left > 0 {
			if runs := spec.Runs(v.Clock.Now, s.host.Location(), left); len(runs) == left {
				round.WholeAgainBy = runs[left-1].At
			}
		}
	}
	v.Round = round
}

// maintenanceKind is the kind that the path names.
func maintenanceKind(c echo.Context) (models.JobKind, error) {
	kind := models.JobKind(c.Param("kind"))
	if !slices.Contains(models.MaintenanceKinds, kind) {
		return "", models.NotFound("kind of maintenance", c.Param("kind"))
	}
	return kind, nil
}

func (h *Handlers) runMaintenance(c echo.Context) error {
	host, err := h.hostOf(c)
	if err != nil {
		return err
	}
	kind, err := maintenanceKind(c)
	if err != nil {
		return err
	}
	if _, err := h.Jobs.RunMaintenance(c.Request().Context(), host.ID, kind, who(c).Actor()); err != nil {
		return err
	}
	return acted(c, maintenancePlace(host.ID))
}

func (h *Handlers) switchMaintenance(c echo.Context) error {
	host, kind, plan, err := h.planOf(c)
	if err != nil {
		return err
	}
	cron, _ := plan.Cadence(kind)
	plan.SetCadence(kind, cron, c.FormValue("enabled") == "on")
	if err := models.SaveMaintenance(c.Request().Context(), h.DB, plan, kind); err != nil {
		return err
	}
	h.Jobs.HostChanged(host.ID)
	return acted(c, maintenancePlace(host.ID))
}

// planOf is the host, kind and cadences that a request is about.
func (h *Handlers) planOf(c echo.Context) (*models.Host, models.JobKind, *models.Maintenance, error) {
	host, err := h.hostOf(c)
	if err != nil {
		return nil, "", nil, err
	}
	kind, err := maintenanceKind(c)
	if err != nil {
		return nil, "", nil, err
	}
	plan, err := models.FindMaintenance(c.Request().Context(), h.DB, host.ID)
	return host, kind, plan, err
}

func (h *Handlers) editMaintenance(c echo.Context) error {
	host, kind, plan, err := h.planOf(c)
	if err != nil {
		return err
	}
	cron, enabled := plan.Cadence(kind)
	return h.showMaintenance(c, http.StatusOK, host, views.MaintenanceForm{Kind: string(kind), Cron: cron, Enabled: enabled, Subset: plan.CheckReadDataSubset})
}

func (h *Handlers) showMaintenance(c echo.Context, status int, host *models.Host, form views.MaintenanceForm) error {
	form.HostID, form.HostName = host.ID.String(), host.Name
	form.Action = maintenancePlace(host.ID) + "/" + form.Kind
	form.Preview = previewCron(form.Cron, host)
	if partial(c) {
		return render(c, status, views.MaintenanceFormBody(form))
	}
	return render(c, status, views.MaintenanceFormPage(h.page(c, "When "+form.Kind+" runs on "+host.Name, views.NavFleet), form))
}

func (h *Handlers) saveMaintenance(c echo.Context) error {
	host, kind, plan, err := h.planOf(c)
	if err != nil {
		return err
	}
	params, err := formParams(c)
	if err != nil {
		return err
	}
	form := views.MaintenanceForm{Kind: string(kind), Cron: params.Get("cron"), Enabled: params.Get("enabled") != "", Subset: strings.TrimSpace(params.Get("read_data_subset"))}
	if params.Has("edit") {
		noteDrawn(c)
		if preset := params.Get("edit"); preset != "" {
			form.Cron = preset
		}
		return h.showMaintenance(c, http.StatusOK, host, form)
	}
	plan.SetCadence(kind, form.Cron, form.Enabled)
	if kind == models.KindCheck {
		plan.CheckReadDataSubset = form.Subset
	}
	err = models.SaveMaintenance(c.Request().Context(), h.DB, plan, kind)
	if errs, bad := fieldErrors(err); bad {
		form.Errors = errs
		return h.showMaintenance(c, http.StatusUnprocessableEntity, host, form)
	}
	if err != nil {
		return err
	}
	h.Jobs.HostChanged(host.ID)
	return done(c, maintenancePlace(host.ID))
}

// askToOwn asks before a host takes over a shared repository's prune and check.
func (h *Handlers) askToOwn(c echo.Context) error {
	host, err := h.hostOf(c)
	if err != nil {
		return err
	}
	owner, err := models.FindOwner(c.Request().Context(), h.DB, host.ID)
	if err != nil {
		return err
	}
	if owner == nil {
		return models.Conflict("This host has no repository yet. Set one up first.")
	}
	lost := "From now on " + host.Name + " prunes and checks the shared repository, by its own cadences."
	if owner.Name != "" && owner.HostID != host.ID {
		lost += " " + owner.Name + " no longer does: what waits there is cancelled, what it has begun still ends. Where " + host.Name + " has a cadence off that is on there, it takes that one."
	}
	url := maintenancePlace(host.ID)
	return h.confirm(c, http.StatusOK, views.Confirm{
		Heading: "Let “" + host.Name + "” prune and check the repository?", Lost: lost,
		Stays:  "Snapshots and each host’s own forget stay as they are.",
		Action: url + "/owner", Act: "Make " + host.Name + " the owner", Keep: "Leave it", KeepURL: url,
		Crumbs: views.HostCrumbs(host.ID.String(), host.Name, ui.Crumb{Text: "maintenance", URL: url}, ui.Crumb{Text: "owner"}),
	})
}

func (h *Handlers) ownRepository(c echo.Context) error {
	host, err := h.hostOf(c)
	if err != nil {
		return err
	}
	if err := h.Jobs.OwnRepository(c.Request().Context(), host.ID); err != nil {
		return err
	}
	return done(c, maintenancePlace(host.ID))
}
