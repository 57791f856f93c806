package models

import (
	"github.com/google/uuid"
	"github.com/uptrace/bun"
)

// Page asks for one page of a list that is newest first. Cursor is the id of
// the last row of the page before, "" for the first page.
type Page struct {
	Limit  int
	Cursor string
}

// The bounds of a page's length.
const (
	DefaultLimit = 50
	MaxLimit     = 500
)

// apply orders, limits and starts the query; it asks for one row more, by
// which cut knows whether a next page exists.
func (p Page) apply(q *bun.SelectQuery) error {
	if p.Cursor != "" {
		after, err := uuid.Parse(p.Cursor)
		if err != nil {
			return Invalid("cursor", "is not one of ours: use next_cursor of the page before, or none for the first page")
		}
		q.Where("?TableAlias.id < ?", after)
	}
	q.OrderExpr("?TableAlias.id desc").Limit(int64(p.limit() + 1))
	return nil
}

func (p Page) limit() int {
	if p.Limit <= 0 {
		return DefaultLimit
	}
	return min(p.Limit, MaxLimit)
}

func cut[T any](rows []T, p Page, cursor func(T) string) ([]T, string) {
	if len(rows) <= p.limit() {
		return rows, ""
	}
	rows = rows[:p.limit()]
	return rows, cursor(rows[len(rows)-1])
}
