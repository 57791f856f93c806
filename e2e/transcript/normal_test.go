package transcript

import (
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
)

// names gives what differs from run to run its placeholders, numbered as they
// appear.
type names struct {
	dir    string
	text   map[string]string
	number map[float64]string
	count  map[string]int
}

// fields says by which name a field's text goes.
var fields = map[string]string{
	"job_id": "JOB", "job": "JOB", "schedule_id": "SCHEDULE", "schedule": "SCHEDULE",
	"group": "GROUP", "source_groups": "GROUP", "host_id": "HOST", "session": "SESSION",
	"journal_id": "JOURNAL", "instance": "INSTANCE", "boot_id": "BOOT", "snapshot_id": "SNAPSHOT", "parent": "SNAPSHOT", "repository_id": "REPOSITORY",
	"digest": "DIGEST", "schedule_digest": "DIGEST", "token": "TOKEN", "agent_token": "CREDENTIAL",
	"public_key": "KEY", "hostname": "HOSTNAME", "cron": "SOON", "url": "", "sealed": "",
}

var (
	uuids    = regexp.MustCompile(`[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}`)
	unixTail = regexp.MustCompile(`-([0-9]+)$`)
	times    = []string{"at", "server_time", "sent_at", "accepted_at", "started_at", "scheduled_at", "time"}
)

// normalise is what a transcript keeps of what was said.
func normalise(dir string, lines []line) []line {
	n := &names{dir: dir, text: map[string]string{}, number: map[float64]string{}, count: map[string]int{}}
	for _, l := range lines {
		n.learn("digest", l.Digest)
		n.find("", "", l.Message)
		if l.is(up, "schedule.fire") {
			if unix := unixTail.FindStringSubmatch(text(l.Message, "id")); unix != nil {
				n.name(unix[1], "UNIX")
			}
		}
	}
	out := make([]line, len(lines))
	for i, l := range lines {
		out[i] = line{Dir: l.Dir, Digest: n.replace(l.Digest), Message: n.rewrite("", l.Message).(object)}
	}
	return out
}

func (n *names) name(value, kind string) {
	if _, known := n.text[value]; value == "" || known {
		return
	}
	n.count[kind]++
	n.text[value] = fmt.Sprintf("$%s%d", kind, n.count[kind])
}

func (n *names) learn(key, value string) {
	if kind := fields[key]; kind != "" {
		n.name(value, kind)
	}
}

// find names what is in a value; in is the field above the object it is in.
func (n *names) find(in, key string, v any) {
	switch v := v.(type) {
	case object:
		for _, field := range slices.Sorted(maps.Keys(v)) {
			n.find(key, field, v[field])
		}
	case []any:
		for _, item := range v {
			n.find(in, key, item)
		}
	case string:
		switch {
		case key == "id" && in == "schedules":
			n.name(v, "SCHEDULE")
		case key == "hostname" && (in == "items" || in == "snapshot"):
			// A snapshot's, which is the restic host of every command.
		case key == "id" && in == "repository":
			n.name(v, "REPOSITORY")
		default:
			n.learn(key, v)
		}
	case float64:
		if _, known := n.number[v]; (key == "version" || key == "applied_schedule_version") && v > 0 && !known {
			n.count["VERSION"]++
			n.number[v] = fmt.Sprintf("$VERSION%d", n.count["VERSION"])
		}
	}
}

func (n *names) rewrite(key string, v any) any {
	switch v := v.(type) {
	case object:
		out := object{}
		for field, value := range v {
			out[field] = n.rewrite(field, value)
		}
		return out
	case []any:
		out := make([]any, len(v))
		for i := range v {
			out[i] = n.rewrite(key, v[i])
		}
		return out
	case string:
		switch {
		case key == "sealed":
			return "$SEALED"
		case slices.Contains(times, key):
			return "$TIME"
		}
		return n.replace(v)
	case float64:
		if name, ok := n.number[v]; ok && (key == "version" || key == "applied_schedule_version") {
			return name
		}
	}
	return v
}

// replace puts placeholders into a text: longer values before shorter ones,
// restic's ids also in the short forms that it logs.
func (n *names) replace(s string) string {
	s = strings.ReplaceAll(s, n.dir, "$DIR")
	values := slices.SortedFunc(maps.Keys(n.text), func(a, b string) int { return len(b) - len(a) })
	for _, value := range values {
		s = strings.ReplaceAll(s, value, n.text[value])
	}
	for _, value := range values {
		if len(value) == 64 {
			s = strings.ReplaceAll(s, value[:10], n.text[value])
			s = strings.ReplaceAll(s, value[:8], n.text[value])
		}
	}
	return uuids.ReplaceAllString(s, "$$ID")
}
