package restic

import (
	"flag"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"resticfleet/agent/protocol"
)

var update = flag.Bool("update", false, "write the golden files anew")

func testRun(kind string) protocol.Run {
	return protocol.Run{
		JobID: "0198c0de-0000-7000-8000-000000000001", Kind: kind, ResticHost: "web 1",
		Repository: protocol.Repository{URL: "rest:https://backup.example.com/web/"},
		Includes:   []string{"/etc", "/srv/-odd\nname"}, Tag: "documents",
		Excludes: []string{"*.tmp", "!keep.tmp", " lead", "#x", "$HOME", "-v", "--exclude=y", ""},
	}
}

// TestArguments holds every command line the agent can make against its golden
// file, one argument per line, quoted.
func TestArguments(t *testing.T) {
	t.Parallel()
	run := testRun(protocol.KindBackup)
	hostile := run
	hostile.Tag, hostile.ResticHost, hostile.Parent = "--prune", "-h", "--parent"
	policy := protocol.ForgetGroup{Tags: []string{"documents", "--prune", " odd: tag"}, Retention: protocol.Retention{
		KeepLast: 1, KeepHourly: 2, KeepDaily: 3, KeepWeekly: 4, KeepMonthly: 5, KeepYearly: 6, KeepWithin: "1y2m3d4h", KeepTags: []string{"--unsafe-allow-remove-all"},
	}}
	part, compared := run, run
	part.ReadDataSubset, compared.SnapshotIDs = "2/5", []string{snapshotID(1), snapshotID(2)}
	for name, args := range map[string][]string{
		"plan":          planArgs(run, policy),
		"plan-odd":      planArgs(hostile, protocol.ForgetGroup{Tags: []string{"a"}, Retention: protocol.Retention{KeepLast: 7}}),
		"forget":        forgetArgs(compared.SnapshotIDs),
		"prune":         pruneArgs(),
		"check":         checkArgs(run),
		"check-part":    checkArgs(part),
		"snapshots":     listArgs(run),
		"snapshots-of":  listArgs(run, policy.Tags...),
		"diff":          diffArgs(compared),
		"backup":        backupArgs(run, "/state/run/1/includes.raw", ""),
		"backup-parent": backupArgs(run, "/state/run/1/includes.raw", strings.Repeat("ab", 32)),
		"backup-odd":    backupArgs(hostile, "--files", hostile.Parent),
		"cat-config":    catConfigArgs(),
		"init":          initArgs(),
		"unlock":        unlockArgs(),
		"list-locks":    listLocksArgs(),
		"cat-lock":      catLockArgs("cafe"),
		"settle":        settleArgs(run),
	} {
		var b strings.Builder
		for _, arg := range args {
			b.WriteString(quote(arg) + "\n")
		}
		golden := filepath.Join("testdata", name+".argv")
		if *update {
			if err := os.WriteFile(golden, []byte(b.String()), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		want, err := os.ReadFile(golden)
		if err != nil {
			t.Fatal(err)
		}
		if b.String() != string(want) {
			t.Errorf("%s:\n%swant\n%s", name, b.String(), want)
		}
		for _, arg := range args {
			for _, never := range []string{"--remove-all", "--password-command", "--insecure-tls", "-o"} {
				if arg == never {
					t.Errorf("%s contains %s", name, never)
				}
			}
		}
	}
}

func quote(s string) string {
	return strings.ReplaceAll(strings.ReplaceAll(s, `\`, `\\`), "\n", `\n`)
}

func TestIncludesEndEachWithNUL(t *testing.T) {
	t.Parallel()
	if got := string(Includes([]string{"/a", "/new\nline", "/\xff"})); got != "/a\x00/new\nline\x00/\xff\x00" {
		t.Errorf("%q", got)
	}
}

func TestEnvironmentIsBuiltFromTheLists(t *testing.T) {
	t.Parallel()
	got := BaseEnv([]string{
		"PATH=/bin", "HOME=/root", "LC_ALL=C", "RESTIC_PASSWORD=x", "RESTIC_REPOSITORY=y", "AWS_SECRET_ACCESS_KEY=z", "LD_PRELOAD=l",
		"GODEBUG=g", "https_proxy=p", "XDG_CACHE_HOME=c", "PATHOLOGICAL=1", "RESTICFLEET_TOKEN=t",
	})
	if want := []string{"PATH=/bin", "HOME=/root", "LC_ALL=C", "https_proxy=p"}; !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
	kept, refused := BackendEnv("s3:https://s3.example.com/b", map[string]string{
		"AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b", "LD_PRELOAD": "c", "B2_ACCOUNT_KEY": "d", "AWS_REGION": "nul\x00",
	})
	if !slices.Equal(kept, []string{"AWS_ACCESS_KEY_ID=a", "AWS_SECRET_ACCESS_KEY=b"}) || !slices.Equal(refused, []string{"AWS_REGION", "B2_ACCOUNT_KEY", "LD_PRELOAD"}) {
		t.Errorf("kept %q, refused %q", kept, refused)
	}
}

func TestValidateRefusesWhatResticWouldMisread(t *testing.T) {
	t.Parallel()
	if err := Validate(testRun(protocol.KindBackup)); err != nil {
		t.Errorf("a good command: %v", err)
	}
	for name, change := range map[string]func(*protocol.Run){
		"no url":            func(r *protocol.Run) { r.Repository.URL = "" },
		"url of two lines":  func(r *protocol.Run) { r.Repository.URL = "/a\n/b" },
		"ssh option":        func(r *protocol.Run) { r.Repository.URL = "sftp:-oProxyCommand=id:/x" },
		"ssh option, user":  func(r *protocol.Run) { r.Repository.URL = "sftp:-oProxyCommand=id@host:/x" },
		"ssh option, url":   func(r *protocol.Run) { r.Repository.URL = "sftp://-oProxyCommand=id/x" },
		"ssh option, coded": func(r *protocol.Run) { r.Repository.URL = "sftp://%2doProxyCommand=id/x" },
		"NUL in an exclude": func(r *protocol.Run) { r.Excludes = []string{"a\x00"} },
		"NUL in an include": func(r *protocol.Run) { r.Includes = []string{"/a\x00"} },
		"NUL in the parent": func(r *protocol.Run) { r.Parent = "\x00" },
		"NUL in the host":   func(r *protocol.Run) { r.ResticHost = "\x00" },
		"blank job tag":     func(r *protocol.Run) { r.Tag = " job:1" },
	} {
		run := testRun(protocol.KindBackup)
		change(&run)
		if err := Validate(run); err == nil {
			t.Errorf("%s is taken", name)
		}
	}
}

func TestScrubberFindsEverySpelling(t *testing.T) {
	t.Parallel()
	s := NewScrubber(protocol.Secrets{
		Password: "p@ss/w\"ö rd ",
		Env:      map[string]string{"AWS_SECRET_ACCESS_KEY": "abc/def+", "AWS_REGION": "eu-central-1", "RESTIC_REST_USERNAME": "home", "B2_ACCOUNT_KEY": "xy"},
	})
	for _, text := range []string{
		"is p@ss/w\"ö rd here", `is p@ss/w\"ö rd here`, "is p%40ss%2Fw%22%C3%B6+rd here", "is p%40ss%2Fw%22%C3%B6%20rd here",
		"is abc/def+ here", "is abc%2Fdef%2B here", "is YWJjL2RlZis= here",
	} {
		if got := s.Text(text); got != "is *** here" {
			t.Errorf("%s: %s", text, got)
		}
	}
	for _, text := range []string{"/home/x in eu-central-1", "xylophone", ""} {
		if got := s.Text(text); got != text {
			t.Errorf("%s became %s", text, got)
		}
	}
	f := protocol.Finished{Error: "abc/def+", Unreadable: []string{"/x/abc/def+"}}
	if got := s.Finished(f); got.Error != Mask || got.Unreadable[0] != "/x/***" || f.Unreadable[0] != "/x/abc/def+" {
		t.Errorf("%+v from %+v", got, f)
	}
	var none *Scrubber
	if none.Text("x") != "x" || NewScrubber(protocol.Secrets{}).Text("x") != "x" {
		t.Error("nothing known changes text")
	}
}

func TestVersionLines(t *testing.T) {
	t.Parallel()
	for line, want := range map[string]struct {
		version   string
		supported bool
	}{
		"restic 0.19.1 compiled with go1.26 on linux/amd64\n": {"0.19.1", true},
		"restic 0.17.0 compiled":                              {"0.17.0", true},
		"restic 0.16.5 compiled":                              {"0.16.5", false},
		"restic 0.20.0-dev (compiled manually)":               {"0.20.0-dev", true},
		"restic 1.0.0 x":                                      {"1.0.0", true},
		"borg 1.2":                                            {"", false},
		"":                                                    {"", false},
		"restic 0.99999999999999999999999.0":                  {"", false},
	} {
		version, supported, err := ParseVersion(line)
		if version != want.version || supported != want.supported || (err != nil) != (want.version == "") {
			t.Errorf("%q: %q, %v, %v", line, version, supported, err)
		}
	}
}

func TestEndpoints(t *testing.T) {
	t.Parallel()
	for url, want := range map[string]Endpoint{
		"/srv/x":                           {},
		"rest:https://u:p@h.example:8000/": {HTTP: "https://h.example:8000/"},
		"rest:http+unix:///tmp/x.sock:/r":  {},
		"s3:https://s3.example.com/b/p":    {HTTP: "https://s3.example.com/"},
		"s3:s3.amazonaws.com/b":            {HTTP: "https://s3.amazonaws.com/"},
		"s3://minio:9000/b":                {HTTP: "https://minio:9000/"},
		"b2:bucket:x":                      {HTTP: "https://api.backblazeb2.com/"},
		"gs:bucket:/x":                     {HTTP: "https://storage.googleapis.com/"},
		"azure:c:/x":                       {HTTP: "https://acc.blob.core.windows.net/"},
		"swift:c:/x":                       {HTTP: "https://keystone:5000/"},
		"sftp:me@host:/srv":                {SSH: SSHTarget{Host: "host", User: "me"}},
		"sftp:host:srv":                    {SSH: SSHTarget{Host: "host"}},
		"sftp:a@b@host:/srv":               {SSH: SSHTarget{Host: "host", User: "a@b"}},
		"sftp://me@[::1]:2222//srv":        {SSH: SSHTarget{Host: "::1", Port: "2222", User: "me"}},
		"sftp:nonsense":                    {},
		"rclone:x:y":                       {},
		"rest:%zz":                         {},
	} {
		if got := EndpointOf(url, map[string]string{"AZURE_ACCOUNT_NAME": "acc", "OS_AUTH_URL": "https://keystone:5000/v3"}); got != want {
			t.Errorf("%s: %+v, want %+v", url, got, want)
		}
	}
	if got := (SSHTarget{Host: "h", Port: "1", User: "u"}).Words(); !slices.Equal(got, []string{"-p", "1", "-l", "u", "--", "h"}) {
		t.Errorf("%q", got)
	}
	if address, ok := ParseSSHConfig("user x\nhostname ::1\nport 22\nproxyjump none\n"); !ok || address != "[::1]:22" {
		t.Errorf("%q, %v", address, ok)
	}
	for _, odd := range []string{"hostname h\nport 22\nproxycommand nc %h", "hostname h\nport 22\nproxyjump j", "port 22", ""} {
		if address, ok := ParseSSHConfig(odd); ok {
			t.Errorf("%q: %q", odd, address)
		}
	}
}
