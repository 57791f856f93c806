package agentapi_test

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/gorilla/websocket"

	"resticfleet/agent/protocol"
	"resticfleet/models"
)

// FuzzMessages: whatever an agent sends, as a batch and as a frame, it is taken,
// ignored or refused with a reason and counted, the server goes on, and no
// other host's rows change. JOB is a job of the agent's own, THEIRS one of
// another host, SCHEDULE and GROUP are another host's too.
func FuzzMessages(f *testing.F) {
	for _, message := range []string{
		`{"id":"1","type":"heartbeat","payload":{"applied_schedule_version":99999999999999999999}}`,
		`{"id":"1","type":"heartbeat","payload":{"applied_schedule_version":-1,"schedule_digest":"\u0000\ud800"}}`,
		`{"id":"1","type":"schedule.ack","payload":{"version":9223372036854775807}}`,
		`{"id":"1","type":"schedule.fire","payload":{"schedule_id":"SCHEDULE","scheduled_at":"2026-01-01T00:00:00Z"}}`,
		`{"id":"1","type":"schedule.fire","payload":{"schedule_id":"SCHEDULE","scheduled_at":"9999-12-31T23:59:59.999999999+23:59"}}`,
		`{"id":"1","type":"job.accepted","payload":{"job_id":"THEIRS","journal_id":"x"}}`,
		`{"id":"1","type":"job.started","payload":{"job_id":"THEIRS","at":"2026-01-01T00:00:00Z"}}`,
		`{"id":"1","type":"job.progress","payload":{"job_id":"THEIRS","seq":1,"percent":50}}`,
		`{"id":"1","type":"job.log","payload":{"job_id":"THEIRS","lines":[{"seq":1,"text":"x"}]}}`,
		`{"id":"1","type":"job.finished","payload":{"job_id":"THEIRS","outcome":"succeeded","snapshot_id":"` + snapshotID + `"}}`,
		`{"id":"1","type":"job.finished","payload":{"job_id":"JOB","outcome":"succeeded","stats":{"total_bytes_processed":1e308},"exit_code":-99999999999}}`,
		`{"id":"1","type":"job.finished","payload":{"job_id":"JOB","outcome":"succeeded","repository_id":"\u0000","unreadable":["\u0000"],"at":"0001-01-01T00:00:00Z"}}`,
		`{"id":"1","type":"job.log","payload":{"job_id":"JOB","lines":[{"seq":9223372036854775807,"text":"x"},{"seq":-1}]}}`,
		`{"id":"1","type":"job.log","payload":{"job_id":"JOB","lines":[{"seq":2,"level":"\u0000","text":"\u0000\ud800"},{"seq":1,"text":"late"},{"seq":1,"text":"again"}]}}`,
		`{"id":"1","type":"job.progress","payload":{"job_id":"JOB","seq":1,"percent":1e308,"files_done":-1,"current_files":["\u0000","a","b","c","d","e"]}}`,
		`{"id":"1","type":"job.finished","payload":{"job_id":"JOB"}},{"id":"1","type":"job.started","payload":{"job_id":"JOB"}},{"id":"1","type":"job.accepted","payload":{"job_id":"JOB"}}`,
		`{"id":"1","type":"hello","payload":{"protocol":-1,"journal_id":"\u0000","timezone":"../../etc/passwd","jobs":[{"job_id":"THEIRS","state":"running"},{"job_id":"","state":"\u0000"}]}}`,
		`{"id":"1","type":"hello","payload":{"jobs":null,"sent_at":"9999-01-01T00:00:00Z"}},{"id":"2","type":"hello","payload":{}}`,
		`{"id":"1","type":"command.run","payload":{"job_id":"THEIRS"}}`,
		`{"id":"\u0000","type":"\u0000","payload":null}`,
		`{"id":"1","type":"heartbeat"}`, `{"type":"job.log","payload":[[[[[[]]]]]]}`, `{"id":["1"],"type":"heartbeat"}`,
		``, `null`, `[]`, `{`, `7`, "\xff\xfe", `{"id":"` + strings.Repeat("x", 300) + `","type":"x"}`,
		strings.Repeat(`[`, 20_000), strings.Repeat(" ", 1<<20) + `{"id":"1","type":"x"}`,
	} {
		f.Add(message)
	}
	base := setup(f)
	h, token := base.enrolled("web-1")
	job := base.run(base.group(h, "www"))
	other, theirToken := base.enrolled("web-2")
	group := base.group(other, "theirs")
	theirs := base.run(group)
	schedule := must[*models.Schedule](f)(models.AddSchedule(base.ctx, base.db, other.ID, models.ScheduleFields{Cron: "@daily", Enabled: true, GroupIDs: []string{group.ID.String()}}))
	(&poller{b: base, token: theirToken}).hello() // which sends the job
	ids := strings.NewReplacer("JOB", job.ID.String(), "THEIRS", theirs.ID.String(), "SCHEDULE", schedule.ID.String(), "GROUP", group.ID.String())

	f.Fuzz(func(t *testing.T, message string) {
		b := *base
		b.t, b.ctx = t, t.Context()
		message = ids.Replace(message)
		before := b.rows(other.ID)
		for _, body := range []string{message, "[" + message + "]", `{"messages":[` + message + `]}`} {
			p := &poller{b: &b, token: token}
			p.hello()
			counted := b.refused()
			res := b.do("POST", "/agent/v1/messages?session="+p.session, token, body)
			said, err := io.ReadAll(res.Body)
			_ = res.Body.Close()
			switch {
			case err != nil:
				t.Fatalf("%.200q: %v", body, err)
			case res.StatusCode == http.StatusOK:
				var a answer
				if err := json.Unmarshal(said, &a); err != nil {
					t.Errorf("%.200q: %s", body, said)
				}
				for _, r := range a.Rejected {
					if r.Reason == "" {
						t.Errorf("%.200q: %q is rejected without a reason", body, r.ID)
					}
				}
			case res.StatusCode == http.StatusUnprocessableEntity, res.StatusCode == http.StatusRequestEntityTooLarge:
				if b.refused() == counted {
					t.Errorf("%.200q: refused, not counted", body)
				}
			case res.StatusCode != http.StatusConflict: // a hello in it has opened a newer link
				t.Errorf("%.200q: %d %s", body, res.StatusCode, said)
			}
		}
		b.frame(token, message)
		if after := b.rows(other.ID); after != before {
			t.Errorf("%.200q: another host's rows were\n%s\nand are\n%s", message, before, after)
		}
	})
}

