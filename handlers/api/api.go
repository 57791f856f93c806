// Package api is the JSON API for people's programs. One table lists every
// route with the role it needs; the OpenAPI document is made from the same
// table and from the types that handlers take and give.
//
// Who asks, and whether they may, is settled before a request comes here: see
// WithIdentity and Routes.
package api

import (
	"context"
	"encoding/json"
	"log/slog"
	"net/http"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humaecho"
	"github.com/labstack/echo/v4"

	"resticfleet/jobs"
	"resticfleet/models"
)

// Config is what the API needs. Every field is required.
type Config struct {
	DB   *models.DB
	Jobs *jobs.Service
	// BaseURL is where agents reach this server: configured, or as the request
	// came in.
	BaseURL func(*http.Request) string
	Log     *slog.Logger
}

// Route is one row of the table that authorization goes by. Pattern is in
// echo's words, as echo.Context.Path returns it.
type Route struct {
	Method  string
	Pattern string
	Role    models.Role
}

const (
	specPath = "/api/openapi.json"
	maxBody  = 1 << 20
)

// Routes returns all routes that Register adds.
func Routes() []Route {
	routes := []Route{{http.MethodGet, specPath, models.RoleViewer}}
	echoed := strings.NewReplacer("{", ":", "}", "")
	for _, op := range operations() {
		routes = append(routes, Route{op.method, echoed.Replace(op.path), op.role})
	}
	return routes
}

// operation is a route with what answers it. status is that of success.
type operation struct {
	method, path string
	role         models.Role
	status       int
	summary      string
	register     registrar
}

