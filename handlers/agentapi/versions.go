package agentapi

import (
	"context"
	"slices"
	"strings"
	"sync"
	"time"

	"resticfleet/jobs"
	"resticfleet/models"
)

const (
	// watchEvery is how often the database is asked what changed, and trust
	// for how long its answer is believed: what another server wrote counts
	// here within a second, whether hints arrive or not.
	watchEvery = 400 * time.Millisecond
	trust      = time.Second
	// contactEvery is how often contacts answered from memory are written.
	contactEvery = 20 * time.Second
)

// versions remembers the schedule version of the agents that ask for it, so
// that a 304 costs no SQL. It forgets a host the moment this server changes
// it, and within a second when another does.
type versions struct {
	mu      sync.Mutex
	byToken map[string]known
	tokens  map[models.HostID]string
	// changes counts what happened to each host, so that an answer that was on
	// its way from the database when the host changed isn't remembered.
	changes map[models.HostID]uint64
	// touched is when agents were answered from here, until that is written.
	touched map[models.HostID]time.Time
	// cleared counts how often everything was forgotten.
	cleared uint64
	// believed is until when what is here can be believed.
	believed time.Time
}

// mark is a moment in a host's life as far as this server knows it.
type mark struct{ changes, cleared uint64 }

type known struct {
	host    models.HostID
	version int64
}

func newVersions() *versions {
	return &versions{
		byToken: map[string]known{}, tokens: map[models.HostID]string{},
		changes: map[models.HostID]uint64{}, touched: map[models.HostID]time.Time{},
	}
}

// get returns the version of the agent with this credential, and counts the
// contact.
func (v *versions) get(tokenHash []byte) (int64, bool) {
	v.mu.Lock()
	defer v.mu.Unlock()
	k, ok := v.byToken[string(tokenHash)]
	now := time.Now()
	if !ok || now.After(v.believed) {
		return 0, false
	}
	v.touched[k.host] = now
	return k.version, true
}

// before marks the moment before the database is asked about a host.
func (v *versions) before(host models.HostID) mark {
	v.mu.Lock()
	defer v.mu.Unlock()
	return mark{v.changes[host], v.cleared}
}

// keep remembers what the database said after the mark, unless the host has
// changed since.
func (v *versions) keep(tokenHash []byte, host models.HostID, version int64, since mark) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if since != (mark{v.changes[host], v.cleared}) {
		return
	}
	delete(v.byToken, v.tokens[host])
	v.tokens[host] = string(tokenHash)
	v.byToken[string(tokenHash)] = known{host, version}
}

func (v *versions) forget(hosts ...models.HostID) {
	v.mu.Lock()
	defer v.mu.Unlock()
	for _, h := range hosts {
		v.changes[h]++
		delete(v.byToken, v.tokens[h])
		delete(v.tokens, h)
	}
}

// clear forgets everything: what the database is asked next is compared with
// nothing from before. One that was away may come back as an older copy.
func (v *versions) clear() {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.cleared++
	clear(v.byToken)
	clear(v.tokens)
}

// heard forgets the hosts that a hint is about, before the hint's publisher
// goes on.
func (v *versions) heard(topics []jobs.Topic) {
	for _, t := range topics {
		if id, ok := strings.CutPrefix(string(t), jobs.DispatchPrefix); ok {
			if host, err := models.ParseID[models.HostID](id); err == nil {
				v.forget(host)
			}
		}
	}
}

// watch keeps what is remembered believable until ctx ends, and has the links
// of hosts that changed look: whose credential is dead ends, on every server.
func (s *Server) watch(ctx context.Context) {
	tick := time.NewTicker(watchEvery)
	defer tick.Stop()
	var w *models.AgentWatch // nil: what was before is not to be trusted
	written := time.Now()
	for {
		asked := time.Now()
		looking, cancel := context.WithTimeout(ctx, trust)
		fresh := w == nil
		if fresh {
			w = &models.AgentWatch{}
		}
		changed, err := w.Look(looking, s.DB)
		cancel()
		switch {
		case err != nil:
			w = nil
		case fresh:
			s.versions.clear()
			s.wake(s.linked()...)
			s.versions.believe(asked.Add(trust))
		default:
			s.versions.forget(changed...)
			s.wake(changed...)
			s.versions.believe(asked.Add(trust))
		}
		if time.Since(written) >= contactEvery {
			written = time.Now()
			if err := models.TouchHosts(ctx, s.DB, s.versions.contacts()); err != nil && ctx.Err() == nil {
				s.Log.WarnContext(ctx, "contacts not kept", "err", err)
			}
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// wake has the links that these hosts have here look.
func (s *Server) wake(hosts ...models.HostID) {
	if len(hosts) == 0 {
		return
	}
	here := s.linked()
	for _, h := range hosts {
		if slices.Contains(here, h) {
			s.Hub.Publish(jobs.DispatchTopic(h))
		}
	}
}

func (v *versions) believe(until time.Time) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.believed = until
}

// contacts are those that are not written yet; they are given once.
func (v *versions) contacts() map[models.HostID]time.Time {
	v.mu.Lock()
	defer v.mu.Unlock()
	at := v.touched
	v.touched = map[models.HostID]time.Time{}
	return at
}
