package agent

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// tmpPrefix begins the names of files that are being written; a kill leaves one.
const tmpPrefix = ".tmp-"

// writeDurably replaces path by data: after it returns, a crash of process or
// machine leaves the new content, before it the old one, and never a part.
func writeDurably(path string, data []byte) error {
	if err := replace(path, data, (*os.File).Sync); err != nil {
		return err
	}
	return syncDir(filepath.Dir(path))
}

// writeAtomically is writeDurably for what means nothing any more once the
// machine has crashed: only a crash of the process leaves no part.
func writeAtomically(path string, data []byte) error {
	return replace(path, data, func(*os.File) error { return nil })
}

func replace(path string, data []byte, settle func(*os.File) error) error {
	f, err := os.CreateTemp(filepath.Dir(path), tmpPrefix+"*") // mode 0600
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	if err == nil {
		err = settle(f)
	}
	if closeErr := f.Close(); err == nil {
		err = closeErr
	}
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		return errors.Join(err, os.Remove(f.Name()))
	}
	return nil
}

func writeJSONDurably(path string, value any) error {
	return writeJSON(path, value, writeDurably)
}

func writeJSONAtomically(path string, value any) error {
	return writeJSON(path, value, writeAtomically)
}

func writeJSON(path string, value any, write func(string, []byte) error) error {
	data, err := json.Marshal(value)
	if err != nil {
		return err
	}
	return write(path, append(data, '\n'))
}

// syncDir makes the names in a folder durable, not only their content.
func syncDir(path string) error {
	d, err := os.Open(path)
	if err != nil {
		return err
	}
	err = d.Sync()
	if closeErr := d.Close(); err == nil {
		err = closeErr
	}
	return err
}

// readJSON reads path into value; ok is false when there is no such file.
func readJSON(path string, value any) (ok bool, err error) {
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	if err := json.Unmarshal(data, value); err != nil {
		return false, fmt.Errorf("%s: %w", path, err)
	}
	return true, nil
}

func exists(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}
