package models

import (
	"context"
	"fmt"
	"maps"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/uptrace/bun"

	"resticfleet/agent/protocol"
)

// HostRepository is a host's repository: where it is and, sealed, what opens
// it. It may be bound for many hosts; RepositoryID tells which are the same.
type HostRepository struct {
	bun.BaseModel `bun:"table:host_repositories,alias:hr"`

	HostID         HostID `bun:",pk"`
	URL            string `bun:"url"`
	URLKey         string `bun:"url_key"`
	PasswordSealed []byte
	EnvSealed      map[string][]byte `bun:"type:jsonb"`
	BoundAt        time.Time         `bun:",nullzero"`

	// The second credentials, for forget and prune; see HasMaintenance.
	MaintenanceURL            string            `bun:"maintenance_url,nullzero"`
	MaintenancePasswordSealed []byte            `bun:",nullzero"`
	MaintenanceEnvSealed      map[string][]byte `bun:"type:jsonb,nullzero"`
	MaintenanceBoundAt        *time.Time

	// RepositoryID numbers the repository, and with it its gate, in the fleet.
	RepositoryID int32 `bun:",scanonly"`
	// ResticID is the repository's own id, "" until a job has learnt it.
	ResticID string `bun:",scanonly"`
	// OwnerHostID prunes and checks it, nil until the first that binds it does.
	OwnerHostID *HostID `bun:",scanonly"`
}

// EnvNames are the names of the backend environment, sorted.
func (r *HostRepository) EnvNames() []string {
	names := slices.Sorted(maps.Keys(r.EnvSealed))
	if names == nil {
		names = []string{}
	}
	return names
}

// RepositoryFields is what a person says of a repository.
type RepositoryFields struct {
	URL      string
	Password Secret
	Env      map[string]Secret
	// Keep lets a form leave secrets as they are: an empty password or value
	// keeps what is stored under that name.
	Keep bool
	// DropMaintenance says in a form that the second credentials may go where
	// this is another repository. Who doesn't Keep, says so by that.
	DropMaintenance bool
}

// schemes are restic's backends; anything else with a colon early in it is
// refused rather than taken for a path.
var schemeLike = regexp.MustCompile(`^[A-Za-z][A-Za-z0-9+.-]*:`)

func (f *RepositoryFields) validate() error {
	var p problems
	f.URL = strings.TrimSpace(f.URL)
	scheme := checkRepositoryURL(&p, f.URL)
	switch pw := string(f.Password); {
	case pw == "":
		p.add("password", "is missing: give the repository's password")
	case strings.TrimSpace(pw) != pw || strings.ContainsAny(pw, "\n\r\x00"):
		p.add("password", "must be one line without blanks at its ends: restic trims them")
	case len(pw) > 1000 || !utf8.ValidString(pw):
		p.add("password", "must be at most 1000 bytes of text")
	}
	if scheme != "" {
		for _, name := range slices.Sorted(maps.Keys(f.Env)) {
			value := string(f.Env[name])
			switch {
			case !protocol.BackendEnvAllowed(scheme, name):
				p.add("env", "%s is not a variable of this backend: allowed are %s", CleanText(name, 60), allowedEnv(scheme))
			case value == "" || len(value) > 10_000 || hasNUL(value) || !utf8.ValidString(value):
				p.add("env", "%s must have a value of at most 10000 bytes of text", name)
			}
		}
	}
	return p.err()
}

// RepositoryScheme is the backend that restic would use for a URL; a path is
// "local".
func RepositoryScheme(url string) string { return protocol.URLScheme(url) }

// RepositoryEnv lists, sorted, what a repository of this scheme may have in
// its environment.
func RepositoryEnv(scheme string) []string { return protocol.BackendEnv(scheme) }

func allowedEnv(scheme string) string {
	names := protocol.BackendEnv(scheme)
	if len(names) == 0 {
		return "none"
	}
	return strings.Join(names, ", ")
}

// credentialEnv names the variables that credentials belong into, where they
// are so few that a sentence can.
func credentialEnv(scheme string) string {
	if names := protocol.BackendEnv(scheme); len(names) < 5 {
		return ", as " + strings.Join(names, ", ")
	}
	return ""
}

