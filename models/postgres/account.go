package postgres

import (
	"fmt"
	"io/fs"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"syscall"
)

// account is who PostgreSQL runs as. It refuses to run as root, so root lends
// it an unprivileged account; anybody else runs it as themselves.
type account struct {
	uid, gid uint32
	lent     bool // we are root and run as somebody else
}

// accountFor chooses the account for a data directory. One that exists decides
// by its owner, since PostgreSQL opens nobody else's files.
func accountFor(data string) (account, error) {
	self := account{uid: uint32(os.Geteuid()), gid: uint32(os.Getegid())}
	info, err := os.Stat(data)
	if err == nil {
		owner := info.Sys().(*syscall.Stat_t)
		switch {
		case self.uid == 0 && owner.Uid != 0:
			return account{uid: owner.Uid, gid: owner.Gid, lent: true}, nil
		case owner.Uid != self.uid:
			return account{}, fmt.Errorf("%s belongs to user id %d, but this process runs as %d: "+
				"run it as that user or as root", data, owner.Uid, self.uid)
		}
	}
	if self.uid != 0 {
		return self, nil
	}
	for _, name := range []string{"postgres", "nobody"} {
		u, err := user.Lookup(name)
		if err != nil {
			continue
		}
		uid, uidErr := strconv.ParseUint(u.Uid, 10, 32)
		gid, gidErr := strconv.ParseUint(u.Gid, 10, 32)
		if uidErr == nil && gidErr == nil && uid != 0 {
			return account{uid: uint32(uid), gid: uint32(gid), lent: true}, nil
		}
	}
	return account{}, fmt.Errorf("PostgreSQL does not run as root, and this machine has neither an account postgres nor nobody: " +
		"make one (useradd --system postgres), run as an ordinary user, or give --database-url")
}

// credential is what a child process needs to become the account.
func (a account) credential() *syscall.Credential {
	if !a.lent {
		return nil
	}
	return &syscall.Credential{Uid: a.uid, Gid: a.gid}
}

// own hands a file or directory over to the account.
func (a account) own(path string) error {
	if !a.lent {
		return nil
	}
	return os.Lchown(path, int(a.uid), int(a.gid))
}

// reaches reports whether the account may pass through dir and every directory
// above it. Only the classic permission bits count: an access list that says
// more is honoured by trying, not by this.
func (a account) reaches(dir string) (bool, error) {
	if !a.lent {
		return true, nil
	}
	for {
		info, err := os.Stat(dir)
		if err != nil {
			return false, err
		}
		if !a.passes(info) {
			return false, nil
		}
		parent := filepath.Dir(dir)
		if parent == dir {
			return true, nil
		}
		dir = parent
	}
}

func (a account) passes(dir fs.FileInfo) bool {
	owner := dir.Sys().(*syscall.Stat_t)
	switch {
	case owner.Uid == a.uid:
		return dir.Mode()&0o100 != 0
	case owner.Gid == a.gid:
		return dir.Mode()&0o010 != 0
	}
	return dir.Mode()&0o001 != 0
}
