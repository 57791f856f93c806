// Package restic knows restic from the outside: which arguments make it do a
// job, what its lines and exit codes mean, and what to run next. It starts no
// process and keeps no state, so that a restarted agent comes to the same
// answers from the same files.
package restic

import (
	"bytes"
	"errors"
	"fmt"
	"path/filepath"
	"strings"

	"resticfleet/agent/failpoint"
	"resticfleet/agent/protocol"
)

// retryLock is how long a backup waits for another's exclusive lock. The
// server is the gate; this only covers what runs past it.
const retryLock = "--retry-lock=10m"

// JobTagPrefix begins the tag that every snapshot carries, followed by the job
// id: after any doubt the repository itself is asked by it.
const JobTagPrefix = "job:"

// Every argument that carries a value from outside is one word, --name=value:
// no value can become an option of its own.

func backupArgs(run protocol.Run, includesFile, parent string) []string {
	args := []string{"backup", "--json", retryLock, "--host=" + run.ResticHost}
	if run.Tag != "" {
		args = append(args, "--tag="+run.Tag)
	}
	args = append(args, "--tag="+JobTagPrefix+run.JobID)
	for _, pattern := range run.Excludes {
		if pattern != "" {
			args = append(args, "--exclude="+pattern)
		}
	}
	if parent != "" {
		args = append(args, "--parent="+parent)
	}
	return append(args, "--files-from-raw="+includesFile)
}

// Reads go without a lock: while check or prune holds its exclusive one, even
// a look would be refused.

func catConfigArgs() []string { return []string{"cat", "config", "--no-lock"} }

func initArgs() []string { return []string{"init", "--json"} }

func unlockArgs() []string {
	if failpoint.Planted(failpoint.ClearAll) {
		return []string{"unlock", "--remove-all"}
	}
	return []string{"unlock"}
}

func listLocksArgs() []string { return []string{"list", "locks", "--no-lock"} }

func catLockArgs(id string) []string { return []string{"cat", "lock", id, "--no-lock"} }

func settleArgs(run protocol.Run) []string {
	return []string{"snapshots", "--json", "--no-lock", "--host=" + run.ResticHost, "--tag=" + JobTagPrefix + run.JobID}
}

// Includes renders paths for --files-from-raw: a NUL after every name, the
// last one too.
func Includes(paths []string) []byte {
	var b bytes.Buffer
	for _, p := range paths {
		b.WriteString(p)
		b.WriteByte(0)
	}
	return b.Bytes()
}

// Validate refuses a command that restic would misread. The server checks the
// same things when they are entered; this is the agent's own opinion.
func Validate(run protocol.Run) error {
	switch {
	case run.Repository.URL == "":
		return errors.New("the command names no repository")
	case strings.ContainsAny(run.Repository.URL, "\x00\r\n"):
		return errors.New("the repository's address contains a line break or NUL")
	case optionLikeHost(run.Repository.URL):
		return errors.New("the repository's host begins with a dash, which ssh would take for an option")
	}
	if run.Kind != protocol.KindBackup {
		return nil
	}
	switch {
	case run.ResticHost == "":
		return errors.New("the command names no restic host")
	case strings.ContainsRune(run.ResticHost, 0):
		return errors.New("the restic host contains NUL")
	case strings.ContainsAny(run.Tag, ",\x00"):
		return fmt.Errorf("the tag %q contains a comma or NUL, which restic can't keep in one tag", run.Tag)
	case strings.HasPrefix(strings.TrimSpace(run.Tag), JobTagPrefix):
		return fmt.Errorf("the tag %q begins with %q, which is kept for job ids", run.Tag, JobTagPrefix)
	case strings.ContainsRune(run.Parent, 0):
		return errors.New("the parent snapshot's id contains NUL")
	case len(run.Includes) == 0 && !run.Settle:
		return errors.New("the command names no path to back up")
	}
	for _, p := range run.Includes {
		if !filepath.IsAbs(p) || strings.ContainsRune(p, 0) {
			return fmt.Errorf("the path %q is not absolute or contains NUL", p)
		}
	}
	for _, p := range run.Excludes {
		if strings.ContainsRune(p, 0) {
			return fmt.Errorf("the exclude %q contains NUL", p)
		}
	}
	return nil
}

// optionLikeHost: restic hands an sftp host and user to ssh as plain words, so
// sftp:-oProxyCommand=…:/x would run a program.
func optionLikeHost(url string) bool {
	if protocol.URLScheme(url) != protocol.SchemeSFTP {
		return false
	}
	rest := strings.TrimPrefix(strings.TrimPrefix(url, "sftp:"), "//")
	authority, _, _ := strings.Cut(rest, "/")
	for _, part := range strings.Split(authority, "@") {
		if strings.HasPrefix(part, "-") || strings.HasPrefix(strings.ToLower(part), "%2d") {
			return true
		}
	}
	return false
}
