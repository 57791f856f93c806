package handlers

import (
	"net/http"

	"github.com/labstack/echo/v4"

	"resticfleet/models"
	"resticfleet/views"
)

func (h *Handlers) passwordPage(c echo.Context) error {
	return h.renderPassword(c, http.StatusOK, views.PasswordForm{})
}

func (h *Handlers) renderPassword(c echo.Context, status int, form views.PasswordForm) error {
	return render(c, status, views.PasswordPage(h.page(c, "Change password", views.NavSettings), form))
}

// changePassword asks for the old one as the login does, with the same
// patience: a browser left open must not be a way to guess it.
func (h *Handlers) changePassword(c echo.Context) error {
	id := who(c)
	if errs, bad := fieldErrors(sameTwice(c)); bad {
		return h.renderPassword(c, http.StatusUnprocessableEntity, views.PasswordForm{Errors: errs})
	}
	if tooMany := h.tooManyTries(c, id.Name); tooMany != "" {
		return h.renderPassword(c, http.StatusTooManyRequests, views.PasswordForm{Errors: views.Errors{"": tooMany}})
	}
	token, err := models.ChangePassword(c.Request().Context(), h.DB, id, c.FormValue("current"), c.FormValue("password"))
	errs, bad := fieldErrors(err)
	if errs["current"] == "" {
		h.throttle.forgive(c.RealIP(), id.Name)
	}
	if bad {
		return h.renderPassword(c, http.StatusUnprocessableEntity, views.PasswordForm{Errors: errs})
	}
	if err != nil {
		return err
	}
	h.setSession(c, token, models.SessionLife)
	h.say(c, "Password changed", "Your other sessions have ended.")
	return done(c, "/settings")
}

func (h *Handlers) sessions(c echo.Context) error {
	v := views.Sessions{Clock: pageClock(nil)}
	list, next, err := models.ListSessions(c.Request().Context(), h.DB, who(c).UserID, models.Page{Cursor: c.QueryParam("cursor")})
	if err != nil {
		return err
	}
	v.NextCursor = next
	for _, s := range list {
		v.Rows = append(v.Rows, views.Session{
			ID: s.ID.String(), UserAgent: s.UserAgent, Address: s.Address, CreatedAt: s.CreatedAt, SeenAt: s.SeenAt,
			This: s.ID == who(c).SessionID,
		})
	}
	return render(c, http.StatusOK, views.SessionsPage(h.page(c, "Sessions", views.NavSettings), v))
}

func (h *Handlers) endSession(c echo.Context) error {
	id, err := models.ParseID[models.SessionID](c.Param("sid"))
	if err != nil {
		return err
	}
	if err := models.EndSessionOf(c.Request().Context(), h.DB, who(c).UserID, id); err != nil {
		return err
	}
	h.say(c, "Session ended", "That browser has to log in again.")
	return done(c, "/settings/sessions")
}

func (h *Handlers) endOtherSessions(c echo.Context) error {
	if err := models.EndOtherSessions(c.Request().Context(), h.DB, who(c).UserID, who(c).SessionID); err != nil {
		return err
	}
	h.say(c, "All other sessions ended", "Only this browser is still logged in.")
	return done(c, "/settings/sessions")
}
