package api

import (
	"context"

	"resticfleet/models"
)

type identityKey struct{}

// WithIdentity says who asks. The middleware that authenticates requests and
// checks their role by Routes calls it before a request comes here.
func WithIdentity(ctx context.Context, who *models.Identity) context.Context {
	return context.WithValue(ctx, identityKey{}, who)
}

// actor is who asks, as it stands on a job.
func actor(ctx context.Context) (models.Actor, error) {
	who, ok := ctx.Value(identityKey{}).(*models.Identity)
	if !ok || who == nil {
		return models.Actor{}, &models.Error{Code: models.EUnauthorized, Message: "Nobody is signed in. Send an API token as bearer."}
	}
	return who.Actor(), nil
}
