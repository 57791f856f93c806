package jobs_test

import (
	"encoding/binary"
	"encoding/json"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"

	"resticfleet/agent/protocol"
	"resticfleet/jobs"
	"resticfleet/models"
)

// putBack is a host's schedule version as an older copy of the database has it.
func (b *bundle) putBack(h *models.Host, version int64) {
	b.t.Helper()
	b.exec("alter table hosts disable trigger hosts_schedule_version")
	b.exec("update hosts set schedule_version = ?, applied_schedule_version = ?, applied_schedule_digest = '' where id = ?", version, version, h.ID)
	b.exec("alter table hosts enable trigger hosts_schedule_version")
}

func TestAnAgentAheadOfARestoredDatabaseIsPassed(t *testing.T) {
	t.Parallel()
	const million = 1_000_000
	ours := protocol.ScheduleSet{Schedules: []protocol.Schedule{}}.Digest()
	for _, c := range []struct {
		name    string
		version int64
		digest  string
		want    int64 // the server's version, 5 before
		ignored bool
	}{
		{"an older one", 4, "another", 5, false},
		{"the same", 5, ours, 5, false},
		{"the same, without a digest", 5, "", 5, false},
		{"the same with another set", 5, "another", 6, false},
		{"a newer one", 7, "another", 8, false},
		{"the newest that is believed", 5 + million - 1, "", 5 + million, false},
		{"one too far", 5 + million, "", 5, true},
		{"the largest number", 1<<63 - 1, "", 5, true},
		{"a negative one", -1, "", 5, true},
	} {
		for way, tell := range map[string]func(b *bundle, h *models.Host) (*jobs.Link, []protocol.Envelope){
			"hello": func(b *bundle, h *models.Host) (*jobs.Link, []protocol.Envelope) {
				link, first, err := b.servers[0].Hello(b.ctx, h, protocol.LinkWebSocket, protocol.Hello{
					JournalID: "j", AppliedScheduleVersion: c.version, ScheduleDigest: c.digest,
				})
				if err != nil {
					b.t.Fatal(err)
				}
				return link, first
			},
			"heartbeat": func(b *bundle, h *models.Host) (*jobs.Link, []protocol.Envelope) {
				link, _ := b.hello(0, h)
				b.say(0, link, protocol.TypeHeartbeat, protocol.Heartbeat{AppliedScheduleVersion: c.version, ScheduleDigest: c.digest})
				return link, must[[]protocol.Envelope](b.t)(b.servers[0].Outgoing(b.ctx, link))
			},
			"acknowledgement": func(b *bundle, h *models.Host) (*jobs.Link, []protocol.Envelope) {
				link, _ := b.hello(0, h)
				b.say(0, link, protocol.TypeScheduleAck, protocol.ScheduleAck{Version: c.version, Digest: c.digest})
				return link, must[[]protocol.Envelope](b.t)(b.servers[0].Outgoing(b.ctx, link))
			},
		} {
			t.Run(c.name+" by "+way, func(t *testing.T) {
				t.Parallel()
				b := setup(t)
				h := b.host("web-1", "")
				b.putBack(h, 5)
				link, out := tell(b, h)
				now := must[*models.Host](t)(models.FindHost(b.ctx, b.db, h.ID))
				if now.ScheduleVersion != c.want {
					t.Errorf("the server is at version %d, want %d", now.ScheduleVersion, c.want)
				}
				if kept := now.AppliedScheduleVersion == c.version; kept == c.ignored {
					t.Errorf("applied: %d", now.AppliedScheduleVersion)
				}
				sent := int64(0)
				for _, e := range out {
					if e.Type == protocol.TypeScheduleSet {
						sent = must[protocol.ScheduleSet](t)(protocol.Decode[protocol.ScheduleSet](e)).Version
					}
				}
				if moved := c.want != 5; (moved || way == "hello") && sent != c.want {
					t.Errorf("sent %v with version %d, want %d", types(out), sent, c.want)
				}
				if c.want == 5 {
					return
				}
				// Everybody hears of it, and once the agent has it all is well.
				if way != "hello" && !slices.Contains(b.hints[0].take(), jobs.DispatchTopic(h.ID)) {
					t.Error("nobody was told")
				}
				b.say(0, link, protocol.TypeScheduleAck, protocol.ScheduleAck{Version: sent, Digest: ours})
				if now = must[*models.Host](t)(models.FindHost(b.ctx, b.db, h.ID)); now.ScheduleVersion != c.want || now.AppliedScheduleVersion != c.want {
					t.Errorf("after its acknowledgement: %d, applied %d", now.ScheduleVersion, now.AppliedScheduleVersion)
				}
			})
		}
	}
}

