package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"strings"

	"resticfleet/models"
)

type migrateCommand struct{ databaseFlags }

// Run migrates and exits.
func (c migrateCommand) Run(ctx context.Context) error {
	_, release, err := c.open(ctx)
	if err != nil {
		return err
	}
	release()
	fmt.Println("The database is up to date.")
	return nil
}

type setupLinkCommand struct {
	databaseFlags
	BaseURL string `help:"Where people reach the server." default:"http://localhost:8080" env:"RESTICFLEET_BASE_URL"`
}

// Run prints the link alone.
func (c setupLinkCommand) Run(ctx context.Context) error {
	db, release, err := c.open(ctx)
	if err != nil {
		return err
	}
	defer release()
	token, err := models.NewSetupLink(ctx, db)
	if err != nil {
		return err
	}
	fmt.Println(setupURL(c.BaseURL, token))
	return nil
}

func setupURL(base, token string) string {
	return strings.TrimRight(base, "/") + "/setup?token=" + token
}

type userCommands struct {
	Add userAddCommand `cmd:"" help:"Add a user; the password is read from standard input."`
}

type userAddCommand struct {
	databaseFlags
	Name string `arg:"" help:"The name to sign in with."`
	Role string `help:"viewer, operator or admin." required:""`
}

// Run adds the user.
func (c userAddCommand) Run(ctx context.Context) error {
	role, err := models.ParseRole(c.Role)
	if err != nil {
		return err
	}
	password, err := bufio.NewReader(os.Stdin).ReadString('\n')
	if password = strings.TrimRight(password, "\r\n"); password == "" {
		return errors.Join(errors.New("no password on standard input: pipe it in, one line"), err)
	}
	db, release, err := c.open(ctx)
	if err != nil {
		return err
	}
	defer release()
	user, err := models.AddUser(ctx, db, c.Name, password, role)
	if err != nil {
		return err
	}
	fmt.Printf("Added %s as %s.\n", user.Name, user.Role)
	return nil
}

type tokenCommands struct {
	Create tokenCreateCommand `cmd:"" help:"Make an API token; it is printed once, alone on standard output."`
}

type tokenCreateCommand struct {
	databaseFlags
	Name string `help:"What the token is for." required:""`
	Role string `help:"viewer, operator or admin." required:""`
}

// Run prints the token alone.
func (c tokenCreateCommand) Run(ctx context.Context) error {
	role, err := models.ParseRole(c.Role)
	if err != nil {
		return err
	}
	db, release, err := c.open(ctx)
	if err != nil {
		return err
	}
	defer release()
	token, _, err := models.AddAPIToken(ctx, db, c.Name, role)
	if err != nil {
		return err
	}
	fmt.Println(token)
	return nil
}
