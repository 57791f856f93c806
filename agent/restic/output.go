package restic

import (
	"encoding/json"
	"fmt"
	"math"
	"strings"
	"unicode/utf8"

	"resticfleet/agent/protocol"
)

// Streams of restic's output.
const (
	Stdout = "stdout"
	Stderr = "stderr"
)

const (
	maxUnreadable = 100       // named files in a result, as the wire contract says
	maxText       = 8 << 10   // of one log line
	maxTail       = 16 << 10  // of plain stderr, for the message
	maxDocument   = 128 << 20 // tens of thousands of snapshots
	maxCurrent    = 16
)

// Output gathers what one restic invocation said. It is fed line by line and
// depends on nothing else, so reading the files again gives the same.
type Output struct {
	// Document collects stdout whole instead of logging it: for steps whose
	// answer is one (cat config, snapshots, list locks).
	Document bool

	text        strings.Builder
	spoke       bool
	answered    bool // spoke on stdout: never before it opened the repository
	summary     map[string]any
	snapshotID  string
	initialized string
	exitMessage string
	overflowed  bool           // the document is longer than what is kept of it
	figures     map[string]any // of prune
	found       int64          // errors that check told
	stderrTail  string
	unreadable  []string
	errorCount  int64
}

// Event is what a line means for the people who watch: a log line, a progress,
// or nothing.
type Event struct {
	Level    string // empty: no log line
	Text     string
	Progress *protocol.Progress
}

// message is the union of restic's JSON lines that the agent knows.
type message struct {
	Type string `json:"message_type"`

	PercentDone      float64  `json:"percent_done"`
	TotalFiles       int64    `json:"total_files"`
	FilesDone        int64    `json:"files_done"`
	TotalBytes       int64    `json:"total_bytes"`
	BytesDone        int64    `json:"bytes_done"`
	SecondsRemaining int64    `json:"seconds_remaining"`
	ErrorCount       int64    `json:"error_count"`
	CurrentFiles     []string `json:"current_files"`

	Error  json.RawMessage `json:"error"` // {"message":…} in backup, a string in check
	During string          `json:"during"`
	Item   string          `json:"item"`

	Message string `json:"message"` // exit_error

	SnapshotID string `json:"snapshot_id"` // summary
	ID         string `json:"id"`          // initialized
}

// Feed takes one line of a stream.
func (o *Output) Feed(stream string, line Line) Event {
	if stream == Stdout {
		o.spoke, o.answered = true, true
		if o.Document {
			if line.Truncated || o.text.Len()+len(line.Text) >= maxDocument {
				o.overflowed = true
				return Event{}
			}
			o.text.Write(line.Text)
			o.text.WriteByte('\n')
			return Event{}
		}
	}
	trimmed := strings.TrimSpace(string(line.Text))
	if trimmed == "" {
		return Event{}
	}
	// "Stat(<config/>) returned error, retrying after 1.4s: …": still trying.
	if !strings.Contains(trimmed, "returned error, retrying after") {
		o.spoke = true
	}
	if trimmed[0] == '{' && !line.Truncated {
		var m message
		if json.Unmarshal([]byte(trimmed), &m) == nil && m.Type != "" {
			if event, known := o.message(m, trimmed); known {
				return event
			}
		}
	}
	text := clip(trimmed, line.Truncated)
	if stream == Stderr {
		if checkError.Match(line.Text) {
			o.found++
		}
		o.stderrTail = tail(o.stderrTail+text+"\n", maxTail)
		return Event{Level: protocol.LevelWarning, Text: text}
	}
	o.figure(text)
	if p := plainProgress(text); p != nil {
		if p.Percent < 100 {
			return Event{Progress: p}
		}
		return Event{Level: protocol.LevelInfo, Text: text, Progress: p}
	}
	return Event{Level: protocol.LevelInfo, Text: text}
}

