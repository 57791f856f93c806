package postgres

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// BinDirEnv names the environment variable that points to the directory of
// initdb and postgres. When it is set, no other place is searched.
const BinDirEnv = "RESTICFLEET_PG_BINDIR"

// minMajor is the oldest PostgreSQL that the migrations are written for.
const minMajor = 15

// ErrNoBinaries says that the machine has no usable PostgreSQL server programs.
var ErrNoBinaries = errors.New("no PostgreSQL server programs found")

// binaries is one installation of PostgreSQL's server programs.
type binaries struct {
	dir   string
	major int
}

func (b binaries) path(program string) string { return filepath.Join(b.dir, program) }

// findBinaries returns the first usable installation, in the order of
// [searchDirs]. A wantMajor above zero asks for exactly that major version,
// the only one that can open an existing data directory.
func findBinaries(ctx context.Context, wantMajor int) (binaries, error) {
	var seen []string
	for _, dir := range searchDirs() {
		b, err := probe(ctx, dir)
		if err != nil {
			continue
		}
		if b.major == wantMajor || wantMajor == 0 && b.major >= minMajor {
			return b, nil
		}
		seen = append(seen, fmt.Sprintf("%d in %s", b.major, b.dir))
	}
	const alternatives = "or give --database-url of a PostgreSQL that runs elsewhere"
	switch {
	case wantMajor > 0 && len(seen) > 0:
		return binaries{}, fmt.Errorf("%w: the database was made by PostgreSQL %d, found are only %s. Install PostgreSQL %d "+
			"(Debian: apt-get install postgresql-%d), %s", ErrNoBinaries, wantMajor, strings.Join(seen, ", "), wantMajor, wantMajor, alternatives)
	case wantMajor > 0:
		return binaries{}, fmt.Errorf("%w: the database was made by PostgreSQL %d. Install it "+
			"(Debian: apt-get install postgresql-%d), %s", ErrNoBinaries, wantMajor, wantMajor, alternatives)
	case len(seen) > 0:
		return binaries{}, fmt.Errorf("%w: %d or newer is needed, found are only %s. Install a newer package postgresql, %s",
			ErrNoBinaries, minMajor, strings.Join(seen, ", "), alternatives)
	}
	return binaries{}, fmt.Errorf("%w. Install the package postgresql (Debian: apt-get install postgresql; Fedora: dnf install postgresql-server), "+
		"name the directory of initdb and postgres in %s, %s", ErrNoBinaries, BinDirEnv, alternatives)
}

// searchDirs lists where distributions put initdb and postgres: PATH first,
// then the versioned places, newest first.
func searchDirs() []string {
	if dir := os.Getenv(BinDirEnv); dir != "" {
		return []string{dir}
	}
	dirs := filepath.SplitList(os.Getenv("PATH"))
	for _, pattern := range []string{
		"/usr/lib/postgresql/*/bin",             // Debian, Ubuntu
		"/usr/lib/postgresql*/bin",              // SUSE
		"/usr/libexec/postgresql*",              // Alpine
		"/usr/pgsql-*/bin",                      // PGDG on Fedora, RHEL
		"/opt/homebrew/opt/postgresql*/bin",     // Homebrew on arm64
		"/usr/local/opt/postgresql*/bin",        // Homebrew on amd64
		"/usr/local/pgsql*/bin",                 // from source
		"/Library/PostgreSQL/*/bin",             // EDB on macOS
		"/nix/var/nix/profiles/default/bin",     // Nix
		"/run/current-system/sw/bin",            // NixOS
		"/usr/local/lib/postgresql*/[0-9]*/bin", // built beside a system's own
	} {
		// The patterns are constants: Glob can't fail.
		found, _ := filepath.Glob(pattern)
		slices.SortFunc(found, func(a, b string) int { return cmp.Compare(pathVersion(b), pathVersion(a)) })
		dirs = append(dirs, found...)
	}
	return dirs
}

var (
	numberInPath    = regexp.MustCompile(`\d+`)
	postgresVersion = regexp.MustCompile(`\(PostgreSQL\) (\d+)`)
)

// pathVersion is the first number in a path, 0 where there is none.
func pathVersion(path string) int {
	n, err := strconv.Atoi(numberInPath.FindString(path))
	if err != nil {
		return 0
	}
	return n
}

// probe asks dir's postgres for its version.
func probe(ctx context.Context, dir string) (binaries, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return binaries{}, err
	}
	b := binaries{dir: dir}
	if _, err := exec.LookPath(b.path("initdb")); err != nil {
		return binaries{}, err
	}
	out, err := exec.CommandContext(ctx, b.path("postgres"), "--version").Output()
	if err != nil {
		return binaries{}, err
	}
	m := postgresVersion.FindSubmatch(out)
	if m == nil {
		return binaries{}, fmt.Errorf("postgres --version says %q", out)
	}
	b.major, err = strconv.Atoi(string(m[1]))
	return b, err
}
