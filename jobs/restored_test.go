package jobs_test

import (
	"slices"
	"testing"

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
