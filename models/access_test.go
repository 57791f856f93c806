package models_test

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	"resticfleet/agent/protocol"
	"resticfleet/models"
	"resticfleet/models/modeltest"
)

func TestAnEnrolmentTokenCountsOnce(t *testing.T) {
	t.Parallel()
	b := setup(t)
	h := b.host("web-1")
	for range 5 {
		token, _, err := models.NewEnrollmentToken(b.ctx, b.db, h.ID)
		if err != nil {
			t.Fatal(err)
		}
		credentials := make([]string, 8)
		fine, errs := gather(len(credentials), func(i int) error {
			_, credential, err := models.Enroll(b.ctx, b.db, protocol.EnrollRequest{Token: token, Hostname: fmt.Sprint(i)})
			credentials[i] = credential
			return err
		})
		if fine != 1 || codes(errs, models.EUnauthorized) != len(errs)-1 {
			t.Fatalf("%d agents enrolled with one token: %v", fine, errs)
		}
		for i, err := range errs {
			if err != nil && !strings.Contains(err.Error(), "was used at") {
				t.Errorf("the refusal says %q", err)
			}
			found, lookErr := models.AgentHost(b.ctx, b.db, credentials[i])
			if err == nil && (lookErr != nil || found.ID != h.ID) {
				t.Errorf("the credential finds %v, %v", found, lookErr)
			}
		}
	}
}

func TestRefusedEnrolmentSaysWhy(t *testing.T) {
	t.Parallel()
	b := setup(t)
	h := b.host("web-1")
	refused := func(token, why string) {
		t.Helper()
		_, credential, err := models.Enroll(b.ctx, b.db, protocol.EnrollRequest{Token: token})
		if e := wantError(t, err, models.EUnauthorized); !strings.Contains(e.Message, why) || credential != "" {
			t.Errorf("says %q, gives %q", e.Message, credential)
		}
	}
	refused("", "is not known")
	refused("rfe_made-up", "is not known")
	token, _, err := models.NewEnrollmentToken(b.ctx, b.db, h.ID)
	if err != nil {
		t.Fatal(err)
	}
	b.exec("update enrollment_tokens set expires_at = now()")
	refused(token, "has expired")
	token, _, err = models.NewEnrollmentToken(b.ctx, b.db, h.ID)
	if err != nil {
		t.Fatal(err)
	}
	must[[]models.JobID](t)(models.DeleteHost(b.ctx, b.db, h.ID))
	refused(token, "is not known")
}

func TestAnAgentsCredentialDiesWithReEnrolmentAndWithItsHost(t *testing.T) {
	t.Parallel()
	b := setup(t)
	h := b.host("web-1")
	enroll := func() string {
		token, _, err := models.NewEnrollmentToken(b.ctx, b.db, h.ID)
		if err != nil {
			t.Fatal(err)
		}
		_, credential, err := models.Enroll(b.ctx, b.db, protocol.EnrollRequest{Token: token})
		if err != nil {
			t.Fatal(err)
		}
		return credential
	}
	first, second := enroll(), enroll()
	_, err := models.AgentHost(b.ctx, b.db, first)
	wantCode(t, err, models.EUnauthorized)
	old := must[*models.Host](t)(models.AgentHost(b.ctx, b.db, second))
	if old.Online(at(2, 0)) || old.LastSeenAt != nil {
		t.Error("enrolment counts as contact")
	}
	generation := must[int64](t)(models.OpenLink(b.ctx, b.db, h.ID, old.AgentTokenHash, protocol.LinkWebSocket, "session"))
	third := enroll()
	if _, err := models.Claim(b.ctx, b.db, h.ID, generation); !errors.Is(err, models.ErrSuperseded) {
		t.Errorf("the replaced agent's link still claims: %v", err)
	}
	if _, err := models.OpenLink(b.ctx, b.db, h.ID, old.AgentTokenHash, protocol.LinkWebSocket, "session"); !errors.Is(err, models.ErrSuperseded) {
		t.Errorf("the replaced agent opens a link: %v", err)
	}
	must[[]models.JobID](t)(models.DeleteHost(b.ctx, b.db, h.ID))
	_, err = models.AgentHost(b.ctx, b.db, third)
	wantCode(t, err, models.EGone)
}