// An agent whose digests are never ours, of another version perhaps, must not
// drive the version up for ever.
func TestADigestThatNeverFitsComesToRest(t *testing.T) {
	t.Parallel()
	b := setup(t)
	h := b.host("web-1", "")
	b.putBack(h, 5)
	link, _ := b.hello(0, h)
	for range 10 {
		now := must[*models.Host](t)(models.FindHost(b.ctx, b.db, h.ID))
		b.say(0, link, protocol.TypeScheduleAck, protocol.ScheduleAck{Version: now.ScheduleVersion, Digest: "of another kind"})
	}
	if now := must[*models.Host](t)(models.FindHost(b.ctx, b.db, h.ID)); now.ScheduleVersion > 7 {
		t.Errorf("version %d", now.ScheduleVersion)
	}
}

func TestARepeatedHeartbeatWritesNothing(t *testing.T) {
	t.Parallel()
	b := setup(t)
	h := b.host("web-1", "")
	b.schedule(h, true, b.group(h, "www"))
	link, _ := b.hello(0, h)
	set := must[protocol.ScheduleSet](t)(models.ScheduleSet(b.ctx, b.db, h.ID))
	beat := func() (version string) {
		b.say(0, link, protocol.TypeHeartbeat, protocol.Heartbeat{AppliedScheduleVersion: set.Version, ScheduleDigest: set.Digest()})
		if err := b.db.QueryRowContext(b.ctx, "select xmin::text from hosts where id = ?", h.ID).Scan(&version); err != nil {
			t.Fatal(err)
		}
		return version
	}
	first := beat()
	// Not even the set is looked at.
	b.exec("alter table schedules rename to schedules_away")
	if again := beat(); again != first {
		t.Error("the host was written again")
	}
}

// minutesAgo is a time as agents tell it.
func minutesAgo(n int) time.Time {
	return time.Now().Add(-time.Duration(n) * time.Minute).UTC().Truncate(time.Microsecond)
}

