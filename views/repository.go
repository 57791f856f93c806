package views

import (
	"slices"

	"github.com/a-h/templ"

	"resticfleet/models"
	"resticfleet/views/ui"
)

// RepositoryForm sets a host's repository: POST /hosts/{id}/repository with
// scheme, url, password, any number of env_name, env_value pairs in order,
// further_SCHEME, further_value_SCHEME pairs likewise for variables that have no
// field yet, and env_remove for each stored name to forget. A pair without a value
// keeps what is stored under its name. The scheme chooses which fields are shown;
// a url that says its own is right.
type RepositoryForm struct {
	HostID, HostName string
	Scheme, URL      string
	// PasswordSet means that one is stored: an empty field keeps it.
	PasswordSet bool
	Env         []EnvRow
	// Further are the chosen place's further variables, in the places in which
	// they were chosen.
	Further []EnvRow
	// DropSecond is the tick that lets the second credentials go.
	DropSecond bool
	// SecretsGone means that secrets were typed and this page doesn't have them:
	// it is a whole page that came back with mistakes, and no page holds a secret.
	SecretsGone bool
	Errors      Errors
	// Setup is as in GroupForm.
	Setup bool

	// Second makes it the form of the credentials for forget and prune, at
	// …/repository/maintenance.
	Second bool
	// SecondURL and SecondEnv are what is stored of those, "" and none for nothing.
	SecondURL string
	SecondEnv []string
}

// Title heads the form's page.
func (f RepositoryForm) Title() string {
	if f.Second {
		return "Credentials for forget and prune of " + f.HostName
	}
	return "Repository of " + f.HostName
}

func (f RepositoryForm) url() string {
	if f.Second {
		return "/hosts/" + f.HostID + "/repository/maintenance"
	}
	return "/hosts/" + f.HostID + "/repository"
}

// crumbs lead from the fleet to the form.
func (f RepositoryForm) crumbs() []ui.Crumb {
	if f.Second {
		return HostCrumbs(f.HostID, f.HostName, ui.Crumb{Text: "repository", URL: "/hosts/" + f.HostID + "/repository"}, ui.Crumb{Text: "forget and prune"})
	}
	return hostCrumbs(f.HostID, f.HostName, "repository")
}

// EnvRow is a variable of the backend's environment that is stored or was
// typed. Set means that a value is stored; it is never shown, and an empty
// field keeps it.
type EnvRow struct {
	Name string
	Set  bool
	// Value is what was typed just now into a field that is no secret.
	Value string
	// Remove is the tick that forgets it.
	Remove bool
	Error  string
}

// backend is a kind of place for a repository, and what one has to say of it.
type backend struct {
	scheme, name      string
	placeholder, hint string
	env               []envField
	// envHint stands above the fields.
	envHint string
}

// envField is a variable of the environment in a person's words.
type envField struct {
	name, label, hint string
	secret            bool
}

