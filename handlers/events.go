package handlers

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/a-h/templ"
	"github.com/labstack/echo/v4"

	"resticfleet/jobs"
	"resticfleet/models"
	"resticfleet/views"
)

const (
	pingEvery = 15 * time.Second
	// atMostEvery is how often one stream is told of changes.
	atMostEvery = 300 * time.Millisecond
)

// peopleTopic is for streams alone: who may have one may have changed.
const peopleTopic jobs.Topic = "people"

// stream is one page's event stream.
type stream struct {
	h    *Handlers
	ctx  context.Context
	w    http.ResponseWriter
	flow *http.ResponseController
	who  *models.Identity
	kind string // what it is asked for, and the event's name

	host    models.HostID // set on a host's page
	job     models.JobID  // set on a job's page
	open    bool          // it has not ended
	lastSeq int64
}

func jobStream(id models.JobID, log views.Log) string {
	last := int64(0)
	if n := len(log.Lines); n > 0 {
		last = log.Lines[n-1].Seq
	}
	return fmt.Sprintf("/events?on=job:%s&after=%d", id, last)
}

// events is the one stream of a page: ?on=fleet, jobs, host:ID or job:ID. It
// ends as mayGoOn says, and with the server.
func (h *Handlers) events(c echo.Context) error {
	s, topics, err := h.streamOf(c)
	if err != nil {
		return err
	}
	sub := h.Hub.Subscribe(append(topics, peopleTopic)...)
	defer sub.Close()

	head := c.Response().Header()
	head.Set("Content-Type", "text/event-stream; charset=utf-8")
	head.Set("Cache-Control", "no-store")
	head.Set("X-Accel-Buffering", "no")
	_ = s.flow.SetWriteDeadline(time.Time{})
	c.Response().WriteHeader(http.StatusOK)

	ping := time.NewTicker(h.pingEvery)
	defer ping.Stop()
	// What changed between the page and this stream is in the first look.
	err = s.look()
	for err == nil {
		select {
		case <-s.ctx.Done():
			return nil
		case <-ping.C:
			if !s.mayGoOn(c) {
				return nil
			}
			if err = s.send("ping", "", ""); err == nil && s.open {
				err = s.look() // silence makes no hint
			}
		case <-sub.Wake():
			topics := sub.Take()
			if !s.mayGoOn(c) {
				return nil
			}
			if slices.Equal(topics, []jobs.Topic{peopleTopic}) {
				continue
			}
			if err = s.look(); err == nil {
				err = s.rest()
			}
		}
	}
	return nil // the browser is gone
}

// streamOf reads what a stream is asked for, and the topics that move it: 404
// for what isn't there.
func (h *Handlers) streamOf(c echo.Context) (*stream, []jobs.Topic, error) {
	topic := jobs.Topic(c.QueryParam("on"))
	kind, id, _ := strings.Cut(string(topic), ":")
	s := &stream{h: h, ctx: c.Request().Context(), w: c.Response(), who: who(c), flow: http.NewResponseController(c.Response()), kind: kind}
	topics := []jobs.Topic{topic}
	var err error
	switch kind {
	case "fleet", "jobs":
	case "host":
		if s.host, err = models.ParseID[models.HostID](id); err == nil {
			_, err = models.FindHost(s.ctx, h.DB, s.host)
		}
	case "job":
		if s.job, err = models.ParseID[models.JobID](id); err != nil {
			break
		}
		after := c.Request().Header.Get("Last-Event-ID")
		s.lastSeq, _ = strconv.ParseInt(cmp.Or(after, c.QueryParam("after")), 10, 64)
		var found *models.Job
		if found, err = models.FindJob(s.ctx, h.DB, s.job); err == nil {
			// What a job waits for is its host, or what runs there.
			topics = append(topics, jobs.HostTopic(found.HostID))
		}
	default:
		err = models.NotFound("event stream", string(topic))
	}
	return s, topics, err
}

// mayGoOn is asked before anything is sent: the stream ends with the session
// or token that opened it, with its role, and with its host. The browser comes
// back, and is told or gets what its role shows now.
func (s *stream) mayGoOn(c echo.Context) bool {
	id, err := s.h.identify(c)
	if err != nil || id.Role != s.who.Role {
		return false
	}
	if s.host.IsZero() {
		return true
	}
	_, err = models.FindHost(s.ctx, s.h.DB, s.host)
	return err == nil
}

// rest lets a burst gather.
func (s *stream) rest() error {
	select {
	case <-time.After(atMostEvery):
	case <-s.ctx.Done():
	}
	return nil
}

// look tells the page that something changed; a job's page gets the change
// itself.
func (s *stream) look() error {
	if s.job.IsZero() {
		return s.send(s.kind, "", "look")
	}
	job, v, err := s.h.loadJob(s.ctx, s.job, s.who)
	if err != nil {
		return err
	}
	s.open = !job.State.Ended()
	if err := s.push(views.JobUpdate(v)); err != nil {
		return err
	}
	for {
		lines, err := models.ListLog(s.ctx, s.h.DB, s.job, s.lastSeq, shownLines)
		if err != nil || len(lines) == 0 {
			return err
		}
		s.lastSeq = lines[len(lines)-1].Seq
		if err := s.push(views.LogAppend(presentLog(lines, job, v.Clock))); err != nil {
			return err
		}
	}
}

// push sends markup; its id is the newest log line's, where a new stream goes
// on.
func (s *stream) push(component templ.Component) error {
	var buf bytes.Buffer
	if err := component.Render(s.ctx, &buf); err != nil {
		return err
	}
	return s.send("", strconv.FormatInt(s.lastSeq, 10), buf.String())
}

func (s *stream) send(event, id, data string) error {
	var buf strings.Builder
	if event != "" {
		fmt.Fprintf(&buf, "event: %s\n", event)
	}
	if id != "" {
		fmt.Fprintf(&buf, "id: %s\n", id)
	}
	for line := range strings.SplitSeq(strings.ReplaceAll(data, "\r", ""), "\n") {
		fmt.Fprintf(&buf, "data: %s\n", line)
	}
	if _, err := io.WriteString(s.w, buf.String()+"\n"); err != nil {
		return err
	}
	return s.flow.Flush()
}
