package restic

import (
	"bytes"
	"fmt"
	"strings"
	"testing"
	"unicode/utf8"

	"resticfleet/agent/protocol"
)

func feedAll(o *Output, stream string, lines ...string) []Event {
	var events []Event
	for _, l := range lines {
		events = append(events, o.Feed(stream, Line{Text: []byte(l)}))
	}
	return events
}

func TestOutputOfABackup(t *testing.T) {
	t.Parallel()
	o := &Output{}
	events := feedAll(o, Stdout,
		`{"message_type":"status","percent_done":0.25,"total_files":8,"files_done":2,"total_bytes":400,"bytes_done":100,"seconds_remaining":9,"error_count":1,"current_files":["/a","/b"]}`,
		`{"message_type":"verbose_status","action":"new","item":"/a"}`,
		`{"message_type":"summary","files_new":2,"files_unmodified":5,"total_bytes_processed":400,"data_added_packed":77,"snapshot_id":"0123456789abcdef"}`,
		`{"message_type":"from the future","x":1}`,
		"plain \xff text\r",
		"",
	)
	want := protocol.Progress{Percent: 25, FilesDone: 2, TotalFiles: 8, BytesDone: 100, TotalBytes: 400, SecondsRemaining: 9, ErrorCount: 1, CurrentFiles: []string{"/a", "/b"}}
	if p := events[0].Progress; p == nil || fmt.Sprint(*p) != fmt.Sprint(want) || events[0].Level != "" {
		t.Errorf("status: %+v", events[0])
	}
	if events[1] != (Event{}) {
		t.Errorf("verbose: %+v", events[1])
	}
	if o.snapshotID != "0123456789abcdef" || o.summary["data_added_packed"] != float64(77) || o.summary["message_type"] != nil ||
		!strings.Contains(events[2].Text, "Snapshot 01234567 saved: 2 new, 0 changed, 5 unmodified files") {
		t.Errorf("summary: %+v, %+v", o, events[2])
	}
	if events[3].Text == "" || events[4] != (Event{Level: protocol.LevelInfo, Text: "plain \uFFFD text"}) || events[5] != (Event{}) {
		t.Errorf("others: %+v", events[3:])
	}

	events = feedAll(o, Stderr,
		`{"message_type":"error","error":{"message":"open /x: permission denied"},"during":"scan","item":"/x"}`,
		`{"message_type":"error","error":{"message":"open /x: permission denied"},"during":"archival","item":"/x"}`,
		`{"message_type":"error","error":{"message":"input/output error"},"during":"archival","item":"/y"}`,
		`{"message_type":"error","error":"flat, as check says it"}`,
		`{"message_type":"exit_error","code":3,"message":"Warning: at least one source file could not be read\n"}`,
		`/gone does not exist, skipping`,
	)
	if fmt.Sprint(o.unreadable) != "[/x /y]" || o.errorCount != 4 {
		t.Errorf("unreadable %v of %d", o.unreadable, o.errorCount)
	}
	if events[2] != (Event{Level: protocol.LevelError, Text: "/y: input/output error"}) || events[3].Text != "flat, as check says it" || events[4].Level != protocol.LevelError {
		t.Errorf("errors: %+v", events)
	}
	if events[5].Level != protocol.LevelWarning || o.said() != "Warning: at least one source file could not be read" {
		t.Errorf("said %q, %+v", o.said(), events[5])
	}
}

func TestUnreadableNamesAreBounded(t *testing.T) {
	t.Parallel()
	o := &Output{}
	for i := range 500 {
		feedAll(o, Stderr, fmt.Sprintf(`{"message_type":"error","error":{"message":"no"},"item":"/f%d"}`, i))
	}
	if len(o.unreadable) != maxUnreadable || o.errorCount != 500 {
		t.Errorf("%d of %d", len(o.unreadable), o.errorCount)
	}
	if text := unreadableText(o); !strings.HasPrefix(text, "At least 100 files") || !strings.Contains(text, "/f0, /f1, /f2 and others") {
		t.Error(text)
	}
}

