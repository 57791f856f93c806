package jobs_test

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"resticfleet/agent/protocol"
	"resticfleet/jobs"
	"resticfleet/models"
)

func TestTheHelloWindowComesInOrder(t *testing.T) {
	t.Parallel()
	b := setup(t)
	h := b.host("web-1", "/srv/repo")
	g := b.group(h, "www")
	b.schedule(h, true, g)
	link, first := b.hello(0, h)
	if got := types(first); !slices.Equal(got, []string{protocol.TypeWelcome, protocol.TypeScheduleSet}) {
		t.Errorf("a host with nothing to do gets %v", got)
	}
	welcome := must[protocol.Welcome](t)(protocol.Decode[protocol.Welcome](first[0]))
	if welcome.Session == "" || welcome.Protocol != protocol.Version || welcome.PingIntervalMS != 15_000 || time.Since(welcome.ServerTime).Abs() > time.Minute {
		t.Errorf("welcome %+v", welcome)
	}
	set := must[protocol.ScheduleSet](t)(protocol.Decode[protocol.ScheduleSet](first[1]))
	if set.Version != 1 || len(set.Schedules) != 1 || !slices.Equal(set.Schedules[0].SourceGroups, []string{g.ID.String()}) || !set.Schedules[0].Enabled {
		t.Errorf("set %+v", set)
	}
	// Claimed, offered again, cancelled: all of it comes with the next hello.
	j := b.run(g)
	b.wantCommands(0, link, j.ID)
	b.wantCommands(0, link) // offered a moment ago
	must[*models.Job](t)(b.servers[1].Cancel(b.ctx, j.ID))
	link, first = b.hello(1, h)
	if got := types(first); !slices.Equal(got, []string{protocol.TypeWelcome, protocol.TypeScheduleSet, protocol.TypeRun, protocol.TypeCancel}) {
		t.Errorf("the next hello gets %v", got)
	}
	// An accepted one is never offered again, its cancel is.
	b.say(1, link, protocol.TypeAccepted, protocol.Accepted{JobID: j.ID.String(), JournalID: "another"})
	_, first = b.hello(0, h, protocol.HelloJob{JobID: j.ID.String(), State: protocol.JobAccepted})
	if got := types(first); !slices.Equal(got, []string{protocol.TypeWelcome, protocol.TypeScheduleSet, protocol.TypeCancel}) {
		t.Errorf("once accepted it gets %v", got)
	}
}

// The agent was told to cancel what it never had, and forgot that; the command
// must not come alone.
func TestACancelGoesOutWithEveryOffer(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.servers[0].OfferAgain = 10 * time.Second
	h := b.host("web-1", "/srv/repo")
	link, _ := b.hello(0, h)
	j := b.run(b.group(h, "www"))
	b.wantCommands(0, link, j.ID)
	must[*models.Job](t)(b.servers[0].Cancel(b.ctx, j.ID))
	want := func(want ...string) {
		t.Helper()
		if got := types(must[[]protocol.Envelope](t)(b.servers[0].Outgoing(b.ctx, link))); !slices.Equal(got, want) {
			t.Errorf("it gets %v, want %v", got, want)
		}
	}
	want(protocol.TypeCancel)
	want()
	b.exec("update jobs set offered_at = now() - interval '11 seconds'")
	want(protocol.TypeRun, protocol.TypeCancel)
	want()
	b.say(0, link, protocol.TypeAccepted, protocol.Accepted{JobID: j.ID.String()})
	b.say(0, link, protocol.TypeFinished, protocol.Finished{JobID: j.ID.String(), Outcome: protocol.OutcomeCancelled})
	if j := b.job(j.ID); j.State != models.JobCancelled {
		t.Errorf("it is %s", j.State)
	}
	want()
}

