package views

import (
	"time"

	"resticfleet/views/ui"
)

// Users is the list of /settings/users.
type Users struct {
	Clock      ui.Clock
	Query      string
	Rows       []UserRow
	NextCursor string
}

// UserRow is one user.
type UserRow struct {
	ID, Name, Role    string
	Sessions          int
	CreatedAt, SeenAt time.Time
	// You is who looks.
	You bool
}

// UserForm adds a user: POST /settings/users with name, role, password and
// password_again.
type UserForm struct {
	Name, Role string
	Errors     Errors
}

// UserPageState is one user's page. Its forms post role to …/role, password
// and password_again to …/password.
type UserPageState struct {
	UserRow
	// Role is what is picked in the form, UserRow's what is in force.
	Role   string
	Errors Errors
}

func (u Users) olderURL() string {
	return olderURL(u.NextCursor, "/settings/users", "q", u.Query)
}

func (u UserRow) url() string { return "/settings/users/" + u.ID }