// backends are the kinds in the order of the choice.
var backends = []backend{
	{scheme: "local", name: "A folder on the host", placeholder: "/srv/backup", hint: "A whole path on the host itself, better on another disk than what it backs up. It needs no credentials."},
	{
		scheme: "rest", name: "rest-server", placeholder: "rest:https://backup.example.net:8000/web-01/",
		hint:    "The address as restic writes it. User name and password don’t belong into it: they go below.",
		envHint: "Only where the server asks for them.",
		env: []envField{
			{name: "RESTIC_REST_USERNAME", label: "Server user name"},
			{name: "RESTIC_REST_PASSWORD", label: "Server password", secret: true},
		},
	},
	{
		scheme: "s3", name: "S3, Amazon’s or compatible", placeholder: "s3:https://s3.eu-central-1.amazonaws.com/bucket/web-01",
		hint: "Endpoint, bucket and, if you like, a folder in it. Keys go below.",
		env: []envField{
			{name: "AWS_ACCESS_KEY_ID", label: "Access key ID"},
			{name: "AWS_SECRET_ACCESS_KEY", label: "Secret access key", secret: true},
			{name: "AWS_DEFAULT_REGION", label: "Region", hint: "Only where the endpoint doesn’t tell it, like eu-central-1."},
		},
	},
	{
		scheme: "b2", name: "Backblaze B2", placeholder: "b2:bucket:web-01", hint: "Bucket and, if you like, a folder in it. Keys go below.",
		env: []envField{
			{name: "B2_ACCOUNT_ID", label: "Key ID", hint: "keyID of an application key that may read, write and list the bucket."},
			{name: "B2_ACCOUNT_KEY", label: "Application key", secret: true},
		},
	},
	{
		scheme: "azure", name: "Azure Blob Storage", placeholder: "azure:container:/web-01", hint: "Container and a folder in it. Keys go below.",
		env: []envField{
			{name: "AZURE_ACCOUNT_NAME", label: "Storage account"},
			{name: "AZURE_ACCOUNT_KEY", label: "Account key", hint: "Or a SAS token in its place.", secret: true},
			{name: "AZURE_ACCOUNT_SAS", label: "SAS token", secret: true},
		},
	},
	{
		scheme: "gs", name: "Google Cloud Storage", placeholder: "gs:bucket:/web-01", hint: "Bucket and a folder in it. Keys go below.",
		env: []envField{
			{name: "GOOGLE_PROJECT_ID", label: "Project ID", hint: "Needed where the bucket is to be made."},
			{name: "GOOGLE_APPLICATION_CREDENTIALS", label: "Key file", hint: "Path on the host of the service account’s JSON key, which the agent must be able to read."},
			{name: "GOOGLE_ACCESS_TOKEN", label: "Access token", hint: "In place of a key file.", secret: true},
		},
	},
	{
		scheme: "swift", name: "OpenStack Swift", placeholder: "swift:container:/web-01", hint: "Container and a folder in it. Credentials go below.",
		envHint: "For Keystone v3. Other ways to sign in are among the further variables.",
		env: []envField{
			{name: "OS_AUTH_URL", label: "Auth URL"},
			{name: "OS_REGION_NAME", label: "Region"},
			{name: "OS_USERNAME", label: "User name"},
			{name: "OS_USER_DOMAIN_NAME", label: "Domain of the user"},
			{name: "OS_PASSWORD", label: "Swift password", secret: true},
			{name: "OS_PROJECT_NAME", label: "Project"},
			{name: "OS_PROJECT_DOMAIN_NAME", label: "Domain of the project"},
		},
	},
	{
		scheme: "sftp", name: "SFTP, over ssh", placeholder: "sftp:backup@nas.example.net:/srv/restic/web-01",
		hint: "User, machine and path. The agent’s user on the host signs in with an ssh key of its own that has no passphrase, and must have met the machine’s host key once. A password can’t be given.",
	},
}

// EnvSecret tells whether a variable's value must not come back to a page even
// in the form that has just sent it. Any that the forms don't know is one.
func EnvSecret(name string) bool {
	for _, b := range backends {
		for _, e := range b.env {
			if e.name == name {
				return e.secret
			}
		}
	}
	return true
}

// EnvOfOther tells whether a variable is none of this kind of place, but of
// another.
func EnvOfOther(scheme, name string) bool {
	allows := func(b backend) bool { return slices.Contains(models.RepositoryEnv(b.scheme), name) }
	return !allows(backend{scheme: scheme}) && slices.ContainsFunc(backends, allows)
}

// SetEnvErrors puts what was wrong with variables beside those of the chosen
// place; what has no field there is the form's.
func (f *RepositoryForm) SetEnvErrors(byName map[string]string) {
	delete(f.Errors, "env")
	allowed := models.RepositoryEnv(f.scheme())
	for name, message := range byName {
		if i := slices.IndexFunc(f.Further, func(r EnvRow) bool { return r.Name == name }); i >= 0 {
			f.Further[i].Error = message
			continue
		}
		i := slices.IndexFunc(f.Env, func(r EnvRow) bool { return r.Name == name })
		if i >= 0 && slices.Contains(allowed, name) {
			f.Env[i].Error = message
		} else {
			f.Errors["env"] = message
		}
	}
}

