package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/crypto/bcrypt"

	"resticfleet/models"
)

type demoCommand struct {
	Listen string `help:"Address of the dashboard; loopback only." default:"127.0.0.1:0"`
	Dir    string `help:"Where the demo keeps its files; by default a temporary folder that is removed at the end." type:"path"`
}

// demo is the whole product on one machine: a server with its own PostgreSQL,
// a rest-server, and an agent as a process of its own.
type demo struct {
	dir    string
	server *server
	stops  []func()
}

// demoPatience is how long the first backup may take.
const demoPatience = 2 * time.Minute

// Run starts everything, makes a first backup, and waits for Ctrl-C.
func (c demoCommand) Run(ctx context.Context) (err error) {
	host, _, err := net.SplitHostPort(c.Listen)
	if ip := net.ParseIP(host); err != nil || ip == nil || !ip.IsLoopback() {
		return errors.New("--listen: the demo serves loopback only; use an address like 127.0.0.1:8080")
	}
	d := &demo{dir: c.Dir}
	defer func() { err = errors.Join(err, d.stop()) }()
	if err := d.makeDir(); err != nil {
		return err
	}
	password, err := d.startServer(ctx, c.Listen)
	if err != nil {
		return err
	}
	fmt.Println("Dashboard:", d.server.url)
	fmt.Println("Login: admin /", password)
	snapshot, err := d.firstBackup(ctx)
	if err != nil {
		return err
	}
	fmt.Println("First backup: snapshot", snapshot[:8])
	fmt.Println("Ctrl-C stops it all.")
	select {
	case <-ctx.Done():
		return nil
	case err := <-d.server.failed:
		return err
	}
}

func (d *demo) makeDir() error {
	if d.dir != "" {
		return os.MkdirAll(d.dir, 0o711)
	}
	dir, err := os.MkdirTemp("", "resticfleet-demo-")
	if err != nil {
		return err
	}
	d.dir = dir
	d.stops = append(d.stops, func() { _ = os.RemoveAll(dir) })
	return os.Chmod(dir, 0o711) // PostgreSQL's account passes through
}

// stop ends everything in reverse order. What still runs on the demo's host is
// cancelled first: restic would otherwise go on, as it should elsewhere.
func (d *demo) stop() error {
	if d.server != nil {
		d.cancelOpenJobs()
	}
	for i := len(d.stops) - 1; i >= 0; i-- {
		d.stops[i]()
	}
	return nil
}

func (d *demo) cancelOpenJobs() {
	ctx, cancel := context.WithTimeout(context.Background(), 15*time.Second)
	defer cancel()
	hosts, _, err := models.ListHosts(ctx, d.server.db, "", models.Page{Limit: models.MaxLimit})
	if err != nil {
		return
	}
	for _, h := range hosts {
		open, err := models.OpenJobs(ctx, d.server.db, h.ID)
		if err != nil {
			return
		}
		for _, j := range open {
			_, _ = d.server.jobs.Cancel(ctx, j.ID)
			_, _ = d.ended(ctx, j.ID)
		}
	}
}

func (d *demo) startServer(ctx context.Context, listen string) (password string, err error) {
	logFile, err := os.Create(filepath.Join(d.dir, "server.log"))
	if err != nil {
		return "", err
	}
	d.stops = append(d.stops, func() { _ = logFile.Close() })
	data := filepath.Join(d.dir, "server")
	if err := os.Mkdir(data, 0o711); err != nil && !os.IsExist(err) {
		return "", err
	}
	s, err := startServer(ctx, serveCommand{databaseFlags: databaseFlags{DataDir: data}, Listen: listen}, slog.New(slog.NewTextHandler(logFile, nil)))
	if err != nil {
		return "", err
	}
	d.server = s
	d.stops = append(d.stops, s.stop)
	password = strings.ToLower(rand.Text()[:16])
	_, err = models.AddUser(ctx, s.db, "admin", password, models.RoleAdmin)
	return password, err
}

// firstBackup does what a person would do by hand, through the same calls.
func (d *demo) firstBackup(ctx context.Context) (snapshot string, err error) {
	repository, err := d.startRestServer(ctx)
	if err != nil {
		return "", err
	}
	source, err := d.writeSamples()
	if err != nil {
		return "", err
	}
	host, err := models.AddHost(ctx, d.server.db, models.HostFields{Name: "demo-host", Labels: []string{"demo"}})
	if err != nil {
		return "", err
	}
	if err := d.startAgent(ctx, host.ID); err != nil {
		return "", err
	}
	if _, err := d.server.jobs.BindRepository(ctx, host.ID, repository); err != nil {
		return "", err
	}
	group, err := models.AddGroup(ctx, d.server.db, host.ID, models.GroupFields{
		Name: "documents", Includes: []string{source}, Excludes: []string{"*.tmp"},
		Retention: models.Retention{KeepDaily: 7, KeepWeekly: 4, KeepMonthly: 12},
	})
	if err != nil {
		return "", err
	}
	if _, err := models.AddSchedule(ctx, d.server.db, host.ID, models.ScheduleFields{Cron: "0 2 * * *", Enabled: true, GroupIDs: []string{group.ID.String()}}); err != nil {
		return "", err
	}
	d.server.jobs.HostChanged(host.ID)
	job, err := d.server.jobs.RunGroup(ctx, host.ID, group.ID, models.System)
	if err != nil {
		return "", err
	}
	wait, cancel := context.WithTimeout(ctx, demoPatience)
	defer cancel()
	if job, err = d.ended(wait, job.ID); err != nil {
		return "", fmt.Errorf("the first backup did not end: %w; see %s", err, d.dir)
	}
	if job.SnapshotID == "" {
		return "", fmt.Errorf("the first backup is %s: %s", job.State, job.Error)
	}
	return job.SnapshotID, nil
}

