package api_test

import (
	"strings"
	"testing"

	"resticfleet/models"
)

// Deleted things and those of another host are not there, whatever is asked of
// them; nor are ids that can't be ids.
func TestNotThere(t *testing.T) {
	t.Parallel()
	b := setup(t)
	here, there := b.addHost("here"), b.addHost("there")
	foreign := b.addGroup(there, "data")
	schedule := b.call("POST", "/api/hosts/"+there+"/schedules", object{"cron": "@daily", "source_group_ids": []string{foreign}}).want(201)["id"].(string)
	deleted := b.addHost("gone")
	orphan := b.addGroup(deleted, "data")
	b.bind(deleted)
	b.call("DELETE", "/api/hosts/"+deleted, nil).want(204)

	unknown := models.NewID[models.HostID]().String()
	bodies := map[string]any{
		"source-groups": object{"name": "x", "includes": []string{"/x"}},
		"schedules":     object{"cron": "@daily", "source_group_ids": []string{foreign}},
		"repository":    object{"url": "/srv/repo", "password": "secret"},
	}
	for _, host := range []string{unknown, deleted, "x", "%00", "..%2f", strings.Repeat("f", 36)} {
		for _, path := range []string{"", "/repository", "/source-groups", "/schedules", "/repo-maintenance"} {
			b.call("GET", "/api/hosts/"+host+path, nil).refused(404, "")
		}
		for _, path := range []string{"/enrollment-tokens", "/repository/init", "/repository/unlock", "/source-groups/" + orphan + "/run", "/source-groups/" + foreign + "/run"} {
			b.call("POST", "/api/hosts/"+host+path, nil).refused(404, "")
		}
		b.call("POST", "/api/hosts/"+host+"/source-groups", bodies["source-groups"]).refused(404, "")
		b.call("POST", "/api/hosts/"+host+"/schedules", bodies["schedules"]).refused(404, "")
		b.call("PUT", "/api/hosts/"+host+"/repository", bodies["repository"]).refused(404, "")
		b.call("DELETE", "/api/hosts/"+host+"/repository", nil).refused(404, "")
		b.call("PATCH", "/api/hosts/"+host, object{"name": "y"}).refused(404, "")
		b.call("DELETE", "/api/hosts/"+host, nil).refused(404, "")
	}
	for _, method := range []string{"GET", "PUT", "DELETE"} {
		b.call(method, "/api/hosts/"+here+"/source-groups/"+foreign, bodies["source-groups"]).refused(404, "")
		b.call(method, "/api/hosts/"+here+"/source-groups/x", bodies["source-groups"]).refused(404, "")
		b.call(method, "/api/hosts/"+here+"/schedules/"+schedule, bodies["schedules"]).refused(404, "")
		b.call(method, "/api/hosts/"+here+"/schedules/x", bodies["schedules"]).refused(404, "")
	}
	for _, id := range []string{unknown, "x"} {
		b.call("GET", "/api/jobs/"+id, nil).refused(404, "")
		b.call("GET", "/api/jobs/"+id+"/log", nil).refused(404, "")
		b.call("POST", "/api/jobs/"+id+"/cancel", nil).refused(404, "")
	}
	if log := b.logged.String(); log != "" {
		t.Errorf("logged: %s", log)
	}
}
