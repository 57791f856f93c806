package handlers

import (
	"net/http"
	"strings"

	"github.com/labstack/echo/v4"

	"resticfleet/models"
	"resticfleet/views"
	"resticfleet/views/ui"
)

func (h *Handlers) tokens(c echo.Context) error {
	v := views.Tokens{Clock: pageClock(nil), Revoked: c.QueryParam("show") == "revoked"}
	list, next, err := models.ListAPITokens(c.Request().Context(), h.DB, v.Revoked, models.Page{Cursor: c.QueryParam("cursor")})
	if err != nil {
		return err
	}
	v.NextCursor = next
	for _, t := range list {
		v.Rows = append(v.Rows, views.TokenRow{
			ID: t.ID.String(), Name: t.Name, Role: string(t.Role), CreatedAt: t.CreatedAt, LastUsedAt: timeOf(t.LastUsedAt), RevokedAt: timeOf(t.RevokedAt),
		})
	}
	return render(c, http.StatusOK, views.TokensPage(h.page(c, "API tokens", views.NavSettings), v))
}

// newToken gives the form the id that its token will have: a form sent twice,
// or reloaded, makes one token.
func (h *Handlers) newToken(c echo.Context) error {
	form := views.TokenForm{ID: models.NewID[models.TokenID]().String(), Role: string(models.RoleViewer)}
	return render(c, http.StatusOK, views.TokenFormPage(h.page(c, "Make a token", views.NavSettings), form))
}

// addToken answers with the token itself: it is stored nowhere, so no other
// page could show it.
func (h *Handlers) addToken(c echo.Context) error {
	form := views.TokenForm{ID: c.FormValue("id"), Name: c.FormValue("name"), Role: c.FormValue("role")}
	noteTarget(c, strings.TrimSpace(form.Name))
	id, err := models.ParseID[models.TokenID](form.ID)
	if err != nil {
		id = models.NewID[models.TokenID]()
	}
	role, err := models.ParseRole(form.Role)
	var text string
	if err == nil {
		text, _, err = models.AddAPITokenAs(c.Request().Context(), h.DB, id, form.Name, role)
	}
	if errs, bad := fieldErrors(err); bad {
		form.Errors = errs
		return render(c, http.StatusUnprocessableEntity, views.TokenFormPage(h.page(c, "Make a token", views.NavSettings), form))
	}
	if err != nil {
		return err
	}
	made := views.TokenMade{Name: strings.TrimSpace(form.Name), Role: string(role), Text: text, BaseURL: h.baseURL(c.Request())}
	return render(c, http.StatusCreated, views.TokenMadePage(h.page(c, "Token made", views.NavSettings), made))
}

func (h *Handlers) tokenOf(c echo.Context) (*models.APIToken, error) {
	id, err := models.ParseID[models.TokenID](c.Param("tid"))
	if err != nil {
		return nil, err
	}
	token, err := models.FindAPIToken(c.Request().Context(), h.DB, id)
	if err == nil {
		noteTarget(c, token.Name)
	}
	return token, err
}

func (h *Handlers) confirmRevokeToken(c echo.Context) error {
	token, err := h.tokenOf(c)
	if err != nil {
		return err
	}
	return h.confirm(c, http.StatusOK, views.Confirm{
		Heading: "Revoke “" + token.Name + "”?",
		Lost:    "Programs that use it are refused from now on. This can't be undone: they will need another token.",
		Stays:   "What was done with it stays in the jobs and in the audit log.",
		Action:  "/settings/tokens/" + token.ID.String() + "/revoke",
		Act:     "Revoke “" + token.Name + "”", Keep: "Keep “" + token.Name + "”", KeepURL: "/settings/tokens",
		Crumbs: views.SettingsCrumbs(ui.Crumb{Text: "API tokens", URL: "/settings/tokens"}, ui.Crumb{Text: "revoke " + token.Name}),
	})
}

func (h *Handlers) revokeToken(c echo.Context) error {
	token, err := h.tokenOf(c)
	if err != nil {
		return err
	}
	if err := models.RevokeAPIToken(c.Request().Context(), h.DB, token.ID); err != nil {
		return err
	}
	h.say(c, "Revoked “"+token.Name+"”", "Programs that use it are refused from now on.")
	return done(c, "/settings/tokens")
}
