package transcript

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// The directions of a line.
const (
	up    = "up"
	down  = "down"
	do    = "do"
	state = "state"
)

// object is a JSON object; a message of the wire is one with id, type, payload.
type object = map[string]any

// line is one line of a transcript.
type line struct {
	Dir string `json:"dir"`
	// Digest is the placeholder of a schedule.set's digest.
	Digest  string `json:"digest,omitempty"`
	Message object `json:"message"`
}

func (l line) is(dir, typ string) bool { return l.Dir == dir && text(l.Message, "type") == typ }

func (l line) String() string {
	raw, _ := json.Marshal(l) // of what was JSON before
	return string(raw)
}

// text is a string field, "" if it is none.
func text(o object, key string) string {
	s, _ := o[key].(string)
	return s
}

// payload is a message's payload, nil if it has none.
func payload(message object) object {
	p, _ := message["payload"].(object)
	return p
}

// acknowledged lists the ids of an ack.
func acknowledged(message object) []string {
	list, _ := payload(message)["acknowledged"].([]any)
	ids := make([]string, 0, len(list))
	for _, id := range list {
		ids = append(ids, fmt.Sprint(id))
	}
	return ids
}

// transcripts lists the files of all versions by the name of their test.
func transcripts(t *testing.T) map[string][]line {
	t.Helper()
	paths, err := filepath.Glob("testdata/v*/*.ndjson")
	if err != nil {
		t.Fatal(err)
	}
	all := map[string][]line{}
	for _, path := range paths {
		name := strings.TrimSuffix(strings.TrimPrefix(filepath.ToSlash(path), "testdata/"), ".ndjson")
		all[name] = load(t, path)
	}
	if len(all) == 0 {
		t.Fatal("there is no transcript in testdata")
	}
	return all
}

func load(t *testing.T, path string) []line {
	t.Helper()
	raw, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var lines []line
	scan := bufio.NewScanner(bytes.NewReader(raw))
	scan.Buffer(nil, 2<<20)
	for scan.Scan() {
		var l line
		if err := json.Unmarshal(scan.Bytes(), &l); err != nil {
			t.Fatalf("%s:%d: %v", path, len(lines)+1, err)
		}
		lines = append(lines, l)
	}
	if err := scan.Err(); err != nil {
		t.Fatal(err)
	}
	return lines
}

// save writes a new transcript; one that exists is left alone.
func save(path string, lines []line) error {
	var out bytes.Buffer
	enc := json.NewEncoder(&out)
	enc.SetEscapeHTML(false)
	for _, l := range lines {
		if err := enc.Encode(l); err != nil {
			return err
		}
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	defer f.Close()
	if _, err := f.Write(out.Bytes()); err != nil {
		return err
	}
	return f.Sync()
}

// parse reads JSON that came over the wire.
func parse(raw []byte) (object, error) {
	var o object
	if err := json.Unmarshal(raw, &o); err != nil {
		return nil, fmt.Errorf("not a JSON object: %w: %.200s", err, raw)
	}
	return o, nil
}
