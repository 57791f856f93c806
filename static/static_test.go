package static

import (
	"bytes"
	"compress/gzip"
	"io"
	"net/http"
	"net/http/httptest"
	"regexp"
	"strings"
	"testing"
)

func setup(t *testing.T) (*Assets, func(method, path string, header http.Header) *http.Response) {
	t.Helper()
	assets, err := New()
	if err != nil {
		t.Fatal(err)
	}
	return assets, func(method, path string, header http.Header) *http.Response {
		r := httptest.NewRequest(method, path, nil)
		for k, v := range header {
			r.Header[k] = v
		}
		w := httptest.NewRecorder()
		assets.ServeHTTP(w, r)
		return w.Result()
	}
}

func body(t *testing.T, r *http.Response) []byte {
	t.Helper()
	defer func() { _ = r.Body.Close() }()
	b, err := io.ReadAll(r.Body)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestFilesAreServedUnderHashedNamesForEver(t *testing.T) {
	t.Parallel()
	assets, do := setup(t)
	for name, contentType := range map[string]string{
		"app.css":  "text/css; charset=utf-8",
		"app.js":   "text/javascript; charset=utf-8",
		"logo.svg": "image/svg+xml",
	} {
		path := assets.Path(name)
		if !regexp.MustCompile(`^/static/\w+\.[0-9a-f]{16}\.\w+$`).MatchString(path) {
			t.Errorf("%s is served as %s, want a hashed name", name, path)
		}
		r := do(http.MethodGet, path, nil)
		got := body(t, r)
		if r.StatusCode != http.StatusOK || len(got) == 0 {
			t.Errorf("GET %s: status %d with %d bytes", path, r.StatusCode, len(got))
		}
		for header, want := range map[string]string{
			"Content-Type":           contentType,
			"Cache-Control":          "public, max-age=31536000, immutable",
			"Vary":                   "Accept-Encoding",
			"X-Content-Type-Options": "nosniff",
			"Content-Encoding":       "",
		} {
			if v := r.Header.Get(header); v != want {
				t.Errorf("GET %s: %s is %q, want %q", path, header, v, want)
			}
		}
	}
}

func TestGzipHoldsTheSameBytes(t *testing.T) {
	t.Parallel()
	assets, do := setup(t)
	path := assets.Path("app.css")
	plain := body(t, do(http.MethodGet, path, nil))
	r := do(http.MethodGet, path, http.Header{"Accept-Encoding": {"br, gzip;q=0.8"}})
	if r.Header.Get("Content-Encoding") != "gzip" {
		t.Fatal("a client that takes gzip did not get it")
	}
	unpack, err := gzip.NewReader(bytes.NewReader(body(t, r)))
	if err != nil {
		t.Fatal(err)
	}
	unpacked, err := io.ReadAll(unpack)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(plain, unpacked) {
		t.Error("gzip and plain differ")
	}
	if refused := do(http.MethodGet, path, http.Header{"Accept-Encoding": {"gzip;q=0"}}); refused.Header.Get("Content-Encoding") != "" {
		t.Error("gzip;q=0 was answered with gzip")
	}
}

func TestHeadAndConditionalGet(t *testing.T) {
	t.Parallel()
	assets, do := setup(t)
	path := assets.Path("app.js")
	get := do(http.MethodGet, path, nil)
	head := do(http.MethodHead, path, nil)
	if len(body(t, head)) != 0 || head.Header.Get("Content-Length") != get.Header.Get("Content-Length") {
		t.Error("HEAD must say GET's length and send nothing")
	}
	again := do(http.MethodGet, path, http.Header{"If-None-Match": {`"other", W/` + get.Header.Get("ETag")}})
	if again.StatusCode != http.StatusNotModified || len(body(t, again)) != 0 {
		t.Errorf("a known ETag is answered with %d, want 304 and no body", again.StatusCode)
	}
	packed := do(http.MethodGet, path, http.Header{"Accept-Encoding": {"gzip"}})
	if packed.Header.Get("ETag") == get.Header.Get("ETag") {
		t.Error("two encodings share an ETag")
	}
}

func TestOnlyHashedNamesExist(t *testing.T) {
	t.Parallel()
	assets, do := setup(t)
	for _, path := range []string{
		"/static/", "/static/app.css", "/static/dist/app.css", "/static/app.0000000000000000.css",
		"/static/../static.go", assets.Path("unknown.css"),
	} {
		if r := do(http.MethodGet, path, nil); r.StatusCode != http.StatusNotFound {
			t.Errorf("GET %s: status %d, want 404", path, r.StatusCode)
		}
	}
	if r := do(http.MethodPost, assets.Path("app.css"), nil); r.StatusCode != http.StatusMethodNotAllowed {
		t.Errorf("POST: status %d, want 405", r.StatusCode)
	}
}

// The extension must be in the same file as htmx and after it, and htmx must
// not need the eval that the policy forbids.
func TestTheScriptIsOneBundle(t *testing.T) {
	t.Parallel()
	assets, do := setup(t)
	script := string(body(t, do(http.MethodGet, assets.Path("app.js"), nil)))
	core, sse, ours := strings.Index(script, "var htmx="), strings.Index(script, `registerExtension("sse"`), strings.Index(script, "stream-refused")
	if core != 0 || sse < core || ours < sse {
		t.Errorf("htmx, its event-stream extension and our script stand at %d, %d, %d, want them in this order", core, sse, ours)
	}
}
