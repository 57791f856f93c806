package e2e

import (
	"net/http"
	"strings"
	"testing"

	"github.com/playwright-community/playwright-go"
)

// versions are a host's schedule versions: the server's, and the one that the
// agent has confirmed.
func (h *host) versions() (current, applied int64) {
	h.t.Helper()
	var v struct {
		Current int64 `json:"schedule_version"`
		Applied int64 `json:"applied_schedule_version"`
	}
	h.api().call("GET", "/api/hosts/"+h.id, nil, http.StatusOK, &v)
	return v.Current, v.Applied
}

// A schedule made in the form reaches the agent, and the agent's clock makes
// jobs of it.
func TestScheduleFromTheFormFires(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	r := localRepo(t)
	source := writeFiles(t, h.dir+"/docs", map[string]string{"a.txt": "a"})
	h.bind(r)
	group := h.group("docs", []string{source})
	h.group("other", []string{source})
	p := newPage(t)
	p.open("/hosts/" + h.id)
	p.click(p.link("Add schedule"))

	before, _ := h.versions()
	preview := p.Locator("#cron-preview")
	docs := p.field("docs " + source)
	p.must(docs.Check())
	for _, bad := range []struct{ typed, says string }{
		{"61 * * * *", "61"},
		{"0 0 30 2 *", "never"},
		{"0 0 2 * * *", "six fields"},
		{"@every 500ms", "second"},
		{"CRON_TZ=Mars/Olympus 0 2 * * *", "Mars/Olympus"},
	} {
		p.fill("When", bad.typed)
		// The answer before must not come after the next is typed.
		_, err := p.ExpectResponse(func(url string) bool { return strings.HasSuffix(url, "/schedules") }, func() error { return p.button("Add schedule").Click() })
		p.must(err)
		p.must(p.expect.Locator(p.field("When")).ToHaveAttribute("aria-invalid", "true"))
		p.says(preview, bad.says)
		p.must(p.expect.Locator(p.field("When")).ToHaveValue(bad.typed))
		p.must(p.expect.Locator(docs).ToBeChecked())
	}
	if now, _ := h.versions(); now != before {
		t.Errorf("refused schedules moved the version from %d to %d", before, now)
	}

	p.click(p.button("Weekdays"))
	p.says(preview, "02:00")
	p.must(p.expect.Locator(preview.Locator("li")).ToHaveCount(5))
	p.fill("When", "@every 2s")
	p.says(preview, "Every 2 seconds")
	p.says(preview, "Europe/Berlin")
	p.must(p.expect.Locator(preview.Locator("li")).ToHaveCount(5))
	p.click(p.button("Add schedule"))
	p.path("/hosts/" + h.id)
	p.mark()
	row := p.Locator("#schedules li").Filter(playwright.LocatorFilterOptions{HasText: "@every 2s"})
	p.says(row, "Every 2 seconds")

	// Pushed: the agent has confirmed the version, and the page has nothing to
	// say about it any more.
	eventually(t, "the agent has the new version", func() bool {
		current, applied := h.versions()
		return current == before+1 && applied == current
	})
	p.hidden(p.Locator("#schedule-lag"))

	var made job
	eventually(t, "the schedule has made a backup", func() bool {
		for _, j := range h.api().jobs("kind=backup&state=succeeded&host_id=" + h.id) {
			if j.ActorKind == "schedule" {
				made = j
			}
		}
		return made.ID != ""
	})
	if made.ScheduledAt == nil || made.ScheduledAt.Unix()%2 != 0 {
		t.Errorf("scheduled_at %v, want a multiple of 2 s since the epoch", made.ScheduledAt)
	}
	if made.ScheduledID == nil || *made.SourceGroupID != group {
		t.Errorf("the job is of schedule %v and group %v", made.ScheduledID, *made.SourceGroupID)
	}
	p.must(p.Mouse().Move(0, 0))
	p.says(p.Locator("#recent-jobs"), "schedule")

	// Whoever is among the rows keeps them; what came meanwhile comes then.
	newest := p.Locator("#recent-jobs tbody tr").First()
	p.must(newest.Hover())
	was, err := newest.GetAttribute("id")
	p.must(err)
	p.sees(p.GetByText("show when you leave the list"))
	p.must(p.expect.Locator(newest).ToHaveAttribute("id", was))
	p.must(p.Mouse().Move(0, 0))
	p.must(p.expect.Locator(newest).Not().ToHaveAttribute("id", was))

	// The switch stays under the pointer, however long the agent takes to confirm.
	h.kill()
	p.says(p.Locator("#host"), "last seen")
	toggle := row.GetByRole(*playwright.AriaRoleSwitch)
	places := func() string {
		return p.script(`JSON.stringify([...document.querySelectorAll("#schedules [role=switch], #recent-jobs")].map(e => e.getBoundingClientRect().top))`).(string)
	}
	there, lagging := places(), p.Locator("#schedule-lag")
	p.click(toggle)
	p.must(p.expect.Locator(toggle).ToHaveAttribute("aria-checked", "false"))
	p.says(row, "off")
	p.says(lagging, "The agent is away")
	if now := places(); now != there {
		t.Errorf("while the agent lags the schedules are at %s, before at %s", now, there)
	}
	h.start()
	p.hidden(lagging)
	if now := places(); now != there {
		t.Errorf("when the agent has confirmed the schedules are at %s, before at %s", now, there)
	}
	p.unreloaded()
	eventually(t, "the agent has the schedule switched off", func() bool {
		current, applied := h.versions()
		return current == before+2 && applied == current
	})

	p.open("/jobs/" + made.ID)
	p.says(p.Locator("#job"), "started by the schedule Every 2 seconds")
	var snapshots int
	for _, s := range r.snapshots() {
		if s.ID == made.snapshot() {
			snapshots++
		}
	}
	if snapshots != 1 {
		t.Errorf("the repository has snapshot %s %d times", made.snapshot(), snapshots)
	}
}
