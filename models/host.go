package models

import (
	"context"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/uptrace/bun"

	"resticfleet/models/cronspec"
)

// OnlineFor is how long a host counts as online after its last contact.
const OnlineFor = 90 * time.Second

// Host is a machine with an agent.
type Host struct {
	bun.BaseModel `bun:"table:hosts"`

	ID   HostID `bun:",pk"`
	No   int32  `bun:",nullzero"`
	Name string
	// ResticHost is the name restic records (--host): unique in the fleet for
	// ever, unchanged by renames.
	ResticHost string
	Labels     []string `bun:"type:jsonb"`

	OS            string `bun:"os"`
	Arch          string
	Timezone      string
	TimezoneKnown bool
	AgentVersion  string
	ResticVersion string

	AgentTokenHash []byte `bun:",nullzero"`
	PublicKey      []byte `bun:",nullzero"`
	EnrolledAt     *time.Time
	JournalID      string
	// AgentInstance is the process that speaks for the host, and AgentProtocol
	// the version it speaks.
	AgentInstance string
	AgentProtocol int
	// ClonedAt is when agents of this identity last took turns; see Cloned.
	ClonedAt *time.Time

	Link           *string
	LinkGeneration int64
	// LinkSession is the link's own name, and LinkReason why it is not a
	// WebSocket although it might be.
	LinkSession  string
	LinkReason   string
	LinkSince    *time.Time
	LinkClosedAt *time.Time
	LastSeenAt   *time.Time
	ClockSkewMS  int64 `bun:"clock_skew_ms"`

	ScheduleVersion        int64
	AppliedScheduleVersion int64
	AppliedScheduleDigest  string

	CreatedAt  time.Time `bun:",nullzero"`
	ArchivedAt *time.Time
}

// Online means last contact by any transport within OnlineFor and not since
// closed; enrolment isn't contact.
func (h *Host) Online(at time.Time) bool {
	return h.LastSeenAt != nil && at.Sub(*h.LastSeenAt) < OnlineFor &&
		(h.LinkClosedAt == nil || h.LastSeenAt.After(*h.LinkClosedAt))
}

// Arrived reports whether the agent of the newest enrolment has called: before
// that the credential waits for a program to be started.
func (h *Host) Arrived() bool {
	return h.EnrolledAt != nil && h.LastSeenAt != nil && !h.LastSeenAt.Before(*h.EnrolledAt)
}

// Location is the host's zone, UTC where it is not known.
func (h *Host) Location() *time.Location {
	return zoneNamed(h.Timezone)
}

func zoneNamed(name string) *time.Location {
	zone, err := cronspec.LoadZone(name)
	if err != nil {
		return time.UTC
	}
	return zone
}

// HostFields is what a person says of a host.
type HostFields struct {
	Name       string
	Labels     []string
	ResticHost string // at creation only; "" takes it from Name
}

var notResticHost = regexp.MustCompile(`[^A-Za-z0-9._-]+`)

func (f *HostFields) normalize(creating bool) error {
	var p problems
	f.Name = strings.TrimSpace(f.Name)
	checkName(&p, "name", f.Name)
	if len(f.Labels) > 50 {
		p.add("labels", "are more than 50: remove some")
	}
	labels := []string{}
	for _, l := range f.Labels {
		l = strings.TrimSpace(l)
		before := len(p)
		checkName(&p, "labels", l)
		if len(p) == before && !slices.Contains(labels, l) {
			labels = append(labels, l)
		}
	}
	f.Labels = labels
	if creating {
		if f.ResticHost == "" {
			f.ResticHost = strings.Trim(notResticHost.ReplaceAllString(f.Name, "-"), "-")
			if f.ResticHost == "" {
				f.ResticHost = "host"
			}
		}
		if !utf8.ValidString(f.ResticHost) || len(f.ResticHost) > 255 || strings.ContainsFunc(f.ResticHost, unicode.IsControl) || strings.TrimSpace(f.ResticHost) != f.ResticHost {
			p.add("restic_host", "must be up to 255 bytes of text without control characters or blanks at its ends")
		}
	}
	return p.err()
}

