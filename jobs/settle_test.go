package jobs_test

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"resticfleet/agent/protocol"
	"resticfleet/jobs"
	"resticfleet/models"
)

// says opens a link for an agent that says this of itself.
func (b *bundle) says(h *models.Host, hello protocol.Hello) (*jobs.Link, []protocol.Envelope) {
	b.t.Helper()
	link, first, err := b.servers[0].Hello(b.ctx, h, protocol.LinkWebSocket, hello)
	if err != nil {
		b.t.Fatal(err)
	}
	return link, first
}

// listened moves the servers' common clock on, as their ticks would.
func (b *bundle) listened(d time.Duration) {
	b.t.Helper()
	b.exec("update hearing set heard = heard + ?::interval", d.String())
}

// offers are the commands among messages, those that only ask marked by "?".
func (b *bundle) offers(messages []protocol.Envelope) []string {
	b.t.Helper()
	all := []string{}
	for _, m := range messages {
		if m.Type != protocol.TypeRun {
			continue
		}
		run := must[protocol.Run](b.t)(protocol.Decode[protocol.Run](m))
		if run.Settle {
			if run.JobID == "" || run.Kind == "" || run.Repository.URL == "" || run.Repository.Sealed != "" || len(run.Includes) > 0 {
				b.t.Errorf("asked by %+v", run)
			}
			run.JobID += "?"
		}
		all = append(all, run.JobID)
	}
	return all
}

// A job is offered again only to whom it was offered before and can't have had
// it. Anywhere else it may have run: it is asked about, and never run again.
func TestAnotherJournalIsAskedAndNeverToldToRun(t *testing.T) {
	t.Parallel()
	const (
		run  = "run"
		ask  = "ask"
		lost = "lost"
	)
	sent := func(*bundle, *jobs.Link, models.JobID) {}
	accepted := func(b *bundle, link *jobs.Link, id models.JobID) {
		b.say(0, link, protocol.TypeAccepted, protocol.Accepted{JobID: id.String(), JournalID: "first"})
	}
	running := func(b *bundle, link *jobs.Link, id models.JobID) {
		accepted(b, link, id)
		b.say(0, link, protocol.TypeStarted, protocol.Started{JobID: id.String()})
	}
	silent := func(b *bundle, link *jobs.Link, id models.JobID) {
		running(b, link, id)
		b.exec("update jobs set state = 'lost', error_code = 'host_silent', error = 'why', finished_at = now() where id = ?", id)
	}
	expired := func(b *bundle, _ *jobs.Link, id models.JobID) {
		b.exec("update jobs set state = 'expired', finished_at = now() where id = ?", id)
	}
	for _, c := range []struct {
		name     string
		so       func(*bundle, *jobs.Link, models.JobID)
		journal  string
		protocol int
		want     string // "" for nothing
	}{
		{"never accepted", sent, "first", 2, run},
		{"never accepted, an old agent", sent, "first", 1, run},
		{"never accepted, another disk", sent, "second", 2, ask},
		{"never accepted, another disk, an old agent", sent, "second", 1, lost},
		{"accepted once", accepted, "first", 2, ask},
		{"accepted once, an old agent", accepted, "first", 1, lost},
		{"accepted, another disk", accepted, "second", 2, ask},
		{"accepted, another disk, an old agent", accepted, "second", 1, lost},
		{"running, a disk put back in time", running, "first", 2, ask},
		{"running, another disk", running, "second", 2, ask},
		{"running, another disk, an old agent", running, "second", 1, lost},
		{"given up for its silence, another disk", silent, "second", 2, ask},
		{"given up for its silence, an old agent", silent, "second", 1, lost},
		{"expired", expired, "first", 2, ""},
		{"expired, another disk", expired, "second", 2, ask},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			b := setup(t)
			h := b.host("web-1", "/srv/repo")
			link, _ := b.says(h, protocol.Hello{JournalID: "first", Protocol: 2, Instance: "before"})
			j := b.run(b.group(h, "www"))
			b.wantCommands(0, link, j.ID)
			c.so(b, link, j.ID)
			before := b.job(j.ID)
			b.listened(24 * time.Hour)

			_, first := b.says(h, protocol.Hello{JournalID: c.journal, Protocol: c.protocol, Instance: "after"})
			now := b.job(j.ID)
			want := map[string][]string{run: {j.ID.String()}, ask: {j.ID.String() + "?"}}[c.want]
			if got := b.offers(first); !slices.Equal(got, append([]string{}, want...)) {
				t.Errorf("offered %v, want %v", got, want)
			}
			if c.want == lost {
				if now.State != models.JobLost || now.Error == "" || now.Gate != nil {
					t.Errorf("it is %s: %s", now.State, now.Error)
				}
				return
			}
			if now.State != before.State {
				t.Errorf("it went from %s to %s", before.State, now.State)
			}
			if c.want != ask {
				return
			}
			// Until it is accepted, by whatever hello: never to run.
			_, first = b.says(h, protocol.Hello{JournalID: c.journal, Protocol: 2, Instance: "after"})
			if got := b.offers(first); !slices.Equal(got, want) {
				t.Errorf("at the next hello %v", got)
			}
			b.exec("update jobs set offered_at = now() - interval '1 day'")
			link, first = b.says(h, protocol.Hello{JournalID: "third", Protocol: 2, Instance: "yet another"})
			b.exec("update jobs set settle_after = now() where id = ?", j.ID)
			if got := b.offers(append(first, must[[]protocol.Envelope](t)(b.servers[0].Outgoing(b.ctx, link))...)); !slices.Equal(got, want) {
				t.Errorf("on yet another disk %v", got)
			}
			b.say(0, link, protocol.TypeAccepted, protocol.Accepted{JobID: j.ID.String(), JournalID: "third"})
			b.exec("update jobs set offered_at = now() - interval '1 day'")
			if got := b.offers(must[[]protocol.Envelope](t)(b.servers[0].Outgoing(b.ctx, link))); len(got) != 0 {
				t.Errorf("once accepted, offered %v", got)
			}
			if now = b.job(j.ID); now.ClaimJournalID != "third" || now.ClaimInstance != "yet another" || now.SettleAfter != nil || now.AcceptedAt == nil {
				t.Errorf("accepted as %+v", now)
			}
			// It is known now, and its truth is its end.
			_, first = b.says(h, protocol.Hello{JournalID: "third", Protocol: 2, Instance: "yet another",
				Jobs: []protocol.HelloJob{{JobID: j.ID.String(), State: protocol.JobAccepted}}})
			if got := b.offers(first); len(got) != 0 {
				t.Errorf("known, yet offered %v", got)
			}
		})
	}
}

