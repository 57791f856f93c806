package postgres

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
)

// role is the app's role and the name of its database. It owns that database
// and is nothing special otherwise. The superuser's password is thrown away
// after initdb: whoever may start postgres on the files needs none.
const role = "resticfleet"

// cluster is the files of one database and the programs that work on them.
type cluster struct {
	place
	bin  binaries
	fast bool
}

// major reads which PostgreSQL made the files, 0 when there are none yet.
func (p place) major() (int, error) {
	text, err := os.ReadFile(filepath.Join(p.data(), "PG_VERSION"))
	if errors.Is(err, fs.ErrNotExist) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	n, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil {
		return 0, fmt.Errorf("%s is not a PostgreSQL version: %w", filepath.Join(p.data(), "PG_VERSION"), err)
	}
	return n, nil
}

// ensure makes the database when there is none, and a new password when the
// file with it is gone, and returns the password.
func (c cluster) ensure(ctx context.Context) (string, error) {
	password, err := os.ReadFile(c.password())
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return "", err
	}
	known := err == nil && len(password) > 0
	if !known {
		password = []byte(rand.Text())
	}
	switch {
	case !c.exists():
		err = c.create(ctx, string(password))
	case !known:
		// Only ever left by an interruption of what follows here, or by hand.
		err = c.singleUser(ctx, c.data(), alterPassword(string(password)))
	}
	if err != nil || known {
		return string(password), err
	}
	return string(password), writeFileSynced(c.password(), password)
}

// create makes the data directory beside its final place and renames it when
// it is complete: an interrupted creation leaves nothing that looks like a
// database.
func (c cluster) create(ctx context.Context, password string) error {
	unfinished := c.data() + ".new"
	if err := os.RemoveAll(unfinished); err != nil {
		return err
	}
	superuser := filepath.Join(c.dir, "superuser")
	if err := os.WriteFile(superuser, []byte(rand.Text()+"\n"), 0o600); err != nil {
		return err
	}
	defer os.Remove(superuser) //nolint:errcheck // a password nobody uses; the next creation overwrites it
	if err := c.acc.own(superuser); err != nil {
		return err
	}

	args := []string{
		"--pgdata=" + unfinished, "--username=postgres", "--pwfile=" + superuser,
		"--auth=scram-sha-256", "--encoding=UTF8", "--locale=C", "--data-checksums",
	}
	if runtime.GOOS == "linux" {
		// Bytes decide the order, Unicode what a letter is.
		args = append(args, "--lc-ctype=C.UTF-8")
	}
	if c.fast {
		args = append(args, "--no-sync")
	}
	if err := c.run(ctx, "", "initdb", args...); err != nil {
		return err
	}

	capabilities := ""
	if c.fast {
		capabilities = " CREATEDB"
	}
	err := c.singleUser(ctx, unfinished,
		"CREATE ROLE "+role+" LOGIN"+capabilities,
		alterPassword(password),
		"CREATE DATABASE "+role+" OWNER "+role,
		"REVOKE ALL ON DATABASE "+role+" FROM PUBLIC",
	)
	if err != nil {
		return err
	}
	if err := os.Rename(unfinished, c.data()); err != nil {
		return err
	}
	return syncDir(c.dir)
}

// alterPassword needs no quoting: [rand.Text] is letters and digits.
func alterPassword(password string) string {
	return "ALTER ROLE " + role + " PASSWORD '" + password + "'"
}

// singleUser runs statements on files that no server has open, as superuser
// and without any password. They travel on standard input, seen by nobody.
func (c cluster) singleUser(ctx context.Context, data string, statements ...string) error {
	args := []string{"--single", "-D", data, "-c", "exit_on_error=on"}
	args = append(args, quiet...)
	if c.fast {
		args = append(args, "-F")
	}
	return c.run(ctx, strings.Join(statements, "\n")+"\n", "postgres", append(args, "postgres")...)
}

// run runs one of PostgreSQL's programs to its end as the account.
func (c cluster) run(ctx context.Context, stdin, program string, args ...string) error {
	runtime.LockOSThread() // see sysProcAttr
	defer runtime.UnlockOSThread()
	cmd := c.command(ctx, program, args...)
	cmd.Stdin = strings.NewReader(stdin)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Run(); err != nil {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		return fmt.Errorf("%s failed: %w: %s", c.bin.path(program), err, lastLines(out.String()))
	}
	return nil
}

// command prepares one of PostgreSQL's programs: as the account, with an
// environment that says nothing, away from the terminal's signals.
func (c cluster) command(ctx context.Context, program string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, c.bin.path(program), args...)
	cmd.Dir = c.dir
	cmd.Env = []string{"PATH=" + c.bin.dir + ":/usr/bin:/bin", "LC_ALL=C", "TZ=UTC"}
	cmd.SysProcAttr = sysProcAttr()
	cmd.SysProcAttr.Credential = c.acc.credential()
	return cmd
}

// quiet keeps statements, and with them values, out of everything PostgreSQL
// writes: a failed statement is the caller's to report.
var quiet = []string{
	"-c", "log_min_messages=log",
	"-c", "log_min_error_statement=panic",
	"-c", "log_error_verbosity=terse",
	"-c", "log_checkpoints=off",
}

// serverArgs are the arguments of the server itself. They override what an
// ALTER SYSTEM may have left: the socket is the only way in.
func (c cluster) serverArgs() []string {
	args := []string{
		"-D", c.data(),
		"-k", c.socketDir(),
		"-p", "5432",
		"-c", "listen_addresses=",
		"-c", "unix_socket_permissions=0700",
		"-c", "password_encryption=scram-sha-256",
		"-c", "logging_collector=off",
		"-c", "log_destination=stderr",
		"-c", "log_line_prefix=",
		"-c", "timezone=UTC",
		"-c", "log_timezone=UTC",
	}
	args = append(args, quiet...)
	if c.fast {
		args = append(args,
			"-c", "fsync=off",
			"-c", "full_page_writes=off",
			"-c", "max_connections=300",
			"-c", "max_wal_size=256MB",
			"-c", "shared_buffers=64MB",
		)
	}
	return args
}

// lastLines keeps what a person needs of a program's output.
func lastLines(text string) string {
	const most = 5
	lines := strings.Split(strings.TrimSpace(text), "\n")
	if len(lines) > most {
		lines = lines[len(lines)-most:]
	}
	return strings.Join(lines, "; ")
}

// writeFileSynced makes a file of ours that is whole or not there.
func writeFileSynced(path string, content []byte) error {
	f, err := os.CreateTemp(filepath.Dir(path), filepath.Base(path)+".*") // 0600
	if err != nil {
		return err
	}
	_, err = f.Write(content)
	if syncErr := f.Sync(); err == nil {
		err = syncErr
	}
	if closeErr := f.Close(); err == nil {
		err = closeErr
	}
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		return errors.Join(err, os.Remove(f.Name()))
	}
	return syncDir(filepath.Dir(path))
}

func syncDir(path string) error {
	d, err := os.Open(path)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}
