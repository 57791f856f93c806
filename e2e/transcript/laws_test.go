package transcript

import (
	"fmt"
	"strings"
	"testing"
)

// The orders that the other side relies on, whatever else is said.

// downLaws checks what came down, link by link.
func downLaws(links [][]object) error {
	ran := map[string]bool{} // by job, over all links
	for n, link := range links {
		version := -1.0
		for i, m := range link {
			typ, p := text(m, "type"), payload(m)
			if i == 0 && typ != "welcome" {
				return fmt.Errorf("link %d begins with %s: what comes before the welcome is lost", n+1, typ)
			}
			switch typ {
			case "welcome":
				if i != 0 {
					return fmt.Errorf("link %d has a second welcome", n+1)
				}
			case "command.run":
				ran[text(p, "job_id")] = true
			case "command.cancel":
				if !ran[text(p, "job_id")] {
					return fmt.Errorf("link %d cancels %s before its command came", n+1, text(p, "job_id"))
				}
			case "schedule.set":
				v, ok := p["version"].(float64)
				if ok && v < version {
					return fmt.Errorf("link %d brings schedule set %v behind %v: it would be ignored", n+1, v, version)
				}
				version = max(version, v)
			case "error":
				return fmt.Errorf("link %d: the server complains: %s", n+1, show(p))
			case "ack":
				if rejected, _ := p["rejected"].([]any); len(rejected) > 0 {
					return fmt.Errorf("link %d: the server rejects %s", n+1, show(rejected))
				}
			}
		}
	}
	return nil
}

// upLaws checks what went up, link by link: a job is accepted, started and
// finished in this order, and its first result leaves behind all it logged.
func upLaws(links [][]object) error {
	for n, link := range links {
		first := map[string]int{} // by type and job
		for i, m := range link {
			typ, id := text(m, "type"), text(payload(m), "job_id")
			if (typ == "hello") != (i == 0) {
				return fmt.Errorf("link %d: message %d is %s", n+1, i+1, typ)
			}
			if !strings.HasPrefix(typ, "job.") {
				continue
			}
			if _, again := first[typ+id]; !again {
				first[typ+id] = i
			}
			after := map[string][]string{
				"job.accepted": {"job.started", "job.log", "job.progress", "job.answer", "job.finished"},
				"job.started":  {"job.finished"},
				"job.log":      {"job.finished"},
				"job.answer":   {"job.finished"},
			}
			for _, later := range after[typ] {
				if at, ok := first[later+id]; ok && at < first[typ+id] {
					return fmt.Errorf("link %d: %s came before %s of the same job", n+1, later, typ)
				}
			}
		}
	}
	return nil
}

// links splits one direction of a transcript at its hellos.
func links(lines []line, dir string) [][]object {
	var all [][]object
	for _, l := range lines {
		if l.is(up, "hello") {
			all = append(all, nil)
		}
		if l.Dir == dir && len(all) > 0 {
			all[len(all)-1] = append(all[len(all)-1], l.Message)
		}
	}
	return all
}

func TestTranscriptsKeepTheLaws(t *testing.T) {
	t.Parallel()
	for name, lines := range transcripts(t) {
		if err := upLaws(links(lines, up)); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if err := downLaws(links(lines, down)); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}
