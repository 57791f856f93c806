package conformance

import (
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"resticfleet/agent/protocol"
	"resticfleet/e2e/stage"
	"resticfleet/models"
)

// ping is the interval of the stories' links: short, and long enough for a
// machine that does a dozen other things.
const ping = time.Second

// stories are what agent and server must manage whatever links them. Each is
// told with a host of its own whose agent runs; it turns the link where it is
// most in the way.
var stories = map[string]func(*machine){
	"Run now becomes a snapshot":                 runNow,
	"a schedule fires and its change is seen":    schedule,
	"a cancel ends a running backup":             cancelRunning,
	"a cancel reaches a host that was away":      cancelAway,
	"a command is offered until it is accepted":  acceptanceLost,
	"a result is told until it is acknowledged":  resultLost,
	"an acknowledgement that is lost":            acknowledgementLost,
	"one job comes after the other":              oneAfterTheOther,
	"messages of another version are ignored":    unknownMessages,
	"another host's job is not this host's":      foreignJob,
	"a job goes on while the agent is restarted": agentRestart,
}

func TestEveryStoryOverEveryLink(t *testing.T) {
	t.Parallel()
	s := newServer(t, ping)
	t.Run("stories", func(t *testing.T) {
		seed := uint64(0)
		for _, l := range links {
			for name, tell := range stories {
				if seed++; l.alike && !strings.HasPrefix(name, "a c") {
					continue // commands and cancels
				}
				t.Run(l.name+"/"+name, func(t *testing.T) {
					t.Parallel()
					m := newMachine(t, s, l, seed)
					m.start()
					tell(m)
				})
			}
		}
	})
}

// held begins a backup and returns when it runs; it is held.
func (m *machine) held() (*models.Job, *history) {
	m.t.Helper()
	m.hold()
	j := m.runNow(m.group("docs"))
	h := m.s.watch(m.t, j.ID)
	m.in(j.ID, models.JobRunning)
	return j, h
}

func (m *machine) settledOne(want models.JobState, j *models.Job, h *history) {
	m.t.Helper()
	m.settled(want, map[models.JobID]*history{j.ID: h})
}

func runNow(m *machine) {
	j, h := m.held()
	m.turn()
	progress := func() int64 { return m.s.job(j.ID).ProgressSeq }
	seen := progress()
	eventually(m.t, "progress is told over the new link", func() bool { return progress() > seen })
	m.turn()
	seen = progress()
	eventually(m.t, "progress is told over the last link", func() bool { return progress() > seen })
	m.release()
	m.settledOne(models.JobSucceeded, j, h)
}

func schedule(m *machine) {
	ctx, t := m.t.Context(), m.t
	m.write("drips", "1\n")
	g := m.group("docs")
	applied := func() {
		t.Helper()
		m.s.jobs.HostChanged(m.host.ID)
		eventually(t, "the agent runs the new set", func() bool {
			h := m.now()
			return h.AppliedScheduleVersion == h.ScheduleVersion
		})
	}
	fields := models.ScheduleFields{Cron: "@every 1s", Enabled: true, GroupIDs: []string{g.ID.String()}}
	made := must[*models.Schedule](t)(models.AddSchedule(ctx, m.s.db, m.host.ID, fields))
	applied()
	m.turn()
	fired := func() int {
		t.Helper()
		list, _, err := models.ListJobs(ctx, m.s.db, models.JobFilter{HostID: m.host.ID, Kind: models.KindBackup, States: []models.JobState{models.JobSucceeded}}, models.Page{})
		if err != nil {
			t.Fatal(err)
		}
		for _, j := range list {
			if j.ActorKind != models.ActorSchedule || j.ScheduledAt == nil || j.ScheduledAt.Nanosecond() != 0 {
				t.Fatalf("%+v", j)
			}
		}
		return len(list)
	}
	eventually(t, "the schedule has made a backup", func() bool { return fired() > 0 })
	m.turn()
	fields.Enabled = false
	must[*models.Schedule](t)(models.UpdateSchedule(ctx, m.s.db, m.host.ID, made.ID, fields))
	applied()
	eventually(t, "the last of them has ended", func() bool {
		return len(must[[]*models.Job](t)(models.OpenJobs(ctx, m.s.db, m.host.ID))) == 0
	})
	m.acknowledged()
	if want := fired(); len(m.snapshots()) != want {
		t.Errorf("%d snapshots of %d backups", len(m.snapshots()), want)
	}
}