// What the repository tells of a backup that nobody remembers counts for its
// group as of the time when it was made.
func TestAnUnrecordedSnapshotIsAGoodOne(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name  string
		files int64 // the group's minimum
		found float64
		code  string
		good  bool
	}{
		{"without a minimum", 0, 0, protocol.ErrEndUnrecorded, true},
		{"above its minimum", 10, 10, protocol.ErrEndUnrecorded, true},
		{"below its minimum", 10, 9, protocol.ErrBelowMinimum, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			b := setup(t)
			h := b.host("web-1", "/srv/repo")
			g := must[*models.Group](t)(models.AddGroup(b.ctx, b.db, h.ID, models.GroupFields{Name: "www", Includes: []string{"/srv"}, MinFiles: c.files}))
			link, _ := b.says(h, protocol.Hello{JournalID: "first", Protocol: 2, Instance: "before"})
			j := b.run(g)
			b.wantCommands(0, link, j.ID)
			b.exec("update jobs set queued_at = now() - interval '3 hours', sent_at = now() - interval '3 hours' where id = ?", j.ID)
			b.listened(24 * time.Hour)
			link, _ = b.says(h, protocol.Hello{JournalID: "second", Protocol: 2, Instance: "after"})
			b.say(0, link, protocol.TypeAccepted, protocol.Accepted{JobID: j.ID.String(), JournalID: "second"})
			made := time.Now().Add(-2 * time.Hour)
			b.say(0, link, protocol.TypeFinished, protocol.Finished{
				JobID: j.ID.String(), Outcome: protocol.OutcomeWarning, ErrorCode: protocol.ErrEndUnrecorded, Error: "why",
				SnapshotID: strings.Repeat("a", 64), StartedAt: made, At: time.Now(), Stats: map[string]any{"total_files_processed": c.found},
			})
			now := b.job(j.ID)
			if now.State != models.JobWarning || now.ErrorCode != c.code || now.SnapshotID == "" || now.SettleAfter != nil || now.StartedAt.Sub(made).Abs() > time.Second {
				t.Errorf("it is %s (%s) with %s, begun %v", now.State, now.ErrorCode, now.SnapshotID, now.StartedAt)
			}
			g = must[*models.Group](t)(models.FindGroup(b.ctx, b.db, h.ID, g.ID))
			if (g.GoodAt != nil) != c.good || (c.good && g.GoodAt.Sub(made).Abs() > time.Second) {
				t.Errorf("the newest good snapshot is of %v, want %v", g.GoodAt, made)
			}
		})
	}
}

