package models

import (
	"testing"

	"github.com/alexedwards/argon2id"
	"github.com/google/go-cmp/cmp"
)

// An unknown name must cost as much as a known one, or names can be guessed by
// the clock.
func TestUnknownNameCostsAsMuchAsAKnownOne(t *testing.T) {
	t.Parallel()
	params, _, _, err := argon2id.DecodeHash(noUserHash)
	if err != nil {
		t.Fatalf("the hash for unknown names can't be read, so comparing with it is quick: %v", err)
	}
	if diff := cmp.Diff(argonParams, params); diff != "" {
		t.Errorf("its cost differs from a real one's (-real +unknown):\n%s", diff)
	}
}