func cancelRunning(m *machine) {
	j, h := m.held()
	m.turn()
	must[*models.Job](m.t)(m.s.jobs.Cancel(m.t.Context(), j.ID))
	m.settledOne(models.JobCancelled, j, h)
}

func cancelAway(m *machine) {
	j, h := m.held()
	m.stop()
	must[*models.Job](m.t)(m.s.jobs.Cancel(m.t.Context(), j.ID))
	if m.link.changes {
		// It left by WebSocket and comes back by polling.
		m.proxy.Set(links[2].climate)
	}
	m.run()
	m.settledOne(models.JobCancelled, j, h)
}

// lost loses the first message that what is true of, and reports how often it
// was said in all.
func (m *machine) lost(what func(up bool, e protocol.Envelope) bool) *atomic.Int64 {
	said := new(atomic.Int64)
	m.proxy.Filter(func(up bool, e protocol.Envelope) []protocol.Envelope {
		if what(up, e) && said.Add(1) == 1 {
			return nil
		}
		return []protocol.Envelope{e}
	})
	return said
}

func (m *machine) saidAgain(said *atomic.Int64) {
	m.t.Helper()
	if n := said.Load(); n < 2 {
		m.t.Errorf("what was lost was said %d times", n)
	}
}

func acceptanceLost(m *machine) {
	var offered atomic.Int64
	said := m.lost(func(up bool, e protocol.Envelope) bool {
		if e.Type == protocol.TypeRun {
			offered.Add(1)
		}
		return up && e.Type == protocol.TypeAccepted
	})
	m.hold()
	j := m.runNow(m.group("docs"))
	h := m.s.watch(m.t, j.ID)
	eventually(m.t, "the acceptance is lost", func() bool { return said.Load() > 0 })
	m.turn()
	m.in(j.ID, models.JobRunning)
	m.release()
	m.settledOne(models.JobSucceeded, j, h)
	if m.s.job(j.ID).AcceptedAt == nil || offered.Load() == 0 {
		m.t.Errorf("offered %d times", offered.Load())
	}
}

func resultLost(m *machine) {
	j, h := m.held()
	said := m.lost(func(up bool, e protocol.Envelope) bool { return up && e.Type == protocol.TypeFinished })
	m.release()
	eventually(m.t, "the result is lost", func() bool { return said.Load() > 0 })
	m.turn()
	m.settledOne(models.JobSucceeded, j, h)
	if !m.link.changes { // over a new link it may be the hello that asks for it
		m.saidAgain(said)
	}
}

func acknowledgementLost(m *machine) {
	j, h := m.held()
	said := m.lost(func(up bool, e protocol.Envelope) bool {
		ack, err := protocol.Decode[protocol.Ack](e)
		return !up && e.Type == protocol.TypeAck && err == nil && len(ack.Acknowledged) == 1 && ack.Acknowledged[0] == j.ID.String()+"-finished"
	})
	m.release()
	eventually(m.t, "the acknowledgement is lost", func() bool { return said.Load() > 0 })
	m.turn()
	m.settledOne(models.JobSucceeded, j, h)
	m.saidAgain(said)
}

