package transport

import (
	"context"
	"errors"
	"net"
	"net/http"
)

// FallsBack tells whether an error of DialWebSocket may be the WebSocket's own
// trouble, so that polling is worth a try: the upgrade was refused, stripped,
// swallowed or answered by somebody else. It is not when the server itself
// refuses this agent or is busy, or when nothing could be reached at all.
func FallsBack(err error) bool {
	var refused *RefusedError
	if errors.As(err, &refused) {
		switch refused.Status {
		case http.StatusUnauthorized, http.StatusGone, http.StatusTooManyRequests, http.StatusServiceUnavailable:
			return refused.Foreign
		}
		return true
	}
	if errors.Is(err, context.Canceled) {
		return false
	}
	var op *net.OpError
	var name *net.DNSError
	return (!errors.As(err, &op) || op.Op != "dial") && !errors.As(err, &name)
}
