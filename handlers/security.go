package handlers

import (
	"net"
	"net/http"

	"github.com/labstack/echo/v4"

	"resticfleet/models"
)

// csp allows what we serve ourselves and nothing else; daisyUI's style sheet
// draws some marks as data: images.
const csp = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; " +
	"form-action 'self'; base-uri 'none'; frame-ancestors 'none'"

// The headers' values are shared by all answers: who adds to one gets a copy.
var (
	nosniff    = []string{"nosniff"}
	noStore    = []string{"no-store"}
	overTLS    = []string{"max-age=31536000"}
	sameOrigin = []string{"same-origin"}
	deny       = []string{"DENY"}
	policy     = []string{csp}
	varies     = []string{"HX-Request, HX-Request-Type, Cookie, Authorization"}
)

// secureHeaders go out with every answer, also with errors. What tells a
// browser how to treat a document is left out on the agents' routes: no
// browser gets in there, and theirs are by far the most answers.
func (h *Handlers) secureHeaders(table map[string]access) echo.MiddlewareFunc {
	return func(next echo.HandlerFunc) echo.HandlerFunc {
		return func(c echo.Context) error {
			head := c.Response().Header()
			head["X-Content-Type-Options"] = nosniff
			head["Cache-Control"] = noStore
			if h.secure(c.Request()) {
				head["Strict-Transport-Security"] = overTLS
			}
			if table[c.Request().Method+" "+c.Path()] != agent {
				head["Content-Security-Policy"] = policy
				head["X-Frame-Options"] = deny
				// Not no-referrer: that makes our own forms' Origin null on plain http.
				head["Referrer-Policy"] = sameOrigin
				head["Cross-Origin-Opener-Policy"] = sameOrigin
				head["Cross-Origin-Resource-Policy"] = sameOrigin
				head["Vary"] = varies
			}
			return next(c)
		}
	}
}

// crossOrigin refuses unsafe requests that another site made a browser send.
// Programs send no such headers and pass.
func crossOrigin() echo.MiddlewareFunc {
	protection := http.NewCrossOriginProtection()
	return func(next echo.HandlerFunc) echo.HandlerFunc {
		return func(c echo.Context) error {
			if err := protection.Check(c.Request()); err != nil {
				return &models.Error{Code: models.EForbidden, Message: "This request came from another site and was refused. Open Resticfleet itself and try again."}
			}
			return next(c)
		}
	}
}

// secure reports whether the browser speaks https, to us or to a proxy we
// trust.
func (h *Handlers) secure(r *http.Request) bool {
	if r.TLS != nil {
		return true
	}
	if r.Header.Get("X-Forwarded-Proto") != "https" {
		return false
	}
	host, _, err := net.SplitHostPort(r.RemoteAddr)
	if err != nil {
		return false
	}
	ip := net.ParseIP(host)
	for _, trusted := range h.TrustedProxies {
		if trusted.Contains(ip) {
			return true
		}
	}
	return false
}

// clientAddress believes X-Forwarded-For of trusted proxies only.
func clientAddress(trusted []*net.IPNet) echo.IPExtractor {
	if len(trusted) == 0 {
		return echo.ExtractIPDirect()
	}
	options := []echo.TrustOption{echo.TrustLoopback(false), echo.TrustLinkLocal(false), echo.TrustPrivateNet(false)}
	for _, n := range trusted {
		options = append(options, echo.TrustIPRange(n))
	}
	return echo.ExtractIPFromXFFHeader(options...)
}
