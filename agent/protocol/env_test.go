package protocol

import (
	"slices"
	"testing"
)

func TestURLSchemeFollowsRestic(t *testing.T) {
	t.Parallel()
	for url, want := range map[string]string{
		"/srv/backup":                    SchemeLocal,
		"/srv/rest:odd":                  SchemeLocal,
		"local:/srv/backup":              SchemeLocal,
		"rest:http://h:8000/x/":          SchemeREST,
		"s3:https://s3.example.com/b":    SchemeS3,
		"s3://s3.example.com/b":          SchemeS3,
		"b2:bucket:path":                 SchemeB2,
		"azure:container:/":              SchemeAzure,
		"gs:bucket:/":                    SchemeGS,
		"swift:container:/":              SchemeSwift,
		"sftp:user@host:/srv":            SchemeSFTP,
		"rclone:remote:path":             SchemeRclone,
		"REST:http://h/":                 SchemeLocal,
		"":                               SchemeLocal,
		"relative":                       SchemeLocal,
		"https://h/":                     SchemeLocal,
		"rest-but-a-folder/with:colon/x": SchemeLocal,
	} {
		if got := URLScheme(url); got != want {
			t.Errorf("URLScheme(%q) = %q, want %q", url, got, want)
		}
	}
}

func TestBackendEnvHoldsNoNameThatRunsCode(t *testing.T) {
	t.Parallel()
	dangerous := []string{
		"RESTIC_PASSWORD_COMMAND", "RESTIC_PASSWORD", "RESTIC_PASSWORD_FILE", "RESTIC_REPOSITORY",
		"LD_PRELOAD", "LD_LIBRARY_PATH", "PATH", "HOME", "AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE",
		"AWS_PROFILE", "GOOGLE_EXTERNAL_ACCOUNT_ALLOW_EXECUTABLES", "AZURE_FORCE_CLI_CREDENTIAL",
		"RCLONE_CONFIG", "HTTPS_PROXY", "RESTIC_FEATURES", "GODEBUG", "",
	}
	for scheme := range backendEnv {
		names := BackendEnv(scheme)
		if !slices.IsSorted(names) {
			t.Errorf("%s: not sorted: %v", scheme, names)
		}
		for _, name := range names {
			if !BackendEnvAllowed(scheme, name) {
				t.Errorf("%s: %s listed but not allowed", scheme, name)
			}
		}
		for _, name := range dangerous {
			if BackendEnvAllowed(scheme, name) {
				t.Errorf("%s allows %q", scheme, name)
			}
		}
	}
	if !BackendEnvAllowed(SchemeS3, "AWS_SECRET_ACCESS_KEY") || BackendEnvAllowed(SchemeB2, "AWS_SECRET_ACCESS_KEY") {
		t.Error("AWS_SECRET_ACCESS_KEY belongs to s3 alone")
	}
	if got := BackendEnv(SchemeREST); !slices.Equal(got, []string{"RESTIC_REST_PASSWORD", "RESTIC_REST_USERNAME"}) {
		t.Errorf("rest: %v", got)
	}
	if len(BackendEnv(SchemeLocal))+len(BackendEnv("nonsense")) != 0 {
		t.Error("a local path or an unknown scheme has environment names")
	}
}