// Whatever an agent says of a job in its hello, and wherever the job stands
// here, afterwards both know the same.
func TestHelloSettlesEveryCase(t *testing.T) {
	t.Parallel()
	const nowhere = models.JobState("")
	for _, c := range []struct {
		name  string
		here  models.JobState // before; "" for a job that stands nowhere
		there string          // what the agent says; "" when it has never seen it
		state models.JobState
		sent  []string // behind the welcome and the schedule set
	}{
		{"running", models.JobSent, protocol.JobRunning, models.JobRunning, nil},
		{"running, sent is not known any more", models.JobQueued, protocol.JobRunning, models.JobRunning, nil},
		{"accepted, its answer was lost", models.JobSent, protocol.JobAccepted, models.JobSent, nil},
		{"finished", models.JobRunning, protocol.JobFinished, models.JobRunning, nil},
		{"never seen", models.JobSent, "", models.JobSent, []string{protocol.TypeRun}},
		{"cancelled here", models.JobCancelled, protocol.JobRunning, models.JobCancelled, []string{protocol.TypeCancel}},
		{"unknown, waits there", nowhere, protocol.JobAccepted, models.JobSent, nil},
		{"unknown, runs there", nowhere, protocol.JobRunning, models.JobRunning, nil},
		{"unknown, ended there", nowhere, protocol.JobFinished, models.JobSent, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			b := setup(t)
			h := b.host("web-1", "/srv/repo")
			g := b.group(h, "www")
			link, _ := b.hello(0, h)
			j := b.run(g)
			if c.here != models.JobQueued && c.here != models.JobCancelled && c.here != nowhere {
				b.wantCommands(0, link, j.ID)
			}
			if c.here == models.JobRunning {
				b.say(0, link, protocol.TypeStarted, protocol.Started{JobID: j.ID.String()})
			}
			if c.here == models.JobCancelled {
				must[*models.Job](t)(b.servers[0].Cancel(b.ctx, j.ID))
			}
			if c.here == nowhere {
				b.exec("delete from jobs where id = ?", j.ID)
			}
			var told []protocol.HelloJob
			if c.there != "" {
				told = append(told, protocol.HelloJob{JobID: j.ID.String(), State: c.there, Kind: protocol.KindBackup, Tag: g.Tag})
			}
			link, first := b.hello(1, h, told...)
			if got := types(first)[2:]; !slices.Equal(got, append([]string{}, c.sent...)) {
				t.Errorf("sent %v, want %v", got, c.sent)
			}
			now := b.job(j.ID)
			if now.State != c.state || (now.AcceptedAt != nil) != (c.there != "" && now.State != models.JobCancelled) && c.there != protocol.JobFinished {
				t.Errorf("it is %s, accepted at %v", now.State, now.AcceptedAt)
			}
			if c.there == "" || c.here == models.JobCancelled {
				return
			}
			b.wantCommands(1, link) // known is known
			// Its log and its result are stored as any other's.
			for typ, m := range map[string]any{
				protocol.TypeLog: protocol.Log{JobID: j.ID.String(), Lines: []protocol.LogLine{{Seq: 1, Text: "said"}}},
				protocol.TypeFinished: protocol.Finished{
					JobID: j.ID.String(), Outcome: protocol.OutcomeSucceeded, SnapshotID: strings.Repeat("a", 64), ExitCode: new(int), LastLogSeq: 1,
				},
			} {
				if v := b.say(1, link, typ, m); v != (jobs.Verdict{}) {
					t.Errorf("%s: %+v", typ, v)
				}
			}
			if now = b.job(j.ID); now.State != models.JobSucceeded || now.Late || now.SnapshotID != strings.Repeat("a", 64) {
				t.Errorf("in the end it is %s, late %v, snapshot %s", now.State, now.Late, now.SnapshotID)
			}
			if n := b.count("select count(*) from job_log_lines"); n != 1 {
				t.Errorf("%d lines", n)
			}
		})
	}
}

