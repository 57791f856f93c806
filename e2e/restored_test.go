package e2e

import (
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// putBack stops the server and starts it again on an older copy of its data,
// which save has made.
func (s *server) putBack(t *testing.T, older string) {
	t.Helper()
	s.down(t)
	if err := os.RemoveAll(s.dir); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(older, s.dir); err != nil {
		t.Fatal(err)
	}
	s.up(t)
}

// save copies the data of the server as it is now.
func (s *server) save(t *testing.T) (older string) {
	t.Helper()
	s.down(t)
	older = s.dir + ".older"
	if out, err := exec.CommandContext(t.Context(), "cp", "-a", s.dir, older).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	s.up(t)
	return older
}

func (s *server) down(t *testing.T) {
	t.Helper()
	if err := s.process.stop(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
}

func (s *server) up(t *testing.T) {
	t.Helper()
	if err := s.start(); err != nil {
		t.Fatal(err)
	}
}

// The server's database is put back to before a backup began. The agent still
// has it, and its cron is ahead of what the server knows: in the end the job is
// there again with its whole log and its snapshot, and both run one set.
func TestServerIsPutBackInTimeWhileABackupRuns(t *testing.T) {
	t.Parallel()
	s := ownServer(t)
	h := s.newHost(t)
	r := localRepo(t)
	h.bind(r)
	group := h.group("docs", []string{writeFiles(t, h.dir+"/docs", map[string]string{"a": noise(1 << 20)})})
	kept := h.schedule("0 2 * * *", true, group)
	h.api().end(h.run(group)) // of before
	older := s.save(t)
	h.waitOnline()

	hold := filepath.Join(h.dir, "hold")
	if err := os.WriteFile(hold, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	h.writeRestic(fmt.Sprintf("#!/bin/sh\nprintf '%%s\\n' \"$1\" >>'%s'\n"+
		"if [ \"$1\" = backup ]; then echo before >&2; while [ -e '%s' ]; do sleep 0.05; done; echo after >&2; fi\nexec '%s' \"$@\"\n", h.starts, hold, suite.restic))
	h.schedule("0 3 * * *", true, group)
	h.schedule("0 4 * * *", true, group)
	id := h.run(group)
	h.api().state(id, "running")
	eventually(t, "the server has its first lines", func() bool { return strings.Contains(h.api().log(id), "before") })
	versions := func() (current, applied int64) {
		var v struct {
			Current int64 `json:"schedule_version"`
			Applied int64 `json:"applied_schedule_version"`
		}
		h.api().call("GET", "/api/hosts/"+h.id, nil, http.StatusOK, &v)
		return v.Current, v.Applied
	}
	eventually(t, "the agent runs three schedules", func() bool { current, applied := versions(); return current == 3 && applied == 3 })

	s.putBack(t, older)
	eventually(t, "the job is there again", func() bool { return h.api().send("GET", "/api/jobs/"+id, nil).status == http.StatusOK })
	j := h.api().state(id, "running")
	if j.Kind != "backup" || j.ActorKind != "system" || j.SourceGroupID == nil || *j.SourceGroupID != group {
		t.Errorf("it came back as %+v", j)
	}
	if err := os.Remove(hold); err != nil {
		t.Fatal(err)
	}
	h.settledBeside(id, r)
	log := h.api().log(id)
	for _, line := range []string{"starts: backup", "before", "after"} {
		if n := strings.Count(log, line); n != 1 {
			t.Errorf("%q stands %d times in the log:\n%s", line, n, log)
		}
	}
	eventually(t, "server and agent have one set", func() bool { current, applied := versions(); return current == 4 && applied == 4 })
	var left struct{ Items []struct{ ID string } }
	h.api().call("GET", "/api/hosts/"+h.id+"/schedules", nil, http.StatusOK, &left)
	if len(left.Items) != 1 || left.Items[0].ID != kept {
		t.Errorf("schedules: %+v", left.Items)
	}
}

// settledBeside checks that a backup beside others ended well, once.
func (h *host) settledBeside(id string, r *repo) {
	h.t.Helper()
	j := h.api().end(id)
	if j.State != "succeeded" || j.Late {
		h.t.Errorf("job %s is %s (late %v): %s", id, j.State, j.Late, j.Error)
	}
	mine := 0
	for _, s := range r.snapshots() {
		for _, tag := range s.Tags {
			if tag == "job:"+id {
				mine++
				if s.ID != j.snapshot() {
					h.t.Errorf("the job names snapshot %s, the repository has %s", j.snapshot(), s.ID)
				}
			}
		}
	}
	if n := h.started("backup"); mine != 1 || n != 2 {
		h.t.Errorf("%d snapshots of the job, %d backups in all", mine, n)
	}
}
