package models

import (
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"

	"github.com/tink-crypto/tink-go/v2/aead"
	"github.com/tink-crypto/tink-go/v2/insecurecleartextkeyset"
	"github.com/tink-crypto/tink-go/v2/keyset"
	"github.com/tink-crypto/tink-go/v2/tink"

	"resticfleet/agent/protocol"
)

// Sealer seals secrets at rest with a key that is not in the database. What
// it seals opens only in the same place: host, row and field are bound in.
//
// Which of its keys it seals with is the database's to say (see current), so
// that all servers change to a new one at once. A key it doesn't have yet is
// looked for in the file it came from; one that has left the file is kept for
// what was read before.
type Sealer struct {
	path string // "" when the keys didn't come from a file

	mu   sync.Mutex
	keys []sealingKey // the newest first
}

// sealingKey is one line of a key file. What it seals begins with its name.
type sealingKey struct {
	name keyName
	tink.AEAD
}

// keyName is the prefix of Tink's ciphertexts: one byte of version, four of
// the key's id.
type keyName [5]byte

const badKey = "the secret key can't be read: each line must be one as printed by `resticfleet key generate`"

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

// NewSealer reads keys as GenerateKey prints them, one a line, the newest
// first.
func NewSealer(text string) (*Sealer, error) {
	keys, err := readKeys(text)
	return &Sealer{keys: keys}, err
}

func readKeys(text string) ([]sealingKey, error) {
	var keys []sealingKey
	for _, line := range keyLines(text) {
		key, err := readKey(line)
		if err != nil {
			return nil, err
		}
		keys = append(keys, key)
	}
	if len(keys) == 0 {
		return nil, errors.New(badKey)
	}
	return keys, nil
}

// keyLines are a key file's keys as text.
func keyLines(text string) []string { return strings.Fields(text) }

func readKey(line string) (sealingKey, error) {
	raw, err := base64.StdEncoding.DecodeString(line)
	if err != nil {
		return sealingKey{}, errors.New(badKey)
	}
	handle, err := insecurecleartextkeyset.Read(keyset.NewBinaryReader(bytes.NewReader(raw)))
	if err != nil {
		return sealingKey{}, errors.New(badKey)
	}
	primitive, err := aead.New(handle)
	if err != nil {
		return sealingKey{}, errors.New(badKey)
	}
	sample, err := primitive.Encrypt(nil, nil)
	if err != nil {
		return sealingKey{}, errors.New(badKey)
	}
	return sealingKey{nameOf(sample), primitive}, nil
}

// nameOf is the name of the key that sealed.
func nameOf(sealed []byte) (name keyName) {
	copy(name[:], sealed)
	return name
}

// seal binds plain to its place. Places are written "host/<id>/password".
func (k sealingKey) seal(place, plain string) ([]byte, error) {
	out, err := k.Encrypt([]byte(plain), []byte(place))
	if err != nil {
		return nil, fmt.Errorf("seal %s: %w", place, err)
	}
	return out, nil
}

// sealSecrets seals each of a credential's secrets for a place of its own below
// place.
func (k sealingKey) sealSecrets(place string, secrets protocol.Secrets) (password []byte, env map[string][]byte, err error) {
	if password, err = k.seal(place+"/password", secrets.Password); err != nil {
		return nil, nil, err
	}
	env = map[string][]byte{}
	for name, value := range secrets.Env {
		if env[name], err = k.seal(place+"/env/"+name, value); err != nil {
			return nil, nil, err
		}
	}
	return password, env, nil
}

// openSecrets opens what sealSecrets has sealed.
func (s *Sealer) openSecrets(place string, password []byte, env map[string][]byte) (protocol.Secrets, error) {
	plain, err := s.open(place+"/password", password)
	if err != nil {
		return protocol.Secrets{}, err
	}
	out := protocol.Secrets{Password: plain, Env: map[string]string{}}
	for name, sealed := range env {
		if out.Env[name], err = s.open(place+"/env/"+name, sealed); err != nil {
			return protocol.Secrets{}, err
		}
	}
	return out, nil
}

func (s *Sealer) open(place string, sealed []byte) (string, error) {
	key, err := s.key(nameOf(sealed))
	if err != nil {
		return "", fmt.Errorf("open %s: %w", place, err)
	}
	out, err := key.Decrypt(sealed, []byte(place))
	if err != nil {
		return "", fmt.Errorf("open %s: the secret key does not fit", place)
	}
	return string(out), nil
}

// key finds a key by its name, in the file too: it may have been rotated since.
func (s *Sealer) key(name keyName) (sealingKey, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	find := func() int { return slices.IndexFunc(s.keys, func(k sealingKey) bool { return k.name == name }) }
	if i := find(); i >= 0 {
		return s.keys[i], nil
	}
	if s.path != "" {
		text, err := readKeyFile(s.path)
		if err != nil {
			return sealingKey{}, err
		}
		fresh, err := readKeys(text)
		if err != nil {
			return sealingKey{}, fmt.Errorf("%s: %w", s.path, err)
		}
		for _, old := range s.keys {
			if !slices.ContainsFunc(fresh, func(k sealingKey) bool { return k.name == old.name }) {
				fresh = append(fresh, old)
			}
		}
		s.keys = fresh
	}
	if i := find(); i >= 0 {
		return s.keys[i], nil
	}
	return sealingKey{}, errors.New("the secret key does not fit")
}

// current is the key that seals in this database now: the one that its mark is
// sealed with. A rotation waits until the transaction has ended. Take it before
// any row that holds something sealed.
func (s *Sealer) current(ctx context.Context, tx IDB) (sealingKey, error) {
	var mark []byte
	err := tx.QueryRowContext(ctx, "select sealed from sealing_check for share").Scan(&mark)
	if isNoRows(err) {
		s.mu.Lock()
		defer s.mu.Unlock()
		return s.keys[0], nil
	}
	if err != nil {
		return sealingKey{}, fmt.Errorf("sealing check: %w", err)
	}
	return s.key(nameOf(mark))
}

const (
	markPlace = "sealing-check"
	markText  = "resticfleet"
)

// CheckSealer makes sure that the key is the one this database was sealed
// with; the first server of a new database leaves its mark.
func CheckSealer(ctx context.Context, db IDB, s *Sealer) error {
	s.mu.Lock()
	newest := s.keys[0]
	s.mu.Unlock()
	mark, err := newest.seal(markPlace, markText)
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
	if _, err := s.open(markPlace, sealed); err != nil {
		return errors.New("the secret key does not fit this database: give the key file it was set up with, or was rotated to, by --secret-key-file")
	}
	return nil
}
