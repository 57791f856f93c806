package agentapi

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"strconv"
	"time"

	"github.com/google/uuid"
	"github.com/labstack/echo/v4"

	"resticfleet/agent/protocol"
	"resticfleet/jobs"
	"resticfleet/models"
)

const (
	// BootHeader carries this process's id: an agent that polls and sees a new
	// one says hello again.
	BootHeader = "Resticfleet-Boot"
	// defaultWait and maxWait bound a long poll.
	defaultWait = 30 * time.Second
	maxWait     = 120 * time.Second
	// maxBatch is how many messages one request may carry.
	maxBatch = 1000
)

// poll is a polling link as far as this server knows it.
type poll struct {
	link *jobs.Link
	// end stops the poll that waits; a newer one, or a socket, calls it.
	end    context.CancelFunc
	seenAt time.Time
}

// batch is the answer to messages and polls.
type batch struct {
	Acknowledged []string             `json:"acknowledged,omitempty"`
	Rejected     []protocol.Rejection `json:"rejected,omitempty"`
	Messages     []protocol.Envelope  `json:"messages"`
}

// Messages is POST /agent/v1/messages: envelopes upward, each answered by id.
// A hello among them opens a polling link. What is in neither list is to be
// tried again.
func (s *Server) Messages(c echo.Context) error {
	host, err := s.host(c)
	if err != nil {
		return err
	}
	envelopes, err := readBatch(c)
	ctx := c.Request().Context()
	if err != nil {
		s.Log.WarnContext(ctx, "messages refused", "host.id", host.ID, "reason", err.Error())
		return err
	}
	answer := struct {
		batch
		Acknowledged []string             `json:"acknowledged"`
		Rejected     []protocol.Rejection `json:"rejected"`
	}{batch: batch{Messages: []protocol.Envelope{}}, Acknowledged: []string{}, Rejected: []protocol.Rejection{}}
	var link *jobs.Link
	for _, e := range envelopes {
		if e.Type == protocol.TypeHello {
			first, opened, err := s.pollHello(ctx, host, e)
			if err != nil {
				return err
			}
			link = opened
			answer.Acknowledged = append(answer.Acknowledged, e.ID)
			answer.Messages = append(answer.Messages, first...)
			continue
		}
		if link == nil {
			if link, err = s.pollLink(host, c.QueryParam("session")); err != nil {
				return err
			}
		}
		verdict, err := s.Jobs.Receive(ctx, link, e)
		switch {
		case errors.Is(err, models.ErrSuperseded):
			return superseded()
		case err != nil:
			s.Log.WarnContext(ctx, "message not stored yet", "host.id", host.ID, "type", e.Type, "err", err)
		case verdict.Rejected != "":
			s.reject(ctx, host, e.Type, verdict.Rejected)
			answer.Rejected = append(answer.Rejected, protocol.Rejection{ID: e.ID, Reason: verdict.Rejected})
		default:
			if verdict.Unknown {
				s.Counts.Unknown.Add(1)
			}
			answer.Acknowledged = append(answer.Acknowledged, e.ID)
		}
	}
	s.contact(ctx, host)
	return c.JSON(http.StatusOK, answer)
}

// contact keeps that a host was heard, unless that is known from a moment ago.
func (s *Server) contact(ctx context.Context, host *models.Host) {
	now := time.Now()
	if host.Online(now) && now.Sub(*host.LastSeenAt) < touchEvery {
		return
	}
	if err := models.TouchHosts(ctx, s.DB, map[models.HostID]time.Time{host.ID: now}); err != nil {
		s.Log.WarnContext(ctx, "contact not kept", "host.id", host.ID, "err", err)
	}
}

func superseded() error {
	return &models.Error{Code: models.EConflict, Message: "A newer link of this agent has taken over. Say hello again if you are the one that lives."}
}

func (s *Server) reject(ctx context.Context, host *models.Host, typ, why string) {
	s.Counts.Rejected.Add(1)
	s.Log.WarnContext(ctx, "message refused", "host.id", host.ID, "type", typ, "reason", why)
}

// readBatch takes {"messages":[…]} or the bare list.
func readBatch(c echo.Context) ([]protocol.Envelope, error) {
	bad := func(why string) error { return &models.Error{Code: models.EInvalid, Message: why} }
	var raw json.RawMessage
	if err := json.NewDecoder(c.Request().Body).Decode(&raw); err != nil {
		var limit *echo.HTTPError
		if errors.As(err, &limit) {
			return nil, limit
		}
		return nil, bad("The body must be JSON: {\"messages\":[…]}.")
	}
	var envelopes []protocol.Envelope
	if err := json.Unmarshal(raw, &envelopes); err != nil {
		var object struct {
			Messages []protocol.Envelope `json:"messages"`
		}
		if err := json.Unmarshal(raw, &object); err != nil {
			return nil, bad("The messages must be envelopes: {\"id\":…,\"type\":…,\"payload\":…}.")
		}
		envelopes = object.Messages
	}
	if len(envelopes) > maxBatch {
		return nil, bad("At most " + strconv.Itoa(maxBatch) + " messages go into one request.")
	}
	for _, e := range envelopes {
		if err := e.Check(); err != nil {
			return nil, bad(err.Error())
		}
	}
	return envelopes, nil
}

