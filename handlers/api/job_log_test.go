package api_test

import (
	"fmt"
	"strings"
	"testing"

	"resticfleet/agent/protocol"
	"resticfleet/models"
)

func TestJobLog(t *testing.T) {
	t.Parallel()
	b := setup(t)
	host := b.addHost("web-1")
	b.bind(host)
	id := b.call("POST", "/api/hosts/"+host+"/repository/unlock", nil).want(202)["id"].(string)
	path := "/api/jobs/" + id + "/log"

	if r := b.call("GET", path, nil); r.status != 200 || r.raw != "" {
		t.Errorf("empty log: %d %q", r.status, r.raw)
	}
	if r := b.call("GET", path, nil, "Accept", "application/json"); r.status != 200 || r.raw != `{"items":[]}`+"\n" {
		t.Errorf("empty log: %d %q", r.status, r.raw)
	}

	const n = 2345
	lines := protocol.Log{JobID: id}
	want := ""
	for i := 1; i <= n; i++ {
		text := fmt.Sprintf("line %d", i)
		if i == 3 {
			text = "a file\ncalled\rodd ü"
			want += `a file\ncalled\rodd ü` + "\n"
		} else {
			want += text + "\n"
		}
		lines.Lines = append(lines.Lines, protocol.LogLine{Seq: int64(i), Level: protocol.LevelInfo, Text: text})
	}
	lines.Lines[1].Level = protocol.LevelError
	if _, err := models.JobLog(t.Context(), b.db, must(models.ParseID[models.HostID](host)), lines); err != nil {
		t.Fatal(err)
	}

	r := b.call("GET", path, nil)
	if r.status != 200 || r.raw != want || r.header.Get("Content-Type") != "text/plain; charset=utf-8" {
		t.Errorf("text: %d, %d bytes of %d, %s", r.status, len(r.raw), len(want), r.header.Get("Content-Type"))
	}
	if r := b.call("GET", path+"?after=2343", nil); r.raw != "line 2344\nline 2345\n" {
		t.Errorf("after: %q", r.raw)
	}
	items := b.call("GET", path, nil, "Accept", "application/json").want(200)["items"].([]any)
	if len(items) != n {
		t.Fatalf("%d items", len(items))
	}
	for i, item := range items {
		if seq := item.(object)["seq"]; seq != float64(i+1) {
			t.Fatalf("item %d has seq %v", i, seq)
		}
	}
	has(t, items[0].(object), "seq at level text")
	if second := items[1].(object); second["level"] != "error" || !isTime.MatchString(second["at"].(string)) {
		t.Errorf("item %v", second)
	}
	if items := b.call("GET", path+"?after=2345", nil, "Accept", "application/json").want(200)["items"].([]any); len(items) != 0 {
		t.Errorf("after the last: %v", items)
	}
	b.call("GET", path+"?after=-1", nil).refused(422, "after")
	b.call("GET", path+"?after=x", nil).refused(422, "after")

	for accept, json := range map[string]bool{
		"": false, "*/*": false, "text/plain": false, "text/html, */*;q=0.8": false, "application/json": true,
		"application/json, text/plain, */*": true, "text/plain, application/json": false,
		"text/plain;q=0.5, application/json;q=0.9": true, "application/json;q=0.1, */*": false, "application/json;q=0": false, "nonsense;;": false,
	} {
		r := b.call("GET", path+"?after=2344", nil, "Accept", accept)
		if got := strings.HasPrefix(r.header.Get("Content-Type"), "application/json"); got != json {
			t.Errorf("Accept %q is answered as %s", accept, r.header.Get("Content-Type"))
		}
	}
}