func TestAChangedScheduleSetGoesOutOnce(t *testing.T) {
	t.Parallel()
	b := setup(t)
	h := b.host("web-1", "/srv/repo")
	g := b.group(h, "www")
	link, _ := b.hello(0, h)
	s := b.schedule(h, true, g)
	for i, want := range [][]string{{protocol.TypeScheduleSet}, {}} {
		if got := types(must[[]protocol.Envelope](t)(b.servers[0].Outgoing(b.ctx, link))); !slices.Equal(got, want) {
			t.Errorf("look %d: %v", i, got)
		}
	}
	must[[]models.JobID](t)(models.DeleteSchedule(b.ctx, b.db, h.ID, s.ID))
	out := must[[]protocol.Envelope](t)(b.servers[0].Outgoing(b.ctx, link))
	set := must[protocol.ScheduleSet](t)(protocol.Decode[protocol.ScheduleSet](out[0]))
	if set.Version != 2 || set.Schedules == nil || len(set.Schedules) != 0 {
		t.Errorf("set %+v", set)
	}
	b.say(0, link, protocol.TypeScheduleAck, protocol.ScheduleAck{Version: 2, Digest: set.Digest()})
	if now := must[*models.Host](t)(models.FindHost(b.ctx, b.db, h.ID)); now.AppliedScheduleVersion != 2 || now.AppliedScheduleDigest != set.Digest() {
		t.Errorf("applied %d %s", now.AppliedScheduleVersion, now.AppliedScheduleDigest)
	}
}

func TestAnUnacceptedJobIsOfferedAgain(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.servers[0].OfferAgain = 10 * time.Second
	h := b.host("web-1", "/srv/repo")
	link, _ := b.hello(0, h)
	j := b.run(b.group(h, "www"))
	b.wantCommands(0, link, j.ID)
	b.exec("update jobs set offered_at = now() - interval '9 seconds'")
	b.wantCommands(0, link)
	b.exec("update jobs set offered_at = now() - interval '11 seconds'")
	b.wantCommands(0, link, j.ID)
	b.say(0, link, protocol.TypeAccepted, protocol.Accepted{JobID: j.ID.String()})
	b.exec("update jobs set offered_at = now() - interval '1 hour'")
	b.wantCommands(0, link)
	if j := b.job(j.ID); j.Attempt != 1 || j.State != models.JobSent {
		t.Errorf("offering made it attempt %d, %s", j.Attempt, j.State)
	}
}

func TestFires(t *testing.T) {
	t.Parallel()
	b := setup(t)
	h, stranger := b.host("web-1", "/srv/repo"), b.host("web-2", "/srv/repo")
	g := b.group(h, "www")
	s, disabled := b.schedule(h, true, g), b.schedule(h, false, b.group(h, "etc"))
	link, _ := b.hello(0, h)
	strange, _ := b.hello(1, stranger)
	now := time.Now().UTC().Truncate(time.Second)
	fire := func(server int, link *jobs.Link, id string, at time.Time) string {
		t.Helper()
		return b.say(server, link, protocol.TypeFire, protocol.Fire{ScheduleID: id, ScheduledAt: at}).Rejected
	}
	jobsMade := func(want int) {
		t.Helper()
		if n := b.count("select count(*) from jobs where kind = 'backup'"); n != want {
			t.Errorf("%d jobs, want %d", n, want)
		}
	}
	fire(0, link, disabled.ID.String(), now)
	fire(0, link, models.NewID[models.ScheduleID]().String(), now)
	fire(1, strange, s.ID.String(), now)
	fire(0, link, s.ID.String(), now.Add(-11*time.Minute))
	fire(0, link, s.ID.String(), now.Add(11*time.Minute))
	if why := fire(0, link, "nonsense", now); why == "" {
		t.Error("nonsense was stored")
	}
	jobsMade(0)
	// A clock that goes wrong by the measured hour still fires in its window.
	b.exec("update hosts set clock_skew_ms = 3600000 where id = ?", h.ID)
	fire(0, link, s.ID.String(), now.Add(time.Hour))
	jobsMade(1)
	b.exec("update hosts set clock_skew_ms = 0 where id = ?", h.ID)
	fire(0, link, s.ID.String(), now)
	fire(0, link, s.ID.String(), now.Add(300*time.Nanosecond)) // the same microsecond
	jobsMade(2)
	if n := b.count("select count(*) from jobs where state = 'skipped' and error_code = 'still_busy'"); n != 1 {
		t.Errorf("%d skipped", n)
	}
	b.hints[0].take()
	b.exec("update jobs set state = 'failed', finished_at = now() where state = 'queued' and kind = 'backup'")
	fire(0, link, s.ID.String(), now.Add(time.Minute))
	jobsMade(3)
	if !slices.Contains(b.hints[0].take(), jobs.DispatchTopic(h.ID)) {
		t.Error("the host's link hears nothing of it")
	}
}

