package handlers

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/html"

	"resticfleet/agent/protocol"
	"resticfleet/models"
)

// garden is a server on which every text that a person or an agent can give is
// markup: one that leaves elements, attributes, titles and scripts, and begins
// an element nobody else makes. shown are the fields that some page shows.
type garden struct {
	*bundle
	cookie  string
	planted map[string]string
	shown   map[string]bool

	host, group, schedule, user, apiToken string
	jobs                                  []string
	agentToken, session                   string
	forms                                 map[string]url.Values
}

// plant is the markup for a field.
func (g *garden) plant(field string) string {
	if g.planted[field] == "" {
		n := len(g.planted) + 100
		g.planted[field] = fmt.Sprintf(`%d"'></title></textarea></script><evil-%d onevil=1>`, n, n)
	}
	return g.planted[field]
}

func (g *garden) call(method, path string, in any) (out map[string]any) {
	g.t.Helper()
	raw, err := json.Marshal(in)
	if err != nil {
		g.t.Fatal(err)
	}
	header := []string{"Content-Type", "application/json", "Cookie", g.cookie}
	if strings.HasPrefix(path, "/agent/") {
		header = []string{"Content-Type", "application/json", "Authorization", "Bearer " + g.agentToken}
	}
	res := g.do(method, path, strings.NewReader(string(raw)), header...)
	text := body(g.t, res)
	if res.StatusCode >= 300 {
		g.t.Fatalf("%s %s: %d %s", method, path, res.StatusCode, text)
	}
	if err := json.Unmarshal([]byte(text), &out); err != nil {
		g.t.Fatalf("%s %s: %v", method, path, err)
	}
	return out
}

func (g *garden) id(method, path string, in any) string {
	g.t.Helper()
	return g.call(method, path, in)["id"].(string)
}

// say is a message of the host's agent.
func (g *garden) say(kind string, payload any) map[string]any {
	g.t.Helper()
	answer := g.call("POST", "/agent/v1/messages?session="+g.session, map[string]any{"messages": []protocol.Envelope{protocol.Seal(fmt.Sprint(kind, time.Now().UnixNano()), kind, payload)}})
	if rejected := answer["rejected"].([]any); len(rejected) > 0 {
		g.t.Fatalf("%s: %v", kind, rejected)
	}
	return answer
}

// fetch is the next job that the agent is told to run; it accepts and starts it.
func (g *garden) fetch() string {
	g.t.Helper()
	answer := g.call("GET", "/agent/v1/commands?wait=5&session="+g.session, nil)
	for _, m := range answer["messages"].([]any) {
		if m := m.(map[string]any); m["type"] == protocol.TypeRun {
			id := m["payload"].(map[string]any)["job_id"].(string)
			g.say(protocol.TypeAccepted, protocol.Accepted{JobID: id})
			g.say(protocol.TypeStarted, protocol.Started{JobID: id, At: time.Now()})
			g.jobs = append(g.jobs, id)
			return id
		}
	}
	g.t.Fatalf("nothing to run: %v", answer)
	return ""
}

