package transcript

import (
	"crypto/ecdh"
	"crypto/hpke"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"slices"
	"strings"
	"testing"

	"resticfleet/agent/protocol"
)

// This file is what programs of version 1 do with bytes. It uses nothing of
// agent/protocol on purpose, and must not change.

type secretsV1 struct {
	Password string            `json:"password"`
	Env      map[string]string `json:"env,omitempty"`
}

const sealInfoV1 = "resticfleet command.run v1"

// sealV1 seals as a server of version 1.
func sealV1(publicKey []byte, jobID string, s secretsV1) (string, error) {
	key, err := hpke.DHKEM(ecdh.X25519()).NewPublicKey(publicKey)
	if err != nil {
		return "", err
	}
	plain, err := json.Marshal(s)
	if err != nil {
		return "", err
	}
	enc, sender, err := hpke.NewSender(key, hpke.HKDFSHA256(), hpke.ChaCha20Poly1305(), []byte(sealInfoV1))
	if err != nil {
		return "", err
	}
	sealed, err := sender.Seal([]byte(jobID), plain)
	return base64.StdEncoding.EncodeToString(append(enc, sealed...)), err
}

// openV1 opens as an agent of version 1.
func openV1(privateKey []byte, jobID, sealed string) (s secretsV1, err error) {
	raw, err := base64.StdEncoding.DecodeString(sealed)
	if err != nil {
		return s, err
	}
	key, err := hpke.DHKEM(ecdh.X25519()).NewPrivateKey(privateKey)
	if err != nil {
		return s, err
	}
	recipient, err := hpke.NewRecipient(raw[:min(32, len(raw))], key, hpke.HKDFSHA256(), hpke.ChaCha20Poly1305(), []byte(sealInfoV1))
	if err != nil {
		return s, err
	}
	plain, err := recipient.Open([]byte(jobID), raw[32:])
	if err != nil {
		return s, err
	}
	return s, json.Unmarshal(plain, &s)
}

// digestV1 is the digest of a schedule.set payload: what both sides of version
// 1 compare.
func digestV1(payload any) (string, error) {
	raw, err := json.Marshal(payload)
	if err != nil {
		return "", err
	}
	var set struct {
		Schedules []struct {
			ID           string   `json:"id"`
			Cron         string   `json:"cron"`
			Enabled      bool     `json:"enabled"`
			SourceGroups []string `json:"source_groups"`
		} `json:"schedules"`
	}
	if err := json.Unmarshal(raw, &set); err != nil {
		return "", err
	}
	for _, s := range set.Schedules {
		slices.Sort(s.SourceGroups)
	}
	slices.SortFunc(set.Schedules, func(a, b struct {
		ID           string   `json:"id"`
		Cron         string   `json:"cron"`
		Enabled      bool     `json:"enabled"`
		SourceGroups []string `json:"source_groups"`
	}) int {
		return strings.Compare(a.ID, b.ID)
	})
	if raw, err = json.Marshal(set.Schedules); err != nil {
		return "", err
	}
	sum := sha256.Sum256(raw)
	return hex.EncodeToString(sum[:8]), nil
}

func TestWhatVersion1SealedAndDigestedIsUnderstood(t *testing.T) {
	t.Parallel()
	private, public, err := protocol.NewKey()
	if err != nil {
		t.Fatal(err)
	}
	old := secretsV1{Password: "p", Env: map[string]string{"AWS_REGION": "x"}}
	sealed, err := sealV1(public, "job", old)
	if err != nil {
		t.Fatal(err)
	}
	got, err := protocol.OpenSecrets(private, "job", sealed)
	if err != nil || got.Password != "p" || got.Env["AWS_REGION"] != "x" {
		t.Errorf("a new agent opens what an old server sealed: %+v, %v", got, err)
	}
	if sealed, err = protocol.SealSecrets(public, "job", got); err != nil {
		t.Fatal(err)
	}
	if back, err := openV1(private, "job", sealed); err != nil || back.Password != "p" || back.Env["AWS_REGION"] != "x" {
		t.Errorf("an old agent opens what a new server sealed: %+v, %v", back, err)
	}

	for _, set := range []protocol.ScheduleSet{
		{Schedules: []protocol.Schedule{}},
		{Version: 3, Schedules: []protocol.Schedule{
			{ID: "b", Cron: "0 2 * * *", Enabled: true, SourceGroups: []string{"y", "x"}},
			{ID: "a", Cron: "@daily", SourceGroups: []string{"x"}},
		}},
	} {
		old, err := digestV1(set)
		if err != nil || old != set.Digest() {
			t.Errorf("digest of %+v: version 1 says %s (%v), today's code %s", set, old, err, set.Digest())
		}
	}
}