// ended waits for a job's end.
func (d *demo) ended(ctx context.Context, id models.JobID) (*models.Job, error) {
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		job, err := models.FindJob(ctx, d.server.db, id)
		if err != nil || job.State.Ended() {
			return job, err
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-tick.C:
		}
	}
}

// startRestServer serves a repository on loopback behind a random password.
func (d *demo) startRestServer(ctx context.Context) (models.RepositoryFields, error) {
	program, err := sibling("rest-server")
	if err != nil {
		return models.RepositoryFields{}, err
	}
	address, err := freeAddress()
	if err != nil {
		return models.RepositoryFields{}, err
	}
	user, password := "demo", rand.Text()
	hash, err := bcrypt.GenerateFromPassword([]byte(password), bcrypt.MinCost)
	if err != nil {
		return models.RepositoryFields{}, err
	}
	data := filepath.Join(d.dir, "repositories")
	if err := os.MkdirAll(data, 0o700); err != nil {
		return models.RepositoryFields{}, err
	}
	if err := os.WriteFile(filepath.Join(data, ".htpasswd"), []byte(user+":"+string(hash)+"\n"), 0o600); err != nil {
		return models.RepositoryFields{}, err
	}
	cmd := exec.Command(program, "--path", data, "--listen", address)
	if err := d.start(cmd, "rest-server.log"); err != nil {
		return models.RepositoryFields{}, err
	}
	if err := answers(ctx, "http://"+address+"/"); err != nil {
		return models.RepositoryFields{}, fmt.Errorf("rest-server does not answer: %w", err)
	}
	return models.RepositoryFields{
		URL: "rest:http://" + address + "/demo-host", Password: models.Secret(rand.Text()),
		Env: map[string]models.Secret{"RESTIC_REST_USERNAME": models.Secret(user), "RESTIC_REST_PASSWORD": models.Secret(password)},
	}, nil
}

func (d *demo) start(cmd *exec.Cmd, logName string) error {
	logFile, err := os.Create(filepath.Join(d.dir, logName))
	if err != nil {
		return err
	}
	d.stops = append(d.stops, func() { _ = logFile.Close() })
	cmd.Stdout, cmd.Stderr = logFile, logFile
	started, err := startChild(cmd)
	if err != nil {
		return err
	}
	d.stops = append(d.stops, started.stop)
	return nil
}

// freeAddress is a loopback port that was free a moment ago.
func freeAddress() (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	defer func() { _ = l.Close() }()
	return l.Addr().String(), nil
}

// answers waits for any HTTP answer.
func answers(ctx context.Context, url string) error {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	for {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
		if err != nil {
			return err
		}
		res, err := http.DefaultClient.Do(req)
		if err == nil {
			_, _ = io.Copy(io.Discard, res.Body)
			return res.Body.Close()
		}
		select {
		case <-ctx.Done():
			return err
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// startAgent enrols the host by a real token and runs its agent.
func (d *demo) startAgent(ctx context.Context, host models.HostID) error {
	program, err := sibling("resticfleet-agent")
	if err != nil {
		return err
	}
	restic, err := sibling("restic")
	if err != nil {
		return err
	}
	token, _, err := models.NewEnrollmentToken(ctx, d.server.db, host)
	if err != nil {
		return err
	}
	state := filepath.Join(d.dir, "agent")
	enroll := exec.CommandContext(ctx, program, "enroll", "--server", d.server.url, "--state-dir", state)
	enroll.Env = append(os.Environ(), "RESTICFLEET_TOKEN="+token)
	if out, err := enroll.CombinedOutput(); err != nil {
		return fmt.Errorf("enrolling the demo's host: %w: %s", err, strings.TrimSpace(string(out)))
	}
	return d.start(exec.Command(program, "run", "--state-dir", state, "--restic", restic), "agent.log")
}

// writeSamples makes some files to back up.
func (d *demo) writeSamples() (string, error) {
	dir := filepath.Join(d.dir, "documents")
	if err := os.MkdirAll(filepath.Join(dir, "letters"), 0o755); err != nil {
		return "", err
	}
	noise := make([]byte, 256<<10)
	_, _ = rand.Read(noise)
	files := map[string][]byte{
		"readme.txt": []byte("These files are backed up by the demo.\n"),
		"photo.raw":  noise, "letters/draft.tmp": []byte("excluded\n"),
	}
	for i := range 40 {
		files[fmt.Sprintf("letters/letter-%02d.txt", i)] = []byte(strings.Repeat(fmt.Sprintf("Letter %d.\n", i), 200))
	}
	for name, content := range files {
		if err := os.WriteFile(filepath.Join(dir, name), content, 0o644); err != nil {
			return "", err
		}
	}
	return dir, nil
}
