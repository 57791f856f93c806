package handlers

import (
	"context"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/labstack/echo/v4"

	"resticfleet/handlers/api"
	"resticfleet/models"
)

const identityKey = "identity"

// who is the person or program behind a request; nil on public routes.
func who(c echo.Context) *models.Identity {
	id, _ := c.Get(identityKey).(*models.Identity)
	return id
}

// authorize lets a request through to the routes its role may use, before any
// of its body is read. A route that isn't in the table is closed.
func (h *Handlers) authorize(table map[string]access) echo.MiddlewareFunc {
	return func(next echo.HandlerFunc) echo.HandlerFunc {
		return func(c echo.Context) error {
			need, known := table[c.Request().Method+" "+c.Path()]
			if !known {
				return absent(c)
			}
			if need == public || need == agent {
				return next(c)
			}
			id, err := h.identify(c)
			if err != nil {
				return err
			}
			c.Set(identityKey, id)
			if err := allow(id, need); err != nil {
				return err
			}
			c.SetRequest(c.Request().WithContext(api.WithIdentity(c.Request().Context(), id)))
			return next(c)
		}
	}
}

// allow is EForbidden, in words, for a route that who asks may not use.
func allow(id *models.Identity, need access) error {
	switch {
	case need != person && !id.Role.Allows(models.Role(need)):
		return &models.Error{Code: models.EForbidden, Message: "Your role (" + string(id.Role) + ") doesn't allow this; it takes the role " + string(need) + ". Ask an administrator."}
	case need == person && id.UserID.IsZero():
		return &models.Error{Code: models.EForbidden, Message: "This is about a person's own account, and a program has none. Log in with a browser."}
	}
	return nil
}

// absent answers for what no row of the table has, even where somebody gave it
// a handler.
func absent(c echo.Context) error {
	if allow, _ := c.Get(echo.ContextKeyHeaderAllow).(string); allow != "" {
		c.Response().Header().Set(echo.HeaderAllow, allow)
		return echo.ErrMethodNotAllowed
	}
	return echo.ErrNotFound
}

// identify finds who asks. With an Authorization header the cookie is ignored.
func (h *Handlers) identify(c echo.Context) (*models.Identity, error) {
	ctx := c.Request().Context()
	if header := c.Request().Header.Get("Authorization"); header != "" {
		scheme, token, _ := strings.Cut(header, " ")
		if !strings.EqualFold(scheme, "Bearer") {
			return nil, &models.Error{Code: models.EUnauthorized, Message: "Send an API token as Authorization: Bearer."}
		}
		return models.TokenIdentity(ctx, h.DB, strings.TrimSpace(token))
	}
	cookie, err := h.cookie(c, sessionCookie)
	if err != nil || cookie.Value == "" {
		return nil, &models.Error{Code: models.EUnauthorized, Message: "Sign in first."}
	}
	return models.SessionIdentity(ctx, h.DB, cookie.Value)
}

const sessionCookie = "session"

// cookie reads one that setCookie has set for the whole site.
func (h *Handlers) cookie(c echo.Context, name string) (*http.Cookie, error) {
	return c.Cookie(h.cookieName(c.Request(), name))
}

// cookieName is prefixed under https, so that no other host of the domain can
// set it.
func (h *Handlers) cookieName(r *http.Request, name string) string {
	if h.secure(r) {
		return "__Host-" + name
	}
	return name
}

func (h *Handlers) setSession(c echo.Context, token string, life time.Duration) {
	h.setCookie(c, &http.Cookie{Name: sessionCookie, Value: token, MaxAge: int(life.Seconds())})
}

// setCookie sends a cookie that no script can read, and only over https where
// the site has that. It is for the whole site, also for who comes by a link from
// another one, unless it says otherwise.
func (h *Handlers) setCookie(c echo.Context, cookie *http.Cookie) {
	cookie.HttpOnly, cookie.Secure = true, h.secure(c.Request())
	if cookie.Path == "" {
		cookie.Path, cookie.Name = "/", h.cookieName(c.Request(), cookie.Name)
	}
	if cookie.SameSite == 0 {
		cookie.SameSite = http.SameSiteLaxMode
	}
	c.SetCookie(cookie)
}

// nextCookie remembers where a person wanted to go before signing in.
const nextCookie = "next"

func (h *Handlers) rememberPage(c echo.Context) {
	page := pageOf(c)
	if page == "/" || page == "/events" {
		return
	}
	h.setCookie(c, &http.Cookie{Name: nextCookie, Value: url.QueryEscape(page), MaxAge: 600})
}

