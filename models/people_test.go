package models_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"

	"resticfleet/models"
)

const oldPassword, newPassword = "correct horse", "battery staple"

func (b *bundle) user(name string, role models.Role) *models.User {
	b.t.Helper()
	return must[*models.User](b.t)(models.AddUser(b.ctx, b.db, name, oldPassword, role))
}

// login starts a session and returns its token with what it stands for.
func (b *bundle) login(u *models.User) (string, *models.Identity) {
	b.t.Helper()
	token := must[string](b.t)(models.StartSession(b.ctx, b.db, u.ID, "192.0.2.1", "Mozilla/5.0"))
	return token, must[*models.Identity](b.t)(models.SessionIdentity(b.ctx, b.db, token))
}

// ended checks that the session's token is worth nothing any more.
func (b *bundle) ended(token string) {
	b.t.Helper()
	_, err := models.SessionIdentity(b.ctx, b.db, token)
	wantCode(b.t, err, models.EUnauthorized)
}

// Whoever is taken away from at once, by whatever way and by however many
// servers: one administrator stays.
func TestTheLastAdministratorStays(t *testing.T) {
	t.Parallel()
	b := setup(t)
	admins := make([]*models.User, 4)
	for i := range admins {
		admins[i] = b.user(fmt.Sprintf("admin-%d", i), models.RoleAdmin)
	}
	vera := b.user("vera", models.RoleViewer)
	take := func(i int) error {
		if i%2 == 0 {
			return models.DeleteUser(b.ctx, b.db, admins[i].ID)
		}
		return models.ChangeRole(b.ctx, b.db, admins[i].ID, models.RoleOperator)
	}
	for range 5 {
		fine, errs := gather(len(admins), take)
		if fine != len(admins)-1 || codes(errs, models.EConflict) != 1 {
			t.Fatalf("%d of %d could go: %v", fine, len(admins), errs)
		}
		for i, err := range errs {
			if err == nil && i%2 == 0 {
				admins[i] = b.user(admins[i].Name, models.RoleAdmin)
			} else if err == nil {
				if err := models.ChangeRole(b.ctx, b.db, admins[i].ID, models.RoleAdmin); err != nil {
					t.Fatal(err)
				}
			}
		}
	}
	for _, u := range admins[1:] {
		if err := models.DeleteUser(b.ctx, b.db, u.ID); err != nil {
			t.Fatal(err)
		}
	}
	if e := wantError(t, models.DeleteUser(b.ctx, b.db, admins[0].ID), models.EConflict); !strings.Contains(e.Message, "last administrator") {
		t.Error(e)
	}
	wantCode(t, models.ChangeRole(b.ctx, b.db, admins[0].ID, models.RoleViewer), models.EConflict)
	// Nothing stands in the way of anybody else.
	if err := models.ChangeRole(b.ctx, b.db, vera.ID, models.RoleOperator); err != nil {
		t.Error(err)
	}
	if err := models.DeleteUser(b.ctx, b.db, vera.ID); err != nil {
		t.Error(err)
	}
	wantCode(t, models.DeleteUser(b.ctx, b.db, vera.ID), models.ENotFound)
	wantCode(t, models.ChangeRole(b.ctx, b.db, vera.ID, models.RoleAdmin), models.ENotFound)
}

func TestARoleCountsFromTheNextRequestOn(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.user("anna", models.RoleAdmin)
	otto := b.user("otto", models.RoleOperator)
	token, _ := b.login(otto)
	if err := models.ChangeRole(b.ctx, b.db, otto.ID, models.RoleViewer); err != nil {
		t.Fatal(err)
	}
	if who := must[*models.Identity](t)(models.SessionIdentity(b.ctx, b.db, token)); who.Role != models.RoleViewer {
		t.Errorf("still %s", who.Role)
	}
	if err := models.DeleteUser(b.ctx, b.db, otto.ID); err != nil {
		t.Fatal(err)
	}
	b.ended(token)
}

