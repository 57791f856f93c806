package transcript

import (
	"context"
	"encoding/json"
	"log/slog"
	"net/http/httptest"
	"os"
	"strings"
	"testing"
	"time"

	"resticfleet/agent/protocol"
	"resticfleet/handlers"
	"resticfleet/handlers/agentapi"
	"resticfleet/handlers/live"
	"resticfleet/jobs"
	"resticfleet/models"
	"resticfleet/models/modeltest"
	"resticfleet/static"
)

// server is today's server with one host, and the person at its dashboard.
type server struct {
	t    *testing.T
	db   *models.DB
	jobs *jobs.Service
	url  string
	host models.HostID
	// token enrols the host.
	token string
}

func newServer(t *testing.T, name string) *server {
	t.Helper()
	s := &server{t: t, db: modeltest.DB(t)}
	logFile, err := os.Create(t.TempDir() + "/server.log")
	if err != nil {
		t.Fatal(err)
	}
	log := slog.New(slog.NewTextHandler(logFile, nil))
	t.Cleanup(func() {
		_ = logFile.Close()
		if said, err := os.ReadFile(logFile.Name()); err == nil && t.Failed() {
			t.Logf("the server's log:\n%s", said)
		}
	})
	assets, err := static.New()
	if err != nil {
		t.Fatal(err)
	}
	hub := live.NewHub()
	s.jobs = jobs.New(jobs.Config{DB: s.db, Sealer: modeltest.Sealer(t), Hints: hub, Log: log, PingInterval: pingInterval(name)})
	agents := agentapi.New(agentapi.Config{DB: s.db, Jobs: s.jobs, Hub: hub, Log: log})
	front := httptest.NewServer(handlers.New(handlers.Config{DB: s.db, Jobs: s.jobs, Hub: hub, Agents: agents, Assets: assets, Log: log}))
	ctx, stop := context.WithCancel(context.WithoutCancel(t.Context()))
	looked := make(chan struct{})
	go func() { defer close(looked); agents.Run(ctx) }()
	t.Cleanup(func() {
		stop()
		<-looked
		agents.Close()
		front.Close()
	})
	s.url = front.URL

	h, err := models.AddHost(t.Context(), s.db, models.HostFields{Name: "laptop"})
	if err != nil {
		t.Fatal(err)
	}
	s.host = h.ID
	if s.token, _, err = models.NewEnrollmentToken(t.Context(), s.db, h.ID); err != nil {
		t.Fatal(err)
	}
	return s
}

// pingInterval makes the scenarios that have a heartbeat in them short.
func pingInterval(name string) time.Duration {
	if strings.HasSuffix(name, "schedule-set-and-fire") {
		return 2 * time.Second
	}
	return 15 * time.Second
}

// do is the person's half of a "do" line. It returns the line with the ids of
// what was made.
func (s *server) do(action object) object {
	s.t.Helper()
	ctx := s.t.Context()
	field := func(key string) string { return text(action, key) }
	made := object{}
	for key, value := range action {
		made[key] = value
	}
	var err error
	switch field("action") {
	case "bind":
		_, err = s.jobs.BindRepository(ctx, s.host, models.RepositoryFields{URL: field("url"), Password: password})
	case "initialised":
		s.initialised()
	case "group":
		var g *models.Group
		g, err = models.AddGroup(ctx, s.db, s.host, models.GroupFields{
			Name: field("tag"), Tag: field("tag"), Includes: list(action["includes"]), Excludes: list(action["excludes"]),
			Retention: models.Retention{KeepLast: 3, KeepDaily: 7},
		})
		if err == nil {
			made["group"] = g.ID.String()
		}
	case "schedule":
		var sched *models.Schedule
		sched, err = models.AddSchedule(ctx, s.db, s.host, models.ScheduleFields{Cron: field("cron"), Enabled: true, GroupIDs: []string{field("group")}})
		if err == nil {
			made["schedule"] = sched.ID.String()
			s.jobs.HostChanged(s.host)
		}
	case "run":
		var id models.GroupID
		if id, err = models.ParseID[models.GroupID](field("group")); err == nil {
			var j *models.Job
			if j, err = s.jobs.RunGroup(ctx, s.host, id, models.System); err == nil {
				made["job"] = j.ID.String()
			}
		}
	case "unlock":
		var j *models.Job
		if j, err = s.jobs.RunOnHost(ctx, s.host, models.KindUnlock, models.System); err == nil {
			made["job"] = j.ID.String()
		}
	case "maintain":
		made["job"] = s.maintain(action)
	case "cancel":
		var id models.JobID
		if id, err = models.ParseID[models.JobID](field("job")); err == nil {
			_, err = s.jobs.Cancel(ctx, id)
		}
	}
	if err != nil {
		s.t.Fatalf("%v: %v", action, err)
	}
	return made
}

