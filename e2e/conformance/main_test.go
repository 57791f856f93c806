// Package conformance holds the agent and the server to one protocol: the same
// stories over a WebSocket, over polling, and over a link that changes while a
// job runs, in fine weather and in bad. Everything in it is real: Postgres, the
// server's handlers, agents, restic.
package conformance

import (
	"flag"
	"os"
	"testing"

	"resticfleet/agent"
	"resticfleet/models/modeltest"
)

// TestMain lets the test binary be the supervise that agents re-execute.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == "supervise" {
		os.Exit(agent.Supervise(os.Args[2:]))
	}
	// The stories wait more than they work. The command line is read later,
	// and wins.
	if err := flag.Set("test.parallel", "12"); err != nil {
		panic(err)
	}
	modeltest.Main(m)
}