func sow(t *testing.T) *garden {
	t.Helper()
	g := &garden{bundle: setup(t), planted: map[string]string{}, shown: map[string]bool{}, forms: map[string]url.Values{}}
	user := models.NewID[models.UserID]()
	g.user = user.String()
	g.exec("insert into users (id, name, role, password_hash) values (?, ?, 'admin', '')", user, g.plant("user name"))
	g.planted["user agent"] = `"'><evil-99 onevil=1>` // what follows a slash isn't shown
	session, err := models.StartSession(g.ctx, g.db, user, "192.0.2.1", g.plant("user agent"))
	if err != nil {
		t.Fatal(err)
	}
	g.cookie = "session=" + session
	_, token, err := models.AddAPIToken(g.ctx, g.db, g.plant("token name"), models.RoleViewer)
	if err != nil {
		t.Fatal(err)
	}
	g.apiToken = token.ID.String()

	g.host = g.id("POST", "/api/hosts", map[string]any{"name": g.plant("host name"), "labels": []string{g.plant("label")}, "restic_host": g.plant("restic host")})
	at := "/api/hosts/" + g.host
	g.call("PUT", at+"/repository", map[string]any{"url": "/srv/" + g.plant("repository url"), "password": "x"})
	g.group = g.id("POST", at+"/source-groups", map[string]any{
		"name": g.plant("group name"), "tag": g.plant("tag"), "includes": []string{"/srv/" + g.plant("include")}, "excludes": []string{g.plant("exclude")},
		"retention": map[string]any{"keep_tags": []string{g.plant("keep tag")}},
	})
	g.schedule = g.id("POST", at+"/schedules", map[string]any{"cron": "0 2 * * *", "source_group_ids": []string{g.group}})

	enrolment := g.call("POST", at+"/enrollment-tokens", map[string]any{})["token"].(string)
	g.agentToken = g.call("POST", "/agent/v1/enroll", protocol.EnrollRequest{Token: enrolment, Hostname: g.plant("hostname"), OS: "x", Timezone: "UTC"})["agent_token"].(string)
	welcome := g.say(protocol.TypeHello, protocol.Hello{
		Protocol: 2, JournalID: g.plant("journal"), Instance: g.plant("instance"), AgentVersion: g.plant("agent version"), ResticVersion: g.plant("restic version"),
		OS: g.plant("os"), Arch: g.plant("arch"), Timezone: g.plant("timezone"), LinkReason: g.plant("link reason"), SentAt: time.Now(),
	})["messages"].([]any)[0].(map[string]any)
	g.session = welcome["payload"].(map[string]any)["session"].(string)

	g.say(protocol.TypeFinished, protocol.Finished{
		JobID: g.fetch(), Outcome: protocol.OutcomeFailed, At: time.Now(), ErrorCode: protocol.ErrRestic, Error: g.plant("job error"), RepositoryID: g.plant("repository id"),
	})
	backup := func() string {
		g.call("POST", at+"/source-groups/"+g.group+"/run", map[string]any{})
		return g.fetch()
	}
	exit := 3
	g.say(protocol.TypeFinished, protocol.Finished{
		JobID: backup(), Outcome: protocol.OutcomeWarning, At: time.Now(), ExitCode: &exit, SnapshotID: strings.Repeat("a", 64), ErrorCode: protocol.ErrUnreadable,
		Error: g.plant("warning"), Unreadable: []string{"/srv/" + g.plant("unreadable file")}, Stats: map[string]any{g.plant("statistic"): 1},
	})
	g.say(protocol.TypeFinished, protocol.Finished{
		JobID: backup(), Outcome: protocol.OutcomeFailed, At: time.Now(), ErrorCode: g.plant("error code"), Error: g.plant("another error"), SnapshotID: g.plant("snapshot id"),
	})
	running := backup()
	g.say(protocol.TypeProgress, protocol.Progress{JobID: running, Seq: 1, Percent: 40, TotalFiles: 10, CurrentFiles: []string{"/srv/" + g.plant("current file")}})
	var lines []protocol.LogLine
	for i, text := range []string{g.plant("log line"), g.plant("log line that ends events") + "\r\n\revent: evil\r\rdata: <evil-1>\n\nevent: evil\ndata: <hx-partial hx-target=\"#job\">\n\n"} {
		lines = append(lines, protocol.LogLine{Seq: int64(i + 1), At: time.Now(), Level: protocol.LevelError, Text: text})
	}
	g.say(protocol.TypeLog, protocol.Log{JobID: running, Lines: lines})
	for i, digit := range []string{"a", "b"} {
		g.exec(`insert into snapshots (host_id, id, at, hostname, paths, tags) values (?, ?, now() - ? * interval '1 hour', 'x', jsonb_build_array(?::text), jsonb_build_array(?::text))`,
			g.host, strings.Repeat(digit, 64), i, "/srv/"+g.plant("snapshot path"), g.plant("snapshot tag"))
	}
	g.exec("insert into snapshot_diffs (host_id, older, newer, changes) values (?, ?, ?, jsonb_build_array(jsonb_build_object('path', ?::text, 'modifier', '+')))",
		g.host, strings.Repeat("b", 64), strings.Repeat("a", 64), "/srv/"+g.plant("changed path"))
	g.exec("update hosts set snapshots_listed_at = now(), agent_protocol = 3 where id = ?", g.host)
	return g
}

