package models_test

import (
	"slices"
	"strings"
	"testing"

	"resticfleet/models"
)

const maintenancePassword = "battery staple"

func (b *bundle) bindMaintenance(h *models.Host, url string) *models.HostRepository {
	b.t.Helper()
	return must[*models.HostRepository](b.t)(models.BindMaintenance(b.ctx, b.db, b.seal, h.ID, models.MaintenanceFields{URL: url, Password: maintenancePassword}))
}

func TestOnlyWhatRemovesGetsTheSecondCredentials(t *testing.T) {
	t.Parallel()
	b := setup(t)
	h := b.host("web-1")
	everyday := b.bind(h, "rest:http://append-only/repo")
	opened := func(kind models.JobKind) (url, password string, second bool) {
		t.Helper()
		url, second, secrets, err := b.repository(h).SecretsFor(kind, b.seal)
		if err != nil {
			t.Fatal(err)
		}
		return url, secrets.Password, second
	}
	for _, kind := range []models.JobKind{models.KindForget, models.KindPrune} {
		if url, password, second := opened(kind); url != everyday.URL || password != "correct horse" || second {
			t.Errorf("%s without any: %s", kind, url)
		}
	}
	b.bindMaintenance(h, "rest:http://full/repo")
	for kind, removes := range map[models.JobKind]bool{
		models.KindForget: true, models.KindPrune: true, models.KindInit: false, models.KindBackup: false, models.KindCheck: false,
		models.KindUnlock: false, models.KindSnapshots: false, models.KindDiff: false, "restore": false, "drill": false, "ls": false, "find": false,
	} {
		url, password, second := opened(kind)
		if second != removes || (url == "rest:http://full/repo") != removes || (password == maintenancePassword) != removes {
			t.Errorf("%s opens %s", kind, url)
		}
	}
	if err := models.UnbindMaintenance(b.ctx, b.db, h.ID); err != nil {
		t.Fatal(err)
	}
	wantCode(t, models.UnbindMaintenance(b.ctx, b.db, h.ID), models.ENotFound)
	if url, password, second := opened(models.KindForget); url != everyday.URL || password != "correct horse" || second {
		t.Errorf("after their removal forget opens %s", url)
	}
}

func TestSecondCredentialsAreValidatedAsTheFirstAndComeAfterThem(t *testing.T) {
	t.Parallel()
	b := setup(t)
	h := b.host("web-1")
	bind := func(f models.MaintenanceFields) error {
		_, err := models.BindMaintenance(b.ctx, b.db, b.seal, h.ID, f)
		return err
	}
	good := models.MaintenanceFields{URL: "rest:http://full/repo", Password: "x"}
	err := bind(good)
	wantCode(t, err, models.EConflict)
	if !strings.Contains(err.Error(), "Set one up first") {
		t.Errorf("says %v", err)
	}
	b.bind(h, "rest:http://append-only/repo")
	for field, f := range map[string]models.MaintenanceFields{
		"url":      {URL: "rest:http://ops:secret@full/repo", Password: "x"},
		"password": {URL: good.URL, Password: "two\nlines"},
		"env":      {URL: good.URL, Password: "x", Env: map[string]models.Secret{"LD_PRELOAD": "x"}},
	} {
		err := bind(f)
		wantCode(t, err, models.EInvalid)
		if e := err.(*models.Error); e.Field(field) == "" || strings.Contains(err.Error(), "secret") { //nolint:errorlint // it is one
			t.Errorf("%s: %v", field, err)
		}
	}
	if b.repository(h).HasMaintenance() {
		t.Error("a refused one is stored")
	}
	_, err = models.FindMaintenanceCredentials(b.ctx, b.db, h.ID)
	wantCode(t, err, models.ENotFound)
	// An empty field of a form keeps what is stored of the second, not of the first.
	err = bind(models.MaintenanceFields{URL: good.URL, Keep: true})
	wantCode(t, err, models.EInvalid)
	good.Env = map[string]models.Secret{"RESTIC_REST_USERNAME": "ops", "RESTIC_REST_PASSWORD": "s3"}
	if err := bind(good); err != nil {
		t.Fatal(err)
	}
	if err := bind(models.MaintenanceFields{URL: good.URL, Keep: true, Env: map[string]models.Secret{"RESTIC_REST_PASSWORD": ""}}); err != nil {
		t.Fatal(err)
	}
	r := must[*models.HostRepository](t)(models.FindMaintenanceCredentials(b.ctx, b.db, h.ID))
	s, err := r.MaintenanceSecrets(b.seal)
	if err != nil || s.Password != "x" || s.Env["RESTIC_REST_PASSWORD"] != "s3" || !slices.Equal(r.MaintenanceEnvNames(), []string{"RESTIC_REST_PASSWORD"}) {
		t.Errorf("kept %v: %v", r.MaintenanceEnvNames(), err)
	}
}

