package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"os"
	"strings"
	"sync"
	"time"

	"resticfleet/agent/failpoint"
	"resticfleet/handlers"
	"resticfleet/handlers/agentapi"
	"resticfleet/handlers/live"
	"resticfleet/jobs"
	"resticfleet/models"
	"resticfleet/models/postgres"
	"resticfleet/static"
)

type serveCommand struct {
	databaseFlags
	secretKeyFlags
	Listen         string        `help:"Address to listen on; port 0 takes a free one." default:"127.0.0.1:8080" env:"RESTICFLEET_LISTEN"`
	BaseURL        string        `help:"Where people and agents reach the server, as in https://backup.example.net." env:"RESTICFLEET_BASE_URL"`
	TrustedProxies []string      `help:"Networks whose X-Forwarded-* headers are believed, as in 10.0.0.0/8." env:"RESTICFLEET_TRUSTED_PROXIES"`
	ScheduleJitter time.Duration `help:"Window in which agents spread their schedules." default:"0s" env:"RESTICFLEET_SCHEDULE_JITTER"`
	ExpireAfter    time.Duration `help:"A job whose host does not come for it expires after this." default:"24h" env:"RESTICFLEET_EXPIRE_AFTER"`
	LostAfter      time.Duration `help:"A job whose host falls silent is lost after this." default:"15m" env:"RESTICFLEET_LOST_AFTER"`
	MaintainEvery  time.Duration `help:"How often to look what maintenance is due." default:"10s" hidden:""`
	TLSCert        string        `name:"tls-cert" help:"Certificate file; with --tls-key the server speaks https." env:"RESTICFLEET_TLS_CERT" type:"path"`
	TLSKey         string        `name:"tls-key" help:"Key file of the certificate." env:"RESTICFLEET_TLS_KEY" type:"path"`
}

// shortestSilence is well above the time between two notes of a linked host's
// contact, which would pass for silence below it.
const shortestSilence = 30 * time.Second

// Validate refuses what would end the jobs of hosts that are there. The fault
// suite's programs, whose hosts are away for good, have no time to wait.
func (c serveCommand) Validate() error {
	if failpoint.Built {
		return nil
	}
	for _, f := range []struct {
		name  string
		after time.Duration
	}{{"--expire-after", c.ExpireAfter}, {"--lost-after", c.LostAfter}} {
		if f.after < shortestSilence {
			return fmt.Errorf("%s is %v, but a host that is there is noted only every 20 s, and would count as silent in between: give %v or more", f.name, f.after, shortestSilence)
		}
	}
	return nil
}

// Run serves until ctx ends.
func (c serveCommand) Run(ctx context.Context) error {
	log := slog.New(slog.NewTextHandler(os.Stderr, nil))
	s, err := startServer(ctx, c, log)
	if err != nil {
		return err
	}
	fmt.Println("Dashboard:", s.url)
	if err := s.inviteAdministrator(ctx, os.Stdout); err != nil {
		s.stop()
		return err
	}
	select {
	case <-ctx.Done():
		s.stop()
		return nil
	case err := <-s.failed:
		s.stop()
		return err
	}
}

// server is everything that runs in one process, in the order it was started.
type server struct {
	url    string
	db     *models.DB
	jobs   *jobs.Service
	failed chan error
	stop   func()
}

// startServer returns when requests are answered. The stops run in reverse
// order, once.
func startServer(ctx context.Context, c serveCommand, log *slog.Logger) (_ *server, err error) {
	var stops []func()
	s := &server{failed: make(chan error, 1)}
	s.stop = sync.OnceFunc(func() {
		for i := len(stops) - 1; i >= 0; i-- {
			stops[i]()
		}
	})
	defer func() {
		if err != nil {
			s.stop()
		}
	}()
	proxies, err := parseNetworks(c.TrustedProxies)
	if err != nil {
		return nil, err
	}
	if (c.TLSCert == "") != (c.TLSKey == "") {
		return nil, errors.New("--tls-cert and --tls-key belong together: give both or neither")
	}
	databaseURL, err := c.url()
	if err != nil {
		return nil, err
	}
	if databaseURL == "" {
		own, err := postgres.Start(ctx, postgres.Config{DataDir: c.DataDir, Logger: log})
		if err != nil {
			return nil, err
		}
		stops = append(stops, own.Stop)
		databaseURL = own.URL()
	}
	if s.db, err = connect(ctx, databaseURL); err != nil {
		return nil, err
	}
	stops = append(stops, func() { _ = s.db.Close() })
	sealer, err := c.sealer(c.DataDir)
	if err != nil {
		return nil, err
	}
	if err := models.CheckSealer(ctx, s.db, sealer); err != nil {
		return nil, err
	}
	// Before the first page says who is safe.
	if err := models.KeepLateness(ctx, s.db, c.ScheduleJitter); err != nil {
		return nil, err
	}
	assets, err := static.New()
	if err != nil {
		return nil, err
	}
	// Before anything can answer, so that a taken port is an error at once.
	listener, err := net.Listen("tcp", c.Listen)
	if err != nil {
		return nil, fmt.Errorf("--listen: %w", err)
	}
	stops = append(stops, func() { _ = listener.Close() })
	s.url = c.shownURL(listener.Addr())

	hub := live.NewHub()
	stops = append(stops, background(live.NewRelay(hub, databaseURL, log).Run))
	s.jobs = jobs.New(jobs.Config{DB: s.db, Sealer: sealer, Hints: hub, Log: log, ScheduleJitter: c.ScheduleJitter, ExpireAfter: c.ExpireAfter, LostAfter: c.LostAfter, MaintainEvery: c.MaintainEvery})
	agents := agentapi.New(agentapi.Config{DB: s.db, Jobs: s.jobs, Hub: hub, Log: log})
	stops = append(stops, background(agents.Run), background(s.jobs.Listen), background(s.jobs.Maintain), background(func(ctx context.Context) { sweep(ctx, s.db, c.ScheduleJitter, log) }))

	router := handlers.New(handlers.Config{
		DB: s.db, Jobs: s.jobs, Hub: hub, Agents: agents, Assets: assets, Log: log,
		BaseURL: strings.TrimRight(c.BaseURL, "/"), TrustedProxies: proxies,
	})
	stops = append(stops, serveHTTP(router, listener, c.TLSCert, c.TLSKey, log, s.failed), agents.Close)
	log.InfoContext(ctx, "serving", "url", s.url, "version", version)
	return s, nil
}

