package transport

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"net/http/httptrace"
	"net/url"
	"sync/atomic"
	"time"

	"resticfleet/agent/protocol"
)

// bootHeader names the server's process in every answer of its.
const bootHeader = "Resticfleet-Boot"

// maxAnswer bounds an answer: many commands may come at once, each of at most
// protocol.MaxFrame.
const maxAnswer = 16 * protocol.MaxFrame

// answer is what the server says to a batch, and to a poll.
type answer struct {
	Acknowledged []string             `json:"acknowledged"`
	Rejected     []protocol.Rejection `json:"rejected"`
	Messages     []json.RawMessage    `json:"messages"`
}

// lineError is a request that no server answered. It may be tried again.
type lineError struct {
	err       error
	connected bool // there was a connection, and it ended or something in it spoke
	stalled   bool // nothing came before our own deadline
}

func (e *lineError) Error() string { return e.err.Error() }
func (e *lineError) Unwrap() error { return e.err }

// newClient gives requests HTTP/1.1 connections of their own: a poll and a
// message that share one would stall as one.
func (c Config) newClient() (*http.Client, error) {
	tlsConfig, err := c.tlsConfig()
	if err != nil {
		return nil, err
	}
	only := new(http.Protocols)
	only.SetHTTP1(true)
	return &http.Client{
		Transport: &http.Transport{
			Proxy: c.Proxy, TLSClientConfig: tlsConfig, TLSHandshakeTimeout: c.HandshakeTimeout,
			Protocols: only, MaxIdleConnsPerHost: 2,
			// A middle box that forgets idle connections says nothing of it: a
			// request on a forgotten one would stall.
			IdleConnTimeout: 10 * time.Second,
		},
		// A redirect could carry the credential to where nobody meant it to go.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}, nil
}

// errCut is a request that lost its connection.
var errCut = errors.New("the connection ended before the answer")

// exchange makes one request. net/http asks again by itself when a kept
// connection turns out to be closed; later than patience it may not, 0 is any
// time. A *lineError may be tried again, a *RefusedError
// is an answer other than the one hoped for; nil without an error is a 204.
func (l *polling) exchange(ctx context.Context, method string, to *url.URL, body []byte, timeout, patience time.Duration) (*answer, error) {
	expired := errors.New("no answer came in " + timeout.Round(time.Millisecond).String())
	ctx, stop := context.WithTimeoutCause(ctx, timeout, expired)
	defer stop()
	ctx, lose := context.WithCancelCause(ctx)
	defer lose(nil)
	var connected atomic.Bool
	began := time.Now()
	ctx = httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{GotConn: func(httptrace.GotConnInfo) {
		if again := connected.Swap(true); again && patience > 0 && time.Since(began) > patience {
			lose(errCut)
		}
	}})
	req, err := http.NewRequestWithContext(ctx, method, to.String(), bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	req.Header.Set("Authorization", "Bearer "+l.config.Token)
	req.Header.Set("User-Agent", l.config.UserAgent)
	req.Header.Set("Accept", "application/json")
	// Not sent: it tells net/http that a request may go again, over another
	// connection, when a kept one turns out to be closed.
	req.Header["Idempotency-Key"] = nil
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	broken := func(err error) error {
		var at *url.Error
		if errors.As(err, &at) {
			err = at.Err // the address is named elsewhere, and holds the session
		}
		cause := context.Cause(ctx)
		stalled := errors.Is(cause, expired)
		if stalled || errors.Is(cause, errCut) {
			err = cause
		}
		return &lineError{l.config.unreachable(err), connected.Load(), stalled && connected.Load()}
	}
	got, err := l.client.Do(req)
	if err != nil {
		return nil, broken(err)
	}
	defer got.Body.Close()
	boot := got.Header.Get(bootHeader)
	switch got.StatusCode {
	case http.StatusOK:
	case http.StatusNoContent:
		l.answeredBy(boot)
		return nil, nil
	case http.StatusRequestTimeout, http.StatusBadGateway, http.StatusGatewayTimeout:
		return nil, &lineError{refused(got), true, false}
	default:
		return nil, refused(got)
	}
	if kind, _, _ := mime.ParseMediaType(got.Header.Get("Content-Type")); kind != "application/json" {
		e := refused(got)
		if e.Foreign = true; e.Detail == "" {
			e.Detail = "something of the type “" + oneLine(kind) + "”"
		}
		return nil, e
	}
	raw, err := io.ReadAll(io.LimitReader(got.Body, maxAnswer+1))
	if err != nil {
		return nil, broken(err)
	}
	if len(raw) > maxAnswer {
		return nil, fmt.Errorf("the server sent more than %d bytes at once", maxAnswer)
	}
	a := new(answer)
	if err := json.Unmarshal(raw, a); err != nil || a.Messages == nil {
		return nil, &RefusedError{Status: got.StatusCode, Detail: "JSON that is none of a Resticfleet server's", Foreign: true}
	}
	l.answeredBy(boot)
	return a, nil
}
