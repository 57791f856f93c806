package agentapi_test

import (
	"encoding/json"
	"io"
	"net/http"
	"testing"

	"resticfleet/agent/protocol"
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
		{[]string{`"1"`}, 200}, {[]string{"2"}, 200}, {[]string{`"2`}, 200}, {[]string{`2"`}, 200}, {[]string{`w/"2"`}, 200}, {[]string{`"22"`}, 200},
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
