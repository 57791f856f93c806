package transcript

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"resticfleet/agent/protocol"
)

// recording is one scenario while it happens.
type recording struct {
	t      *testing.T
	host   *host
	server *server
	tap    *tap
	stop   func()
	jobs   []string // as they are sent or made
	group  string
}

// scenarios is what there is a transcript of, for every version since the one
// that brought it.
var scenarios = map[string]func(r *recording){
	"enrol": func(r *recording) { r.host.enrol(r.tap.url, r.server.token) },
	"init": func(r *recording) {
		r.enrolled()
		r.do(object{"action": "bind", "url": r.host.path("repo")})
		r.link()
		r.ended(r.sent())
		r.withGroup("source")
		r.ended(r.run()) // which knows the repository's own id
	},
	"unlock": func(r *recording) {
		r.ready("source")
		r.link()
		r.jobs = []string{text(r.do(object{"action": "unlock"}), "job")}
		r.ended(r.jobs[0])
	},
	"backup-succeeded": func(r *recording) {
		r.ready("source")
		r.link()
		r.ended(r.run())
		r.ended(r.run()) // which names the first as its parent
	},
	"backup-warning": func(r *recording) {
		r.ready("source", "/proc/self/mem")
		r.link()
		r.ended(r.run())
	},
	"backup-failed": func(r *recording) {
		r.ready("source", "gone")
		r.link()
		r.ended(r.run())
	},
	"forget": func(r *recording) {
		r.ready("source")
		r.link()
		r.ended(r.run())
		r.ended(r.run())
		r.ended(r.maintain("forget", object{"forget": []any{object{"name": "docs", "tags": []any{"docs"}, "retention": object{"keep_last": 1.0}}}}))
	},
	"prune": func(r *recording) {
		r.ready("source")
		r.link()
		r.ended(r.run())
		r.ended(r.maintain("prune", object{}))
	},
	"check": func(r *recording) {
		r.ready("source")
		r.link()
		r.ended(r.run())
		r.ended(r.maintain("check", object{"read_data_subset": "1/2"}))
	},
	"snapshots": func(r *recording) {
		r.ready("source")
		r.link()
		r.ended(r.run())
		r.ended(r.maintain("snapshots", object{}))
		r.ended(r.maintain("snapshots", object{"preview": object{"tags": []any{"docs"}, "retention": object{"keep_last": 1.0}}}))
	},
	"schedule-set-and-fire": func(r *recording) {
		r.ready("source")
		r.link()
		r.do(object{"action": "schedule", "cron": soon(), "group": r.group})
		r.tap.until("the fire", func() bool { return r.tap.said(up, "schedule.fire", "") })
		r.ended(r.sent())
		r.tap.until("a heartbeat", func() bool { return r.tap.said(up, "heartbeat", "") && r.tap.quiet() })
	},
	"cancel": func(r *recording) {
		r.ready("source")
		r.do(object{"action": "hold"})
		r.link()
		job := r.run()
		r.tap.until("progress", func() bool { return r.tap.said(up, "job.progress", job) && r.tap.quiet() })
		r.do(object{"action": "cancel", "job": job})
		r.ended(job)
	},
	"reconnect": func(r *recording) {
		r.ready("source")
		r.do(object{"action": "hold"})
		r.link()
		job := r.run()
		r.tap.until("progress", func() bool { return r.tap.said(up, "job.progress", job) && r.tap.quiet() })
		r.again()
		r.do(object{"action": "release"})
		r.ended(job)
	},
	"finished-resent": func(r *recording) {
		dropped := false
		r.tap.drop = func(link int, m object) bool {
			lost := link == 1 && text(m, "type") == "ack" && strings.HasSuffix(fmt.Sprint(acknowledged(m)), "-finished]")
			dropped = dropped || lost
			return lost
		}
		r.ready("source")
		r.link()
		job := r.run()
		r.tap.until("the result is lost", func() bool { return dropped })
		r.again()
		r.ended(job)
	},
}

// soon is an expression that is due once, in a moment: @every counts from the
// Unix epoch.
func soon() string { return fmt.Sprintf("@every %ds", time.Now().Unix()+3) }

// ready is an enrolled host with a repository and a group.
func (r *recording) ready(includes ...string) {
	r.t.Helper()
	r.enrolled()
	r.do(object{"action": "bind", "url": r.host.path("repo")})
	r.do(object{"action": "initialised"})
	r.withGroup(includes...)
}