// Whoever had the job may be a second machine that comes back: it is given the
// time for that before another one is asked.
func TestTheAgentThatHadAJobMayComeBackForIt(t *testing.T) {
	t.Parallel()
	b := setup(t)
	h := b.host("web-1", "/srv/repo")
	link, _ := b.says(h, protocol.Hello{JournalID: "first", Protocol: 2, Instance: "one"})
	j := b.run(b.group(h, "www"))
	b.wantCommands(0, link, j.ID)
	b.say(0, link, protocol.TypeAccepted, protocol.Accepted{JobID: j.ID.String(), JournalID: "first"})
	_, first := b.says(h, protocol.Hello{JournalID: "second", Protocol: 2, Instance: "two"})
	if got := b.offers(first); len(got) != 0 || b.job(j.ID).SettleAfter == nil {
		t.Errorf("at once offered %v", got)
	}
	// Its time has come: the slow look finds it.
	wait := time.Until(*b.job(j.ID).SettleAfter)
	if wait < time.Minute || wait > 2*time.Minute {
		t.Errorf("waits %v", wait)
	}
	work := func() []models.HostID {
		return must[[]models.HostID](t)(models.HostsWithWork(b.ctx, b.db, []models.HostID{h.ID}))
	}
	if hosts := work(); len(hosts) != 0 {
		t.Errorf("work for %v", hosts)
	}
	b.exec("update jobs set settle_after = now() where id = ?", j.ID)
	if hosts := work(); len(hosts) != 1 {
		t.Error("nobody looks when its time has come")
	}
	// Or it comes back, with the job.
	_, first = b.says(h, protocol.Hello{JournalID: "first", Protocol: 2, Instance: "one", Jobs: []protocol.HelloJob{{JobID: j.ID.String(), State: protocol.JobRunning}}})
	if now := b.job(j.ID); now.State != models.JobRunning || now.SettleAfter != nil || now.ClaimInstance != "one" || len(b.offers(first)) != 0 {
		t.Errorf("back, it is %s, to be settled %v", now.State, now.SettleAfter)
	}
	// From now on the two are known to take turns, and more patience is due.
	b.says(h, protocol.Hello{JournalID: "second", Protocol: 2, Instance: "two"})
	if wait := time.Until(*b.job(j.ID).SettleAfter); wait < 10*time.Minute {
		t.Errorf("waits only %v for a machine that comes back", wait)
	}
}

