package e2e

import (
	"net/http"
	"testing"

	"github.com/google/uuid"
	"github.com/playwright-community/playwright-go"
)

// logIn fills in the login that the browser was sent to.
func (p *page) logIn(user, password string) {
	p.t.Helper()
	p.path("/login")
	p.fill("User name", user)
	p.fill("Password", password)
	p.click(p.button("Log in"))
}

// named is the element of that role whose name contains the text.
func (p *page) named(role *playwright.AriaRole, text string) playwright.Locator {
	return p.GetByRole(*role, playwright.PageGetByRoleOptions{Name: text})
}

// A colleague comes, works under an own name with the rights of the role,
// keeps the password to themselves, and goes: all from the settings.
func TestAColleagueComesAndGoes(t *testing.T) {
	t.Parallel()
	name, first, second := "otto-"+uuid.NewString()[:8], "a first password", "a second password"
	admin := newPage(t)
	admin.open("/")
	admin.click(admin.link("Settings"))
	admin.click(admin.named(playwright.AriaRoleLink, "Users"))
	admin.click(admin.link("Add user"))
	admin.fill("User name", name)
	admin.must(admin.named(playwright.AriaRoleRadio, "Operator").Check())
	admin.fill("New password", first)
	admin.fill("New password, once more", first)
	admin.click(admin.button("Add user"))
	admin.path("/settings/users")
	admin.sees(admin.GetByText("Added “" + name + "”"))

	// An operator has no business with users, tokens and the audit log.
	here := suite.target.page(t, pageOptions{stranger: true})
	here.open("/settings")
	here.logIn(name, first)
	here.path("/settings")
	here.sees(here.GetByText("You are " + name + ", operator."))
	here.hidden(here.named(playwright.AriaRoleLink, "Audit log"))
	if res := here.open("/settings/audit"); res.Status() != http.StatusForbidden {
		t.Errorf("the audit log answers an operator %d", res.Status())
	}
	here.sees(here.heading("You may not do this"))

	// A changed password ends the session on the telephone, which leads to the
	// login and back. It looks at pages without a stream: one with would go to
	// the login by itself.
	phone := suite.target.page(t, pageOptions{stranger: true, width: 390, height: 844})
	phone.open("/settings")
	phone.logIn(name, first)
	phone.path("/settings")
	here.open("/settings/password")
	here.fill("Current password", "not it")
	here.fill("New password", second)
	here.fill("New password, once more", second)
	here.click(here.button("Change password"))
	here.says(here.Locator("#f-current-error"), "not your password")
	here.fill("Current password", first)
	here.fill("New password", second)
	here.fill("New password, once more", second)
	here.click(here.button("Change password"))
	here.path("/settings")
	here.sees(here.GetByText("Password changed"))
	phone.click(phone.named(playwright.AriaRoleLink, "Sessions"))
	phone.logIn(name, second)
	phone.path("/settings/sessions")

	// So does an end from the list.
	here.click(here.named(playwright.AriaRoleLink, "Sessions"))
	here.says(here.Locator("#sessions"), "this one")
	here.click(here.named(playwright.AriaRoleButton, "End the session of"))
	here.sees(here.GetByText("That browser has to log in again."))
	phone.click(phone.link("Settings").First())
	phone.logIn(name, second)
	phone.path("/settings")

	// The log knows all that, under the name and in words.
	admin.open("/settings")
	admin.click(admin.named(playwright.AriaRoleLink, "Audit log"))
	admin.fill("Name", name)
	_, err := admin.field("What").SelectOption(playwright.SelectOptionValues{Labels: &[]string{"Logging in"}})
	admin.must(err)
	admin.click(admin.button("Filter"))
	for _, row := range []string{"End one of the own sessions", "Change the own password", "Log in"} {
		admin.sees(admin.Locator("#audit-list tr", playwright.PageLocatorOptions{HasText: row}).First())
	}
	if n, err := admin.Locator("#audit-list tbody tr").Count(); err != nil || n != 7 {
		t.Errorf("%d entries (%v), want four logins, a refused and a changed password, an ended session", n, err)
	}

	admin.open("/settings/users?q=" + name)
	admin.click(admin.link(name))
	admin.click(admin.link("Delete " + name))
	admin.click(admin.button("Delete “" + name + "”"))
	admin.path("/settings/users")
	phone.click(phone.link("Fleet"))
	phone.path("/login")
}

// A token is shown once, opens the API with its role, and is worth nothing
// after it was revoked.
func TestATokensLife(t *testing.T) {
	t.Parallel()
	name := "monitoring-" + uuid.NewString()[:8]
	p := newPage(t)
	p.open("/settings")
	p.click(p.named(playwright.AriaRoleLink, "API tokens"))
	p.click(p.link("Make a token"))
	p.fill("What it is for", name)
	p.click(p.button("Make token"))
	token := p.text(p.Locator("#token"))
	p.click(p.button("Copy"))
	p.sees(p.button("Copied"))

	program := suite.target
	program.session = nil
	asks := func(method, path string, want int) {
		t.Helper()
		a := program.api(t).send(method, path, nil, "Authorization", "Bearer "+token)
		if a.status != want {
			t.Errorf("%s %s answers %d, want %d: %s", method, path, a.status, want, a.body)
		}
	}
	asks("GET", "/api/hosts", http.StatusOK)
	asks("POST", "/api/hosts", http.StatusForbidden) // a viewer's
	p.click(p.link("I have copied it"))
	row := p.Locator("tr", playwright.PageLocatorOptions{HasText: name})
	p.says(row, "just now")

	p.click(row.GetByRole(*playwright.AriaRoleLink))
	p.click(p.button("Keep “" + name + "”"))
	p.click(row.GetByRole(*playwright.AriaRoleLink))
	p.click(p.button("Revoke “" + name + "”"))
	p.sees(p.GetByText("Programs that use it are refused"))
	p.hidden(row)
	asks("GET", "/api/hosts", http.StatusUnauthorized)
}
