package jobs_test

import (
	"strings"
	"testing"
	"time"

	"resticfleet/agent/protocol"
	"resticfleet/models"
)

// What was sent for one repository is never sent for another one: its gate is
// the former's. It ends as what its agent makes of it.
func TestWhatWasSentIsNotSentAgainForAnotherRepository(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name  string
		knows protocol.HelloJob // what the next hello names, where there is one
		hello bool
		want  models.JobState
	}{
		{"the agent comes back without it", protocol.HelloJob{}, true, models.JobFailed},
		{"the agent comes back with it", protocol.HelloJob{State: protocol.JobRunning}, true, models.JobRunning},
		{"the agent has had no chance to say", protocol.HelloJob{}, false, models.JobLost},
	} {
		for _, kind := range []models.JobKind{models.KindBackup, models.KindInit, models.KindPrune, models.KindSnapshots} {
			t.Run(c.name+", "+string(kind), func(t *testing.T) {
				t.Parallel()
				b := setup(t)
				h := b.host("web-1", "/srv/repo")
				link, _ := b.hello(0, h)
				var id models.JobID
				if kind == models.KindBackup {
					id = b.run(b.group(h, "www")).ID
				} else {
					id = b.exclusive(h, kind)
				}
				b.wantCommands(0, link, id)
				must[*models.HostRepository](t)(b.servers[1].BindRepository(b.ctx, h.ID, models.RepositoryFields{URL: "/srv/other", Password: "battery staple"}))
				other := must[*models.HostRepository](t)(models.FindRepository(b.ctx, b.db, h.ID))
				b.exec("update jobs set offered_at = now() - interval '1 day' where id = ?", id)

				var out []protocol.Envelope
				switch {
				case !c.hello:
				case c.knows.State == "":
					link, out = b.hello(1, h)
				default:
					c.knows.JobID = id.String()
					link, out = b.hello(1, h, c.knows)
				}
				out = append(out, must[[]protocol.Envelope](t)(b.servers[1].Outgoing(b.ctx, link))...)
				for _, m := range out {
					if m.Type != protocol.TypeRun {
						continue
					}
					if run := must[protocol.Run](t)(protocol.Decode[protocol.Run](m)); run.JobID == id.String() {
						t.Errorf("sent to %s", run.Repository.URL)
					}
				}
				now := b.job(id)
				if now.State != c.want {
					t.Fatalf("it is %s (%s), want %s: %s", now.State, now.ErrorCode, c.want, now.Error)
				}
				if now.State != models.JobRunning && (now.ErrorCode != models.CodeOtherRepository || !strings.Contains(now.Error, "run it again") || now.Gate != nil) {
					t.Errorf("it ended as %s: %s, gate %v", now.ErrorCode, now.Error, now.Gate)
				}
				if *now.RepositoryID == other.RepositoryID {
					t.Error("it counts in the new repository")
				}
				if c.want == models.JobFailed {
					return
				}
				// Its agent had it after all: that counts.
				b.ends(1, link, id, protocol.Finished{Outcome: protocol.OutcomeSucceeded, SnapshotID: strings.Repeat("a", 64), RepositoryID: strings.Repeat("7", 64), At: time.Now()})
				if now = b.job(id); now.State != models.JobSucceeded {
					t.Errorf("with its result it is %s", now.State)
				}
				if repo := must[*models.HostRepository](t)(models.FindRepository(b.ctx, b.db, h.ID)); repo.ResticID != "" {
					t.Errorf("the new repository has the former one's id %s", repo.ResticID)
				}
			})
		}
	}
}
