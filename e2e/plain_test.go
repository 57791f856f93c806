package e2e

import (
	"testing"

	"github.com/playwright-community/playwright-go"
)

// Everything an operator needs in an emergency works in a browser that runs no
// scripts: forms are posts, and a reload is how one looks again.
func TestWithoutScripts(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	r := localRepo(t)
	source := writeFiles(t, h.dir+"/docs", map[string]string{"a.txt": "a"})
	h.bind(r)
	p := suite.target.page(t, pageOptions{stranger: true, noScript: true})

	p.open("/hosts/" + h.id)
	p.path("/login")
	p.fill("User name", suite.target.user)
	p.fill("Password", suite.target.password)
	p.click(p.button("Log in"))
	p.path("/hosts/" + h.id)

	p.click(p.link("Add source group"))
	p.fill("Name", "docs")
	p.fill("Tag", "docs,letters")
	p.fill("What to back up", h.dir+"/elsewhere")
	p.click(p.button("Add path"))
	p.fill("What to back up, path 2", source)
	p.click(p.button("Remove path 1"))
	p.fill("Daily", "7")
	p.click(p.button("Add source group"))
	p.says(p.Locator("#f-tag-error"), "comma")
	p.must(p.expect.Locator(p.field("What to back up")).ToHaveValue(source))
	p.must(p.expect.Locator(p.field("Daily")).ToHaveValue("7"))
	p.says(p.Locator("#retention-words"), "Keeps the last 7 daily snapshots")
	p.fill("Tag", "docs")
	p.click(p.button("Add source group"))
	p.path("/hosts/" + h.id)

	p.click(p.link("Add schedule"))
	p.fill("When", "99 2 * * *")
	p.must(p.field("docs " + source).Check())
	p.click(p.button("Add schedule"))
	p.must(p.expect.Locator(p.field("When")).ToHaveValue("99 2 * * *"))
	p.must(p.expect.Locator(p.field("docs " + source)).ToBeChecked())
	p.click(p.button("Every hour"))
	p.must(p.expect.Locator(p.field("When")).ToHaveValue("0 * * * *"))
	p.fill("When", "30 2 * * 1-5")
	p.click(p.button("What does it mean?"))
	p.says(p.Locator("#cron-preview"), "Monday to Friday at 02:30")
	p.must(p.expect.Locator(p.field("docs " + source)).ToBeChecked())
	p.click(p.button("Add schedule"))
	p.path("/hosts/" + h.id)
	p.says(p.Locator("#schedules"), "Monday to Friday")
	p.click(p.GetByRole(*playwright.AriaRoleSwitch))
	p.path("/hosts/" + h.id)
	p.says(p.Locator("#schedules"), "off")

	p.click(p.button("Run now docs"))
	p.path("/hosts/" + h.id)
	p.click(p.link("Backup of docs"))
	state := p.Locator("#job [role=status]")
	eventually(t, "the job's page says Good after a reload", func() bool {
		_, err := p.Reload()
		p.must(err)
		return p.text(state) == "Good"
	})
	if n := len(r.snapshots()); n != 1 {
		t.Errorf("the repository has %d snapshots, want 1", n)
	}

	// Destructive things ask on a page of their own.
	p.open("/hosts/" + h.id)
	p.click(p.link("docs"))
	p.click(p.link("Delete this source group"))
	p.sees(p.heading("“docs” is still in one schedule"))
	p.click(p.GetByRole(*playwright.AriaRoleButton, playwright.PageGetByRoleOptions{Name: "Remove from"}))
	p.sees(p.heading("Delete “docs”?"))
	p.click(p.link("Keep “docs”"))
	p.path("/hosts/" + h.id)
	p.sees(p.link("docs"))

	p.click(p.button("Run now docs"))
	list := h.listed(2)
	p.click(p.link("Maintenance"))
	p.click(p.button("Turn on check"))
	p.path("/hosts/" + h.id + "/maintenance")
	p.sees(p.button("Turn off check"))
	p.click(p.link("Change when check runs"))
	p.fill("How much of the data it reads", "13/12")
	p.click(p.button("Save"))
	p.says(p.Locator("#f-read_data_subset-error"), "t at most 256")
	p.fill("How much of the data it reads", "2/4")
	p.click(p.button("Save"))
	p.path("/hosts/" + h.id + "/maintenance")

	p.click(p.link("Snapshots"))
	p.click(p.Locator("#hold-" + list[1].ID))
	p.path("/hosts/" + h.id + "/snapshots")
	p.says(p.Locator("#snapshot-"+list[1].ID), "Held: nothing removes it")
	p.must(p.Locator("#a-" + list[1].ID).Check())
	p.must(p.Locator("#b-" + list[0].ID).Check())
	p.click(p.button("Compare the two"))
	p.path("/hosts/" + h.id + "/snapshots/compare")
	p.sees(p.Locator("#comparison"))
	eventually(t, "a reload shows the comparison", func() bool {
		_, err := p.Reload()
		p.must(err)
		there, err := p.Locator("#compared").IsVisible()
		p.must(err)
		return there
	})
}
