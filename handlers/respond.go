package handlers

import (
	"bytes"
	"context"
	"errors"
	"net/http"
	"net/url"
	"runtime/debug"
	"strings"

	"github.com/a-h/templ"
	"github.com/google/uuid"
	"github.com/labstack/echo/v4"

	"resticfleet/handlers/api"
	"resticfleet/models"
	"resticfleet/views"
	"resticfleet/views/ui"
)

// partial reports whether HTMX asks for a part of a page. A boosted or
// restored page asks for the whole.
func partial(c echo.Context) bool {
	h := c.Request().Header
	return h.Get("HX-Request") == "true" && h.Get("HX-Request-Type") == "partial"
}

// onPage reports whether HTMX asks for a part of the page at this path.
func onPage(c echo.Context, path string) bool {
	return partial(c) && strings.HasSuffix(c.Request().Header.Get("HX-Current-URL"), path)
}

// wantsJSON tells a program from a browser by what it prefers.
func wantsJSON(c echo.Context) bool {
	accept := c.Request().Header.Get("Accept")
	return !strings.Contains(accept, "text/html") && strings.Contains(accept, "json")
}

// render answers with a component, in one piece: it is compressed better and
// quicker than in those that its parts would make, and one that fails halfway
// is an error and no page. One whose reader has left is still an answer: it
// has a status.
func render(c echo.Context, status int, component templ.Component) error {
	var page bytes.Buffer
	if err := component.Render(context.WithoutCancel(c.Request().Context()), &page); err != nil {
		return err
	}
	return c.HTMLBlob(status, page.Bytes())
}

// formParams is the whole form, or an error that a person can do something about.
func formParams(c echo.Context) (url.Values, error) {
	params, err := c.FormParams()
	var refused *echo.HTTPError
	if err != nil && !errors.As(err, &refused) {
		return nil, &models.Error{Code: models.EInvalid, Message: "This form did not arrive whole. Go back and send it again."}
	}
	return params, err
}

// done ends a form that worked: HTMX is sent to the page by a real
// navigation, a plain browser by a redirect.
func done(c echo.Context, url string) error {
	if partial(c) {
		c.Response().Header().Set("HX-Redirect", url)
		return c.NoContent(http.StatusOK)
	}
	return c.Redirect(http.StatusSeeOther, url)
}

// acted ends a button that worked: HTMX looks again at what may have changed
// on the page it is on, a plain browser goes back to url.
func acted(c echo.Context, url string) error {
	if partial(c) {
		c.Response().Header().Set("HX-Trigger", "fleet,host,jobs,job")
		return c.NoContent(http.StatusNoContent)
	}
	return c.Redirect(http.StatusSeeOther, url)
}

// page is what surrounds every page.
func (h *Handlers) page(c echo.Context, title, nav string) views.Page {
	p := views.Page{Title: title, Nav: nav, Path: here(c), Asset: h.Assets.Path, Flash: h.said(c)}
	if id := who(c); id != nil {
		p.User = views.User{Name: id.Name, Role: string(id.Role)}
	}
	if cookie, err := c.Cookie("theme"); err == nil {
		p.Theme = cookie.Value
	}
	return p
}

// status is the one that programs are told, too.
func status(err error) int {
	code, _ := api.Problem(err)
	return code
}

// fail turns an error into an answer, once, in the form the caller reads. An
// error that isn't ours to show is logged under a reference and never shown.
func (h *Handlers) fail(err error, c echo.Context) {
	if c.Response().Committed {
		return
	}
	code := status(err)
	reference := ""
	if code == http.StatusInternalServerError {
		reference = uuid.NewString()[:8]
		h.Log.ErrorContext(c.Request().Context(), "request failed", "reference", reference, "method", c.Request().Method, "path", c.Path(), "err", err)
	}
	if code == http.StatusServiceUnavailable {
		h.Log.WarnContext(c.Request().Context(), "request turned away", "method", c.Request().Method, "path", c.Path(), "err", err)
		c.Response().Header().Set("Retry-After", "5")
	}
	if renderErr := h.renderFailure(c, code, err, reference); renderErr != nil {
		h.Log.WarnContext(c.Request().Context(), "error not delivered", "err", renderErr)
	}
}

