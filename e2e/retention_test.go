package e2e

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/playwright-community/playwright-go"
)

// A person changes the policy of a group with a dozen snapshots and sees, before
// anything is stored, what the host's own restic would keep: also of an older
// tag of the group's, and nothing of anybody else's. Then, in the danger zone, all
// of them go but the one that is held, and the group is as fresh as that.
func TestAPolicyIsSeenBeforeItIsStored(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	r := localRepo(t)
	h.bind(r)
	docs := writeFiles(t, h.dir+"/docs", map[string]string{"a": "a"})
	group := h.group("docs", []string{docs})
	var host struct {
		ResticHost string `json:"restic_host"`
	}
	at := "/api/hosts/" + h.id
	h.api().call("GET", at, nil, http.StatusOK, &host)
	day := time.Date(2026, 10, 1, 12, 0, 0, 0, time.UTC)
	for i := range 12 {
		r.restic("backup", "--quiet", "--host", host.ResticHost, "--tag", "docs", "--time", day.AddDate(0, 0, i).Format(time.DateTime), docs)
	}
	other := writeFiles(t, h.dir+"/other", map[string]string{"b": "b"})
	r.restic("backup", "--quiet", "--host", host.ResticHost, "--tag", "by hand", "--time", day.AddDate(0, 0, -1).Format(time.DateTime), other)
	h.api().call("PUT", at+"/source-groups/"+group, map[string]any{"name": "docs", "tag": "papers", "includes": []string{docs}}, http.StatusOK, nil)

	var plan struct {
		Keep, Remove []struct {
			ID      string
			Reasons []string
		}
	}
	h.api().call("POST", at+"/source-groups/"+group+"/retention-preview", map[string]any{"retention": map[string]any{"keep_daily": 5}}, http.StatusOK, &plan)
	if len(plan.Keep) != 5 || len(plan.Remove) != 7 || fmt.Sprint(plan.Keep[0].Reasons) != "[daily snapshot]" || len(plan.Remove[0].Reasons) != 0 {
		t.Errorf("%+v", plan)
	}

	p := newPage(t)
	p.open("/hosts/" + h.id + "/source-groups/" + group)
	preview := p.Locator("#retention-preview")
	p.says(preview, "Nothing is changed by looking")
	p.fill("Daily", "5")
	p.says(preview, "Would keep 5, remove 7 of 12.")
	p.says(preview, "daily snapshot")

	// An answer that comes after a newer one doesn't stand in its place.
	let, late := make(chan struct{}), make(chan struct{})
	p.must(p.Route("**/retention-preview", func(r playwright.Route) {
		defer close(late)
		answer, err := r.Fetch()
		if err != nil {
			p.note("the older preview: " + err.Error())
			return
		}
		<-let
		_ = r.Fulfill(playwright.RouteFulfillOptions{Response: answer}) // the page may have given up on it
	}, 1))
	_, err := p.ExpectRequest("**/retention-preview", func() error { return p.field("Daily").Fill("3") })
	p.must(err)
	p.fill("Daily", "2")
	p.says(preview, "Would keep 2, remove 10 of 12.")
	close(let)
	<-late
	p.script(`async () => {
		await (await fetch(location.href)).text();
		await new Promise((drawn) => requestAnimationFrame(() => requestAnimationFrame(drawn)));
	}`)
	if text := p.text(preview); !strings.Contains(text, "Would keep 2, remove 10 of 12.") {
		t.Errorf("after an older answer came late it says %q", text)
	}
	p.fill("Daily", "")
	p.fill("Everything with these tags", "nothing has it")
	p.says(preview, "keeps none of the group’s snapshots")
	if n := len(r.snapshots()); n != 13 {
		t.Errorf("looking left %d of 13 snapshots", n)
	}

	h.run(group)
	list := h.listed(14)
	held, byHand := list[12].ID, list[13].ID
	h.api().call("PATCH", at+"/snapshots/"+held, map[string]any{"held": true}, http.StatusOK, nil)
	p.open("/hosts/" + h.id + "/danger")
	p.click(p.link("Remove 12 snapshots"))
	p.says(p.Locator("#dialog"), "1 held one stays.")
	p.fill("Type “docs” to go on", "docs")
	p.click(p.button("Remove 12 snapshots"))
	p.says(p.Locator("#job [role=status]"), "Good")
	if list = h.listed(2); list[0].ID != held || list[1].ID != byHand {
		t.Errorf("left are %+v", list)
	}
	if left := r.snapshots(); len(left) != 2 {
		t.Errorf("the repository has %d snapshots", len(left))
	}
	p.open("/hosts/" + h.id)
	p.sees(p.Locator("#groups time[datetime^='2026-10-01']"))
}