func TestANewPasswordEndsTheOtherSessions(t *testing.T) {
	t.Parallel()
	b := setup(t)
	anna, otto := b.user("anna", models.RoleAdmin), b.user("otto", models.RoleOperator)
	here, who := b.login(otto)
	there, _ := b.login(otto)
	elsewhere, _ := b.login(anna)

	_, err := models.ChangePassword(b.ctx, b.db, who, "not it", "short")
	if e := wantError(t, err, models.EInvalid); e.Field("current") == "" || e.Field("password") == "" {
		t.Errorf("says %v", e)
	}
	fresh := must[string](t)(models.ChangePassword(b.ctx, b.db, who, oldPassword, newPassword))
	again := must[*models.Identity](t)(models.SessionIdentity(b.ctx, b.db, fresh))
	if again.SessionID != who.SessionID || again.UserID != otto.ID {
		t.Errorf("the session is another: %+v", again)
	}
	b.ended(here) // whoever has read the old cookie has nothing
	b.ended(there)
	must[*models.Identity](t)(models.SessionIdentity(b.ctx, b.db, elsewhere))
	_, err = models.Authenticate(b.ctx, b.db, "otto", oldPassword)
	wantCode(t, err, models.EUnauthorized)
	must[*models.User](t)(models.Authenticate(b.ctx, b.db, "otto", newPassword))

	wantCode(t, models.ResetPassword(b.ctx, b.db, otto.ID, "short"), models.EInvalid)
	if err := models.ResetPassword(b.ctx, b.db, otto.ID, oldPassword); err != nil {
		t.Fatal(err)
	}
	b.ended(fresh)
	must[*models.User](t)(models.Authenticate(b.ctx, b.db, "otto", oldPassword))
}

// Two who change one password at once: one of them has, the other is told.
func TestAPasswordIsNotChangedOverAnother(t *testing.T) {
	t.Parallel()
	b := setup(t)
	otto := b.user("otto", models.RoleAdmin)
	identities := make([]*models.Identity, 3)
	for i := range identities {
		_, identities[i] = b.login(otto)
	}
	passwords := make([]string, len(identities))
	fine, errs := gather(len(identities), func(i int) error {
		passwords[i] = fmt.Sprintf("%s %d", newPassword, i)
		_, err := models.ChangePassword(b.ctx, b.db, identities[i], oldPassword, passwords[i])
		return err
	})
	if fine != 1 {
		t.Fatalf("%d changed it: %v", fine, errs)
	}
	for i, err := range errs {
		_, loginErr := models.Authenticate(b.ctx, b.db, "otto", passwords[i])
		if (err == nil) != (loginErr == nil) {
			t.Errorf("%v, and the login says %v", err, loginErr)
		}
	}
}

func TestSessionsAreListedAndEnded(t *testing.T) {
	t.Parallel()
	b := setup(t)
	anna, otto := b.user("anna", models.RoleAdmin), b.user("otto", models.RoleOperator)
	var tokens []string
	var ids []models.SessionID
	for range 4 {
		token, who := b.login(otto)
		tokens, ids = append(tokens, token), append(ids, who.SessionID)
	}
	foreign, _ := b.login(anna)

	all, next, err := models.ListSessions(b.ctx, b.db, otto.ID, models.Page{Limit: 3})
	if err != nil || len(all) != 3 || next == "" || all[0].ID != ids[3] || all[0].Address != "192.0.2.1" || time.Since(all[0].SeenAt) > time.Minute {
		t.Fatalf("%d sessions, next %q, %v", len(all), next, err)
	}
	rest, next, err := models.ListSessions(b.ctx, b.db, otto.ID, models.Page{Limit: 3, Cursor: next})
	if err != nil || len(rest) != 1 || next != "" || rest[0].ID != ids[0] {
		t.Fatalf("%d more, next %q, %v", len(rest), next, err)
	}

	if err := models.EndSessionOf(b.ctx, b.db, anna.ID, ids[0]); err != nil {
		t.Fatal(err)
	}
	must[*models.Identity](t)(models.SessionIdentity(b.ctx, b.db, tokens[0])) // it isn't anna's to end
	if err := models.EndSessionOf(b.ctx, b.db, otto.ID, ids[0]); err != nil {
		t.Fatal(err)
	}
	b.ended(tokens[0])
	if err := models.EndOtherSessions(b.ctx, b.db, otto.ID, ids[1]); err != nil {
		t.Fatal(err)
	}
	must[*models.Identity](t)(models.SessionIdentity(b.ctx, b.db, tokens[1]))
	b.ended(tokens[2])
	b.ended(tokens[3])
	must[*models.Identity](t)(models.SessionIdentity(b.ctx, b.db, foreign))
}

