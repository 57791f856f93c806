package transport

import (
	"encoding/json"
	"fmt"
	"html"
	"io"
	"mime"
	"net/http"
	"regexp"
	"strconv"
	"strings"
	"time"
	"unicode"
)

// RefusedError is an HTTP answer other than the one hoped for: the server's
// own, or that of something in front of it.
type RefusedError struct {
	Status int
	// Detail is the server's reason, the same that stands in its log; empty
	// where it gave none.
	Detail string
	// Foreign says that it is no server of ours that answered, but a proxy or a
	// portal with a page of its own.
	Foreign bool
	// RetryAfter is how long the server asks to be left alone; zero if it
	// doesn't.
	RetryAfter time.Duration
}

func (e *RefusedError) Error() string {
	if e.Foreign {
		return fmt.Sprintf("no Resticfleet server answered but something on the way, with %s (%d %s): let the proxy or network pass this address on, or check the address",
			e.Detail, e.Status, http.StatusText(e.Status))
	}
	status := strings.TrimSpace(fmt.Sprintf("%d %s", e.Status, http.StatusText(e.Status)))
	if e.Detail == "" {
		return "the server refused with " + status
	}
	return fmt.Sprintf("the server refused: %s (%s)", e.Detail, status)
}

const maxDetail = 500

// refused reads the reason out of an answer: a problem's detail, or else the
// text there is.
func refused(answer *http.Response) *RefusedError {
	e := &RefusedError{Status: answer.StatusCode}
	if s, err := strconv.Atoi(answer.Header.Get("Retry-After")); err == nil && s > 0 {
		e.RetryAfter = time.Duration(min(s, 24*60*60)) * time.Second
	}
	if to := answer.Header.Get("Location"); to != "" && answer.StatusCode/100 == 3 {
		e.Detail = oneLine("it redirects to " + to + ", give that address as the server's")
		return e
	}
	body, err := io.ReadAll(io.LimitReader(answer.Body, 64<<10))
	if err != nil && len(body) == 0 {
		return e
	}
	if kind, _, _ := mime.ParseMediaType(answer.Header.Get("Content-Type")); kind == "text/html" || kind == "application/xhtml+xml" {
		e.Foreign, e.Detail = true, webPage(body)
		return e
	}
	var problem struct{ Title, Detail string }
	switch err := json.Unmarshal(body, &problem); {
	case err == nil && problem.Detail != "":
		e.Detail = oneLine(problem.Detail)
	case err == nil:
		e.Detail = oneLine(problem.Title)
	case strings.HasPrefix(answer.Header.Get("Content-Type"), "text/plain"):
		e.Detail = oneLine(string(body))
	}
	return e
}

var title = regexp.MustCompile(`(?is)<title[^>]*>(.*?)</title`)

// webPage names a page by its title, as a browser's tab would.
func webPage(body []byte) string {
	found := title.FindSubmatch(body)
	if found == nil {
		return "a web page"
	}
	name := oneLine(html.UnescapeString(string(found[1])))
	if name == "" {
		return "a web page"
	}
	return "the web page “" + name + "”"
}

// oneLine makes foreign text fit for a log line.
func oneLine(s string) string {
	s = strings.Map(func(r rune) rune {
		if unicode.IsControl(r) {
			return ' '
		}
		return r
	}, strings.ToValidUTF8(s, "\uFFFD"))
	s = strings.Join(strings.Fields(s), " ")
	if len(s) > maxDetail {
		s = strings.ToValidUTF8(s[:maxDetail], "") + "…"
	}
	return s
}