// paths are what a pattern of the table leads to here.
func (g *garden) paths(pattern string) []string {
	g.t.Helper()
	if strings.Contains(pattern, "/jobs/:id") {
		var all []string
		for _, job := range g.jobs {
			all = append(all, strings.Replace(pattern, ":id", job, 1))
		}
		return all
	}
	path := strings.NewReplacer("/hosts/:id", "/hosts/"+g.host, "/source-groups/:gid", "/source-groups/"+g.group, "/schedules/:sid", "/schedules/"+g.schedule,
		"/leave/:sid", "/leave/"+g.schedule, "/maintenance/:kind", "/maintenance/check", "/users/:uid", "/users/"+g.user, "/tokens/:tid", "/tokens/"+g.apiToken,
		"/snapshots/:snap", "/snapshots/"+strings.Repeat("a", 64)).Replace(pattern)
	if strings.Contains(path, ":") {
		g.t.Errorf("this test doesn't know what stands for %s", path)
	}
	return []string{path}
}

// inert looks through an answer: markup that was given is text in it, and
// nothing in it is a script or style that doesn't come from us as a file.
func (g *garden) inert(what string, res *http.Response) {
	g.t.Helper()
	text := body(g.t, res)
	for name, values := range res.Header {
		if all := strings.Join(values, "\n"); strings.Contains(all, "<evil") || strings.Contains(name, "Evil") {
			g.t.Errorf("%s: the header %s is %q", what, name, all)
		}
	}
	switch kind, _, _ := strings.Cut(res.Header.Get("Content-Type"), ";"); kind {
	case "text/html":
		g.markup(what, text)
	case "application/json", "application/problem+json", "text/plain", "application/openmetrics-text", "":
		if res.Header.Get("X-Content-Type-Options") != "nosniff" {
			g.t.Errorf("%s: %s may be sniffed", what, kind)
		}
	default:
		g.t.Errorf("%s: is this inert: %s?", what, kind)
	}
}

func (g *garden) markup(what, text string) {
	g.t.Helper()
	root, err := html.Parse(strings.NewReader(text))
	if err != nil {
		g.t.Fatal(err)
	}
	var seen strings.Builder
	for n := range root.Descendants() {
		if n.Type == html.TextNode {
			seen.WriteString(n.Data + "\n")
		}
		if n.Type != html.ElementNode {
			continue
		}
		script := n.Data == "script"
		for _, a := range n.Attr {
			seen.WriteString(a.Val + "\n")
			switch {
			case strings.HasPrefix(a.Key, "on"), strings.HasPrefix(a.Key, "hx-on"), a.Key == "style", a.Key == "srcdoc":
				g.t.Errorf("%s: <%s %s=%q>", what, n.Data, a.Key, a.Val)
			case strings.HasPrefix(strings.ToLower(strings.TrimSpace(a.Val)), "javascript:"):
				g.t.Errorf("%s: <%s %s=%q>", what, n.Data, a.Key, a.Val)
			}
			if script && a.Key == "src" && strings.HasPrefix(a.Val, "/static/") {
				script = false
			}
		}
		if script || n.Data == "style" || n.Data == "base" || n.Data == "iframe" || n.Data == "object" || strings.HasPrefix(n.Data, "evil") {
			g.t.Errorf("%s: there is a <%s>", what, n.Data)
		}
		if n.Data == "form" {
			g.keepForm(n)
		}
	}
	for field, planted := range g.planted {
		if strings.Contains(seen.String(), planted) {
			g.shown[field] = true
		}
	}
}

// keepForm remembers a form that is sent by POST, with its fields.
func (g *garden) keepForm(form *html.Node) {
	attr := func(n *html.Node, key string) string {
		for _, a := range n.Attr {
			if a.Key == key {
				return a.Val
			}
		}
		return ""
	}
	action := attr(form, "action")
	if !strings.EqualFold(attr(form, "method"), "post") || g.forms[action] != nil {
		return
	}
	fields := url.Values{}
	for n := range form.Descendants() {
		if name := attr(n, "name"); n.Type == html.ElementNode && name != "" {
			fields.Set(name, g.plant("form field "+name))
		}
	}
	g.forms[action] = fields
}

var asPartial = []string{"HX-Request", "true", "HX-Request-Type", "partial"}

