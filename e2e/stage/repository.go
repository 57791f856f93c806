package stage

import (
	"context"
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"

	"golang.org/x/crypto/poly1305" //nolint:staticcheck // restic's own format asks for it
	"golang.org/x/crypto/scrypt"
)

// resticKey is a file of a repository's keys folder; see restic's design
// document, "Keys, Encryption and MAC".
type resticKey struct {
	Created  string `json:"created"`
	Username string `json:"username"`
	Hostname string `json:"hostname"`
	KDF      string `json:"kdf"`
	N        int    `json:"N"`
	R        int    `json:"r"`
	P        int    `json:"p"`
	Salt     []byte `json:"salt"`
	Data     []byte `json:"data"`
}

// Repository is an empty one whose key takes no half second of a processor to
// try: its password guards nothing, and restic is started hundreds of times.
type Repository struct {
	dir    string
	key    resticKey
	text   []byte // the key's, in the clear
	master boxKey
}

// NewRepository lets this restic make one in a folder that isn't there yet.
func NewRepository(ctx context.Context, restic, dir, password string) (Repository, error) {
	cmd := exec.CommandContext(ctx, restic, "init", "--no-cache", "--repo", dir)
	cmd.Env = append(os.Environ(), "RESTIC_PASSWORD="+password)
	if out, err := cmd.CombinedOutput(); err != nil {
		return Repository{}, fmt.Errorf("restic init: %w: %s", err, out)
	}
	return cheapen(dir, password)
}

// cheapen puts a cheap key in place of a new repository's only one.
func cheapen(dir, password string) (Repository, error) {
	files, err := filepath.Glob(filepath.Join(dir, "keys", "*"))
	if err != nil || len(files) != 1 {
		return Repository{}, errors.Join(err, errors.New("a new repository has one key"))
	}
	var key resticKey
	raw, err := os.ReadFile(files[0])
	if err == nil {
		err = json.Unmarshal(raw, &key)
	}
	if err != nil {
		return Repository{}, err
	}
	user, err := key.user(password)
	if err != nil {
		return Repository{}, err
	}
	text := user.open(key.Data)
	key.N, key.R, key.P = 2, 1, 1
	var master masterKey
	if err := json.Unmarshal(text, &master); err != nil {
		return Repository{}, err
	}
	r := Repository{dir, key, text, master.box()}
	return r, r.lock(dir, password)
}

// lock puts a key with this password in place of those that are there.
func (t Repository) lock(dir, password string) error {
	key := t.key
	user, err := key.user(password)
	if err != nil {
		return err
	}
	key.Data = user.seal(t.text)
	raw, err := json.Marshal(key)
	if err != nil {
		return err
	}
	keys := filepath.Join(dir, "keys")
	if err := errors.Join(os.RemoveAll(keys), os.Mkdir(keys, 0o700)); err != nil {
		return err
	}
	name := sha256.Sum256(raw)
	return os.WriteFile(filepath.Join(keys, hex.EncodeToString(name[:])), raw, 0o400)
}

// Dir is where it lies.
func (t Repository) Dir() string { return t.dir }

// Copy makes a repository of its own: one with this password, and an id that no
// other has.
func (t Repository) Copy(to, password string) error {
	if err := os.CopyFS(to, os.DirFS(t.dir)); err != nil {
		return err
	}
	if err := t.lock(to, password); err != nil {
		return err
	}
	file := filepath.Join(to, "config")
	raw, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	var config map[string]any
	if err := json.Unmarshal(t.master.open(raw), &config); err != nil {
		return err
	}
	id := make([]byte, 32)
	_, _ = rand.Read(id) // never fails
	config["id"] = hex.EncodeToString(id)
	if raw, err = json.Marshal(config); err != nil {
		return err
	}
	if err := os.Remove(file); err != nil { // it can't be written to
		return err
	}
	return os.WriteFile(file, t.master.seal(raw), 0o400)
}

// masterKey is a repository's, as restic cat masterkey prints it.
type masterKey struct {
	MAC struct {
		K []byte `json:"k"`
		R []byte `json:"r"`
	} `json:"mac"`
	Encrypt []byte `json:"encrypt"`
}

func (k masterKey) box() boxKey { return slices.Concat(k.Encrypt, k.MAC.K, k.MAC.R) }

// boxKey is 32 bytes for AES, then k and r of Poly1305-AES.
type boxKey []byte

func (k resticKey) user(password string) (boxKey, error) {
	return scrypt.Key([]byte(password), k.Salt, k.N, k.R, k.P, 64)
}

// open decrypts. The tag is restic's to check.
func (b boxKey) open(box []byte) []byte {
	return b.stream(box[:aes.BlockSize], box[aes.BlockSize:len(box)-poly1305.TagSize])
}

func (b boxKey) seal(text []byte) []byte {
	nonce := make([]byte, aes.BlockSize)
	_, _ = rand.Read(nonce) // never fails
	sealed := b.stream(nonce, text)
	var once [32]byte
	copy(once[:16], b[48:64])
	b.cipher(32, 48).Encrypt(once[16:], nonce)
	var tag [poly1305.TagSize]byte
	poly1305.Sum(&tag, sealed, &once)
	return slices.Concat(nonce, sealed, tag[:])
}

func (b boxKey) stream(nonce, text []byte) []byte {
	out := make([]byte, len(text))
	cipher.NewCTR(b.cipher(0, 32), nonce).XORKeyStream(out, text)
	return out
}

func (b boxKey) cipher(from, to int) cipher.Block {
	block, err := aes.NewCipher(b[from:to])
	if err != nil {
		panic(err) // of the key's length
	}
	return block
}
