package agent

import (
	"encoding/base64"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"resticfleet/agent/protocol"
)

func mode(t testing.TB, path string) fs.FileMode {
	t.Helper()
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	return info.Mode().Perm()
}

func TestEnrollKeepsTheCredentialAndReplacesItOnlyAfterTheAnswer(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	dir := filepath.Join(t.TempDir(), "state")
	e := Enrollment{Server: s.http.URL + "/", Token: " once\n", StateDir: dir, Version: "v1", Timezone: "Europe/Berlin"}
	if host, err := Enroll(t.Context(), e); err != nil || host != "host-1" {
		t.Fatal(host, err)
	}
	first, err := LoadConfig(dir)
	if err != nil || first.HostID != "host-1" || first.AgentToken != testToken || first.Server != s.http.URL {
		t.Fatal(first, err)
	}
	if mode(t, dir) != 0o700 || mode(t, configPath(dir)) != 0o600 {
		t.Errorf("modes: %v, %v", mode(t, dir), mode(t, configPath(dir)))
	}
	public, err := protocol.PublicKey(first.PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	r := s.enrolled[0]
	if r.Token != "once" || r.PublicKey != base64.StdEncoding.EncodeToString(public) || r.Timezone != "Europe/Berlin" || r.Hostname == "" || r.AgentVersion != "v1" {
		t.Errorf("asked with %+v", r)
	}

	s.refusal, s.detail = http.StatusUnauthorized, "The token was used already."
	_, err = Enroll(t.Context(), e)
	if err == nil || !strings.Contains(err.Error(), s.detail) || !strings.Contains(err.Error(), "make a new one") {
		t.Error(err)
	}
	if after, err := LoadConfig(dir); err != nil || string(after.PrivateKey) != string(first.PrivateKey) {
		t.Error("a refused enrolment must leave the old one alone:", err)
	}
	s.refusal = 0
	if _, err := Enroll(t.Context(), e); err != nil {
		t.Fatal(err)
	}
	if after, err := LoadConfig(dir); err != nil || string(after.PrivateKey) == string(first.PrivateKey) {
		t.Error("a new enrolment makes a new key:", err)
	}
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) != 1 {
		t.Error("left over:", entries, err)
	}
}

func TestConfigShowsNoSecret(t *testing.T) {
	t.Parallel()
	c := Config{AgentToken: "canary", PrivateKey: PrivateKey("canary")}
	for _, verb := range []string{"%v", "%+v", "%#v", "%s"} {
		if text := fmt.Sprintf(verb, c); strings.Contains(text, "canary") || strings.Contains(text, "99") {
			t.Errorf("%s: %s", verb, text)
		}
	}
}

func TestServerAddress(t *testing.T) {
	t.Parallel()
	tests := []struct {
		address, want string
		plain         bool
	}{
		{"https://fleet.example.com", "https://fleet.example.com", false},
		{"https://fleet.example.com:8443/below/", "https://fleet.example.com:8443/below", false},
		{"http://localhost:8080", "http://localhost:8080", false},
		{"http://127.0.0.1:8080/", "http://127.0.0.1:8080", false},
		{"http://[::1]:8080", "http://[::1]:8080", false},
		{"http://10.0.0.1", "http://10.0.0.1", true},
		{"http://10.0.0.1", "", false},
		{"http://localhost.evil.example", "", false},
		{"fleet.example.com", "", true},
		{"ftp://fleet.example.com", "", true},
		{"https://", "", true},
		{"https://u:canary@fleet.example.com", "", true},
		{"https://u:canary%zz@fleet.example.com", "", true},
		{"https://fleet.example.com?x=1", "", true},
		{"", "", true},
	}
	for _, test := range tests {
		got, err := serverAddress(test.address, test.plain)
		if got != test.want || (err == nil) != (test.want != "") {
			t.Errorf("%q: %q, %v", test.address, got, err)
		}
		if err != nil && strings.Contains(err.Error(), "canary") {
			t.Errorf("a password is printed: %v", err)
		}
	}
}

