// Package transport carries envelopes between an agent and its server. It
// knows nothing of what they say: whatever carries them, the same code speaks
// and listens.
package transport

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"strings"
	"time"

	"resticfleet/agent/protocol"
)

// Link is one connection to the server. Send may be called by any number of
// goroutines, Receive and Welcomed by one.
type Link interface {
	// Send returns once the message has left or stands in the line of what
	// leaves next; that is no receipt, the server's ack is. When ctx ends first,
	// the message may have left all the same. Messages of one goroutine arrive
	// in the order they were sent, but one that the server could not settle may
	// come again later.
	Send(ctx context.Context, e protocol.Envelope) error

	// Receive waits for the next message. A *MalformedError is about one
	// message, the link goes on; so it does with ctx's error, and with
	// ErrHelloAgain. Any other error is the reason why the link has ended, and
	// is returned ever after.
	Receive(ctx context.Context) (protocol.Envelope, error)

	// Welcomed takes over what the server's welcome says of intervals. From then
	// on silence ends the link; how long to wait for the welcome is the caller's.
	Welcomed(w protocol.Welcome)

	// Close says goodbye where that is quickly possible, and returns when
	// nothing of the link works any more. Idempotent.
	Close()
}

// ErrClosed is what a link answers after Close.
var ErrClosed = errors.New("the link was closed by this agent")

// ErrHelloAgain says that the link needs a new hello, which opens a new session
// on it: the server's process is another, or the last hello is long ago.
var ErrHelloAgain = errors.New("the link needs a new hello")

// ErrBroken is a link that ended without a word of the server's: something on
// the way let go, or the server is gone.
var ErrBroken = errors.New("the link broke")

// ErrTooLarge refuses a message that the server would end the link for.
var ErrTooLarge = fmt.Errorf("the message is larger than %d bytes", protocol.MaxFrame)

// MalformedError is about one message that can't be read.
type MalformedError struct{ Err error }

func (e *MalformedError) Error() string { return "malformed message: " + e.Err.Error() }
func (e *MalformedError) Unwrap() error { return e.Err }

// Config says how to reach a server. Server and Token are needed.
type Config struct {
	// Server is the server's address: http or https, and a path where it
	// stands below one.
	Server string
	// Token is the agent's credential. It is sent as a header and nowhere else.
	Token string
	// CAFile names certificate authorities (PEM) to trust besides the system's.
	CAFile    string
	UserAgent string

	// Proxy is http.ProxyFromEnvironment unless told.
	Proxy            func(*http.Request) (*url.URL, error)
	HandshakeTimeout time.Duration // 15 s
	WriteTimeout     time.Duration // for one frame; 30 s
	// PingInterval counts until the welcome names one; 15 s.
	PingInterval time.Duration

	// Lessons is what the links of one agent know of the way; each begins anew
	// without.
	Lessons *Lessons
	// For polling. PollWait counts until the welcome names a time; 30 s.
	PollWait   time.Duration
	HelloEvery time.Duration // 10 min
	RetryPause time.Duration // the first of a growing row; 250 ms
}

func (c Config) withDefaults() Config {
	if c.Proxy == nil {
		c.Proxy = http.ProxyFromEnvironment
	}
	if c.HandshakeTimeout <= 0 {
		c.HandshakeTimeout = 15 * time.Second
	}
	if c.WriteTimeout <= 0 {
		c.WriteTimeout = 30 * time.Second
	}
	if c.PingInterval <= 0 {
		c.PingInterval = 15 * time.Second
	}
	if c.PollWait <= 0 {
		c.PollWait = 30 * time.Second
	}
	if c.HelloEvery <= 0 {
		c.HelloEvery = 10 * time.Minute
	}
	if c.RetryPause <= 0 {
		c.RetryPause = 250 * time.Millisecond
	}
	if c.Lessons == nil {
		c.Lessons = new(Lessons)
	}
	return c
}

// endpoint is the address of one of the server's paths for agents.
func (c Config) endpoint(path string) (*url.URL, error) {
	u, err := url.Parse(c.Server)
	if err != nil {
		return nil, fmt.Errorf("the server's address: %w", err)
	}
	return u.JoinPath("agent", "v1", path), nil
}

func (c Config) tlsConfig() (*tls.Config, error) {
	config := &tls.Config{MinVersion: tls.VersionTLS12}
	if c.CAFile == "" {
		return config, nil
	}
	pem, err := os.ReadFile(c.CAFile)
	if err != nil {
		return nil, fmt.Errorf("the file of certificate authorities: %w", err)
	}
	// Without a system pool (a bare container) the file alone counts.
	if config.RootCAs, err = x509.SystemCertPool(); err != nil {
		config.RootCAs = x509.NewCertPool()
	}
	if !config.RootCAs.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("%s holds no certificate: it must be a PEM file", c.CAFile)
	}
	return config, nil
}

// unreachable puts a failed connection into a sentence, with a remedy where
// there is a sure one.
func (c Config) unreachable(err error) error {
	var unknown x509.UnknownAuthorityError
	var name x509.HostnameError
	switch {
	case errors.As(err, &unknown):
		return fmt.Errorf("%s shows a certificate of an authority that this machine doesn't know (%w): name the authority's certificate with --ca-file", c.Server, err)
	case errors.As(err, &name):
		return fmt.Errorf("%s shows a certificate for another name (%w): use the name that stands in it", c.Server, err)
	case strings.Contains(err.Error(), "server gave HTTP response to HTTPS client"), strings.Contains(err.Error(), "first record does not look like a TLS handshake"):
		return fmt.Errorf("%s speaks no TLS (%w): is it http:// ?", c.Server, err)
	}
	return fmt.Errorf("%s can't be reached: %w", c.Server, err)
}
