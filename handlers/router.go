// Package handlers is what answers requests: the whole route table, who may
// enter where, and the pages. A handler loads, parses, validates, acts by one
// call into models or jobs, and renders.
package handlers

import (
	"log/slog"
	"net"
	"net/http"
	"strings"
	"time"

	"github.com/labstack/echo/v4"
	"github.com/labstack/echo/v4/middleware"

	"resticfleet/handlers/agentapi"
	"resticfleet/handlers/api"
	"resticfleet/handlers/live"
	"resticfleet/jobs"
	"resticfleet/models"
	"resticfleet/static"
)

// Config is what the handlers need; every field but TrustedProxies is required.
type Config struct {
	DB     *models.DB
	Jobs   *jobs.Service
	Hub    *live.Hub
	Agents *agentapi.Server
	Assets *static.Assets
	Log    *slog.Logger
	// BaseURL is where people and agents reach the server, without a slash at
	// the end.
	BaseURL string
	// TrustedProxies may tell the client's address and scheme.
	TrustedProxies []*net.IPNet
}

// Handlers answers requests.
type Handlers struct {
	Config
	throttle *throttle // of logins
	refusals *throttle // of what is audited of strangers
	// pingEvery is how often a stream without news looks whether it may go on.
	pingEvery time.Duration
}

// access is who may use a route.
type access string

const (
	public   access = "public"   // everybody
	agent    access = "agent"    // checked by the agents' own credential
	person   access = "person"   // every user, for the own account; no API token
	viewer   access = "viewer"   // and everybody above
	operator access = "operator" // and everybody above
	admin    access = "admin"
)

// route is one line of the table.
type route struct {
	method, path string
	who          access
	handle       echo.HandlerFunc
}

