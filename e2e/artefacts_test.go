package e2e

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// resultDir is where a failed test leaves what tells why.
func resultDir(t testing.TB) string {
	t.Helper()
	dir := filepath.Join(suite.results, strings.NewReplacer("/", "-", "#", "-").Replace(t.Name()))
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	return dir
}

// keepLog copies a log file when the test has failed. Cleanups run in reverse
// order: call it after the cleanup that removes the file is set, and before the
// one that ends what writes it.
func keepLog(t testing.TB, name, path string) {
	t.Helper()
	t.Cleanup(func() {
		if !t.Failed() {
			return
		}
		raw, err := os.ReadFile(path)
		if err == nil {
			err = os.WriteFile(filepath.Join(resultDir(t), name), raw, 0o644)
		}
		if err != nil {
			t.Log(err)
		}
	})
}
