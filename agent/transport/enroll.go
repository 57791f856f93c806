package transport

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"

	"resticfleet/agent/protocol"
)

// Enroll exchanges an enrolment token for the agent's credential. It makes one
// attempt: a token counts once, so a repetition is the caller's to decide.
// A *RefusedError carries the server's reason.
func Enroll(ctx context.Context, c Config, r protocol.EnrollRequest) (protocol.EnrollResponse, error) {
	c = c.withDefaults()
	var granted protocol.EnrollResponse
	to, err := c.endpoint("enroll")
	if err != nil {
		return granted, err
	}
	tlsConfig, err := c.tlsConfig()
	if err != nil {
		return granted, err
	}
	body, err := json.Marshal(r)
	if err != nil {
		return granted, err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, to.String(), bytes.NewReader(body))
	if err != nil {
		return granted, err
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("User-Agent", c.UserAgent)
	client := &http.Client{
		Transport: &http.Transport{
			Proxy: c.Proxy, TLSClientConfig: tlsConfig, TLSHandshakeTimeout: c.HandshakeTimeout,
			DisableKeepAlives: true, ForceAttemptHTTP2: true,
		},
		Timeout: 2 * c.HandshakeTimeout,
		// A redirect could carry the token to where nobody meant it to go.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	answer, err := client.Do(req)
	if err != nil {
		return granted, c.unreachable(err)
	}
	defer answer.Body.Close()
	if answer.StatusCode/100 != 2 {
		return granted, refused(answer)
	}
	if err := json.NewDecoder(http.MaxBytesReader(nil, answer.Body, protocol.MaxFrame)).Decode(&granted); err != nil {
		return granted, fmt.Errorf("%s answers with something else than a Resticfleet server does (%w): check the address", c.Server, err)
	}
	if granted.HostID == "" || granted.AgentToken == "" {
		return granted, errors.New("the server's answer names no host and no credential: check the address")
	}
	return granted, nil
}