func oneAfterTheOther(m *machine) {
	first, h := m.held()
	second := m.runNow(m.group("pictures"))
	h2 := m.s.watch(m.t, second.ID)
	m.turn()
	if j := m.s.job(second.ID); j.State != models.JobQueued {
		m.t.Errorf("the second is %s while the first runs", j.State)
	}
	m.release()
	m.write("drips", "1\n")
	m.settled(models.JobSucceeded, map[models.JobID]*history{first.ID: h, second.ID: h2})
	if a, b := m.s.job(first.ID), m.s.job(second.ID); b.SentAt.Before(*a.FinishedAt) {
		m.t.Errorf("the second left at %v, the first ended at %v", b.SentAt, a.FinishedAt)
	}
}

func unknownMessages(m *machine) {
	j, h := m.held()
	counted := m.s.agents.Counts.Unknown.Load()
	var up, down atomic.Bool // whether one has gone there
	m.proxy.Filter(func(isUp bool, e protocol.Envelope) []protocol.Envelope {
		gone := &down
		if isUp {
			gone = &up
		}
		switch e.Type {
		case protocol.TypeHello, protocol.TypeWelcome, protocol.TypeAck:
			return []protocol.Envelope{e}
		}
		if gone.Swap(true) {
			return []protocol.Envelope{e}
		}
		return []protocol.Envelope{protocol.Seal("future-"+e.ID, "from.the.future", map[string]int{"a": 1}), e}
	})
	m.turn()
	eventually(m.t, "the server counts it", func() bool { return up.Load() && m.s.agents.Counts.Unknown.Load() > counted })
	// Something that goes down: a new set.
	must[*models.Schedule](m.t)(models.AddSchedule(m.t.Context(), m.s.db, m.host.ID, models.ScheduleFields{Cron: "@daily", Enabled: true, GroupIDs: []string{j.SourceGroupID.String()}}))
	m.s.jobs.HostChanged(m.host.ID)
	eventually(m.t, "the agent counts it", func() bool {
		return down.Load() && strings.Contains(m.log.String(), `type=from.the.future err="its type is unknown here" ignored_so_far=`)
	})
	m.turn()
	m.release()
	m.settledOne(models.JobSucceeded, j, h)
}

func foreignJob(m *machine) {
	other := newMachine(m.t, m.s, links[1], 0)
	theirs := other.runNow(other.group("theirs")) // its agent does not run
	j, h := m.held()
	rejected := m.s.agents.Counts.Rejected.Load()
	var injected atomic.Bool
	m.proxy.Filter(func(up bool, e protocol.Envelope) []protocol.Envelope {
		if up && e.Type == protocol.TypeProgress && !injected.Swap(true) {
			return []protocol.Envelope{e,
				protocol.Seal("f1", protocol.TypeStarted, protocol.Started{JobID: theirs.ID.String()}),
				protocol.Seal("f2", protocol.TypeFinished, protocol.Finished{JobID: theirs.ID.String(), Outcome: protocol.OutcomeFailed}),
				protocol.Seal("f3", protocol.TypeLog, protocol.Log{JobID: theirs.ID.String(), Lines: []protocol.LogLine{{Seq: 1, Text: "no"}}}),
			}
		}
		return []protocol.Envelope{e}
	})
	eventually(m.t, "the server refuses and counts them", func() bool { return m.s.agents.Counts.Rejected.Load() >= rejected+3 })
	if now := m.s.job(theirs.ID); now.State != models.JobQueued || len(must[[]models.LogLine](m.t)(models.ListLog(m.t.Context(), m.s.db, theirs.ID, 0, 1))) != 0 {
		m.t.Errorf("the other host's job is %s", now.State)
	}
	m.turn()
	m.release()
	m.settledOne(models.JobSucceeded, j, h)
}

func agentRestart(m *machine) {
	j, h := m.held()
	m.stop()
	m.run()
	m.linked(m.link.first())
	m.turn()
	if state := m.s.job(j.ID).State; state != models.JobRunning {
		m.t.Errorf("the job is %s", state)
	}
	m.release()
	m.settledOne(models.JobSucceeded, j, h)
}

