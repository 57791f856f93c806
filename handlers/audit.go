package handlers

import (
	"cmp"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/labstack/echo/v4"

	"resticfleet/models"
	"resticfleet/views"
	"resticfleet/views/ui"
)

// act is what an unsafe route does, as a person would say it whether it then
// came about or not, and what the log's filter finds it under.
type act struct{ words, subject string }

// The subjects, in the order of the filter.
const (
	onLogin      = "Logging in"
	onUsers      = "Users"
	onTokens     = "API tokens"
	onHosts      = "Hosts"
	onRepository = "Repositories"
	onGroups     = "Source groups"
	onSchedules  = "Schedules"
	onUpkeep     = "Maintenance"
	onJobs       = "Jobs"
	onAgents     = "Agents"
)

var subjects = []string{onLogin, onUsers, onTokens, onHosts, onRepository, onGroups, onSchedules, onUpkeep, onJobs, onAgents}

// acts has every unsafe route of the table. A route that goes away stays here:
// its entries stay in the log.
var acts = map[string]act{
	"POST /login":                                              {"Log in", onLogin},
	"POST /logout":                                             {"Log out", onLogin},
	"POST /setup":                                              {"Set up the first administrator", onLogin},
	"POST /settings/password":                                  {"Change the own password", onLogin},
	"POST /settings/sessions/:sid/end":                         {"End one of the own sessions", onLogin},
	"POST /settings/sessions/end-others":                       {"End all other own sessions", onLogin},
	"POST /settings/users":                                     {"Add a user", onUsers},
	"POST /settings/users/:uid/role":                           {"Change a user’s role", onUsers},
	"POST /settings/users/:uid/password":                       {"Set a user’s password", onUsers},
	"POST /settings/users/:uid/delete":                         {"Delete a user", onUsers},
	"POST /settings/tokens":                                    {"Make an API token", onTokens},
	"POST /settings/tokens/:tid/revoke":                        {"Revoke an API token", onTokens},
	"POST /hosts":                                              {"Add a host", onHosts},
	"POST /api/hosts":                                          {"Add a host", onHosts},
	"POST /hosts/:id/edit":                                     {"Change a host", onHosts},
	"PATCH /api/hosts/:id":                                     {"Change a host", onHosts},
	"POST /hosts/:id/delete":                                   {"Delete a host", onHosts},
	"DELETE /api/hosts/:id":                                    {"Delete a host", onHosts},
	"POST /hosts/:id/enrol":                                    {"Make an enrolment command", onHosts},
	"POST /api/hosts/:id/enrollment-tokens":                    {"Make an enrolment command", onHosts},
	"POST /hosts/:id/repository":                               {"Set the repository", onRepository},
	"PUT /api/hosts/:id/repository":                            {"Set the repository", onRepository},
	"POST /hosts/:id/repository/forget":                        {"Forget the repository", onRepository},
	"DELETE /api/hosts/:id/repository":                         {"Forget the repository", onRepository},
	"POST /hosts/:id/repository/init":                          {"Initialise the repository", onRepository},
	"POST /api/hosts/:id/repository/init":                      {"Initialise the repository", onRepository},
	"POST /hosts/:id/repository/unlock":                        {"Unlock the repository", onRepository},
	"POST /api/hosts/:id/repository/unlock":                    {"Unlock the repository", onRepository},
	"POST /hosts/:id/source-groups":                            {"Add a source group", onGroups},
	"POST /api/hosts/:id/source-groups":                        {"Add a source group", onGroups},
	"POST /hosts/:id/source-groups/:gid":                       {"Change a source group", onGroups},
	"PUT /api/hosts/:id/source-groups/:gid":                    {"Change a source group", onGroups},
	"POST /hosts/:id/source-groups/:gid/run":                   {"Run a source group now", onJobs},
	"POST /api/hosts/:id/source-groups/:gid/run":               {"Run a source group now", onJobs},
	"POST /hosts/:id/source-groups/:gid/delete":                {"Delete a source group", onGroups},
	"DELETE /api/hosts/:id/source-groups/:gid":                 {"Delete a source group", onGroups},
	"POST /hosts/:id/source-groups/:gid/leave/:sid":            {"Take a source group out of a schedule", onSchedules},
	"POST /hosts/:id/schedules":                                {"Add a schedule", onSchedules},
	"POST /api/hosts/:id/schedules":                            {"Add a schedule", onSchedules},
	"POST /hosts/:id/schedules/:sid":                           {"Change a schedule", onSchedules},
	"PUT /api/hosts/:id/schedules/:sid":                        {"Change a schedule", onSchedules},
	"POST /hosts/:id/schedules/:sid/enabled":                   {"Switch a schedule on or off", onSchedules},
	"POST /hosts/:id/schedules/:sid/delete":                    {"Delete a schedule", onSchedules},
	"DELETE /api/hosts/:id/schedules/:sid":                     {"Delete a schedule", onSchedules},
	"POST /hosts/:id/maintenance/owner":                        {"Let a host prune and check a shared repository", onUpkeep},
	"POST /hosts/:id/maintenance/:kind":                        {"Change the maintenance", onUpkeep},
	"POST /hosts/:id/maintenance/:kind/enabled":                {"Switch maintenance on or off", onUpkeep},
	"POST /hosts/:id/maintenance/:kind/run":                    {"Run maintenance now", onUpkeep},
	"PUT /api/hosts/:id/repo-maintenance":                      {"Change the maintenance", onUpkeep},
	"POST /api/hosts/:id/repo-maintenance/:kind/run":           {"Run maintenance now", onUpkeep},
	"POST /api/hosts/:id/repo-maintenance/owner":               {"Let a host prune and check a shared repository", onUpkeep},
	"POST /jobs/:id/cancel":                                    {"Cancel a job", onJobs},
	"POST /jobs/:id/again":                                     {"Run a job again", onJobs},
	"POST /api/jobs/:id/cancel":                                {"Cancel a job", onJobs},
	"POST /agent/v1/enroll":                                    {"Enrol an agent", onAgents},
	"POST /hosts/:id/repository/maintenance":                   {"Set the credentials for forget and prune", onRepository},
	"PUT /api/hosts/:id/repository/maintenance-credential":     {"Set the credentials for forget and prune", onRepository},
	"POST /hosts/:id/repository/maintenance/forget":            {"Remove the credentials for forget and prune", onRepository},
	"DELETE /api/hosts/:id/repository/maintenance-credential":  {"Remove the credentials for forget and prune", onRepository},
	"POST /hosts/:id/source-groups/:gid/retention-preview":     {"Look at what a policy would keep", onGroups},
	"POST /api/hosts/:id/source-groups/:gid/retention-preview": {"Look at what a policy would keep", onGroups},
	"POST /hosts/:id/source-groups/:gid/remove-snapshots":      {"Remove all snapshots of a source group", onGroups},
	"POST /hosts/:id/snapshots/refresh":                        {"List the snapshots anew", onRepository},
	"POST /hosts/:id/snapshots/:snap/hold":                     {"Hold a snapshot or let it go", onRepository},
	"POST /hosts/:id/snapshots/:snap/delete":                   {"Delete a snapshot", onRepository},
	"POST /api/hosts/:id/snapshots/refresh":                    {"List the snapshots anew", onRepository},
	"PATCH /api/hosts/:id/snapshots/:snap":                     {"Hold a snapshot or let it go", onRepository},
	"DELETE /api/hosts/:id/snapshots/:snap":                    {"Delete a snapshot", onRepository},
}