// They open the repository that they were given for, and no other. The same one
// at another address keeps them.
func TestSecondCredentialsGoWithTheirRepository(t *testing.T) {
	t.Parallel()
	b := setup(t)
	h, g, generation := b.backup("web-1", "rest:http://a/repo")
	b.run(g)
	b.learns(b.claim(h, generation), snapshot("9"))
	other, g2, link2 := b.backup("web-2", "rest:http://b/repo")
	b.run(g2)
	b.learns(b.claim(other, link2), snapshot("9")) // now known as the same
	b.bindMaintenance(h, "rest:http://full/repo")
	for _, same := range []string{"rest:http://a/repo", "rest:http://a/repo/", "rest:http://b/repo"} {
		if b.bind(h, same); !b.repository(h).HasMaintenance() {
			t.Fatalf("gone at %s", same)
		}
	}
	form := models.RepositoryFields{URL: "rest:http://c/repo", Keep: true}
	_, err := models.BindRepository(b.ctx, b.db, b.seal, h.ID, form)
	wantCode(t, err, models.EInvalid)
	if r := b.repository(h); !strings.Contains(err.Error(), "drop_maintenance: ") || !strings.Contains(err.Error(), "rest:http://full/repo") || !r.HasMaintenance() || r.URL != "rest:http://b/repo" {
		t.Errorf("asks %v, has %s", err, r.URL)
	}
	form.DropMaintenance = true
	if r := must[*models.HostRepository](t)(models.BindRepository(b.ctx, b.db, b.seal, h.ID, form)); r.HasMaintenance() || r.URL != form.URL {
		t.Errorf("after saying so: %s, second %s", r.URL, r.MaintenanceURL)
	}
	// A program says so by setting another repository.
	b.bindMaintenance(h, "rest:http://full/repo")
	if r := b.bind(h, "rest:http://d/repo"); r.HasMaintenance() {
		t.Error("they stay with another repository")
	}
	b.bindMaintenance(h, "rest:http://full/repo")
	if err := models.UnbindRepository(b.ctx, b.db, h.ID); err != nil {
		t.Fatal(err)
	}
	if r := b.bind(h, "rest:http://d/repo"); r.HasMaintenance() {
		t.Error("they outlive the repository")
	}
}

// A wrong second URL must not give the everyday one another repository's id.
func TestWhatRemovesTellsNothingOfTheEverydayURL(t *testing.T) {
	t.Parallel()
	b := setup(t)
	h, g, generation := b.backup("web-1", "rest:http://a/repo")
	b.run(g)
	b.learns(b.claim(h, generation), snapshot("9"))
	b.bindMaintenance(h, "rest:http://wrong/repo")
	for _, kind := range []models.JobKind{models.KindForget, models.KindPrune} {
		must[*models.Job](t)(models.RunOnHost(b.ctx, b.db, h.ID, kind, models.System))
		b.learns(b.claim(h, generation), snapshot("8"))
	}
	if r := b.repository(h); r.ResticID != snapshot("9") {
		t.Errorf("known as %s", r.ResticID)
	}
}
