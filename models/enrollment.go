package models

import (
	"context"
	"encoding/base64"
	"fmt"
	"time"
	"unicode/utf8"

	"resticfleet/agent/protocol"
	"resticfleet/models/cronspec"
)

// EnrollmentTokenLife is how long an enrolment token can be used.
const EnrollmentTokenLife = time.Hour

// NewEnrollmentToken makes a single-use token for a host. Earlier unused ones
// stay valid until they expire.
func NewEnrollmentToken(ctx context.Context, db IDB, host HostID) (token string, expiresAt time.Time, err error) {
	token, hash := NewToken("rfe_")
	err = db.QueryRowContext(ctx, `insert into enrollment_tokens (token_hash, host_id, expires_at)
		select ?, id, now() + ?::interval from hosts where id = ? and archived_at is null returning expires_at`,
		hash, interval(EnrollmentTokenLife), host).Scan(&expiresAt)
	if isNoRows(err) {
		return "", time.Time{}, NotFound("host", host.String())
	}
	if err != nil {
		return "", time.Time{}, fmt.Errorf("enrolment token: %w", err)
	}
	return token, expiresAt.UTC(), nil
}

// EnrollmentToken is one as its maker may be shown it again.
type EnrollmentToken struct {
	CreatedAt, ExpiresAt time.Time
	UsedAt               *time.Time
	Expired              bool
}

// Open reports whether an agent can still enrol with it.
func (t *EnrollmentToken) Open() bool { return t.UsedAt == nil && !t.Expired }

// FindEnrollmentToken looks a token of this host up by the token itself, which
// is nowhere in the database. ENotFound when it isn't this host's.
func FindEnrollmentToken(ctx context.Context, db IDB, host HostID, token string) (*EnrollmentToken, error) {
	t := &EnrollmentToken{}
	err := db.QueryRowContext(ctx, "select created_at, expires_at, used_at, expires_at <= now() from enrollment_tokens where token_hash = ? and host_id = ?",
		HashToken(token), host).Scan(&t.CreatedAt, &t.ExpiresAt, &t.UsedAt, &t.Expired)
	if isNoRows(err) {
		return nil, NotFound("enrolment token for the host", host.String())
	}
	if err != nil {
		return nil, fmt.Errorf("enrolment token: %w", err)
	}
	return t, nil
}

// Enroll exchanges a token for the agent's credential. It replaces an earlier
// agent's: the generation is raised, so that the old link ends. The error says
// which of unknown, used or expired it was, for both logs.
func Enroll(ctx context.Context, db *DB, req protocol.EnrollRequest) (host HostID, agentToken string, err error) {
	key, err := checkEnrollment(&req)
	if err != nil {
		return HostID{}, "", err
	}
	err = Tx(ctx, db, func(tx IDB) error {
		var used *time.Time
		var expired bool
		hash := HashToken(req.Token)
		err := tx.QueryRowContext(ctx, `select t.host_id, t.used_at, t.expires_at <= now() from enrollment_tokens t
			join hosts h on h.id = t.host_id and h.archived_at is null where t.token_hash = ? for update of t`, hash).Scan(&host, &used, &expired)
		refused := func(why string) error {
			return &Error{Code: EUnauthorized, Message: "This enrolment token " + why + ". Make a new one on the host's page and run enroll again."}
		}
		switch {
		case isNoRows(err):
			return refused("is not known")
		case err != nil:
			return fmt.Errorf("enroll: %w", err)
		case used != nil:
			return refused("was used at " + used.UTC().Format(time.RFC3339))
		case expired:
			return refused("has expired")
		}
		var agentHash []byte
		agentToken, agentHash = NewToken("rfa_")
		if _, err := tx.ExecContext(ctx, "update enrollment_tokens set used_at = now() where token_hash = ?", hash); err != nil {
			return fmt.Errorf("enroll: %w", err)
		}
		_, err = tx.ExecContext(ctx, `update hosts set agent_token_hash = ?, public_key = ?, os = ?, arch = ?, agent_version = ?,
			timezone_since = case when timezone = ? then timezone_since else now() end,
			timezone = ?, timezone_known = ?, enrolled_at = now(), link_generation = link_generation + 1,
			link_closed_at = case when link is null then null else now() end where id = ?`,
			agentHash, key, req.OS, req.Arch, req.AgentVersion, zoneOr(req.Timezone), zoneOr(req.Timezone), zoneKnown(req.Timezone), host)
		if err != nil {
			return fmt.Errorf("enroll: %w", err)
		}
		if err := keepLateness(ctx, tx, host); err != nil {
			return err
		}
		return forgetAgents(ctx, tx, host)
	})
	return host, agentToken, err
}

func checkEnrollment(req *protocol.EnrollRequest) ([]byte, error) {
	var p problems
	for field, s := range map[string]string{"hostname": req.Hostname, "os": req.OS, "arch": req.Arch, "agent_version": req.AgentVersion, "timezone": req.Timezone, "token": req.Token} {
		if len(s) > 255 || !utf8.ValidString(s) || hasNUL(s) {
			p.add(field, "must be at most 255 bytes of text")
		}
	}
	var key []byte
	if req.PublicKey != "" {
		var err error
		key, err = base64.StdEncoding.DecodeString(req.PublicKey)
		if err != nil || len(key) != 32 {
			p.add("public_key", "must be the 32 bytes of an X25519 key in base64")
		}
	}
	return key, p.err()
}

func zoneKnown(name string) bool {
	_, err := cronspec.LoadZone(name)
	return err == nil
}

func zoneOr(name string) string {
	if zoneKnown(name) {
		return name
	}
	return "UTC"
}

// AgentHost finds the host that an agent's credential belongs to. A deleted
// host's is EGone, anything else unknown is EUnauthorized.
func AgentHost(ctx context.Context, db IDB, token string) (*Host, error) {
	return AgentHostByHash(ctx, db, HashToken(token))
}

// AgentHostByHash is AgentHost for a credential that was presented before.
func AgentHostByHash(ctx context.Context, db IDB, tokenHash []byte) (*Host, error) {
	h := &Host{}
	err := db.NewSelect().Model(h).Where("agent_token_hash = ?", tokenHash).Scan(ctx)
	if isNoRows(err) {
		return nil, &Error{Code: EUnauthorized, Message: "This agent's credential is not known: it was replaced by a newer enrolment or revoked. Enrol the host again from its page."}
	}
	if err != nil {
		return nil, fmt.Errorf("find agent: %w", err)
	}
	if h.ArchivedAt != nil {
		return nil, &Error{Code: EGone, Message: "This host was deleted on the server. Stop and remove the agent, or enrol it for another host."}
	}
	return h, nil
}
