package models

import (
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/tink-crypto/tink-go/v2/aead"
	"github.com/tink-crypto/tink-go/v2/insecurecleartextkeyset"
	"github.com/tink-crypto/tink-go/v2/keyset"
	"github.com/tink-crypto/tink-go/v2/tink"
)

// Sealer seals secrets at rest with a key that is not in the database. What
// it seals opens only in the same place: host, row and field are bound in.
type Sealer struct{ primitive tink.AEAD }

// GenerateKey makes a new secret key: a Tink AES-256-GCM keyset in one line of
// base64, without a line end.
func GenerateKey() (string, error) {
	handle, err := keyset.NewHandle(aead.AES256GCMKeyTemplate())
	if err != nil {
		return "", fmt.Errorf("secret key: %w", err)
	}
	var buf bytes.Buffer
	if err := insecurecleartextkeyset.Write(handle, keyset.NewBinaryWriter(&buf)); err != nil {
		return "", fmt.Errorf("secret key: %w", err)
	}
	return base64.StdEncoding.EncodeToString(buf.Bytes()), nil
}

// NewSealer reads a key as GenerateKey prints it.
func NewSealer(key string) (*Sealer, error) {
	const remedy = "the secret key can't be read: it must be one line as printed by `resticfleet key generate`"
	raw, err := base64.StdEncoding.DecodeString(strings.TrimSpace(key))
	if err != nil {
		return nil, errors.New(remedy)
	}
	handle, err := insecurecleartextkeyset.Read(keyset.NewBinaryReader(bytes.NewReader(raw)))
	if err != nil {
		return nil, errors.New(remedy)
	}
	primitive, err := aead.New(handle)
	if err != nil {
		return nil, errors.New(remedy)
	}
	return &Sealer{primitive}, nil
}

// LoadSealer reads the key file, and makes it (mode 0600) when it is missing
// and create is set. Two servers that start at once agree on one key: the file
// is linked into place whole, and the loser reads the winner's.
func LoadSealer(path string, create bool) (*Sealer, error) {
	raw, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) && create {
		if err := writeNewKey(path); err != nil {
			return nil, err
		}
		raw, err = os.ReadFile(path)
	}
	if err != nil {
		return nil, fmt.Errorf("secret key file: %w", err)
	}
	s, err := NewSealer(string(raw))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return s, nil
}

func writeNewKey(path string) error {
	key, err := GenerateKey()
	if err != nil {
		return err
	}
	tmp, err := os.CreateTemp(filepath.Dir(path), ".secret-key-*")
	if err != nil {
		return fmt.Errorf("secret key file: %w", err)
	}
	defer func() { _ = os.Remove(tmp.Name()) }()
	_, err = tmp.WriteString(key + "\n")
	err = errors.Join(err, tmp.Sync(), tmp.Close())
	if err == nil {
		err = os.Link(tmp.Name(), path)
	}
	if err != nil && !errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("secret key file: %w", err)
	}
	return nil
}

// seal binds plain to its place. Places are written "host/<id>/password".
func (s *Sealer) seal(place, plain string) ([]byte, error) {
	out, err := s.primitive.Encrypt([]byte(plain), []byte(place))
	if err != nil {
		return nil, fmt.Errorf("seal %s: %w", place, err)
	}
	return out, nil
}

func (s *Sealer) open(place string, sealed []byte) (string, error) {
	out, err := s.primitive.Decrypt(sealed, []byte(place))
	if err != nil {
		return "", fmt.Errorf("open %s: the secret key does not fit", place)
	}
	return string(out), nil
}

// CheckSealer makes sure that the key is the one this database was sealed
// with; the first server of a new database leaves its mark.
func CheckSealer(ctx context.Context, db IDB, s *Sealer) error {
	const place = "sealing-check"
	mark, err := s.seal(place, "resticfleet")
	if err != nil {
		return err
	}
	if _, err := db.ExecContext(ctx, "insert into sealing_check (sealed) values (?) on conflict do nothing", mark); err != nil {
		return fmt.Errorf("sealing check: %w", err)
	}
	var sealed []byte
	if err := db.QueryRowContext(ctx, "select sealed from sealing_check").Scan(&sealed); err != nil {
		return fmt.Errorf("sealing check: %w", err)
	}
	if _, err := s.open(place, sealed); err != nil {
		return errors.New("the secret key does not fit this database: give the key file it was set up with by --secret-key-file")
	}
	return nil
}