func (r *recording) withGroup(includes ...string) {
	r.t.Helper()
	paths := []any{}
	for _, p := range includes {
		if !filepath.IsAbs(p) {
			p = r.host.path(p)
		}
		paths = append(paths, p)
	}
	r.group = text(r.do(object{"action": "group", "tag": "docs", "includes": paths, "excludes": []any{"*.tmp"}}), "group")
}

// enrolled enrols past the tap: that is a transcript of its own.
func (r *recording) enrolled() {
	r.t.Helper()
	r.host.enrol(r.tap.url, r.server.token)
	r.tap.mu.Lock()
	defer r.tap.mu.Unlock()
	r.tap.lines = nil
}

func (r *recording) do(action object) object {
	r.t.Helper()
	// Before it is done: the messages it brings about stand below it. What it
	// made is told of afterwards.
	l := line{Dir: do, Message: action}
	r.tap.write(l)
	r.host.do(action)
	made := r.server.do(action)
	r.tap.mu.Lock()
	defer r.tap.mu.Unlock()
	for key, value := range made {
		l.Message[key] = value
	}
	return made
}

func (r *recording) run() string {
	r.t.Helper()
	job := text(r.do(object{"action": "run", "group": r.group}), "job")
	r.jobs = append(r.jobs, job)
	return job
}

// maintain asks for work on the repository that belongs to no group.
func (r *recording) maintain(kind string, spec object) string {
	r.t.Helper()
	job := text(r.do(object{"action": "maintain", "kind": kind, "spec": spec}), "job")
	r.jobs = append(r.jobs, job)
	return job
}

// sent waits for the command of a job that nobody asked for here.
func (r *recording) sent() (job string) {
	r.t.Helper()
	r.tap.until("a command", func() bool {
		for _, l := range r.tap.lines {
			if l.is(down, "command.run") {
				job = text(payload(l.Message), "job_id")
			}
		}
		return job != ""
	})
	r.jobs = append(r.jobs, job)
	return job
}

func (r *recording) link() {
	r.t.Helper()
	r.stop = r.host.run()
	r.linked(1)
}

// again cuts the link and waits for the next.
func (r *recording) again() {
	r.t.Helper()
	r.tap.cut()
	r.linked(2)
}

func (r *recording) linked(n int) {
	r.t.Helper()
	r.tap.until(fmt.Sprintf("link %d is settled", n), func() bool {
		return r.tap.link == n && r.tap.said(up, "schedule.ack", "") && r.tap.quiet()
	})
}

// ended waits for a job's acknowledged result.
func (r *recording) ended(job string) {
	r.t.Helper()
	r.tap.until("job "+job+" has ended", func() bool { return r.tap.said(up, "job.finished", job) && r.tap.quiet() })
}

func TestRecord(t *testing.T) {
	t.Parallel()
	template := ""
	for _, name := range slices.Sorted(maps.Keys(scenarios)) {
		scenario := scenarios[name]
		path := filepath.Join("testdata", fmt.Sprintf("v%d", protocol.Version), name+".ndjson")
		_, err := os.Stat(path)
		switch {
		case err == nil:
			continue
		case !errors.Is(err, fs.ErrNotExist):
			t.Fatal(err)
		case !*record:
			t.Errorf("protocol version %d has no transcript of %q: record it with go test ./e2e/transcript -run TestRecord -record", protocol.Version, name)
			continue
		}
		if template == "" {
			template = emptyRepository(t)
		}
		t.Run(name, func(t *testing.T) {
			r := &recording{t: t, server: newServer(t, name)}
			if name == "init" {
				r.host = newHost(t, "")
			} else {
				r.host = newHost(t, template)
			}
			r.tap = newTap(t, r.server.url)
			r.stop = func() {}
			scenario(r)
			r.stop()
			lines := r.tap.lines
			if len(r.jobs) > 0 {
				rows := []any{}
				for _, job := range r.jobs {
					rows = append(rows, r.server.jobRow(job))
				}
				lines = append(lines, line{Dir: state, Message: object{"jobs": rows}})
			}
			if err := save(path, normalise(r.host.dir, lines)); err != nil {
				t.Fatal(err)
			}
		})
	}
}
