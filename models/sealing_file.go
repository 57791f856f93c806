package models

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
)

// LoadSealer reads the key file, and makes it (mode 0600) when it is missing
// and create is set. Two servers that start at once agree on one key: the file
// is linked into place whole, and the loser reads the winner's.
func LoadSealer(path string, create bool) (*Sealer, error) {
	text, err := readKeyFile(path)
	if errors.Is(err, fs.ErrNotExist) && create {
		if err := writeNewKey(path); err != nil {
			return nil, err
		}
		text, err = readKeyFile(path)
	}
	if err != nil {
		return nil, err
	}
	s, err := NewSealer(text)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	s.path = path
	return s, nil
}

func readKeyFile(path string) (string, error) {
	raw, err := os.ReadFile(path)
	if err != nil {
		return "", fmt.Errorf("secret key file: %w", err)
	}
	return string(raw), nil
}

func writeNewKey(path string) error {
	key, err := GenerateKey()
	if err != nil {
		return err
	}
	tmp, err := writeKeyBeside(path, key+"\n")
	if err != nil {
		return err
	}
	defer func() { _ = os.Remove(tmp) }()
	if err := os.Link(tmp, path); err != nil && !errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("secret key file: %w", err)
	}
	return nil
}

// replaceKeyFile puts text in the place of a key file, whole and durable, and
// leaves its owner and mode as they are: the server may be another account.
func replaceKeyFile(path, text string) error {
	path, err := filepath.EvalSymlinks(path)
	if err != nil {
		return fmt.Errorf("secret key file: %w", err)
	}
	info, err := os.Stat(path)
	if err != nil {
		return fmt.Errorf("secret key file: %w", err)
	}
	tmp, err := writeKeyBeside(path, text)
	if err != nil {
		return err
	}
	defer func() { _ = os.Remove(tmp) }()
	if owner, ok := info.Sys().(*syscall.Stat_t); ok {
		err = os.Chown(tmp, int(owner.Uid), int(owner.Gid))
	}
	err = errors.Join(err, os.Chmod(tmp, info.Mode().Perm()))
	if err == nil {
		err = os.Rename(tmp, path)
	}
	if err != nil {
		return fmt.Errorf("secret key file: %w", err)
	}
	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		return fmt.Errorf("secret key file: %w", err)
	}
	defer func() { _ = dir.Close() }()
	return dir.Sync()
}

// writeKeyBeside writes a file of mode 0600 in the folder of path.
func writeKeyBeside(path, text string) (string, error) {
	tmp, err := os.CreateTemp(filepath.Dir(path), ".secret-key-*")
	if err != nil {
		return "", fmt.Errorf("secret key file: %w", err)
	}
	_, err = tmp.WriteString(text)
	if err = errors.Join(err, tmp.Sync(), tmp.Close()); err != nil {
		_ = os.Remove(tmp.Name())
		return "", fmt.Errorf("secret key file: %w", err)
	}
	return tmp.Name(), nil
}
