package protocol

import (
	"slices"
	"strings"
)

// Schemes of repository URLs. A URL with none of the others is a local path.
const (
	SchemeLocal  = "local"
	SchemeREST   = "rest"
	SchemeS3     = "s3"
	SchemeB2     = "b2"
	SchemeAzure  = "azure"
	SchemeGS     = "gs"
	SchemeSwift  = "swift"
	SchemeSFTP   = "sftp"
	SchemeRclone = "rclone"
)

// backendEnv names, per scheme, the variables that a repository's environment
// may set. Each is read by restic's backend itself and carries a credential or
// an address: a name that would make restic run a program, load a library or
// read the password elsewhere (RESTIC_PASSWORD_COMMAND, LD_PRELOAD,
// AWS_CONFIG_FILE with its credential_process, AZURE_FORCE_CLI_CREDENTIAL which
// runs az) must never stand here. Values
// that name a file on the host are allowed where the backend knows no other
// way (GOOGLE_APPLICATION_CREDENTIALS).
var backendEnv = map[string][]string{
	SchemeLocal: nil,
	SchemeREST:  {"RESTIC_REST_USERNAME", "RESTIC_REST_PASSWORD"},
	SchemeS3: {
		"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN",
		"AWS_DEFAULT_REGION", "AWS_REGION",
		"RESTIC_AWS_ASSUME_ROLE_ARN", "RESTIC_AWS_ASSUME_ROLE_SESSION_NAME",
		"RESTIC_AWS_ASSUME_ROLE_EXTERNAL_ID", "RESTIC_AWS_ASSUME_ROLE_REGION",
		"RESTIC_AWS_ASSUME_ROLE_POLICY", "RESTIC_AWS_ASSUME_ROLE_STS_ENDPOINT",
	},
	SchemeB2: {"B2_ACCOUNT_ID", "B2_ACCOUNT_KEY"},
	SchemeAzure: {
		"AZURE_ACCOUNT_NAME", "AZURE_ACCOUNT_KEY", "AZURE_ACCOUNT_SAS",
		"AZURE_ENDPOINT_SUFFIX",
	},
	SchemeGS: {"GOOGLE_PROJECT_ID", "GOOGLE_APPLICATION_CREDENTIALS", "GOOGLE_ACCESS_TOKEN"},
	SchemeSwift: {
		"ST_AUTH", "ST_USER", "ST_KEY",
		"OS_AUTH_URL", "OS_REGION_NAME", "OS_USERNAME", "OS_USER_ID", "OS_PASSWORD",
		"OS_TENANT_ID", "OS_TENANT_NAME", "OS_USER_DOMAIN_NAME", "OS_USER_DOMAIN_ID",
		"OS_PROJECT_NAME", "OS_PROJECT_DOMAIN_NAME", "OS_PROJECT_DOMAIN_ID", "OS_TRUST_ID",
		"OS_APPLICATION_CREDENTIAL_ID", "OS_APPLICATION_CREDENTIAL_NAME", "OS_APPLICATION_CREDENTIAL_SECRET",
		"OS_STORAGE_URL", "OS_AUTH_TOKEN", "SWIFT_DEFAULT_CONTAINER_POLICY",
	},
	SchemeSFTP:   nil,
	SchemeRclone: nil,
}

// URLScheme tells which backend restic would use for a repository URL, by the
// rule restic has: a known word before the first colon, else a local path.
func URLScheme(url string) string {
	scheme, _, found := strings.Cut(url, ":")
	if found && scheme != SchemeLocal {
		if _, known := backendEnv[scheme]; known {
			return scheme
		}
	}
	return SchemeLocal
}

// BackendEnv lists, sorted, the environment names that a repository of this
// scheme may set; none for local paths, sftp, rclone and unknown schemes. The
// server refuses other names when they are entered, the agent drops a command
// that carries one.
func BackendEnv(scheme string) []string {
	return slices.Sorted(slices.Values(backendEnv[scheme]))
}

// BackendEnvAllowed says whether a repository of this scheme may set name.
func BackendEnvAllowed(scheme, name string) bool {
	return slices.Contains(backendEnv[scheme], name)
}