func TestMessagesThatCanNeverBeStoredAreRejectedById(t *testing.T) {
	t.Parallel()
	b := setup(t)
	h, stranger := b.host("web-1", "/srv/repo"), b.host("web-2", "/srv/repo")
	link, _ := b.hello(0, h)
	strange, _ := b.hello(0, stranger)
	j := b.run(b.group(h, "www"))
	b.wantCommands(0, link, j.ID)
	for _, e := range []protocol.Envelope{
		{Type: protocol.TypeAccepted},
		{Type: protocol.TypeAccepted, Payload: []byte(`[]`)},
		{Type: protocol.TypeFinished, Payload: []byte(`{"job_id":7}`)},
		{Type: protocol.TypeFinished, Payload: []byte(`{"job_id":"nonsense"}`)},
		{Type: protocol.TypeHello, Payload: []byte(`{}`)},
		protocol.Seal("m", protocol.TypeStarted, protocol.Started{JobID: models.NewID[models.JobID]().String()}),
		protocol.Seal("m", protocol.TypeLog, protocol.Log{JobID: j.ID.String(), Lines: []protocol.LogLine{{Seq: 0, Text: "x"}}}),
		protocol.Seal("m", protocol.TypeLog, protocol.Log{JobID: j.ID.String(), Lines: []protocol.LogLine{{Seq: 1, At: time.Date(0, 1, 1, 0, 0, 0, 0, time.UTC)}}}),
	} {
		v, err := b.servers[0].Receive(b.ctx, link, e)
		if err != nil || v.Rejected == "" {
			t.Errorf("%s %s: %+v, %v", e.Type, e.Payload, v, err)
		}
	}
	if v := b.say(0, strange, protocol.TypeFinished, protocol.Finished{JobID: j.ID.String(), Outcome: protocol.OutcomeSucceeded, SnapshotID: strings.Repeat("a", 64)}); v.Rejected == "" {
		t.Error("another host ended the job")
	}
	if v := b.say(0, link, "weather.report", map[string]any{"sky": "blue"}); v.Rejected != "" || !v.Unknown {
		t.Errorf("an unknown type: %+v", v)
	}
	if v := b.say(0, link, protocol.TypeHeartbeat, map[string]any{"applied_schedule_version": 1, "a_newer_field": true}); v != (jobs.Verdict{}) {
		t.Errorf("an unknown field: %+v", v)
	}
	if j := b.job(j.ID); j.State != models.JobSent {
		t.Errorf("the job is %s", j.State)
	}
}

func TestWhatCantBeStoredNowIsNeitherTakenNorRejected(t *testing.T) {
	t.Parallel()
	b := setup(t)
	h := b.host("web-1", "/srv/repo")
	link, _ := b.hello(0, h)
	j := b.run(b.group(h, "www"))
	b.wantCommands(0, link, j.ID)
	if err := b.servers[1].DB.Close(); err != nil {
		t.Fatal(err)
	}
	if v, err := b.servers[1].Receive(b.ctx, link, protocol.Seal("m", protocol.TypeAccepted, protocol.Accepted{JobID: j.ID.String()})); err == nil || errors.Is(err, models.ErrSuperseded) || v != (jobs.Verdict{}) {
		t.Errorf("%+v, %v", v, err)
	}
}

func TestAJobThatCantBePutIntoWordsFailsAndSaysSo(t *testing.T) {
	t.Parallel()
	b := setup(t)
	h := b.host("web-1", "/srv/repo")
	b.exec("update hosts set public_key = decode(repeat('07', 32), 'hex') where id = ?", h.ID)
	b.exec("update host_repositories set password_sealed = 'damaged' where host_id = ?", h.ID)
	link, _ := b.hello(0, h)
	damaged := b.run(b.group(h, "www"))
	b.wantCommands(0, link)
	if j := b.job(damaged.ID); j.State != models.JobFailed || j.ErrorCode != protocol.ErrNoSecrets || j.Error == "" || j.Gate != nil {
		t.Errorf("%s: %s", j.State, j.Error)
	}
}