func TestASetupLinkMakesOneAdministrator(t *testing.T) {
	t.Parallel()
	b := setup(t)
	// Each start of a server without users prints a link of its own.
	links := make([]string, 3)
	for i := range links {
		links[i] = must[string](t)(models.NewSetupLink(b.ctx, b.db))
	}
	_, err := models.SetUp(b.ctx, b.db, links[0], "admin", "short")
	wantCode(t, err, models.EInvalid)
	fine, errs := gather(6, func(i int) error {
		_, err := models.SetUp(b.ctx, b.db, links[i%len(links)], fmt.Sprintf("admin-%d", i), "correct horse")
		return err
	})
	if fine != 1 || codes(errs, models.EGone) != len(errs)-1 || b.count("select count(*) from users") != 1 {
		t.Errorf("%d administrators: %v", fine, errs)
	}
	for _, link := range links {
		if open := must[bool](t)(models.SetupLinkOpen(b.ctx, b.db, link)); open {
			t.Error("a link is still open")
		}
	}
	_, err = models.NewSetupLink(b.ctx, b.db)
	wantCode(t, err, models.EConflict)
}

func TestAnExpiredSetupLinkMakesNobody(t *testing.T) {
	t.Parallel()
	b := setup(t)
	link := must[string](t)(models.NewSetupLink(b.ctx, b.db))
	b.exec("update setup_links set expires_at = now()")
	for _, token := range []string{link, "", "made-up"} {
		_, err := models.SetUp(b.ctx, b.db, token, "admin", "correct horse")
		wantCode(t, err, models.EGone)
	}
	if n := b.count("select count(*) from users"); n != 0 {
		t.Errorf("%d users", n)
	}
}

func TestAWrongKeyIsAnErrorAtStart(t *testing.T) {
	t.Parallel()
	b := setup(t)
	fine, errs := gather(4, func(int) error { return models.CheckSealer(b.ctx, b.db, b.seal) })
	if fine != 4 {
		t.Fatal(errs)
	}
	if err := models.CheckSealer(b.ctx, b.db, modeltest.Sealer(t)); err == nil || !strings.Contains(err.Error(), "--secret-key-file") {
		t.Errorf("another key: %v", err)
	}
}

func TestServersThatStartAtOnceMakeOneKey(t *testing.T) {
	t.Parallel()
	b := setup(t)
	path := filepath.Join(t.TempDir(), "secret.key")
	if _, err := models.LoadSealer(path, false); err == nil {
		t.Error("a named file that is missing was made")
	}
	fine, errs := gather(8, func(int) error {
		s, err := models.LoadSealer(path, true)
		if err != nil {
			return err
		}
		return models.CheckSealer(b.ctx, b.db, s)
	})
	if fine != 8 {
		t.Error(errs)
	}
}

