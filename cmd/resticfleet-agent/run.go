package main

import (
	"context"

	"resticfleet/agent"
)

type runCommand struct {
	StateDir string `default:"/var/lib/resticfleet-agent" placeholder:"DIR" help:"The directory that enroll was given; /var/lib/resticfleet-agent by default."`
	Restic   string `default:"restic" placeholder:"PATH" help:"restic's path, or its name on PATH. 0.17 and newer are supported."`
	Link     string `enum:"auto,websocket,polling" default:"auto" help:"How to reach the server: websocket, polling, or auto: WebSocket where it works, else polling."`
	Timezone string `placeholder:"ZONE" help:"The host's time zone (IANA name), where the machine can't name it."`
}

func (c *runCommand) Run(ctx context.Context, t *terminal) error {
	a, err := agent.New(agent.Options{
		StateDir: c.StateDir, Version: version, Timezone: c.Timezone, Logger: t.log, Link: c.Link,
		Runner: agent.RunnerConfig{Restic: c.Restic},
	})
	if err != nil {
		return err
	}
	return a.Run(ctx)
}
