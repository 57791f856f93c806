package chaos

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"resticfleet/agent/failpoint"
	"resticfleet/models"
	"resticfleet/models/postgres"
)

// fleet is everything of one test: two servers on one PostgreSQL behind a
// balancer, a gated rest-server, hosts, and what is taken down of it.
type fleet struct {
	t       testing.TB
	dir     string
	pg      *postgres.Server
	db      *models.DB
	token   string
	front   *balancer
	gate    *gate
	servers []*program
	hosts   []*host
	sharing int
	plants  map[string]string // mistakes that programs make, by name
	client  *http.Client

	mu      sync.Mutex
	history History
}

// options are what a fleet is made of. The zero value of everything but hosts has a default.
type options struct {
	servers int // 2
	hosts   int
	sharing int      // hosts of one repository; 2
	args    []string // of serve
}

func newFleet(t testing.TB, o options) *fleet {
	t.Helper()
	programs(t)
	dir, err := os.MkdirTemp(suite.dir, "f-") //nolint:usetesting // PostgreSQL's account has to pass through
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(dir, 0o711); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	f := &fleet{t: t, dir: dir, plants: map[string]string{}, client: &http.Client{
		Timeout: 20 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}, // every request goes to another server
	}}
	ctx := context.WithoutCancel(t.Context())
	if f.pg, err = postgres.Start(ctx, postgres.Config{DataDir: filepath.Join(dir, "pg"), Fast: true}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(f.pg.Stop)
	if f.db, err = models.Open(f.pg.URL()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = f.db.Close() })
	if err := models.Migrate(ctx, f.db); err != nil {
		t.Fatal(err)
	}
	f.watchStates()
	if f.token, _, err = models.AddAPIToken(ctx, f.db, "chaos", models.RoleAdmin); err != nil {
		t.Fatal(err)
	}
	key, err := models.GenerateKey()
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(f.path("key"), []byte(key+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	f.gate = newGate(t, dir)
	if o.servers == 0 {
		o.servers = 2
	}
	f.sharing = max(o.sharing, 2)
	f.front = newBalancer(t, o.servers)
	for n := range o.servers {
		f.servers = append(f.servers, f.newServer(n, o.args))
	}
	t.Cleanup(f.stop)
	for n := range f.servers {
		f.startServer(n)
	}
	for n := range o.hosts {
		f.hosts = append(f.hosts, f.newHost(n))
	}
	for _, h := range f.hosts {
		h.ready()
	}
	return f
}

func (f *fleet) path(name string) string { return filepath.Join(f.dir, name) }

// failpoints is the file that tells a program where to die.
func (f *fleet) failpoints(name string) string { return f.path(name + ".failpoint") }

func (f *fleet) newProgram(name string, command func() []string) *program {
	p := &program{t: f.t, name: name, log: f.path(name + ".log"), command: command,
		env: []string{failpoint.Env + "=" + f.failpoints(name)}}
	keep(f.t, p.log)
	return p
}

func (f *fleet) newServer(n int, args []string) *program {
	name := "server" + strconv.Itoa(n)
	p := f.newProgram(name, func() []string {
		return append([]string{filepath.Join(suite.bin, "resticfleet"), "serve", "--listen", f.front.address(n), "--data-dir", f.path(name),
			"--database-url-file", f.path("database-url"), "--secret-key-file", f.path("key")}, args...)
	})
	// One order for all: which of them gets there is theirs to find out.
	p.env[0] = failpoint.Env + "=" + f.failpoints("servers")
	if err := os.WriteFile(f.path("database-url"), []byte(f.pg.URL()), 0o600); err != nil {
		f.t.Fatal(err)
	}
	return p
}

// startServer returns when requests are answered.
func (f *fleet) startServer(n int) {
	f.t.Helper()
	f.servers[n].start()
	u, err := url.Parse(f.servers[n].said("Dashboard: "))
	if err != nil {
		f.t.Fatal(err)
	}
	f.front.use(n, u.Host) // the same one after every start
}

// watchStates lets the database itself write down every change of a state.
func (f *fleet) watchStates() {
	f.t.Helper()
	_, err := f.db.ExecContext(context.Background(), `
		create table chaos_steps (n bigserial primary key, job uuid, grp uuid, kind text, was text, is_now text, late boolean);
		create function chaos_step() returns trigger language plpgsql as $$ begin
			insert into chaos_steps (job, grp, kind, was, is_now, late) values
				(new.id, new.source_group_id, new.kind, case when tg_op = 'UPDATE' then old.state else '' end, new.state, new.late);
			return null;
		end $$;
		create trigger chaos_made after insert on jobs for each row execute function chaos_step();
		create trigger chaos_moved after update of state on jobs for each row when (old.state is distinct from new.state) execute function chaos_step()`)
	if err != nil {
		f.t.Fatal(err)
	}
}

// api sends an operator's request; status 0 means that no answer came.
func (f *fleet) api(method, path string, body, out any) (status int) {
	raw, err := json.Marshal(body)
	if err != nil {
		f.t.Error(err)
		return 0
	}
	req, err := http.NewRequestWithContext(context.Background(), method, f.front.url()+path, bytes.NewReader(raw))
	if err != nil {
		f.t.Error(err)
		return 0
	}
	if body == nil {
		req.Body, req.ContentLength = http.NoBody, 0
	}
	req.Header.Set("Authorization", "Bearer "+f.token)
	req.Header.Set("Content-Type", "application/json")
	res, err := f.client.Do(req)
	if err != nil {
		return 0
	}
	defer res.Body.Close()
	if out != nil && res.StatusCode < 300 {
		if err := json.NewDecoder(res.Body).Decode(out); err != nil {
			return 0 // the server died in mid-answer
		}
	}
	return res.StatusCode
}

// must is api for when everything works.
func (f *fleet) must(method, path string, body, out any, want int) {
	f.t.Helper()
	if got := f.api(method, path, body, out); got != want {
		f.t.Fatalf("%s %s: status %d, want %d", method, path, got, want)
	}
}

// run is Run now. The answer is kept for the history.
func (f *fleet) run(h *host, group int) (job string, status int) {
	var j struct{ ID string }
	status = f.api("POST", "/api/hosts/"+h.id+"/source-groups/"+h.groups[group]+"/run", nil, &j)
	f.mu.Lock()
	defer f.mu.Unlock()
	f.history.Runs = append(f.history.Runs, Run{Status: status, Job: j.ID})
	return j.ID, status
}

func (f *fleet) cancel(job string) int { return f.api("POST", "/api/jobs/"+job+"/cancel", nil, nil) }

// row is a job as the database has it.
type row struct {
	State    string
	Accepted bool
}

func (f *fleet) row(job string) row {
	var r row
	err := f.db.QueryRowContext(context.Background(), "select state, accepted_at is not null from jobs where id = ?", job).Scan(&r.State, &r.Accepted)
	if err != nil {
		return row{} // the database is away
	}
	return r
}

func (f *fleet) killed(k Kill) {
	f.mu.Lock()
	defer f.mu.Unlock()
	k.At = time.Now()
	f.history.Kills = append(f.history.Kills, k)
}

func (f *fleet) killServer(n int) {
	f.killed(Kill{Victim: VictimServer, Name: f.servers[n].name})
	f.servers[n].kill()
}

// killPostgres kills the postmaster; it is started again at once.
func (f *fleet) killPostgres() bool {
	raw, _ := os.ReadFile(filepath.Join(f.pg.Dir(), "data", "postmaster.pid"))
	first, _, _ := strings.Cut(string(raw), "\n")
	pid, err := strconv.Atoi(strings.TrimSpace(first))
	if err != nil || pid <= 1 || syscall.Kill(pid, syscall.SIGKILL) != nil {
		return false
	}
	f.killed(Kill{Victim: VictimPostgres})
	return true
}

func (f *fleet) databaseUp() bool { return models.Ping(context.Background(), f.db) == nil }

// order tells a program, or "servers", where to end next.
func (f *fleet) order(name, what string) {
	f.t.Helper()
	file := f.failpoints(name)
	_ = os.Remove(file + ".hit") // of the last order
	if err := os.WriteFile(file+".new", []byte(what), 0o600); err != nil {
		f.t.Fatal(err)
	}
	if err := os.Rename(file+".new", file); err != nil {
		f.t.Fatal(err)
	}
}

// obeyed gives the arguments of the process that came to its failpoint.
func (f *fleet) obeyed(name string) (args string, ok bool) {
	raw, _ := os.ReadFile(f.failpoints(name) + ".hit") // not yet
	return string(raw), len(raw) > 0
}

// revive starts whatever isn't there.
func (f *fleet) revive() {
	f.t.Helper()
	eventually(f.t, "the database is up", f.databaseUp)
	for n, s := range f.servers {
		if s.ended() {
			f.startServer(n)
		}
	}
	for _, h := range f.hosts {
		if h.agent.ended() {
			h.agent.start()
		}
	}
}

// plant lets a program make a mistake from now on.
func (f *fleet) plant(p *program, mistake string) {
	f.t.Helper()
	f.plants[p.name] = mistake
	p.env = append(p.env, failpoint.PlantEnv+"="+mistake)
	p.signal(syscall.SIGTERM)
	eventually(f.t, p.name+" ends", p.ended)
}

// relink starts all agents anew, so that none waits long for its next try to
// link, and returns when each has linked.
func (f *fleet) relink() {
	f.t.Helper()
	generations := func() (sum int) {
		_ = f.db.QueryRowContext(context.Background(), "select sum(link_generation) from hosts").Scan(&sum) // 0 while the database is away
		return sum
	}
	for _, h := range f.hosts {
		h.agent.signal(syscall.SIGTERM)
	}
	for _, h := range f.hosts {
		eventually(f.t, h.name+" ends", h.agent.ended)
	}
	before := generations()
	for _, h := range f.hosts {
		h.agent.start()
	}
	eventually(f.t, "all hosts are linked", func() bool { return generations() >= before+len(f.hosts) })
}

// settled waits until no job is open and every agent knows that all its
// results are stored.
func (f *fleet) settled() {
	f.t.Helper()
	patience := patience
	if len(f.plants) > 0 {
		patience = 10 * time.Second // with a mistake it may never be
	}
	var what string
	if within(patience, func() bool { what = f.unsettled(); return what == "" }) || len(f.plants) > 0 {
		return
	}
	f.t.Errorf("not settled within %s: %s", patience, what)
}

func (f *fleet) unsettled() string {
	var open int
	err := f.db.QueryRowContext(context.Background(), "select count(*) from jobs where state in ('queued', 'sent', 'running')").Scan(&open)
	if err != nil || open > 0 {
		return fmt.Sprintf("%d jobs are open (%v)", open, err)
	}
	for _, h := range f.hosts {
		if told := h.untold(); told != "" {
			return told
		}
	}
	return ""
}

// stop ends all programs, whatever state they are in.
func (f *fleet) stop() {
	f.gate.freeAll()
	for _, h := range f.hosts {
		h.release()
	}
	for _, p := range f.programs() {
		if p.cmd != nil && !p.ended() {
			p.signal(syscall.SIGCONT)
			p.signal(syscall.SIGTERM)
			if !within(30*time.Second, p.ended) {
				f.t.Errorf("%s did not end", p.name)
				p.kill()
			}
		}
	}
	for _, h := range f.hosts {
		for _, r := range h.underWay() {
			_ = syscall.Kill(r.supervisor, syscall.SIGKILL)
			_ = syscall.Kill(r.restic, syscall.SIGKILL)
		}
	}
}

// command runs one of the programs to its end.
func (f *fleet) command(env []string, words ...string) {
	f.t.Helper()
	cmd := exec.CommandContext(f.t.Context(), words[0], words[1:]...)
	cmd.Env = append(os.Environ(), env...)
	if out, err := cmd.CombinedOutput(); err != nil {
		f.t.Fatalf("%s: %v: %s", strings.Join(words, " "), err, out)
	}
}
