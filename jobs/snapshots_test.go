package jobs_test

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"resticfleet/agent/protocol"
	"resticfleet/jobs"
	"resticfleet/models"
)

// snapshotHost is a linked host whose agent can be asked for its snapshots.
func (b *bundle) snapshotHost(name string) (*models.Host, *jobs.Link) {
	b.t.Helper()
	h := b.host(name, "/srv/"+name)
	link, _ := b.hello(0, h)
	b.exec("update hosts set agent_protocol = 3 where id = ?", h.ID)
	return h, link
}

func snapshotNo(h *models.Host, n int, tags ...string) protocol.Snapshot {
	size := int64(n)
	return protocol.Snapshot{
		ID: fmt.Sprintf("%064x", n), Time: time.Date(2026, 11, 1, 0, 0, n, 0, time.UTC), Hostname: h.ResticHost,
		Paths: []string{"/srv/www"}, Tags: tags, SizeBytes: &size, FileCount: &size,
	}
}

func raw[T any](items ...T) []json.RawMessage {
	var out []json.RawMessage
	for _, item := range items {
		one, _ := json.Marshal(item)
		out = append(out, one)
	}
	return out
}

// next is the one command that goes out now.
func (b *bundle) next(link *jobs.Link) protocol.Run {
	b.t.Helper()
	out := must[[]protocol.Envelope](b.t)(b.servers[0].Outgoing(b.ctx, link))
	if len(commands(b.t, out)) != 1 {
		b.t.Fatalf("%v went out", commands(b.t, out))
	}
	return must[protocol.Run](b.t)(protocol.Decode[protocol.Run](out[0]))
}

// refreshed asks for the list and answers with these.
func (b *bundle) refreshed(h *models.Host, link *jobs.Link, items ...protocol.Snapshot) {
	b.t.Helper()
	must[*models.Job](b.t)(b.servers[0].RefreshSnapshots(b.ctx, h.ID, models.System))
	b.answers(link, b.next(link), raw(items...))
}

func (b *bundle) answers(link *jobs.Link, run protocol.Run, pieces ...[]json.RawMessage) {
	b.t.Helper()
	b.say(0, link, protocol.TypeStarted, protocol.Started{JobID: run.JobID, At: time.Now()})
	for i, items := range pieces {
		if v := b.say(0, link, protocol.TypeAnswer, protocol.Answer{JobID: run.JobID, Seq: int64(i + 1), Items: items}); v.Rejected != "" {
			b.t.Fatal(v.Rejected)
		}
	}
	b.answered(link, run, int64(len(pieces)))
}

func (b *bundle) answered(link *jobs.Link, run protocol.Run, pieces int64) {
	b.t.Helper()
	zero := 0
	if v := b.say(0, link, protocol.TypeFinished, protocol.Finished{JobID: run.JobID, Outcome: protocol.OutcomeSucceeded, ExitCode: &zero, LastAnswerSeq: pieces, Stats: map[string]any{"changed_files": 3}}); v.Rejected != "" {
		b.t.Fatal(v.Rejected)
	}
}

// listed are the numbers of a host's snapshots, the newest first.
func (b *bundle) listed(h *models.Host) string {
	b.t.Helper()
	list, _, err := models.ListSnapshots(b.ctx, b.db, models.SnapshotFilter{HostID: h.ID}, models.Page{Limit: 500})
	if err != nil {
		b.t.Fatal(err)
	}
	var ids []string
	for _, s := range list {
		ids = append(ids, strings.TrimLeft(s.ID, "0"))
	}
	return strings.Join(ids, " ")
}