func TestWhatIsSealedOpensInItsOwnPlaceOnly(t *testing.T) {
	t.Parallel()
	b := setup(t)
	const password, key = "the password canary", "the key canary"
	one, two := b.host("web-1"), b.host("web-2")
	for _, h := range []*models.Host{one, two} {
		must[*models.HostRepository](t)(models.BindRepository(b.ctx, b.db, b.seal, h.ID, models.RepositoryFields{
			URL: "s3:https://s3.example.net/bucket", Password: password,
			Env: map[string]models.Secret{"AWS_ACCESS_KEY_ID": key, "AWS_SECRET_ACCESS_KEY": "another"},
		}))
	}
	const removal = "the removal canary"
	must[*models.HostRepository](t)(models.BindMaintenance(b.ctx, b.db, b.seal, one.ID, models.MaintenanceFields{
		URL: "s3:https://s3.example.net/bucket", Password: removal, Env: map[string]models.Secret{"AWS_ACCESS_KEY_ID": removal},
	}))
	if s, err := b.repository(one).MaintenanceSecrets(b.seal); err != nil || s.Password != removal || s.Env["AWS_ACCESS_KEY_ID"] != removal {
		t.Fatalf("the second in its own place: %v", err)
	}
	for _, moved := range []string{
		"update host_repositories set maintenance_password_sealed = password_sealed where host_id = ?0",
		"update host_repositories set maintenance_env_sealed = env_sealed where host_id = ?0",
	} {
		err := models.Tx(b.ctx, b.db, func(tx models.IDB) error {
			if _, err := tx.ExecContext(b.ctx, moved, one.ID); err != nil {
				t.Fatal(err)
			}
			if _, err := must[*models.HostRepository](t)(models.FindRepository(b.ctx, tx, one.ID)).MaintenanceSecrets(b.seal); err == nil || strings.Contains(err.Error(), "canary") {
				t.Errorf("%s: %v", moved, err)
			}
			return context.Canceled // roll back
		})
		if !errors.Is(err, context.Canceled) {
			t.Fatal(err)
		}
	}
	secrets := func(h *models.Host) (protocol.Secrets, error) {
		return must[*models.HostRepository](t)(models.FindRepository(b.ctx, b.db, h.ID)).Secrets(b.seal)
	}
	if s, err := secrets(one); err != nil || s.Password != password || s.Env["AWS_ACCESS_KEY_ID"] != key {
		t.Fatalf("in its own place: %v", err)
	}
	for _, moved := range []string{
		// To another host, to another name, to another field.
		"update host_repositories set password_sealed = (select password_sealed from host_repositories where host_id = ?1) where host_id = ?0",
		"update host_repositories set env_sealed = (select env_sealed from host_repositories where host_id = ?1) where host_id = ?0",
		"update host_repositories set env_sealed = jsonb_build_object('AWS_SECRET_ACCESS_KEY', env_sealed->'AWS_ACCESS_KEY_ID') where host_id = ?0",
		"update host_repositories set password_sealed = decode(env_sealed->>'AWS_ACCESS_KEY_ID', 'base64') where host_id = ?0",
		"update host_repositories set password_sealed = maintenance_password_sealed where host_id = ?0 and ?1::uuid is not null",
		"update host_repositories set env_sealed = maintenance_env_sealed where host_id = ?0 and ?1::uuid is not null",
	} {
		err := models.Tx(b.ctx, b.db, func(tx models.IDB) error {
			if _, err := tx.ExecContext(b.ctx, moved, one.ID, two.ID); err != nil {
				t.Fatal(err)
			}
			r, err := models.FindRepository(b.ctx, tx, one.ID)
			if err != nil {
				return err
			}
			if _, err := r.Secrets(b.seal); err == nil || strings.Contains(err.Error(), "canary") {
				t.Errorf("%s: %v", moved, err)
			}
			return context.Canceled // roll back
		})
		if !errors.Is(err, context.Canceled) {
			t.Fatal(err)
		}
	}
	if n := b.count("select count(*) from host_repositories where host_repositories::text like '%canary%'"); n != 0 {
		t.Error("a secret stands in the database in clear")
	}
}

func TestServersThatStartAtOnceMigrateOnce(t *testing.T) {
	t.Parallel()
	url := modeltest.Empty(t)
	fine, errs := gather(4, func(int) error { return models.Migrate(t.Context(), modeltest.Pool(t, url)) })
	if fine != 4 {
		t.Fatal(errs)
	}
	db := modeltest.Pool(t, url)
	if _, err := models.AddHost(t.Context(), db, models.HostFields{Name: "web-1"}); err != nil {
		t.Error(err)
	}
	if err := models.Migrate(t.Context(), db); err != nil {
		t.Errorf("once more: %v", err)
	}
}

func TestANewerSchemaIsRefused(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.exec("insert into bun_migrations (name, group_id, migrated_at) values ('29990101000000', 99, now())")
	err := models.Migrate(b.ctx, b.db)
	if err == nil || !strings.Contains(err.Error(), "newer Resticfleet (29990101000000)") {
		t.Errorf("says %v", err)
	}
}