// checkRepositoryURL returns the scheme, or "" with a problem added.
func checkRepositoryURL(p *problems, raw string) string {
	const field = "url"
	switch {
	case raw == "":
		p.add(field, "is missing: give a path like /srv/backup or a URL like rest:https://host/path")
		return ""
	case len(raw) > 2000 || !utf8.ValidString(raw) || strings.ContainsFunc(raw, func(r rune) bool { return r < ' ' || r == 0x7f }):
		p.add(field, "must be one line of at most 2000 bytes without control characters")
		return ""
	}
	scheme := protocol.URLScheme(raw)
	switch scheme {
	case protocol.SchemeRclone:
		p.add(field, "rclone runs a program on the host: it works only where the agent's own policy allows it, and this server can't know that yet; use another scheme")
		return ""
	case protocol.SchemeLocal:
		if rest, ok := strings.CutPrefix(raw, "local:"); ok {
			raw = rest
		}
		if !strings.HasPrefix(raw, "/") {
			if schemeLike.MatchString(raw) {
				p.add(field, "has an unknown scheme: use a path or one of rest, s3, b2, azure, gs, swift, sftp")
			} else {
				p.add(field, "must be an absolute path or begin with one of rest, s3, b2, azure, gs, swift, sftp")
			}
			return ""
		}
		return scheme
	}
	rest := raw[strings.Index(raw, ":")+1:]
	if rest == "" {
		p.add(field, "ends after its scheme: give the rest")
		return ""
	}
	if scheme == protocol.SchemeREST {
		u, err := url.Parse(rest)
		if err != nil || (u.Scheme != "http" && u.Scheme != "https") || u.Host == "" {
			p.add(field, "must look like rest:https://host:8000/path")
			return ""
		}
	}
	if address := strings.TrimPrefix(rest, "//"); scheme == protocol.SchemeSFTP && (strings.HasPrefix(address, "-") || strings.Contains(address, "@-")) {
		p.add(field, "must not name a user or host that begins with a dash: ssh would take it for an option")
		return ""
	}
	if hasCredentials(scheme, rest) {
		if scheme == protocol.SchemeSFTP {
			p.add(field, "must not hold a password, and env has none for sftp: give the agent's user on the host an ssh key without one")
		} else {
			p.add(field, "must not hold a user or password: those go into the credentials (env)%s", credentialEnv(scheme))
		}
		return ""
	}
	return scheme
}

// hasCredentials looks for user:password@ in every form a URL takes. sftp's
// user is an address, not a secret; its password can't be given at all.
func hasCredentials(scheme, rest string) bool {
	authority := rest
	if i := strings.Index(authority, "//"); i >= 0 {
		authority = authority[i+2:]
	}
	authority, _, _ = strings.Cut(authority, "/")
	at := strings.LastIndex(authority, "@")
	if at < 0 {
		return false
	}
	if scheme == protocol.SchemeSFTP {
		return strings.Contains(authority[:at], ":")
	}
	return true
}

// BindRepository seals and stores a host's credentials. The same URL, or one
// whose own id is known to be the same, shares one gate.
func BindRepository(ctx context.Context, db *DB, seal *Sealer, host HostID, f RepositoryFields) (*HostRepository, error) {
	if f.Keep {
		if err := f.fillKept(ctx, db, host, func(r *HostRepository) (protocol.Secrets, error) { return r.Secrets(seal) }); err != nil {
			return nil, err
		}
	}
	if err := f.validate(); err != nil {
		return nil, err
	}
	r := &HostRepository{HostID: host, URL: f.URL}
	err := Tx(ctx, db, func(tx IDB) error {
		key, err := seal.current(ctx, tx)
		if err != nil {
			return err
		}
		if err := r.seal(key, f.secrets()); err != nil {
			return err
		}
		if _, err := lockHost(ctx, tx, host); err != nil {
			return err
		}
		was, err := FindRepository(ctx, tx, host)
		if err != nil && CodeOf(err) != ENotFound {
			return err
		}
		if r.URLKey, err = placeOf(ctx, tx, host, r.URL); err != nil {
			return err
		}
		if err := knowURL(ctx, tx, r.URLKey); err != nil {
			return err
		}
		_, err = tx.NewInsert().Model(r).Column("host_id", "url", "url_key", "password_sealed", "env_sealed").On("conflict (host_id) do update").
			Set("url = excluded.url, url_key = excluded.url_key").
			Set("password_sealed = excluded.password_sealed, env_sealed = excluded.env_sealed, bound_at = now()").
			Returning("bound_at").Exec(ctx)
		if err != nil {
			return fmt.Errorf("bind repository: %w", err)
		}
		// What became of maintenance was about the data of the repository before.
		other := was != nil && was.URLKey != r.URLKey
		_, err = tx.ExecContext(ctx, `update maintenance_states set failures = 0, failed_at = null, stale_at = null,
			last_job_id = case when ?0 then null else last_job_id end, last_state = case when ?0 then '' else last_state end,
			last_code = case when ?0 then '' else last_code end, last_error = case when ?0 then '' else last_error end,
			good_at = case when ?0 then null else good_at end where host_id = ?1`, other, host)
		if err != nil {
			return fmt.Errorf("bind repository: %w", err)
		}
		if err := dropMaintenance(ctx, tx, was, f); err != nil {
			return err
		}
		if err := redirectWaiting(ctx, tx, r); err != nil {
			return err
		}
		_, err = ownRepositories(ctx, tx, r.URLKey)
		return err
	})
	if err != nil {
		return nil, err
	}
	return FindRepository(ctx, db, host)
}