// A link that breaks amid a long answer costs no more than what it had under way:
// the next welcome says which pieces are here, up to the first that isn't.
func TestTheWelcomeTellsWhichPiecesAreStored(t *testing.T) {
	t.Parallel()
	b := setup(t)
	h, link := b.snapshotHost("web-1")
	must[*models.Job](t)(b.servers[0].RefreshSnapshots(b.ctx, h.ID, models.System))
	run := b.next(link)
	piece := func(seq int64) {
		b.say(0, link, protocol.TypeAnswer, protocol.Answer{JobID: run.JobID, Seq: seq, Items: raw(snapshotNo(h, int(seq)))})
	}
	stored := func() int64 {
		var first []protocol.Envelope
		link, first = b.hello(0, h, protocol.HelloJob{JobID: run.JobID, State: protocol.JobFinished})
		return must[protocol.Welcome](t)(protocol.Decode[protocol.Welcome](first[0])).Jobs[0].AnswerSeq
	}
	b.say(0, link, protocol.TypeStarted, protocol.Started{JobID: run.JobID, At: time.Now()})
	if got := stored(); got != 0 {
		t.Errorf("before the first piece: %d", got)
	}
	piece(1)
	piece(2)
	piece(4)
	if got := stored(); got != 2 {
		t.Errorf("without the third: %d", got)
	}
	piece(3)
	if got := stored(); got != 4 {
		t.Errorf("with all: %d", got)
	}
	b.answered(link, run, 4)
	if got := stored(); got < 4 {
		t.Errorf("once it has ended: %d", got)
	}
	if got := b.listed(h); got != "4 3 2 1" {
		t.Errorf("listed %q", got)
	}
}

func TestTheListIsWhatTheNewestWholeAnswerSays(t *testing.T) {
	t.Parallel()
	b := setup(t)
	h, link := b.snapshotHost("web-1")
	b.refreshed(h, link, snapshotNo(h, 1), snapshotNo(h, 2), snapshotNo(h, 3))
	if got := b.listed(h); got != "3 2 1" {
		t.Fatalf("listed %q", got)
	}
	if _, err := b.servers[0].HoldSnapshot(b.ctx, h.ID, snapshotNo(h, 1).ID, true, models.System); err != nil {
		t.Fatal(err)
	}
	// A piece is missing: nothing is gone.
	must[*models.Job](t)(b.servers[0].RefreshSnapshots(b.ctx, h.ID, models.System))
	run := b.next(link)
	b.say(0, link, protocol.TypeAnswer, protocol.Answer{JobID: run.JobID, Seq: 2, Items: raw(snapshotNo(h, 2))})
	b.answered(link, run, 2)
	if j := b.job(must[models.JobID](t)(models.ParseID[models.JobID](run.JobID))); j.State != models.JobFailed || j.ErrorCode != protocol.ErrAnswerIncomplete {
		t.Errorf("half an answer is %s %s", j.State, j.ErrorCode)
	}
	if got := b.listed(h); got != "3 2 1" {
		t.Errorf("after half an answer: %q", got)
	}
	// Two looks at once: what began later is the truth, whatever ends last.
	must[*models.Job](t)(b.servers[0].RefreshSnapshots(b.ctx, h.ID, models.System))
	older := b.next(link)
	b.say(0, link, protocol.TypeStarted, protocol.Started{JobID: older.JobID, At: time.Now()})
	b.refreshed(h, link, snapshotNo(h, 2), snapshotNo(h, 4))
	b.say(0, link, protocol.TypeAnswer, protocol.Answer{JobID: older.JobID, Seq: 1, Items: raw(snapshotNo(h, 1), snapshotNo(h, 2), snapshotNo(h, 3))})
	b.answered(link, older, 1)
	if got := b.listed(h); got != "4 2" {
		t.Errorf("an older answer that came later: %q", got)
	}
	if held := must[[]string](t)(models.HeldSnapshots(b.ctx, b.db, h.ID)); !slices.Equal(held, []string{snapshotNo(h, 1).ID}) {
		t.Errorf("held %v", held)
	}
	if n := b.count("select count(*) from job_answers"); n != 0 {
		t.Errorf("%d pieces are kept", n)
	}
	// An empty repository is an answer too.
	must[*models.Job](t)(b.servers[0].RefreshSnapshots(b.ctx, h.ID, models.System))
	b.answers(link, b.next(link))
	if got := b.listed(h); got != "" {
		t.Errorf("of an empty repository: %q", got)
	}
	// Another repository begins anew, and what was asked of the former is nothing.
	b.refreshed(h, link, snapshotNo(h, 5))
	must[*models.Job](t)(b.servers[0].RefreshSnapshots(b.ctx, h.ID, models.System))
	run = b.next(link)
	must[*models.HostRepository](t)(b.servers[0].BindRepository(b.ctx, h.ID, models.RepositoryFields{URL: "/srv/other", Password: "correct horse"}))
	b.answers(link, run, raw(snapshotNo(h, 5)))
	if got := b.listed(h); got != "" {
		t.Errorf("of the former repository: %q", got)
	}
}

