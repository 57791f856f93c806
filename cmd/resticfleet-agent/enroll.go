package main

import (
	"context"
	"fmt"
	"os"

	"resticfleet/agent"
)

type enrollCommand struct {
	Server         string `required:"" placeholder:"URL" help:"The server's address, https://…"`
	Token          string `xor:"token" help:"The enrolment token. Others on this machine can see it while the command runs: --token-file or the environment variable RESTICFLEET_TOKEN hide it."`
	TokenFile      string `xor:"token" placeholder:"FILE" help:"A file that holds the enrolment token."`
	StateDir       string `default:"/var/lib/resticfleet-agent" placeholder:"DIR" help:"Where the agent keeps its credential and its journal; /var/lib/resticfleet-agent by default."`
	CAFile         string `name:"ca-file" placeholder:"FILE" help:"Certificate authorities (PEM) to trust besides the system's."`
	AllowPlainHTTP bool   `name:"allow-plain-http" help:"Allow http:// to a server that is not this machine: everything but the repositories' secrets then goes in clear."`
	Timezone       string `placeholder:"ZONE" help:"The host's time zone (IANA name), where the machine can't name it."`
}

func (c *enrollCommand) Run(ctx context.Context, t *terminal) error {
	token := c.Token
	switch {
	case token != "":
	case c.TokenFile != "":
		raw, err := os.ReadFile(c.TokenFile)
		if err != nil {
			return fmt.Errorf("the token's file: %w", err)
		}
		token = string(raw)
	default:
		token = os.Getenv("RESTICFLEET_TOKEN")
	}
	host, err := agent.Enroll(ctx, agent.Enrollment{
		Server: c.Server, Token: token, StateDir: c.StateDir, Version: version,
		CAFile: c.CAFile, AllowPlainHTTP: c.AllowPlainHTTP, Timezone: c.Timezone,
	})
	if err != nil {
		return err
	}
	fmt.Fprintf(t.out, "Enrolled as host %s. Now run: resticfleet-agent run --state-dir %s\n", host, c.StateDir)
	return nil
}
