// Command resticfleet is the server: the dashboard, the API, and what agents
// talk to.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/alecthomas/kong"
)

// version is set by the build.
var version = "dev"

type commands struct {
	Serve     serveCommand     `cmd:"" help:"Run the server."`
	Migrate   migrateCommand   `cmd:"" help:"Bring the database up to this version and exit."`
	SetupLink setupLinkCommand `cmd:"" name:"setup-link" help:"Print a new one-time link that sets up the first administrator."`
	User      userCommands     `cmd:"" help:"Manage users."`
	Token     tokenCommands    `cmd:"" help:"Manage API tokens."`
	Key       keyCommands      `cmd:"" help:"Manage the key that seals secrets at rest."`
	Demo      demoCommand      `cmd:"" help:"Run the whole product on this machine, with a first real backup."`
	Version   versionCommand   `cmd:"" help:"Print the version."`
}

func main() {
	os.Exit(run(os.Args[1:]))
}

// run is the whole program; it returns the exit code.
func run(args []string) int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	var c commands
	parser, err := kong.New(&c, kong.Name("resticfleet"), kong.Description("restic on many hosts, run from one place."),
		kong.UsageOnError(), kong.BindTo(ctx, (*context.Context)(nil)))
	if err != nil {
		fmt.Fprintln(os.Stderr, "resticfleet:", err)
		return 1
	}
	command, err := parser.Parse(args)
	if err != nil {
		parser.FatalIfErrorf(err)
	}
	if err := command.Run(); err != nil && !errors.Is(err, context.Canceled) {
		fmt.Fprintln(os.Stderr, "resticfleet:", err)
		return 1
	}
	return 0
}

type versionCommand struct{}

// Run prints the version.
func (versionCommand) Run() error {
	fmt.Println("resticfleet", version)
	return nil
}
