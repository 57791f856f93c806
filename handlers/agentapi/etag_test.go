package agentapi

import (
	"strings"
	"testing"
)

func FuzzNoneMatch(f *testing.F) {
	for _, seed := range []string{`"7"`, `W/"7"`, "*", `"1", W/"7"`, `"a,b","7"`, `,,`, `"`, `W/`, `"7`, "\x00", `"\"7"`} {
		f.Add(seed, "")
	}
	f.Fuzz(func(t *testing.T, first, second string) {
		const current = `"7"`
		matched := noneMatch([]string{first, second}, current)
		if matched != (noneMatch([]string{first}, current) || noneMatch([]string{second}, current)) {
			t.Errorf("%q and %q match together otherwise than apart", first, second)
		}
		if matched && !strings.Contains(first+" "+second, current) && strings.TrimSpace(first) != "*" && strings.TrimSpace(second) != "*" {
			t.Errorf("%q, %q match a tag that they don't hold", first, second)
		}
		// What was there is still there behind one more member.
		if !noneMatch([]string{current + ", " + first}, current) {
			t.Errorf("a list that begins with the tag doesn't match: %q", first)
		}
	})
}
