package e2e

import (
	"testing"

	"github.com/playwright-community/playwright-go"
)

// A person turns forget on, knowing what it will do and when, runs all three and
// sees what each did; the host beside it on the same repository leaves prune and
// check to the first, which waits for its backup and says so. Damage is said to
// both, until the part that was found damaged is found good.
func TestMaintenanceIsTurnedOnRunAndShared(t *testing.T) {
	t.Parallel()
	first, second := newHost(t), newHost(t)
	r := localRepo(t)
	first.bind(r)
	second.bind(r)
	docs := first.keeping("docs", first.dir+"/docs", map[string]any{"keep_last": 2})
	films := second.group("films", []string{writeFiles(t, second.dir+"/films", map[string]string{"a": "ah"})})
	for range 3 {
		writeFiles(t, first.dir+"/docs", map[string]string{"a": noise(2 << 20)})
		first.api().state(first.run(docs), "succeeded")
	}

	tab := "/hosts/" + first.id + "/maintenance"
	p := newPage(t)
	p.open("/hosts/" + first.id)
	p.click(p.link("off (Forget)"))
	p.sees(p.heading("When forget runs on " + first.name))
	row := func(kind string) playwright.Locator { return p.Locator("#maintenance-" + kind) }
	p.open(tab)
	p.mark()
	p.sees(p.heading("Nothing keeps this repository small and checked yet"))
	p.says(row("forget"), "03:30 (Europe/Berlin) snapshots that no policy keeps are removed: docs keeps the last 2 snapshots.")
	p.click(p.button("Turn on forget"))
	p.sees(p.heading("Prune and check are off; the rest is kept up"))
	p.says(row("forget"), "Next:")
	p.sees(p.button("Turn off forget"))
	p.unreloaded()

	for _, c := range []struct {
		kind string
		did  []string
	}{
		{"forget", []string{"docs: 1 removed, 2 kept"}},
		{"prune", []string{"Freed", "MiB", "Left in the repository"}},
		{"check", []string{"Data read", "part 1 of 12"}},
	} {
		p.open(tab)
		p.click(p.button("Run now " + c.kind))
		p.says(row(c.kind), "Good")
		p.click(row(c.kind).GetByRole(*playwright.AriaRoleLink, playwright.LocatorGetByRoleOptions{Name: "Good", Exact: playwright.Bool(true)}))
		for _, did := range c.did {
			p.says(p.Locator("#maintained"), did)
		}
	}
	if n := len(r.snapshots()); n != 2 {
		t.Errorf("%d snapshots are left", n)
	}
	p.open(tab)
	p.mark()
	p.says(p.Locator("#check-round"), "1 of 12 parts")
	first.maintain("check")
	p.says(p.Locator("#check-round"), "2 of 12 parts")
	p.unreloaded()

	other := newPage(t)
	other.open("/hosts/" + second.id)
	other.sees(other.link("off (Forget)"))
	other.sees(other.link("none (Second credentials)"))
	other.click(other.link("by another host (Prune)"))
	other.path("/hosts/" + first.id + "/maintenance")
	other.open("/hosts/" + second.id + "/maintenance")
	other.says(other.Locator("#maintenance-prune"), "Prune of this repository is done by "+first.name)
	other.says(other.Locator("#owner"), first.name+" prunes and checks it for all")
	other.sees(other.button("Run now forget"))
	other.hidden(other.button("Run now prune"))
	other.hidden(other.button("Run now check"))

	letGo := second.holdBackups()
	held := second.run(films)
	second.api().state(held, "running")
	p.click(p.button("Run now prune"))
	p.says(row("prune"), "Waiting")
	p.says(row("prune"), "It waits for the backup of films on "+second.name)
	letGo()
	p.says(row("prune"), "Good")
	p.unreloaded()
	second.api().state(held, "succeeded")

	mend := r.losePacks()
	first.maintain("check")
	p.sees(p.heading("The repository is damaged"))
	p.says(p.Locator("#damage"), "Damage was found in part 3 of 12 of the data")
	other.open("/hosts/" + second.id + "/maintenance")
	other.says(other.Locator("#damage"), "The check is done by "+first.name)
	mend()
	p.click(p.button("Check again"))
	p.hidden(p.Locator("#damage"))
	p.says(p.Locator("#check-round"), "3 of 12 parts")
	p.unreloaded()
}
