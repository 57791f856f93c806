package conformance

import (
	"database/sql"
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
	"resticfleet/e2e/weather"
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

// image is a second machine made of the first one's image, so alike that the
// journal is at home on both: nothing but its boot is its own. It has its own
// way to the server.
func (m *machine) image() *machine {
	m.t.Helper()
	twin := m.clone()
	twin.boot = "a boot of the image"
	twin.proxy = must[*weather.Proxy](m.t)(weather.New(m.s.url, 2))
	m.t.Cleanup(twin.proxy.Close)
	// A place that tells nothing is as good as one that is the same.
	if err := os.Remove(twin.path("state/journal/journal_place")); err != nil {
		m.t.Fatal(err)
	}
	config := must[[]byte](m.t)(os.ReadFile(twin.path("state/agent.json")))
	twin.write("state/agent.json", strings.ReplaceAll(string(config), m.proxy.URL, twin.proxy.URL))
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

// A job has left for a machine, and nobody knows yet whether it came, when a
// second machine speaks for the first time: one that was made of the first one's
// image, and that nothing tells from it but its boot. It is not given the job
// while the first may come back, and then the first has run it.
func TestAnImageOfAMachineIsNotGivenItsJob(t *testing.T) {
	t.Parallel()
	for _, l := range links[:2] {
		t.Run(l.name, func(t *testing.T) {
			t.Parallel()
			s := newServer(t, ping)
			one := newMachine(t, s, l, 1)
			g := one.group("docs")
			one.start()
			two := one.image()
			one.hold()
			one.proxy.Filter(func(up bool, e protocol.Envelope) []protocol.Envelope {
				if up {
					return nil
				}
				return []protocol.Envelope{e}
			})
			j := one.runNow(g)
			eventually(t, "it runs on the first machine", func() bool { return one.starts(j.ID) == 1 })
			two.start()
			// What comes after it is done there, so that it would have been too.
			unlock := must[*models.Job](t)(s.jobs.RunOnHost(t.Context(), one.host.ID, models.KindUnlock, models.System))
			two.in(unlock.ID, models.JobSucceeded)
			if now := s.job(j.ID); now.State != models.JobSent || now.AcceptedAt != nil || now.OfferAfter == nil || !strings.Contains(two.log.String(), unlock.ID.String()) {
				t.Errorf("while the first machine is out of sight, the job is %s, accepted %v, left to it until %v", now.State, now.AcceptedAt, now.OfferAfter)
			}
			one.proxy.Filter(nil)
			one.in(j.ID, models.JobRunning)
			two.stop() // how they take turns is another story
			one.release()
			one.in(j.ID, models.JobSucceeded)
			if a, b := one.starts(j.ID), two.starts(j.ID); a != 1 || b != 0 {
				t.Errorf("restic was started %d times on the first machine and %d times on the second", a, b)
			}
			if got := one.snapshots(); len(got) != 1 {
				t.Errorf("one job left the snapshots %v", got)
			}
			if page := s.page(t, "/hosts/"+one.host.ID.String()); !strings.Contains(page, "Two machines are this host") {
				t.Errorf("the page says nothing:\n%s", page)
			}
		})
	}
}

// A job is lost on its way, twice. When only the agent was started anew it is
// sent again at once; when the machine was, once it can't be with another one.
func TestAJobThatNeverCameIsSentAgain(t *testing.T) {
	t.Parallel()
	for _, l := range links[:2] {
		t.Run(l.name, func(t *testing.T) {
			t.Parallel()
			s := newServer(t, ping)
			m := newMachine(t, s, l, 1)
			g := m.group("docs")
			m.start()
			for _, boot := range []string{"", "another"} {
				m.proxy.Filter(func(_ bool, e protocol.Envelope) []protocol.Envelope {
					if e.Type == protocol.TypeRun {
						return nil
					}
					return []protocol.Envelope{e}
				})
				j := m.runNow(g)
				m.in(j.ID, models.JobSent)
				m.stop()
				m.proxy.Filter(nil)
				m.boot = boot
				m.run()
				if boot != "" {
					eventually(t, "it is left to whom it was sent", func() bool { return s.job(j.ID).OfferAfter != nil })
					if page := s.page(t, "/jobs/"+j.ID.String()); !strings.Contains(page, "was started anew after this was sent") {
						t.Errorf("the page says nothing:\n%s", page)
					}
					// Three minutes pass, also for a hello that comes only now.
					must[sql.Result](t)(s.db.ExecContext(t.Context(), "update hearing set heard = heard + interval '3 minutes'"))
					must[sql.Result](t)(s.db.ExecContext(t.Context(), "update jobs set offer_after = now() where id = ?", j.ID))
				}
				m.in(j.ID, models.JobSucceeded)
				if n := m.starts(j.ID); n != 1 {
					t.Errorf("restic was started %d times", n)
				}
			}
			if m.now().ClonedAt != nil {
				t.Error("it counts as two machines")
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
			eventually(t, "nothing writes to the disk that is lost", func() bool {
				steps := must[[]string](t)(filepath.Glob(m.path("state/run/*/*/started")))
				ends := must[[]string](t)(filepath.Glob(m.path("state/run/*/*/exit.json")))
				return len(steps) == len(ends)
			})
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