func operations() []operation {
	const (
		viewer, operator, admin = models.RoleViewer, models.RoleOperator, models.RoleAdmin

		get, post, put     = http.MethodGet, http.MethodPost, http.MethodPut
		patch, del         = http.MethodPatch, http.MethodDelete
		ok, made, accepted = http.StatusOK, http.StatusCreated, http.StatusAccepted
		gone               = http.StatusNoContent

		hosts       = "/api/hosts"
		host        = hosts + "/{id}"
		repository  = host + "/repository"
		maintenance = repository + "/maintenance-credential"
		groups      = host + "/source-groups"
		group       = groups + "/{gid}"
		schedules   = host + "/schedules"
		schedule    = schedules + "/{sid}"
		snapshots   = host + "/snapshots"
		oneSnap     = snapshots + "/{snap}"
		allJobs     = "/api/jobs"
		oneJob      = allJobs + "/{id}"
	)
	return []operation{
		{get, hosts, viewer, ok, "List hosts", handle((*server).listHosts)},
		{post, hosts, admin, made, "Add a host", handle((*server).addHost)},
		{get, host, viewer, ok, "Get a host", handle((*server).getHost)},
		{patch, host, admin, ok, "Change a host's name or labels", handle((*server).patchHost)},
		{del, host, admin, gone, "Delete a host; its snapshots stay", handle((*server).deleteHost)},
		{post, host + "/enrollment-tokens", admin, made, "Make a single-use enrolment token", handle((*server).addEnrollmentToken)},

		{get, repository, viewer, ok, "Get a host's repository", handle((*server).getRepository)},
		{put, repository, admin, ok, "Set a host's repository", handle((*server).putRepository)},
		{del, repository, admin, gone, "Forget a host's repository; its snapshots stay", handle((*server).deleteRepository)},
		{get, maintenance, viewer, ok, "Get the repository's credentials for forget and prune", handle((*server).getMaintenanceCredential)},
		{put, maintenance, admin, ok, "Set credentials that only forget and prune use; they go when the host gets another repository", handle((*server).putMaintenanceCredential)},
		{del, maintenance, admin, gone, "Forget the credentials for forget and prune: those for every day do it", handle((*server).deleteMaintenanceCredential)},
		{post, repository + "/init", admin, accepted, "Initialise the repository", handle((*server).initRepository)},
		{post, repository + "/unlock", admin, accepted, "Remove stale locks", handle((*server).unlockRepository)},

		{get, groups, viewer, ok, "List source groups", handle((*server).listGroups)},
		{post, groups, operator, made, "Add a source group", handle((*server).addGroup)},
		{get, group, viewer, ok, "Get a source group", handle((*server).getGroup)},
		{put, group, operator, ok, "Replace a source group", handle((*server).putGroup)},
		{del, group, operator, gone, "Delete a source group; its snapshots stay", handle((*server).deleteGroup)},
		{post, group + "/run", operator, accepted, "Back up a source group now", handle((*server).runGroup)},

		{post, group + "/retention-preview", operator, ok, "Ask the host which snapshots a policy would keep; changes nothing", handle((*server).previewRetention)},

		{get, schedules, viewer, ok, "List schedules", handle((*server).listSchedules)},
		{post, schedules, operator, made, "Add a schedule", handle((*server).addSchedule)},
		{get, schedule, viewer, ok, "Get a schedule", handle((*server).getSchedule)},
		{put, schedule, operator, ok, "Replace a schedule", handle((*server).putSchedule)},
		{del, schedule, operator, gone, "Delete a schedule", handle((*server).deleteSchedule)},

		{get, host + "/repo-maintenance", viewer, ok, "Get the maintenance cadences", handle((*server).getMaintenance)},
		{put, host + "/repo-maintenance", admin, ok, "Set the maintenance cadences", handle((*server).putMaintenance)},

		{post, host + "/repo-maintenance/{kind}/run", admin, accepted, "Run forget, prune or check now", handle((*server).runMaintenance)},
		{post, host + "/repo-maintenance/owner", admin, ok, "Let this host prune and check a shared repository", handle((*server).ownRepository)},

		{get, snapshots, viewer, ok, "List snapshots", handle((*server).listSnapshots)},
		{post, snapshots + "/refresh", operator, accepted, "List a host's snapshots anew", handle((*server).refreshSnapshots)},
		{patch, oneSnap, operator, ok, "Hold a snapshot or let it go", handle((*server).patchSnapshot)},
		{del, oneSnap, admin, accepted, "Delete a snapshot", handle((*server).deleteSnapshot)},
		{get, oneSnap + "/diff", operator, ok, "Compare two snapshots", documentDiff(handle((*server).getDiff))},

		{get, allJobs, viewer, ok, "List jobs", handle((*server).listJobs)},
		{get, oneJob, viewer, ok, "Get a job", handle((*server).getJob)},
		{get, oneJob + "/log", viewer, ok, "Read a job's log", documentLog(handle((*server).getJobLog))},
		{post, oneJob + "/cancel", operator, accepted, "Cancel a job", handle((*server).cancelJob)},

		{get, "/api/cron", viewer, ok, "Explain a cron expression", handle((*server).explainCron)},
	}
}

// Register adds all routes to e.
func Register(e *echo.Echo, c Config) {
	configureHuma()
	config := huma.DefaultConfig("Resticfleet", "1")
	config.Info.Description = "Restic backups on many hosts. Send an API token as bearer, or the session cookie of the dashboard. " +
		"Ids are UUIDv7, times RFC 3339 in UTC with microseconds, lists newest first, errors RFC 9457."
	// No documentation page: it would load its scripts from elsewhere. No
	// $schema in objects and no schema links: they aren't in the contract. The
	// document itself is served below; huma would make it at the first request,
	// without a lock.
	config.OpenAPIPath, config.DocsPath, config.SchemasPath, config.CreateHooks = "", "", "", nil
	config.Formats = map[string]huma.Format{"application/json": jsonFormat, "json": jsonFormat}
	config.Components.SecuritySchemes = map[string]*huma.SecurityScheme{
		"token": {Type: "http", Scheme: "bearer", Description: "An API token, made with `resticfleet token create`."},
	}
	config.Security = []map[string][]string{{"token": {}}}

	h := humaecho.New(e, config)
	h.UseMiddleware(answerJSON)
	s := &server{c}
	for _, op := range operations() {
		name, _, _ := strings.Cut(op.summary, ";")
		op.register(s, h, huma.Operation{
			Method: op.method, Path: op.path, DefaultStatus: op.status, Summary: op.summary,
			OperationID:  strings.NewReplacer(" ", "-", "'", "").Replace(strings.ToLower(name)),
			Description:  "Needs the role " + string(op.role) + ".",
			MaxBodyBytes: maxBody + 1, // huma refuses a body that reaches it
			// Five seconds, huma's own, are short for a slow line.
			BodyReadTimeout: 30 * time.Second,
		})
	}
	spec, err := json.Marshal(h.OpenAPI())
	if err != nil {
		panic(err) // made of our own types: any test that registers finds it
	}
	e.GET(specPath, func(c echo.Context) error { return c.JSONBlob(http.StatusOK, spec) })
}

