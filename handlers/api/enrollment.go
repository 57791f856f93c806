package api

import (
	"context"
	"net"
	"net/http"
	"net/url"
	"regexp"
	"strings"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humaecho"

	"resticfleet/models"
)

type enrollmentToken struct {
	Token     string `json:"token" doc:"Shown once, usable once."`
	ExpiresAt string `json:"expires_at" format:"date-time"`
	Command   string `json:"command" doc:"What to run on the host."`
}

// TokenRequest keeps the request itself, by which the server's own address may
// have to be found.
type TokenRequest struct {
	HostPath
	request *http.Request
}

// Resolve implements huma.Resolver.
func (t *TokenRequest) Resolve(c huma.Context) []error {
	t.request = humaecho.Unwrap(c).Request()
	return nil
}

type tokenAnswer struct {
	CacheControl string `header:"Cache-Control"`
	Body         enrollmentToken
}

func (s *server) addEnrollmentToken(ctx context.Context, in *TokenRequest) (*tokenAnswer, error) {
	id, err := in.hostID()
	if err != nil {
		return nil, err
	}
	token, expiresAt, err := models.NewEnrollmentToken(ctx, s.DB, id)
	if err != nil {
		return nil, err
	}
	return &tokenAnswer{"no-store", enrollmentToken{
		Token: token, ExpiresAt: timestamp(expiresAt), Command: EnrollCommand(s.BaseURL(in.request), token),
	}}, nil
}

// stateDir is where the lines that people paste keep an agent's state; the
// unit in deploy/ says the same.
const stateDir = "/var/lib/resticfleet-agent"

// RunCommand is what to start on a host once it has enrolled.
const RunCommand = "resticfleet-agent run --state-dir " + stateDir

// EnrollCommand is what to run on a host, by programs and pages alike. It
// allows plain http where the server has nothing else to offer: the agent
// refuses that unless it is told.
func EnrollCommand(base, token string) string {
	base = strings.TrimRight(base, "/")
	command := "resticfleet-agent enroll --server " + shellWord(base)
	if ReachOf(base) == ReachPlain {
		command += " --allow-plain-http"
	}
	return command + " --token " + token + " --state-dir " + stateDir
}

// Reach is what an address of the server means to an agent.
type Reach int

// The kinds of addresses.
const (
	ReachTLS      Reach = iota // https, from wherever the name leads here
	ReachPlain                 // http over a network, in clear
	ReachLoopback              // this machine alone, by whatever scheme
)

// ReachOf tells what an agent can do with an address.
func ReachOf(base string) Reach {
	u, err := url.Parse(base)
	if err != nil {
		return ReachPlain
	}
	ip := net.ParseIP(u.Hostname())
	switch {
	case strings.EqualFold(u.Hostname(), "localhost") || (ip != nil && ip.IsLoopback()):
		return ReachLoopback
	case u.Scheme == "https":
		return ReachTLS
	}
	return ReachPlain
}

var plainWord = regexp.MustCompile(`^[A-Za-z0-9:/._~%@+=,-]+$`)

// shellWord quotes what a shell would not take for one plain word. The address
// may come from a Host header.
func shellWord(s string) string {
	if plainWord.MatchString(s) {
		return s
	}
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}