func TestEveryGatedJobThatWasSentIsFollowedByOneLook(t *testing.T) {
	t.Parallel()
	b := setup(t)
	h, link := b.snapshotHost("web-1")
	g := b.group(h, "www")
	looks := func() int {
		return b.count("select count(*) from jobs where kind = 'snapshots' and state = 'queued' and actor_kind = 'system'")
	}
	j := b.run(g)
	b.wantCommands(0, link, j.ID)
	b.finish(0, link, j.ID)
	if n := looks(); n != 1 {
		t.Fatalf("%d looks after a backup", n)
	}
	if n := must[int](t)(models.UnderWay(b.ctx, b.db, h.ID)); n != 0 {
		t.Errorf("%d jobs are under way for people", n)
	}
	// One waits at most, and a request is that one.
	look := must[*models.Job](t)(b.servers[1].RefreshSnapshots(b.ctx, h.ID, models.System))
	if n := looks(); n != 1 || look.ActorKind != models.ActorSystem {
		t.Errorf("%d looks after a request", n)
	}
	b.answers(link, b.next(link), raw(snapshotNo(h, 1)))
	if n := looks(); n != 0 {
		t.Errorf("a look is followed by %d looks", n)
	}
	// One that never left changes nothing.
	j = b.run(g)
	must[*models.Job](t)(b.servers[0].Cancel(b.ctx, j.ID))
	if n := looks(); n != 0 {
		t.Errorf("%d looks after a job that never left", n)
	}
	// An older agent isn't asked.
	b.exec("update hosts set agent_protocol = 2 where id = ?", h.ID)
	j = b.run(g)
	b.wantCommands(0, link, j.ID)
	b.finish(0, link, j.ID)
	if n := looks(); n != 0 {
		t.Errorf("%d looks of an old agent", n)
	}
	if _, err := b.servers[0].RefreshSnapshots(b.ctx, h.ID, models.System); models.CodeOf(err) != models.EConflict {
		t.Errorf("an old agent is asked: %v", err)
	}
}