func (o *Output) message(m message, raw string) (Event, bool) {
	switch m.Type {
	case "status":
		return Event{Progress: progress(m)}, true
	case "verbose_status":
		return Event{}, true
	case "error":
		return o.fileError(m), true
	case "exit_error":
		o.exitMessage = strings.TrimSpace(m.Message)
		return Event{Level: protocol.LevelError, Text: clip(o.exitMessage, false)}, true
	case "summary":
		return o.takeSummary(m, raw), true
	case "initialized":
		o.initialized = m.ID
		return Event{Level: protocol.LevelInfo, Text: "Repository " + short(m.ID) + " created."}, true
	}
	return Event{}, false
}

func (o *Output) fileError(m message) Event {
	var nested struct {
		Message string `json:"message"`
	}
	var text string
	if json.Unmarshal(m.Error, &nested) == nil {
		text = nested.Message
	} else if json.Unmarshal(m.Error, &text) != nil {
		text = string(m.Error)
	}
	o.errorCount++
	// What the scanner can't read the archiver stumbles over again: one name.
	if m.Item != "" && len(o.unreadable) < maxUnreadable && (len(o.unreadable) == 0 || !contains(o.unreadable, m.Item)) {
		o.unreadable = append(o.unreadable, m.Item)
	}
	if m.Item != "" && !strings.Contains(text, m.Item) {
		text = m.Item + ": " + text
	}
	return Event{Level: protocol.LevelError, Text: clip(text, false)}
}

func (o *Output) takeSummary(m message, raw string) Event {
	var all map[string]any
	if json.Unmarshal([]byte(raw), &all) != nil {
		return Event{}
	}
	delete(all, "message_type")
	o.summary, o.snapshotID = all, m.SnapshotID
	number := func(name string) int64 {
		f, _ := all[name].(float64)
		return int64(f)
	}
	saved := "No snapshot saved"
	if m.SnapshotID != "" {
		saved = "Snapshot " + short(m.SnapshotID) + " saved"
	}
	return Event{Level: protocol.LevelInfo, Text: fmt.Sprintf(
		"%s: %d new, %d changed, %d unmodified files; %d bytes read, %d bytes added to the repository.",
		saved, number("files_new"), number("files_changed"), number("files_unmodified"),
		number("total_bytes_processed"), number("data_added_packed"))}
}

func progress(m message) *protocol.Progress {
	percent := m.PercentDone * 100
	if math.IsNaN(percent) || percent < 0 {
		percent = 0
	}
	p := &protocol.Progress{
		Percent:   min(percent, 100),
		FilesDone: max(m.FilesDone, 0), TotalFiles: max(m.TotalFiles, 0),
		BytesDone: max(m.BytesDone, 0), TotalBytes: max(m.TotalBytes, 0),
		SecondsRemaining: max(m.SecondsRemaining, 0), ErrorCount: max(m.ErrorCount, 0),
	}
	for _, name := range m.CurrentFiles[:min(len(m.CurrentFiles), maxCurrent)] {
		p.CurrentFiles = append(p.CurrentFiles, clip(name, false))
	}
	return p
}

// clip makes text fit for a log: valid UTF-8, and not longer than a person
// would read.
func clip(text string, truncated bool) string {
	text = strings.ReplaceAll(strings.ToValidUTF8(text, "\uFFFD"), "\x00", "\uFFFD")
	if len(text) > maxText {
		cut := maxText
		for cut > 0 && !utf8.RuneStart(text[cut]) {
			cut--
		}
		return fmt.Sprintf("%s … (%d bytes of this line left out)", text[:cut], len(text)-cut)
	}
	if truncated {
		return text + " … (the rest of this line left out)"
	}
	return text
}

func tail(text string, limit int) string {
	if len(text) <= limit {
		return text
	}
	return text[len(text)-limit:]
}

func short(id string) string { return id[:min(len(id), 8)] }

func contains(list []string, s string) bool {
	for _, have := range list {
		if have == s {
			return true
		}
	}
	return false
}
