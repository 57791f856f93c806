package e2e

import (
	"slices"
	"testing"
)

func TestRunNowLandsInTheRepository(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	r := localRepo(t)
	source := writeFiles(t, h.dir+"/source", map[string]string{"a.txt": "a", "b.tmp": "b"})
	h.bind(r)
	j := h.api().end(h.run(h.group("docs", []string{source}, "*.tmp")))
	if j.State != "succeeded" {
		t.Fatalf("%+v", j)
	}
	if got, want := r.list(j.snapshot()), []string{source + "/a.txt"}; !slices.Equal(got, want) {
		t.Errorf("snapshot has %q, want %q", got, want)
	}
	p := newPage(t)
	p.open("/jobs/" + j.ID)
	p.sees(p.heading("Backup of docs"))
}