func TestSnapshotsFindTheirGroup(t *testing.T) {
	t.Parallel()
	b := setup(t)
	h, link := b.snapshotHost("web-1")
	www, etc := b.group(h, "www"), b.group(h, "etc")
	b.exec(`update source_groups set includes = '["/srv/www"]' where id = ?`, www.ID)
	b.exec(`update source_groups set includes = '["/etc", "/opt"]' where id = ?`, etc.ID)
	j := b.run(www)
	b.wantCommands(0, link, j.ID)
	b.finish(0, link, j.ID)
	b.next(link)
	byJob, byTag, byBoth, byPaths, stranger, unknown := snapshotNo(h, 1, "job:"+j.ID.String(), "etc"), snapshotNo(h, 2, "etc", "nightly"),
		snapshotNo(h, 3, "etc", "www"), snapshotNo(h, 4, "by-hand"), snapshotNo(h, 5), snapshotNo(h, 6, "job:"+models.NewID[models.JobID]().String())
	byPaths.Paths, stranger.Paths = []string{"/opt", "/etc"}, []string{"/home"}
	another := snapshotNo(h, 7)
	another.Hostname = "web-2"
	b.refreshed(h, link, byJob, byTag, byBoth, byPaths, stranger, unknown, another)
	want := func(want map[string]*models.Group) {
		t.Helper()
		list, _, err := models.ListSnapshots(b.ctx, b.db, models.SnapshotFilter{HostID: h.ID}, models.Page{})
		if err != nil || len(list) != 6 {
			t.Fatalf("%d listed, %v", len(list), err)
		}
		for _, s := range list {
			g := want[s.ID]
			if (g == nil) != (s.SourceGroupID == nil) || g != nil && *s.SourceGroupID != g.ID {
				t.Errorf("snapshot %s of %v, %v belongs to %q", s.ID[60:], s.Paths, s.Tags, s.GroupName)
			}
		}
	}
	want(map[string]*models.Group{byJob.ID: www, byTag.ID: etc, byPaths.ID: etc})
	// Groups change: its tags stay its own, its paths don't.
	renamed := models.GroupFields{Name: "config", Tag: "config", Includes: []string{"/home"}}
	must[*models.Group](t)(models.UpdateGroup(b.ctx, b.db, h.ID, etc.ID, renamed))
	want(map[string]*models.Group{byJob.ID: www, byTag.ID: etc, stranger.ID: etc})
	must[[]models.JobID](t)(models.DeleteGroup(b.ctx, b.db, h.ID, etc.ID))
	want(map[string]*models.Group{byJob.ID: www, byTag.ID: etc})
}

func TestAnAgentsListIsOnlyTakenAsFarAsItCanBeOne(t *testing.T) {
	t.Parallel()
	b := setup(t)
	h, link := b.snapshotHost("web-1")
	must[*models.Job](t)(b.servers[0].RefreshSnapshots(b.ctx, h.ID, models.System))
	run := b.next(link)
	short := snapshotNo(h, 1)
	short.ID = short.ID[:8]
	for _, items := range [][]json.RawMessage{raw(short), raw(7), raw("x"), {json.RawMessage(`{"id":`)}} {
		if v, _ := b.servers[0].Receive(b.ctx, link, protocol.Envelope{ID: "m", Type: protocol.TypeAnswer, Payload: must[[]byte](t)(json.Marshal(map[string]any{"job_id": run.JobID, "seq": 1}))}); v.Rejected != "" {
			t.Fatal(v.Rejected)
		}
		b.exec("delete from job_answers")
		payload := fmt.Sprintf(`{"job_id":%q,"seq":1,"items":[%s]}`, run.JobID, items[0])
		if v, _ := b.servers[0].Receive(b.ctx, link, protocol.Envelope{ID: "m", Type: protocol.TypeAnswer, Payload: []byte(payload)}); v.Rejected == "" {
			t.Errorf("%s was taken", items[0])
		}
	}
	odd := snapshotNo(h, 1, "a\x00b")
	odd.Time, odd.Paths = time.Date(9999, 1, 1, 0, 0, 0, 0, time.UTC), slices.Repeat([]string{strings.Repeat("x", 5000)}, 1100)
	minus := int64(-1)
	odd.SizeBytes = &minus
	early := snapshotNo(h, 2)
	early.Time = time.Time{}
	b.answers(link, run, raw(odd, early, early))
	list, _, err := models.ListSnapshots(b.ctx, b.db, models.SnapshotFilter{HostID: h.ID}, models.Page{Limit: 1})
	if err != nil || len(list) != 1 || len(list[0].Paths) != 1000 || len(list[0].Paths[0]) != 4096 || list[0].SizeBytes != nil || list[0].Tags[0] != "a\uFFFDb" {
		t.Errorf("%v, %v", len(list), err)
	}
	if got := b.listed(h); got != "1 2" {
		t.Errorf("listed %q", got)
	}
}

