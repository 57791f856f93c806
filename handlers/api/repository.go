package api

import (
	"context"

	"github.com/danielgtaylor/huma/v2"

	"resticfleet/models"
)

// repository never holds a secret: not the password, and of the environment
// the names alone.
type repository struct {
	URL          string   `json:"url"`
	EnvNames     []string `json:"env_names"`
	RepositoryID *string  `json:"repository_id" doc:"restic's own id of the repository; null until a job has learnt it."`
}

func newRepository(r *models.HostRepository) repository {
	return repository{URL: r.URL, EnvNames: r.EnvNames(), RepositoryID: orNull(r.ResticID)}
}

type repositoryFields struct {
	URL      string                   `json:"url" doc:"An absolute path, or a URL of restic's rest, s3, b2, azure, gs, swift or sftp, without credentials."`
	Password models.Secret            `json:"password" writeOnly:"true"`
	Env      map[string]models.Secret `json:"env,omitempty" writeOnly:"true" doc:"The backend's own variables."`
}

func (repositoryFields) TransformSchema(r huma.Registry, s *huma.Schema) *huma.Schema {
	return acceptReadOnly[repository](r, s)
}

func (s *server) getRepository(ctx context.Context, in *HostPath) (*answer[repository], error) {
	h, err := s.find(ctx, *in)
	if err != nil {
		return nil, err
	}
	r, err := models.FindRepository(ctx, s.DB, h.ID)
	if err != nil {
		return nil, err
	}
	return &answer[repository]{newRepository(r)}, nil
}

func (s *server) putRepository(ctx context.Context, in *struct {
	HostPath
	Body repositoryFields
}) (*answer[repository], error) {
	id, err := in.hostID()
	if err != nil {
		return nil, err
	}
	r, err := s.Jobs.BindRepository(ctx, id, models.RepositoryFields{URL: in.Body.URL, Password: in.Body.Password, Env: in.Body.Env})
	if err != nil {
		return nil, err
	}
	return &answer[repository]{newRepository(r)}, nil
}

func (s *server) deleteRepository(ctx context.Context, in *HostPath) (*struct{}, error) {
	h, err := s.find(ctx, *in)
	if err != nil {
		return nil, err
	}
	if err := models.UnbindRepository(ctx, s.DB, h.ID); err != nil {
		return nil, err
	}
	s.Jobs.HostChanged(h.ID)
	return nil, nil
}

// maintenanceCredential are the repository's second credentials, for forget and
// prune; no secret of theirs either.
type maintenanceCredential struct {
	URL      string   `json:"url"`
	EnvNames []string `json:"env_names"`
}

func newMaintenanceCredential(r *models.HostRepository) maintenanceCredential {
	return maintenanceCredential{URL: r.MaintenanceURL, EnvNames: r.MaintenanceEnvNames()}
}

type maintenanceCredentialFields repositoryFields

func (maintenanceCredentialFields) TransformSchema(r huma.Registry, s *huma.Schema) *huma.Schema {
	return acceptReadOnly[maintenanceCredential](r, s)
}

func (s *server) getMaintenanceCredential(ctx context.Context, in *HostPath) (*answer[maintenanceCredential], error) {
	h, err := s.find(ctx, *in)
	if err != nil {
		return nil, err
	}
	r, err := models.FindMaintenanceCredentials(ctx, s.DB, h.ID)
	if err != nil {
		return nil, err
	}
	return &answer[maintenanceCredential]{newMaintenanceCredential(r)}, nil
}

func (s *server) putMaintenanceCredential(ctx context.Context, in *struct {
	HostPath
	Body maintenanceCredentialFields
}) (*answer[maintenanceCredential], error) {
	id, err := in.hostID()
	if err != nil {
		return nil, err
	}
	r, err := models.BindMaintenance(ctx, s.DB, s.Jobs.Sealer, id, models.MaintenanceFields{URL: in.Body.URL, Password: in.Body.Password, Env: in.Body.Env})
	if err != nil {
		return nil, err
	}
	s.Jobs.HostChanged(id)
	return &answer[maintenanceCredential]{newMaintenanceCredential(r)}, nil
}

func (s *server) deleteMaintenanceCredential(ctx context.Context, in *HostPath) (*struct{}, error) {
	h, err := s.find(ctx, *in)
	if err != nil {
		return nil, err
	}
	if err := models.UnbindMaintenance(ctx, s.DB, h.ID); err != nil {
		return nil, err
	}
	s.Jobs.HostChanged(h.ID)
	return nil, nil
}

func (s *server) initRepository(ctx context.Context, in *HostPath) (*created[job], error) {
	return s.runOnHost(ctx, *in, models.KindInit)
}

func (s *server) unlockRepository(ctx context.Context, in *HostPath) (*created[job], error) {
	return s.runOnHost(ctx, *in, models.KindUnlock)
}

func (s *server) runOnHost(ctx context.Context, in HostPath, kind models.JobKind) (*created[job], error) {
	who, err := actor(ctx)
	if err != nil {
		return nil, err
	}
	id, err := in.hostID()
	if err != nil {
		return nil, err
	}
	j, err := s.Jobs.RunOnHost(ctx, id, kind, who)
	if err != nil {
		return nil, err
	}
	return startedJob(j), nil
}