func TestUsersAreListedWithTheirUse(t *testing.T) {
	t.Parallel()
	b := setup(t)
	anna := b.user("Anna", models.RoleAdmin)
	b.user("otto", models.RoleOperator)
	b.user("oskar_%", models.RoleViewer)
	b.login(anna)
	b.login(anna)
	names := func(query string) string {
		all, _, err := models.ListUsers(b.ctx, b.db, query, models.Page{})
		if err != nil {
			t.Fatal(err)
		}
		var out []string
		for _, u := range all {
			out = append(out, fmt.Sprintf("%s %s %d %v", u.Name, u.Role, u.Sessions, u.SeenAt != nil))
			if u.PasswordHash != "" {
				t.Error("a list holds a password's hash")
			}
		}
		return strings.Join(out, ", ")
	}
	for query, want := range map[string]string{
		"":     "oskar_% viewer 0 false, otto operator 0 false, Anna admin 2 true",
		"NNA":  "Anna admin 2 true",
		"_%":   "oskar_% viewer 0 false",
		"nope": "",
	} {
		if got := names(query); got != want {
			t.Errorf("%q finds %s", query, got)
		}
	}
	counts, err := models.CountUsers(b.ctx, b.db)
	if err != nil || counts[models.RoleAdmin] != 1 || counts[models.RoleOperator] != 1 || counts[models.RoleViewer] != 1 {
		t.Errorf("%v %v", counts, err)
	}
}

func TestAnAPITokensLife(t *testing.T) {
	t.Parallel()
	b := setup(t)
	id := models.NewID[models.TokenID]()
	text, made, err := models.AddAPITokenAs(b.ctx, b.db, id, " ci ", models.RoleOperator)
	if err != nil || made.Name != "ci" || made.ID != id {
		t.Fatal(made, err)
	}
	// The same form once more makes no other.
	again, _, err := models.AddAPITokenAs(b.ctx, b.db, id, "ci", models.RoleAdmin)
	wantCode(t, err, models.EConflict)
	if again != "" || b.count("select count(*) from api_tokens") != 1 {
		t.Error("a second token was made")
	}
	list := func(revoked bool) []*models.APIToken {
		all, _, err := models.ListAPITokens(b.ctx, b.db, revoked, models.Page{})
		if err != nil {
			t.Fatal(err)
		}
		return all
	}
	if all := list(false); len(all) != 1 || all[0].LastUsedAt != nil {
		t.Errorf("%+v", all)
	}
	who := must[*models.Identity](t)(models.TokenIdentity(b.ctx, b.db, text))
	if who.TokenID != id || who.Role != models.RoleOperator {
		t.Errorf("%+v", who)
	}
	used := must[*models.APIToken](t)(models.FindAPIToken(b.ctx, b.db, id)).LastUsedAt
	if used == nil || time.Since(*used) > time.Minute {
		t.Fatalf("last used %v", used)
	}
	must[*models.Identity](t)(models.TokenIdentity(b.ctx, b.db, text))
	if now := must[*models.APIToken](t)(models.FindAPIToken(b.ctx, b.db, id)).LastUsedAt; !now.Equal(*used) {
		t.Error("every use is a write")
	}
	for range 2 {
		if err := models.RevokeAPIToken(b.ctx, b.db, id); err != nil {
			t.Fatal(err)
		}
	}
	_, err = models.TokenIdentity(b.ctx, b.db, text)
	wantCode(t, err, models.EUnauthorized)
	if live, gone := list(false), list(true); len(live) != 0 || len(gone) != 1 {
		t.Errorf("%d live, %d revoked", len(live), len(gone))
	}
}