func TestAnUnknownJobIsMadeAgain(t *testing.T) {
	t.Parallel()
	b := setup(t)
	h := b.host("web-1", "/srv/repo")
	g := b.group(h, "www")
	b.hello(0, h)
	waiting := b.run(g) // one of the same group waits, which stands in no way
	asked := minutesAgo(30)
	id := models.JobID(uuid.Must(uuid.NewV7()))
	copy(id[:6], binary.BigEndian.AppendUint64(nil, uint64(asked.UnixMilli()))[2:])
	told := protocol.HelloJob{
		JobID: id.String(), State: protocol.JobRunning, Kind: protocol.KindBackup, Tag: g.Tag,
		AcceptedAt: minutesAgo(29), StartedAt: minutesAgo(28),
	}
	b.hints[0].take()
	link, _ := b.hello(0, h, told)
	j := b.job(id)
	if j.HostID != h.ID || j.Kind != models.KindBackup || j.State != models.JobRunning || j.ActorKind != models.ActorSystem || j.Gate != nil ||
		*j.SourceGroupID != g.ID || j.SourceGroupName != g.Name || j.Spec.Tag != g.Tag || j.RepositoryURL != "/srv/repo" {
		t.Errorf("made again as %+v", j)
	}
	for what, at := range map[string][2]time.Time{
		"queued": {j.QueuedAt, asked.Truncate(time.Millisecond)}, "sent": {*j.SentAt, told.AcceptedAt},
		"accepted": {*j.AcceptedAt, told.AcceptedAt}, "started": {*j.StartedAt, told.StartedAt},
	} {
		if at[0].Sub(at[1]).Abs() > time.Second { // the clocks' difference is measured
			t.Errorf("%s at %v, want %v", what, at[0], at[1])
		}
	}
	if !slices.Contains(b.hints[0].take(), jobs.JobTopic(id)) {
		t.Error("no page was told")
	}
	// It runs without a gate: nothing that it stands in the way of may leave.
	b.wantCommands(0, link)
	b.say(0, link, protocol.TypeFinished, protocol.Finished{JobID: id.String(), Outcome: protocol.OutcomeSucceeded, SnapshotID: strings.Repeat("a", 64), At: time.Now()})
	b.wantCommands(0, link, waiting.ID)
	fresh := must[*models.Group](t)(models.FindGroup(b.ctx, b.db, h.ID, g.ID))
	if fresh.GoodSnapshotID != strings.Repeat("a", 64) || fresh.GoodAt.Sub(told.StartedAt).Abs() > time.Second {
		t.Errorf("the newest good snapshot is %s of %v", fresh.GoodSnapshotID, fresh.GoodAt)
	}
	// An older one that comes back after a newer good one sets nothing back.
	older := models.JobID(uuid.Must(uuid.NewV7()))
	copy(older[:6], binary.BigEndian.AppendUint64(nil, uint64(minutesAgo(60).UnixMilli()))[2:])
	link, _ = b.hello(0, h, protocol.HelloJob{JobID: older.String(), State: protocol.JobFinished, Kind: protocol.KindBackup, Tag: g.Tag, AcceptedAt: minutesAgo(59), StartedAt: minutesAgo(58)})
	b.say(0, link, protocol.TypeFinished, protocol.Finished{JobID: older.String(), Outcome: protocol.OutcomeSucceeded, SnapshotID: strings.Repeat("b", 64), StartedAt: minutesAgo(58), At: minutesAgo(57), ExitCode: new(int)})
	now := must[*models.Group](t)(models.FindGroup(b.ctx, b.db, h.ID, g.ID))
	if now.GoodSnapshotID != fresh.GoodSnapshotID || !now.GoodAt.Equal(*fresh.GoodAt) || now.NewestSnapshotID != fresh.NewestSnapshotID {
		t.Errorf("an older one set the group back to %s of %v", now.GoodSnapshotID, now.GoodAt)
	}
	if j := b.job(older); j.State != models.JobSucceeded || j.SnapshotID != strings.Repeat("b", 64) || j.StartedAt.Sub(minutesAgo(58)).Abs() > time.Second {
		t.Errorf("the older one is %s with %s, started %v", j.State, j.SnapshotID, j.StartedAt)
	}
}