// A job that was sent and not accepted may be with the machine whose image the
// next one is. What tells two such from one that was started anew is whether the
// first comes back, for which it is given the time; a restart of the agent alone
// is no news.
func TestAJobIsLeftToTheMachineItWasSentTo(t *testing.T) {
	t.Parallel()
	b := setup(t)
	type said struct {
		instance, boot string
		listened       time.Duration // before it is said
		held           bool          // what it finds
	}
	for _, c := range []struct {
		name   string
		hellos []said // the job is claimed by the first
	}{
		{"restarts", []said{{instance: "a", boot: "x"}, {instance: "b", boot: "x"}, {instance: "c", boot: "x"}}},
		{"another boot", []said{{instance: "a", boot: "x"}, {instance: "b", boot: "y", held: true}}},
		{"another boot, later", []said{{instance: "a", boot: "x"}, {instance: "b", boot: "y", held: true, listened: time.Minute}, {instance: "b", boot: "y", listened: 2 * time.Minute}}},
		{"another boot after a long silence", []said{{instance: "a", boot: "x"}, {instance: "b", boot: "y", listened: 3 * time.Minute}}},
		{"another boot of an agent that knows none", []said{{instance: "a"}, {instance: "b", boot: "y"}}},
		{"an agent that knows no boot", []said{{instance: "a", boot: "x"}, {instance: "b"}}},
		{"old agents", []said{{}, {}}},
		{"restarted there", []said{{instance: "a", boot: "x"}, {instance: "b", boot: "y", held: true}, {instance: "c", boot: "y", held: true}}},
		{"restarted here first", []said{{instance: "a", boot: "x"}, {instance: "b", boot: "x"}, {instance: "c", boot: "y", held: true}}},
		{"three machines", []said{{instance: "a", boot: "x"}, {instance: "b", boot: "y", held: true}, {instance: "c", boot: "z", held: true}}},
		{"three machines, of which two had it", []said{
			{instance: "a", boot: "x"}, {instance: "b", boot: "y", listened: 3 * time.Minute}, {instance: "c", boot: "z", held: true},
		}},
	} {
		for _, transport := range []string{protocol.LinkWebSocket, protocol.LinkPolling} {
			t.Run(c.name+", "+transport, func(t *testing.T) {
				b.t = t
				name := "host-" + models.NewID[models.JobID]().String()
				h := b.host(name, "/srv/"+name)
				hello := func(server int, s said) []protocol.Envelope {
					b.listened(s.listened)
					link, first, err := b.servers[server].Hello(b.ctx, h, transport, protocol.Hello{JournalID: "j", Protocol: 2, Instance: s.instance, BootID: s.boot})
					if err != nil {
						t.Fatal(err)
					}
					return append(first, must[[]protocol.Envelope](t)(b.servers[server].Outgoing(b.ctx, link))...)
				}
				j := b.run(b.group(h, "www"))
				if got := b.offers(hello(0, c.hellos[0])); !slices.Contains(got, j.ID.String()) {
					t.Fatalf("claimed: %v", got)
				}
				for i, s := range c.hellos[1:] {
					got := b.offers(hello((i+1)%2, s))
					if s.held != (len(got) == 0) || slices.Contains(got, j.ID.String()+"?") {
						t.Errorf("%+v: offered %v", s, got)
					}
					after := b.job(j.ID).OfferAfter
					if s.held != (after != nil) || (s.held && time.Until(*after) > 2*time.Minute) {
						t.Errorf("%+v: left to another until %v", s, after)
					}
				}
				if now := b.job(j.ID); now.State != models.JobSent || now.AcceptedAt != nil || now.SettleAfter != nil {
					t.Errorf("it is %+v", now)
				}
			})
		}
	}
}

// A machine that was started anew between sending and acceptance has its job
// once the time has passed, by the slow look of any server.
func TestAfterARebootTheJobIsSentAgain(t *testing.T) {
	t.Parallel()
	b := setup(t)
	h := b.host("web-1", "/srv/repo")
	link, _ := b.says(h, protocol.Hello{JournalID: "j", Protocol: 2, Instance: "one", BootID: "x"})
	j := b.run(b.group(h, "www"))
	b.wantCommands(0, link, j.ID)
	log := b.logOf(0)
	link, _ = b.says(h, protocol.Hello{JournalID: "j", Protocol: 2, Instance: "two", BootID: "y"})
	if !strings.Contains(log(), "before this start of its machine") {
		t.Errorf("the log says nothing: %s", log())
	}
	work := func() int {
		return len(must[[]models.HostID](t)(models.HostsWithWork(b.ctx, b.db, []models.HostID{h.ID})))
	}
	b.exec("update jobs set offered_at = now() - interval '1 day'")
	if n := work(); n != 0 {
		t.Error("there is said to be work before the time")
	}
	b.wantCommands(1, link)
	b.exec("update jobs set offer_after = now()")
	if n := work(); n != 1 {
		t.Error("nobody looks when its time has come")
	}
	b.wantCommands(1, link, j.ID)
	b.wantCommands(0, link)
	b.say(1, link, protocol.TypeAccepted, protocol.Accepted{JobID: j.ID.String(), JournalID: "j"})
	if n := work(); n != 0 {
		t.Error("there is said to be work once it was accepted")
	}
	if now := b.job(j.ID); now.ClaimInstance != "two" || now.AcceptedAt == nil {
		t.Errorf("accepted as %+v", now)
	}
}