func TestLoadConfigSaysWhatToDo(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	if _, err := LoadConfig(dir); !errors.Is(err, ErrNotEnrolled) || !strings.Contains(err.Error(), "resticfleet-agent enroll") {
		t.Error(err)
	}
	for _, content := range []string{"{", "{}", `{"server":"https://x","host_id":"h","agent_token":"t","private_key":"AAAA"}`} {
		if err := os.WriteFile(configPath(dir), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := LoadConfig(dir); err == nil || !strings.Contains(err.Error(), "resticfleet-agent enroll") {
			t.Error(err)
		}
	}
	private, _, err := protocol.NewKey()
	if err != nil {
		t.Fatal(err)
	}
	c := Config{Server: "http://10.0.0.1", HostID: "h", AgentToken: "t", PrivateKey: private}
	for _, allowed := range []bool{false, true} {
		c.AllowPlainHTTP = allowed
		if err := c.save(dir); err != nil {
			t.Fatal(err)
		}
		if _, err := LoadConfig(dir); (err == nil) != allowed {
			t.Error(err)
		}
	}
}

func TestPrivateDirTakesOnlyItsOwn(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	foreign, own, empty := filepath.Join(dir, "foreign"), filepath.Join(dir, "own"), filepath.Join(dir, "empty")
	for _, d := range []string{foreign, own, empty} {
		if err := os.Mkdir(d, 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(d, 0o755); err != nil { // whatever the umask
			t.Fatal(err)
		}
	}
	for _, f := range []string{filepath.Join(foreign, "x"), configPath(own), filepath.Join(own, "x")} {
		if err := os.WriteFile(f, nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := privateDir(foreign); err == nil || mode(t, foreign) != 0o755 {
		t.Error(err, mode(t, foreign))
	}
	for _, d := range []string{own, empty, filepath.Join(dir, "new", "one")} {
		if err := privateDir(d); err != nil || mode(t, d) != 0o700 {
			t.Error(err, mode(t, d))
		}
	}
}

func TestZoneNameIsWhatTheMachineSays(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	zoneinfo := filepath.Join(dir, "usr", "share", "zoneinfo", "America", "Argentina")
	if err := os.MkdirAll(zoneinfo, 0o700); err != nil {
		t.Fatal(err)
	}
	file := func(name, content string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	city := filepath.Join(zoneinfo, "Salta")
	if err := os.WriteFile(city, []byte("TZif"), 0o600); err != nil {
		t.Fatal(err)
	}
	link := filepath.Join(dir, "localtime")
	if err := os.Symlink(city, link); err != nil {
		t.Fatal(err)
	}
	none := filepath.Join(dir, "none")
	tests := []struct {
		name, timezone, localtime string
		tz                        []string
		want                      string
	}{
		{"Debian's file", file("berlin", "Europe/Berlin\n"), link, nil, "Europe/Berlin"},
		{"the link", none, link, nil, "America/Argentina/Salta"},
		{"a file of nonsense", file("bad", "Mars/Base\n"), link, nil, "America/Argentina/Salta"},
		{"a copy names nothing", none, file("copy", "TZif"), nil, ""},
		{"nothing", none, none, nil, ""},
		{"TZ first", file("berlin2", "Europe/Berlin"), link, []string{"Asia/Tokyo"}, "Asia/Tokyo"},
		{"TZ with colon and path", none, link, []string{":/usr/share/zoneinfo/Asia/Tokyo"}, "Asia/Tokyo"},
		{"empty TZ", none, link, []string{""}, "UTC"},
		{"TZ of rules", none, link, []string{"CET-1CEST,M3.5.0,M10.5.0/3"}, ""},
		{"TZ Local", none, link, []string{"Local"}, ""},
	}
	for _, test := range tests {
		m := machine{timezone: test.timezone, localtime: test.localtime, getenv: func(string) (string, bool) {
			return strings.Join(test.tz, ""), test.tz != nil
		}}
		if got := m.zoneName(); got != test.want {
			t.Errorf("%s: %q, want %q", test.name, got, test.want)
		}
	}
	for _, bad := range []string{"Local", "Mars/Base", "../etc/passwd"} {
		if _, err := ZoneName(bad); err == nil || !strings.Contains(err.Error(), "--timezone") {
			t.Errorf("%q: %v", bad, err)
		}
	}
	if got, err := ZoneName("Asia/Tokyo"); err != nil || got != "Asia/Tokyo" {
		t.Error(got, err)
	}
	if zones := []string{location("").String(), location("Asia/Tokyo").String()}; !slices.Equal(zones, []string{"UTC", "Asia/Tokyo"}) {
		t.Error(zones)
	}
}
