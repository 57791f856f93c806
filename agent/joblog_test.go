package agent

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"resticfleet/agent/protocol"
)

func openTestLog(t *testing.T, path string, window int) *jobLog {
	t.Helper()
	l, err := openJobLog(path, window, time.Now)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.close() }) // a test may have closed it
	return l
}

// feed plays restic's output: n lines, every tenth an error.
func feed(t *testing.T, l *jobLog, n int) {
	t.Helper()
	for i := 1; i <= n; i++ {
		level := protocol.LevelInfo
		if i%10 == 0 {
			level = protocol.LevelError
		}
		if err := l.add("1/stdout", int64(i*20), level, fmt.Sprintf("line %04d", i)); err != nil {
			t.Fatal(err)
		}
	}
}

func texts(t *testing.T, l *jobLog) []string {
	t.Helper()
	var all []string
	for {
		batch, err := l.lines(int64(len(all)), 100)
		if err != nil {
			t.Fatal(err)
		}
		if len(batch) == 0 {
			return all
		}
		for _, line := range batch {
			all = append(all, line.Text)
			if line.Seq != int64(len(all)) {
				t.Fatalf("line %d stands at %d", line.Seq, len(all))
			}
		}
	}
}

func TestLogKeepsHeadTailAndErrors(t *testing.T) {
	t.Parallel()
	l := openTestLog(t, filepath.Join(t.TempDir(), "log"), 90) // ten lines of nine bytes
	feed(t, l, 200)
	if err := l.finish(); err != nil {
		t.Fatal(err)
	}
	all := texts(t, l)
	joined := strings.Join(all, "\n")
	for _, want := range []string{"line 0001", "line 0009", "line 0011", "line 0100", "line 0110", "line 0191", "line 0199", "line 0200"} {
		if strings.Count(joined, want) != 1 {
			t.Errorf("%s stands %d times", want, strings.Count(joined, want))
		}
	}
	// 180 plain lines, ten at either end kept.
	if strings.Contains(joined, "line 0015") || !strings.Contains(joined, "160 lines (1440 bytes) left out") || len(all) != 20+20+1 {
		t.Errorf("%d lines:\n%s", len(all), joined)
	}
}

// TestLogIsTheSameAfterAnyInterruption cuts the log's file everywhere, as a
// kill would, and reads restic's output again.
func TestLogIsTheSameAfterAnyInterruption(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	whole := openTestLog(t, filepath.Join(dir, "whole"), 90)
	if err := whole.note("step1", protocol.LevelInfo, "begins"); err != nil {
		t.Fatal(err)
	}
	feed(t, whole, 60)
	if err := whole.finish(); err != nil {
		t.Fatal(err)
	}
	raw, err := os.ReadFile(filepath.Join(dir, "whole"))
	if err != nil {
		t.Fatal(err)
	}
	for cut := 0; cut <= len(raw); cut += 7 {
		path := filepath.Join(dir, "cut")
		if err := os.WriteFile(path, raw[:cut], 0o600); err != nil {
			t.Fatal(err)
		}
		l := openTestLog(t, path, 90)
		before := texts(t, l)
		if err := l.note("step1", protocol.LevelInfo, "begins"); err != nil {
			t.Fatal(err)
		}
		feed(t, l, 60)
		if err := l.finish(); err != nil {
			t.Fatal(err)
		}
		after := texts(t, l)
		seen := map[string]int{}
		for i, text := range after {
			if i < len(before) && before[i] != text {
				t.Fatalf("cut at %d: line %d was %q and is %q", cut, i+1, before[i], text)
			}
			seen[text]++
			if seen[text] > 1 {
				t.Fatalf("cut at %d: %q stands twice", cut, text)
			}
		}
		for i := 1; i <= 60; i++ {
			text := fmt.Sprintf("line %04d", i)
			if (i <= 9 || i%10 == 0 || i > 50) && seen[text] != 1 {
				t.Fatalf("cut at %d: %q is missing:\n%s", cut, text, strings.Join(after, "\n"))
			}
		}
		if err := l.close(); err != nil {
			t.Fatal(err)
		}
	}
}

func TestLogLinesComeInBatches(t *testing.T) {
	t.Parallel()
	l := openTestLog(t, filepath.Join(t.TempDir(), "log"), 1<<20)
	feed(t, l, 9)
	if one, err := l.lines(3, 0); err != nil || len(one) != 1 || one[0].Seq != 4 {
		t.Errorf("at least one: %+v, %v", one, err)
	}
	if rest, err := l.lines(3, 1<<20); err != nil || len(rest) != 6 {
		t.Errorf("the rest: %+v, %v", rest, err)
	}
	for _, after := range []int64{9, 10, -1} {
		if none, err := l.lines(after, 1<<20); err != nil || len(none) != 0 {
			t.Errorf("after %d: %+v, %v", after, none, err)
		}
	}
}