// routes is every page and every agent's door. What programs use is in
// api.Routes. A route that is in neither doesn't exist.
func (h *Handlers) routes() []route {
	return []route{
		{"GET", "/healthz", public, h.healthz},
		{"GET", "/readyz", public, h.readyz},
		{"GET", "/metrics", viewer, h.metrics},
		{"GET", "/static/*", public, echo.WrapHandler(h.Assets)},
		{"HEAD", "/static/*", public, echo.WrapHandler(h.Assets)},

		{"GET", "/login", public, h.loginPage},
		{"POST", "/login", public, h.login},
		{"POST", "/logout", public, h.logout},
		{"GET", "/setup", public, h.setupPage},
		{"POST", "/setup", public, h.setup},
		{"POST", "/theme", public, h.theme},

		{"GET", "/", viewer, h.fleet},
		{"GET", "/hosts", viewer, h.fleet},
		{"GET", "/hosts/new", admin, h.newHost},
		{"POST", "/hosts", admin, h.addHost},
		{"GET", "/hosts/:id", viewer, h.host},
		{"GET", "/hosts/:id/jobs", viewer, h.hostJobs},
		{"GET", "/hosts/:id/snapshots", viewer, h.snapshots},
		{"GET", "/hosts/:id/snapshots/compare", operator, h.compareSnapshots},
		{"POST", "/hosts/:id/snapshots/refresh", operator, h.refreshSnapshots},
		{"POST", "/hosts/:id/snapshots/:snap/hold", operator, h.holdSnapshot},
		{"GET", "/hosts/:id/snapshots/:snap/delete", admin, h.deleteSnapshot},
		{"POST", "/hosts/:id/snapshots/:snap/delete", admin, h.deleteSnapshot},
		{"GET", "/hosts/:id/maintenance", viewer, h.maintenance},
		{"GET", "/hosts/:id/maintenance/owner", admin, h.askToOwn},
		{"POST", "/hosts/:id/maintenance/owner", admin, h.ownRepository},
		{"GET", "/hosts/:id/maintenance/:kind", admin, h.editMaintenance},
		{"POST", "/hosts/:id/maintenance/:kind", admin, h.saveMaintenance},
		{"POST", "/hosts/:id/maintenance/:kind/enabled", admin, h.switchMaintenance},
		{"POST", "/hosts/:id/maintenance/:kind/run", admin, h.runMaintenance},
		{"GET", "/hosts/:id/enrol", operator, h.enrolment},
		{"POST", "/hosts/:id/enrol", admin, h.newEnrolment},
		{"GET", "/hosts/:id/edit", admin, h.renameHost},
		{"POST", "/hosts/:id/edit", admin, h.saveHost},
		{"GET", "/hosts/:id/danger", admin, h.dangerZone},
		{"GET", "/hosts/:id/delete", admin, h.confirmDeleteHost},
		{"POST", "/hosts/:id/delete", admin, h.deleteHost},
		{"GET", "/hosts/:id/repository", admin, h.editRepository(everyday)},
		{"POST", "/hosts/:id/repository", admin, h.saveRepository(everyday)},
		{"GET", "/hosts/:id/repository/maintenance", admin, h.editRepository(second)},
		{"POST", "/hosts/:id/repository/maintenance", admin, h.saveRepository(second)},
		{"GET", "/hosts/:id/repository/maintenance/forget", admin, h.askAboutRepository(removeSecondQuestion)},
		{"POST", "/hosts/:id/repository/maintenance/forget", admin, h.removeSecond},
		{"GET", "/hosts/:id/repository/init", admin, h.askAboutRepository(initQuestion)},
		{"POST", "/hosts/:id/repository/init", admin, h.runOnRepository(models.KindInit)},
		{"GET", "/hosts/:id/repository/unlock", admin, h.askAboutRepository(unlockQuestion)},
		{"POST", "/hosts/:id/repository/unlock", admin, h.runOnRepository(models.KindUnlock)},
		{"GET", "/hosts/:id/repository/forget", admin, h.askAboutRepository(forgetQuestion)},
		{"POST", "/hosts/:id/repository/forget", admin, h.forgetRepository},
		{"GET", "/hosts/:id/source-groups/new", operator, h.newGroup},
		{"POST", "/hosts/:id/source-groups", operator, h.saveGroup},
		{"GET", "/hosts/:id/source-groups/:gid", operator, h.editGroup},
		{"POST", "/hosts/:id/source-groups/:gid", operator, h.saveGroup},
		{"POST", "/hosts/:id/source-groups/:gid/run", operator, h.runGroup},
		{"POST", "/hosts/:id/source-groups/:gid/retention-preview", operator, h.previewGroup},
		{"GET", "/hosts/:id/source-groups/:gid/remove-snapshots", admin, h.removeSnapshots},
		{"POST", "/hosts/:id/source-groups/:gid/remove-snapshots", admin, h.removeSnapshots},
		{"GET", "/hosts/:id/source-groups/:gid/delete", operator, h.confirmDeleteGroup},
		{"POST", "/hosts/:id/source-groups/:gid/delete", operator, h.deleteGroup},
		{"POST", "/hosts/:id/source-groups/:gid/leave/:sid", operator, h.leaveSchedule},
		{"GET", "/hosts/:id/schedules/new", operator, h.newSchedule},
		{"POST", "/hosts/:id/schedules", operator, h.saveSchedule},
		{"GET", "/hosts/:id/schedules/:sid", operator, h.editSchedule},
		{"POST", "/hosts/:id/schedules/:sid", operator, h.saveSchedule},
		{"POST", "/hosts/:id/schedules/:sid/enabled", operator, h.switchSchedule},
		{"GET", "/hosts/:id/schedules/:sid/delete", operator, h.confirmDeleteSchedule},
		{"POST", "/hosts/:id/schedules/:sid/delete", operator, h.deleteSchedule},
		{"GET", "/cron-preview", viewer, h.cronPreview},
		{"GET", "/retention-words", viewer, h.retentionWords},
		{"GET", "/jobs", viewer, h.jobs},
		{"GET", "/jobs/hosts", viewer, h.jobHosts},
		{"GET", "/jobs/:id", viewer, h.job},
		{"GET", "/jobs/:id/log", viewer, h.jobLog},
		{"POST", "/jobs/:id/again", operator, h.runJobAgain},
		{"POST", "/jobs/:id/cancel", operator, h.cancelJob},
		{"GET", "/events", viewer, h.events},

		{"GET", "/settings", viewer, h.settings},
		{"GET", "/settings/password", person, h.passwordPage},
		{"POST", "/settings/password", person, h.changePassword},
		{"GET", "/settings/sessions", person, h.sessions},
		{"POST", "/settings/sessions/:sid/end", person, h.endSession},
		{"POST", "/settings/sessions/end-others", person, h.endOtherSessions},
		{"GET", "/settings/users", admin, h.users},
		{"GET", "/settings/users/new", admin, h.newUser},
		{"POST", "/settings/users", admin, h.addUser},
		{"GET", "/settings/users/:uid", admin, h.user},
		{"POST", "/settings/users/:uid/role", admin, h.changeRole},
		{"POST", "/settings/users/:uid/password", admin, h.resetPassword},
		{"GET", "/settings/users/:uid/delete", admin, h.confirmDeleteUser},
		{"POST", "/settings/users/:uid/delete", admin, h.deleteUser},
		{"GET", "/settings/tokens", admin, h.tokens},
		{"GET", "/settings/tokens/new", admin, h.newToken},
		{"POST", "/settings/tokens", admin, h.addToken},
		{"GET", "/settings/tokens/:tid/revoke", admin, h.confirmRevokeToken},
		{"POST", "/settings/tokens/:tid/revoke", admin, h.revokeToken},
		{"GET", "/settings/audit", admin, h.auditLog},

		{"POST", "/agent/v1/enroll", agent, h.Agents.Enroll},
		{"GET", "/agent/v1/ws", agent, h.Agents.WebSocket},
		{"GET", "/agent/v1/schedule", agent, h.Agents.Schedule},
		{"GET", "/agent/v1/commands", agent, h.Agents.Commands},
		{"POST", "/agent/v1/messages", agent, h.Agents.Messages},
	}
}

