package transcript

import (
	"flag"
	"os"
	"testing"

	"resticfleet/agent"
	"resticfleet/models/modeltest"
)

var record = flag.Bool("record", false, "record the scenarios of today's protocol version that have no file yet")

// TestMain lets the test binary be the supervise that agents re-execute.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == "supervise" {
		os.Exit(agent.Supervise(os.Args[2:]))
	}
	// The scenarios wait more than they work. The command line is read later,
	// and wins.
	if err := flag.Set("test.parallel", "10"); err != nil {
		panic(err)
	}
	modeltest.Main(m)
}
