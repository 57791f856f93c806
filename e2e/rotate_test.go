package e2e

import (
	"path/filepath"
	"strings"
	"testing"
)

// An administrator rotates the key beside a running server: backups go on with
// nothing started again, and the old key opens nothing any more.
func TestTheKeyIsRotatedBesideARunningServer(t *testing.T) {
	t.Parallel()
	s := ownServer(t)
	h := s.newHost(t)
	h.bind(localRepo(t))
	docs := h.group("docs", []string{writeFiles(t, h.dir+"/docs", map[string]string{"a": "a"})})
	backUp := func(when string) {
		t.Helper()
		if j := h.api().end(h.run(docs)); j.State != "succeeded" {
			t.Fatalf("%s the backup is %s: %s", when, j.State, j.Error)
		}
	}
	backUp("before")
	out, err := s.command("", "key", "rotate")
	if err != nil || !strings.Contains(out, "Sealed the secrets of 1 repository anew.") {
		t.Fatalf("%v: %s", err, out)
	}
	backUp("with the new key")
	if err := s.stop(); err != nil {
		t.Fatal(err)
	}
	old := filepath.Join(s.dir, "secret.key.old")
	if _, err := s.command("", "serve", "--listen", "127.0.0.1:0", "--secret-key-file", old); err == nil || !strings.Contains(err.Error(), "does not fit this database") {
		t.Errorf("a start with the old key: %v", err)
	}
	if err := s.start(); err != nil {
		t.Fatal(err)
	}
	h.waitOnline()
	backUp("after a start with the new key alone")
}
