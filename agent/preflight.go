package agent

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"sync"
	"syscall"
	"time"

	"resticfleet/agent/protocol"
	"resticfleet/agent/restic"
)

// preflight looks for what would make restic fail, or half succeed, before it
// starts. nil: nothing found.
func (r *Runner) preflight(ctx context.Context, run protocol.Run) *protocol.Finished {
	if err := restic.Validate(run); err != nil {
		return restic.Fail(run.JobID, protocol.ErrInvalidCommand, "The command can't be run: "+err.Error()+".",
			"Correct it on the server.")
	}
	if protocol.URLScheme(run.Repository.URL) == protocol.SchemeRclone {
		return restic.Fail(run.JobID, protocol.ErrRefusedByPolicy, "This host does not let the server use rclone, which runs programs of its own.",
			"Use another kind of repository.")
	}
	if _, err := r.version.read(ctx); err != nil {
		return restic.Fail(run.JobID, protocol.ErrNoRestic, "There is no usable restic on this host: "+err.Error()+".",
			"Install restic 0.17 or newer there, or name it with --restic.")
	}
	for _, dir := range []string{r.journalDir(), r.runsDir(), r.cacheDir()} {
		if shortage := r.shortage(dir); shortage != "" {
			return restic.Fail(run.JobID, protocol.ErrNoSpace, shortage, "Free space on the host's disk that holds it.")
		}
	}
	if err := r.reserve.hold(); err != nil {
		return restic.Fail(run.JobID, protocol.ErrNoSpace, "No room can be kept on the host's disk for this job's result: "+err.Error()+".",
			"Free space on the disk that holds "+r.cfg.StateDir+".")
	}
	for _, path := range run.Includes {
		_, err := os.Lstat(path)
		if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENOTDIR) {
			return restic.Fail(run.JobID, protocol.ErrMissingInclude, fmt.Sprintf("%q does not exist on this host; nothing was backed up.", path),
				"Mount or create it, or change the source group's paths.")
		}
	}
	return nil
}

// shortage says what a folder's filesystem lacks, or nothing.
func (r *Runner) shortage(dir string) string {
	var fsStat syscall.Statfs_t
	if err := syscall.Statfs(dir, &fsStat); err != nil {
		return fmt.Sprintf("The agent's folder %s can't be used: %v.", dir, err)
	}
	free := fsStat.Bavail * uint64(max(fsStat.Bsize, 1))
	if free < r.cfg.MinFreeBytes {
		return fmt.Sprintf("Only %d MiB are free for the agent's folder %s, %d are needed.", free>>20, dir, r.cfg.MinFreeBytes>>20)
	}
	// btrfs and some network filesystems make inodes as they need them and
	// report none at all.
	if fsStat.Files > 0 && fsStat.Ffree < r.cfg.MinFreeInodes {
		return fmt.Sprintf("Only %d inodes are free for the agent's folder %s, %d are needed.", fsStat.Ffree, dir, r.cfg.MinFreeInodes)
	}
	return ""
}

// versionReader asks restic for its version, again only when the program has
// changed: a job shouldn't pay for it twice.
type versionReader struct {
	program string

	mu      sync.Mutex
	path    string
	size    int64
	modTime time.Time
	version string
}

// read gives the version; an error where restic is missing, doesn't run or is
// too old.
func (v *versionReader) read(ctx context.Context) (string, error) {
	path, err := exec.LookPath(v.program)
	if err != nil {
		return "", err
	}
	info, err := os.Stat(path)
	if err != nil {
		return "", err
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.path == path && v.size == info.Size() && v.modTime.Equal(info.ModTime()) {
		return v.version, nil
	}
	ctx, stop := context.WithTimeout(ctx, 20*time.Second)
	defer stop()
	cmd := exec.CommandContext(ctx, path, "version")
	cmd.Env = restic.BaseEnv(os.Environ())
	printed, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("%s version: %w", path, err)
	}
	version, supported, err := restic.ParseVersion(string(printed))
	if err != nil {
		return "", fmt.Errorf("%s: %w", path, err)
	}
	if !supported {
		return "", fmt.Errorf("%s is version %s, older than 0.17", path, version)
	}
	v.path, v.size, v.modTime, v.version = path, info.Size(), info.ModTime(), version
	return version, nil
}
