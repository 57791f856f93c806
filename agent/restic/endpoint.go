package restic

import (
	"net"
	"net/url"
	"strings"

	"resticfleet/agent/protocol"
)

// Endpoint is where a repository's backend listens: an HTTP(S) URL, or, for
// sftp, what ssh was given. The zero value means that there is nothing to try:
// a local path, or an address this package can't read.
type Endpoint struct {
	HTTP string
	SSH  SSHTarget
}

// SSHTarget is an sftp repository's machine as ssh's words; ssh's own
// configuration may still rename it or lead through another.
type SSHTarget struct{ Host, Port, User string }

// EndpointOf derives the endpoint from the repository's address and, where the
// address alone doesn't tell, its environment.
func EndpointOf(repository string, env map[string]string) Endpoint {
	scheme := protocol.URLScheme(repository)
	rest := strings.TrimPrefix(repository, scheme+":")
	switch scheme {
	case protocol.SchemeREST:
		return httpEndpoint(rest)
	case protocol.SchemeS3:
		if !strings.HasPrefix(rest, "http") {
			rest = "https://" + strings.TrimPrefix(rest, "//")
		}
		return httpEndpoint(rest)
	case protocol.SchemeB2:
		return Endpoint{HTTP: "https://api.backblazeb2.com/"}
	case protocol.SchemeGS:
		return Endpoint{HTTP: "https://storage.googleapis.com/"}
	case protocol.SchemeAzure:
		suffix := env["AZURE_ENDPOINT_SUFFIX"]
		if suffix == "" {
			suffix = "core.windows.net"
		}
		if env["AZURE_ACCOUNT_NAME"] == "" {
			return Endpoint{}
		}
		return httpEndpoint("https://" + env["AZURE_ACCOUNT_NAME"] + ".blob." + suffix + "/")
	case protocol.SchemeSwift:
		for _, name := range []string{"OS_STORAGE_URL", "OS_AUTH_URL", "ST_AUTH"} {
			if env[name] != "" {
				return httpEndpoint(env[name])
			}
		}
	case protocol.SchemeSFTP:
		return Endpoint{SSH: sshTarget(rest)}
	}
	return Endpoint{}
}

// httpEndpoint keeps scheme, host and port only: the probe must neither carry
// a credential nor touch the repository.
func httpEndpoint(raw string) Endpoint {
	u, err := url.Parse(raw)
	if err != nil || u.Host == "" || (u.Scheme != "http" && u.Scheme != "https") {
		return Endpoint{}
	}
	return Endpoint{HTTP: u.Scheme + "://" + u.Host + "/"}
}

// sshTarget reads restic's two spellings: //user@host[:port]/path and
// user@host:path.
func sshTarget(rest string) SSHTarget {
	var t SSHTarget
	if after, ok := strings.CutPrefix(rest, "//"); ok {
		u, err := url.Parse("ssh://" + after)
		if err != nil {
			return t
		}
		t.Host, t.Port, t.User = u.Hostname(), u.Port(), u.User.Username()
		return t
	}
	authority, _, found := strings.Cut(rest, ":")
	if !found {
		return t
	}
	at := strings.LastIndexByte(authority, '@')
	if at >= 0 {
		t.User = authority[:at]
	}
	t.Host = authority[at+1:]
	return t
}

// Words are ssh's arguments for this target.
func (t SSHTarget) Words() []string {
	var words []string
	if t.Port != "" {
		words = append(words, "-p", t.Port)
	}
	if t.User != "" {
		words = append(words, "-l", t.User)
	}
	return append(words, "--", t.Host)
}

// ParseSSHConfig reads what `ssh -G` prints: the address to dial. ok is false
// when ssh would go through another program or machine, so that a plain dial
// says nothing.
func ParseSSHConfig(printed string) (address string, ok bool) {
	var host, port string
	for line := range strings.Lines(printed) {
		name, value, _ := strings.Cut(strings.TrimSpace(line), " ")
		switch strings.ToLower(name) {
		case "hostname":
			host = value
		case "port":
			port = value
		case "proxycommand", "proxyjump":
			if value != "none" {
				return "", false
			}
		}
	}
	return net.JoinHostPort(host, port), host != "" && port != ""
}