// redirectWaiting lets the host's waiting jobs queue where its repository is
// now. A system init was for the URL before: the new one gets its own.
func redirectWaiting(ctx context.Context, tx IDB, r *HostRepository) error {
	_, err := tx.ExecContext(ctx, `update jobs set state = 'cancelled', finished_at = now(), error_code = ?,
			error = 'Cancelled: the host has another repository now.'
		where host_id = ? and state = 'queued' and kind = 'init' and actor_kind = 'system' and repository_url <> ?`, protocol.ErrCancelled, r.HostID, r.URL)
	if err == nil {
		// Maintenance was asked for the repository before, by what was known of it.
		_, err = tx.ExecContext(ctx, `update jobs set state = 'cancelled', finished_at = now(), error_code = ?,
				error = 'Cancelled: the host has another repository now.'
			where host_id = ? and state = 'queued' and kind in ('forget', 'prune', 'check')
				and repository_id <> (select repository_id from repository_urls where url = ?)`, protocol.ErrCancelled, r.HostID, r.URLKey)
	}
	if err == nil {
		_, err = tx.ExecContext(ctx, `update jobs set repository_id = (select repository_id from repository_urls where url = ?),
				repository_url = case when repository_url = '' then '' else ? end
			where host_id = ? and state = 'queued'`, r.URLKey, r.URL, r.HostID)
	}
	if err != nil {
		return fmt.Errorf("bind repository: %w", err)
	}
	return nil
}

// fillKept fills in what the form left empty from what is stored, which is for
// the caller to open.
func (f *RepositoryFields) fillKept(ctx context.Context, db *DB, host HostID, open func(*HostRepository) (protocol.Secrets, error)) error {
	stored, err := FindRepository(ctx, db, host)
	if CodeOf(err) == ENotFound {
		return nil
	}
	if err != nil {
		return err
	}
	kept, err := open(stored)
	if err != nil {
		return err
	}
	if f.Password == "" {
		f.Password = Secret(kept.Password)
	}
	for name, value := range f.Env {
		if value == "" {
			f.Env[name] = Secret(kept.Env[name])
		}
	}
	return nil
}

func (f *RepositoryFields) secrets() protocol.Secrets {
	s := protocol.Secrets{Password: string(f.Password), Env: map[string]string{}}
	for name, value := range f.Env {
		s.Env[name] = string(value)
	}
	return s
}

// hostPlace is where a host's secrets are sealed into: each at a name below it.
func hostPlace(host HostID) string { return "host/" + host.String() }

// lockHost takes a live host's row for the transaction: two writers of one
// host's set go one after the other.
func lockHost(ctx context.Context, tx IDB, id HostID) (*Host, error) {
	h := &Host{}
	err := tx.NewSelect().Model(h).Where("id = ? and archived_at is null", id).For("no key update").Scan(ctx)
	if isNoRows(err) {
		return nil, NotFound("host", id.String())
	}
	if err != nil {
		return nil, fmt.Errorf("lock host: %w", err)
	}
	return h, nil
}

// urlKey makes equal addresses equal: no slash at the end, no "local:".
func urlKey(raw string) string {
	raw = strings.TrimPrefix(raw, "local:")
	if trimmed := strings.TrimRight(raw, "/"); trimmed != "" {
		return trimmed
	}
	return raw
}

// ownKey is the address of a host that finds another repository at an URL than
// others do. No URL has a line break in it.
func ownKey(urlKey string, host HostID) string { return urlKey + "\n" + host.String() }

