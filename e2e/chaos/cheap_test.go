package chaos

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"

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

// cheapen puts a key in place of a new repository's only one that takes no
// half second of a processor to try: the password guards nothing here, and
// restic is started hundreds of times.
func cheapen(repository string) error {
	files, err := filepath.Glob(filepath.Join(repository, "keys", "*"))
	if err != nil || len(files) != 1 {
		return errors.Join(err, errors.New("a new repository has one key"))
	}
	raw, err := os.ReadFile(files[0])
	if err != nil {
		return err
	}
	var key resticKey
	if err := json.Unmarshal(raw, &key); err != nil {
		return err
	}
	user, err := key.user()
	if err != nil {
		return err
	}
	nonce, sealed := key.Data[:aes.BlockSize], key.Data[aes.BlockSize:len(key.Data)-poly1305.TagSize]
	master := user.stream(nonce, sealed)

	key.N, key.R, key.P = 2, 1, 1
	if user, err = key.user(); err != nil {
		return err
	}
	nonce = make([]byte, aes.BlockSize)
	_, _ = rand.Read(nonce) // never fails
	sealed = user.stream(nonce, master)
	tag := user.tag(nonce, sealed)
	key.Data = append(append(nonce, sealed...), tag[:]...)
	if raw, err = json.Marshal(key); err != nil {
		return err
	}
	name := sha256.Sum256(raw)
	if err := os.WriteFile(filepath.Join(repository, "keys", hex.EncodeToString(name[:])), raw, 0o400); err != nil {
		return err
	}
	return os.Remove(files[0])
}

// userKey is scrypt's output: 32 bytes for AES, then k and r of Poly1305-AES.
type userKey []byte

func (k resticKey) user() (userKey, error) {
	return scrypt.Key([]byte(password), k.Salt, k.N, k.R, k.P, 64)
}

// stream encrypts or decrypts.
func (u userKey) stream(nonce, text []byte) []byte {
	block, err := aes.NewCipher(u[:32])
	if err != nil {
		panic(err) // of the key's length
	}
	out := make([]byte, len(text))
	cipher.NewCTR(block, nonce).XORKeyStream(out, text)
	return out
}

func (u userKey) tag(nonce, sealed []byte) (tag [poly1305.TagSize]byte) {
	block, err := aes.NewCipher(u[32:48])
	if err != nil {
		panic(err) // of the key's length
	}
	var once [32]byte
	copy(once[:16], u[48:64])
	block.Encrypt(once[16:], nonce)
	poly1305.Sum(&tag, sealed, &once)
	return tag
}
