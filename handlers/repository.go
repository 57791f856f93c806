package handlers

import (
	"errors"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/labstack/echo/v4"

	"resticfleet/models"
	"resticfleet/views"
)

func (h *Handlers) editRepository(c echo.Context) error {
	form, err := h.repositoryForm(c)
	if err != nil {
		return err
	}
	return h.showRepository(c, http.StatusOK, form)
}

// repositoryForm holds what is stored, but for the secrets.
func (h *Handlers) repositoryForm(c echo.Context) (views.RepositoryForm, error) {
	host, err := h.hostOf(c)
	if err != nil {
		return views.RepositoryForm{}, err
	}
	form := views.RepositoryForm{HostID: host.ID.String(), HostName: host.Name}
	repo, err := models.FindRepository(c.Request().Context(), h.DB, host.ID)
	if models.CodeOf(err) == models.ENotFound {
		return form, nil
	}
	if err != nil {
		return form, err
	}
	form.URL, form.PasswordSet = repo.URL, true
	for _, name := range repo.EnvNames() {
		form.Env = append(form.Env, views.EnvRow{Name: name, Set: true})
	}
	return form, nil
}

func (h *Handlers) showRepository(c echo.Context, status int, form views.RepositoryForm) error {
	if partial(c) {
		return render(c, status, views.RepositoryFormBody(form))
	}
	if form.Setup {
		return h.setupAgain(c, status, func(v *views.Enrolment) { v.RepositoryForm = &form })
	}
	return render(c, status, views.RepositoryFormPage(h.page(c, "Repository of "+form.HostName, views.NavFleet), form))
}

// saveRepository keeps the secrets whose fields were left empty: nobody can
// read them again to type them in.
func (h *Handlers) saveRepository(c echo.Context) error {
	form, err := h.repositoryForm(c)
	if err != nil {
		return err
	}
	params, err := formParams(c)
	if err != nil {
		return err
	}
	form.Setup = inSetup(c)
	host, err := models.ParseID[models.HostID](form.HostID)
	if err != nil {
		return err
	}
	fields, errs := readRepositoryForm(params, &form)
	if len(errs) == 0 {
		_, err = h.Jobs.BindRepository(c.Request().Context(), host, fields)
		errs, _ = fieldErrors(err)
	}
	if len(errs) > 0 {
		form.Errors = errs
		form.SetEnvErrors(envErrors(err))
		form.SecretsGone = !partial(c) && typedSecrets(fields)
		return h.showRepository(c, http.StatusUnprocessableEntity, form)
	}
	if err != nil {
		return err
	}
	return done(c, hostAgain(c, host))
}

// readRepositoryForm puts what was typed into the form, and returns what is to
// be stored. What was typed for another kind of place is dropped: its fields
// were out of sight.
func readRepositoryForm(params url.Values, form *views.RepositoryForm) (models.RepositoryFields, views.Errors) {
	form.Scheme = params.Get("scheme")
	form.URL = repositoryURL(form.Scheme, params.Get("url"))
	own, errs := models.RepositoryScheme(form.URL), views.Errors{}
	switch {
	case form.Scheme == "":
		form.Scheme = own
	case form.URL != "" && own != form.Scheme && own != "rclone":
		errs["url"] = "This is not the kind of place that is chosen above: choose another, or give an address of that kind."
	}
	fields := models.RepositoryFields{URL: form.URL, Password: models.Secret(params.Get("password")), Env: map[string]models.Secret{}, Keep: true}
	stored := form.Env
	form.Env = nil
	for i, name := range params["env_name"] {
		if name = strings.TrimSpace(name); name == "" || i >= len(params["env_value"]) || views.EnvOfOther(form.Scheme, name) {
			continue
		}
		row, value := views.EnvRow{Name: name, Remove: slices.Contains(params["env_remove"], name), Set: hasEnv(stored, name)}, params["env_value"][i]
		if !views.EnvSecret(name) {
			row.Value = value
		}
		if value != "" || row.Set && !row.Remove {
			fields.Env[name] = models.Secret(value)
		}
		if value != "" || row.Set {
			form.Env = append(form.Env, row)
		}
	}
	for _, row := range stored {
		if !hasEnv(form.Env, row.Name) {
			form.Env = append(form.Env, row) // shown again where its kind is chosen again
		}
	}
	return fields, errs
}

func hasEnv(rows []views.EnvRow, name string) bool {
	return slices.ContainsFunc(rows, func(r views.EnvRow) bool { return r.Name == name })
}

// envErrors are the messages about the environment by the variable that each
// begins with.
func envErrors(err error) map[string]string {
	out := map[string]string{}
	var e *models.Error
	if !errors.As(err, &e) {
		return out
	}
	for _, f := range e.Fields {
		if name, _, _ := strings.Cut(f.Message, " "); f.Field == "env" {
			out[name] = sentence(f.Message)
		}
	}
	return out
}

// repositoryURL is the address with the scheme that was chosen for it, unless it
// has one of its own or is a path.
func repositoryURL(chosen, raw string) string {
	raw = strings.TrimSpace(raw)
	if raw == "" || chosen == "" || chosen == "local" || strings.HasPrefix(raw, "/") || strings.HasPrefix(raw, "local:") || models.RepositoryScheme(raw) != "local" {
		return raw
	}
	return chosen + ":" + raw
}

func typedSecrets(f models.RepositoryFields) bool {
	if f.Password != "" {
		return true
	}
	for name, value := range f.Env {
		if value != "" && views.EnvSecret(name) {
			return true
		}
	}
	return false
}