func TestRetriesAreNotSpeaking(t *testing.T) {
	t.Parallel()
	o := &Output{}
	feedAll(o, Stderr, `Stat(<config/>) returned error, retrying after 1.4s: Head "http://h/": dial tcp: connection refused`)
	if o.Spoke() {
		t.Error("a retry counts as having spoken")
	}
	feedAll(o, Stdout, `{"message_type":"status"}`)
	if !o.Spoke() {
		t.Error("a status doesn't count as having spoken")
	}
}

func TestLinesOfEveryLength(t *testing.T) {
	t.Parallel()
	input := "one\r\n\nlong " + strings.Repeat("x", 100) + "\nlast"
	for size := 1; size <= len(input); size++ {
		l := NewLines(20)
		var got []string
		emit := func(line Line) { got = append(got, fmt.Sprintf("%s|%d|%v", line.Text, line.End, line.Truncated)) }
		for rest := []byte(input); len(rest) > 0; rest = rest[min(size, len(rest)):] {
			l.Feed(rest[:min(size, len(rest))], emit)
		}
		l.End(emit)
		l.End(emit)
		want := []string{"one|5|false", "|6|false", "long " + strings.Repeat("x", 15) + "|112|true", "last|116|false"}
		if fmt.Sprint(got) != fmt.Sprint(want) {
			t.Fatalf("pieces of %d: %q, want %q", size, got, want)
		}
	}
}

func TestLongTextIsClippedAtARune(t *testing.T) {
	t.Parallel()
	text := clip(strings.Repeat("ö", maxText), false)
	if !utf8.ValidString(text) || len(text) > maxText+100 || !strings.Contains(text, "bytes of this line left out") {
		t.Errorf("%d bytes, valid %v", len(text), utf8.ValidString(text))
	}
	o := &Output{}
	if e := o.Feed(Stderr, Line{Text: []byte("cut"), Truncated: true}); !strings.Contains(e.Text, "left out") {
		t.Errorf("%+v", e)
	}
}

func FuzzOutput(f *testing.F) {
	for _, s := range []string{
		`{"message_type":"status","percent_done":0.5,"current_files":["/a"]}`, `{"message_type":"status","percent_done":-1e308,"total_files":-5}`,
		`{"message_type":"error","error":{"message":"x"},"item":"y"}`, `{"message_type":"error","error":7}`, `{"message_type":"summary","files_new":"x"}`,
		`{"message_type":"exit_error","code":1,"message":"Fatal: x"}`, `{"message_type":"initialized","id":"a"}`, `{"message_type":`, "{", "\xff\x00", "a\nb\r\n",
	} {
		f.Add([]byte(s), true)
		f.Add([]byte(s+"\n"+s), false)
	}
	f.Fuzz(func(t *testing.T, raw []byte, stdout bool) {
		stream := Stderr
		if stdout {
			stream = Stdout
		}
		o := &Output{}
		var end int64
		emit := func(l Line) {
			if l.End < end {
				t.Fatalf("offset %d after %d", l.End, end)
			}
			end = l.End
			e := o.Feed(stream, l)
			if !utf8.ValidString(e.Text) || strings.ContainsRune(e.Text, 0) || len(e.Text) > maxText+200 {
				t.Fatalf("text %q", e.Text)
			}
			if p := e.Progress; p != nil && (!(p.Percent >= 0 && p.Percent <= 100) || p.FilesDone < 0 || p.TotalBytes < 0) {
				t.Fatalf("progress %+v", p)
			}
		}
		lines := NewLines(512)
		lines.Feed(raw, emit)
		lines.End(emit)
		if end != int64(len(raw)) {
			t.Fatalf("ended at %d of %d", end, len(raw))
		}
		if len(raw) < 400 && bytes.Count(raw, []byte("\n")) == 0 {
			_, _ = explain(testRun(protocol.KindBackup), StepResult{Args: []string{"backup"}, Output: o, ExitCode: 1})
		}
	})
}
