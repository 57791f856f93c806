package api_test

import "testing"

func TestMaintenanceNow(t *testing.T) {
	t.Parallel()
	b := setup(t)
	host, other := b.addHost("web-1"), b.addHost("web-2")
	path := "/api/hosts/" + host + "/repo-maintenance"
	for _, kind := range []string{"forget", "prune", "check"} {
		b.call("POST", path+"/"+kind+"/run", nil).refused(409, "")
	}
	b.call("POST", path+"/owner", nil).refused(409, "")
	b.bind(host)
	b.bind(other)
	for _, kind := range []string{"backup", "init", "Prune", "%00", "prune%20"} {
		b.call("POST", path+"/"+kind+"/run", nil).refused(404, "")
	}
	b.call("POST", "/api/hosts/nobody/repo-maintenance/prune/run", nil).refused(404, "")
	b.call("POST", "/api/hosts/nobody/repo-maintenance/owner", nil).refused(404, "")

	nothing := b.call("POST", path+"/forget/run", nil).want(202)
	if nothing["state"] != "skipped" || nothing["error_code"] != "nothing_to_do" || nothing["error"] == "" {
		t.Errorf("forget without a policy: %v", nothing)
	}
	prune := b.call("POST", path+"/prune/run", nil).want(202)
	if prune["kind"] != "prune" || prune["state"] != "queued" || prune["actor_kind"] != "user" || prune["scheduled_at"] != nil {
		t.Errorf("prune: %v", prune)
	}
	if again := b.call("POST", path+"/prune/run", nil).want(202); again["id"] != prune["id"] {
		t.Errorf("a waiting prune and %v", again)
	}
	read := b.call("GET", path, nil).want(200)
	if read["owner_host_id"] != host {
		t.Errorf("the owner is %v, want %s", read["owner_host_id"], host)
	}
	b.call("PUT", path, read).want(200) // what is read may be sent back

	path = "/api/hosts/" + other + "/repo-maintenance"
	b.call("POST", path+"/prune/run", nil).refused(409, "")
	b.call("POST", path+"/check/run", nil).refused(409, "")
	if owned := b.call("POST", path+"/owner", nil).want(200); owned["owner_host_id"] != other || owned["owner_host_name"] != "web-2" || owned["owner_reason"] != "chosen" || owned["owner_before"] != "web-1" || owned["owner_since"] == nil {
		t.Errorf("made the owner: %v", owned)
	}
	b.call("POST", path+"/check/run", nil).want(202)
	b.call("POST", "/api/hosts/"+host+"/repo-maintenance/check/run", nil).refused(409, "")
}