// New makes the whole HTTP side of the server.
func New(c Config) *echo.Echo { return newHandlers(c).router() }

func newHandlers(c Config) *Handlers {
	return &Handlers{Config: c, throttle: newThrottle(), refusals: newThrottle(), pingEvery: pingEvery}
}

func (h *Handlers) router() *echo.Echo {
	e := echo.New()
	e.HideBanner, e.HidePort = true, true
	e.HTTPErrorHandler = h.fail
	e.IPExtractor = clientAddress(h.TrustedProxies)

	table := map[string]access{}
	for _, r := range h.routes() {
		table[r.method+" "+r.path] = r.who
	}
	for _, r := range api.Routes() {
		table[r.Method+" "+r.Pattern] = access(r.Role)
	}
	e.Pre(h.retired)
	e.Use(h.secureHeaders(table), h.audit(table)) // also of what is refused, or panics
	e.Use(middleware.RecoverWithConfig(middleware.RecoverConfig{LogErrorFunc: h.logPanic}))
	e.Use(crossOrigin(), h.authorize(table))
	limit := func(skip middleware.Skipper) echo.MiddlewareFunc {
		return middleware.BodyLimitWithConfig(middleware.BodyLimitConfig{Limit: "1MiB", Skipper: skip})
	}
	forAgents := func(c echo.Context) bool { return table[c.Request().Method+" "+c.Path()] == agent }
	e.Use(limit(forAgents)) // theirs is behind the door, which counts
	// Level 3 takes half the time of the default for a page of the fleet, and
	// makes it a third longer.
	e.Use(middleware.GzipWithConfig(middleware.GzipConfig{Skipper: streams, MinLength: 1024, Level: 3}))

	for _, r := range h.routes() {
		if r.who == agent {
			e.Add(r.method, r.path, r.handle, h.Agents.Door, limit(nil))
			continue
		}
		e.Add(r.method, r.path, r.handle)
	}
	api.Register(e, api.Config{DB: h.DB, Jobs: h.Jobs, BaseURL: h.baseURL, Log: h.Log})
	return e
}

// streams are the answers that must leave as they are made, and those that
// are compressed already.
func streams(c echo.Context) bool {
	p := c.Request().URL.Path
	return p == "/events" || strings.HasPrefix(p, "/agent/") || strings.HasPrefix(p, "/static/")
}

// baseURL is where the caller should tell an agent to go: what was configured,
// or how this request came.
func (h *Handlers) baseURL(r *http.Request) string {
	if h.BaseURL != "" {
		return h.BaseURL
	}
	scheme := "http"
	if h.secure(r) {
		scheme = "https"
	}
	return scheme + "://" + r.Host
}