// serveHTTP answers until the function it returns is called. Open event
// streams end with it: their requests' context does.
func serveHTTP(h http.Handler, l net.Listener, cert, key string, log *slog.Logger, failed chan<- error) (stop func()) {
	requests, end := context.WithCancel(context.Background())
	web := &http.Server{
		Handler: h, ReadHeaderTimeout: 10 * time.Second, ReadTimeout: 60 * time.Second, WriteTimeout: 60 * time.Second, IdleTimeout: 2 * time.Minute,
		BaseContext: func(net.Listener) context.Context { return requests },
		ErrorLog:    slog.NewLogLogger(log.Handler(), slog.LevelDebug),
	}
	web.RegisterOnShutdown(end)
	done := make(chan struct{})
	go func() {
		defer close(done)
		var err error
		if cert != "" {
			err = web.ServeTLS(l, cert, key)
		} else {
			err = web.Serve(l)
		}
		if !errors.Is(err, http.ErrServerClosed) {
			failed <- fmt.Errorf("serving stopped: %w", err)
		}
	}()
	return func() {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		if err := web.Shutdown(ctx); err != nil {
			log.Warn("requests were cut off", "err", err)
			_ = web.Close()
		}
		end()
		<-done
	}
}

// background runs f until the function it returns is called, which waits.
func background(f func(context.Context)) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() { f(ctx) })
	return func() { cancel(); wg.Wait() }
}

// sweep forgets what has expired and repairs what an older server beside this
// one doesn't keep, once an hour.
func sweep(ctx context.Context, db *models.DB, jitter time.Duration, log *slog.Logger) {
	tick := time.NewTicker(time.Hour)
	defer tick.Stop()
	for {
		if err := models.SweepExpired(ctx, db); err != nil && ctx.Err() == nil {
			log.WarnContext(ctx, "expired sessions stay until the next sweep", "err", err)
		}
		if err := models.SweepLookUps(ctx, db); err != nil && ctx.Err() == nil {
			log.WarnContext(ctx, "old look-ups stay until the next sweep", "err", err)
		}
		if err := models.KeepLateness(ctx, db, jitter); err != nil && ctx.Err() == nil {
			log.WarnContext(ctx, "who is late is as old as the sweep before", "err", err)
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// shownURL is where a person on this machine reaches the server.
func (c serveCommand) shownURL(addr net.Addr) string {
	if c.BaseURL != "" {
		return strings.TrimRight(c.BaseURL, "/")
	}
	host, port, err := net.SplitHostPort(addr.String())
	if err != nil {
		return addr.String()
	}
	if ip := net.ParseIP(host); ip == nil || ip.IsUnspecified() {
		host = "localhost"
	}
	u := url.URL{Scheme: "http", Host: net.JoinHostPort(host, port)}
	if c.TLSCert != "" {
		u.Scheme = "https"
	}
	return u.String()
}

// inviteAdministrator prints the one-time link while there are no users.
func (s *server) inviteAdministrator(ctx context.Context, out io.Writer) error {
	has, err := models.HasUsers(ctx, s.db)
	if err != nil || has {
		return err
	}
	token, err := models.NewSetupLink(ctx, s.db)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintln(out, "No users yet. Set up the administrator within an hour:", setupURL(s.url, token))
	return err
}

func parseNetworks(texts []string) ([]*net.IPNet, error) {
	var out []*net.IPNet
	for _, text := range texts {
		if !strings.Contains(text, "/") {
			if ip := net.ParseIP(text); ip != nil {
				text = fmt.Sprintf("%s/%d", text, map[bool]int{true: 32, false: 128}[ip.To4() != nil])
			}
		}
		_, n, err := net.ParseCIDR(text)
		if err != nil {
			return nil, fmt.Errorf("--trusted-proxies: %q is no network; write it as 10.0.0.0/8", text)
		}
		out = append(out, n)
	}
	return out, nil
}
