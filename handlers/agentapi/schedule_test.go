package agentapi_test

import (
	"context"
	"encoding/json"
	"io"
	"net/http"
	"testing"

	"resticfleet/agent/protocol"
	"resticfleet/agent/scheduler"
	"resticfleet/models"
)

// problem reads a refusal's detail and closes the answer.
func problem(t testing.TB, res *http.Response) string {
	t.Helper()
	defer res.Body.Close()
	var p struct{ Detail string }
	raw := must[[]byte](t)(io.ReadAll(res.Body))
	if err := json.Unmarshal(raw, &p); err != nil {
		t.Errorf("no problem: %s", raw)
	}
	return p.Detail
}

func TestTheScheduleSetAndItsTag(t *testing.T) {
	t.Parallel()
	b := setup(t)
	h, token := b.enrolled("web-1")
	g := b.group(h, "www")
	for range 2 {
		must[*models.Schedule](t)(models.AddSchedule(b.ctx, b.db, h.ID, models.ScheduleFields{Cron: "@daily", Enabled: true, GroupIDs: []string{g.ID.String()}}))
	}
	get := func(tags ...string) *http.Response {
		var header []string
		for _, tag := range tags {
			header = append(header, "If-None-Match", tag)
		}
		return b.do("GET", "/agent/v1/schedule", token, nil, header...)
	}
	res := get()
	var set protocol.ScheduleSet
	if err := json.NewDecoder(res.Body).Decode(&set); err != nil || set.Version != 2 || len(set.Schedules) != 2 {
		t.Errorf("%+v, %v", set, err)
	}
	_ = res.Body.Close()
	if res.Header.Get("ETag") != `"2"` || res.Header.Get("Cache-Control") != "no-cache" {
		t.Errorf("%v", res.Header)
	}
	for _, c := range []struct {
		tags   []string
		status int
	}{
		{[]string{`"2"`}, 304}, {[]string{`W/"2"`}, 304}, {[]string{"*"}, 304}, {[]string{" * "}, 304},
		{[]string{`"1", "2"`}, 304}, {[]string{`"1",W/"2",,`}, 304}, {[]string{`"1"`, `"2"`}, 304}, {[]string{`"a,b" , "2"`}, 304}, {[]string{"\t\"2\""}, 304},
		{[]string{`"1"`}, 200}, {[]string{"2"}, 200}, {[]string{`"2`}, 200}, {[]string{`2"`}, 200}, {[]string{`w/"2"`}, 200}, {[]string{`"22", "2"`}, 304}, {[]string{`"-22"`}, 200}, {[]string{`"2000000"`}, 200}, {[]string{`"99999999999999999999"`}, 200},
		{[]string{`"a\"2"`}, 200}, {[]string{""}, 200}, {[]string{`"*"`}, 200}, {[]string{`x, "2"`}, 200}, {[]string{`W/ "2"`}, 200},
	} {
		res := get(c.tags...)
		body := must[[]byte](t)(io.ReadAll(res.Body))
		_ = res.Body.Close()
		if res.StatusCode != c.status || res.Header.Get("ETag") != `"2"` || (c.status == 304) != (len(body) == 0) {
			t.Errorf("If-None-Match %q: %d %s", c.tags, res.StatusCode, body)
		}
	}
	for _, bad := range []string{"", "rfa_made-up"} {
		res := b.do("GET", "/agent/v1/schedule", bad, nil, "If-None-Match", "*")
		if detail := problem(t, res); res.StatusCode != 401 || !b.log.has("agent refused", detail) {
			t.Errorf("token %q: %d %s", bad, res.StatusCode, detail)
		}
	}
}

// putBack is the host's schedules as an older copy of the database has them.
func (b *bundle) putBack(h *models.Host, version int64, without ...*models.Schedule) {
	b.t.Helper()
	b.exec("alter table hosts disable trigger hosts_schedule_version")
	b.exec("update hosts set schedule_version = ?, applied_schedule_version = ?, applied_schedule_digest = '' where id = ?", version, version, h.ID)
	b.exec("alter table hosts enable trigger hosts_schedule_version")
	for _, s := range without {
		b.exec("delete from schedules where id = ?", s.ID)
	}
}

func (b *bundle) daily(h *models.Host, g *models.Group) *models.Schedule {
	b.t.Helper()
	return must[*models.Schedule](b.t)(models.AddSchedule(b.ctx, b.db, h.ID, models.ScheduleFields{Cron: "@daily", Enabled: true, GroupIDs: []string{g.ID.String()}}))
}