// pageOf is the path of the page that a request comes from, or asks for; "/"
// where that is none of ours.
func pageOf(c echo.Context) string {
	r := c.Request()
	raw := r.Header.Get("HX-Current-URL")
	if raw == "" && safe(r.Method) {
		return r.URL.RequestURI()
	}
	if raw == "" {
		raw = r.Referer()
	}
	u, err := url.Parse(raw)
	if err != nil || u.Host != r.Host {
		return "/"
	}
	return shown(c, u)
}

// here is the path of a page that answers a request: where the browser can come
// back to it.
func here(c echo.Context) string { return shown(c, c.Request().URL) }

// shown is the path of a page of ours; "/" for where only posts go, which is
// where a form stands that came back with mistakes.
func shown(c echo.Context, u *url.URL) string {
	found := c.Echo().NewContext(nil, nil)
	c.Echo().Router().Find(http.MethodGet, u.EscapedPath(), found)
	if found.Get(echo.ContextKeyHeaderAllow) != nil {
		return "/"
	}
	return localPath(u.RequestURI())
}

// rememberedPage is where to go after signing in: one of our own paths.
func (h *Handlers) rememberedPage(c echo.Context) string {
	cookie, err := h.cookie(c, nextCookie)
	if err != nil {
		return "/"
	}
	h.setCookie(c, &http.Cookie{Name: nextCookie, MaxAge: -1})
	raw, err := url.QueryUnescape(cookie.Value)
	if err != nil {
		return "/"
	}
	return localPath(raw)
}

// localPath keeps a redirect on this server.
func localPath(raw string) string {
	u, err := url.Parse(raw)
	if err != nil || u.IsAbs() || u.Host != "" || !strings.HasPrefix(raw, "/") || strings.HasPrefix(raw, "//") || strings.HasPrefix(raw, "/\\") {
		return "/"
	}
	return raw
}

// unaudited are the unsafe routes that leave no entry.
var unaudited = map[string]bool{
	"POST /theme":             true, // a cookie of the browser's own
	"POST /agent/v1/messages": true, // a report, as over a socket: what it says is kept where it belongs
}

// audit keeps who changed what, or tried to: one entry for every unsafe request
// to a route of the table, whatever came of it, refused ones included.
func (h *Handlers) audit(table map[string]access) echo.MiddlewareFunc {
	return func(next echo.HandlerFunc) echo.HandlerFunc {
		return func(c echo.Context) error {
			route := c.Request().Method + " " + c.Path()
			if _, known := table[route]; !known || safe(c.Request().Method) || unaudited[route] {
				return next(c)
			}
			err := next(c)
			if c.Get(drawnKey) == nil {
				h.keepAudit(c, err)
			}
			if err == nil && (c.Path() == "/logout" || strings.HasPrefix(c.Path(), "/settings/")) {
				h.Hub.Publish(peopleTopic) // streams end with their sessions
			}
			return err
		}
	}
}

// noteDrawn tells that a form was only drawn anew, with a row more or less:
// nobody asked for a change.
func noteDrawn(c echo.Context) { c.Set(drawnKey, true) }

const drawnKey = "drawn"

// safe reports whether a method only looks.
func safe(method string) bool { return method == http.MethodGet || method == http.MethodHead }

// auditTimeout is how long an entry may take that its client doesn't wait for.
const auditTimeout = 5 * time.Second

func (h *Handlers) keepAudit(c echo.Context, err error) {
	r := c.Request()
	// What was done stands even when the client has left meanwhile.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(r.Context()), auditTimeout)
	defer cancel()
	entry := models.AuditEntry{
		Action: r.Method + " " + c.Path(), Target: r.URL.Path, Address: c.RealIP(),
		ActorKind: "system", Outcome: c.Response().Status,
	}
	if err != nil {
		entry.Outcome = status(err)
	}
	entry.About, _ = c.Get(aboutKey).(string)
	if made := c.Response().Header().Get("Location"); entry.Outcome == http.StatusCreated && made != "" {
		entry.Target = made
	}
	if who(c) == nil && entry.Outcome >= http.StatusBadRequest && !h.refusals.worthKeeping(entry.Address) {
		return
	}
	switch id := who(c); {
	case id != nil:
		entry.ActorKind, entry.ActorName, entry.ActorID = "token", id.Name, id.Actor().ID
		if !id.UserID.IsZero() {
			entry.ActorKind = "user"
		}
	case strings.HasPrefix(c.Path(), "/agent/"):
		entry.ActorKind = "agent"
	}
	if auditErr := models.Audit(ctx, h.DB, entry); auditErr != nil {
		h.Log.ErrorContext(ctx, "change not audited", "action", entry.Action, "err", auditErr)
	}
}