func TestWhatUnknownJobsBecome(t *testing.T) {
	t.Parallel()
	b := setup(t)
	h, other := b.host("web-1", "/srv/repo"), b.host("web-2", "/srv/repo")
	g, gone := b.group(h, "www"), b.group(h, "old")
	must[*models.Group](t)(models.UpdateGroup(b.ctx, b.db, h.ID, g.ID, models.GroupFields{Name: "www", Tag: "renamed", Includes: []string{"/srv/www"}}))
	must[[]models.JobID](t)(models.DeleteGroup(b.ctx, b.db, h.ID, gone.ID))
	theirs := b.run(b.group(other, "theirs"))
	b.hello(1, other) // sends it
	before := b.job(theirs.ID)
	for _, c := range []struct {
		name   string
		told   protocol.HelloJob
		refuse string // a word of the reason; "" where a row is made
		group  *models.Group
	}{
		{"a backup", protocol.HelloJob{Kind: protocol.KindBackup, Tag: "renamed"}, "", g},
		{"by a tag from before", protocol.HelloJob{Kind: protocol.KindBackup, Tag: "www"}, "", g},
		{"of a deleted group", protocol.HelloJob{Kind: protocol.KindBackup, Tag: "old"}, "", gone},
		{"an init", protocol.HelloJob{Kind: protocol.KindInit}, "", nil},
		{"another init", protocol.HelloJob{Kind: protocol.KindInit}, "", nil},
		{"an unlock", protocol.HelloJob{Kind: protocol.KindUnlock}, "", nil},
		{"a check", protocol.HelloJob{Kind: "check"}, "", nil},
		{"a clock of tomorrow", protocol.HelloJob{Kind: protocol.KindUnlock, AcceptedAt: time.Now().Add(24 * time.Hour), StartedAt: time.Now().Add(25 * time.Hour)}, "", nil},
		{"another host's tag", protocol.HelloJob{Kind: protocol.KindBackup, Tag: "theirs"}, "tag", nil},
		{"a tag that nobody had", protocol.HelloJob{Kind: protocol.KindBackup, Tag: "a\x00\"tag"}, "tag", nil},
		{"a backup without a tag", protocol.HelloJob{Kind: protocol.KindBackup}, "tag", nil},
		{"an old agent's", protocol.HelloJob{}, "kind", nil},
		{"a kind of tomorrow", protocol.HelloJob{Kind: "defragment"}, "kind", nil},
		{"another host's job", protocol.HelloJob{JobID: theirs.ID.String(), Kind: protocol.KindBackup, Tag: "www"}, "another host", nil},
		{"no id at all", protocol.HelloJob{JobID: "nonsense", Kind: protocol.KindUnlock}, "no job", nil},
	} {
		for _, state := range []string{protocol.JobAccepted, protocol.JobRunning, protocol.JobFinished} {
			told := c.told
			told.State = state
			if told.JobID == "" {
				told.JobID = models.NewID[models.JobID]().String()
			}
			log := b.logOf(0)
			link, _ := b.hello(0, h, told)
			id, err := models.ParseID[models.JobID](told.JobID)
			if c.refuse != "" {
				if !strings.Contains(log(), "has no place here") || !strings.Contains(log(), told.JobID) || !strings.Contains(log(), c.refuse) {
					t.Errorf("%s, %s: the log says %q", c.name, state, log())
				}
				if err == nil && id != theirs.ID && b.count("select count(*) from jobs where id = ?", id) != 0 {
					t.Errorf("%s, %s: it was made", c.name, state)
				}
				// What is said of it blocks nothing, and an operator can find it.
				v := b.say(0, link, protocol.TypeFinished, protocol.Finished{JobID: told.JobID, Outcome: protocol.OutcomeSucceeded, SnapshotID: "5ca1ab1e" + strings.Repeat("0", 56)})
				if v.Rejected == "" || !strings.Contains(log(), "5ca1ab1e") {
					t.Errorf("%s, %s: %+v\n%s", c.name, state, v, log())
				}
				continue
			}
			if err != nil {
				t.Fatal(err)
			}
			j := b.job(id)
			want := models.JobSent
			if state == protocol.JobRunning {
				want = models.JobRunning
			}
			if j.State != want || j.AcceptedAt == nil || j.QueuedAt.After(time.Now()) || j.AcceptedAt.After(time.Now()) || (c.group != nil && *j.SourceGroupID != c.group.ID) {
				t.Errorf("%s, %s: %+v", c.name, state, j)
			}
			b.finish(0, link, id)
		}
	}
	if now := b.job(theirs.ID); !reflect.DeepEqual(now, before) {
		t.Errorf("another host's job went from %+v to %+v", before, now)
	}
	if n := b.count("select count(*) from jobs where kind = 'init' and repository_url = '/srv/repo' and host_id = ?", h.ID); n != 1 {
		t.Errorf("%d inits of one address", n)
	}
}

