package restic

import "bytes"

// MaxLine is how much of one line is kept; restic names every file a status
// line is about, and paths may be long. The rest of a longer line is dropped.
const MaxLine = 256 << 10

// Lines cuts a byte stream that arrives in pieces into lines, without ever
// holding more than limit bytes of one.
type Lines struct {
	limit   int
	buf     []byte
	offset  int64 // of the stream, behind the last byte taken
	dropped bool
}

// Line is one line without its end. End is the stream's offset behind it;
// Truncated says that its tail was dropped.
type Line struct {
	Text      []byte
	End       int64
	Truncated bool
}

// NewLines cuts lines of at most limit bytes.
func NewLines(limit int) *Lines { return &Lines{limit: limit} }

// Feed takes the next bytes and calls emit for every line that they complete.
// The line's text is only valid during the call.
func (l *Lines) Feed(p []byte, emit func(Line)) {
	for len(p) > 0 {
		i := bytes.IndexByte(p, '\n')
		if i < 0 {
			l.keep(p)
			return
		}
		l.keep(p[:i])
		l.offset++
		l.flush(emit)
		p = p[i+1:]
	}
}

// End gives what stands behind the last line end, if anything.
func (l *Lines) End(emit func(Line)) {
	if len(l.buf) > 0 || l.dropped {
		l.flush(emit)
	}
}

func (l *Lines) keep(p []byte) {
	l.offset += int64(len(p))
	if room := l.limit - len(l.buf); len(p) > room {
		p = p[:room]
		l.dropped = true
	}
	l.buf = append(l.buf, p...)
}

func (l *Lines) flush(emit func(Line)) {
	emit(Line{Text: bytes.TrimSuffix(l.buf, []byte("\r")), End: l.offset, Truncated: l.dropped})
	l.buf, l.dropped = l.buf[:0], false
}
