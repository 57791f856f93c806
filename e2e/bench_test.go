package e2e

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"
	"time"
)

const (
	benchFiles = 17_000
	// One pair's ratio strays by a twentieth and more: only many tell.
	benchPairs = 40
	// benchChanged is how many files are new before each pair.
	benchChanged = 100
	// maxOverhead is what a managed backup may take longer than plain restic.
	maxOverhead = 1.05
)

// BenchmarkManagedBackup compares incremental backups of many small files by an
// agent, from the click to the job's end, with the same backups by plain
// restic. The two take turns, so that what else the machine does falls on both:
// the median of the pairs' ratios counts.
// Where the include list is edited before every backup, plain restic is named
// its parent by hand; without, it would read everything again.
func BenchmarkManagedBackup(b *testing.B) {
	for _, c := range []struct {
		name   string
		edited bool
	}{{"unchanged-includes", false}, {"edited-includes", true}} {
		b.Run(c.name, func(b *testing.B) {
			for b.Loop() {
				comparePairs(b, c.edited)
			}
		})
	}
}

func comparePairs(b *testing.B, edited bool) {
	h := suite.target.newHost(b)
	// Without the script that counts: it is the tests', not the product's.
	if err := os.Remove(h.restic); err != nil {
		b.Fatal(err)
	}
	if err := os.Symlink(suite.restic, h.restic); err != nil {
		b.Fatal(err)
	}
	managed, plain := localRepo(b), localRepo(b)
	h.store(managed)
	h.ready()
	// A copy: init measures the machine of its moment to choose how dear the
	// password's key is, and every later start pays that.
	if err := os.CopyFS(plain.url, os.DirFS(managed.url)); err != nil {
		b.Fatal(err)
	}
	plain.password = managed.password
	tree := h.dir + "/tree"
	for i := range benchFiles {
		writeFiles(b, tree, map[string]string{fmt.Sprintf("d%03d/f%05d", i%170, i): fmt.Sprintf("file %d\n%s", i, noise(200))})
	}
	includes := []string{tree}
	group := h.group("tree", includes)
	p := &plainRestic{b: b, repo: plain, dir: h.dir + "/plain"}
	h.managedBackup(group)
	p.backup(includes)

	var ratios []float64
	best := [2]time.Duration{time.Hour, time.Hour}
	for pair := range benchPairs {
		for i := range benchChanged {
			writeFiles(b, tree, map[string]string{fmt.Sprintf("d%03d/new-%d-%d", i, pair, i): noise(200)})
		}
		if edited {
			includes = append(includes, writeFiles(b, fmt.Sprintf("%s/more-%02d", h.dir, pair), map[string]string{"one": "one"}))
			h.include(group, includes)
		}
		var took [2]time.Duration
		turns := []func(){
			func() { took[0] = h.managedBackup(group) },
			func() { took[1] = p.backup(includes) },
		}
		if pair%2 == 1 {
			slices.Reverse(turns)
		}
		for _, turn := range turns {
			turn()
		}
		ratios = append(ratios, took[0].Seconds()/took[1].Seconds())
		best[0], best[1] = min(best[0], took[0]), min(best[1], took[1])
	}
	slices.Sort(ratios)
	median := (ratios[benchPairs/2-1] + ratios[benchPairs/2]) / 2
	quickest := best[0].Seconds() / best[1].Seconds()
	b.Logf("%d pairs, quickest managed %s, plain %s; ratios %.3f", benchPairs, best[0], best[1], ratios)
	b.ReportMetric(median, "ratio-median")
	b.ReportMetric(ratios[0], "ratio-min")
	b.ReportMetric(quickest, "ratio-of-quickest")
	if median > maxOverhead {
		b.Errorf("a managed backup takes %.3f times as long as plain restic (median of %d pairs); it may take %.2f times", median, benchPairs, maxOverhead)
	}
}

// managedBackup runs a group and tells how long it took by the server's clock.
func (h *host) managedBackup(group string) time.Duration {
	h.t.Helper()
	id := h.run(group)
	h.acknowledged(id) // asking the server all the time would be work of its own
	j := h.api().job(id)
	if j.State != "succeeded" {
		h.t.Fatalf("the backup is %s: %s", j.State, j.Error)
	}
	return j.FinishedAt.Sub(*j.QueuedAt)
}

// include edits a group's include list.
func (h *host) include(group string, includes []string) {
	h.t.Helper()
	h.api().call("PUT", "/api/hosts/"+h.id+"/source-groups/"+group, map[string]any{
		"name": "tree", "tag": "tree", "includes": includes, "excludes": []string{}, "retention": map[string]any{},
	}, http.StatusOK, nil)
}

// plainRestic is a person with a script.
type plainRestic struct {
	b      *testing.B
	repo   *repo
	dir    string // its cache
	parent string
}

func (p *plainRestic) backup(includes []string) time.Duration {
	p.b.Helper()
	args := []string{"backup", "--json", "--host=plain", "--tag=tree", "--cache-dir=" + filepath.Join(p.dir, "cache")}
	if p.parent != "" {
		args = append(args, "--parent="+p.parent)
	}
	cmd := exec.CommandContext(p.b.Context(), suite.restic, append(args, includes...)...)
	cmd.Env = append(os.Environ(), "RESTIC_REPOSITORY="+p.repo.url, "RESTIC_PASSWORD="+p.repo.password)
	if err := os.MkdirAll(p.dir, 0o700); err != nil {
		p.b.Fatal(err)
	}
	// To a file, as the agent does.
	out, err := os.Create(filepath.Join(p.dir, "stdout"))
	if err != nil {
		p.b.Fatal(err)
	}
	defer out.Close()
	cmd.Stdout, cmd.Stderr = out, out
	begin := time.Now()
	if err := cmd.Run(); err != nil {
		p.b.Fatal(err)
	}
	took := time.Since(begin)
	raw, err := os.ReadFile(out.Name())
	if err != nil {
		p.b.Fatal(err)
	}
	lines := bytes.Split(bytes.TrimSpace(raw), []byte("\n"))
	var summary struct {
		SnapshotID string `json:"snapshot_id"`
	}
	if err := json.Unmarshal(lines[len(lines)-1], &summary); err != nil || summary.SnapshotID == "" {
		p.b.Fatalf("no summary: %s", lines[len(lines)-1])
	}
	p.parent = summary.SnapshotID
	return took
}