// The time in which no server listened is none in which the first machine could
// have come back.
func TestTheTimeWithoutAServerIsNoSilence(t *testing.T) {
	t.Parallel()
	b := setup(t)
	for _, accepted := range []bool{false, true} {
		name := fmt.Sprintf("accepted-%v", accepted)
		h := b.host(name, "/srv/"+name)
		link, _ := b.says(h, protocol.Hello{JournalID: "j", Protocol: 2, Instance: "one", BootID: "x"})
		j := b.run(b.group(h, "www"))
		b.wantCommands(0, link, j.ID)
		if accepted {
			b.say(0, link, protocol.TypeAccepted, protocol.Accepted{JobID: j.ID.String(), JournalID: "j"})
		}
		b.exec("update hosts set last_seen_at = now() - interval '1 day'")
		b.exec("update host_agents set seen_at = now() - interval '1 day'")
		_, first := b.says(h, protocol.Hello{JournalID: "j", Protocol: 2, Instance: "two", BootID: "y"})
		if got := b.offers(first); len(got) != 0 {
			t.Errorf("accepted %v: offered %v", accepted, got)
		}
		if now := b.job(j.ID); (now.OfferAfter == nil) == !accepted || (now.SettleAfter == nil) == accepted {
			t.Errorf("accepted %v: offered after %v, settled after %v", accepted, now.OfferAfter, now.SettleAfter)
		}
	}
}

// The first machine comes back: it keeps the job if it has it, and is sent it
// again if it never came; the other one has nothing to do with it.
func TestTheFirstMachineComesBackForItsJob(t *testing.T) {
	t.Parallel()
	b := setup(t)
	for _, has := range []bool{true, false} {
		name := fmt.Sprintf("has-%v", has)
		h := b.host(name, "/srv/"+name)
		one := protocol.Hello{JournalID: "j", Protocol: 2, Instance: "one", BootID: "x"}
		two := protocol.Hello{JournalID: "j", Protocol: 2, Instance: "two", BootID: "y"}
		link, _ := b.says(h, one)
		j := b.run(b.group(h, "www"))
		b.wantCommands(0, link, j.ID)
		b.says(h, two)
		want := []string{j.ID.String()}
		if has {
			one.Jobs, want = []protocol.HelloJob{{JobID: j.ID.String(), State: protocol.JobRunning}}, []string{}
		}
		_, first := b.says(h, one)
		now := b.job(j.ID)
		if got := b.offers(first); !slices.Equal(got, want) || now.ClaimInstance != "one" || now.OfferAfter != nil || (now.State == models.JobRunning) != has {
			t.Errorf("has it %v: offered %v, it is %+v", has, got, now)
		}
		if !must[*models.Host](t)(models.FindHost(b.ctx, b.db, h.ID)).Cloned(time.Now()) {
			t.Error("nobody says that they are two")
		}
		if _, first = b.says(h, two); len(b.offers(first)) != 0 {
			t.Errorf("has it %v: the other one is offered %v", has, b.offers(first))
		}
	}
}

// A job that was sent to both, and accepted by none, is asked about only when
// the one that doesn't speak had its time.
func TestAJobThatWentToBothIsNotAskedAboutAtOnce(t *testing.T) {
	t.Parallel()
	b := setup(t)
	h := b.host("web-1", "/srv/repo")
	one := protocol.Hello{JournalID: "j", Protocol: 2, Instance: "one", BootID: "x"}
	link, _ := b.says(h, one)
	j := b.run(b.group(h, "www"))
	b.wantCommands(0, link, j.ID)
	b.listened(3 * time.Minute)
	if _, first := b.says(h, protocol.Hello{JournalID: "j", Protocol: 2, Instance: "two", BootID: "y"}); len(b.offers(first)) != 1 {
		t.Fatal("the second was never sent it")
	}
	_, first := b.says(h, one)
	if got := b.offers(first); len(got) != 0 {
		t.Errorf("offered %v", got)
	}
	if now := b.job(j.ID); now.SettleAfter == nil || time.Until(*now.SettleAfter) < 10*time.Minute {
		t.Errorf("asked about after %v", now.SettleAfter)
	}
}