// leadsApart tells of an address that means another place on each host: a path, or
// a server on the host itself. Any other leads all to the same one.
func leadsApart(urlKey string) bool {
	return RepositoryScheme(urlKey) == "local" || atLoopback.MatchString(urlKey)
}

var atLoopback = regexp.MustCompile(`^[a-z0-9]+:([a-z]+:)?(//)?([^@/]*@)?(localhost|127(\.\d+){3}|\[::1\])([:/]|$)`)

// placeOf is the address that an URL is for a host: its own one from the day on
// that it had one, whatever was bound in between, else the one of all.
func placeOf(ctx context.Context, tx IDB, host HostID, rawURL string) (string, error) {
	key := urlKey(rawURL)
	own := ownKey(key, host)
	var has bool
	if err := tx.QueryRowContext(ctx, "select exists (select from repository_urls where url = ?)", own).Scan(&has); err != nil {
		return "", fmt.Errorf("place of URL: %w", err)
	}
	if has {
		return own, nil
	}
	return key, nil
}

// knowURL gives an address that is new to the fleet a repository.
func knowURL(ctx context.Context, tx IDB, key string) error {
	_, err := tx.ExecContext(ctx, `with r as (
			insert into repositories (restic_id) select null where not exists (select from repository_urls where url = ?) returning id)
		insert into repository_urls (url, repository_id) select ?, id from r on conflict do nothing`, key, key)
	if err != nil {
		return fmt.Errorf("repository of URL: %w", err)
	}
	return nil
}

// FindRepository reads a host's binding; ENotFound when there is none.
func FindRepository(ctx context.Context, db IDB, host HostID) (*HostRepository, error) {
	r := &HostRepository{}
	if err := repositoryOf(db, host).Scan(ctx, r); err != nil {
		return nil, repositoryError(err)
	}
	return r, nil
}

func repositoryOf(db IDB, host HostID) *bun.SelectQuery {
	return db.NewSelect().TableExpr("host_repositories as hr").ColumnExpr("hr.*, r.id as repository_id, coalesce(r.restic_id, '') as restic_id, r.owner_host_id").
		Join("join repository_urls u on u.url = hr.url_key join repositories r on r.id = u.repository_id").Where("hr.host_id = ?", host)
}

func repositoryError(err error) error {
	if isNoRows(err) {
		return &Error{Code: ENotFound, Message: "This host has no repository yet. Set one up: URL, password and what its backend needs."}
	}
	return fmt.Errorf("find repository: %w", err)
}

// neededRepository is FindRepository for what can't be without one: EConflict
// then.
func neededRepository(ctx context.Context, tx IDB, host HostID) (*HostRepository, error) {
	repo, err := FindRepository(ctx, tx, host)
	if CodeOf(err) == ENotFound {
		return nil, Conflict("This host has no repository yet. Set one up first.")
	}
	return repo, err
}

// UnbindRepository forgets a host's credentials, and with them what became of its
// maintenance, which was about the data there; the repository itself and its
// snapshots stay.
func UnbindRepository(ctx context.Context, db IDB, host HostID) error {
	var n int
	err := db.NewRaw(`with gone as (delete from host_repositories where host_id = ? returning host_id),
		anew as (update maintenance_states s set failures = 0, failed_at = null, stale_at = null, last_job_id = null, last_state = '', last_code = '',
			last_error = '', last_ended_at = null, good_at = null from gone where s.host_id = gone.host_id)
		select count(*) from gone`, host).Scan(ctx, &n)
	if err != nil {
		return fmt.Errorf("unbind repository: %w", err)
	}
	if n == 0 {
		return &Error{Code: ENotFound, Message: "This host has no repository to forget."}
	}
	return nil
}

// Secrets opens what a command needs. An error means a wrong key or a damaged
// row; it names the place, never the content.
func (r *HostRepository) Secrets(seal *Sealer) (protocol.Secrets, error) {
	return seal.openSecrets(hostPlace(r.HostID), r.PasswordSealed, r.EnvSealed)
}

// resticID is a repository's id or a snapshot's, whole.
var resticID = regexp.MustCompile(`^[0-9a-f]{64}$`)