func TestCommandsCarryWhatTheJobWasMadeWith(t *testing.T) {
	t.Parallel()
	b := setup(t)
	h := b.host("web-1", "/srv/repo")
	g := must[*models.Group](t)(models.AddGroup(b.ctx, b.db, h.ID, models.GroupFields{
		Name: "www", Includes: []string{"/srv/a b", "/srv/c"}, Excludes: []string{"$HOME", "#x"}, Tag: "site",
	}))
	link, _ := b.hello(0, h)
	j := b.run(g)
	out := must[[]protocol.Envelope](t)(b.servers[0].Outgoing(b.ctx, link))
	run := must[protocol.Run](t)(protocol.Decode[protocol.Run](out[0]))
	if run.JobID != j.ID.String() || run.Kind != "backup" || run.Attempt != 1 || run.ResticHost != "web-1" || run.Tag != "site" ||
		!slices.Equal(run.Includes, g.Includes) || !slices.Equal(run.Excludes, g.Excludes) || run.Parent != "" || run.Repository.URL != "/srv/repo" || run.Repository.Sealed != "" {
		t.Errorf("%+v", run)
	}
	b.say(0, link, protocol.TypeFinished, protocol.Finished{JobID: run.JobID, Outcome: protocol.OutcomeSucceeded, SnapshotID: strings.Repeat("a", 64), RepositoryID: strings.Repeat("b", 64)})
	b.run(g)
	out = must[[]protocol.Envelope](t)(b.servers[0].Outgoing(b.ctx, link))
	run = must[protocol.Run](t)(protocol.Decode[protocol.Run](out[0]))
	if run.Parent != strings.Repeat("a", 64) || run.Repository.ID != strings.Repeat("b", 64) {
		t.Errorf("the next one: %+v", run)
	}
}

// The second credentials leave the server for forget and prune alone, sealed
// for that job; whatever else is sent has those for every day.
func TestSecondCredentialsAreSentForForgetAndPruneAlone(t *testing.T) {
	t.Parallel()
	b := setup(t)
	h := b.host("web-1", "rest:http://append-only/repo")
	private, public, err := protocol.NewKey()
	if err != nil {
		t.Fatal(err)
	}
	b.exec("update hosts set public_key = ? where id = ?", public, h.ID)
	must[*models.HostRepository](t)(models.BindMaintenance(b.ctx, b.db, b.servers[0].Sealer, h.ID, models.MaintenanceFields{URL: "rest:http://full/repo", Password: "battery staple"}))
	link, _ := b.hello(0, h)
	b.group(h, "www")
	for kind, second := range map[models.JobKind]bool{
		models.KindForget: true, models.KindPrune: true, models.KindCheck: false, models.KindInit: false, models.KindUnlock: false, models.KindSnapshots: false, models.KindDiff: false,
	} {
		id := b.exclusive(h, kind)
		out := must[[]protocol.Envelope](t)(b.servers[0].Outgoing(b.ctx, link))
		if got := commands(t, out); !slices.Equal(got, []string{id.String()}) {
			t.Fatalf("%s: sent %v", kind, got)
		}
		run := must[protocol.Run](t)(protocol.Decode[protocol.Run](out[0]))
		secrets := must[protocol.Secrets](t)(protocol.OpenSecrets(private, run.JobID, run.Repository.Sealed))
		if run.Repository.Maintenance != second || (run.Repository.URL == "rest:http://full/repo") != second || (secrets.Password == "battery staple") != second {
			t.Errorf("%s goes to %s", kind, run.Repository.URL)
		}
		if j := b.job(id); j.RepositoryURL != "rest:http://append-only/repo" {
			t.Errorf("%s is recorded at %s", kind, j.RepositoryURL)
		}
		b.finish(0, link, id)
	}
}