// No agent fills the database or a server's memory with one answer: a piece
// beyond what is kept is refused, and an answer without it changes nothing.
func TestAnAnswerIsBoundedAsAWhole(t *testing.T) {
	t.Parallel()
	b := setup(t)
	h, link := b.snapshotHost("web-1")
	b.refreshed(h, link, snapshotNo(h, 1), snapshotNo(h, 2))
	piece := func(run protocol.Run, seq int64, items []json.RawMessage) string {
		t.Helper()
		return b.say(0, link, protocol.TypeAnswer, protocol.Answer{JobID: run.JobID, Seq: seq, Items: items}).Rejected
	}
	ends := func(run protocol.Run, last int64) {
		t.Helper()
		b.answered(link, run, last)
		if j := b.job(must[models.JobID](t)(models.ParseID[models.JobID](run.JobID))); j.State != models.JobFailed || j.ErrorCode != protocol.ErrAnswerIncomplete {
			t.Errorf("it is %s %s: %s", j.State, j.ErrorCode, j.Error)
		}
	}
	for column, most := range map[string]int{"item_count": 1_000_000, "bytes": 256 << 20} {
		must[*models.Job](t)(b.servers[0].RefreshSnapshots(b.ctx, h.ID, models.System))
		run := b.next(link)
		if why := piece(run, 1, raw(snapshotNo(h, 3), snapshotNo(h, 4))); why != "" {
			t.Fatal(why)
		}
		has := b.count("select " + column + " from job_answers where seq = 1")
		if has < 2 || column == "bytes" && has < len(raw(snapshotNo(h, 3))[0]) {
			t.Errorf("%s of two: %d", column, has)
		}
		b.exec("update job_answers set "+column+" = ?", most-has)
		if why := piece(run, 2, raw(snapshotNo(h, 5), snapshotNo(h, 6))); why != "" {
			t.Errorf("the last that there is room for is refused: %s", why)
		}
		if why := piece(run, 3, raw(snapshotNo(h, 7))); !strings.Contains(why, "1,000,000 items and 256 MiB") {
			t.Errorf("one beyond: %q", why)
		}
		if why := piece(run, 1, raw(snapshotNo(h, 3), snapshotNo(h, 4))); why != "" {
			t.Errorf("one that is repeated: %q", why)
		}
		ends(run, 3)
		if got := b.listed(h); got != "2 1" {
			t.Errorf("listed %q", got)
		}
	}
	// Of a plan less is kept.
	j, _, err := models.AskPreview(b.ctx, b.db, h.ID, b.group(h, "www").ID, models.Retention{KeepLast: 1}, models.System)
	if err != nil {
		t.Fatal(err)
	}
	run := b.next(link)
	for seq := range int64(2) {
		if why := piece(run, seq+1, slices.Repeat(raw(protocol.PlanItem{}), 20_000)); why != "" {
			t.Fatal(why)
		}
	}
	if why := piece(run, 3, slices.Repeat(raw(protocol.PlanItem{}), 10_001)); !strings.Contains(why, "50,000 items and 32 MiB") {
		t.Errorf("one beyond: %q", why)
	}
	if why := piece(run, 3, raw(7)); !strings.Contains(why, "part of a plan") {
		t.Errorf("something else: %q", why)
	}
	ends(run, 3)
	if _, err := models.PreviewAnswer(b.ctx, b.db, j.ID); models.CodeOf(err) != models.EUnavailable {
		t.Errorf("half a plan: %v", err)
	}
}

