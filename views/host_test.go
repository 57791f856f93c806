package views

import (
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"resticfleet/models"
)

// Each kind of place has its fields, in words, and every variable that it may
// have is among them or can be added.
func TestEveryKindOfPlaceHasItsFields(t *testing.T) {
	t.Parallel()
	css, err := os.ReadFile("../static/src/app.css")
	if err != nil {
		t.Fatal(err)
	}
	var schemes []string
	for _, b := range backends {
		schemes = append(schemes, b.scheme)
		if b.scheme != "local" && models.RepositoryScheme(b.placeholder) != b.scheme || b.hint == "" || b.name == "" {
			t.Errorf("%s: %+v", b.scheme, b)
		}
		if !strings.Contains(string(css), `option[value="`+b.scheme+`"]:checked) [data-scheme]:not([data-scheme="`+b.scheme+`"])`) {
			t.Errorf("the style sheet doesn't show %s alone", b.scheme)
		}
		f := RepositoryForm{HostID: "h1", HostName: "web-01", Scheme: b.scheme}
		html := render(t, RepositoryFormBody(f))
		_, own, _ := strings.Cut(html, `<fieldset data-scheme="`+b.scheme+`"`)
		own, _, _ = strings.Cut(own, "</fieldset>")
		allowed := models.RepositoryEnv(b.scheme)
		for _, name := range allowed {
			want := 2 // in both rows for further ones
			if b.usual(name) {
				want = 1
			}
			if got := strings.Count(own, `value="`+name+`"`); got != want {
				t.Errorf("%s: %s stands there %d times, want %d", b.scheme, name, got, want)
			}
		}
		for _, e := range b.env {
			if !slices.Contains(allowed, e.name) {
				t.Errorf("%s may not have %s", b.scheme, e.name)
			}
			if e.secret != (strings.Contains(own, `id="f-env-`+e.name+`" name="env_value" type="password"`)) {
				t.Errorf("%s: %s is a secret: %v, its field doesn't say so", b.scheme, e.name, e.secret)
			}
		}
		if !strings.Contains(html, `<option value="`+b.scheme+`" selected`) {
			t.Errorf("%s is not chosen", b.scheme)
		}
	}
	if want := []string{"local", "rest", "s3", "b2", "azure", "gs", "swift", "sftp"}; !slices.Equal(schemes, want) {
		t.Errorf("kinds %v, want %v", schemes, want)
	}
}

func TestSecretsAreNeverInTheForm(t *testing.T) {
	t.Parallel()
	f := RepositoryForm{HostID: "h1", HostName: "web-01", Scheme: "s3", PasswordSet: true, Env: []EnvRow{
		{Name: "AWS_ACCESS_KEY_ID", Set: true}, {Name: "AWS_SECRET_ACCESS_KEY", Set: true, Value: "canary"}, {Name: "AWS_SESSION_TOKEN", Value: "canary"},
	}}
	html := render(t, RepositoryFormBody(f))
	for _, input := range strings.Split(html, "<input")[1:] {
		input, _, _ = strings.Cut(input, ">")
		if strings.Contains(input, `type="password"`) && strings.Contains(input, "value=") && !strings.Contains(input, `value=""`) || strings.Contains(input, "canary") {
			t.Errorf("a secret field has a value: %s", input)
		}
	}
	if n := strings.Count(html, `placeholder="set; empty keeps it"`); n != 2 {
		t.Errorf("%d variables are marked as set, want two", n)
	}
	if !strings.Contains(html, "One is set") || strings.Contains(render(t, RepositoryFormBody(RepositoryForm{HostID: "h1"})), "One is set") {
		t.Error("the form doesn't tell whether a password is set")
	}
}

// Every kind that one can filter by is one that there are jobs of.
func TestNoFilterIsForWhatDoesNotExist(t *testing.T) {
	t.Parallel()
	made := []models.JobKind{"", models.KindInit, models.KindBackup, models.KindUnlock, models.KindForget, models.KindPrune, models.KindCheck}
	for _, c := range JobKindChoices {
		if !slices.Contains(made, models.JobKind(c.Value)) {
			t.Errorf("%s is offered", c.Text)
		}
	}
}

// Times on a host's page are its own, and the page says what time it is there.
func TestAHostTellsItsOwnTime(t *testing.T) {
	t.Parallel()
	const assumed = "(the agent could not tell its zone; set --timezone)"
	h := sampleHost(t)
	told := render(t, HostLive(h))
	if !strings.Contains(told, "Europe/Berlin, 14:52 there") || strings.Contains(told, assumed) {
		t.Error("the host's own time is missing, or its zone is called assumed")
	}
	h.Timezone, h.Clock.Zone, h.ZoneAssumed = "UTC", time.UTC, true
	if html := render(t, HostLive(h)); !strings.Contains(html, "UTC, 13:52 there "+assumed) {
		t.Error("nothing says that the zone is assumed")
	}
	h.Enrolled = false
	if html := render(t, HostLive(h)); strings.Contains(html, " there") {
		t.Error("a host that nobody has enrolled has a time")
	}
}

// What a role may not do isn't there; what may be done, is.
func TestAHostShowsEachRoleItsControls(t *testing.T) {
	t.Parallel()
	all := []string{
		"/source-groups/new", "/source-groups/g1/run", "/source-groups/g1\"", "/jobs/j2/cancel", "/schedules/new", "/schedules/s1\"", "/schedules/s1/enabled",
		"/hosts/h1/repository\"", "/hosts/h1/danger", "/hosts/h1/edit", "/hosts/h1/enrol\"",
	}
	const operators = 7
	for role, allowed := range map[string]int{"viewer": 0, "operator": operators, "admin": len(all)} {
		h := sampleHost(t)
		h.CanOperate, h.CanAdminister = role != "viewer", role == "admin"
		html := render(t, HostLive(h))
		for i, control := range all {
			if got := strings.Contains(html, control); got != (i < allowed) {
				t.Errorf("%s for a %s is there: %v", control, role, got)
			}
		}
		if !strings.Contains(html, `/hosts/h1/snapshots"`) {
			t.Errorf("a %s is not led to the snapshots", role)
		}
		if strings.Contains(html, "hook") {
			t.Error("there is no hook yet")
		}
	}
}