func TestARepositoryThatIsGoneCantBeAsked(t *testing.T) {
	t.Parallel()
	b := setup(t)
	h := b.host("web-1", "/srv/repo")
	link, _ := b.says(h, protocol.Hello{JournalID: "first", Protocol: 2, Instance: "one"})
	j := b.run(b.group(h, "www"))
	b.wantCommands(0, link, j.ID)
	must[*models.HostRepository](t)(b.servers[0].BindRepository(b.ctx, h.ID, models.RepositoryFields{URL: "/srv/other", Password: "correct horse"}))
	b.listened(24 * time.Hour)
	_, first := b.says(h, protocol.Hello{JournalID: "second", Protocol: 2, Instance: "two"})
	if now := b.job(j.ID); slices.Contains(b.offers(first), j.ID.String()+"?") || now.State != models.JobLost || !strings.Contains(now.Error, "another repository now") {
		t.Errorf("it is %s: %s", now.State, now.Error)
	}
}

// Two machines with one identity take turns; nothing else looks like that.
func TestCloneIsRecognised(t *testing.T) {
	t.Parallel()
	type said struct {
		instance, journal string
	}
	one, two := said{instance: "one", journal: "j"}, said{instance: "two", journal: "j"}
	three := said{instance: "three", journal: "j"}
	old, older := said{journal: "j"}, said{journal: "k"}
	for _, c := range []struct {
		name   string
		hellos []said
		cloned bool
	}{
		{"one agent", []said{one, one, one}, false},
		{"restarts", []said{one, two, three}, false},
		{"an upgrade", []said{old, old, one, one, two}, false},
		{"an upgrade taken back", []said{old, one, old, two, old}, false},
		{"another disk", []said{one, {instance: "two", journal: "k"}, {instance: "three", journal: "k"}}, false},
		{"an old agent with another disk", []said{old, older, older}, false},
		{"takes turns", []said{one, two, one}, true},
		{"takes turns after a restart", []said{one, two, three, two}, true},
		{"old agents take turns", []said{old, older, old}, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			b := setup(t)
			h := b.host("web-1", "")
			log := b.logOf(0)
			for _, s := range c.hellos {
				b.says(h, protocol.Hello{Instance: s.instance, JournalID: s.journal, SentAt: time.Now()})
			}
			now := must[*models.Host](t)(models.FindHost(b.ctx, b.db, h.ID))
			if now.Cloned(time.Now()) != c.cloned || strings.Contains(log(), "two machines") != c.cloned {
				t.Errorf("cloned: %v\n%s", now.ClonedAt, log())
			}
			if now.Cloned(time.Now().Add(48 * time.Hour)) {
				t.Error("for ever")
			}
			token, _, err := models.NewEnrollmentToken(b.ctx, b.db, h.ID)
			if err != nil {
				t.Fatal(err)
			}
			if _, _, err := models.Enroll(b.ctx, b.db, protocol.EnrollRequest{Token: token}); err != nil {
				t.Fatal(err)
			}
			if now := must[*models.Host](t)(models.FindHost(b.ctx, b.db, h.ID)); now.ClonedAt != nil {
				t.Error("a new enrolment changes nothing")
			}
		})
	}
}

// A hello that was on its way while its process was restarted is no clone, and
// takes the link from nobody.
func TestALateHelloOfAnEndedProcessIsRefused(t *testing.T) {
	t.Parallel()
	b := setup(t)
	h := b.host("web-1", "")
	hello := protocol.Hello{Instance: "one", SentAt: time.Now()}
	b.says(h, hello)
	hello.SentAt = time.Now()
	link, _ := b.says(h, protocol.Hello{Instance: "two", SentAt: time.Now()})
	if _, _, err := b.servers[0].Hello(b.ctx, h, protocol.LinkPolling, hello); !errors.Is(err, models.ErrSuperseded) {
		t.Errorf("a late hello: %v", err)
	}
	b.say(0, link, protocol.TypeHeartbeat, protocol.Heartbeat{})
	if now := must[*models.Host](t)(models.FindHost(b.ctx, b.db, h.ID)); now.ClonedAt != nil || now.AgentInstance != "two" {
		t.Errorf("%+v", now)
	}
}

// Many restarts leave no more than the newest agents behind.
func TestFormerAgentsAreForgotten(t *testing.T) {
	t.Parallel()
	b := setup(t)
	h := b.host("web-1", "")
	for range 30 {
		b.says(h, protocol.Hello{Instance: models.NewID[models.JobID]().String(), SentAt: time.Now()})
	}
	if n := b.count("select count(*) from host_agents"); n != 20 {
		t.Errorf("%d are kept", n)
	}
}
