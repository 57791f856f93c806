package models_test

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"resticfleet/models"
)

// keyFile is a server's key file, with a database that is sealed by it.
func (b *bundle) keyFile() string {
	b.t.Helper()
	path := filepath.Join(b.t.TempDir(), "secret.key")
	b.seal = must[*models.Sealer](b.t)(models.LoadSealer(path, true))
	if err := models.CheckSealer(b.ctx, b.db, b.seal); err != nil {
		b.t.Fatal(err)
	}
	return path
}

func read(t testing.TB, path string) string {
	t.Helper()
	return string(must[[]byte](t)(os.ReadFile(path)))
}

// opens counts the hosts whose secrets open with the keys in text alone.
func (b *bundle) opens(text string, hosts []*models.Host) (n int) {
	b.t.Helper()
	seal := must[*models.Sealer](b.t)(models.NewSealer(text))
	for _, h := range hosts {
		r := b.repository(h)
		_, err := r.Secrets(seal)
		if err == nil && r.HasMaintenance() {
			_, err = r.MaintenanceSecrets(seal)
		}
		if err == nil {
			n++
		}
	}
	return n
}

// keysInUse is how many keys anything in the database is sealed by.
func (b *bundle) keysInUse() int {
	b.t.Helper()
	return b.count(`select count(distinct substring(sealed for 5)) from (
		select sealed from sealing_check union all select password_sealed from host_repositories
		union all select decode(value, 'base64') from host_repositories, jsonb_each_text(env_sealed)
		union all select maintenance_password_sealed from host_repositories where maintenance_url is not null
		union all select decode(value, 'base64') from host_repositories, jsonb_each_text(maintenance_env_sealed)) s`)
}

// Two servers store and read secrets all the while the key is rotated, twice.
// Nobody notices; afterwards everything opens with the newest key alone, and
// nothing with those before.
func TestAKeyIsRotatedUnderLoad(t *testing.T) {
	t.Parallel()
	b := setup(t)
	path := b.keyFile()
	servers := []*models.Sealer{b.seal, must[*models.Sealer](t)(models.LoadSealer(path, false))}
	var hosts []*models.Host
	bind := func(seal *models.Sealer, h *models.Host, generation int) error {
		password := fmt.Sprintf("password %d", generation)
		r, err := models.BindRepository(b.ctx, b.db, seal, h.ID, models.RepositoryFields{
			URL: "s3:https://s3.example.net/" + h.Name, Password: models.Secret(password),
			Env: map[string]models.Secret{"AWS_ACCESS_KEY_ID": models.Secret(password), "AWS_SECRET_ACCESS_KEY": "x"},
		})
		if err != nil {
			return err
		}
		if _, err = r.Secrets(seal); err != nil {
			return err
		}
		if r, err = models.BindMaintenance(b.ctx, b.db, seal, h.ID, models.MaintenanceFields{
			URL: r.URL, Password: models.Secret(password), Env: map[string]models.Secret{"AWS_ACCESS_KEY_ID": models.Secret(password)},
		}); err != nil {
			return err
		}
		_, err = r.MaintenanceSecrets(seal)
		return err
	}
	for i := range 8 {
		hosts = append(hosts, b.host(fmt.Sprintf("web-%d", i)))
		if err := bind(servers[0], hosts[i], 0); err != nil {
			t.Fatal(err)
		}
	}
	var wg sync.WaitGroup
	stop := make(chan struct{})
	broken, breaks := context.WithCancel(b.ctx)
	defer breaks()
	work := func(f func(n int) error) (beat chan struct{}) {
		beat = make(chan struct{})
		wg.Go(func() {
			for n := 1; ; n++ {
				if err := f(n); err != nil {
					t.Error(err)
					breaks()
					return
				}
				select {
				case <-stop:
					return
				case beat <- struct{}{}:
				default:
				}
			}
		})
		return beat
	}
	var beats []chan struct{}
	for i, seal := range servers {
		beats = append(beats,
			work(func(n int) error { return bind(seal, hosts[(2*n+i)%6], n) }), // web-6 and web-7 are only read
			work(func(n int) error { // a job gets its secrets
				r, err := models.FindRepository(b.ctx, b.db, hosts[n%len(hosts)].ID)
				if err != nil {
					return err
				}
				s, err := r.Secrets(seal)
				if err == nil && (!strings.HasPrefix(s.Password, "password ") || s.Env["AWS_ACCESS_KEY_ID"] != s.Password) {
					err = fmt.Errorf("opened as %q and %q", s.Password, s.Env["AWS_ACCESS_KEY_ID"])
				}
				if err != nil {
					return err
				}
				_, second, s, err := r.SecretsFor(models.KindPrune, seal)
				if err == nil && (!second || !strings.HasPrefix(s.Password, "password ") || s.Env["AWS_ACCESS_KEY_ID"] != s.Password) {
					err = fmt.Errorf("the second opened as %q and %q", s.Password, s.Env["AWS_ACCESS_KEY_ID"])
				}
				return err
			}))
	}
	each := func() { // everybody has done something since
		for range 2 {
			for _, beat := range beats {
				select {
				case <-beat:
				case <-broken.Done():
				}
			}
		}
	}
	files := []string{read(t, path)}
	for range 2 {
		each()
		n, err := models.RotateKey(b.ctx, b.db, path)
		if err != nil || n != len(hosts) {
			t.Errorf("%d hosts sealed anew: %v", n, err)
		}
		files = append(files, read(t, path))
	}
	each()
	close(stop)
	wg.Wait()

	for i, text := range files {
		want := 0
		if i == len(files)-1 {
			want = len(hosts)
		}
		if n := b.opens(text, hosts); n != want {
			t.Errorf("key %d of %d opens %d hosts", i+1, len(files), n)
		}
		err := models.CheckSealer(b.ctx, b.db, must[*models.Sealer](t)(models.NewSealer(text)))
		if newest := i == len(files)-1; newest != (err == nil) {
			t.Errorf("key %d of %d at a start: %v", i+1, len(files), err)
		}
	}
	if n := b.keysInUse(); n != 1 {
		t.Errorf("%d keys are in use", n)
	}
	if old := read(t, models.OldKeys(path)); old != files[0]+files[1] {
		t.Errorf("kept %d lines of old keys", strings.Count(old, "\n"))
	}
	for _, file := range []string{path, models.OldKeys(path)} {
		if info := must[os.FileInfo](t)(os.Stat(file)); info.Mode().Perm() != 0o600 {
			t.Errorf("%s has mode %o", filepath.Base(file), info.Mode().Perm())
		}
	}
	if left := must[[]string](t)(filepath.Glob(filepath.Join(filepath.Dir(path), ".*"))); len(left) != 0 {
		t.Errorf("left behind: %v", left)
	}
}

