package api

import (
	"context"
	"slices"
	"time"

	"resticfleet/models"
)

type cadence struct {
	Cron    string `json:"cron"`
	Enabled bool   `json:"enabled"`
}

type checkCadence struct {
	Cron           string `json:"cron"`
	Enabled        bool   `json:"enabled"`
	ReadDataSubset string `json:"read_data_subset" required:"false" doc:"How much of the data is read each time, as in restic's --read-data-subset: 1/12, 10%, 500M. Empty reads none."`
}

type repoMaintenance struct {
	Forget cadence      `json:"forget"`
	Prune  cadence      `json:"prune"`
	Check  checkCadence `json:"check"`
	// OwnerHostID is the host that prunes and checks the repository.
	OwnerHostID   *models.HostID `json:"owner_host_id,omitempty" readOnly:"true" doc:"The host that prunes and checks the repository for all that share it."`
	OwnerHostName string         `json:"owner_host_name,omitempty" readOnly:"true"`
	OwnerSince    *time.Time     `json:"owner_since,omitempty" readOnly:"true"`
	OwnerReason   string         `json:"owner_reason,omitempty" readOnly:"true" enum:"bound,chosen,taken" doc:"Why that host: it was the first that was bound to the repository, a person chose it, or it has taken over from a host that was gone."`
	OwnerBefore   string         `json:"owner_before,omitempty" readOnly:"true" doc:"The name of the host that was the owner before."`
}

// readMaintenance is a host's cadences as they stand.
func (s *server) readMaintenance(ctx context.Context, id models.HostID) (*answer[repoMaintenance], error) {
	m, err := models.FindMaintenance(ctx, s.DB, id)
	if err != nil {
		return nil, err
	}
	owner, err := models.FindOwner(ctx, s.DB, id)
	if err != nil {
		return nil, err
	}
	out := repoMaintenance{
		Forget: cadence{m.ForgetCron, m.ForgetEnabled},
		Prune:  cadence{m.PruneCron, m.PruneEnabled},
		Check:  checkCadence{m.CheckCron, m.CheckEnabled, m.CheckReadDataSubset},
	}
	if owner != nil && !owner.HostID.IsZero() {
		out.OwnerHostID, out.OwnerHostName = &owner.HostID, owner.Name
		out.OwnerSince, out.OwnerReason, out.OwnerBefore = owner.Since, owner.Reason, owner.Before
	}
	return &answer[repoMaintenance]{out}, nil
}

func (s *server) getMaintenance(ctx context.Context, in *HostPath) (*answer[repoMaintenance], error) {
	id, err := in.hostID()
	if err != nil {
		return nil, err
	}
	return s.readMaintenance(ctx, id)
}

func (s *server) putMaintenance(ctx context.Context, in *struct {
	HostPath
	Body repoMaintenance
}) (*answer[repoMaintenance], error) {
	h, err := s.find(ctx, in.HostPath)
	if err != nil {
		return nil, err
	}
	m := &models.Maintenance{
		HostID:     h.ID,
		ForgetCron: in.Body.Forget.Cron, ForgetEnabled: in.Body.Forget.Enabled,
		PruneCron: in.Body.Prune.Cron, PruneEnabled: in.Body.Prune.Enabled,
		CheckCron: in.Body.Check.Cron, CheckEnabled: in.Body.Check.Enabled, CheckReadDataSubset: in.Body.Check.ReadDataSubset,
	}
	if err := models.SaveMaintenance(ctx, s.DB, m); err != nil {
		return nil, err
	}
	s.Jobs.HostChanged(h.ID)
	return s.readMaintenance(ctx, h.ID)
}

func (s *server) runMaintenance(ctx context.Context, in *struct {
	HostPath
	Kind string `path:"kind"`
}) (*created[job], error) {
	who, err := actor(ctx)
	if err != nil {
		return nil, err
	}
	h, err := s.find(ctx, in.HostPath)
	if err != nil {
		return nil, err
	}
	kind := models.JobKind(in.Kind)
	if !slices.Contains(models.MaintenanceKinds, kind) {
		return nil, models.NotFound("kind of maintenance", in.Kind)
	}
	j, err := s.Jobs.RunMaintenance(ctx, h.ID, kind, who)
	if err != nil {
		return nil, err
	}
	return startedJob(j), nil
}

func (s *server) ownRepository(ctx context.Context, in *HostPath) (*answer[repoMaintenance], error) {
	h, err := s.find(ctx, *in)
	if err != nil {
		return nil, err
	}
	if err := s.Jobs.OwnRepository(ctx, h.ID); err != nil {
		return nil, err
	}
	return s.readMaintenance(ctx, h.ID)
}
