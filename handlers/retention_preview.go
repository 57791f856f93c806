package handlers

import (
	"net/http"

	"github.com/labstack/echo/v4"

	"resticfleet/models"
	"resticfleet/views"
)

// previewGroup asks what the policy in the form would do, and stores nothing.
// A plain browser gets the whole form back, with all that was typed.
func (h *Handlers) previewGroup(c echo.Context) error {
	host, stored, err := h.groupOf(c)
	if err != nil {
		return err
	}
	form, _, err := readGroupForm(c, host, stored)
	if err != nil {
		return err
	}
	form.Action = "/hosts/" + host.ID.String() + "/source-groups/" + stored.ID.String()
	noteDrawn(c)
	status, err := h.previewInto(c, host, stored, &form)
	if err != nil {
		return err
	}
	if partial(c) {
		return render(c, status, views.RetentionPreview(form))
	}
	return h.showGroup(c, status, form)
}

// previewInto puts a preview into the form. What stands in its way is said
// there and told by the status; only what is nobody's business here is an error.
func (h *Handlers) previewInto(c echo.Context, host *models.Host, g *models.Group, form *views.GroupForm) (int, error) {
	v := &views.Preview{Clock: pageClock(host.Location()), CanAdminister: who(c).Role.Allows(models.RoleAdmin)}
	form.Preview = v
	policy, errs := form.Retention.Policy()
	var plan *models.RetentionPlan
	var err error
	if len(errs) == 0 {
		plan, err = h.Jobs.PreviewRetention(c.Request().Context(), host.ID, g.ID, policy, who(c).Actor())
		errs, _ = fieldErrors(err)
	}
	switch code := models.CodeOf(err); {
	case len(errs) > 0:
		v.Problem, form.Errors = "Correct the fields of the policy, then look again.", errs
		for _, message := range errs {
			v.Problem = message
		}
		return http.StatusUnprocessableEntity, nil
	case err != nil && (code == models.EUnavailable || code == models.EConflict):
		v.Problem = err.Error()
		return status(err), nil
	case err != nil:
		return 0, err
	}
	v.Stays, v.Goes = plannedRows(plan.Keep), plannedRows(plan.Remove)
	return http.StatusOK, nil
}

func plannedRows(all []models.PlannedSnapshot) []views.PreviewRow {
	rows := make([]views.PreviewRow, len(all))
	for i, s := range all {
		rows[i] = views.PreviewRow{ShortID: s.ID[:8], At: s.Time, Reasons: s.Reasons, Held: s.Held}
	}
	return rows
}
