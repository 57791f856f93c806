package e2e

import (
	"net/http"
	"testing"
	"time"

	"resticfleet/e2e/weather"
)

// A host behind a proxy that lets no WebSocket through is a full citizen: it
// enrols, its repository is made, Run now starts at once, its schedules fire,
// its progress is watched and its jobs are cancelled; its page says why it
// polls. When the proxy lets go, it is back on the WebSocket within a minute.
func TestAHostBehindAProxyWithoutUpgradesIsAFullCitizen(t *testing.T) {
	t.Parallel()
	proxy := before(t, suite.target)
	proxy.Set(weather.Climate{Odds: map[weather.Fault]float64{weather.Strip: 1}})
	h := proxy.target.newHost(t)
	r := localRepo(t)
	h.bind(r) // which waits for the init
	p := newPage(t)
	p.open("/hosts/" + h.id)
	p.mark()
	main := p.Locator("main")
	p.says(main, "polling for")
	p.says(main, "Linked by polling")
	p.says(main, "No WebSocket: the server refused: the request came without its upgrade")

	group := h.group("films", []string{writeFiles(t, h.dir+"/films", songs(48))})
	letGo := h.holdBackups(slowly(4 * 1024)...) // until somebody looks
	p.click(p.button("Run now films"))
	p.sees(p.button("Cancel the backup of films"))
	p.click(p.Locator("#groups a[href^='/jobs/']").First())
	p.sees(p.heading("Backup of films"))
	id := p.pathPart(2)
	p.script(watchPercent)
	p.says(p.Locator("#job [role=status]"), "Running")
	letGo()
	p.says(p.Locator("#job [role=status]"), "Good")
	if seen := p.script("percentages").([]any); len(seen) < 3 {
		t.Errorf("the page showed %v, want at least three percentages", seen)
	}
	p.logIsTrue(id)
	j := h.api().job(id)
	took := j.StartedAt.Sub(*j.QueuedAt)
	t.Logf("Run now started after %v", took)
	if took > 2*time.Second {
		t.Errorf("Run now started only after %v", took)
	}

	writeFiles(t, h.dir+"/films", map[string]string{"c": noise(24 << 20)})
	h.useRestic(slowly(1024)...)
	cancelled := h.run(group)
	p.open("/jobs/" + cancelled)
	p.sees(p.Locator("[data-percent]"))
	p.click(p.button("Cancel Backup of films"))
	p.says(p.Locator("#job [role=status]"), "Cancelled")
	if n := h.started("backup"); n != 2 || len(r.snapshots()) != 1 || len(r.locks()) != 0 {
		t.Errorf("restic backed up %d times and left %v, locks %v", n, r.snapshots(), r.locks())
	}

	h.useRestic() // in its own time
	schedule := h.schedule("@every 2s", true, group)
	eventually(t, "the schedule has made a backup", func() bool {
		for _, j := range h.api().jobs("kind=backup&state=succeeded&host_id=" + h.id) {
			if j.ActorKind == "schedule" {
				return true
			}
		}
		return false
	})
	h.api().call("DELETE", "/api/hosts/"+h.id+"/schedules/"+schedule, nil, http.StatusNoContent, nil)
	eventually(t, "the agent no longer has it", func() bool {
		current, applied := h.versions()
		return current == applied
	})

	p.open("/hosts/" + h.id)
	p.says(main, "polling for")
	p.mark()
	proxy.Set(weather.Climate{})
	began := time.Now()
	var link struct{ Link string }
	within(t, time.Minute, "the host is back on the WebSocket", func() bool {
		h.api().call("GET", "/api/hosts/"+h.id, nil, http.StatusOK, &link)
		return link.Link == "websocket"
	})
	t.Logf("back after %v", time.Since(began))
	h.api().end(h.run(group))
}
