package handlers

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"

	"github.com/uptrace/bun"

	"resticfleet/models"
)

// statements is what was asked of the database, as text.
type statements struct {
	mu   sync.Mutex
	text []string
}

func (s *statements) BeforeQuery(ctx context.Context, e *bun.QueryEvent) context.Context {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.text = append(s.text, e.Query)
	return ctx
}

func (s *statements) AfterQuery(context.Context, *bun.QueryEvent) {}

// take returns what was asked since it was last taken.
func (s *statements) take() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	text := s.text
	s.text = nil
	return text
}

// partialHeader makes a request one of HTMX.
var partialHeader = []string{"HX-Request", "true", "HX-Request-Type", "partial"}

// A page asks the same few statements of the database however much there is,
// besides the one that finds who asks.
func TestPagesAskForFewStatements(t *testing.T) {
	t.Parallel()
	b := setup(t)
	cookie := []string{"Cookie", "session=" + b.session(models.RoleAdmin)}
	var host *models.Host
	var job *models.Job
	for i := range 5 {
		host = b.furnishedHost(fmt.Sprintf("web-%d", i))
		for _, name := range []string{"www", "etc", "mail"} {
			g := b.group(host, includes(name))
			b.exec("update source_groups set last_state = 'failed', last_error = 'It failed.' where id = ?", g.ID)
			b.schedule(host, g)
			var err error
			if job, err = models.RunGroup(b.ctx, b.db, host.ID, g.ID, models.System); err != nil {
				t.Fatal(err)
			}
		}
	}
	at := "/hosts/" + host.ID.String()
	if _, err := models.FindMaintenance(b.ctx, b.db, host.ID); err != nil {
		t.Fatal(err)
	}
	other := "/hosts/" + b.furnishedHost("known").ID.String()
	b.exec("update repositories set restic_id = repeat('ab', 32) where id = (select repository_id from repository_urls where url like '%/srv/known')")
	b.exec("update maintenance_states set failures = 5, last_code = 'damaged', last_state = 'failed', last_error = 'It failed.', stale_at = now()")
	b.exec("insert into repository_damage select r.id, n || '/30', now(), ?, now(), 1 from repositories r, generate_series(1, 30) n", job.ID)
	for _, kind := range models.MaintenanceKinds {
		if _, err := models.RunMaintenance(b.ctx, b.db, host.ID, kind, models.System); err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range []struct {
		path string
		most int
	}{
		{"/", 3}, {"/?q=web", 3}, {"/?show=hand", 3}, {"/?show=offline", 3}, {"/?cursor=web-2", 2},
		{at, 9}, {other, 8}, {at + "/enrol", 7}, {"/settings", 2}, {at + "/jobs", 6}, {at + "/maintenance", 9}, {at + "/snapshots", 4}, {at + "/snapshots?tag=www&held=yes&when=720h", 4},
		{at + "/snapshots?newest=1700000000000000-" + strings.Repeat("a", 64), 4},
		{"/jobs", 4}, {"/jobs?state=queued&kind=backup&host=" + host.ID.String(), 6},
		{"/jobs/" + job.ID.String(), 6}, // one of them tells what those that wait wait for
	} {
		for _, header := range [][]string{cookie, append(cookie, partialHeader...)} {
			b.asked.take()
			res := b.do("GET", c.path, nil, header...)
			if got := body(t, res); res.StatusCode != http.StatusOK {
				t.Fatalf("%s: %d %s", c.path, res.StatusCode, got)
			}
			if asked := b.asked.take(); len(asked)-1 > c.most {
				t.Errorf("%s %v: %d statements besides who asks, want at most %d:\n%q", c.path, header[2:], len(asked)-1, c.most, asked)
			}
		}
	}
}

// furnishedHost is an enrolled host with a repository.
func (b *bundle) furnishedHost(name string) *models.Host {
	b.t.Helper()
	host, err := models.AddHost(b.ctx, b.db, models.HostFields{Name: name, Labels: []string{"label-of-" + name}})
	if err != nil {
		b.t.Fatal(err)
	}
	b.exec("update hosts set enrolled_at = now(), last_seen_at = now(), link = 'websocket', os = 'linux' where id = ?", host.ID)
	if _, err := b.h.Jobs.BindRepository(b.ctx, host.ID, models.RepositoryFields{URL: "/srv/" + name, Password: "correct horse"}); err != nil {
		b.t.Fatal(err)
	}
	b.exec("delete from jobs where host_id = ?", host.ID) // the init that this asks for
	return host
}

func includes(name string) models.GroupFields {
	return models.GroupFields{Name: name, Includes: []string{"/srv/" + name}}
}
