package agent

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os/exec"
	"time"

	"resticfleet/agent/restic"
)

// prober tries whether a backend answers at all. restic itself retries for more
// than nine minutes without a word; a person should know within one.
type prober struct {
	endpoint restic.Endpoint
	env      []string
	client   *http.Client
}

const probeTimeout = 8 * time.Second

// newProber gives nil where there is nothing to probe.
func newProber(endpoint restic.Endpoint, env []string) *prober {
	if endpoint.HTTP == "" && endpoint.SSH.Host == "" {
		return nil
	}
	return &prober{endpoint: endpoint, env: env, client: &http.Client{
		// The same proxies and certificate authorities as restic uses.
		Transport:     &http.Transport{Proxy: http.ProxyFromEnvironment, DisableKeepAlives: true},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}
}

// try answers nil when somebody answers, or when trying can't tell.
func (p *prober) try(ctx context.Context) error {
	ctx, stop := context.WithTimeout(ctx, probeTimeout)
	defer stop()
	if p.endpoint.HTTP != "" {
		return p.tryHTTP(ctx)
	}
	return p.trySSH(ctx)
}

func (p *prober) tryHTTP(ctx context.Context) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, p.endpoint.HTTP, nil)
	if err != nil {
		return nil
	}
	answer, err := p.client.Do(req)
	if err != nil {
		if errors.Is(err, context.DeadlineExceeded) {
			return fmt.Errorf("no answer from %s within %s", p.endpoint.HTTP, probeTimeout)
		}
		return err
	}
	_ = answer.Body.Close() // only the status matters
	switch answer.StatusCode {
	case http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout:
		return fmt.Errorf("%s answers %s", p.endpoint.HTTP, answer.Status)
	}
	return nil
}

func (p *prober) trySSH(ctx context.Context) error {
	// ssh's configuration may give the host another name, port or way.
	cmd := exec.CommandContext(ctx, "ssh", append([]string{"-G"}, p.endpoint.SSH.Words()...)...)
	cmd.Env = p.env
	printed, err := cmd.Output()
	if err != nil {
		return nil
	}
	address, direct := restic.ParseSSHConfig(string(printed))
	if !direct {
		return nil
	}
	conn, err := new(net.Dialer).DialContext(ctx, "tcp", address)
	if err != nil {
		return err
	}
	_ = conn.Close() // it answered
	return nil
}

// probeResult is one try: when it began, and why it failed.
type probeResult struct {
	at  time.Time
	err error
}

// probeLoop tries until ctx ends. Its goroutine belongs to the runner.
func (r *Runner) probeLoop(ctx context.Context, p *prober) <-chan probeResult {
	results := make(chan probeResult)
	r.wg.Go(func() {
		delay := time.NewTimer(r.cfg.ProbeAfter)
		defer delay.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-delay.C:
			}
			result := probeResult{at: time.Now()}
			result.err = p.try(ctx)
			select {
			case <-ctx.Done():
				return
			case results <- result:
			}
			delay.Reset(r.cfg.ProbeEvery)
		}
	})
	return results
}

// giveUp: restic has said nothing but that it tries again, and its backend has been failing in
// every try for long enough. One that spoke or whose backend answered is left
// alone.
func (f *follower) giveUp(p probeResult) bool {
	if p.err == nil || f.out.Spoke() {
		f.failingSince = time.Time{}
		return false
	}
	if f.failingSince.IsZero() {
		f.failingSince = p.at
	}
	f.probeErr = p.err
	return time.Since(f.failingSince) >= f.r.cfg.ProbeLimit
}
