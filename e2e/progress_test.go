package e2e

import (
	"encoding/json"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

// slowly makes restic take its time: small packs, and few bytes a second. An
// interrupted restic still uploads the packs it has: not too few.
func slowly(kibPerSecond int) []string {
	return []string{"--pack-size=4", "--limit-upload=" + strconv.Itoa(kibPerSecond)}
}

// watchPercent notes every percentage that the page shows, however short.
const watchPercent = `() => {
	window.percentages = [];
	const note = () => {
		const text = document.querySelector("[data-percent]")?.textContent;
		if (text && text !== percentages.at(-1)) percentages.push(text);
	};
	new MutationObserver(note).observe(document.body, {subtree: true, childList: true, characterData: true});
	note();
}`

// songs are so many files of a MiB, which restic counts one after the other.
func songs(n int) map[string]string {
	files := map[string]string{}
	for i := range n {
		files["song-"+strconv.Itoa(i)] = noise(1 << 20)
	}
	return files
}

// A backup that takes a while: its page tells how far it is, then how it ended,
// and the log line by line, without ever being loaded anew.
func TestRunningJobIsWatchedToItsEnd(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	r := localRepo(t)
	h.bind(r)
	// Each time until somebody has looked; the log is longer than its box.
	letGo, letEnd := h.holdTwice(slowly(6 * 1024)...)
	h.group("music", []string{writeFiles(t, h.dir+"/music", songs(64))})

	p := newPage(t)
	p.open("/hosts/" + h.id)
	p.click(p.button("Run now music"))
	p.sees(p.button("Cancel the backup of music"))
	p.click(p.Locator("#groups a[href^='/jobs/']").First())
	p.sees(p.heading("Backup of music"))
	id := p.pathPart(2)
	p.script(watchPercent)
	p.mark()
	p.says(p.Locator("#job [role=status]"), "Running")
	box := p.Locator("[data-follow]")
	fromEnd := func() int {
		v, err := box.Evaluate("e => Math.round(e.scrollHeight - e.scrollTop - e.clientHeight)", nil)
		p.must(err)
		return v.(int)
	}
	p.says(box, "first look 30")
	letGo()
	p.says(box, "second look 30")
	if n := fromEnd(); n > 1 {
		t.Errorf("the log's end is %d px out of sight: it does not follow", n)
	}
	_, err := box.Evaluate("e => new Promise(done => { e.addEventListener('scroll', done, {once: true}); e.scrollTop = 0; })", nil)
	p.must(err)
	letEnd()
	p.says(p.Locator("#job [role=status]"), "Good")
	p.says(box, "third look 30")
	if top, err := box.Evaluate("e => e.scrollTop", nil); err != nil || top != 0 {
		t.Errorf("the log was moved to %v under who reads its beginning: %v", top, err)
	}
	p.unreloaded()

	seen := p.script("percentages").([]any)
	t.Logf("percentages: %v", seen)
	if len(seen) < 3 {
		t.Errorf("the page showed %v, want at least three percentages", seen)
	}
	j := h.api().job(id)
	p.says(p.Locator("#job"), "Written as snapshot "+j.snapshot()[:8])
	p.logIsTrue(j.ID)

	// It happened in about the time that the limit makes; else this test shows
	// nothing about a long job.
	if took := j.FinishedAt.Sub(*j.StartedAt).Seconds(); took < 3 {
		t.Errorf("the backup took %.1f s: it was not throttled", took)
	}
}

// holdTwice writes restic's script anew: a backup says thirty words three times,
// and waits in between until it is let go.
func (h *host) holdTwice(args ...string) (letGo, letEnd func()) {
	h.t.Helper()
	h.useRestic(args...)
	script, err := os.ReadFile(h.restic)
	if err != nil {
		h.t.Fatal(err)
	}
	steps := ""
	var lift []func()
	for _, look := range []string{"first", "second", "third"} {
		steps += "i=0; while [ $i -lt 30 ]; do i=$((i+1)); echo \"" + look + " look $i\" >&2; done; "
		if look == "third" {
			break
		}
		hold := filepath.Join(h.dir, look)
		if err := os.WriteFile(hold, nil, 0o600); err != nil {
			h.t.Fatal(err)
		}
		steps += "while [ -e '" + hold + "' ]; do sleep 0.05; done; "
		lift = append(lift, func() {
			if err := os.Remove(hold); err != nil {
				h.t.Error(err)
			}
		})
	}
	h.writeRestic(strings.Replace(string(script), "exec ", "if [ \"$1\" = backup ]; then "+steps+"fi\nexec ", 1))
	return lift[0], lift[1]
}

// logIsTrue compares the log on the page with the API's: every line once, in
// order.
func (p *page) logIsTrue(job string) {
	p.t.Helper()
	a := p.at.api(p.t).send("GET", "/api/jobs/"+job+"/log", nil, "Accept", "application/json")
	var log struct {
		Items []struct {
			Seq  int64
			Text string
		}
	}
	if err := json.Unmarshal(a.body, &log); err != nil || a.status != http.StatusOK {
		p.t.Fatalf("log: status %d, %v: %s", a.status, err, a.body)
	}
	if len(log.Items) == 0 {
		p.t.Fatal("the job has no log")
	}
	lines := p.Locator("#log > li")
	p.must(p.expect.Locator(lines).ToHaveCount(len(log.Items)))
	for i, want := range log.Items {
		line := lines.Nth(i)
		p.must(p.expect.Locator(line).ToHaveAttribute("id", "log-"+strconv.FormatInt(want.Seq, 10)))
		if got := p.text(line.Locator("span").Last()); got != want.Text {
			p.t.Errorf("log line %d is %q, want %q", want.Seq, got, want.Text)
		}
	}
}

// Cancel stops restic, and leaves the repository as if nothing had been.
func TestRunningJobIsCancelled(t *testing.T) {
	t.Parallel()
	h := newHost(t, slowly(1024)...)
	r := localRepo(t)
	h.bind(r)
	group := h.group("films", []string{writeFiles(t, h.dir+"/films", map[string]string{"a": noise(48 << 20)})})
	id := h.run(group)
	p := newPage(t)
	p.open("/jobs/" + id)
	p.mark()
	p.sees(p.Locator("[data-percent]"))
	if n := len(r.locks()); n != 1 {
		t.Errorf("a running backup has %d locks, want its one", n)
	}
	p.click(p.button("Cancel Backup of films"))
	p.says(p.Locator("#job"), "asked to stop")
	p.says(p.Locator("#job [role=status]"), "Cancelled")
	p.unreloaded()
	p.says(p.Locator("#job"), "No snapshot was written.")
	p.sees(p.button("Run again"))

	if j := h.api().job(id); j.State != "cancelled" || j.snapshot() != "" {
		t.Errorf("the job is %s with snapshot %q", j.State, j.snapshot())
	}
	if s := r.snapshots(); len(s) != 0 {
		t.Errorf("the repository has snapshots: %+v", s)
	}
	if l := r.locks(); len(l) != 0 {
		t.Errorf("the repository is still locked: %q", l)
	}
	eventually(t, "nothing of the job goes on", func() bool { return len(running(h.stateDir()+"/run/"+id)) == 0 })
	// A finished job can't be cancelled; the answer tells its state.
	a := h.api().send("POST", "/api/jobs/"+id+"/cancel", nil)
	var problem struct{ State string }
	if err := json.Unmarshal(a.body, &problem); err != nil || a.status != http.StatusConflict || problem.State != "cancelled" {
		t.Errorf("second cancel: status %d: %s", a.status, a.body)
	}
}
