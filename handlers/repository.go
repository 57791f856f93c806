package handlers

import (
	"cmp"
	"context"
	"errors"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/labstack/echo/v4"

	"resticfleet/models"
	"resticfleet/views"
)

// credentialOf tells which of a repository's two credentials a form is for.
type credentialOf bool

const (
	everyday credentialOf = false
	second   credentialOf = true // for forget and prune alone
)

func (h *Handlers) editRepository(of credentialOf) echo.HandlerFunc {
	return func(c echo.Context) error {
		form, err := h.repositoryForm(c, of)
		if err != nil {
			return err
		}
		return h.showRepository(c, http.StatusOK, form)
	}
}

// repositoryForm holds what is stored, but for the secrets.
func (h *Handlers) repositoryForm(c echo.Context, of credentialOf) (views.RepositoryForm, error) {
	host, repo, err := h.hostAndRepository(c)
	if err != nil {
		return views.RepositoryForm{}, err
	}
	form := views.RepositoryForm{HostID: host.ID.String(), HostName: host.Name, Second: bool(of)}
	switch {
	case repo == nil && of == second:
		return form, models.Conflict("This host has no repository yet. Set one up first, then its credentials for forget and prune.")
	case repo == nil:
		return form, nil
	}
	form.SecondURL, form.SecondEnv = repo.MaintenanceURL, repo.MaintenanceEnvNames()
	names := repo.EnvNames()
	form.URL, form.PasswordSet = repo.URL, true
	if of == second {
		// Often it is the same place with another user.
		form.URL, form.PasswordSet, names = cmp.Or(repo.MaintenanceURL, repo.URL), repo.HasMaintenance(), repo.MaintenanceEnvNames()
	}
	for _, name := range names {
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
	return render(c, status, views.RepositoryFormPage(h.page(c, form.Title(), views.NavFleet), form))
}

// saveRepository keeps the secrets whose fields were left empty: nobody can
// read them again to type them in.
func (h *Handlers) saveRepository(of credentialOf) echo.HandlerFunc {
	return func(c echo.Context) error {
		form, err := h.repositoryForm(c, of)
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
			err = h.bindCredential(c.Request().Context(), host, of, fields)
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
		if of == second {
			return done(c, "/hosts/"+form.HostID+"/repository")
		}
		return done(c, hostAgain(c, host))
	}
}

func (h *Handlers) bindCredential(ctx context.Context, host models.HostID, of credentialOf, f models.RepositoryFields) error {
	if of == everyday {
		_, err := h.Jobs.BindRepository(ctx, host, f)
		return err
	}
	_, err := models.BindMaintenance(ctx, h.DB, h.Jobs.Sealer, host, f)
	if err == nil {
		h.Jobs.HostChanged(host)
	}
	return err
}

// removeSecondQuestion asks on the repository's page.
func removeSecondQuestion(host *models.Host, repo *models.HostRepository) views.Confirm {
	q := danger(host, "/repository/maintenance/forget", "remove the credentials for forget and prune", views.Confirm{
		Heading: "Remove the credentials for forget and prune?",
		Lost:    "The password and the credentials stored for " + repo.MaintenanceURL + " are erased. Forget and prune use those for every day again: where those may only add, nothing is removed any more.",
		Stays:   "The repository, every snapshot in it and the credentials for every day stay.",
		Act:     "Remove credentials", Keep: "Keep them",
	})
	q.KeepURL = "/hosts/" + host.ID.String() + "/repository"
	return q
}

func (h *Handlers) removeSecond(c echo.Context) error {
	host, err := h.hostOf(c)
	if err != nil {
		return err
	}
	if err := models.UnbindMaintenance(c.Request().Context(), h.DB, host.ID); err != nil && models.CodeOf(err) != models.ENotFound {
		return err
	}
	h.Jobs.HostChanged(host.ID)
	return done(c, "/hosts/"+host.ID.String()+"/repository")
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
	fields := models.RepositoryFields{URL: form.URL, Password: models.Secret(params.Get("password")), Env: map[string]models.Secret{}, Keep: true, DropMaintenance: params.Get("drop_maintenance") != ""}
	form.DropSecond = fields.DropMaintenance
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
	form.Further = readFurther(params, form.Scheme, fields.Env)
	if slices.ContainsFunc(form.Further, func(r views.EnvRow) bool { return r.Error != "" }) {
		errs["further"] = "beside its field"
	}
	for _, row := range stored {
		if !hasEnv(form.Env, row.Name) {
			form.Env = append(form.Env, row) // shown again where its kind is chosen again
		}
	}
	return fields, errs
}

// readFurther adds the variables that have no field of their own to env, and
// returns them in their places with what is wrong with them.
func readFurther(params url.Values, scheme string, env map[string]models.Secret) []views.EnvRow {
	var rows []views.EnvRow
	values := params[views.FurtherValue(scheme)]
	for i, name := range params[views.FurtherName(scheme)] {
		row := views.EnvRow{Name: name}
		value := ""
		if i < len(values) {
			value = values[i]
		}
		_, twice := env[name]
		switch {
		case name == "" && value != "":
			row.Error = "This has no name. Choose the variable that it is the value of."
		case name == "":
		case value == "":
			row.Error = "This has no value. Give it one, or choose None."
		case twice:
			row.Error = name + " is given twice. Choose it once."
		default:
			env[name] = models.Secret(value)
		}
		rows = append(rows, row)
	}
	return rows
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
