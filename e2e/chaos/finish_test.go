package chaos

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"resticfleet/e2e/stage"
)

// finish restores quiet, waits until everything is settled, stops the fleet,
// and gives its history.
func (f *fleet) finish() History {
	f.t.Helper()
	f.revive()
	f.settled()
	f.stop()
	f.mu.Lock()
	defer f.mu.Unlock()
	h := &f.history
	f.readDatabase(h)
	f.gate.mu.Lock()
	h.Unlocks, h.Forgets = f.gate.unlocks, f.gate.forgets
	f.gate.mu.Unlock()
	for _, host := range f.hosts {
		h.Starts = append(h.Starts, host.starts()...)
		h.Left = append(h.Left, host.left()...)
		if host.n%f.sharing == 0 {
			f.readRepository(h, host.repository)
		}
	}
	// PostgreSQL and rest-server end with the test.
	for _, p := range stage.Processes() {
		if strings.Contains(p.Args, f.dir) && !strings.Contains(p.Args, f.pg.Dir()) && p.PID != f.gate.server.pid() {
			h.Left = append(h.Left, fmt.Sprintf("process %d goes on: %s", p.PID, p.Args))
		}
	}
	return *h
}

// check finishes and names every violation.
func (f *fleet) check() History {
	f.t.Helper()
	h := f.finish()
	for _, v := range Check(h) {
		f.t.Errorf("%s", v)
	}
	return h
}

func (f *fleet) readDatabase(h *History) {
	f.t.Helper()
	each := func(query string, scan func(scan func(...any) error) error) {
		f.t.Helper()
		rows, err := f.db.QueryContext(context.Background(), query)
		if err != nil {
			f.t.Fatal(err)
		}
		defer rows.Close()
		for rows.Next() {
			if err := scan(rows.Scan); err != nil {
				f.t.Fatal(err)
			}
		}
		if err := rows.Err(); err != nil {
			f.t.Fatal(err)
		}
	}
	each(`select job::text, coalesce(grp::text, ''), kind, was, is_now, late from chaos_steps order by n`, func(scan func(...any) error) error {
		var s Step
		err := scan(&s.Job, &s.Group, &s.Kind, &s.From, &s.To, &s.Late)
		h.Steps = append(h.Steps, s)
		return err
	})
	each(`select j.id::text, h.name, kind, state, coalesce(source_group_id::text, ''), coalesce(repository_id, 0), coalesce(scheduled_id::text, ''), scheduled_at,
			snapshot_id, exit_code, error_code, error, cancel_requested_at is not null
		from jobs j join hosts h on h.id = j.host_id order by j.id`, func(scan func(...any) error) error {
		var j Job
		var at *time.Time
		err := scan(&j.ID, &j.Host, &j.Kind, &j.State, &j.Group, &j.Repository, &j.ScheduledID, &at, &j.SnapshotID, &j.ExitCode, &j.ErrorCode, &j.Error, &j.CancelAsked)
		if at != nil {
			j.ScheduledAt = *at
		}
		h.Jobs = append(h.Jobs, j)
		return err
	})
	each(`select job_id::text, seq, text from job_log_lines order by job_id, seq`, func(scan func(...any) error) error {
		var l Line
		err := scan(&l.Job, &l.Seq, &l.Text)
		h.Lines = append(h.Lines, l)
		return err
	})
}

func (f *fleet) readRepository(h *History, name string) {
	f.t.Helper()
	dir := filepath.Join(f.gate.dir, name)
	out, err := restic(context.Background(), dir, "snapshots", "--json", "--no-lock")
	var all []struct {
		ID   string   `json:"id"`
		Tags []string `json:"tags"`
	}
	if err == nil {
		err = json.Unmarshal(out, &all)
	}
	if err != nil {
		h.Damage = append(h.Damage, err.Error())
	}
	for _, s := range all {
		for _, tag := range s.Tags {
			if job, ok := strings.CutPrefix(tag, "job:"); ok {
				h.Snapshots = append(h.Snapshots, Snapshot{Repository: name, ID: s.ID, Job: job})
			}
		}
	}
	if _, err := restic(context.Background(), dir, "check", "--read-data", "--no-lock"); err != nil {
		h.Damage = append(h.Damage, err.Error())
	}
}

// What may stand in a job's folder and in a step's; see agent/rundir.go. A kill
// in the middle of a write leaves .tmp-*, which goes with the folder.
var (
	jobFiles     = []string{"command.json", "includes.raw", "log.ndjson"}
	journalFiles = []string{"journal_id", "journal_place"}
	stepFiles    = []string{"step.json", "lock", "started", "pid.json", "interrupt.json", "stdout", "stderr", "exit.json", "supervise.log"}
)

// left lists files of the agent that should not be there.
func (h *host) left() []string {
	var out []string
	stray := func(path string, known []string) {
		name := filepath.Base(path)
		if !slices.Contains(known, name) && !strings.HasPrefix(name, ".tmp-") {
			out = append(out, "nobody needs "+path)
		}
	}
	runs, _ := os.ReadDir(h.path("state/run")) // none is fine
	for _, run := range runs {
		dir := h.path("state/run/" + run.Name())
		if _, err := os.Stat(h.path("state/journal/" + run.Name() + ".json")); err != nil {
			out = append(out, "no journal entry for "+dir)
		}
		files, _ := os.ReadDir(dir)
		for _, file := range files {
			path := filepath.Join(dir, file.Name())
			if !file.IsDir() {
				stray(path, jobFiles)
				continue
			}
			steps, _ := os.ReadDir(path)
			for _, s := range steps {
				stray(filepath.Join(path, s.Name()), stepFiles)
			}
		}
	}
	entries, _ := os.ReadDir(h.path("state/journal"))
	for _, e := range entries {
		if !slices.Contains(journalFiles, e.Name()) && filepath.Ext(e.Name()) != ".json" {
			out = append(out, "nobody needs "+h.path("state/journal/"+e.Name()))
		}
	}
	return out
}
