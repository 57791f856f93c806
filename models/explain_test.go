package models_test

import (
	"context"
	"encoding/json"
	"testing"

	"github.com/uptrace/bun"

	"resticfleet/models"
)

// statements keeps what is asked of a database.
type statements struct{ all []string }

func (s *statements) BeforeQuery(ctx context.Context, e *bun.QueryEvent) context.Context {
	s.all = append(s.all, e.Query)
	return ctx
}

func (*statements) AfterQuery(context.Context, *bun.QueryEvent) {}

// touched is how many blocks the database reads for what ask asks, and how long
// it takes for it, in ms.
func (b *bundle) touched(ask func(db *models.DB)) (blocks int, ms float64) {
	b.t.Helper()
	var asked statements
	ask(b.db.WithQueryHook(&asked))
	for _, q := range asked.all {
		var raw string
		if err := b.db.QueryRowContext(b.ctx, "explain (analyze, buffers, format json) "+q).Scan(&raw); err != nil {
			b.t.Fatalf("%s: %v", q, err)
		}
		var plans []struct {
			Plan struct {
				Hit  int `json:"Shared Hit Blocks"`
				Read int `json:"Shared Read Blocks"`
			}
			Time float64 `json:"Execution Time"`
		}
		if err := json.Unmarshal([]byte(raw), &plans); err != nil {
			b.t.Fatal(err)
		}
		for _, p := range plans {
			blocks += p.Plan.Hit + p.Plan.Read
			ms += p.Time
		}
		if testing.Verbose() && ms > 100 {
			b.t.Log(q, "\n", raw)
		}
	}
	return blocks, ms
}
