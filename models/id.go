// Package models is Resticfleet's memory: one file per concept, holding its
// type, its validation and all SQL that touches it. Functions take an IDB, so
// that the same code runs inside and outside a transaction, and return *Error
// for everything a person or program can act on.
package models

import (
	"database/sql/driver"
	"fmt"

	"github.com/google/uuid"
)

// ID is a UUIDv7 that belongs to one kind of thing, so that a job's id can't
// be handed to something that wants a host's.
type ID[K any] uuid.UUID

type (
	userKind     struct{}
	sessionKind  struct{}
	tokenKind    struct{}
	hostKind     struct{}
	groupKind    struct{}
	scheduleKind struct{}
	jobKind      struct{}
	auditKind    struct{}
)

// The ids of the things this package keeps.
type (
	UserID     = ID[userKind]
	SessionID  = ID[sessionKind]
	TokenID    = ID[tokenKind]
	HostID     = ID[hostKind]
	GroupID    = ID[groupKind]
	ScheduleID = ID[scheduleKind]
	JobID      = ID[jobKind]
	AuditID    = ID[auditKind]
)

// NewID makes an id that sorts by time. Reading random bytes can't fail on
// the systems we run on; Go's runtime ends the program if it does.
func NewID[T ~[16]byte]() T { return T(uuid.Must(uuid.NewV7())) }

// ParseID reads an id from outside. What can't be an id can't be there, so
// the error is ENotFound.
func ParseID[T ~[16]byte](s string) (T, error) {
	if len(s) != 36 {
		return T{}, NotFound("id", s)
	}
	u, err := uuid.Parse(s)
	if err != nil {
		return T{}, NotFound("id", s)
	}
	return T(u), nil
}

// IsZero reports whether the id was never set.
func (id ID[K]) IsZero() bool { return uuid.UUID(id) == uuid.Nil }

// Short is the id's random tail, enough to tell two apart in a log.
func (id ID[K]) Short() string { return fmt.Sprintf("%x", id[12:]) }

func (id ID[K]) String() string { return uuid.UUID(id).String() }

// MarshalText implements encoding.TextMarshaler.
func (id ID[K]) MarshalText() ([]byte, error) { return uuid.UUID(id).MarshalText() }

// UnmarshalText implements encoding.TextUnmarshaler.
func (id *ID[K]) UnmarshalText(text []byte) error { return (*uuid.UUID)(id).UnmarshalText(text) }

// Value implements driver.Valuer.
func (id ID[K]) Value() (driver.Value, error) { return uuid.UUID(id).Value() }

// Scan implements sql.Scanner.
func (id *ID[K]) Scan(src any) error { return (*uuid.UUID)(id).Scan(src) }