// maintain makes a job of a kind that has no group of its own, with what it is to
// do as it stands in the line.
func (s *server) maintain(action object) (job string) {
	s.t.Helper()
	ctx := s.t.Context()
	repo, err := models.FindRepository(ctx, s.db, s.host)
	if err != nil {
		s.t.Fatal(err)
	}
	j := &models.Job{
		ID: models.NewID[models.JobID](), HostID: s.host, Kind: models.JobKind(text(action, "kind")), State: models.JobQueued,
		ActorKind: models.System.Kind, ActorName: models.System.Name, RepositoryID: &repo.RepositoryID, RepositoryURL: repo.URL,
	}
	spec, err := json.Marshal(action["spec"])
	if err == nil {
		err = json.Unmarshal(spec, &j.Spec)
	}
	if err != nil {
		s.t.Fatal(err)
	}
	// The server asks for the list by itself, too: one look waits at a time.
	if _, err := s.db.ExecContext(ctx, "update jobs set state = 'cancelled', finished_at = now() where host_id = ? and kind = 'snapshots' and state = 'queued'", j.HostID); err != nil {
		s.t.Fatal(err)
	}
	if _, err := s.db.NewInsert().Model(j).ExcludeColumn("stats", "unreadable").Returning("").Exec(ctx); err != nil {
		s.t.Fatal(err)
	}
	s.jobs.HostChanged(s.host)
	return j.ID.String()
}

func list(v any) []string {
	items, _ := v.([]any)
	all := make([]string, 0, len(items))
	for _, item := range items {
		s, _ := item.(string)
		all = append(all, s)
	}
	return all
}

// initialised lets the host's init have happened before the transcript begins.
func (s *server) initialised() {
	s.t.Helper()
	ctx := s.t.Context()
	h, err := models.FindHost(ctx, s.db, s.host)
	if err != nil {
		s.t.Fatal(err)
	}
	link, first, err := s.jobs.Hello(ctx, h, protocol.LinkWebSocket, protocol.Hello{Protocol: 1, JournalID: "before"})
	if err != nil {
		s.t.Fatal(err)
	}
	for _, e := range first {
		if e.Type != protocol.TypeRun {
			continue
		}
		run, err := protocol.Decode[protocol.Run](e)
		if err != nil {
			s.t.Fatal(err)
		}
		verdict, err := s.jobs.Receive(ctx, link, protocol.Seal("end", protocol.TypeFinished, protocol.Finished{JobID: run.JobID, Outcome: protocol.OutcomeSucceeded, At: time.Now()}))
		if err != nil || verdict != (jobs.Verdict{}) {
			s.t.Fatalf("init: %+v, %v", verdict, err)
		}
		return
	}
	s.t.Fatal("a bound host's hello brought no init")
}

// jobRow is the database's half of a "state" line: a job by its id, as far as
// it is the same in every run.
func (s *server) jobRow(id string) object {
	s.t.Helper()
	ctx := s.t.Context()
	jobID, err := models.ParseID[models.JobID](id)
	if err != nil {
		s.t.Fatal(err)
	}
	j, err := models.FindJob(ctx, s.db, jobID)
	if err != nil {
		s.t.Fatal(err)
	}
	lines, err := models.ListLog(ctx, s.db, jobID, 0, 1000)
	if err != nil {
		s.t.Fatal(err)
	}
	row := object{
		"job_id": id, "kind": string(j.Kind), "state": string(j.State), "error_code": j.ErrorCode,
		"attempt": float64(j.Attempt), "log_lines": float64(len(lines)), "unreadable": float64(len(j.Unreadable)),
		"accepted": j.AcceptedAt != nil, "started": j.StartedAt != nil, "scheduled": j.ScheduledID != nil,
		"progress": j.Progress != nil, "late": j.Late,
	}
	if j.SnapshotID != "" {
		row["snapshot_id"] = j.SnapshotID
	}
	if j.ExitCode != nil {
		row["exit_code"] = float64(*j.ExitCode)
	}
	return row
}