// learnRepository keeps a repository's own id. Where that id is known already,
// the two were one all along, reached by two URLs: from now on they share the
// older one's gate, and the owner that was there first is both's, unless a person
// chose. Where the job's URL was known to lead to another one, it does so no
// more: somebody made the repository anew, or it is on the host itself, and the
// URL leads other hosts elsewhere. What removes says nothing of the everyday URL:
// it may have gone another way.
func learnRepository(ctx context.Context, tx IDB, job *Job, id string) (c OwnerChange, err error) {
	if job.Kind.removes() || job.RepositoryID == nil || !resticID.MatchString(id) {
		return c, nil
	}
	repo, err := repositoryNamed(ctx, tx, *job.RepositoryID, id)
	if err == nil && repo != *job.RepositoryID {
		c, err = moveURL(ctx, tx, job, repo)
	}
	if err != nil {
		return c, fmt.Errorf("learn repository: %w", err)
	}
	return c, nil
}

// repositoryNamed is the repository with this id of its own: one that is known by
// it, the one that was seen where that had none yet, or a new one.
func repositoryNamed(ctx context.Context, tx IDB, seen int32, id string) (repo int32, err error) {
	err = tx.QueryRowContext(ctx, "select id from repositories where restic_id = ?", id).Scan(&repo)
	if !isNoRows(err) {
		return repo, err
	}
	err = tx.QueryRowContext(ctx, "update repositories set restic_id = ? where id = ? and restic_id is null returning id", id, seen).Scan(&repo)
	if isNoRows(err) {
		err = tx.QueryRowContext(ctx, "insert into repositories (restic_id) values (?) on conflict (restic_id) do update set restic_id = excluded.restic_id returning id", id).Scan(&repo)
	}
	return repo, err
}

// moveURL lets the URL of a job lead to another repository, for all that are
// bound to it: it was made anew there. For its host alone where others are, the
// URL may lead each elsewhere, and the repository that it led to is known to them
// by an id of its own.
func moveURL(ctx context.Context, tx IDB, job *Job, to int32) (c OwnerChange, err error) {
	from := *job.RepositoryID
	key, err := placeOf(ctx, tx, job.HostID, job.RepositoryURL)
	if err != nil {
		return c, err
	}
	// Claims of all hosts at that place wait until this is decided.
	var others bool
	err = tx.QueryRowContext(ctx, `select r.restic_id is not null and exists (select from host_repositories hr join hosts h on h.id = hr.host_id and h.archived_at is null
			where hr.url_key = u.url and hr.host_id <> ?)
		from repository_urls u join repositories r on r.id = u.repository_id where u.url = ? and r.id = ? for no key update of u`, job.HostID, key, from).Scan(&others)
	if isNoRows(err) {
		return c, nil // it leads elsewhere since
	}
	if err != nil {
		return c, err
	}
	others = others && leadsApart(key)
	shared := key
	if others {
		key = ownKey(shared, job.HostID)
		_, err = tx.ExecContext(ctx, "insert into repository_urls (url, repository_id) values (?, ?)", key, to)
		if err == nil {
			_, err = tx.ExecContext(ctx, "update host_repositories set url_key = ? where host_id = ? and url_key = ?", key, job.HostID, shared)
		}
	} else {
		_, err = tx.ExecContext(ctx, `insert into repository_damage select ?0, d.subset, d.found_at, d.job_id, d.seen_at, d.errors
			from repository_damage d join repositories r on r.id = d.repository_id where r.id = ?1 and r.restic_id is null on conflict do nothing`, to, from)
		if err == nil {
			_, err = tx.ExecContext(ctx, "update repository_urls set repository_id = ? where url = ?", to, key)
		}
	}
	if err != nil {
		return c, err
	}
	// What waits goes through the new gate. What is under way can't take it any
	// more, perhaps beside others that are: it counts there without.
	_, err = tx.ExecContext(ctx, `update jobs set repository_id = ?0, gate = null where repository_id = ?1 and state in ('queued', 'sent', 'running', 'lost')
		and (host_id in (select host_id from host_repositories where url_key = ?2) or not exists (select from repository_urls where repository_id = ?1))`, to, from, key)
	if err != nil {
		return c, err
	}
	if err := oneOwner(ctx, tx, key, from, to); err != nil {
		return c, err
	}
	if c, err = ownRepositories(ctx, tx, key); err == nil && others {
		var left OwnerChange
		left, err = ownRepositories(ctx, tx, shared)
		c.Ended = append(c.Ended, left.Ended...)
	}
	if err == nil {
		c.Hosts, err = hostsOf(ctx, tx, []int32{from, to})
	}
	return c, err
}
