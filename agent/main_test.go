package agent

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"testing"
	"time"

	"go.uber.org/goleak"

	"resticfleet/agent/protocol"
)

// TestMain lets the test binary play the programs the tests need as processes
// of their own: supervise, and an agent that can be killed.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 {
		switch os.Args[1] {
		case "supervise":
			os.Exit(Supervise(os.Args[2:]))
		case "test-agent":
			os.Exit(testAgent())
		}
	}
	goleak.VerifyTestMain(m, goleak.Cleanup(func(code int) {
		if empty, err := template(); err == nil {
			_ = os.RemoveAll(filepath.Dir(empty.Dir())) // a temporary folder
		}
		os.Exit(code)
	}))
}

// agentOrder is what the test hands to an agent process, on its stdin. The
// agent lives until its stdin closes, or is killed.
type agentOrder struct {
	StateDir string
	Restic   string
	Key      []byte
	Accept   *protocol.Run
	MinFree  uint64
	DieOn    string // "accepted": wait for the kill right behind the journal's fsync
	Linked   bool   // a whole agent, by the enrolment in StateDir, instead of a runner
}

func testAgent() int {
	in := json.NewDecoder(os.Stdin)
	var order agentOrder
	if err := in.Decode(&order); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	if order.Linked {
		return linkedAgent(order)
	}
	changed := make(chan string, 10000)
	r, err := NewRunner(RunnerConfig{
		StateDir: order.StateDir, Restic: order.Restic, MinFreeBytes: order.MinFree,
		Key:     func() ([]byte, error) { return order.Key, nil },
		Changed: func(id string) { changed <- id },
	})
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	if order.DieOn == "accepted" {
		// Everything of Accept but the start: what a kill right behind the
		// journal's fsync leaves.
		if err := r.runDir(order.Accept.JobID).create(*order.Accept); err != nil {
			return 1
		}
		if _, _, err := r.journal.Accept(*order.Accept, r.cfg.Now()); err != nil {
			return 1
		}
		fmt.Println("accepted")
		_, _ = io.Copy(io.Discard, os.Stdin)
		return 0
	}
	if err := r.Resume(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	if order.Accept != nil {
		if _, err := r.Accept(*order.Accept); err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
	}
	out := json.NewEncoder(os.Stdout)
	go func() {
		for id := range changed {
			s, ok := r.Status(id)
			if ok {
				_ = out.Encode(s)
			}
		}
	}()
	_, _ = io.Copy(io.Discard, os.Stdin)
	r.Stop()
	return 0
}

func linkedAgent(order agentOrder) int {
	a, err := New(Options{
		StateDir: order.StateDir, Timezone: "Europe/Berlin", Link: LinkWebSocket,
		Runner: RunnerConfig{Restic: order.Restic, TailEvery: 20 * time.Millisecond},
	})
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	ctx, stop := context.WithCancel(context.Background())
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		stop()
	}()
	if err := a.Run(ctx); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}