func TestHoldsAndDeletionsKeepOutOfEachOthersWay(t *testing.T) {
	t.Parallel()
	b := setup(t)
	h, link := b.snapshotHost("web-1")
	b.refreshed(h, link, snapshotNo(h, 1), snapshotNo(h, 2), snapshotNo(h, 3))
	one, two, three := snapshotNo(h, 1).ID, snapshotNo(h, 2).ID, snapshotNo(h, 3).ID
	if _, err := b.servers[0].HoldSnapshot(b.ctx, h.ID, one, true, models.System); err != nil {
		t.Fatal(err)
	}
	if _, err := b.servers[0].DeleteSnapshot(b.ctx, h.ID, one, models.System); models.CodeOf(err) != models.EConflict {
		t.Errorf("a held one: %v", err)
	}
	j := must[*models.Job](t)(b.servers[0].DeleteSnapshot(b.ctx, h.ID, two, models.System))
	if again := must[*models.Job](t)(b.servers[1].DeleteSnapshot(b.ctx, h.ID, two, models.System)); again.ID != j.ID {
		t.Error("a second job for one snapshot")
	}
	// What was held since it was asked for is sent with it, and no other.
	held := must[*models.Job](t)(b.servers[0].DeleteSnapshot(b.ctx, h.ID, three, models.System))
	if _, err := b.servers[0].HoldSnapshot(b.ctx, h.ID, three, true, models.System); err != nil {
		t.Fatal(err)
	}
	run := b.next(link)
	if run.Kind != protocol.KindForget || !slices.Equal(run.SnapshotIDs, []string{two}) || len(run.Held) != 0 {
		t.Errorf("sent %+v", run)
	}
	if _, err := b.servers[1].HoldSnapshot(b.ctx, h.ID, two, true, models.System); models.CodeOf(err) != models.EConflict {
		t.Errorf("a hold beside a forget: %v", err)
	}
	b.answered(link, run, 0)
	// The list is asked for anew beside it.
	run = must[protocol.Run](t)(protocol.Decode[protocol.Run](must[[]protocol.Envelope](t)(b.servers[0].Outgoing(b.ctx, link))[0]))
	if run.JobID != held.ID.String() || !slices.Equal(run.SnapshotIDs, []string{three}) || !slices.Equal(run.Held, []string{three}) {
		t.Errorf("sent %+v", run)
	}
	b.answered(link, run, 0)
	if _, err := b.servers[1].HoldSnapshot(b.ctx, h.ID, two, true, models.System); err != nil {
		t.Error(err)
	}
}

// A command that no agent takes ends here, and in its place the link lives and
// the next one goes out.
func TestACommandThatIsTooLargeEndsWithItsCause(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name, want string
		grow       func(*bundle, *models.Host, models.JobID)
	}{
		{"held snapshots", "Let go of snapshots that are held", func(b *bundle, h *models.Host, _ models.JobID) {
			b.exec("insert into snapshot_holds (host_id, snapshot_id, held_by) select ?, lpad(to_hex(n), 64, '0'), '' from generate_series(1, 16000) n", h.ID)
		}},
		{"tags to keep", "the lists of tags", func(b *bundle, _ *models.Host, id models.JobID) {
			b.exec(`update jobs set spec = jsonb_build_object('forget', jsonb_build_array(jsonb_build_object('tags', jsonb_build_array('www'),
				'retention', jsonb_build_object('keep_tags', jsonb_build_array(repeat('"', 600000)))))) where id = ?`, id)
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			b := setup(t)
			h, link := b.snapshotHost("web-1")
			forget := b.exclusive(h, models.KindForget)
			c.grow(b, h, forget)
			next := b.run(b.group(h, "www")).ID
			out := must[[]protocol.Envelope](t)(b.servers[0].Outgoing(b.ctx, link))
			for _, m := range out {
				if frame := must[[]byte](t)(json.Marshal(m)); len(frame) > protocol.MaxFrame {
					t.Errorf("a %s of %d bytes goes out", m.Type, len(frame))
				}
			}
			if got := commands(t, out); !slices.Equal(got, []string{next.String()}) {
				t.Errorf("commands %v, want the backup behind it", got)
			}
			if j := b.job(forget); j.State != models.JobFailed || j.ErrorCode != protocol.ErrInvalidCommand || !strings.Contains(j.Error, "1024 KiB") || !strings.Contains(j.Error, c.want) || !strings.Contains(j.Error, "run this again") {
				t.Errorf("the forget is %s (%s): %s", j.State, j.ErrorCode, j.Error)
			}
		})
	}
}

