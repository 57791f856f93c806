package handlers

import (
	"net/http"
	"strings"

	"github.com/labstack/echo/v4"

	"resticfleet/models"
	"resticfleet/views"
)

func (h *Handlers) editRepository(c echo.Context) error {
	host, form, err := h.repositoryForm(c)
	if err != nil {
		return err
	}
	return render(c, http.StatusOK, views.RepositoryFormPage(h.page(c, "Repository of "+host.Name, views.NavFleet), form))
}

func (h *Handlers) repositoryForm(c echo.Context) (*models.Host, views.RepositoryForm, error) {
	host, err := h.hostOf(c)
	if err != nil {
		return nil, views.RepositoryForm{}, err
	}
	form := views.RepositoryForm{HostID: host.ID.String(), HostName: host.Name}
	repo, err := models.FindRepository(c.Request().Context(), h.DB, host.ID)
	if models.CodeOf(err) == models.ENotFound {
		return host, form, nil
	}
	if err != nil {
		return nil, form, err
	}
	form.URL, form.PasswordSet = repo.URL, true
	for _, name := range repo.EnvNames() {
		form.Env = append(form.Env, views.EnvRow{Name: name, Set: true})
	}
	return host, form, nil
}

// saveRepository keeps the secrets whose fields were left empty: nobody can
// read them again to type them in.
func (h *Handlers) saveRepository(c echo.Context) error {
	host, form, err := h.repositoryForm(c)
	if err != nil {
		return err
	}
	params, err := c.FormParams()
	if err != nil {
		return err
	}
	fields := models.RepositoryFields{
		URL: params.Get("url"), Password: models.Secret(params.Get("password")), Env: map[string]models.Secret{}, Keep: true,
	}
	stored := map[string]bool{}
	for _, row := range form.Env {
		stored[row.Name] = true
	}
	form.URL, form.Env = fields.URL, nil
	values := params["env_value"]
	for i, name := range params["env_name"] {
		if name = strings.TrimSpace(name); name == "" || i >= len(values) {
			continue
		}
		fields.Env[name] = models.Secret(values[i])
		form.Env = append(form.Env, views.EnvRow{Name: name, Set: stored[name]})
	}
	_, err = h.Jobs.BindRepository(c.Request().Context(), host.ID, fields)
	if errs, bad := fieldErrors(err); bad {
		form.Errors = errs
		if partial(c) {
			return render(c, http.StatusUnprocessableEntity, views.RepositoryFormBody(form))
		}
		return render(c, http.StatusUnprocessableEntity, views.RepositoryFormPage(h.page(c, "Repository of "+host.Name, views.NavFleet), form))
	}
	if err != nil {
		return err
	}
	return done(c, "/hosts/"+host.ID.String())
}

// initRepository tries to set the repository up once more, after one try has
// failed and what was wrong has been mended.
func (h *Handlers) initRepository(c echo.Context) error {
	host, err := h.hostOf(c)
	if err != nil {
		return err
	}
	if _, err := h.Jobs.RunOnHost(c.Request().Context(), host.ID, models.KindInit, who(c).Actor()); err != nil {
		return err
	}
	return acted(c, "/hosts/"+host.ID.String())
}