func TestTheAuditLogIsFiltered(t *testing.T) {
	t.Parallel()
	b := setup(t)
	for i, e := range []models.AuditEntry{
		{ActorKind: "user", ActorName: "Anna", Action: "POST /hosts", Outcome: 303},
		{ActorKind: "user", ActorName: "otto", Action: "POST /jobs/:id/cancel", Outcome: 409},
		{ActorKind: "token", ActorName: "ci", Action: "POST /hosts", Outcome: 500},
		{ActorKind: "agent", Action: "POST /agent/v1/messages", Outcome: 200},
	} {
		if err := models.Audit(b.ctx, b.db, e); err != nil {
			t.Fatal(err)
		}
		b.exec("update audit_entries set at = ? where id = (select max(id::text)::uuid from audit_entries)", at(i+1, 0))
	}
	for _, c := range []struct {
		filter models.AuditFilter
		want   string
	}{
		{models.AuditFilter{}, "200 500 409 303"},
		{models.AuditFilter{Actors: []string{"user", "token"}}, "500 409 303"},
		{models.AuditFilter{Name: "nN"}, "303"},
		{models.AuditFilter{Actions: []string{"POST /hosts"}}, "500 303"},
		{models.AuditFilter{From: at(2, 0), Until: at(3, 0)}, "409"},
		{models.AuditFilter{From: at(3, 0)}, "200 500"},
		{models.AuditFilter{Most: 399}, "200 303"},
		{models.AuditFilter{Least: 400, Most: 499}, "409"},
		{models.AuditFilter{Least: 500}, "500"},
	} {
		var got []string
		page := models.Page{Limit: 1}
		for first := true; first || page.Cursor != ""; first = false {
			entries, next, err := models.ListAudit(b.ctx, b.db, c.filter, page)
			if err != nil {
				t.Fatal(err)
			}
			for _, e := range entries {
				got = append(got, fmt.Sprint(e.Outcome))
			}
			page.Cursor = next
		}
		if strings.Join(got, " ") != c.want {
			t.Errorf("%+v: %v", c.filter, got)
		}
	}
}

func TestWhatAnEntryWasAboutHasAName(t *testing.T) {
	t.Parallel()
	b := setup(t)
	h := b.host("web-1")
	b.bind(h, "/srv/repo")
	g := b.group(h, "www")
	s := b.schedule(h, g)
	j := b.run(g)
	u := b.user("anna", models.RoleAdmin)
	_, token, err := models.AddAPIToken(b.ctx, b.db, "ci", models.RoleViewer)
	if err != nil {
		t.Fatal(err)
	}
	must[[]models.JobID](t)(models.DeleteHost(b.ctx, b.db, h.ID))
	nobody := uuid.New()
	want := map[uuid.UUID]models.Named{
		uuid.UUID(h.ID):     {Name: "web-1", Gone: true},
		uuid.UUID(g.ID):     {Name: "www"},
		uuid.UUID(s.ID):     {Name: "0 2 * * *"},
		uuid.UUID(j.ID):     {Name: "backup of www"},
		uuid.UUID(u.ID):     {Name: "anna"},
		uuid.UUID(token.ID): {Name: "ci"},
	}
	ids := []uuid.UUID{nobody}
	for id := range want {
		ids = append(ids, id)
	}
	got, err := models.NamesOf(b.ctx, b.db, ids)
	if err != nil || len(got) != len(want) {
		t.Fatalf("%v, %v", got, err)
	}
	for id, w := range want {
		if w.ID = id; got[id] != w {
			t.Errorf("got %+v, want %+v", got[id], w)
		}
	}
}
