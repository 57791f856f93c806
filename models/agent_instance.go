package models

import (
	"context"
	"fmt"
	"slices"
	"time"

	"resticfleet/agent/protocol"
)

const (
	// keptAgents is how many former agents of a host are remembered.
	keptAgents = 20
	// clonedFor is how long a host counts as cloned after its agents were last
	// seen taking turns.
	clonedFor = 24 * time.Hour
	// staleHello is how long a hello can have been on its way: one that was
	// said before another agent took over, and comes after, is that old.
	staleHello = 2 * time.Minute
)

// Cloned reports whether two machines seem to work with this host's identity.
func (h *Host) Cloned(at time.Time) bool {
	return h.ClonedAt != nil && at.Sub(*h.ClonedAt) < clonedFor
}

// MeetAgent keeps which process says hello. One that says it after another had
// taken over lives beside that other: two machines share the host's identity,
// which cloned reports. A restart or an upgrade is a new process that was never
// seen before, and another link of the same process is no news.
//
// ErrSuperseded refuses a hello that was said before the other's and was only
// long on its way: its process has ended. Call it before OpenLink, which
// forgets the last contact.
func MeetAgent(ctx context.Context, tx IDB, host HostID, hello protocol.Hello, receivedAt time.Time) (cloned bool, err error) {
	var last struct {
		AgentInstance string
		JournalID     string
		LastSeenAt    *time.Time
	}
	err = tx.NewRaw("select agent_instance, journal_id, last_seen_at from hosts where id = ? for no key update", host).Scan(ctx, &last)
	if isNoRows(err) {
		return false, ErrSuperseded
	}
	if err != nil {
		return false, fmt.Errorf("meet agent: %w", err)
	}
	instance := clip(hello.Instance)
	if instance == "" {
		// Agents of version 1 don't tell themselves apart: another journal does.
		instance = "journal " + clip(hello.JournalID)
		if last.AgentInstance != "" && clip(hello.JournalID) == last.JournalID {
			instance = last.AgentInstance
		}
	}
	sentAt := receivedAt
	if !hello.SentAt.IsZero() {
		sentAt = hello.SentAt
	}
	if instance != last.AgentInstance && last.AgentInstance != "" {
		cloned, err = takesOver(ctx, tx, host, instance, sentAt, receivedAt)
		if err != nil {
			return false, err
		}
		_, err = tx.ExecContext(ctx, `update host_agents set replaced_at = now(), seen_at = greatest(seen_at, ?),
			heard = greatest(heard, (select heard from hosts where id = host_id)) where host_id = ? and instance = ?`,
			last.LastSeenAt, host, last.AgentInstance)
		if err != nil {
			return false, fmt.Errorf("meet agent: %w", err)
		}
	}
	_, err = tx.ExecContext(ctx, `insert into host_agents (host_id, instance, boot_id, clock_skew_ms, seen_at, heard) values (?, ?, ?, ?, now(), `+heardNow+`)
		on conflict (host_id, instance) do update set boot_id = excluded.boot_id, clock_skew_ms = excluded.clock_skew_ms,
			seen_at = now(), heard = excluded.heard, replaced_at = null`,
		host, instance, clip(hello.BootID), sentAt.Sub(receivedAt).Milliseconds())
	if err == nil {
		_, err = tx.ExecContext(ctx, `delete from host_agents where host_id = ? and instance not in
			(select instance from host_agents where host_id = ? order by seen_at desc limit ?)`, host, host, keptAgents)
	}
	if err == nil {
		_, err = tx.ExecContext(ctx, `update hosts set agent_instance = ?, agent_protocol = ?,
			cloned_at = case when ? then now() else cloned_at end where id = ?`, instance, max(1, min(hello.Protocol, 1000)), cloned, host)
	}
	if err != nil {
		return false, fmt.Errorf("meet agent: %w", err)
	}
	return cloned, nil
}

// takesOver reports whether an agent that takes over has been replaced before.
func takesOver(ctx context.Context, tx IDB, host HostID, instance string, sentAt, receivedAt time.Time) (again bool, err error) {
	var replacedAt *time.Time
	var skew int64
	err = tx.QueryRowContext(ctx, "select replaced_at, clock_skew_ms from host_agents where host_id = ? and instance = ?", host, instance).Scan(&replacedAt, &skew)
	if isNoRows(err) || (err == nil && replacedAt == nil) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("meet agent: %w", err)
	}
	sentAt = sentAt.Add(-time.Duration(skew) * time.Millisecond)
	if sentAt.Before(*replacedAt) && receivedAt.Sub(sentAt) < staleHello {
		return false, ErrSuperseded
	}
	return true, nil
}

// agent is a process that speaks or spoke for a host.
type agent struct {
	Instance string
	BootID   string
	SeenAt   time.Time
	// Silent is for how many seconds it was not heard while a server listened.
	Silent float64
}

// agentsOf are the one that speaks for a host, and the newest of those before.
func agentsOf(ctx context.Context, tx IDB, host *Host) (speaks agent, former []agent, err error) {
	err = tx.NewRaw("select instance, boot_id, seen_at, extract(epoch from "+heardNow+" - heard) as silent from host_agents where host_id = ?", host.ID).Scan(ctx, &former)
	if err != nil {
		return agent{}, nil, fmt.Errorf("agents of host: %w", err)
	}
	former = slices.DeleteFunc(former, func(a agent) bool {
		if a.Instance == host.AgentInstance {
			speaks = a
		}
		return a.Instance == host.AgentInstance
	})
	return speaks, former, nil
}

// holders are those of the agents that may have a job: the one that it was sent
// to, or, where those were several, whoever was seen since then.
func holders(agents []agent, j *Job) (may []agent) {
	for _, a := range agents {
		if a.Instance == j.ClaimInstance || (j.ClaimInstance == "" && j.SentAt != nil && !a.SeenAt.Before(*j.SentAt)) {
			may = append(may, a)
		}
	}
	return may
}

// elsewhere are those of some agents that belong to another boot than a, where
// both are known. An agent of the same boot has ended: its machine goes on, and
// it was started anew.
func (a agent) elsewhere(some []agent) (others []agent) {
	for _, other := range some {
		if a.BootID != "" && other.BootID != "" && other.BootID != a.BootID {
			others = append(others, other)
		}
	}
	return others
}

// comeBack is until when some agents may come back: so long after they were
// last heard, not counting the time in which no server listened.
func comeBack(some []agent, within time.Duration, now time.Time) time.Time {
	at := now
	for _, a := range some {
		if t := now.Add(within - time.Duration(a.Silent*float64(time.Second))); t.After(at) {
			at = t
		}
	}
	return at
}

// forgetAgents begins anew: whoever enrols now is the host's only agent.
func forgetAgents(ctx context.Context, tx IDB, host HostID) error {
	_, err := tx.ExecContext(ctx, "delete from host_agents where host_id = ?", host)
	if err == nil {
		_, err = tx.ExecContext(ctx, "update hosts set agent_instance = '', cloned_at = null where id = ?", host)
	}
	if err != nil {
		return fmt.Errorf("forget agents: %w", err)
	}
	return nil
}
