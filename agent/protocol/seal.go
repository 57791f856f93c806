package protocol

import (
	"crypto/ecdh"
	"crypto/hpke"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
)

// sealSizeEnc is the length of an encapsulated X25519 key.
const sealSizeEnc = 32

func suite() (hpke.KEM, hpke.KDF, hpke.AEAD) {
	return hpke.DHKEM(ecdh.X25519()), hpke.HKDFSHA256(), hpke.ChaCha20Poly1305()
}

// NewKey makes an agent's key pair: 32 bytes each. The private half never
// leaves the host.
func NewKey() (private, public []byte, err error) {
	kem, _, _ := suite()
	key, err := kem.GenerateKey()
	if err != nil {
		return nil, nil, fmt.Errorf("make key: %w", err)
	}
	private, err = key.Bytes()
	if err != nil {
		return nil, nil, fmt.Errorf("make key: %w", err)
	}
	return private, key.PublicKey().Bytes(), nil
}

// PublicKey returns the public half of a private key made by NewKey.
func PublicKey(private []byte) ([]byte, error) {
	kem, _, _ := suite()
	key, err := kem.NewPrivateKey(private)
	if err != nil {
		return nil, fmt.Errorf("agent's private key: %w", err)
	}
	return key.PublicKey().Bytes(), nil
}

// SealSecrets encrypts secrets to an agent's public key, for one job: nobody
// on the way can read them, and no other job's command can carry them. The
// answer belongs in Repository.Sealed.
func SealSecrets(publicKey []byte, jobID string, secrets Secrets) (string, error) {
	if jobID == "" {
		return "", errors.New("seal secrets: the job id is missing")
	}
	kem, kdf, aead := suite()
	key, err := kem.NewPublicKey(publicKey)
	if err != nil {
		return "", fmt.Errorf("agent's public key: %w", err)
	}
	plain, err := json.Marshal(secrets)
	if err != nil {
		return "", fmt.Errorf("seal secrets: %w", err)
	}
	enc, sender, err := hpke.NewSender(key, kdf, aead, []byte(SealInfo))
	if err != nil {
		return "", fmt.Errorf("seal secrets: %w", err)
	}
	sealed, err := sender.Seal([]byte(jobID), plain)
	if err != nil {
		return "", fmt.Errorf("seal secrets: %w", err)
	}
	return base64.StdEncoding.EncodeToString(append(enc, sealed...)), nil
}

// OpenSecrets is SealSecrets' other end. Its errors carry no part of what was
// sealed.
func OpenSecrets(privateKey []byte, jobID, sealed string) (Secrets, error) {
	raw, err := base64.StdEncoding.DecodeString(sealed)
	if err != nil {
		return Secrets{}, errors.New("open secrets: not base64")
	}
	if len(raw) < sealSizeEnc {
		return Secrets{}, errors.New("open secrets: too short")
	}
	kem, kdf, aead := suite()
	key, err := kem.NewPrivateKey(privateKey)
	if err != nil {
		return Secrets{}, fmt.Errorf("agent's private key: %w", err)
	}
	recipient, err := hpke.NewRecipient(raw[:sealSizeEnc], key, kdf, aead, []byte(SealInfo))
	if err != nil {
		return Secrets{}, fmt.Errorf("open secrets: %w", err)
	}
	plain, err := recipient.Open([]byte(jobID), raw[sealSizeEnc:])
	if err != nil {
		return Secrets{}, errors.New("open secrets: sealed to another key or for another job")
	}
	var secrets Secrets
	if err := json.Unmarshal(plain, &secrets); err != nil {
		return Secrets{}, errors.New("open secrets: the content is not a secrets document")
	}
	return secrets, nil
}