// envControl is an envField as it stands in a form.
type envControl struct {
	envField
	EnvRow
}

// controls are a backend's usual variables, and the further ones of it that
// are stored or were typed.
func (f RepositoryForm) controls(b backend) []envControl {
	var out []envControl
	for _, e := range b.env {
		c := envControl{e, EnvRow{Name: e.name}}
		for _, row := range f.Env {
			if row.Name == e.name {
				c.EnvRow = row
			}
		}
		out = append(out, c)
	}
	allowed := models.RepositoryEnv(b.scheme)
	for _, row := range f.Env {
		if slices.Contains(allowed, row.Name) && !b.usual(row.Name) {
			out = append(out, envControl{envField{name: row.Name, label: row.Name, secret: true}, row})
		}
	}
	return out
}

// further are the variables of a backend that have no control yet.
func (f RepositoryForm) further(b backend) []string {
	shown := f.controls(b)
	return slices.DeleteFunc(models.RepositoryEnv(b.scheme), func(name string) bool {
		return slices.ContainsFunc(shown, func(c envControl) bool { return c.Name == name })
	})
}

// furtherRows is how many further variables a form has room for at once.
const furtherRows = 2

// furtherRow is what was chosen in one of the places for further variables.
func (f RepositoryForm) furtherRow(b backend, i int) EnvRow {
	if b.scheme != f.scheme() || i >= len(f.Further) {
		return EnvRow{}
	}
	return f.Further[i]
}

// FurtherName is the name of the fields that choose a kind of place's further
// variables.
func FurtherName(scheme string) string { return "further_" + scheme }

// FurtherValue is the name of the fields for their values.
func FurtherValue(scheme string) string { return "further_value_" + scheme }

func (b backend) usual(name string) bool {
	return slices.ContainsFunc(b.env, func(e envField) bool { return e.name == name })
}

// scheme is the kind that is chosen: of the stored place, or a folder.
func (f RepositoryForm) scheme() string {
	if f.Scheme == "" {
		return models.RepositoryScheme(f.URL)
	}
	return f.Scheme
}

func (f RepositoryForm) urlField() ui.Field {
	field := ui.Field{
		Name: "url", Label: "Place", Value: f.URL, Error: f.Errors["url"], Required: true, Autofocus: f.URL == "" && !f.Setup, Mono: true,
		Hint: "As restic writes it.",
	}
	for _, b := range backends {
		if b.scheme == f.scheme() {
			field.Placeholder = b.placeholder
		}
	}
	if f.Second {
		field.Hint += " It must lead to the same repository as for every day; often the place is the same and only the user another."
	} else if f.PasswordSet {
		field.Hint += " In another place a repository of its own begins; what is in the old one stays there."
	}
	return field
}

func (f RepositoryForm) passwordField() ui.Field {
	field := ui.Field{Name: "password", Label: "Password", Type: "password", Error: f.Errors["password"], Required: !f.PasswordSet, Autocomplete: "new-password"}
	if f.PasswordSet {
		field.Hint = "restic’s own, for this repository. One is set: leave this empty to keep it."
	} else {
		field.Hint = "restic’s own, for this repository. Keep a copy elsewhere: without it nobody can read the snapshots."
	}
	return field
}

func (c envControl) id() string { return "f-env-" + c.Name }

func (c envControl) inputType() string {
	if c.secret {
		return "password"
	}
	return "text"
}

func (c envControl) placeholder() string {
	if c.Set {
		return "set; empty keeps it"
	}
	return ""
}

func (c envControl) attributes() templ.Attributes {
	by := c.id() + "-hint"
	if c.Error == "" {
		return templ.Attributes{"aria-describedby": by}
	}
	return templ.Attributes{"aria-invalid": "true", "aria-describedby": c.id() + "-error " + by}
}
