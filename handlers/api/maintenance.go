package api

import (
	"context"

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
}

func newRepoMaintenance(m *models.Maintenance) repoMaintenance {
	return repoMaintenance{
		Forget: cadence{m.ForgetCron, m.ForgetEnabled},
		Prune:  cadence{m.PruneCron, m.PruneEnabled},
		Check:  checkCadence{m.CheckCron, m.CheckEnabled, m.CheckReadDataSubset},
	}
}

func (s *server) getMaintenance(ctx context.Context, in *HostPath) (*answer[repoMaintenance], error) {
	id, err := in.hostID()
	if err != nil {
		return nil, err
	}
	m, err := models.FindMaintenance(ctx, s.DB, id)
	if err != nil {
		return nil, err
	}
	return &answer[repoMaintenance]{newRepoMaintenance(m)}, nil
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
	return &answer[repoMaintenance]{newRepoMaintenance(m)}, nil
}
