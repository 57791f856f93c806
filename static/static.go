// Package static serves the dashboard's stylesheet, script and mark from the
// binary. Names carry a hash of the content, so that browsers keep a file for
// ever and never an old one.
//
// dist is made by "npm ci && npm run build" in this folder and is committed:
// building the server needs no node.
package static

import (
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"fmt"
	"net/http"
	"path"
	"strconv"
	"strings"
)

//go:embed dist/app.css dist/app.js logo.svg
var files embed.FS

// Prefix is the path under which Assets expects to be served.
const Prefix = "/static/"

// Assets are the files, hashed and compressed once.
type Assets struct {
	paths map[string]string // app.css → /static/app.1a2b3c4d5e.css
	files map[string]*asset // the same paths
}

type asset struct {
	contentType string
	hash        string
	plain, gzip []byte
}

// New reads and compresses every file.
func New() (*Assets, error) {
	a := &Assets{paths: map[string]string{}, files: map[string]*asset{}}
	for _, file := range []struct{ name, contentType string }{
		{"dist/app.css", "text/css; charset=utf-8"},
		{"dist/app.js", "text/javascript; charset=utf-8"},
		{"logo.svg", "image/svg+xml"},
	} {
		plain, err := files.ReadFile(file.name)
		if err != nil {
			return nil, fmt.Errorf("read asset %s: %w", file.name, err)
		}
		packed, err := compress(plain)
		if err != nil {
			return nil, fmt.Errorf("compress asset %s: %w", file.name, err)
		}
		sum := sha256.Sum256(plain)
		hash := hex.EncodeToString(sum[:8])
		name := path.Base(file.name)
		ext := path.Ext(name)
		hashed := Prefix + strings.TrimSuffix(name, ext) + "." + hash + ext
		a.paths[name] = hashed
		a.files[hashed] = &asset{contentType: file.contentType, hash: hash, plain: plain, gzip: packed}
	}
	return a, nil
}

func compress(plain []byte) ([]byte, error) {
	var b bytes.Buffer
	w, err := gzip.NewWriterLevel(&b, gzip.BestCompression)
	if err != nil {
		return nil, err
	}
	if _, err := w.Write(plain); err != nil {
		return nil, err
	}
	if err := w.Close(); err != nil {
		return nil, err
	}
	return b.Bytes(), nil
}

// Path is the URL path of the named file: app.css, app.js or logo.svg. A name
// that doesn't exist gets a path that is answered with 404.
func (a *Assets) Path(name string) string {
	if p, ok := a.paths[name]; ok {
		return p
	}
	return Prefix + name
}

// ServeHTTP answers GET and HEAD below Prefix. Only the hashed names exist:
// another content under a name that is cached for ever can't be taken back.
func (a *Assets) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	file, ok := a.files[r.URL.Path]
	if !ok {
		http.NotFound(w, r)
		return
	}
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		w.Header().Set("Allow", "GET, HEAD")
		http.Error(w, "Only GET and HEAD work here.", http.StatusMethodNotAllowed)
		return
	}
	body, etag := file.plain, `"`+file.hash+`"`
	h := w.Header()
	if acceptsGzip(r.Header.Get("Accept-Encoding")) {
		body, etag = file.gzip, `"`+file.hash+`-gzip"`
		h.Set("Content-Encoding", "gzip")
	}
	h.Set("Cache-Control", "public, max-age=31536000, immutable")
	h.Set("Vary", "Accept-Encoding")
	h.Set("ETag", etag)
	h.Set("X-Content-Type-Options", "nosniff")
	if matches(r.Header.Get("If-None-Match"), etag) {
		h.Del("Content-Encoding")
		w.WriteHeader(http.StatusNotModified)
		return
	}
	h.Set("Content-Type", file.contentType)
	h.Set("Content-Length", strconv.Itoa(len(body)))
	if r.Method == http.MethodHead {
		return
	}
	// A browser that went away is no error of ours.
	_, _ = w.Write(body)
}

// acceptsGzip reads an Accept-Encoding header: "gzip;q=0" refuses it.
func acceptsGzip(header string) bool {
	for part := range strings.SplitSeq(header, ",") {
		coding, params, _ := strings.Cut(part, ";")
		if strings.TrimSpace(coding) != "gzip" {
			continue
		}
		q, found := strings.CutPrefix(strings.ReplaceAll(params, " ", ""), "q=")
		if !found {
			return true
		}
		weight, err := strconv.ParseFloat(q, 64)
		return err == nil && weight > 0
	}
	return false
}

// matches compares weakly, as RFC 9110 says for If-None-Match.
func matches(header, etag string) bool {
	for candidate := range strings.SplitSeq(header, ",") {
		candidate = strings.TrimPrefix(strings.TrimSpace(candidate), "W/")
		if candidate == etag || candidate == "*" {
			return true
		}
	}
	return false
}
