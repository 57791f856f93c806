package agentapi

import (
	"net/http"
	"slices"
	"strconv"
	"strings"
)

// etag is a schedule version as an entity tag.
func etag(version int64) string { return `"` + strconv.FormatInt(version, 10) + `"` }

// noneMatch evaluates If-None-Match by RFC 9110 §13.1.2: a list of tags or *,
// compared weakly. True means 304. What can't be read matches nothing.
func noneMatch(headers []string, current string) bool {
	for _, header := range headers {
		if strings.TrimSpace(header) == "*" {
			return true
		}
	}
	return slices.Contains(entityTags(headers), current)
}

// newestSeen is the highest schedule version among the tags of If-None-Match,
// 0 for none.
func newestSeen(headers []string) (version int64) {
	for _, tag := range entityTags(headers) {
		if seen, err := strconv.ParseInt(strings.Trim(tag, `"`), 10, 64); err == nil {
			version = max(version, seen)
		}
	}
	return version
}

// entityTags lists the tags of a header in their quotes, without their W/. A
// header ends for us where it can't be read.
func entityTags(headers []string) (tags []string) {
	for _, header := range headers {
		rest := strings.TrimSpace(header)
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
			tags = append(tags, rest[:end+2])
			rest = rest[end+2:]
		}
	}
	return tags
}

// bearer reads an Authorization header; the scheme's case doesn't matter.
func bearer(r *http.Request) (string, bool) {
	scheme, token, ok := strings.Cut(r.Header.Get("Authorization"), " ")
	token = strings.TrimSpace(token)
	return token, ok && strings.EqualFold(scheme, "Bearer") && token != ""
}