// A forget that its silent host may have, or has, is still out: nothing that it
// could remove is promised to stay.
func TestNothingIsHeldBesideAForgetThatMayStillRun(t *testing.T) {
	t.Parallel()
	for _, accepted := range []bool{false, true} {
		for _, comes := range []string{"", protocol.JobAccepted, protocol.JobRunning} {
			t.Run(fmt.Sprintf("accepted %v, comes back %q", accepted, comes), func(t *testing.T) {
				t.Parallel()
				b := setup(t)
				h, link := b.snapshotHost("web-1")
				b.refreshed(h, link, snapshotNo(h, 1), snapshotNo(h, 2))
				one := snapshotNo(h, 1).ID
				forget := must[*models.Job](t)(b.servers[0].DeleteSnapshot(b.ctx, h.ID, snapshotNo(h, 2).ID, models.System)).ID
				b.wantCommands(0, link, forget)
				want := models.JobExpired
				if accepted {
					b.say(0, link, protocol.TypeAccepted, protocol.Accepted{JobID: forget.String(), JournalID: "journal of web-1"})
					want = models.JobLost
				}
				refused := func(when string) {
					t.Helper()
					if _, err := b.servers[1].HoldSnapshot(b.ctx, h.ID, one, true, models.System); models.CodeOf(err) != models.EConflict {
						t.Errorf("%s a hold is answered with %v", when, err)
					}
				}
				refused("while it is sent")
				b.listened(25 * time.Hour)
				must[[]*models.Job](t)(models.EndSilent(b.ctx, b.db, models.Silence{Expire: 24 * time.Hour, Lose: 15 * time.Minute}))
				if j := b.job(forget); j.State != want {
					t.Fatalf("it is %s, want %s", j.State, want)
				}
				b.exec("update jobs set finished_at = now() - interval '3 days' where id = ?", forget)
				refused("days later")

				if comes == "" {
					b.hello(1, h)
				} else {
					known := protocol.HelloJob{JobID: forget.String(), State: comes}
					b.hello(1, h, known)
					refused("when the host is back with it")
					b.hello(0, h, known)
					link, _ = b.hello(1, h, known)
					refused("later on")
					b.ends(1, link, forget, protocol.Finished{Outcome: protocol.OutcomeSucceeded})
				}
				if _, err := b.servers[1].HoldSnapshot(b.ctx, h.ID, one, true, models.System); err != nil {
					t.Errorf("when it is over: %v, it is %s", err, b.job(forget).State)
				}
			})
		}
	}
}

func TestAComparisonIsAskedForOnceAndKept(t *testing.T) {
	t.Parallel()
	b := setup(t)
	h, link := b.snapshotHost("web-1")
	b.refreshed(h, link, snapshotNo(h, 1), snapshotNo(h, 2))
	find := func(n int) *models.Snapshot {
		return must[*models.Snapshot](t)(models.FindSnapshot(b.ctx, b.db, h.ID, snapshotNo(h, n).ID))
	}
	older, newer := models.Ordered(find(2), find(1))
	j := must[*models.Job](t)(b.servers[0].CompareSnapshots(b.ctx, older, newer, false, models.System))
	if again := must[*models.Job](t)(b.servers[1].CompareSnapshots(b.ctx, older, newer, false, models.System)); again.ID != j.ID {
		t.Error("two at a time")
	}
	var first, second []protocol.Change
	for i := range 6000 {
		first = append(first, protocol.Change{Path: fmt.Sprintf("/srv/%d", i), Modifier: "+"})
	}
	second = append(second, protocol.Change{Path: "/srv/last", Modifier: "M"})
	b.answers(link, b.next(link), raw(first...), raw(second...))
	d := must[*models.SnapshotDiff](t)(models.FindDiff(b.ctx, b.db, older, newer))
	if d == nil || len(d.Changes) != 5000 || d.Changes[4999].Path != "/srv/4999" || d.More != 1001 || d.Stats["changed_files"] != 3.0 {
		t.Fatalf("%+v", d)
	}
	// It goes with its snapshots.
	b.refreshed(h, link, snapshotNo(h, 2))
	if d := must[*models.SnapshotDiff](t)(models.FindDiff(b.ctx, b.db, older, newer)); d != nil {
		t.Error("it outlives its snapshots")
	}
}
