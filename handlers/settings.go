package handlers

import (
	"net/http"

	"github.com/labstack/echo/v4"

	"resticfleet/models"
	"resticfleet/views"
)

// settings is where everybody finds the own account, and an administrator the
// users, tokens and the audit log.
func (h *Handlers) settings(c echo.Context) error {
	v := views.Settings{Administers: who(c).Role.Allows(models.RoleAdmin), Person: !who(c).UserID.IsZero()}
	if v.Administers {
		counts, err := models.CountUsers(c.Request().Context(), h.DB)
		if err != nil {
			return err
		}
		v.Viewers, v.Operators, v.Admins = counts[models.RoleViewer], counts[models.RoleOperator], counts[models.RoleAdmin]
	}
	return render(c, http.StatusOK, views.SettingsPage(h.page(c, "Settings", views.NavSettings), v))
}
