package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"

	"resticfleet/models"
)

// secretKeyFlags say where the key is that seals secrets at rest.
type secretKeyFlags struct {
	SecretKeyFile string `help:"Key that seals secrets at rest; made at the first start as secret.key in the data directory. Several lines are several keys, the newest first." env:"RESTICFLEET_SECRET_KEY_FILE" type:"path"`
}

func (f secretKeyFlags) path(dataDir string) string {
	if f.SecretKeyFile != "" {
		return f.SecretKeyFile
	}
	return filepath.Join(dataDir, "secret.key")
}

// sealer reads the secret key. Only the default file is made when it is
// missing: a file that was named and isn't there is a mistake.
func (f secretKeyFlags) sealer(dataDir string) (*models.Sealer, error) {
	if f.SecretKeyFile != "" {
		return models.LoadSealer(f.SecretKeyFile, false)
	}
	if err := os.MkdirAll(dataDir, 0o700); err != nil {
		return nil, fmt.Errorf("--data-dir: %w", err)
	}
	return models.LoadSealer(f.path(dataDir), true)
}

type keyCommands struct {
	Generate keyGenerateCommand `cmd:"" help:"Print a new secret key, alone on standard output."`
	Rotate   keyRotateCommand   `cmd:"" help:"Seal everything anew with a new key; servers may go on running."`
}

type keyGenerateCommand struct{}

// Run prints the key alone.
func (keyGenerateCommand) Run() error {
	key, err := models.GenerateKey()
	if err != nil {
		return err
	}
	fmt.Println(key)
	return nil
}

type keyRotateCommand struct {
	databaseFlags
	secretKeyFlags
}

// Help says what to do where the file is not one but several.
func (keyRotateCommand) Help() string {
	return `The new key is put into the key file, everything in the database is sealed
anew by it in one go, and the old key moves from the file to one beside it,
FILE.old: only backups of the database from before need it.

Servers that read this same file need nothing: they look into it when they meet
what the key they know does not open. Where servers have copies of the file,
put a new key as the first line into every copy first (resticfleet key
generate), then rotate once with any of them, then take the old line out of the
others.`
}

// Run rotates the key.
func (c keyRotateCommand) Run(ctx context.Context) error {
	path := c.path(c.DataDir)
	if _, err := os.Stat(path); err != nil {
		return fmt.Errorf("there is no key to rotate: give the servers' own by --secret-key-file: %w", err)
	}
	db, release, err := c.open(ctx)
	if err != nil {
		return err
	}
	defer release()
	n, err := models.RotateKey(ctx, db, path)
	if err != nil {
		return err
	}
	fmt.Printf("Sealed the secrets of %s anew. Running servers take the new key from %s by themselves.\n", repositories(n), path)
	fmt.Printf("The old key is in %s: keep it as long as you keep backups of the database from before.\n", models.OldKeys(path))
	return nil
}

func repositories(n int) string {
	if n == 1 {
		return "1 repository"
	}
	return fmt.Sprintf("%d repositories", n)
}