// actionsOf are the routes of a subject.
func actionsOf(subject string) []string {
	var out []string
	for action, a := range acts {
		if a.subject == subject {
			out = append(out, action)
		}
	}
	slices.Sort(out)
	return out
}

// noteTarget gives the entry of this request the name of what it is done to:
// what the path's ids stand for may be gone when somebody reads it.
func noteTarget(c echo.Context, name string) { c.Set(aboutKey, name) }

const aboutKey = "about"

func (h *Handlers) auditLog(c echo.Context) error {
	v := views.Audit{
		Clock: pageClock(nil), Subjects: subjects,
		Filter: views.AuditFilter{
			Actors: c.QueryParam("actors"), Who: strings.TrimSpace(c.QueryParam("who")), Subject: c.QueryParam("what"),
			From: c.QueryParam("from"), Until: c.QueryParam("until"), Outcome: c.QueryParam("outcome"),
		},
	}
	filter, errs := readAuditFilter(v.Filter, v.Clock.Zone)
	if len(errs) > 0 {
		v.Errors = errs
		return render(c, http.StatusUnprocessableEntity, views.AuditPage(h.page(c, "Audit log", views.NavSettings), v))
	}
	entries, next, err := models.ListAudit(c.Request().Context(), h.DB, filter, models.Page{Cursor: c.QueryParam("cursor")})
	if err != nil {
		return err
	}
	v.NextCursor = next
	if v.Rows, err = h.presentAudit(c, entries); err != nil {
		return err
	}
	return render(c, http.StatusOK, views.AuditPage(h.page(c, "Audit log", views.NavSettings), v))
}