// Two things are asked at once whose answers are many pieces each: for the list
// of snapshots, and what a policy would do with them. A link stalls in the middle
// and one is cut, a piece is lost, one comes twice and one behind the next: each
// answer is whole in the end, and has nothing twice.
func TestAnswersOfManyPiecesComeWhole(t *testing.T) {
	t.Parallel()
	// The links live until they are cut, however long a piece takes.
	s := newServer(t, time.Minute)
	for i, l := range links {
		if l.alike {
			continue
		}
		t.Run(l.name, func(t *testing.T) {
			t.Parallel()
			m := newMachine(t, s, l, uint64(300+i))
			m.resend = 5 * time.Second
			m.start()
			longAnswers(m)
		})
	}
}

func longAnswers(m *machine) {
	ctx, t := m.t.Context(), m.t
	g := m.group("docs")
	first := m.runNow(g)
	m.settledOne(models.JobSucceeded, first, m.s.watch(t, first.ID))
	ids := m.forgeLong(g.Tag, 70)

	stalled, cut := make(chan struct{}), make(chan struct{})
	var mu sync.Mutex
	pieces := map[string]map[string]bool{} // by job, those that were said
	ends := map[string]int64{}
	said := 0
	var kept []protocol.Envelope
	m.proxy.Filter(func(up bool, e protocol.Envelope) []protocol.Envelope {
		mu.Lock()
		defer mu.Unlock()
		if up && e.Type == protocol.TypeFinished {
			if f, err := protocol.Decode[protocol.Finished](e); err == nil {
				ends[f.JobID] = f.LastAnswerSeq
			}
		}
		job, _, ok := strings.Cut(e.ID, "-answer-")
		if !up || !ok {
			return []protocol.Envelope{e}
		}
		if pieces[job] == nil {
			pieces[job] = map[string]bool{}
		}
		pieces[job][e.ID] = true
		out := append([]protocol.Envelope{e}, kept...)
		kept = nil
		switch said++; said {
		case 2:
			m.proxy.Stall()
			close(stalled)
		case 3:
			return nil
		case 4:
			close(cut)
		case 6:
			out = append(out, e)
		case 7:
			kept = out
			return nil
		}
		return out
	})
	refresh := must[*models.Job](t)(m.s.jobs.RefreshSnapshots(ctx, m.host.ID, models.System))
	var plan *models.RetentionPlan
	var planned error
	asked := make(chan struct{})
	go func() {
		defer close(asked)
		plan, planned = m.s.jobs.PreviewRetention(ctx, m.host.ID, g.ID, models.Retention{KeepLast: 3}, models.System)
	}()
	for _, faulty := range []chan struct{}{stalled, cut} {
		select {
		case <-faulty:
		case <-time.After(patience):
			t.Fatal("the answers have too few pieces")
		}
		m.proxy.Cut()
		m.turn()
	}
	m.in(refresh.ID, models.JobSucceeded)
	<-asked
	m.acknowledged()
	m.proxy.Filter(nil)

	if planned != nil {
		t.Fatal(planned)
	}
	told := []string{}
	for _, s := range append(plan.Keep, plan.Remove...) {
		told = append(told, s.ID)
		if len(s.Paths) != longPaths && s.ID != m.s.job(first.ID).SnapshotID {
			t.Errorf("the plan has %d paths of %s", len(s.Paths), s.ID)
		}
	}
	slices.Sort(told)
	if !slices.Equal(told, m.snapshots()) || len(plan.Keep) != 3 {
		t.Errorf("the plan has the snapshots %v, and keeps %d", told, len(plan.Keep))
	}
	if list := m.listed(); !slices.Equal(list, m.snapshots()) || len(list) != len(ids)+1 {
		t.Errorf("the list has the snapshots %v, the repository %v", list, m.snapshots())
	}
	var whole, left int
	err := m.s.db.QueryRowContext(ctx, `select (select count(*) from snapshots where host_id = ? and jsonb_array_length(paths) = ?),
		(select count(*) from job_answers a join jobs j on j.id = a.job_id where j.host_id = ?)`, m.host.ID, longPaths, m.host.ID).Scan(&whole, &left)
	if err != nil || whole != len(ids) || left != 0 {
		t.Errorf("%d snapshots have all their paths, %d pieces are left: %v", whole, left, err)
	}
	mu.Lock()
	defer mu.Unlock()
	if len(pieces) < 2 || said <= 7 {
		t.Errorf("%d pieces of %d answers were said", said, len(pieces))
	}
	for job, seen := range pieces {
		if last := ends[job]; last < 3 || int64(len(seen)) != last {
			t.Errorf("job %s has %d pieces, %d were said", job, last, len(seen))
		}
	}
}