// Whatever people and agents can write is text on every page, in every part of
// one, in what the streams push, in the headers and in forms that come back.
func TestStoredMarkupIsInert(t *testing.T) {
	t.Parallel()
	g := sow(t)
	query := url.Values{}
	for _, name := range []string{"q", "show", "state", "kind", "host", "group", "cron", "cursor", "token", "name", "zone", "who", "what", "actor", "from", "until"} {
		query.Set(name, g.plant("query "+name))
	}
	for _, e := range g.table() {
		if e.method != http.MethodGet || e.who == agent || e.pattern == "/events" || strings.HasPrefix(e.pattern, "/static/") {
			continue
		}
		for _, path := range g.paths(e.pattern) {
			for _, path := range []string{path, path + "?" + query.Encode(), path + "?" + url.Values{"q": query["q"]}.Encode(), path + "?a=" + strings.Repeat("a", 64) + "&b=" + strings.Repeat("b", 64)} {
				for _, header := range [][]string{{"Accept", "text/html"}, asPartial} {
					header := append([]string{"Cookie", g.cookie + "; theme=" + url.QueryEscape(g.plant("theme"))}, header...)
					res := g.do("GET", path, nil, header...)
					if res.StatusCode >= 500 {
						t.Errorf("GET %s: %d", path, res.StatusCode)
					}
					g.inert(strings.Join(append(header[2:], "GET", e.pattern), " "), res)
				}
			}
		}
	}
	g.streams()

	// Forms come back with what was typed. Those that end something go last.
	var ends []string
	for _, action := range slices.Sorted(maps.Keys(g.forms)) {
		if strings.Contains(action, "delete") || strings.Contains(action, "revoke") || strings.Contains(action, "end") || strings.Contains(action, "logout") {
			ends = append(ends, action)
			continue
		}
		g.send(action)
	}
	for _, path := range []string{"/login", "/setup"} {
		g.inert("GET "+path, g.do("GET", path, nil))
		if g.forms[path] == nil {
			g.forms[path] = url.Values{"username": {g.plant("form field username")}, "token": {g.plant("form field token")}, "password": {"x"}}
		}
		g.send(path)
	}
	for _, action := range ends {
		g.send(action)
	}
	if len(g.forms) < 10 {
		t.Errorf("only %d forms were found", len(g.forms))
	}

	for _, field := range []string{
		"user name", "host name", "repository url", "group name", "tag", "include", "exclude", "agent version", "os", "link reason",
		"job error", "warning", "another error", "unreadable file", "current file", "log line", "log line that ends events",
		"query q", "query who", "form field name", "form field username", "token name", "user agent",
		"snapshot path", "snapshot tag", "changed path",
	} {
		if !g.shown[field] {
			t.Errorf("no page shows the %s: so it is not tried", field)
		}
	}
}

// send posts a form as typed, to a plain browser and to HTMX.
func (g *garden) send(action string) {
	g.t.Helper()
	for _, header := range [][]string{{"Accept", "text/html"}, asPartial} {
		header := append([]string{"Cookie", g.cookie, "Content-Type", "application/x-www-form-urlencoded"}, header...)
		res := g.do("POST", action, strings.NewReader(g.forms[action].Encode()), header...)
		if res.StatusCode >= 500 {
			g.t.Errorf("POST %s: %d", action, res.StatusCode)
		}
		g.inert("POST "+action, res)
	}
}

// streams reads what every stream begins with.
func (g *garden) streams() {
	g.t.Helper()
	web := httptest.NewServer(g.web)
	defer web.Close()
	topics := []string{"fleet", "jobs", "host:" + g.host}
	for _, job := range g.jobs {
		topics = append(topics, "job:"+job)
	}
	for _, on := range topics {
		s := g.tap(web, on, "Cookie", g.cookie)
		events := 1
		if on == topics[len(topics)-1] {
			events = 2 // the job, and its log
		}
		for range events {
			event, ok := s.event()
			if !ok {
				g.t.Errorf("the stream of %s ended: %q", on, event)
				break
			}
			var data []string
			for line := range strings.Lines(event) {
				field, value, _ := strings.Cut(strings.TrimSuffix(line, "\n"), ": ")
				switch {
				case strings.Contains(line, "\r"), field == "event" && strings.Contains(value, "evil"):
					g.t.Errorf("the stream of %s has a line %q", on, line)
				case field == "data":
					data = append(data, value)
				case field != "event" && field != "id":
					g.t.Errorf("the stream of %s has a field %q", on, field)
				}
			}
			text := strings.Join(data, "\n")
			g.markup("the stream of "+on, text)
			if strings.Count(text, "<hx-partial") > 2 {
				g.t.Errorf("the stream of %s: %s", on, text)
			}
		}
		s.close()
	}
}
