package agent

import (
	"errors"
	"io"
	"io/fs"
	"os"

	"resticfleet/agent/restic"
)

// tail reads a growing file of restic's output from its beginning. A pipe
// instead would end or block restic together with the agent.
type tail struct {
	path  string
	file  *os.File
	lines *restic.Lines
	buf   []byte
}

func newTail(path string, limit int) *tail {
	return &tail{path: path, lines: restic.NewLines(limit), buf: make([]byte, 64<<10)}
}

// read gives every line completed since the last call. A file that doesn't
// exist yet has none.
func (t *tail) read(emit func(restic.Line)) error {
	if t.file == nil {
		f, err := os.Open(t.path)
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil {
			return err
		}
		t.file = f
	}
	for {
		n, err := t.file.Read(t.buf)
		t.lines.Feed(t.buf[:n], emit)
		if errors.Is(err, io.EOF) || (n == 0 && err == nil) {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// end gives the last line where restic left it without a line end; the file
// must not grow any more.
func (t *tail) end(emit func(restic.Line)) error {
	err := t.read(emit)
	t.lines.End(emit)
	return errors.Join(err, t.close())
}

func (t *tail) close() error {
	if t.file == nil {
		return nil
	}
	err := t.file.Close()
	t.file = nil
	return err
}
