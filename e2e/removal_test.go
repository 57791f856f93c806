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
	p.sees(p.heading("“www” is still in 2 schedules"))
	p.must(p.Keyboard().Press("Escape"))
	p.hidden(dialog)
	p.must(p.expect.Locator(p.link("Delete this source group")).ToBeFocused())

	p.click(p.link("Delete this source group"))
	p.says(dialog, "with etc")
	p.says(dialog, "its only group: the schedule goes too")
	p.must(p.expect.Locator(p.button("Delete “www”")).ToBeDisabled())
	p.click(p.button("Remove from Every day at 02:00"))
	p.sees(p.heading("“www” is still in 1 schedule"))
	p.click(dialog.GetByRole(*playwright.AriaRoleButton, playwright.LocatorGetByRoleOptions{Name: "Remove from"}))
	p.sees(p.heading("Delete “www”?"))
	p.says(dialog, "Its snapshots stay in the repository")
	p.click(p.button("Delete “www”"))
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

// A host goes when its name is typed, and its agent is told why.
func TestHostIsDeletedByItsName(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	p := newPage(t)
	p.open("/hosts/" + h.id)
	p.click(p.link("Delete " + h.name))
	name := p.field("Type “" + h.name + "” to go on")
	p.must(name.Fill("something else"))
	p.click(p.button("Delete “" + h.name + "”"))
	p.says(p.Locator("#dialog"), "That is not its name")
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
