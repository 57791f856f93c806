package handlers

import (
	"net/http"
	"strings"

	"github.com/labstack/echo/v4"

	"resticfleet/models"
	"resticfleet/views"
	"resticfleet/views/ui"
)

func (h *Handlers) users(c echo.Context) error {
	v := views.Users{Clock: pageClock(nil), Query: strings.TrimSpace(c.QueryParam("q"))}
	list, next, err := models.ListUsers(c.Request().Context(), h.DB, models.CleanText(v.Query, 100), models.Page{Cursor: c.QueryParam("cursor")})
	if err != nil {
		return err
	}
	v.NextCursor = next
	for _, u := range list {
		v.Rows = append(v.Rows, presentUser(&u.User, u.Sessions, who(c)))
		v.Rows[len(v.Rows)-1].SeenAt = timeOf(u.SeenAt)
	}
	return render(c, http.StatusOK, views.UsersPage(h.page(c, "Users", views.NavSettings), v))
}

func presentUser(u *models.User, sessions int, viewer *models.Identity) views.UserRow {
	return views.UserRow{ID: u.ID.String(), Name: u.Name, Role: string(u.Role), CreatedAt: u.CreatedAt, Sessions: sessions, You: u.ID == viewer.UserID}
}

func (h *Handlers) newUser(c echo.Context) error {
	return h.renderUserForm(c, http.StatusOK, views.UserForm{Role: string(models.RoleViewer)})
}

func (h *Handlers) renderUserForm(c echo.Context, status int, form views.UserForm) error {
	return render(c, status, views.UserFormPage(h.page(c, "Add user", views.NavSettings), form))
}

func (h *Handlers) addUser(c echo.Context) error {
	form := views.UserForm{Name: c.FormValue("name"), Role: c.FormValue("role")}
	noteTarget(c, strings.TrimSpace(form.Name))
	role, err := models.ParseRole(form.Role)
	if err == nil {
		err = sameTwice(c)
	}
	var user *models.User
	if err == nil {
		user, err = models.AddUser(c.Request().Context(), h.DB, form.Name, c.FormValue("password"), role)
	}
	if errs, bad := fieldErrors(err); bad {
		form.Errors = errs
		return h.renderUserForm(c, http.StatusUnprocessableEntity, form)
	}
	if err != nil {
		return err
	}
	h.say(c, "Added “"+user.Name+"”", "Tell the password in person; it can be changed after the first login.")
	return done(c, "/settings/users")
}

// sameTwice checks that a new password was typed twice alike.
func sameTwice(c echo.Context) error {
	if c.FormValue("password") != c.FormValue("password_again") {
		return models.Invalid("password_again", "is not the same as the password above: type both again")
	}
	return nil
}

func (h *Handlers) userOf(c echo.Context) (*models.User, error) {
	id, err := models.ParseID[models.UserID](c.Param("uid"))
	if err != nil {
		return nil, err
	}
	user, err := models.FindUser(c.Request().Context(), h.DB, id)
	if err == nil {
		noteTarget(c, user.Name)
	}
	return user, err
}

func (h *Handlers) user(c echo.Context) error {
	user, err := h.userOf(c)
	if err != nil {
		return err
	}
	return h.renderUser(c, http.StatusOK, user, views.UserPageState{Role: string(user.Role)})
}

func (h *Handlers) renderUser(c echo.Context, status int, user *models.User, s views.UserPageState) error {
	s.UserRow = presentUser(user, 0, who(c))
	s.UserRow.Role = string(user.Role)
	return render(c, status, views.UserPage(h.page(c, user.Name, views.NavSettings), s))
}

func (h *Handlers) changeRole(c echo.Context) error {
	user, err := h.userOf(c)
	if err != nil {
		return err
	}
	role, err := models.ParseRole(c.FormValue("role"))
	if err == nil {
		err = models.ChangeRole(c.Request().Context(), h.DB, user.ID, role)
	}
	switch errs, bad := fieldErrors(err); {
	case bad:
		return h.renderUser(c, http.StatusUnprocessableEntity, user, views.UserPageState{Role: c.FormValue("role"), Errors: errs})
	case models.CodeOf(err) == models.EConflict:
		return h.renderUser(c, http.StatusConflict, user, views.UserPageState{Role: string(role), Errors: views.Errors{"role": err.Error()}})
	case err != nil:
		return err
	}
	h.say(c, "“"+user.Name+"” has the role "+string(role)+" now", "It counts from the next click on.")
	if user.ID == who(c).UserID {
		return done(c, "/settings")
	}
	return done(c, "/settings/users/"+user.ID.String())
}

// resetPassword is for somebody else's password: the own one takes the old.
func (h *Handlers) resetPassword(c echo.Context) error {
	user, err := h.userOf(c)
	if err != nil {
		return err
	}
	if user.ID == who(c).UserID {
		return models.Conflict("This is your own password. Change it in the settings under Password, where the old one is asked.")
	}
	if err = sameTwice(c); err == nil {
		err = models.ResetPassword(c.Request().Context(), h.DB, user.ID, c.FormValue("password"))
	}
	if errs, bad := fieldErrors(err); bad {
		return h.renderUser(c, http.StatusUnprocessableEntity, user, views.UserPageState{Role: string(user.Role), Errors: errs})
	}
	if err != nil {
		return err
	}
	h.say(c, "“"+user.Name+"” has a new password", "The sessions under the old one have ended. Tell the new one in person.")
	return done(c, "/settings/users/"+user.ID.String())
}

func (h *Handlers) confirmDeleteUser(c echo.Context) error {
	user, err := h.userOf(c)
	if err != nil {
		return err
	}
	return h.confirm(c, http.StatusOK, deleteUserQuestion(user, who(c)))
}

func deleteUserQuestion(user *models.User, viewer *models.Identity) views.Confirm {
	url := "/settings/users/" + user.ID.String()
	q := views.Confirm{
		Heading: "Delete “" + user.Name + "”?",
		Lost:    "“" + user.Name + "” is logged out everywhere at once and can't log in any more.",
		Stays:   "What was done under this name stays in the jobs and in the audit log. API tokens stay: they belong to nobody.",
		Action:  url + "/delete", Act: "Delete “" + user.Name + "”", Keep: "Keep “" + user.Name + "”", KeepURL: url,
		Crumbs: views.SettingsCrumbs(ui.Crumb{Text: "Users", URL: "/settings/users"}, ui.Crumb{Text: user.Name, URL: url}, ui.Crumb{Text: "delete"}),
	}
	if user.ID == viewer.UserID {
		q.Lost = "This is you: you are logged out at once and can't log in any more."
	}
	return q
}

func (h *Handlers) deleteUser(c echo.Context) error {
	user, err := h.userOf(c)
	if err != nil {
		return err
	}
	err = models.DeleteUser(c.Request().Context(), h.DB, user.ID)
	if models.CodeOf(err) == models.EConflict {
		q := deleteUserQuestion(user, who(c))
		q.Error = err.Error()
		return h.confirm(c, http.StatusConflict, q)
	}
	if err != nil {
		return err
	}
	h.say(c, "Deleted “"+user.Name+"”", "")
	return done(c, "/settings/users")
}
