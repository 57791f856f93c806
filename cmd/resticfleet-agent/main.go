// Command resticfleet-agent is the program on every host: it enrols the host,
// keeps a link to the server and runs restic as the server asks.
package main

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"syscall"

	"github.com/alecthomas/kong"

	"resticfleet/agent"
)

// version is set when the program is built.
var version = "dev"

func main() {
	// Before anything else: this start is part of every job.
	if len(os.Args) > 1 && os.Args[1] == "supervise" {
		os.Exit(agent.Supervise(os.Args[2:]))
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	code := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}

// commands is the command line.
type commands struct {
	Enroll  enrollCommand  `cmd:"" help:"Make this machine a host of a server. Its token is on the server's page for adding a host."`
	Run     runCommand     `cmd:"" help:"Keep a link to the server and run what it asks for, until SIGTERM. A running restic survives that."`
	Version versionCommand `cmd:"" help:"Print the agent's version."`
}

// terminal is where a command prints and logs.
type terminal struct {
	out io.Writer
	log *slog.Logger
}

// run is main without the process: it returns the exit code. 0 is fine, 1 a
// command that failed, 2 a command line that can't be read.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	var cli commands
	exited := -1
	parser, err := kong.New(&cli,
		kong.Name("resticfleet-agent"),
		kong.Description("The agent of Resticfleet, a control plane for restic backups on many hosts."),
		kong.Writers(stdout, stderr),
		kong.Exit(func(code int) { exited = code }),
		kong.BindTo(ctx, (*context.Context)(nil)),
		kong.Bind(&terminal{out: stdout, log: slog.New(slog.NewTextHandler(stderr, nil))}),
	)
	if err != nil {
		fmt.Fprintln(stderr, "resticfleet-agent:", err)
		return 2
	}
	command, err := parser.Parse(args)
	if exited >= 0 {
		return exited // --help
	}
	if err != nil {
		fmt.Fprintf(stderr, "resticfleet-agent: %v; see resticfleet-agent --help\n", err)
		return 2
	}
	if err := command.Run(); err != nil {
		fmt.Fprintln(stderr, "resticfleet-agent:", err)
		return 1
	}
	return 0
}
