package postgres

import (
	"context"
	"os"
	"path/filepath"
	"testing"
)

// Where the kernel does not end PostgreSQL with its server, the next start does.
func TestStartEndsALeftover(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	for _, d := range []string{dir, filepath.Dir(dir)} { // PostgreSQL's account passes through
		if err := os.Chmod(d, 0o711); err != nil {
			t.Fatal(err)
		}
	}
	first, err := Start(t.Context(), Config{DataDir: dir, Fast: true})
	if err != nil {
		t.Fatal(err)
	}
	first.Stop()

	leftover := first.cluster.command(context.Background(), "postgres", first.cluster.serverArgs()...)
	if err := leftover.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_ = leftover.Wait()
	}()
	for ping(t.Context(), first.URL()) != nil {
		select {
		case <-ended:
			t.Fatal("the leftover does not even start")
		default:
		}
	}

	second, err := Start(t.Context(), Config{DataDir: dir, Fast: true})
	if err != nil {
		t.Fatal(err)
	}
	defer second.Stop()
	<-ended
	if err := ping(t.Context(), second.URL()); err != nil {
		t.Error(err)
	}
}
