package protocol

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

var subsets = map[string]bool{
	"": true, "1/1": true, "1/12": true, "01/05": true, "256/256": true, "100%": true, "100.0%": true, "0.5%": true, ".5%": true, "5.%": true, "010%": true,
	"0.000000001%": true, "1K": true, "500M": true, "10G": true, "8388607T": true, "8796093022207M": true, "8796093022208M": false,
	"1/257": false, "0/5": false, "13/12": false, "5/1": false, "1/0": false, "1/": false, "/5": false, "5": false, "1048576": false,
	"8388608T": false, "9999999999T": false, "0M": false, "0%": false, "0.0%": false, "100.1%": false, "101%": false, "%": false, ".%": false, "-1%": false,
	"1.5M": false, "-5M": false, "M": false, "1/2 --force": false, "1/2\n": false, "half": false,
}

func TestSubsets(t *testing.T) {
	t.Parallel()
	for s, want := range subsets {
		if got := ValidSubset(s); got != want {
			t.Errorf("%q: %v, want %v", s, got, want)
		}
	}
	for s, want := range map[string][2]int{"1/12": {1, 12}, "256/256": {256, 256}, "1/257": {}, "0/5": {}, "5": {}, "10%": {}} {
		if n, of, ok := SubsetPart(s); ok != (want != [2]int{}) || ok && [2]int{n, of} != want {
			t.Errorf("%q: %d of %d, %v", s, n, of, ok)
		}
	}
}

// What is told apart here is what restic tells apart: it judges the flag before
// it looks for a repository.
func TestSubsetsAreJudgedAsResticDoes(t *testing.T) {
	t.Parallel()
	restic := os.Getenv("RESTICFLEET_TEST_RESTIC")
	if restic == "" {
		restic = "../../bin/restic"
	}
	nowhere := filepath.Join(t.TempDir(), "none")
	for s, want := range subsets {
		if s == "" {
			continue
		}
		cmd := exec.Command(restic, "check", "--no-cache", "--repo="+nowhere, "--read-data-subset="+s)
		cmd.Env = append(cmd.Environ(), "RESTIC_PASSWORD=x")
		said, _ := cmd.CombinedOutput()
		refused, accepted := strings.Contains(string(said), "read-data-subset"), strings.Contains(string(said), "repository does not exist")
		if refused == accepted || accepted != want {
			t.Errorf("%q: %s", s, said)
		}
	}
}
