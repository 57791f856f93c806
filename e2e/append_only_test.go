package e2e

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
)

// A host backs up to a server that lets it add and not remove. Its everyday
// credentials can't forget, and that is called what it is; with a second pair of
// credentials, which reach the same repository by a server that does, forget and
// prune work. A wrong second pair is named as that.
func TestAppendOnlyRepositoryWithASecondCredential(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	everyday := restServerOn(t, tempDir(t), "--append-only")
	keeper := restServerOn(t, everyday.dir)
	r := everyday.repo(t)
	r.env = map[string]string{"RESTIC_REST_USERNAME": "everyday", "RESTIC_REST_PASSWORD": unique("everyday-canary")}
	h.bind(r)
	docs := writeFiles(t, h.dir+"/docs", map[string]string{"a": "1"})
	group := h.keeping("docs", docs, map[string]any{"keep_last": 1})
	c := h.api()
	for n := range 3 {
		writeFiles(t, docs, map[string]string{"a": fmt.Sprint(n)})
		c.state(c.end(h.run(group)).ID, "succeeded")
	}
	maintain := func(kind string) job {
		t.Helper()
		var j job
		c.call("POST", "/api/hosts/"+h.id+"/repo-maintenance/"+kind+"/run", nil, http.StatusAccepted, &j)
		return c.end(j.ID)
	}
	if j := maintain("forget"); j.State != "failed" || j.ErrorCode == nil || *j.ErrorCode != "append_only" || len(r.snapshots()) != 3 {
		t.Errorf("with the everyday credentials: %s, %s", j.State, j.Error)
	}

	secret := unique("keeper-canary")
	credential := func(url, password string) {
		t.Helper()
		c.call("PUT", "/api/hosts/"+h.id+"/repository/maintenance-credential", map[string]any{
			"url": url, "password": password, "env": map[string]string{"RESTIC_REST_USERNAME": "keeper", "RESTIC_REST_PASSWORD": secret},
		}, http.StatusOK, nil)
	}
	second := strings.Replace(r.url, everyday.address, keeper.address, 1)
	credential(second, "not the password")
	if j := maintain("forget"); *j.ErrorCode != "wrong_password" || !strings.Contains(j.Error, "forget and prune") {
		t.Errorf("with a wrong second password: %v, %s", j.ErrorCode, j.Error)
	}
	other := keeper.repo(t)
	other.initialize()
	credential(other.url, other.password)
	if j := maintain("forget"); *j.ErrorCode != "wrong_repository" || len(r.snapshots()) != 3 {
		t.Errorf("with the credentials of another repository: %v, %s", j.ErrorCode, j.Error)
	}
	credential(second, r.password)
	for _, kind := range []string{"forget", "prune", "check"} {
		if j := maintain(kind); j.State != "succeeded" {
			t.Errorf("%s with the second credentials: %s: %s", kind, j.State, j.Error)
		}
	}
	if left := r.snapshots(); len(left) != 1 {
		t.Errorf("%d snapshots are left", len(left))
	}
	c.state(h.run(group), "succeeded") // by the everyday ones, as before

	canaries{secret, r.env["RESTIC_REST_PASSWORD"]}.inFiles(t, h.stateDir(), h.name)
}
