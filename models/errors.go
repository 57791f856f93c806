package models

import (
	"database/sql"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
)

// Code is what a program switches on.
type Code int

// The codes; each maps to one HTTP status in one place (handlers).
const (
	EInternal     Code = iota
	EInvalid           // what was sent can't be stored; Fields say why
	ENotFound          // not there, or not this host's
	EConflict          // something stands in the way; Detail says what
	EUnauthorized      // not known
	EForbidden         // known, not allowed
	EUnavailable       // try again later
	EGone              // retired
)

// Error is a code for programs, a message for people, and what they need to
// go on. Any other error type is internal and never shown.
type Error struct {
	Code    Code
	Message string
	Fields  []FieldError
	// Detail goes into the answer beside the message, by name.
	Detail map[string]any
	// RetryAfter is with EUnavailable when to ask again, 0 for soon.
	RetryAfter time.Duration
}

// FieldError names one field, what is wrong with it, and the remedy.
type FieldError struct {
	Field   string `json:"field"`
	Message string `json:"message"`
}

func (e *Error) Error() string {
	if len(e.Fields) == 0 {
		return e.Message
	}
	parts := make([]string, len(e.Fields))
	for i, f := range e.Fields {
		parts[i] = f.Field + ": " + f.Message
	}
	return strings.Join(parts, "; ")
}

// Field returns the message of one field, or "".
func (e *Error) Field(name string) string {
	for _, f := range e.Fields {
		if f.Field == name {
			return f.Message
		}
	}
	return ""
}

// CodeOf is the code of the *Error in err's chain, EInternal without one.
func CodeOf(err error) Code {
	var e *Error
	if errors.As(err, &e) {
		return e.Code
	}
	return EInternal
}

// NotFound says that there is no such thing.
func NotFound(what, id string) *Error {
	if len(id) > 64 {
		id = id[:64] + "…"
	}
	return &Error{Code: ENotFound, Message: fmt.Sprintf("There is no %s %q.", what, id)}
}

// Conflict says what stands in the way and how to get it out of there.
func Conflict(format string, args ...any) *Error {
	return &Error{Code: EConflict, Message: fmt.Sprintf(format, args...)}
}

// Invalid says what is wrong with one field.
func Invalid(field, format string, args ...any) *Error {
	return &Error{Code: EInvalid, Fields: []FieldError{{field, fmt.Sprintf(format, args...)}}}
}

// problems gathers field errors, so that one answer names them all.
type problems []FieldError

func (p *problems) add(field, format string, args ...any) {
	*p = append(*p, FieldError{field, fmt.Sprintf(format, args...)})
}

func (p problems) err() error {
	if len(p) == 0 {
		return nil
	}
	return &Error{Code: EInvalid, Fields: p}
}

// The SQLSTATEs we act on.
const (
	pgUniqueViolation     = "23505"
	pgForeignKeyViolation = "23503"
	pgExclusionViolation  = "23P01"
	pgSerialization       = "40001"
	pgDeadlock            = "40P01"
)

// violated reports whether err is the named SQLSTATE, and of which constraint
// ("" matches any).
func violated(err error, state, constraint string) bool {
	var pg *pgconn.PgError
	return errors.As(err, &pg) && pg.Code == state && (constraint == "" || pg.ConstraintName == constraint)
}

// Unstorable reports whether err is the database's refusal of a value that it
// can't hold, today or later: a date out of range, a broken text.
func Unstorable(err error) bool {
	var pg *pgconn.PgError
	return errors.As(err, &pg) && strings.HasPrefix(pg.Code, "22")
}

func isNoRows(err error) bool { return errors.Is(err, sql.ErrNoRows) }