// frame sends one on a socket of its own. The link goes on or ends with a
// reason.
func (b *bundle) frame(token, frame string) {
	b.t.Helper()
	c := b.link(token)
	if err := c.conn.WriteMessage(websocket.TextMessage, []byte(frame)); err != nil {
		b.t.Fatal(err)
	}
	c.say("last", protocol.TypeHeartbeat, protocol.Heartbeat{})
	over := time.After(patience)
	for {
		select {
		case e, ok := <-c.got:
			if !ok {
				if !websocket.IsCloseError(c.closed, websocket.CloseMessageTooBig) {
					b.t.Errorf("%.200q: closed with %v", frame, c.closed)
				}
				return
			}
			if e.Type != protocol.TypeAck {
				continue
			}
			if ack := ackOf(b.t, e); len(ack.Acknowledged) == 1 && ack.Acknowledged[0] == "last" {
				return
			}
		case <-over:
			b.t.Fatalf("%.200q: no answer", frame)
		}
	}
}

// rows is all that is stored of a host, but when it was last heard of.
func (b *bundle) rows(h models.HostID) string {
	b.t.Helper()
	var all strings.Builder
	for _, query := range []string{
		"select (to_jsonb(t) - 'last_seen_at' - 'heard')::text from hosts t where id = ?",
		"select (to_jsonb(t) - 'heard')::text from jobs t where host_id = ? order by id",
		"select to_jsonb(t)::text from job_log_lines t join jobs j on j.id = t.job_id where j.host_id = ? order by t.seq",
		"select to_jsonb(t)::text from source_groups t where host_id = ? order by id",
		"select to_jsonb(t)::text from schedules t where host_id = ? order by id",
	} {
		var rows []string
		if err := b.db.NewRaw(query, h).Scan(b.ctx, &rows); err != nil {
			b.t.Fatal(err)
		}
		fmt.Fprintln(&all, strings.Join(rows, "\n"))
	}
	return all.String()
}

// refused is how much was refused so far, for whatever reason.
func (b *bundle) refused() int64 {
	n := &b.agents.Counts
	return n.Malformed.Load() + n.Oversized.Load() + n.Rejected.Load() + n.Superseded.Load() + n.RefusedLinks.Load()
}

// endless is a body without an end, which counts what was taken of it.
type endless struct{ taken atomic.Int64 }

func (e *endless) Read(b []byte) (int, error) {
	for i := range b {
		b[i] = ' '
	}
	e.taken.Add(int64(len(b)))
	return len(b), nil
}

func TestAnEndlessBatchIsRefused(t *testing.T) {
	t.Parallel()
	b := setup(t)
	_, token := b.enrolled("web-1")
	ctx, stop := context.WithTimeout(b.ctx, patience)
	defer stop()
	body := &endless{}
	req := must[*http.Request](t)(http.NewRequestWithContext(ctx, "POST", b.web.URL+"/agent/v1/messages", body))
	req.Header.Set("Authorization", "Bearer "+token)
	res, err := b.web.Client().Do(req)
	if err == nil { // else the connection ended while the body was being sent
		defer res.Body.Close()
		if res.StatusCode != http.StatusRequestEntityTooLarge {
			t.Errorf("status %d", res.StatusCode)
		}
	}
	if body.taken.Load() > 64<<20 || b.agents.Counts.Oversized.Load() != 1 {
		t.Errorf("%d bytes were taken, %d refused", body.taken.Load(), b.agents.Counts.Oversized.Load())
	}
}
