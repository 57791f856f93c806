package restic

import (
	"slices"
	"strings"

	"resticfleet/agent/protocol"
)

// Descriptors on which restic inherits what must not stand in its arguments:
// pipes that hold the text and are closed at the other end.
const (
	PasswordFD   = 3
	RepositoryFD = 4
)

// inherited are the names restic may have from the agent's own environment.
// Everything else stays out: RESTIC_* and AWS_* of the account that started
// the agent would change what a job means.
var inherited = []string{
	"PATH", "HOME", "USER", "LOGNAME", "TMPDIR", "LANG", "TZ",
	"HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "no_proxy",
	"SSL_CERT_FILE", "SSL_CERT_DIR", "SSH_AUTH_SOCK",
}

// BaseEnv filters the agent's environment down to what restic, and the
// supervisor above it, may have. It holds no repository secret.
func BaseEnv(environ []string) []string {
	var kept []string
	for _, kv := range environ {
		name, _, _ := strings.Cut(kv, "=")
		if slices.Contains(inherited, name) || strings.HasPrefix(name, "LC_") {
			kept = append(kept, kv)
		}
	}
	return kept
}

// SettingsEnv is what the agent itself tells restic by environment.
// Two status lines a second are plenty for a page that shows one, and keep the
// output of a day's run small.
func SettingsEnv(cacheDir string) []string {
	return []string{
		"RESTIC_CACHE_DIR=" + cacheDir,
		"RESTIC_PASSWORD_FILE=/dev/fd/3",
		"RESTIC_PROGRESS_FPS=2",
		"RESTIC_REPOSITORY_FILE=/dev/fd/4",
	}
}

// BackendEnv renders a repository's own variables. refused lists the names
// that its scheme doesn't know; a command with any must not run.
func BackendEnv(url string, env map[string]string) (kept, refused []string) {
	scheme := protocol.URLScheme(url)
	for name, value := range env {
		if !protocol.BackendEnvAllowed(scheme, name) || strings.ContainsRune(value, 0) {
			refused = append(refused, name)
			continue
		}
		kept = append(kept, name+"="+value)
	}
	slices.Sort(kept)
	slices.Sort(refused)
	return kept, refused
}
