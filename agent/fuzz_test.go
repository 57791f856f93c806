package agent

import (
	"context"
	"log/slog"
	"testing"

	"resticfleet/agent/protocol"
	"resticfleet/agent/scheduler"
)

// FuzzEnvelope: whatever a server sends, the agent neither panics nor starts
// what it should not; its runner has stopped, so nothing can run.
func FuzzEnvelope(f *testing.F) {
	for _, frame := range []string{
		`{"id":"1","type":"welcome","payload":{"ping_interval_ms":-1}}`,
		`{"id":"1","type":"schedule.set","payload":{"version":1,"schedules":[{"id":"a","cron":"@every 1h","enabled":true}]}}`,
		`{"id":"1","type":"schedule.set","payload":{"version":2,"schedules":[{"id":"a","cron":"TZ= * * * * *","enabled":true}]}}`,
		`{"id":"1","type":"command.run","payload":{"job_id":"a","kind":"backup","includes":["/"]}}`,
		`{"id":"1","type":"command.cancel","payload":{"job_id":"a"}}`,
		`{"id":"1","type":"ack","payload":{"acknowledged":["a-finished"],"rejected":[{"id":"a-log-1"}]}}`,
		`{"id":"1","type":"error","payload":{"code":"x"}}`,
		`{"type":"x","payload":null}`, `{"type":"ack","payload":1}`, `[]`, ``,
	} {
		f.Add([]byte(frame))
	}
	r, err := NewRunner(RunnerConfig{StateDir: f.TempDir(), Key: func() ([]byte, error) { return nil, nil }})
	if err != nil {
		f.Fatal(err)
	}
	r.Stop()
	a := &Agent{opts: Options{}.withDefaults(), log: slog.New(slog.DiscardHandler), runner: r, scheduler: scheduler.New(scheduler.Config{})}
	f.Cleanup(a.scheduler.Stop)
	a.outbox = newOutbox(a.log, outboxLimits{})
	a.outbox.runner = r
	f.Fuzz(func(t *testing.T, frame []byte) {
		e, err := protocol.Open(frame)
		if err != nil {
			return
		}
		if len(e.Type) > 100 || e.Type == "" {
			t.Errorf("type %q", e.Type)
		}
		a.handle(context.Background(), e)
		if n := len(r.Pending()); n != 0 {
			t.Errorf("%d jobs", n)
		}
	})
}
