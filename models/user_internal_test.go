package models

import (
	"bytes"
	"runtime"
	"strings"
	"testing"

	"github.com/alexedwards/argon2id"
	"github.com/google/go-cmp/cmp"
)

// A flood of logins takes no more than its share of the memory: the next
// password waits for its turn.
func TestAFewPasswordsAreHashedAtOnce(t *testing.T) {
	t.Parallel()
	few := cap(hashing)
	if few > max(2, runtime.NumCPU()) {
		t.Errorf("%d at once", few)
	}
	for range few {
		hashing <- struct{}{}
	}
	for what, work := range map[string]func(){
		"hashPassword":    func() { _, _ = hashPassword("correct horse") },
		"passwordMatches": func() { passwordMatches("correct horse", noUserHash) },
	} {
		done := make(chan struct{})
		go func() { defer close(done); work() }()
		for !waitsIn(what, t.Name()) {
			select {
			case <-done:
				t.Fatalf("%s did not wait for its turn", what)
			default:
				runtime.Gosched()
			}
		}
		<-hashing
		<-done
		hashing <- struct{}{}
	}
	for range few {
		<-hashing
	}
}

// waitsIn reports whether a goroutine that this test started waits to send in a
// function.
func waitsIn(function, test string) bool {
	stacks := make([]byte, 1<<20)
	stacks = stacks[:runtime.Stack(stacks, true)]
	for stack := range bytes.SplitSeq(stacks, []byte("\n\n")) {
		s := string(stack)
		if strings.Contains(s, "[chan send") && strings.Contains(s, "models."+function+"(") && strings.Contains(s, "models."+test+".") {
			return true
		}
	}
	return false
}

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
