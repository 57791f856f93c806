package agent

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"time"

	"resticfleet/agent/failpoint"
	"resticfleet/agent/protocol"
)

// logWindow is how much of a job's log is kept at its beginning, and again at
// its end; errors count for neither and are always kept.
const logWindow = 1 << 20

// jobLog numbers a job's log lines and keeps them in log.ndjson, each with the
// place in restic's output that it came from. A restarted agent reads restic's
// output again from the beginning: what is recorded keeps its number and isn't
// said twice, what isn't is said now.
type jobLog struct {
	now    func() time.Time
	window int

	mu      sync.Mutex
	file    *os.File
	size    int64
	starts  []int64 // of each record in the file, by seq-1
	seen    map[logSource]bool
	head    int
	held    []heldLine
	heldLen int
	dropped map[string]int64 // per stream, the offset behind the newest line left out
	lost    struct{ lines, bytes int }
	gap     map[string]int64 // set once the gap line is written
}

// logSource is the place a line came from: a stream of a step and the offset
// behind the line, or the agent's own remark.
type logSource struct {
	Stream string `json:"src"`
	Offset int64  `json:"off,omitempty"`
}

type heldLine struct {
	source logSource
	level  string
	text   string
	at     time.Time
}

type logRecord struct {
	protocol.LogLine
	logSource
	Gap map[string]int64 `json:"gap,omitempty"`
}

// openJobLog opens or makes a job's log. A record that a crash cut short is
// dropped: nobody has seen it.
func openJobLog(path string, window int, now func() time.Time) (*jobLog, error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	l := &jobLog{now: now, window: window, file: f, seen: map[logSource]bool{}, dropped: map[string]int64{}}
	if err := l.load(); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return l, nil
}

func (l *jobLog) load() error {
	r := bufio.NewReader(l.file)
	for {
		raw, err := r.ReadBytes('\n')
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return err
		}
		var rec logRecord
		if json.Unmarshal(raw, &rec) != nil || rec.Seq != int64(len(l.starts))+1 {
			break
		}
		l.starts = append(l.starts, l.size)
		l.size += int64(len(raw))
		l.seen[rec.logSource] = !failpoint.Planted(failpoint.SayTwice)
		if rec.Level != protocol.LevelError {
			l.head += len(rec.Text)
		}
		if rec.Gap != nil {
			l.gap = rec.Gap
		}
	}
	return l.file.Truncate(l.size)
}

func (l *jobLog) close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.file.Close()
}

// add takes a line of restic's output. Errors are kept at once; other lines
// while the first window has room, and then only if they turn out to be among
// the last.
func (l *jobLog) add(stream string, offset int64, level, text string) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	source := logSource{Stream: stream, Offset: offset}
	if l.seen[source] || (l.gap != nil && offset <= l.gap[stream]) {
		return nil
	}
	line := heldLine{source: source, level: level, text: text, at: l.now().UTC()}
	if level == protocol.LevelError || l.gap != nil {
		return l.write(line, nil)
	}
	if l.head+len(text) <= l.window && len(l.held) == 0 && l.lost.lines == 0 {
		if err := l.write(line, nil); err != nil {
			return err
		}
		l.head += len(text)
		return nil
	}
	l.held = append(l.held, line)
	l.heldLen += len(text)
	for l.heldLen > l.window && len(l.held) > 1 {
		oldest := l.held[0]
		l.held[0] = heldLine{}
		l.held = l.held[1:]
		l.heldLen -= len(oldest.text)
		l.lost.lines++
		l.lost.bytes += len(oldest.text)
		l.dropped[oldest.source.Stream] = oldest.source.Offset
	}
	return nil
}

// note adds a remark of the agent itself, once per key and job.
func (l *jobLog) note(key, level, text string) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	source := logSource{Stream: "agent/" + key}
	if l.seen[source] {
		return nil
	}
	if err := l.write(heldLine{source: source, level: level, text: text, at: l.now().UTC()}, nil); err != nil {
		return err
	}
	l.seen[source] = true
	return nil
}

// finish writes what was held back: a line that says what is left out, then
// the last lines. It is called when restic's output is complete.
func (l *jobLog) finish() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.lost.lines > 0 && l.gap == nil {
		gap := heldLine{
			source: logSource{Stream: "agent/gap"}, level: protocol.LevelInfo, at: l.now().UTC(),
			text: fmt.Sprintf("… %d lines (%d bytes) left out here: the log keeps its beginning, its end and every error.", l.lost.lines, l.lost.bytes),
		}
		if err := l.write(gap, l.dropped); err != nil {
			return err
		}
		l.gap = l.dropped
	}
	for len(l.held) > 0 {
		if err := l.write(l.held[0], nil); err != nil {
			return err
		}
		l.held = l.held[1:]
	}
	l.heldLen = 0
	return nil
}

// write numbers a line. A line that can't be written has no number.
func (l *jobLog) write(line heldLine, gap map[string]int64) error {
	raw, err := json.Marshal(logRecord{
		LogLine:   protocol.LogLine{Seq: int64(len(l.starts)) + 1, At: line.at, Level: line.level, Text: line.text},
		logSource: line.source, Gap: gap,
	})
	if err != nil {
		return err
	}
	if _, err := l.file.WriteAt(append(raw, '\n'), l.size); err != nil {
		return err
	}
	l.starts = append(l.starts, l.size)
	l.size += int64(len(raw)) + 1
	return nil
}

// last is the number of the newest line, 0 for none.
func (l *jobLog) last() int64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return int64(len(l.starts))
}

// lines gives the lines behind a number, in order, as many as fit into
// maxBytes of text but at least one.
func (l *jobLog) lines(after int64, maxBytes int) ([]protocol.LogLine, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if after < 0 || after >= int64(len(l.starts)) {
		return nil, nil
	}
	from := l.starts[after]
	upTo := min(l.size, from+int64(max(maxBytes, 0)))
	// Whole records only, and always one.
	if end := l.endOf(after); upTo < end {
		upTo = end
	}
	raw := make([]byte, upTo-from)
	if _, err := l.file.ReadAt(raw, from); err != nil {
		return nil, err
	}
	var lines []protocol.LogLine
	for {
		record, rest, whole := bytes.Cut(raw, []byte("\n"))
		if !whole {
			return lines, nil
		}
		var rec logRecord
		if err := json.Unmarshal(record, &rec); err != nil {
			return nil, fmt.Errorf("log.ndjson: %w", err)
		}
		lines = append(lines, rec.LogLine)
		raw = rest
	}
}

func (l *jobLog) endOf(index int64) int64 {
	if index+1 < int64(len(l.starts)) {
		return l.starts[index+1]
	}
	return l.size
}