// readAuditFilter reads days in the zone that the page names. Agents' entries
// are shown only when asked for: those of one that polls would bury the rest.
func readAuditFilter(f views.AuditFilter, zone *time.Location) (models.AuditFilter, views.Errors) {
	out := models.AuditFilter{Actors: []string{"user", "token", "system"}, Name: models.CleanText(f.Who, 100)}
	switch f.Actors {
	case "user", "token", "agent", "system":
		out.Actors = []string{f.Actors}
	}
	if slices.Contains(subjects, f.Subject) {
		out.Actions = actionsOf(f.Subject)
	}
	if f.Subject == onAgents && f.Actors == "" {
		out.Actors = nil
	}
	switch f.Outcome {
	case "done":
		out.Most = 399
	case "refused":
		out.Least, out.Most = 400, 499
	case "failed":
		out.Least = 500
	}
	errs := views.Errors{}
	day := func(field, text string) time.Time {
		if text == "" {
			return time.Time{}
		}
		t, err := time.ParseInLocation(time.DateOnly, text, zone)
		if err != nil {
			errs[field] = "Is not a day. Write it as " + time.Now().In(zone).Format(time.DateOnly) + "."
		}
		return t
	}
	out.From, out.Until = day("from", f.From), day("until", f.Until)
	if !out.Until.IsZero() {
		out.Until = out.Until.AddDate(0, 0, 1) // that whole day
	}
	return out, errs
}

func (h *Handlers) presentAudit(c echo.Context, entries []*models.AuditEntry) ([]views.AuditRow, error) {
	var ids []uuid.UUID
	for _, e := range entries {
		ids = append(ids, idsIn(e.Target)...)
	}
	names, err := models.NamesOf(c.Request().Context(), h.DB, ids)
	if err != nil {
		return nil, err
	}
	rows := make([]views.AuditRow, len(entries))
	for i, e := range entries {
		rows[i] = views.AuditRow{
			ID: e.ID.String(), At: e.At, ActorKind: e.ActorKind, ActorName: e.ActorName, Address: e.Address,
			Words: cmp.Or(acts[e.Action].words, e.Action), Route: e.Action, Outcome: e.Outcome, About: aboutOf(e, names),
		}
	}
	return rows, nil
}

// aboutOf is what an entry's act was done to: the name noted then, otherwise
// what the target's ids are called now; with a way there where there is one.
func aboutOf(e *models.AuditEntry, names map[uuid.UUID]models.Named) []ui.Link {
	if e.About != "" {
		return []ui.Link{{Text: e.About}}
	}
	var out []ui.Link
	path := strings.TrimPrefix(e.Target, "/api")
	for _, id := range idsIn(path) {
		n, known := names[id]
		if !known {
			continue
		}
		link := ui.Link{Text: n.Name}
		for _, page := range []string{"/hosts/", "/jobs/"} {
			if !n.Gone && strings.HasPrefix(path, page+id.String()) {
				link.URL = page + id.String()
			}
		}
		out = append(out, link)
	}
	return out
}

func idsIn(path string) []uuid.UUID {
	var out []uuid.UUID
	for part := range strings.SplitSeq(path, "/") {
		if id, err := uuid.Parse(part); err == nil && len(part) == 36 {
			out = append(out, id)
		}
	}
	return out
}
