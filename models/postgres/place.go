package postgres

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
)

// maxSocketPath is what sockaddr_un holds on Linux, without the final NUL; some
// systems hold three bytes less.
const maxSocketPath = 104

// socketName is PostgreSQL's name for the socket of port 5432.
const socketName = ".s.PGSQL.5432"

// place is where one database lives:
//
//	<dir>/data       PostgreSQL's data directory
//	<dir>/password   the app role's password, 0600, ours
//	<dir>/run        the socket's directory, 0700, unless that path is too long
//	<dir>/lock       held by the server that owns the database
//
// dir is <data-dir>/postgres, except where the account can't reach that: then
// it is elsewhere, and <data-dir>/postgres.location says where.
type place struct {
	dir string
	acc account
}

func (p place) data() string     { return filepath.Join(p.dir, "data") }
func (p place) password() string { return filepath.Join(p.dir, "password") }
func (p place) lock() string     { return filepath.Join(p.dir, "lock") }

// exists reports whether the place holds a complete database: data appears by
// a rename, when all of it is there.
func (p place) exists() bool {
	_, err := os.Stat(filepath.Join(p.data(), "PG_VERSION"))
	return err == nil
}

// socketDir is a function of the place alone, so that a second program finds
// the socket of a running server.
func (p place) socketDir() string {
	dir := filepath.Join(p.dir, "run")
	if len(filepath.Join(dir, socketName)) <= maxSocketPath {
		return dir
	}
	short := "/tmp"
	if p.acc.lent {
		short = "/run"
	}
	return filepath.Join(short, "resticfleet-"+pathHash(p.dir))
}

// makeSocketDir makes the socket's directory and insists that nobody else
// prepared it: below /tmp anybody could have.
func (p place) makeSocketDir() error {
	dir := p.socketDir()
	if err := os.Mkdir(dir, 0o700); err == nil {
		return p.acc.own(dir)
	} else if !errors.Is(err, fs.ErrExist) {
		return err
	}
	info, err := os.Lstat(dir)
	if err != nil {
		return err
	}
	if !info.IsDir() || info.Sys().(*syscall.Stat_t).Uid != p.acc.uid {
		return fmt.Errorf("%s belongs to somebody else: remove it, or use a data directory with a shorter path", dir)
	}
	return os.Chmod(dir, 0o700)
}

// locate finds the place that belongs to dataDir, or where to make one. It
// changes nothing; see [place.prepare].
func locate(dataDir string) (place, error) {
	p := place{dir: filepath.Join(dataDir, "postgres")}
	moved, err := os.ReadFile(locationFile(dataDir))
	switch {
	case err == nil:
		p.dir = strings.TrimSpace(string(moved))
	case !errors.Is(err, fs.ErrNotExist):
		return place{}, err
	}
	p.acc, err = accountFor(p.data())
	return p, err
}

func locationFile(dataDir string) string { return filepath.Join(dataDir, "postgres.location") }

// prepare makes the place's directories. Where the account can't reach a new
// one, it is made elsewhere and dataDir remembers where.
func (p place) prepare(dataDir string) (place, error) {
	if p.dir != filepath.Join(dataDir, "postgres") {
		if _, err := os.Stat(p.dir); err != nil {
			return place{}, fmt.Errorf("the database is not where %s says: %w. Bring it back, or remove that file to begin with an empty database",
				locationFile(dataDir), err)
		}
	}
	ok, err := p.acc.reaches(filepath.Dir(p.dir))
	if err != nil {
		return place{}, err
	}
	if !ok && p.exists() {
		// An empty database made elsewhere would look like the loss of this one.
		return place{}, fmt.Errorf("the account with user id %d, which PostgreSQL runs as, can no longer reach its database in %s: "+
			"give it the right to pass through the directories above (chmod o+x)", p.acc.uid, p.dir)
	}
	if !ok {
		if p.dir, err = elsewhere(dataDir); err != nil {
			return place{}, err
		}
		if err := os.WriteFile(locationFile(dataDir), []byte(p.dir+"\n"), 0o600); err != nil {
			return place{}, err
		}
	}
	if err := os.MkdirAll(p.dir, 0o700); err != nil {
		return place{}, err
	}
	if err := p.acc.own(p.dir); err != nil {
		return place{}, err
	}
	return p, p.makeSocketDir()
}

// elsewhere makes a directory that any account can reach. Its name is new each
// time: what an earlier, deleted data directory left behind is not taken over.
func elsewhere(dataDir string) (string, error) {
	const parent = "/var/lib/resticfleet"
	prefix := pathHash(dataDir) + "-"
	err := os.MkdirAll(parent, 0o755)
	if err == nil {
		var dir string
		if dir, err = os.MkdirTemp(parent, prefix); err == nil {
			return dir, nil
		}
	}
	dir, tmpErr := os.MkdirTemp("/var/tmp", "resticfleet-"+prefix)
	if tmpErr != nil {
		return "", errors.Join(err, tmpErr)
	}
	return dir, nil
}

func pathHash(path string) string {
	sum := sha256.Sum256([]byte(path))
	return hex.EncodeToString(sum[:6])
}