// An agent may remember that its lines were stored, which a restored database
// has forgotten: the welcome says what is there.
func TestTheWelcomeTellsWhichLinesAreStored(t *testing.T) {
	t.Parallel()
	b := setup(t)
	h := b.host("web-1", "/srv/repo")
	link, _ := b.hello(0, h)
	j := b.run(b.group(h, "www"))
	b.wantCommands(0, link, j.ID)
	b.say(0, link, protocol.TypeLog, protocol.Log{JobID: j.ID.String(), Lines: []protocol.LogLine{{Seq: 1, Text: "one"}, {Seq: 2, Text: "two"}}})
	fresh := models.NewID[models.JobID]().String()
	_, first := b.hello(0, h, protocol.HelloJob{JobID: j.ID.String(), State: protocol.JobRunning},
		protocol.HelloJob{JobID: fresh, State: protocol.JobRunning, Kind: protocol.KindUnlock})
	welcome := must[protocol.Welcome](t)(protocol.Decode[protocol.Welcome](first[0]))
	if want := []protocol.WelcomeJob{{JobID: j.ID.String(), LogSeq: 2}, {JobID: fresh}}; !slices.Equal(welcome.Jobs, want) {
		t.Errorf("told of %v, want %v", welcome.Jobs, want)
	}
}

// What a look-up that only its agent remembers was to find is not known: whatever
// it brings, a list or a plan or nothing at all, says nothing of the snapshots.
// They are looked at anew, once.
func TestALookUpThatIsMadeAgainEmptiesNoList(t *testing.T) {
	t.Parallel()
	for _, state := range []string{protocol.JobAccepted, protocol.JobRunning, protocol.JobFinished} {
		for name, answer := range map[string]func(h *models.Host) []json.RawMessage{
			"nothing": func(*models.Host) []json.RawMessage { return nil },
			"a plan":  func(*models.Host) []json.RawMessage { return plans(t, true, false) },
			"a list":  func(h *models.Host) []json.RawMessage { return raw(snapshotNo(h, 3)) },
		} {
			t.Run(name+" of one that is "+state, func(t *testing.T) {
				t.Parallel()
				b := setup(t)
				h, link := b.snapshotHost("web-1")
				g := b.group(h, "www")
				j := b.run(g)
				b.wantCommands(0, link, j.ID)
				b.ends(0, link, j.ID, protocol.Finished{Outcome: protocol.OutcomeSucceeded, SnapshotID: snapshotNo(h, 2).ID})
				b.answers(link, b.next(link), raw(snapshotNo(h, 1), snapshotNo(h, 2, "job:"+j.ID.String())))
				must[*models.Job](t)(b.servers[0].RefreshSnapshots(b.ctx, h.ID, models.System)) // waits
				told := protocol.HelloJob{JobID: models.NewID[models.JobID]().String(), State: state, Kind: protocol.KindSnapshots}
				link, first, err := b.servers[0].Hello(b.ctx, h, protocol.LinkWebSocket, protocol.Hello{
					Protocol: protocol.Version, JournalID: "journal of web-1", Timezone: "Europe/Vienna", Jobs: []protocol.HelloJob{told}, SentAt: time.Now(),
				})
				if err != nil {
					t.Fatal(err)
				}
				pieces := int64(0)
				if items := answer(h); items != nil {
					pieces = 1
					b.say(0, link, protocol.TypeAnswer, protocol.Answer{JobID: told.JobID, Seq: 1, Items: items})
				}
				b.answered(link, protocol.Run{JobID: told.JobID}, pieces)
				if got := b.listed(h); got != "2 1" {
					t.Errorf("listed %q", got)
				}
				if g := must[*models.Group](t)(models.FindGroup(b.ctx, b.db, h.ID, g.ID)); g.GoodSnapshotID != snapshotNo(h, 2).ID {
					t.Errorf("the newest good snapshot is %q", g.GoodSnapshotID)
				}
				if now := b.job(must[models.JobID](t)(models.ParseID[models.JobID](told.JobID))); now.State != models.JobSucceeded {
					t.Errorf("it is %s: %s", now.State, now.Error)
				}
				looks := b.count("select count(*) from jobs where kind = 'snapshots' and state in ('queued', 'sent')")
				if sent := commands(t, first); looks != 1 || len(sent) != 1 {
					t.Errorf("%d looks follow, %d went out", looks, len(sent))
				}
			})
		}
	}
}