// Those who rotate at once do it one after the other, the file included, and no
// key that something is sealed by gets lost.
func TestTwoRotationsAtOnce(t *testing.T) {
	t.Parallel()
	b := setup(t)
	path := b.keyFile()
	h := b.host("web-1")
	b.bind(h, "/srv/repo")
	first := read(t, path)
	var wg sync.WaitGroup
	err := models.Tx(b.ctx, b.db, func(tx models.IDB) error {
		if _, err := tx.ExecContext(b.ctx, "select from sealing_check for update"); err != nil {
			return err
		}
		for range 2 {
			wg.Go(func() {
				if _, err := models.RotateKey(b.ctx, b.db, path); err != nil {
					t.Error(err)
				}
			})
		}
		for b.count("select count(*) from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'") < 2 {
			if b.ctx.Err() != nil {
				return b.ctx.Err()
			}
		}
		if read(t, path) != first {
			t.Error("the file is changed by one who waits")
		}
		return nil
	})
	wg.Wait()
	if err != nil {
		t.Fatal(err)
	}
	if n := b.opens(read(t, path), []*models.Host{h}); n != 1 || b.keysInUse() != 1 || strings.Count(read(t, path), "\n") != 1 {
		t.Errorf("the file's %d keys open %d hosts", strings.Count(read(t, path), "\n"), n)
	}
	if n := strings.Count(read(t, models.OldKeys(path)), "\n"); n != 2 {
		t.Errorf("%d old keys after two rotations", n)
	}
}

