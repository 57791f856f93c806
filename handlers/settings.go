package handlers

import (
	"net/http"

	"github.com/labstack/echo/v4"

	"resticfleet/models"
	"resticfleet/views"
	"resticfleet/views/ui"
)

// namedUsers is how many users the settings name.
const namedUsers = 12

// settings is where everybody finds the own account, and an administrator the
// users, tokens and the audit log.
func (h *Handlers) settings(c echo.Context) error {
	v := views.Settings{Administers: who(c).Role.Allows(models.RoleAdmin), Person: !who(c).UserID.IsZero()}
	if v.Administers {
		counts, err := models.CountUsers(c.Request().Context(), h.DB)
		if err != nil {
			return err
		}
		newest, _, err := models.ListUsers(c.Request().Context(), h.DB, "", models.Page{Limit: namedUsers})
		if err != nil {
			return err
		}
		for _, u := range newest {
			v.Newest = append(v.Newest, ui.Link{Text: u.Name, URL: "/settings/users/" + u.ID.String()})
		}
		v.Viewers, v.Operators, v.Admins = counts[models.RoleViewer], counts[models.RoleOperator], counts[models.RoleAdmin]
	}
	return render(c, http.StatusOK, views.SettingsPage(h.page(c, "Settings", views.NavSettings), v))
}
