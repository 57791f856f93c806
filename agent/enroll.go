package agent

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"strings"

	"resticfleet/agent/protocol"
	"resticfleet/agent/transport"
)

// Enrollment is what an operator gives to make this machine a host.
type Enrollment struct {
	Server   string
	Token    string // single use
	StateDir string
	Version  string
	// CAFile names certificate authorities to trust besides the system's.
	CAFile         string
	AllowPlainHTTP bool
	// Timezone as in Options.
	Timezone string
}

// Enroll makes a key, hands its public half to the server with the token, and
// keeps the credential it gets. An enrolment that was there before is replaced,
// only after the server has answered; the journal stays. It returns the host's
// id.
func Enroll(ctx context.Context, e Enrollment) (hostID string, err error) {
	c := Config{AllowPlainHTTP: e.AllowPlainHTTP}
	if c.Server, err = serverAddress(e.Server, e.AllowPlainHTTP); err != nil {
		return "", err
	}
	token := strings.TrimSpace(e.Token)
	if token == "" {
		return "", errors.New("the enrolment token is missing: the server's page for adding a host shows one, give it with --token, --token-file or RESTICFLEET_TOKEN")
	}
	if e.CAFile != "" {
		if c.CAFile, err = filepath.Abs(e.CAFile); err != nil {
			return "", err
		}
	}
	zone, err := ZoneName(e.Timezone)
	if err != nil {
		return "", err
	}
	dir, err := filepath.Abs(e.StateDir)
	if err != nil {
		return "", err
	}
	if err := privateDir(dir); err != nil {
		return "", err
	}
	// The token counts once: what could fail afterwards is tried before.
	if err := probeWrite(dir); err != nil {
		return "", err
	}
	hostname, err := os.Hostname()
	if err != nil {
		return "", fmt.Errorf("this machine's name: %w", err)
	}
	private, public, err := protocol.NewKey()
	if err != nil {
		return "", err
	}
	c.PrivateKey = private
	granted, err := transport.Enroll(ctx, transport.Config{Server: c.Server, CAFile: c.CAFile, UserAgent: userAgent(e.Version)},
		protocol.EnrollRequest{
			Token: token, Hostname: hostname, OS: runtime.GOOS, Arch: runtime.GOARCH,
			AgentVersion: e.Version, Timezone: zone, PublicKey: base64.StdEncoding.EncodeToString(public),
		})
	if err != nil {
		return "", withEnrollRemedy(err)
	}
	c.HostID, c.AgentToken = granted.HostID, Token(granted.AgentToken)
	if err := c.save(dir); err != nil {
		return "", fmt.Errorf("%w; the token is used up: mend that, then enrol with a new one", err)
	}
	return c.HostID, nil
}

func withEnrollRemedy(err error) error {
	var refused *transport.RefusedError
	if !errors.As(err, &refused) {
		return err
	}
	switch refused.Status {
	case http.StatusUnauthorized, http.StatusForbidden, http.StatusConflict, http.StatusGone, http.StatusUnprocessableEntity:
		return fmt.Errorf("%w: a token counts once and for an hour, make a new one on the host's page", err)
	case http.StatusNotFound:
		return fmt.Errorf("%w: check that the address is a Resticfleet server's", err)
	}
	return err
}

func probeWrite(dir string) error {
	path := filepath.Join(dir, ".probe")
	if err := writeDurably(path, nil); err != nil {
		return fmt.Errorf("the state directory can't be written to: %w", err)
	}
	return os.Remove(path)
}

func userAgent(version string) string { return "resticfleet-agent/" + version }
