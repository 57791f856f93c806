package agentapi

import (
	"net/http"
	"strconv"
	"strings"
)

// etag is a schedule version as an entity tag.
func etag(version int64) string { return `"` + strconv.FormatInt(version, 10) + `"` }

// noneMatch evaluates If-None-Match by RFC 9110 §13.1.2: a list of tags or *,
// compared weakly. True means 304. What can't be read matches nothing.
func noneMatch(headers []string, current string) bool {
	for _, header := range headers {
		rest := strings.TrimSpace(header)
		if rest == "*" {
			return true
		}
		for rest != "" {
			rest = strings.TrimLeft(rest, " \t,")
			rest = strings.TrimPrefix(rest, "W/")
			if !strings.HasPrefix(rest, `"`) {
				break
			}
			end := strings.IndexByte(rest[1:], '"')
			if end < 0 {
				break
			}
			if rest[:end+2] == current {
				return true
			}
			rest = rest[end+2:]
		}
	}
	return false
}

// bearer reads an Authorization header; the scheme's case doesn't matter.
func bearer(r *http.Request) (string, bool) {
	scheme, token, ok := strings.Cut(r.Header.Get("Authorization"), " ")
	token = strings.TrimSpace(token)
	return token, ok && strings.EqualFold(scheme, "Bearer") && token != ""
}
