package protocol

import (
	"bytes"
	"encoding/base64"
	"reflect"
	"strings"
	"testing"
)

func TestSecretsReachOnlyTheKeyAndJobTheyWereSealedFor(t *testing.T) {
	t.Parallel()
	private, public, err := NewKey()
	if err != nil {
		t.Fatal(err)
	}
	derived, err := PublicKey(private)
	if err != nil || !bytes.Equal(derived, public) {
		t.Fatalf("PublicKey = %x, %v; want %x", derived, err, public)
	}
	want := Secrets{Password: "pass\"wörd", Env: map[string]string{"AWS_SECRET_ACCESS_KEY": "x/y+z"}}

	sealed, err := SealSecrets(public, "job-1", want)
	if err != nil {
		t.Fatal(err)
	}
	got, err := OpenSecrets(private, "job-1", sealed)
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Fatalf("OpenSecrets = %+v, %v; want %+v", got, err, want)
	}

	again, err := SealSecrets(public, "job-1", want)
	if err != nil || again == sealed {
		t.Errorf("sealing twice gave the same text (err %v)", err)
	}
	if _, err := OpenSecrets(private, "job-2", sealed); err == nil {
		t.Error("opened for another job")
	}
	other, _, err := NewKey()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := OpenSecrets(other, "job-1", sealed); err == nil {
		t.Error("opened with another key")
	}
	raw, err := base64.StdEncoding.DecodeString(sealed)
	if err != nil {
		t.Fatal(err)
	}
	for i := range raw {
		changed := bytes.Clone(raw)
		changed[i] ^= 0x40
		if _, err := OpenSecrets(private, "job-1", base64.StdEncoding.EncodeToString(changed)); err == nil {
			t.Fatalf("opened with byte %d changed", i)
		}
	}
}

func TestSealErrorsNameTheFaultAndNoSecret(t *testing.T) {
	t.Parallel()
	private, public, err := NewKey()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := SealSecrets(public[:31], "job", Secrets{Password: "canary"}); err == nil || strings.Contains(err.Error(), "canary") {
		t.Errorf("short public key: %v", err)
	}
	if _, err := SealSecrets(public, "", Secrets{}); err == nil {
		t.Error("sealed without a job id")
	}
	for name, sealed := range map[string]string{
		"empty": "", "not base64": "*", "short": "AAAA",
		"only a key": base64.StdEncoding.EncodeToString(public),
	} {
		if _, err := OpenSecrets(private, "job", sealed); err == nil {
			t.Errorf("%s: opened", name)
		}
	}
	if _, err := OpenSecrets(private[:5], "job", base64.StdEncoding.EncodeToString(append(public, public...))); err == nil {
		t.Error("opened with a short private key")
	}
	if _, err := PublicKey(nil); err == nil {
		t.Error("public half of nothing")
	}
}

func FuzzOpenSecrets(f *testing.F) {
	private, public, err := NewKey()
	if err != nil {
		f.Fatal(err)
	}
	sealed, err := SealSecrets(public, "job", Secrets{Password: "p"})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(sealed)
	f.Add("")
	f.Fuzz(func(t *testing.T, text string) {
		secrets, err := OpenSecrets(private, "job", text)
		if err == nil && secrets.Password != "p" {
			t.Fatalf("opened %q as something never sealed", text)
		}
	})
}
