package api

import (
	"context"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"resticfleet/models"
)

type host struct {
	ID                     string   `json:"id" format:"uuid"`
	Name                   string   `json:"name"`
	ResticHost             string   `json:"restic_host" doc:"The name that restic records; unique in the fleet, unchanged by renames."`
	OS                     string   `json:"os"`
	Arch                   string   `json:"arch"`
	Timezone               string   `json:"timezone"`
	Link                   *string  `json:"link" doc:"How the agent reaches the server: websocket or polling. Null until there is a link."`
	Online                 bool     `json:"online"`
	LastSeenAt             *string  `json:"last_seen_at" format:"date-time"`
	AgentVersion           string   `json:"agent_version"`
	ResticVersion          string   `json:"restic_version"`
	ScheduleVersion        int64    `json:"schedule_version"`
	AppliedScheduleVersion int64    `json:"applied_schedule_version"`
	Labels                 []string `json:"labels"`
}

func newHost(h *models.Host, now time.Time) host {
	labels := h.Labels
	if labels == nil {
		labels = []string{}
	}
	return host{
		ID: h.ID.String(), Name: h.Name, ResticHost: h.ResticHost, Labels: labels,
		OS: h.OS, Arch: h.Arch, Timezone: h.Timezone,
		Link: h.Link, Online: h.Online(now), LastSeenAt: timestampOrNull(h.LastSeenAt),
		AgentVersion: h.AgentVersion, ResticVersion: h.ResticVersion,
		ScheduleVersion: h.ScheduleVersion, AppliedScheduleVersion: h.AppliedScheduleVersion,
	}
}

type hostFields struct {
	Name       string   `json:"name"`
	Labels     []string `json:"labels,omitempty"`
	ResticHost string   `json:"restic_host,omitempty" doc:"Taken from the name when it is left out. Give it to adopt old snapshots."`
}

func (hostFields) TransformSchema(r huma.Registry, s *huma.Schema) *huma.Schema {
	return acceptReadOnly[host](r, s)
}

type hostPatch struct {
	Name   *string   `json:"name,omitempty"`
	Labels *[]string `json:"labels,omitempty"`
}

func (hostPatch) TransformSchema(r huma.Registry, s *huma.Schema) *huma.Schema {
	return acceptReadOnly[host](r, s)
}

// HostPath is the part of a path that names a host.
type HostPath struct {
	ID string `path:"id" doc:"The host's id."`
}

func (p HostPath) hostID() (models.HostID, error) { return models.ParseID[models.HostID](p.ID) }

// find reads the host of the path. Whatever belongs to a deleted host is not
// there any more, so all operations below a host begin with this.
func (s *server) find(ctx context.Context, p HostPath) (*models.Host, error) {
	id, err := p.hostID()
	if err != nil {
		return nil, err
	}
	return models.FindHost(ctx, s.DB, id)
}

func (s *server) listHosts(ctx context.Context, in *struct{ Page }) (*answer[list[host]], error) {
	hosts, next, err := models.ListHosts(ctx, s.DB, "", in.page())
	if err != nil {
		return nil, err
	}
	now := time.Now()
	return newList(hosts, next, func(h *models.Host) host { return newHost(h, now) }), nil
}

func (s *server) addHost(ctx context.Context, in *struct{ Body hostFields }) (*created[host], error) {
	h, err := models.AddHost(ctx, s.DB, models.HostFields{Name: in.Body.Name, Labels: in.Body.Labels, ResticHost: in.Body.ResticHost})
	if err != nil {
		return nil, err
	}
	s.Jobs.HostChanged(h.ID)
	return &created[host]{Location: "/api/hosts/" + h.ID.String(), Body: newHost(h, time.Now())}, nil
}

func (s *server) getHost(ctx context.Context, in *HostPath) (*answer[host], error) {
	h, err := s.find(ctx, *in)
	if err != nil {
		return nil, err
	}
	return &answer[host]{newHost(h, time.Now())}, nil
}

func (s *server) patchHost(ctx context.Context, in *struct {
	HostPath
	Body hostPatch
}) (*answer[host], error) {
	id, err := in.hostID()
	if err != nil {
		return nil, err
	}
	h, err := models.PatchHost(ctx, s.DB, id, models.HostPatch{Name: in.Body.Name, Labels: in.Body.Labels})
	if err != nil {
		return nil, err
	}
	s.Jobs.HostChanged(id)
	return &answer[host]{newHost(h, time.Now())}, nil
}

func (s *server) deleteHost(ctx context.Context, in *HostPath) (*struct{}, error) {
	id, err := in.hostID()
	if err != nil {
		return nil, err
	}
	cancelled, err := models.DeleteHost(ctx, s.DB, id)
	if err != nil {
		return nil, err
	}
	s.Jobs.HostChanged(id)
	s.Jobs.JobsCancelled(cancelled)
	return nil, nil
}
