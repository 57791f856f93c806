// Package agentapi is what agents talk to: enrolment, the WebSocket link, and
// the schedule set for those who ask. Every refusal is logged here with the
// reason that the agent is given.
package agentapi

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"sync"
	"time"

	"github.com/labstack/echo/v4"

	"resticfleet/agent/protocol"
	"resticfleet/handlers/live"
	"resticfleet/jobs"
	"resticfleet/models"
)

// Config is what a Server needs; every field is required.
type Config struct {
	DB   *models.DB
	Jobs *jobs.Service
	Hub  *live.Hub
	Log  *slog.Logger
}

// Server holds the links of agents to this server.
type Server struct {
	Config

	mu    sync.Mutex
	links map[models.HostID]*socket
	polls map[models.HostID]*poll
	boot  string
	// versions answers those who ask whether their schedules moved.
	versions *versions
	open     sync.WaitGroup
	// closing ends every link, and lets no new one begin.
	closing context.Context
	close   context.CancelFunc

	// Counts is what was refused or ignored since the start.
	Counts Counts
}

// New makes a Server without links.
func New(c Config) *Server {
	s := &Server{Config: c, links: map[models.HostID]*socket{}, polls: map[models.HostID]*poll{}, boot: newBoot(), versions: newVersions()}
	c.Hub.First(s.versions.heard)
	s.closing, s.close = context.WithCancel(context.Background())
	return s
}

// catchUpEvery is how often linked hosts are looked over for missed runs.
const catchUpEvery = 30 * time.Second

// Links is how many agents are linked to this server, by whatever transport.
func (s *Server) Links() int { return len(s.linked()) }

// Close ends every link and waits for them; agents come back by themselves.
func (s *Server) Close() {
	s.mu.Lock()
	s.close()
	s.mu.Unlock()
	s.open.Wait()
}

// Run is the slow look that stands behind every hint: once a second it asks
// the database which linked hosts have something to be sent. It returns when
// ctx ends.
func (s *Server) Run(ctx context.Context) {
	var watching sync.WaitGroup
	watching.Go(func() { s.watch(ctx) })
	defer watching.Wait()
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	missed := time.NewTicker(catchUpEvery)
	defer missed.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-missed.C:
			if err := s.Jobs.CatchUp(ctx, s.linked()...); err != nil && ctx.Err() == nil {
				s.Log.WarnContext(ctx, "missed runs not caught up yet", "err", err)
			}
			continue
		case <-tick.C:
		}
		hosts, err := models.HostsWithWork(ctx, s.DB, s.linked())
		if err != nil && ctx.Err() == nil {
			s.Log.WarnContext(ctx, "looking for work failed; trying again", "err", err)
		}
		for _, h := range hosts {
			s.Hub.Publish(jobs.DispatchTopic(h))
		}
	}
}

func (s *Server) linked() []models.HostID {
	s.mu.Lock()
	defer s.mu.Unlock()
	ids := make([]models.HostID, 0, len(s.links)+len(s.polls))
	for id := range s.links {
		ids = append(ids, id)
	}
	for id, p := range s.polls {
		if time.Since(p.seenAt) > models.OnlineFor+maxWait {
			delete(s.polls, id) // it polls elsewhere, or not at all
			continue
		}
		ids = append(ids, id)
	}
	return ids
}

// Enroll is POST /agent/v1/enroll.
func (s *Server) Enroll(c echo.Context) error {
	var req protocol.EnrollRequest
	if err := c.Bind(&req); err != nil {
		err := &models.Error{Code: models.EInvalid, Message: "The body must be the JSON of an enrolment request."}
		s.refused(c, "enrolment", err)
		return err
	}
	ctx := c.Request().Context()
	host, token, err := models.Enroll(ctx, s.DB, req)
	if err != nil {
		s.refused(c, "enrolment", err)
		return err
	}
	s.Log.InfoContext(ctx, "host enrolled", "host.id", host, "hostname", req.Hostname, "address", c.RealIP())
	s.Jobs.HostChanged(host)
	c.Response().Header().Set("Cache-Control", "no-store")
	return c.JSON(http.StatusOK, protocol.EnrollResponse{HostID: host.String(), AgentToken: token})
}

// Schedule is GET /agent/v1/schedule: the set, also before any hello. A 304 is
// answered from memory.
func (s *Server) Schedule(c echo.Context) error {
	head := c.Response().Header()
	head.Set("Cache-Control", "no-cache")
	if token, ok := bearer(c.Request()); ok {
		if version, ok := s.versions.get(models.HashToken(token)); ok {
			if tag := etag(version); noneMatch(c.Request().Header.Values("If-None-Match"), tag) {
				head.Set("ETag", tag)
				return c.NoContent(http.StatusNotModified)
			}
		}
	}
	host, err := s.host(c)
	if err != nil {
		return err
	}
	// The credential is looked up again behind the mark: it may have been
	// replaced a moment ago.
	mark := s.versions.before(host.ID)
	if host, err = s.host(c); err != nil {
		return err
	}
	seen := c.Request().Header.Values("If-None-Match")
	if newest := newestSeen(seen); newest > host.ScheduleVersion && !noneMatch(seen, etag(host.ScheduleVersion)) {
		if err := s.Jobs.SawSchedule(c.Request().Context(), host.ID, newest); err != nil {
			return err
		}
	}
	set, err := models.ScheduleSet(c.Request().Context(), s.DB, host.ID)
	if err != nil {
		return err
	}
	s.versions.keep(host.AgentTokenHash, host.ID, set.Version, mark)
	s.contact(c.Request().Context(), host)
	tag := etag(set.Version)
	head.Set("ETag", tag)
	if noneMatch(seen, tag) {
		return c.NoContent(http.StatusNotModified)
	}
	return c.JSON(http.StatusOK, set)
}

// enter counts a request that may last; Close waits for it.
func (s *Server) enter() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closing.Err() != nil {
		return &models.Error{Code: models.EUnavailable, Message: "The server is stopping. Try again in a moment."}
	}
	s.open.Add(1)
	return nil
}

// host is who calls, by the agent's credential.
func (s *Server) host(c echo.Context) (*models.Host, error) {
	token, ok := bearer(c.Request())
	if !ok {
		err := &models.Error{Code: models.EUnauthorized, Message: "The agent's credential is missing: send it as Authorization: Bearer."}
		s.refused(c, "agent", err)
		return nil, err
	}
	host, err := models.AgentHost(c.Request().Context(), s.DB, token)
	if err != nil {
		s.refused(c, "agent", err)
	}
	return host, err
}

func (s *Server) refused(c echo.Context, what string, err error) {
	var known *models.Error
	if errors.As(err, &known) {
		s.Log.WarnContext(c.Request().Context(), what+" refused", "reason", known.Error(), "address", c.RealIP())
	}
}