// Where servers have copies of the file, the new key comes into all of them
// first; and a rotation that was cut off goes on with the key it made.
func TestAKeyThatIsInTheFileAlreadyIsTaken(t *testing.T) {
	t.Parallel()
	b := setup(t)
	path := b.keyFile()
	first := read(t, path)
	next := must[string](t)(models.GenerateKey()) + "\n"
	elsewhere := filepath.Join(t.TempDir(), "secret.key")
	for _, file := range []string{path, elsewhere} {
		if err := os.WriteFile(file, []byte(next+first), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	h := b.host("web-1")
	for _, file := range []string{path, elsewhere} { // servers start, and store with the key of before
		seal := must[*models.Sealer](t)(models.LoadSealer(file, true))
		if err := models.CheckSealer(b.ctx, b.db, seal); err != nil {
			t.Fatal(err)
		}
		b.seal = seal
		b.bind(h, "/srv/repo")
	}
	if n := b.opens(first, []*models.Host{h}); n != 1 {
		t.Error("the new key is used before the rotation")
	}
	if _, err := models.RotateKey(b.ctx, b.db, path); err != nil {
		t.Fatal(err)
	}
	if read(t, path) != next || read(t, models.OldKeys(path)) != first || read(t, elsewhere) != next+first {
		t.Error("the files are not what they should be")
	}
	if n := b.opens(next, []*models.Host{h}); n != 1 {
		t.Error("not sealed by the key that was given")
	}
	b.bind(h, "/srv/other") // the server with the copy
	if n := b.opens(next, []*models.Host{h}); n != 1 {
		t.Error("a server with a copy seals by the old key")
	}
}

// A rotation that can't be done leaves everything as it opens now.
func TestARotationThatFailsChangesNothing(t *testing.T) {
	t.Parallel()
	b := setup(t)
	path := b.keyFile()
	one, two := b.host("web-1"), b.host("web-2")
	b.bind(one, "/srv/one")
	b.bind(two, "/srv/two")
	b.exec("update host_repositories set password_sealed = overlay(password_sealed placing '\\x00' from 10) where host_id = ?", two.ID)
	before := b.repository(one).PasswordSealed
	_, err := models.RotateKey(b.ctx, b.db, path)
	if err == nil || !strings.Contains(err.Error(), two.ID.String()) || !strings.Contains(err.Error(), "nothing was sealed anew") {
		t.Errorf("says %v", err)
	}
	if !bytes.Equal(b.repository(one).PasswordSealed, before) {
		t.Error("the other host was sealed anew")
	}
	for name, seal := range map[string]*models.Sealer{"running": b.seal, "started since": must[*models.Sealer](t)(models.LoadSealer(path, false))} {
		if err := models.CheckSealer(b.ctx, b.db, seal); err != nil {
			t.Errorf("a server, %s: %v", name, err)
		}
		if _, err := b.repository(one).Secrets(seal); err != nil {
			t.Errorf("a server, %s: %v", name, err)
		}
	}
	b.bind(two, "/srv/two")
	if n, err := models.RotateKey(b.ctx, b.db, path); err != nil || n != 2 {
		t.Errorf("after mending, %d hosts: %v", n, err)
	}
	if n := strings.Count(read(t, path)+read(t, models.OldKeys(path)), "\n"); n != 2 {
		t.Errorf("%d keys for two", n)
	}
	for _, wrong := range []string{"", "nonsense\n", must[string](t)(models.GenerateKey())} {
		file := filepath.Join(t.TempDir(), "other.key")
		if err := os.WriteFile(file, []byte(wrong), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := models.RotateKey(b.ctx, b.db, file); err == nil || wrong != "" && strings.Contains(err.Error(), strings.TrimSpace(wrong)) {
			t.Errorf("rotated by another key file: %v", err)
		}
	}
}

// A server that can't know of the rotation must not leave a row that only the
// old key opens.
func TestNothingIsSealedByAnotherKey(t *testing.T) {
	t.Parallel()
	b := setup(t)
	path := b.keyFile()
	h, other := b.host("web-1"), b.host("web-2")
	b.bind(h, "/srv/repo")
	b.bind(other, "/srv/repo")
	b.bindMaintenance(h, "/srv/repo")
	b.bindMaintenance(other, "/srv/repo")
	old := b.repository(h)
	if _, err := models.RotateKey(b.ctx, b.db, path); err != nil {
		t.Fatal(err)
	}
	env := fmt.Sprintf(`{"AWS_ACCESS_KEY_ID": "%s"}`, "AQAAAAAAAAAAAAAAAAAAAAAA")
	b.refused(check, "update host_repositories set password_sealed = ? where host_id = ?", old.PasswordSealed, h.ID)
	b.refused(check, "update host_repositories set env_sealed = ? where host_id = ?", env, h.ID)
	b.refused(check, "update host_repositories set maintenance_password_sealed = ? where host_id = ?", old.MaintenancePasswordSealed, h.ID)
	b.refused(check, "update host_repositories set maintenance_env_sealed = ? where host_id = ?", env, h.ID)
	b.refused(check, "insert into host_repositories (host_id, url, url_key, password_sealed) select ?, url, url_key, ? from host_repositories where host_id = ?",
		b.host("web-3").ID, old.PasswordSealed, h.ID)
	b.exec("update host_repositories set password_sealed = (select password_sealed from host_repositories where host_id = ?) where host_id = ?", other.ID, h.ID)
	stale := must[*models.Sealer](t)(models.NewSealer(read(t, models.OldKeys(path))))
	_, err := models.BindRepository(b.ctx, b.db, stale, h.ID, models.RepositoryFields{URL: "/srv/repo", Password: "x"})
	if err == nil || !strings.Contains(err.Error(), "does not fit") {
		t.Errorf("a server with the old key stores secrets: %v", err)
	}
	_, err = models.BindMaintenance(b.ctx, b.db, stale, h.ID, models.MaintenanceFields{URL: "/srv/repo", Password: "x"})
	if err == nil || !strings.Contains(err.Error(), "does not fit") {
		t.Errorf("a server with the old key stores second secrets: %v", err)
	}
}

// Whatever is sealed must be known to the rotation.
func TestEverySealedColumnIsRotated(t *testing.T) {
	t.Parallel()
	b := setup(t)
	known := "'host_repositories.password_sealed', 'host_repositories.env_sealed', 'sealing_check.sealed', " +
		"'host_repositories.maintenance_password_sealed', 'host_repositories.maintenance_env_sealed'"
	if n := b.count("select count(*) from information_schema.columns where table_schema = 'public' and column_name like '%sealed%' and table_name || '.' || column_name not in (" + known + ")"); n != 0 {
		t.Errorf("%d columns hold something sealed that sealAnew does not know", n)
	}
}