func (h *Handlers) renderFailure(c echo.Context, code int, err error, reference string) error {
	path := c.Request().URL.Path
	if strings.HasPrefix(path, "/api/") || strings.HasPrefix(path, "/agent/") || path == "/metrics" || wantsJSON(c) {
		return api.WriteProblem(c.Response(), err)
	}
	if code == http.StatusUnauthorized {
		h.rememberPage(c)
		if partial(c) || path == "/events" {
			c.Response().Header().Set("HX-Redirect", "/login")
			return c.NoContent(code)
		}
		return c.Redirect(http.StatusSeeOther, "/login")
	}
	f := failure(code, err)
	f.Reference = reference
	if code == http.StatusNotFound && strings.HasPrefix(path, "/jobs/") {
		f.Heading, f.Cause, f.Remedy = "There is no such job", "", "The address may be mistyped: a job stays here when its source group or its host is deleted."
		f.Link = ui.Link{Text: "See all jobs", URL: "/jobs"}
	}
	if partial(c) {
		c.Response().Header().Set("HX-Retarget", "#toast")
		c.Response().Header().Set("HX-Reswap", "innerHTML")
		return render(c, code, views.Toast(ui.Banner{State: ui.Failed, Title: f.Heading, Text: strings.TrimSpace(f.Cause + " " + f.Remedy)}))
	}
	return render(c, code, views.FailurePage(h.page(c, f.Heading, ""), f))
}

func failure(code int, err error) views.Failure {
	f := views.Failure{Status: code, Link: ui.Link{Text: "Back to the fleet", URL: "/"}}
	switch code {
	case http.StatusNotFound:
		f.Heading, f.Remedy = "There is nothing here", "It may have been deleted. Look for it in the fleet."
	case http.StatusMethodNotAllowed:
		f.Heading, f.Remedy = "That can't be done here", "Go back and use the page's own buttons."
	case http.StatusForbidden:
		f.Heading = "You may not do this"
	case http.StatusConflict:
		f.Heading = "Something stands in the way"
	case http.StatusUnprocessableEntity:
		f.Heading = "This can't be stored as it is"
	case http.StatusServiceUnavailable:
		f.Heading, f.Cause, f.Remedy = "Resticfleet is not ready", "Its database does not answer just now; it is being started again.", "Try again in a few seconds."
	case http.StatusGone:
		f.Heading = "This is gone"
	case http.StatusRequestEntityTooLarge:
		f.Heading, f.Remedy = "That is too much at once", "Send less than 1 MiB."
	case http.StatusTooManyRequests:
		f.Heading = "Too many tries"
	default:
		f.Heading, f.Cause, f.Remedy = "Something went wrong here", "The server could not answer; nothing was changed unless you see it.", "Try again. If it stays, the server's log has the reference below."
	}
	var e *models.Error
	if errors.As(err, &e) && code != http.StatusInternalServerError {
		f.Cause = e.Error()
	}
	return f
}

func (h *Handlers) logPanic(c echo.Context, err error, _ []byte) error {
	h.Log.ErrorContext(c.Request().Context(), "panic", "method", c.Request().Method, "path", c.Path(), "err", err, "stack", string(debug.Stack()))
	return errors.New("panic")
}

// fieldErrors are an error's messages by form field; one of a list's elements
// stands at its list, and at the element: includes[2].
func fieldErrors(err error) (views.Errors, bool) {
	var e *models.Error
	if !errors.As(err, &e) || e.Code != models.EInvalid {
		return nil, false
	}
	out := views.Errors{}
	for _, f := range e.Fields {
		element := f.Field[strings.LastIndex(f.Field, ".")+1:]
		name, _, _ := strings.Cut(element, "[")
		// Beside its field an order is enough.
		message := f.Message
		for _, missing := range []string{"is missing: ", "are missing: "} {
			message = strings.TrimPrefix(message, missing)
		}
		for _, field := range []string{name, element} {
			if out[field] == "" {
				out[field] = sentence(message)
			}
		}
	}
	if len(e.Fields) == 0 {
		out[""] = e.Message
	}
	return out, true
}

// sentence begins with a capital and ends with a stop.
func sentence(s string) string {
	if s == "" {
		return s
	}
	s = strings.ToUpper(s[:1]) + s[1:]
	if !strings.HasSuffix(s, ".") {
		s += "."
	}
	return s
}
