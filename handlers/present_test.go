package handlers

import (
	"testing"
	"time"

	"resticfleet/models"
	"resticfleet/views"
	"resticfleet/views/ui"
)

func TestAGroupSaysWhatItIsAt(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 11, 23, 13, 52, 0, 0, time.UTC)
	www, id := &models.Group{ID: models.NewID[models.GroupID](), Name: "www"}, models.NewID[models.JobID]()
	backup := func(state models.JobState, group *models.Group) *models.Job {
		return &models.Job{ID: models.NewID[models.JobID](), Kind: models.KindBackup, State: state, SourceGroupID: &group.ID, SourceGroupName: group.Name}
	}
	mail := &models.Group{ID: models.NewID[models.GroupID](), Name: "mail"}
	here := &models.Host{EnrolledAt: &now, LastSeenAt: &now}
	for what, c := range map[string]struct {
		host   *models.Host
		group  models.Group
		open   []*models.Job // the last of them is what waits
		wait   models.Wait
		state  ui.State
		detail string
		why    bool
	}{
		"good":             {here, models.Group{Health: models.HealthGood, GoodAt: &now, LastState: "succeeded", LastJobID: &id}, nil, models.Wait{}, ui.Good, "", false},
		"failed":           {here, models.Group{Health: models.HealthFailed, GoodAt: &now, LastState: "failed", LastJobID: &id}, nil, models.Wait{}, ui.Failed, "", true},
		"a warning":        {here, models.Group{Health: models.HealthWarning, GoodAt: &now, LastState: "warning", LastJobID: &id}, nil, models.Wait{}, ui.Warning, "", true},
		"on its way":       {here, models.Group{}, []*models.Job{backup(models.JobSent, www)}, models.Wait{}, ui.Waiting, "on its way", false},
		"failed, again":    {here, models.Group{LastState: "failed", LastJobID: &id}, []*models.Job{backup(models.JobQueued, www)}, models.Wait{}, ui.Waiting, "", false},
		"behind another":   {here, models.Group{}, []*models.Job{backup(models.JobRunning, mail), backup(models.JobQueued, www)}, models.Wait{Behind: backup(models.JobRunning, mail)}, ui.Waiting, "behind mail", false},
		"behind the init":  {here, models.Group{}, []*models.Job{{Kind: models.KindInit, State: models.JobQueued}, backup(models.JobQueued, www)}, models.Wait{Behind: &models.Job{Kind: models.KindInit}}, ui.Waiting, "until the repository is set up", false},
		"behind a prune":   {here, models.Group{}, []*models.Job{backup(models.JobQueued, www)}, models.Wait{Behind: &models.Job{Kind: models.KindPrune}}, ui.Waiting, "behind Prune", false},
		"away":             {&models.Host{EnrolledAt: &now}, models.Group{}, []*models.Job{backup(models.JobQueued, www)}, models.Wait{}, ui.Waiting, "until the host is back", false},
		"not enrolled":     {&models.Host{}, models.Group{}, []*models.Job{backup(models.JobQueued, www)}, models.Wait{}, ui.Waiting, "until its agent calls", false},
		"just begun":       {here, models.Group{}, []*models.Job{backup(models.JobRunning, www)}, models.Wait{}, ui.Running, "counting the files", false},
		"running, another": {here, models.Group{}, []*models.Job{backup(models.JobRunning, www), backup(models.JobQueued, www)}, models.Wait{}, ui.Running, "counting the files", false},
	} {
		c.group.ID, c.group.Name = www.ID, www.Name
		h := &models.HostState{Host: c.host, Groups: []*models.Group{&c.group}, Open: c.open}
		if n := len(c.open); n > 0 {
			h.Waits = map[models.JobID]models.Wait{c.open[n-1].ID: c.wait}
		}
		v := presentGroup(h, &c.group, nil, now)
		if v.State != c.state || v.Detail != c.detail || (v.WhyJobID == id.String()) != c.why {
			t.Errorf("%s: %s, %q, why %q; want %s, %q, %v", what, v.State, v.Detail, v.WhyJobID, c.state, c.detail, c.why)
		}
	}
}

func TestUpkeepIsSaidAsItIs(t *testing.T) {
	t.Parallel()
	now := time.Now()
	able := &models.Host{ID: models.NewID[models.HostID](), LastSeenAt: &now, AgentProtocol: 3}
	old := &models.Host{ID: able.ID, LastSeenAt: &now, AgentProtocol: 2}
	other, tab := models.NewID[models.HostID](), maintenancePlace(able.ID)
	for what, c := range map[string]struct {
		host *models.Host
		kept models.Upkeep
		want views.Upkeep
	}{
		"off":       {able, models.Upkeep{Kind: models.KindForget, Cron: "30 3 * * *"}, views.Upkeep{Name: "Forget", Value: "off", URL: tab + "/forget"}},
		"on":        {able, models.Upkeep{Kind: models.KindForget, Cron: "30 3 * * *", Enabled: true}, views.Upkeep{Name: "Forget", Value: "Every day at 03:30", URL: tab + "/forget"}},
		"broken":    {able, models.Upkeep{Kind: models.KindPrune, Cron: "30 3 * * *", Enabled: true, Broken: true}, views.Upkeep{Name: "Prune", Value: "needs a hand", URL: tab, Wrong: true}},
		"elsewhere": {able, models.Upkeep{Kind: models.KindCheck, Enabled: true, Elsewhere: other}, views.Upkeep{Name: "Check", Value: "by another host", URL: maintenancePlace(other)}},
		"too old":   {old, models.Upkeep{Kind: models.KindCheck, Enabled: true}, views.Upkeep{Name: "Check", Value: "needs a newer agent", URL: tab, Wrong: true}},
		"old, off":  {old, models.Upkeep{Kind: models.KindCheck}, views.Upkeep{Name: "Check", Value: "off", URL: tab + "/check"}},
	} {
		repo := &models.KeptRepository{Upkeep: []models.Upkeep{c.kept}}
		if got := presentUpkeep(c.host, repo); got[0] != c.want || got[1].Value != "none" {
			t.Errorf("%s: %+v, want %+v", what, got, c.want)
		}
	}
}
