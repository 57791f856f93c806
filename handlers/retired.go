package handlers

import (
	"net/http"
	"strings"

	"github.com/labstack/echo/v4"

	"resticfleet/handlers/api"
	"resticfleet/models"
	"resticfleet/views"
	"resticfleet/views/ui"
)

// retiredRoutes are what was there once, and what replaced it.
var retiredRoutes = map[string]struct{ what, instead, api string }{
	"run-backup": {
		"“Back up this host” is gone", "Each source group has a Run now of its own on the host's page.",
		"POST /api/hosts/{id}/source-groups/{gid}/run",
	},
	"init-repo": {
		"“Init repository” is gone", "A repository is set up by itself as soon as its credentials are stored on the host's page.",
		"POST /api/hosts/{id}/repository/init",
	},
}

// retired answers any method on a retired route with 410, before login and
// before the host is looked up.
func (h *Handlers) retired(next echo.HandlerFunc) echo.HandlerFunc {
	return func(c echo.Context) error {
		parts := strings.Split(strings.Trim(c.Request().URL.Path, "/"), "/")
		isAPI := len(parts) == 4 && parts[0] == "api"
		if isAPI {
			parts = parts[1:]
		}
		if len(parts) != 3 || parts[0] != "hosts" {
			return next(c)
		}
		gone, ok := retiredRoutes[parts[2]]
		if !ok {
			return next(c)
		}
		return h.secureHeaders(nil)(func(c echo.Context) error {
			if isAPI || wantsJSON(c) {
				return api.WriteProblem(c.Response(), &models.Error{
					Code: models.EGone, Message: gone.what + ". " + gone.instead,
					Detail: map[string]any{"replacement": gone.api},
				})
			}
			r := views.Retired{What: gone.what, Replacement: gone.instead, Link: ui.Link{Text: "Open the host", URL: hostURL(parts[1])}}
			if partial(c) {
				return render(c, http.StatusGone, views.RetiredBanner(r))
			}
			return render(c, http.StatusGone, views.RetiredPage(h.page(c, gone.what, ""), r))
		})(c)
	}
}

// hostURL links to a host only when what stands in the path can be one.
func hostURL(id string) string {
	if _, err := models.ParseID[models.HostID](id); err != nil {
		return "/"
	}
	return "/hosts/" + id
}
