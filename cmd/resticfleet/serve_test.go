package main

import (
	"strings"
	"testing"

	"github.com/alecthomas/kong"
)

// A linked host's contact is written every 20 s: whoever gave a shorter time
// would lose the jobs of hosts that are there.
func TestServeRefusesTimesThatEndTheJobsOfHostsThatAreThere(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		args    string
		refused string // the flag that is named
	}{
		{"", ""},
		{"--lost-after=30s --expire-after=30s", ""},
		{"--lost-after=29s", "--lost-after is 29s"},
		{"--lost-after=0s", "--lost-after is 0s"},
		{"--expire-after=-1h", "--expire-after is -1h0m0s"},
	} {
		parser, err := kong.New(&commands{})
		if err != nil {
			t.Fatal(err)
		}
		_, err = parser.Parse(strings.Fields("serve " + c.args))
		switch {
		case c.refused == "" && err != nil:
			t.Errorf("%s: %v", c.args, err)
		case c.refused != "" && (err == nil || !strings.Contains(err.Error(), c.refused) || !strings.Contains(err.Error(), "give 30s or more")):
			t.Errorf("%s: %v", c.args, err)
		}
	}
}