func TestATagFromBeforeTheRestoreMovesTheVersion(t *testing.T) {
	t.Parallel()
	b := setup(t)
	ctx, stop := context.WithCancel(b.ctx)
	defer stop()
	go b.agents.Run(ctx) // so that versions are believed
	h, token := b.enrolled("web-1")
	g := b.group(h, "www")
	b.daily(h, g)
	lost := b.daily(h, g)
	b.daily(h, g)
	b.putBack(h, 1, lost)
	get := func(tag string, wantStatus int, wantTag string) {
		t.Helper()
		res := b.do("GET", "/agent/v1/schedule", token, nil, "If-None-Match", tag)
		body := must[[]byte](t)(io.ReadAll(res.Body))
		_ = res.Body.Close()
		if res.StatusCode != wantStatus || res.Header.Get("ETag") != wantTag {
			t.Errorf("%s: %d %s %s", tag, res.StatusCode, res.Header.Get("ETag"), body)
		}
	}
	get(`"1"`, 304, `"1"`)
	get(`"3"`, 200, `"4"`)
	get(`"3"`, 200, `"4"`)
	get(`"4"`, 304, `"4"`)
	get(`W/"1000003"`, 200, `"1000004"`)
	get(`"3000000"`, 200, `"1000004"`)
	if !b.log.has("an agent's schedule version is ignored", "") || !b.log.has("an agent's schedule set is not of this database, which was put back in time: it gets a newer one", "") {
		t.Errorf("%s", b.log)
	}
}

// acks is a scheduler's way to the test's link.
type acks chan protocol.ScheduleAck

func (a acks) Ack(_ context.Context, ack protocol.ScheduleAck) error { a <- ack; return nil }
func (acks) Fire(context.Context, protocol.Fire) error               { return nil }

// A cron passes over what is older than it has: after a restore it runs the
// restored set all the same, by whichever way it says what it has.
func TestACronFollowsARestoredDatabase(t *testing.T) {
	t.Parallel()
	for _, way := range []string{"hello", "heartbeat", "hello by polling", "heartbeat by polling"} {
		t.Run(way, func(t *testing.T) {
			t.Parallel()
			b := setup(t)
			h, token := b.enrolled("web-1")
			g := b.group(h, "www")
			kept, lost := b.daily(h, g), b.daily(h, g)
			heard := make(acks, 8)
			cron := scheduler.New(scheduler.Config{})
			t.Cleanup(cron.Stop)
			cron.SetSender(heard)
			cron.Apply(must[protocol.ScheduleSet](t)(models.ScheduleSet(b.ctx, b.db, h.ID)))
			<-heard
			hello := func() protocol.Hello {
				version, digest := cron.Applied()
				return protocol.Hello{JournalID: "j", AppliedScheduleVersion: version, ScheduleDigest: digest}
			}
			beat := func() protocol.Heartbeat {
				version, digest := cron.Applied()
				return protocol.Heartbeat{AppliedScheduleVersion: version, ScheduleDigest: digest}
			}
			var set protocol.Envelope
			switch way {
			case "hello":
				b.putBack(h, 1, lost)
				c := b.dial(token)
				c.say("hello", protocol.TypeHello, hello())
				set = c.until(protocol.TypeScheduleSet)
			case "heartbeat":
				c := b.dial(token)
				c.say("hello", protocol.TypeHello, hello())
				c.until(protocol.TypeScheduleSet)
				b.putBack(h, 1, lost)
				c.say("1", protocol.TypeHeartbeat, beat())
				set = c.until(protocol.TypeScheduleSet)
			default:
				session := ""
				if way == "hello by polling" {
					b.putBack(h, 1, lost)
				}
				first := b.post(token, session, protocol.Seal("hello", protocol.TypeHello, hello()))
				session = must[protocol.Welcome](t)(protocol.Decode[protocol.Welcome](first[0])).Session
				set = first[1]
				if way == "heartbeat by polling" {
					b.putBack(h, 1, lost)
					b.post(token, session, protocol.Seal("1", protocol.TypeHeartbeat, beat()))
					status, body := b.request("GET", "/agent/v1/commands?wait=10&session="+session, token, nil)
					var polled struct{ Messages []protocol.Envelope }
					if err := json.Unmarshal(body, &polled); err != nil || status != 200 || len(polled.Messages) == 0 {
						t.Fatalf("%d %s", status, body)
					}
					set = polled.Messages[0]
				}
			}
			cron.Apply(must[protocol.ScheduleSet](t)(protocol.Decode[protocol.ScheduleSet](set)))
			<-heard
			want := must[protocol.ScheduleSet](t)(models.ScheduleSet(b.ctx, b.db, h.ID))
			version, digest := cron.Applied()
			if version != want.Version || digest != want.Digest() || version != 3 || len(want.Schedules) != 1 || want.Schedules[0].ID != kept.ID.String() {
				t.Errorf("the cron runs version %d (%s), the server has %d (%s): %+v", version, digest, want.Version, want.Digest(), want.Schedules)
			}
		})
	}
}

// post sends a batch and returns what came back with the answer.
func (b *bundle) post(token, session string, messages ...protocol.Envelope) []protocol.Envelope {
	b.t.Helper()
	status, body := b.request("POST", "/agent/v1/messages?session="+session, token, map[string]any{"messages": messages})
	var answer struct {
		Acknowledged []string
		Messages     []protocol.Envelope
	}
	if err := json.Unmarshal(body, &answer); err != nil || status != 200 || len(answer.Acknowledged) != len(messages) {
		b.t.Fatalf("%d %s", status, body)
	}
	return answer.Messages
}
