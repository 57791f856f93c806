package handlers

import (
	"fmt"
	"net/http"
	"strconv"
	"time"

	"github.com/labstack/echo/v4"

	"resticfleet/models"
	"resticfleet/views"
)

func (h *Handlers) loginPage(c echo.Context) error {
	if _, err := h.identify(c); err == nil {
		return c.Redirect(http.StatusSeeOther, "/")
	}
	users, err := models.HasUsers(c.Request().Context(), h.DB)
	if err != nil {
		return err
	}
	return render(c, http.StatusOK, views.LoginPage(h.page(c, "Log in", ""), views.Login{NobodyYet: !users}))
}

// login starts a new session; nothing of an older one is taken over, so a
// session somebody planted is worth nothing.
func (h *Handlers) login(c echo.Context) error {
	name, password := c.FormValue("username"), c.FormValue("password")
	form := views.Login{Username: name}
	if form.Error = h.tooManyTries(c, name); form.Error != "" {
		return render(c, http.StatusTooManyRequests, views.LoginPage(h.page(c, "Log in", ""), form))
	}
	ctx := c.Request().Context()
	user, err := models.Authenticate(ctx, h.DB, name, password)
	if models.CodeOf(err) == models.EUnauthorized {
		h.Log.WarnContext(ctx, "login refused", "address", c.RealIP())
		form.Error = err.Error()
		return render(c, http.StatusUnauthorized, views.LoginPage(h.page(c, "Log in", ""), form))
	}
	h.throttle.forgive(c.RealIP(), name)
	if err != nil {
		return err
	}
	return h.signIn(c, user)
}

// tooManyTries counts one try to tell this user's password, and is "" or what
// to say to who has to wait.
func (h *Handlers) tooManyTries(c echo.Context, name string) string {
	wait := h.throttle.begin(c.RealIP(), name)
	if wait <= 0 {
		return ""
	}
	seconds := int(wait.Seconds()) + 1
	c.Response().Header().Set("Retry-After", strconv.Itoa(seconds))
	return fmt.Sprintf("Too many tries. Wait %d seconds, then try again.", seconds)
}

func (h *Handlers) signIn(c echo.Context, user *models.User) error {
	ctx := c.Request().Context()
	if old, err := h.cookie(c, sessionCookie); err == nil {
		if err := models.EndSession(ctx, h.DB, old.Value); err != nil {
			return err
		}
	}
	token, err := models.StartSession(ctx, h.DB, user.ID, c.RealIP(), c.Request().UserAgent())
	if err != nil {
		return err
	}
	h.setSession(c, token, models.SessionLife)
	c.Set(identityKey, &models.Identity{UserID: user.ID, Name: user.Name, Role: user.Role}) // for the audit
	return done(c, h.rememberedPage(c))
}

func (h *Handlers) logout(c echo.Context) error {
	if cookie, err := h.cookie(c, sessionCookie); err == nil {
		if id, err := models.SessionIdentity(c.Request().Context(), h.DB, cookie.Value); err == nil {
			c.Set(identityKey, id) // for the audit
		}
		if err := models.EndSession(c.Request().Context(), h.DB, cookie.Value); err != nil {
			return err
		}
	}
	h.setSession(c, "", -time.Second)
	return done(c, "/login")
}

func (h *Handlers) setupPage(c echo.Context) error {
	token := c.QueryParam("token")
	open, err := models.SetupLinkOpen(c.Request().Context(), h.DB, token)
	if err != nil {
		return err
	}
	if !open {
		return &models.Error{Code: models.EGone, Message: "This link was used or is older than an hour. Print a new one with `resticfleet setup-link`, or log in."}
	}
	return render(c, http.StatusOK, views.SetupPage(h.page(c, "Set up", ""), views.Setup{Action: "/setup", Token: token}))
}

func (h *Handlers) setup(c echo.Context) error {
	form := views.Setup{Action: "/setup", Token: c.FormValue("token"), Username: c.FormValue("username")}
	var user *models.User
	err := sameTwice(c)
	if err == nil {
		user, err = models.SetUp(c.Request().Context(), h.DB, form.Token, form.Username, c.FormValue("password"))
	}
	if errs, bad := fieldErrors(err); bad {
		if errs["name"] != "" {
			errs["username"] = errs["name"]
		}
		form.Errors = errs
		return render(c, http.StatusUnprocessableEntity, views.SetupPage(h.page(c, "Set up", ""), form))
	}
	if err != nil {
		return err
	}
	return h.signIn(c, user)
}

// theme keeps the choice in a cookie, so that the next page is drawn in it
// from its first byte.
func (h *Handlers) theme(c echo.Context) error {
	choice := c.FormValue("theme")
	life := 365 * 24 * 3600
	if choice != "light" && choice != "dark" {
		choice, life = "", -1
	}
	c.SetCookie(&http.Cookie{Name: "theme", Value: choice, Path: "/", MaxAge: life, Secure: h.secure(c.Request()), SameSite: http.SameSiteLaxMode})
	return done(c, localPath(c.FormValue("return")))
}
