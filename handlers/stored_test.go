package handlers

import (
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"resticfleet/agent/protocol"
	"resticfleet/models"
)

// everyRow is the whole database as text, bytes in hexadecimal.
func (b *bundle) everyRow() string {
	b.t.Helper()
	var tables []string
	if err := b.db.NewRaw("select quote_ident(table_name) from information_schema.tables where table_schema = 'public' and table_type = 'BASE TABLE'").Scan(b.ctx, &tables); err != nil {
		b.t.Fatal(err)
	}
	var all strings.Builder
	for _, table := range tables {
		var rows []string
		if err := b.db.NewRaw("select t::text from "+table+" t").Scan(b.ctx, &rows); err != nil {
			b.t.Fatal(err)
		}
		all.WriteString(table + "\n" + strings.Join(rows, "\n") + "\n")
	}
	return all.String()
}

// What opens something is nowhere in a used database, in whatever spelling:
// tokens and passwords are there as hashes, repositories' secrets sealed.
func TestNothingInTheDatabaseOpensAnything(t *testing.T) {
	t.Parallel()
	b := setup(t)
	secrets := map[string]string{"password": "the horse of the administrator"}
	must := func(v string, err error) string {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
	secrets["unused setup link"] = must(models.NewSetupLink(b.ctx, b.db))
	secrets["setup link"] = must(models.NewSetupLink(b.ctx, b.db))
	form := url.Values{"token": {secrets["setup link"]}, "username": {"admin"}, "password": {secrets["password"]}, "password_again": {secrets["password"]}}
	res := b.do("POST", "/setup", strings.NewReader(form.Encode()), "Content-Type", "application/x-www-form-urlencoded")
	body(t, res)
	secrets["first session"] = cookieOf(t, res, "session").Value
	secrets["wrong password"] = "the horse of somebody else"
	body(t, b.login("admin", secrets["wrong password"]))
	body(t, b.login(secrets["password"], "typed into the wrong field"))
	res = b.login("admin", secrets["password"])
	body(t, res)
	secrets["session"] = cookieOf(t, res, "session").Value
	b.user("operator")
	secrets["API token"] = b.token(models.RoleAdmin)

	call := func(bearer, method, path string, in any, out any) {
		t.Helper()
		raw, err := json.Marshal(in)
		if err != nil {
			t.Fatal(err)
		}
		res := b.do(method, path, strings.NewReader(string(raw)), "Authorization", "Bearer "+bearer, "Content-Type", "application/json")
		text := body(t, res)
		if res.StatusCode >= 300 {
			t.Fatalf("%s %s: %d %s", method, path, res.StatusCode, text)
		}
		if err := json.Unmarshal([]byte(text), out); err != nil {
			t.Fatal(err)
		}
	}
	var host struct{ ID string }
	call(secrets["API token"], "POST", "/api/hosts", map[string]any{"name": "the-control"}, &host)
	secrets["repository password"], secrets["repository variable"] = "the horse of the repository", "the horse of the backend"
	call(secrets["API token"], "PUT", "/api/hosts/"+host.ID+"/repository", map[string]any{
		"url": "s3:https://s3.example.net/bucket", "password": secrets["repository password"],
		"env": map[string]string{"AWS_ACCESS_KEY_ID": "public", "AWS_SECRET_ACCESS_KEY": secrets["repository variable"]},
	}, &struct{}{})
	secrets["second password"], secrets["second variable"] = "the horse of forget and prune", "the second horse of the backend"
	call(secrets["API token"], "PUT", "/api/hosts/"+host.ID+"/repository/maintenance-credential", map[string]any{
		"url": "s3:https://s3.example.net/bucket", "password": secrets["second password"], "env": map[string]string{"AWS_SECRET_ACCESS_KEY": secrets["second variable"]},
	}, &struct{}{})
	var enrolment struct{ Token string }
	for _, name := range []string{"unused enrolment token", "enrolment token"} {
		call(secrets["API token"], "POST", "/api/hosts/"+host.ID+"/enrollment-tokens", nil, &enrolment)
		secrets[name] = enrolment.Token
	}
	var agent protocol.EnrollResponse
	call("", "POST", "/agent/v1/enroll", protocol.EnrollRequest{Token: secrets["enrolment token"], Hostname: "web", Timezone: "UTC"}, &agent)
	secrets["agent's token"] = agent.AgentToken
	call(agent.AgentToken, "POST", "/agent/v1/messages", map[string]any{"messages": []protocol.Envelope{protocol.Seal("hello", protocol.TypeHello, protocol.Hello{Protocol: 2, JournalID: "j", Timezone: "UTC"})}}, &struct{}{})
	for _, path := range []string{"/jobs", "/hosts/" + host.ID + "/repository"} {
		res := b.do("GET", path, nil, "Cookie", "session="+secrets["session"])
		if body(t, res); res.StatusCode != http.StatusOK {
			t.Errorf("GET %s: %d", path, res.StatusCode)
		}
	}

	all := b.everyRow()
	if !strings.Contains(all, "the-control") || !strings.Contains(all, hex.EncodeToString(models.HashToken(secrets["session"]))) {
		t.Error("not even what must be there is found")
	}
	if n := b.count("select count(*) from users where password_hash like '$argon2id$v=19$m=65536,t=2,p=1$%'"); n != 2 {
		t.Errorf("%d of two passwords are hashed as they should be", n)
	}
	for name, secret := range secrets {
		if len(secret) < 20 {
			t.Errorf("the %s is %q", name, secret)
		}
		for spelling, text := range map[string]string{
			"clear": secret, "hexadecimal": hex.EncodeToString([]byte(secret)), "base64": base64.StdEncoding.EncodeToString([]byte(secret)),
			"base64 in bytes": hex.EncodeToString([]byte(base64.StdEncoding.EncodeToString([]byte(secret)))),
		} {
			if strings.Contains(all, text) {
				t.Errorf("the %s stands in the database, as %s", name, spelling)
			}
		}
		_, random, _ := strings.Cut(secret, "_")
		if raw, err := base64.RawURLEncoding.DecodeString(random); err == nil && len(raw) >= 16 && strings.Contains(all, hex.EncodeToString(raw)) {
			t.Errorf("the %s stands in the database, as its bytes", name)
		}
	}
}

// What runs code is no variable of any backend, and what belongs to one is none
// of another; nobody's password is taken inside a URL. The refusal says where
// it belongs, and repeats nothing.
func TestWhatARepositoryMayNotBeGiven(t *testing.T) {
	t.Parallel()
	b := setup(t)
	bearer := "Bearer " + b.token(models.RoleAdmin)
	host, err := models.AddHost(b.ctx, b.db, models.HostFields{Name: "web-1"})
	if err != nil {
		t.Fatal(err)
	}
	cookie := "session=" + b.session(models.RoleAdmin)
	put := func(in map[string]any) (int, string) {
		t.Helper()
		raw, err := json.Marshal(in)
		if err != nil {
			t.Fatal(err)
		}
		res := b.do("PUT", "/api/hosts/"+host.ID.String()+"/repository", strings.NewReader(string(raw)), "Authorization", bearer, "Content-Type", "application/json")
		return res.StatusCode, body(t, res)
	}
	post := func(in url.Values) (int, string) {
		t.Helper()
		res := b.do("POST", "/hosts/"+host.ID.String()+"/repository", strings.NewReader(in.Encode()), "Cookie", cookie, "Content-Type", "application/x-www-form-urlencoded")
		return res.StatusCode, body(t, res)
	}
	urls := map[string]string{
		protocol.SchemeLocal: "/srv/repo", protocol.SchemeREST: "rest:https://backup.example.net/repo", protocol.SchemeS3: "s3:https://s3.example.net/bucket",
		"b2": "b2:bucket:path", "azure": "azure:container:/", "gs": "gs:bucket:/", "swift": "swift:container:/path", protocol.SchemeSFTP: "sftp:backup@host:/srv/repo",
	}
	own := map[string][]string{}
	never := []string{
		"RESTIC_PASSWORD", "RESTIC_PASSWORD_COMMAND", "RESTIC_PASSWORD_FILE", "RESTIC_REPOSITORY", "RESTIC_REPOSITORY_FILE", "RESTIC_CACHE_DIR", "RESTIC_KEY_HINT",
		"LD_PRELOAD", "LD_LIBRARY_PATH", "PATH", "HOME", "HTTPS_PROXY", "SSL_CERT_FILE", "GODEBUG", "TMPDIR", "RCLONE_CONFIG", "AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE",
		"", "A=B", "AWS_ACCESS_KEY_ID=x", "aws_access_key_id", " AWS_ACCESS_KEY_ID", "AWS_ACCESS_KEY_ID\x00", "AWS_ACCESS_KEY_ID\n",
	}
	for scheme, address := range urls {
		if protocol.URLScheme(address) != scheme {
			t.Fatalf("%s is of %s", address, protocol.URLScheme(address))
		}
		own[scheme] = protocol.BackendEnv(scheme)
	}
	for scheme, address := range urls {
		for _, name := range own[scheme] {
			if status, said := put(map[string]any{"url": address, "password": "x", "env": map[string]string{name: "canary"}}); status != http.StatusOK || strings.Contains(said, "canary") {
				t.Errorf("%s with its own %s: %d %s", scheme, name, status, said)
			}
		}
		refuse := never
		for other, names := range own {
			for _, name := range names {
				if other != scheme && !protocol.BackendEnvAllowed(scheme, name) {
					refuse = append(refuse, name)
				}
			}
		}
		for _, name := range refuse {
			status, said := put(map[string]any{"url": address, "password": "x", "env": map[string]string{name: "canary"}})
			if status != http.StatusUnprocessableEntity || !strings.Contains(said, `"env`) || strings.Contains(said, "canary") {
				t.Errorf("%s with %q: %d %s", scheme, name, status, said)
			}
		}
	}
	for _, address := range []string{
		"rest:https://user:canary@host/repo", "rest:https://canary@host/repo", "rest:http://user:canary@host:8000/", "rest:https://:canary@host/", "rest:https://user:can%61ry@host/",
		"rest:https://user:canary@host@evil/repo", "s3:https://key:canary@s3.example.net/bucket", "s3:key:canary@s3.example.net/bucket", "s3:http://canary@host/b",
		"b2:key:canary@bucket:path", "azure:user:canary@container:/", "gs:user:canary@bucket:/", "swift:user:canary@container:/path",
		"sftp:user:canary@host:/srv", "sftp://user:canary@host//srv", "sftp://user:canary@host:22//srv",
	} {
		status, said := put(map[string]any{"url": address, "password": "x"})
		if status != http.StatusUnprocessableEntity || !strings.Contains(said, `"url"`) || !strings.Contains(said, "env") || strings.Contains(said, "canary") {
			t.Errorf("%s: %d %s", address, status, said)
		}
		// The form keeps what was typed, for the eyes that typed it.
		if status, said := post(url.Values{"url": {address}, "password": {"canary in the password"}}); status != http.StatusUnprocessableEntity || !strings.Contains(strings.ToLower(said), "must not hold a") || strings.Contains(said, "canary in the password") {
			t.Errorf("%s by the form: %d", address, status)
		}
	}
	if n := b.count("select count(*) from audit_entries where audit_entries::text like '%canary%'"); n != 0 {
		t.Errorf("%d audit entries hold a secret", n)
	}
	if strings.Contains(b.everyRow(), "canary") {
		t.Error("a secret stands in the database")
	}
}
