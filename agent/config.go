package agent

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strings"

	"resticfleet/agent/protocol"
)

// Token is an agent's credential. It shows itself to nobody but JSON, and that
// only into the agent's own file.
type Token string

// PrivateKey is the private half of an agent's key, as shy as Token.
type PrivateKey []byte

const redacted = "[redacted]"

// String, GoString and LogValue hide what must not be printed.
func (Token) String() string { return redacted }

// GoString hides the token from %#v.
func (Token) GoString() string { return redacted }

// LogValue hides the token from slog.
func (Token) LogValue() slog.Value { return slog.StringValue(redacted) }

// String hides the key.
func (PrivateKey) String() string { return redacted }

// GoString hides the key from %#v.
func (PrivateKey) GoString() string { return redacted }

// LogValue hides the key from slog.
func (PrivateKey) LogValue() slog.Value { return slog.StringValue(redacted) }

// Config is what an enrolment leaves in the state directory, as agent.json
// with mode 0600.
type Config struct {
	Server     string     `json:"server"`
	HostID     string     `json:"host_id"`
	AgentToken Token      `json:"agent_token"`
	PrivateKey PrivateKey `json:"private_key"`
	CAFile     string     `json:"ca_file,omitempty"`
	// AllowPlainHTTP remembers that somebody allowed http:// to a server that
	// is not this machine.
	AllowPlainHTTP bool `json:"allow_plain_http,omitempty"`
}

// ErrNotEnrolled: the state directory holds no enrolment.
var ErrNotEnrolled = errors.New("this host is not enrolled")

func configPath(stateDir string) string { return filepath.Join(stateDir, "agent.json") }

// LoadConfig reads the enrolment in a state directory. ErrNotEnrolled when
// there is none.
func LoadConfig(stateDir string) (Config, error) {
	const remedy = "resticfleet-agent enroll --server URL --token TOKEN --state-dir "
	var c Config
	found, err := readJSON(configPath(stateDir), &c)
	if err != nil {
		return Config{}, fmt.Errorf("the agent's configuration can't be read (%w): mend it or enrol again with %s%s", err, remedy, stateDir)
	}
	if !found {
		return Config{}, fmt.Errorf("%w with the state directory %s: run %s%s", ErrNotEnrolled, stateDir, remedy, stateDir)
	}
	if c.HostID == "" || c.AgentToken == "" {
		return Config{}, fmt.Errorf("%s is not complete: enrol again with %s%s", configPath(stateDir), remedy, stateDir)
	}
	if _, err := protocol.PublicKey(c.PrivateKey); err != nil {
		return Config{}, fmt.Errorf("the key in %s is damaged: enrol again with %s%s", configPath(stateDir), remedy, stateDir)
	}
	c.Server, err = serverAddress(c.Server, c.AllowPlainHTTP)
	return c, err
}

func (c Config) save(stateDir string) error {
	if err := writeJSONDurably(configPath(stateDir), c); err != nil {
		return fmt.Errorf("the enrolment can't be written down: %w", err)
	}
	return nil
}

// serverAddress checks a server's address and brings it into one form.
func serverAddress(address string, allowPlain bool) (string, error) {
	u, err := url.Parse(address)
	if err != nil || u.Host == "" || (u.Scheme != "http" && u.Scheme != "https") {
		return "", fmt.Errorf("the server's address %q is not one: it begins with https:// and a name", withoutUser(address))
	}
	if u.User != nil || u.RawQuery != "" || u.Fragment != "" {
		return "", fmt.Errorf("the server's address %q must have no user, query or fragment: leave them out", u.Redacted())
	}
	if u.Scheme == "http" && !allowPlain && !isLoopback(u.Hostname()) {
		return "", fmt.Errorf("%s would carry this host's credential in clear over the network: use https://, or allow it with --allow-plain-http where the way there is safe by other means", address)
	}
	return strings.TrimRight(u.String(), "/"), nil
}

// withoutUser drops what may be a password from an address that can't be parsed.
func withoutUser(address string) string {
	if at := strings.LastIndexByte(address, '@'); at >= 0 {
		return "…" + address[at:]
	}
	return address
}

func isLoopback(host string) bool {
	ip := net.ParseIP(host)
	return strings.EqualFold(host, "localhost") || (ip != nil && ip.IsLoopback())
}

// privateDir makes a state directory that nobody else can enter. It takes away
// others' access from a folder that is the agent's or empty, and from no other:
// --state-dir /tmp is a slip of the hand.
func privateDir(dir string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("state directory: %w", err)
	}
	info, err := os.Stat(dir)
	if err != nil {
		return fmt.Errorf("state directory: %w", err)
	}
	if info.Mode().Perm()&0o077 == 0 {
		return nil
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return fmt.Errorf("state directory: %w", err)
	}
	if _, err := os.Lstat(configPath(dir)); errors.Is(err, fs.ErrNotExist) && len(entries) > 0 {
		return fmt.Errorf("the folder %s is open to other users (%s) and holds other things: name one of the agent's own with --state-dir", dir, info.Mode().Perm())
	}
	if err := os.Chmod(dir, 0o700); err != nil {
		return fmt.Errorf("state directory: %w", err)
	}
	return nil
}
