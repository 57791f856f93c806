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
	"regexp"
	"slices"
	"strings"

	"resticfleet/agent/failpoint"
	"resticfleet/agent/protocol"
)

// retryLock is how long a backup waits for another's exclusive lock. The
// server is the gate; this only covers what runs past it.
const retryLock = "--retry-lock=10m"

// Every argument that carries a value from outside is one word, --name=value:
// no value can become an option of its own.

func backupArgs(run protocol.Run, includesFile, parent string) []string {
	args := []string{"backup", "--json", retryLock, "--host=" + run.ResticHost}
	if run.Tag != "" {
		args = append(args, "--tag="+run.Tag)
	}
	args = append(args, "--tag="+protocol.JobTagPrefix+run.JobID)
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

// listArgs are the host's own snapshots, those with any of the tags if there are
// some.
func listArgs(run protocol.Run, tags ...string) []string {
	args := []string{"snapshots", "--json", "--no-lock", "--host=" + run.ResticHost}
	for _, tag := range tags {
		args = append(args, "--tag="+tag)
	}
	return args
}

// planArgs ask what a policy lets go of a host's snapshots with any of the tags.
// Grouped by tags each would be alone because of its job's tag; grouped by paths
// every edit of a group would begin anew.
func planArgs(run protocol.Run, policy protocol.ForgetGroup) []string {
	args := []string{"forget", "--dry-run", "--json", "--no-lock", "--group-by=host", "--host=" + run.ResticHost}
	for _, tag := range policy.Tags {
		args = append(args, "--tag="+tag)
	}
	keep := policy.Retention
	for _, rule := range []struct {
		name string
		n    int
	}{
		{"last", keep.KeepLast}, {"hourly", keep.KeepHourly}, {"daily", keep.KeepDaily},
		{"weekly", keep.KeepWeekly}, {"monthly", keep.KeepMonthly}, {"yearly", keep.KeepYearly},
	} {
		if rule.n > 0 {
			args = append(args, fmt.Sprintf("--keep-%s=%d", rule.name, rule.n))
		}
	}
	if keep.KeepWithin != "" {
		args = append(args, "--keep-within="+keep.KeepWithin)
	}
	for _, tag := range keep.KeepTags {
		args = append(args, "--keep-tag="+tag)
	}
	return args
}

func forgetArgs(ids []string) []string {
	return append([]string{"forget", "--json", retryLock}, ids...)
}

func pruneArgs() []string { return []string{"prune", retryLock} }

func checkArgs(run protocol.Run) []string {
	args := []string{"check", retryLock}
	if run.ReadDataSubset != "" {
		args = append(args, "--read-data-subset="+run.ReadDataSubset)
	}
	return args
}

func diffArgs(run protocol.Run) []string {
	return append([]string{"diff", "--json", "--no-lock"}, run.SnapshotIDs...)
}

func settleArgs(run protocol.Run) []string {
	return listArgs(run, protocol.JobTagPrefix+run.JobID)
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
	switch run.Kind {
	case protocol.KindBackup:
		return validateBackup(run)
	case protocol.KindForget, protocol.KindSnapshots, protocol.KindDiff:
		return validateSnapshots(run)
	case protocol.KindCheck:
		if !protocol.ValidSubset(run.ReadDataSubset) {
			return fmt.Errorf("%q is no part of the data that restic can read (read_data_subset): in the host's maintenance, use %s", run.ReadDataSubset, protocol.SubsetForms)
		}
	}
	return nil
}

var (
	snapshotIDs = regexp.MustCompile(`^[0-9a-f]{64}$`)
	within      = regexp.MustCompile(`^([0-9]{1,5}[ymdh]){1,4}$`)
)

// validateSnapshots: what goes to restic must name this host's snapshots and
// nobody else's.
func validateSnapshots(run protocol.Run) error {
	if err := validateHost(run.ResticHost); err != nil {
		return err
	}
	for _, id := range slices.Concat(run.SnapshotIDs, run.Held) {
		if !snapshotIDs.MatchString(id) {
			return fmt.Errorf("%q is not a snapshot's whole id", id)
		}
	}
	policies := run.Forget
	if run.Preview != nil {
		policies = append(slices.Clone(policies), *run.Preview)
	}
	for _, p := range policies {
		if err := validatePolicy(p); err != nil {
			return err
		}
	}
	switch {
	case run.Settle:
		return nil
	case run.Kind == protocol.KindDiff && len(run.SnapshotIDs) != 2:
		return errors.New("the command doesn't name two snapshots to compare")
	case run.Kind == protocol.KindForget && (len(run.Forget) == 0) == (len(run.SnapshotIDs) == 0):
		return errors.New("the command names neither policies nor snapshots, or both")
	}
	return nil
}

// validatePolicy: without a tag a policy would be for everybody's snapshots, and
// without a rule restic would refuse it.
func validatePolicy(p protocol.ForgetGroup) error {
	if len(p.Tags) == 0 {
		return fmt.Errorf("the policy of %s names no tag", policyName(p))
	}
	for _, tag := range slices.Concat(p.Tags, p.Retention.KeepTags) {
		if err := validateTag(tag); err != nil {
			return err
		}
		if strings.TrimSpace(tag) == "" {
			return fmt.Errorf("the policy of %s has an empty tag", policyName(p))
		}
	}
	keep := p.Retention
	for _, n := range []int{keep.KeepLast, keep.KeepHourly, keep.KeepDaily, keep.KeepWeekly, keep.KeepMonthly, keep.KeepYearly} {
		if n < 0 {
			return fmt.Errorf("the policy of %s keeps less than nothing", policyName(p))
		}
	}
	if keep.KeepWithin != "" && !within.MatchString(keep.KeepWithin) {
		return fmt.Errorf("%q is no duration", keep.KeepWithin)
	}
	if keep.Empty() {
		return fmt.Errorf("the policy of %s is empty", policyName(p))
	}
	return nil
}

func validateHost(host string) error {
	switch {
	case host == "":
		return errors.New("the command names no restic host")
	case strings.ContainsRune(host, 0):
		return errors.New("the restic host contains NUL")
	}
	return nil
}

func validateTag(tag string) error {
	switch {
	case strings.ContainsAny(tag, ",\x00"):
		return fmt.Errorf("the tag %q contains a comma or NUL, which restic can't keep in one tag", tag)
	case strings.HasPrefix(strings.TrimSpace(tag), protocol.JobTagPrefix):
		return fmt.Errorf("the tag %q begins with %q, which is kept for job ids", tag, protocol.JobTagPrefix)
	}
	return nil
}

func validateBackup(run protocol.Run) error {
	if err := errors.Join(validateHost(run.ResticHost), validateTag(run.Tag)); err != nil {
		return err
	}
	switch {
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
