package conformance

import (
	"fmt"
	"io"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"resticfleet/agent"
	"resticfleet/agent/protocol"
	"resticfleet/models"
)

// clone is a second machine with a copy of the first one's state directory, as
// an image of it would be.
func (m *machine) clone() *machine {
	m.t.Helper()
	twin := &machine{t: m.t, s: m.s, proxy: m.proxy, link: m.link, host: m.host, dir: m.t.TempDir(), log: &text{}, stop: func() {}}
	twin.write("drips", "0\n")
	twin.write("restic", fmt.Sprintf(wrapper, twin.dir, must[string](m.t)(filepath.Abs("../../bin/restic"))))
	if err := os.Chmod(twin.path("restic"), 0o700); err != nil {
		m.t.Fatal(err)
	}
	if err := os.CopyFS(twin.path("state"), os.DirFS(m.path("state"))); err != nil {
		m.t.Fatal(err)
	}
	return twin
}

// page is what a person sees of the host.
func (s *server) page(t *testing.T, path string) string {
	t.Helper()
	const name, password = "operator", "a password of ours"
	if _, err := models.AddUser(t.Context(), s.db, name, password, models.RoleAdmin); err != nil {
		t.Fatal(err)
	}
	browser := &http.Client{Jar: must[*cookiejar.Jar](t)(cookiejar.New(nil))}
	read := func(res *http.Response, err error) string {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		return string(must[[]byte](t)(io.ReadAll(res.Body)))
	}
	read(browser.PostForm(s.url+"/login", url.Values{"username": {name}, "password": {password}}))
	return read(browser.Get(s.url + path))
}

// Two agents on copies of one state directory live at once and take turns.
// Whatever the one has stays the one's, each job runs once, and the page tells.
func TestClonesTakeTurnsAndRunEveryJobOnce(t *testing.T) {
	t.Parallel()
	for _, l := range links[:2] {
		t.Run(l.name, func(t *testing.T) {
			t.Parallel()
			s := newServer(t, time.Second)
			one := newMachine(t, s, l, 1)
			g := one.group("docs")
			one.start()
			one.hold()
			running := one.runNow(g)
			one.in(running.ID, models.JobRunning)
			two := one.clone()
			two.run()
			eventually(t, "the server knows of the clone", func() bool { return one.now().Cloned(time.Now()) })
			// Time enough for the copy to be asked, if it were.
			eventually(t, "they have taken turns", func() bool {
				return strings.Count(one.log.String(), "linked to the server") > 10 && strings.Count(two.log.String(), "linked to the server") > 10
			})
			one.release()
			ran := []models.JobID{running.ID}
			one.in(running.ID, models.JobSucceeded)
			for range 8 {
				j := one.runNow(g)
				one.in(j.ID, models.JobSucceeded)
				ran = append(ran, j.ID)
			}
			for _, id := range ran {
				if n := one.starts(id) + two.starts(id); n != 1 {
					t.Errorf("restic was started %d times for job %s", n, id)
				}
			}
			for _, m := range []*machine{one, two} {
				if raw, err := os.ReadFile(m.path("starts")); err == nil && strings.Contains(string(raw), "snapshots") {
					t.Errorf("one was asked about what the other had:\n%s", raw)
				}
			}
			if got := one.snapshots(); len(got) != len(ran) {
				t.Errorf("%d jobs left %d snapshots", len(ran), len(got))
			}
			if page := s.page(t, "/hosts/"+one.host.ID.String()); !strings.Contains(page, "Two machines are this host") {
				t.Errorf("the page says nothing:\n%s", page)
			}
			// The remedy: a new enrolment shuts the other out.
			two.stop()
			token, _, err := models.NewEnrollmentToken(t.Context(), s.db, one.host.ID)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := agent.Enroll(t.Context(), agent.Enrollment{Server: one.proxy.URL, Token: token, StateDir: one.path("state"), Version: "test", Timezone: "UTC"}); err != nil {
				t.Fatal(err)
			}
			two.run()
			eventually(t, "the copy is refused", func() bool {
				return strings.Contains(two.log.String(), "replaced by a newer enrolment")
			})
			j := one.runNow(g)
			one.in(j.ID, models.JobSucceeded)
			if now := one.now(); now.ClonedAt != nil || one.starts(j.ID) != 1 {
				t.Errorf("enrolled anew: cloned at %v, %d starts", now.ClonedAt, one.starts(j.ID))
			}
		})
	}
}

// A backup ends while its host is cut off, and then the host's disk is lost.
// Nobody remembers it but the repository, which is asked: it is not run again.
func TestALostDiskIsAskedAboutItsBackup(t *testing.T) {
	t.Parallel()
	for _, l := range links[:2] {
		t.Run(l.name, func(t *testing.T) {
			t.Parallel()
			s := newServer(t, time.Second)
			s.jobs.SettleAfter = 500 * time.Millisecond
			m := newMachine(t, s, l, 1)
			g := m.group("docs")
			m.start()
			m.hold()
			j := m.runNow(g)
			m.in(j.ID, models.JobRunning)
			began := s.job(j.ID).StartedAt
			m.proxy.Filter(func(bool, protocol.Envelope) []protocol.Envelope { return nil })
			m.release()
			eventually(t, "the snapshot is there", func() bool { return len(m.snapshots()) == 1 })
			m.stop()
			for _, lost := range []string{"journal", "run"} {
				if err := os.RemoveAll(m.path("state/" + lost)); err != nil {
					t.Fatal(err)
				}
			}
			m.proxy.Filter(nil)
			m.proxy.Cut()
			m.start()
			m.in(j.ID, models.JobWarning)
			now := s.job(j.ID)
			if now.ErrorCode != protocol.ErrEndUnrecorded || now.SnapshotID != m.snapshots()[0] || m.starts(j.ID) != 1 || !now.StartedAt.Equal(*began) {
				t.Errorf("it is %s (%s) with %s of %v, restic was started %d times", now.State, now.ErrorCode, now.SnapshotID, m.snapshots(), m.starts(j.ID))
			}
			fresh := must[*models.Group](t)(models.FindGroup(t.Context(), s.db, m.host.ID, g.ID))
			if fresh.GoodSnapshotID != now.SnapshotID || !fresh.GoodAt.Equal(*began) {
				t.Errorf("the group's newest good snapshot is %s of %v", fresh.GoodSnapshotID, fresh.GoodAt)
			}
			// The next one is run as ever.
			next := m.runNow(g)
			m.in(next.ID, models.JobSucceeded)
		})
	}
}
