package e2e

import (
	"encoding/json"
	"net/http"
	"slices"
	"testing"

	"github.com/playwright-community/playwright-go"
)

// A group that schedules refer to is taken out of them first, in the same
// dialog that asks whether to delete it.
func TestGroupIsRemovedFromItsSchedulesFirst(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	www, etc := h.group("www", []string{"/srv/www"}), h.group("etc", []string{"/etc"})
	nightly := h.schedule("0 2 * * *", true, www, etc)
	h.schedule("0 * * * *", false, www)

	a := h.api().send("DELETE", "/api/hosts/"+h.id+"/source-groups/"+www, nil)
	var conflict struct {
		Schedules []struct {
			ID, Cron string
			Enabled  bool
		}
	}
	if err := json.Unmarshal(a.body, &conflict); err != nil || a.status != http.StatusConflict || len(conflict.Schedules) != 2 {
		t.Fatalf("DELETE of a group in two schedules: status %d, %v: %s", a.status, err, a.body)
	}

	p := newPage(t)
	p.open("/hosts/" + h.id)
	p.click(p.link("www"))
	p.click(p.link("Delete this source group"))
	dialog := p.Locator("#dialog")
	p.sees(p.heading("“www” is still in two schedules"))
	p.must(p.Keyboard().Press("Escape"))
	p.hidden(dialog)
	p.must(p.expect.Locator(p.link("Delete this source group")).ToBeFocused())

	// From here on by keyboard alone: what is asked next has the focus.
	press := func(keys ...string) {
		t.Helper()
		for _, key := range keys {
			p.must(p.Keyboard().Press(key))
		}
	}
	press("Enter")
	p.says(dialog, "with etc")
	p.says(dialog, "its only group: the schedule goes too")
	p.must(p.expect.Locator(p.button("Delete “www”")).ToBeDisabled())
	p.must(p.expect.Locator(p.button("Keep “www”")).ToBeFocused())
	press("Shift+Tab", "Shift+Tab")
	p.must(p.expect.Locator(p.button("Remove from Every day at 02:00")).ToBeFocused())
	press("Enter")
	p.sees(p.heading("“www” is still in one schedule"))
	p.must(p.expect.Locator(dialog.GetByRole(*playwright.AriaRoleButton, playwright.LocatorGetByRoleOptions{Name: "Remove from"})).ToBeFocused())
	press("Enter")
	p.sees(p.heading("Delete “www”?"))
	p.says(dialog, "Its snapshots stay in the repository")
	p.must(p.expect.Locator(p.button("Keep “www”")).ToBeFocused())
	press("Tab")
	p.must(p.expect.Locator(p.button("Delete “www”")).ToBeFocused())
	press("Enter")
	p.path("/hosts/" + h.id)
	p.hidden(p.link("www"))
	p.sees(p.link("etc"))

	var left struct {
		Items []struct {
			ID     string
			Groups []string `json:"source_group_ids"`
		}
	}
	h.api().call("GET", "/api/hosts/"+h.id+"/schedules", nil, http.StatusOK, &left)
	if len(left.Items) != 1 || left.Items[0].ID != nightly || !slices.Equal(left.Items[0].Groups, []string{etc}) {
		t.Errorf("schedules left: %+v, want %s with etc alone", left.Items, nightly)
	}
}

// The danger zone, from the harmless end to the other: a dead restic's lock
// goes, a repository that is there stays as it is, and a host goes when its name
// is typed, and its agent is told why.
func TestDangerZoneAsksAndThenActs(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	r := localRepo(t)
	h.bind(r)
	r.strandLock()
	p := newPage(t)
	ask := func(act string) {
		t.Helper()
		p.open("/hosts/" + h.id)
		p.click(p.link("Danger zone"))
		p.click(p.link(act))
		p.sees(p.Locator("#dialog"))
	}
	ask("Unlock")
	p.says(p.Locator("#dialog"), "A lock whose restic lives is never taken away")
	p.click(p.button("Unlock"))
	p.says(p.Locator("#job [role=status]"), "Good")
	if locks := r.locks(); len(locks) != 0 {
		t.Errorf("locks %v are left", locks)
	}
	config := string(r.restic("cat", "config"))
	ask("Set up again")
	p.click(p.button("Set up again"))
	p.says(p.Locator("#job [role=status]"), "Good")
	if now := string(r.restic("cat", "config")); now != config {
		t.Errorf("the repository is another: %s, before %s", now, config)
	}

	ask("Delete “" + h.name + "”")
	name := p.field("Type “" + h.name + "” to go on")
	p.must(name.Fill("something else"))
	p.click(p.button("Delete “" + h.name + "”"))
	p.says(p.Locator("#dialog"), "That is not its name")
	p.must(p.expect.Locator(name).ToBeFocused())
	p.must(name.Fill(h.name))
	p.click(p.button("Delete “" + h.name + "”"))
	p.path("/")
	if res := p.open("/hosts/" + h.id); res.Status() != http.StatusNotFound {
		t.Errorf("the deleted host's page answers %d", res.Status())
	}
	p.sees(p.heading("There is nothing here"))
	if _, err := h.agent.line("deleted", startPatience); err != nil {
		t.Error(err)
	}
}
