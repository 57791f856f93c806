package agentapi

import (
	"errors"
	"net/http"
	"sync/atomic"

	"github.com/labstack/echo/v4"

	"resticfleet/models"
)

// Counts is what agents, or those who pretend to be agents, were refused, by
// any transport.
type Counts struct {
	// Malformed can't be read as messages, Oversized are larger than
	// protocol.MaxFrame, Unknown are of types this server doesn't know (ignored),
	// Rejected could never be stored, and Superseded came from a link that a
	// newer one has replaced.
	Malformed, Oversized, Unknown, Rejected, Superseded atomic.Int64
	// RefusedLinks had no valid credential, or no valid hello.
	RefusedLinks atomic.Int64
}

// Door is in front of every route for agents: it marks each answer with this
// process's id, and counts each refusal.
func (s *Server) Door(next echo.HandlerFunc) echo.HandlerFunc {
	return func(c echo.Context) error {
		c.Response().Header().Set(BootHeader, s.boot)
		err := next(c)
		if err != nil {
			s.Counts.refusal(err)
		}
		return err
	}
}

func (n *Counts) refusal(err error) {
	var http4xx *echo.HTTPError
	if errors.As(err, &http4xx) {
		if http4xx.Code == http.StatusRequestEntityTooLarge {
			n.Oversized.Add(1)
		}
		return
	}
	switch models.CodeOf(err) {
	case models.EInvalid:
		n.Malformed.Add(1)
	case models.EConflict:
		n.Superseded.Add(1)
	case models.EUnauthorized, models.EForbidden, models.EGone:
		n.RefusedLinks.Add(1)
	}
}