// longPaths is how many paths a forged snapshot has: almost as many as are told
// of one, so that three dozen fill a piece of an answer.
const longPaths = 35

// forgeLong puts so many snapshots of this host into its repository.
func (m *machine) forgeLong(tag string, n int) []string {
	m.t.Helper()
	var forged []stage.Forged
	for i := range n {
		s := stage.Forged{Hostname: m.host.ResticHost, Tags: []string{tag}, Time: time.Now().Add(-time.Duration(i+1) * time.Hour)}
		for j := range longPaths {
			s.Paths = append(s.Paths, fmt.Sprintf("/srv/%d/%d/%s", i, j, strings.Repeat("x", 200)))
		}
		forged = append(forged, s)
	}
	restic := must[string](m.t)(filepath.Abs("../../bin/restic"))
	return must[[]string](m.t)(stage.Forge(m.t.Context(), restic, m.path("repo"), []string{"RESTIC_REPOSITORY=" + m.path("repo"), "RESTIC_PASSWORD=" + password}, forged))
}

// Enrolment by the link's own proxy, then everything up to the first snapshot.
func TestAHostBeginsOverEveryLink(t *testing.T) {
	t.Parallel()
	s := newServer(t, ping)
	t.Run("links", func(t *testing.T) {
		for i, l := range links {
			t.Run(l.name, func(t *testing.T) {
				t.Parallel()
				m := bareMachine(t, s, l, uint64(100+i))
				m.start()
				must[*models.HostRepository](t)(s.jobs.BindRepository(t.Context(), m.host.ID, models.RepositoryFields{URL: m.path("repo"), Password: password}))
				m.turn()
				var made *models.Job
				eventually(t, "the init has ended", func() bool {
					list, _, err := models.ListJobs(t.Context(), s.db, models.JobFilter{HostID: m.host.ID, Kind: models.KindInit, States: []models.JobState{models.JobSucceeded}}, models.Page{})
					if err != nil || len(list) > 1 {
						t.Fatalf("%v, %v", list, err)
					}
					if len(list) == 1 {
						made = list[0]
					}
					return made != nil
				})
				m.turn()
				m.write("drips", "1\n")
				j := m.runNow(m.group("docs"))
				m.settledOne(models.JobSucceeded, j, s.watch(t, j.ID))
			})
		}
	})
}

// The server is another process at another address, and knows nothing of the
// link but what stands in the database.
func TestTheServerIsRestartedWhileAJobRuns(t *testing.T) {
	t.Parallel()
	for i, l := range links {
		if l.alike {
			continue
		}
		t.Run(l.name, func(t *testing.T) {
			t.Parallel()
			s := newServer(t, ping)
			m := newMachine(t, s, l, uint64(200+i))
			m.start()
			j, h := m.held()
			session := m.now().LinkSession
			s.restart()
			if err := m.proxy.To(s.url); err != nil {
				t.Fatal(err)
			}
			eventually(t, "the agent has said hello to the new one", func() bool { return m.now().LinkSession != session })
			m.turn()
			m.turn()
			m.release()
			m.settledOne(models.JobSucceeded, j, h)
		})
	}
}