func (s *Server) pollHello(ctx context.Context, host *models.Host, e protocol.Envelope) ([]protocol.Envelope, *jobs.Link, error) {
	hello, err := protocol.Decode[protocol.Hello](e)
	if err != nil {
		return nil, nil, &models.Error{Code: models.EInvalid, Message: err.Error()}
	}
	link, first, err := s.Jobs.Hello(ctx, host, protocol.LinkPolling, hello)
	if errors.Is(err, models.ErrSuperseded) {
		return nil, nil, superseded()
	}
	if err != nil {
		return nil, nil, err
	}
	s.Log.InfoContext(ctx, "link open", "host.id", host.ID, "link", protocol.LinkPolling, "generation", link.Generation, "agent", hello.AgentVersion)
	s.keepPoll(link, func() {})
	return first, link, nil
}

// keepPoll makes link the host's polling link on this server and end what
// stops its waiting poll. An older poll or socket ends.
func (s *Server) keepPoll(link *jobs.Link, end context.CancelFunc) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if old := s.polls[link.HostID]; old != nil {
		old.end()
	}
	if old := s.links[link.HostID]; old != nil && old.link.Generation < link.Generation {
		old.cancel(models.ErrSuperseded)
	}
	s.polls[link.HostID] = &poll{link: link, end: end, seenAt: time.Now()}
}

// pollLink finds the link that a request goes on with: the session's, or
// without one the host's newest.
func (s *Server) pollLink(host *models.Host, session string) (*jobs.Link, error) {
	if session != "" && session != host.LinkSession {
		return nil, superseded()
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if p := s.polls[host.ID]; p != nil && p.link.Generation == host.LinkGeneration {
		p.link.Applied(host.AppliedScheduleVersion)
		return p.link, nil
	}
	return s.Jobs.Resume(host), nil
}

// Commands is GET /agent/v1/commands: it waits until there is something to be
// sent, and answers 204 when there is nothing.
func (s *Server) Commands(c echo.Context) error {
	host, err := s.host(c)
	if err != nil {
		return err
	}
	wait := defaultWait
	if text := c.QueryParam("wait"); text != "" {
		// Fractions, too: an agent behind what cuts its polls waits that short.
		seconds, err := strconv.ParseFloat(text, 64)
		if err != nil || !(seconds >= 0) {
			return models.Invalid("wait", "%q is no number of seconds", models.CleanText(text, 20))
		}
		wait = time.Duration(min(seconds, maxWait.Seconds()) * float64(time.Second))
	}
	link, err := s.pollLink(host, c.QueryParam("session"))
	if err != nil {
		return err
	}
	if err := s.enter(); err != nil {
		return err
	}
	defer s.open.Done()
	ctx, end := context.WithTimeout(c.Request().Context(), wait)
	defer end()
	stop := context.AfterFunc(s.closing, end)
	defer stop()
	s.keepPoll(link, end)
	if err := models.TouchLink(c.Request().Context(), s.DB, host.ID, link.Generation); err != nil {
		return s.pollEnded(ctx, host, err)
	}
	_ = http.NewResponseController(c.Response()).SetWriteDeadline(time.Now().Add(wait + writeTimeout))
	out, err := s.awaitCommands(ctx, link)
	if err != nil {
		return s.pollEnded(ctx, host, err)
	}
	c.Response().Header().Set("Cache-Control", "no-store")
	if len(out) == 0 {
		return c.NoContent(http.StatusNoContent)
	}
	return c.JSON(http.StatusOK, batch{Messages: out})
}

func (s *Server) pollEnded(ctx context.Context, host *models.Host, err error) error {
	switch {
	case errors.Is(err, models.ErrSuperseded), models.CodeOf(err) == models.ENotFound:
		if why := s.whyVoid(context.WithoutCancel(ctx), host.AgentTokenHash); !errors.Is(why, models.ErrSuperseded) {
			s.Log.WarnContext(ctx, "link closed", "host.id", host.ID, "reason", why.Error())
			return why
		}
		return superseded()
	case ctx.Err() != nil:
		return &models.Error{Code: models.EUnavailable, Message: "The poll ended early. Ask again."}
	}
	return err
}

func (s *Server) awaitCommands(ctx context.Context, link *jobs.Link) ([]protocol.Envelope, error) {
	hints := s.Hub.Subscribe(jobs.DispatchTopic(link.HostID))
	defer hints.Close()
	for {
		out, err := s.Jobs.Outgoing(context.WithoutCancel(ctx), link)
		if err != nil || len(out) > 0 {
			return out, err
		}
		select {
		case <-ctx.Done():
			return nil, nil
		case <-hints.Wake():
			hints.Take()
		}
	}
}

func newBoot() string { return uuid.NewString() }