// server answers the operations.
type server struct{ Config }

// registrar hands one operation to huma.
type registrar func(*server, huma.API, huma.Operation)

// handle makes the one place where an operation's error becomes an answer and,
// where nobody but us can do something about it, a line in the log.
func handle[I, O any](f func(*server, context.Context, *I) (*O, error)) registrar {
	return func(s *server, h huma.API, op huma.Operation) {
		in := "body"
		if op.Method == http.MethodGet {
			in = "query"
		}
		huma.Register(h, op, func(ctx context.Context, input *I) (*O, error) {
			output, err := f(s, ctx, input)
			if err == nil {
				return output, nil
			}
			p := newProblem(err, in)
			// What a host could not answer is told to who asked, and no fault of ours.
			if p.Status >= http.StatusInternalServerError && models.CodeOf(err) != models.EUnavailable && ctx.Err() == nil {
				s.Log.ErrorContext(ctx, "request failed", "method", op.Method, "route", op.Path, "status", p.Status, "err", err)
			}
			return nil, p
		})
	}
}

// humaContext avoids that a field hides the method Context.
type humaContext = huma.Context

// jsonOnly hides Accept: there is one format to choose, and huma's choosing
// panics at headers like "a;,bbbb".
type jsonOnly struct{ humaContext }

func (c jsonOnly) Header(name string) string {
	if strings.EqualFold(name, "Accept") {
		return ""
	}
	return c.humaContext.Header(name)
}

// Unwrap lets humaecho find its own context.
func (c jsonOnly) Unwrap() huma.Context { return c.humaContext }

func answerJSON(c huma.Context, next func(huma.Context)) { next(jsonOnly{c}) }

// answer is a 200 or 202 with an object or list.
type answer[T any] struct{ Body T }

// created is an answer that says where its object is from now on.
type created[T any] struct {
	Location string `header:"Location"`
	Body     T
}

// list is one page of a list.
type list[T any] struct {
	Items      []T     `json:"items"`
	NextCursor *string `json:"next_cursor" doc:"Give it as cursor to get the next page; null at the end."`
}

func newList[M, T any](rows []M, next string, convert func(M) T) *answer[list[T]] {
	items := make([]T, len(rows))
	for i, row := range rows {
		items[i] = convert(row)
	}
	return &answer[list[T]]{list[T]{Items: items, NextCursor: orNull(next)}}
}

// Page is what every list takes.
type Page struct {
	Limit  int    `query:"limit" minimum:"1" maximum:"500" default:"50"`
	Cursor string `query:"cursor" doc:"The next_cursor of the page before."`
}

func (p Page) page() models.Page { return models.Page{Limit: p.Limit, Cursor: p.Cursor} }

// timestamp writes times in one length, so that text sorts as time does.
func timestamp(t time.Time) string { return t.UTC().Format("2006-01-02T15:04:05.000000Z") }

func timestampOrNull(t *time.Time) *string {
	if t == nil {
		return nil
	}
	s := timestamp(*t)
	return &s
}

// orNull is null for what there isn't yet.
func orNull(s string) *string {
	if s == "" {
		return nil
	}
	return &s
}

func idOrNull[T interface{ String() string }](id *T) *string {
	if id == nil {
		return nil
	}
	s := (*id).String()
	return &s
}