// AddHost makes a host with its seeded maintenance row. Taken names are
// EInvalid on the field.
func AddHost(ctx context.Context, db *DB, f HostFields) (*Host, error) {
	if err := f.normalize(true); err != nil {
		return nil, err
	}
	h := &Host{ID: NewID[HostID](), Name: f.Name, ResticHost: f.ResticHost, Labels: f.Labels, Timezone: "UTC", AgentProtocol: 1}
	err := Tx(ctx, db, func(tx IDB) error {
		if _, err := tx.NewInsert().Model(h).Returning("no, created_at").Exec(ctx); err != nil {
			return hostNameError(err, f)
		}
		if _, err := tx.NewInsert().Model(defaultMaintenance(h.ID)).Exec(ctx); err != nil {
			return fmt.Errorf("seed maintenance: %w", err)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return h, nil
}

func hostNameError(err error, f HostFields) error {
	switch {
	case violated(err, pgUniqueViolation, "hosts_name"):
		return Invalid("name", "there is a host %q already: choose another name", f.Name)
	case violated(err, pgUniqueViolation, "hosts_restic_host"):
		return Invalid("restic_host", "%q belongs to another host, perhaps a deleted one: give a restic_host that no snapshot of the fleet carries yet", f.ResticHost)
	}
	return fmt.Errorf("save host: %w", err)
}

// UpdateHost changes a host's name and labels.
func UpdateHost(ctx context.Context, db IDB, id HostID, f HostFields) (*Host, error) {
	if err := f.normalize(false); err != nil {
		return nil, err
	}
	h := &Host{ID: id, Name: f.Name, Labels: f.Labels}
	res, err := db.NewUpdate().Model(h).Column("name", "labels").Where("id = ? and archived_at is null", id).Returning("*").Exec(ctx)
	if err != nil {
		return nil, hostNameError(err, f)
	}
	if n, _ := res.RowsAffected(); n == 0 {
		return nil, NotFound("host", id.String())
	}
	return h, nil
}

// FindHost reads a host that is not deleted.
func FindHost(ctx context.Context, db IDB, id HostID) (*Host, error) {
	h, err := FindAnyHost(ctx, db, id)
	if err == nil && h.ArchivedAt != nil {
		return nil, NotFound("host", id.String())
	}
	return h, err
}

// FindAnyHost reads a host, deleted or not: what is left of one is the history
// of its jobs.
func FindAnyHost(ctx context.Context, db IDB, id HostID) (*Host, error) {
	h := &Host{}
	err := db.NewSelect().Model(h).Where("id = ?", id).Scan(ctx)
	if isNoRows(err) {
		return nil, NotFound("host", id.String())
	}
	if err != nil {
		return nil, fmt.Errorf("find host: %w", err)
	}
	return h, nil
}

// FindHostNamed reads the host of that name in any case, or else the one of
// that name that was deleted last.
func FindHostNamed(ctx context.Context, db IDB, name string) (*Host, error) {
	h := &Host{}
	err := db.NewSelect().Model(h).Where("lower(name) = lower(?)", name).OrderExpr("archived_at desc nulls first").Limit(1).Scan(ctx)
	if isNoRows(err) {
		return nil, NotFound("host", name)
	}
	if err != nil {
		return nil, fmt.Errorf("find host: %w", err)
	}
	return h, nil
}

// HostNames are names of hosts that have a text in them, those that begin with
// it first, up to a limit.
func HostNames(ctx context.Context, db IDB, part string, limit int) ([]string, error) {
	var names []string
	part = likeEscaper.Replace(part)
	err := db.NewSelect().Model((*Host)(nil)).Column("name").Where("archived_at is null and name ilike ?", "%"+part+"%").
		OrderExpr("name ilike ? desc, lower(name)", part+"%").Limit(int64(limit)).Scan(ctx, &names)
	if err != nil {
		return nil, fmt.Errorf("host names: %w", err)
	}
	return names, nil
}

// ListHosts returns a page of hosts, newest first, and the cursor of the next
// page ("" at the end). Match, if any, is a part of the name or of a label.
func ListHosts(ctx context.Context, db IDB, match string, page Page) ([]*Host, string, error) {
	var hosts []*Host
	q := db.NewSelect().Model(&hosts).Where("archived_at is null")
	if match != "" {
		like := "%" + likeEscaper.Replace(match) + "%"
		q.Where("(name ilike ? or exists (select from jsonb_array_elements_text(labels) l where l ilike ?))", like, like)
	}
	if err := page.apply(q); err != nil {
		return nil, "", err
	}
	if err := q.Scan(ctx); err != nil {
		return nil, "", fmt.Errorf("list hosts: %w", err)
	}
	hosts, next := cut(hosts, page, func(h *Host) string { return h.ID.String() })
	return hosts, next, nil
}

// DeleteHost archives a host: its name becomes free, its credential dies, its
// waiting jobs are cancelled, a running one may end; snapshots stay. It
// returns the ids of the jobs it cancelled.
func DeleteHost(ctx context.Context, db *DB, id HostID) ([]JobID, error) {
	var cancelled []JobID
	err := Tx(ctx, db, func(tx IDB) error {
		res, err := tx.ExecContext(ctx, `update hosts set archived_at = now(), link_generation = link_generation + 1, link_closed_at = now()
			where id = ? and archived_at is null`, id)
		if err != nil {
			return fmt.Errorf("delete host: %w", err)
		}
		if n, _ := res.RowsAffected(); n == 0 {
			return NotFound("host", id.String())
		}
		if _, err := tx.ExecContext(ctx, "delete from enrollment_tokens where host_id = ?", id); err != nil {
			return fmt.Errorf("delete host: %w", err)
		}
		cancelled, err = cancelQueued(ctx, tx, "host_id = ?", id)
		return err
	})
	return cancelled, err
}

var likeEscaper = strings.NewReplacer(`\`, `\\`, `%`, `\%`, `_`, `\_`)
