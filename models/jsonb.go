package models

import (
	"database/sql/driver"
	"encoding/json"
)

// jsonb hands a value to raw SQL as JSON.
type jsonb struct{ v any }

// Value implements driver.Valuer.
func (j jsonb) Value() (driver.Value, error) {
	raw, err := json.Marshal(j.v)
	return string(raw), err
}
