package models_test

import (
	"errors"
	"fmt"
	"sync"
	"testing"

	"resticfleet/models"
)

func TestOneJobForOneScheduleDueTimeAndGroup(t *testing.T) {
	t.Parallel()
	b := setup(t)
	h := b.host("web-1")
	g, other := b.group(h, "www"), b.group(h, "etc")
	s := b.schedule(h, g, other)
	const insert = `insert into jobs (id, host_id, kind, state, actor_kind, source_group_id, scheduled_id, scheduled_at, finished_at)
		values (?, ?, 'backup', 'skipped', 'schedule', ?, ?, ?, now())`
	b.exec(insert, models.NewID[models.JobID](), h.ID, g.ID, s.ID, at(2, 0))
	b.refused(unique, insert, models.NewID[models.JobID](), h.ID, g.ID, s.ID, at(2, 0))
	b.exec(insert, models.NewID[models.JobID](), h.ID, other.ID, s.ID, at(2, 0))
	b.exec(insert, models.NewID[models.JobID](), h.ID, g.ID, s.ID, at(3, 0))
	b.refused(check, insert, models.NewID[models.JobID](), h.ID, g.ID, nil, at(2, 0))
}

func TestATagIsItsGroupsForEver(t *testing.T) {
	t.Parallel()
	b := setup(t)
	h := b.host("web-1")
	live, archived, renamed := b.group(h, "live"), b.group(h, "archived"), b.group(h, "former")
	must[[]models.JobID](t)(models.DeleteGroup(b.ctx, b.db, h.ID, archived.ID))
	f := fields("former")
	f.Tag = "newer"
	must[*models.Group](t)(models.UpdateGroup(b.ctx, b.db, h.ID, renamed.ID, f))

	const insert = "insert into source_groups (id, host_id, name, tag, includes) values (?, ?, 'another', ?, '[\"/srv\"]')"
	for _, tag := range []string{"live", "archived", "former", "newer"} {
		id := models.NewID[models.GroupID]()
		b.refused(foreignKey, insert, id, h.ID, tag)
		b.refused(unique, "insert into source_group_tags (host_id, tag, source_group_id) values (?, ?, ?)", h.ID, tag, id)
		if tag != "live" {
			b.refused(foreignKey, "update source_groups set tag = ? where id = ?", tag, live.ID)
		}
		f := fields("another")
		f.Tag = tag
		_, err := models.AddGroup(b.ctx, b.db, h.ID, f)
		if e := wantError(t, err, models.EInvalid); e.Field("tag") == "" {
			t.Errorf("tag %s: the error names %v", tag, e.Fields)
		}
	}
	b.refused(foreignKey, "delete from source_group_tags where tag = 'live'")
	// Its own former tag may come back, and another host has tags of its own.
	f.Tag = "former"
	must[*models.Group](t)(models.UpdateGroup(b.ctx, b.db, h.ID, renamed.ID, f))
	b.group(b.host("web-2"), "live")
}

func TestAScheduleHoldsLiveGroupsOfItsOwnHost(t *testing.T) {
	t.Parallel()
	b := setup(t)
	h, elsewhere := b.host("web-1"), b.host("web-2")
	g, foreign, gone := b.group(h, "www"), b.group(elsewhere, "www"), b.group(h, "gone")
	must[[]models.JobID](t)(models.DeleteGroup(b.ctx, b.db, h.ID, gone.ID))
	s := b.schedule(h, g)

	const insert = "insert into schedule_source_groups (schedule_id, source_group_id, host_id) values (?, ?, ?)"
	b.refused(foreignKey, insert, s.ID, foreign.ID, h.ID)
	b.refused(foreignKey, insert, s.ID, foreign.ID, elsewhere.ID)
	b.refused(foreignKey, insert, s.ID, gone.ID, h.ID)
	b.refused(check, "insert into schedule_source_groups (schedule_id, source_group_id, host_id, source_group_live) values (?, ?, ?, false)", s.ID, gone.ID, h.ID)
	b.refused(foreignKey, "update source_groups set archived_at = now() where id = ?", g.ID)
	b.refused(foreignKey, "delete from source_groups where id = ?", g.ID)

	for _, id := range []string{foreign.ID.String(), gone.ID.String(), models.NewID[models.GroupID]().String(), "www"} {
		_, err := models.AddSchedule(b.ctx, b.db, h.ID, models.ScheduleFields{Cron: "@daily", GroupIDs: []string{g.ID.String(), id}})
		if e := wantError(t, err, models.EInvalid); e.Field("source_group_ids[1]") == "" {
			t.Errorf("%s: the error names %v", id, e.Fields)
		}
	}
	_, err := models.DeleteGroup(b.ctx, b.db, h.ID, g.ID)
	e := wantError(t, err, models.EConflict)
	if refs, _ := e.Detail["schedules"].([]models.ScheduleRef); len(refs) != 1 || refs[0].ID != s.ID || refs[0].Cron != s.Cron || !refs[0].Enabled {
		t.Errorf("what stands in the way: %v", e.Detail)
	}
}

// A schedule that comes while its group is deleted: one of them wins, and
// neither order leaves a schedule that points at nothing.
func TestAScheduleAndItsGroupsDeletionAtOnce(t *testing.T) {
	t.Parallel()
	b := setup(t)
	h := b.host("web-1")
	const rounds = 60
	deleted := 0
	for round := range rounds {
		g := b.group(h, fmt.Sprintf("www-%d", round))
		begin := make(chan struct{})
		var wg sync.WaitGroup
		var added *models.Schedule
		var addErr, deleteErr error
		wg.Go(func() {
			<-begin
			added, addErr = models.AddSchedule(b.ctx, b.db, h.ID, models.ScheduleFields{Cron: "@hourly", Enabled: true, GroupIDs: []string{g.ID.String()}})
		})
		wg.Go(func() {
			<-begin
			_, deleteErr = models.DeleteGroup(b.ctx, b.db, h.ID, g.ID)
		})
		close(begin)
		wg.Wait()
		switch {
		case addErr == nil && deleteErr != nil:
			wantCode(t, deleteErr, models.EConflict)
			must[[]models.JobID](t)(models.DeleteSchedule(b.ctx, b.db, h.ID, added.ID))
			must[[]models.JobID](t)(models.DeleteGroup(b.ctx, b.db, h.ID, g.ID))
		case addErr != nil && deleteErr == nil:
			wantCode(t, addErr, models.EInvalid)
			deleted++
		default:
			t.Fatalf("schedule: %v, deletion: %v", addErr, deleteErr)
		}
		if n := b.count(`select count(*) from schedules s where archived_at is null and not exists (
			select from schedule_source_groups sg join source_groups g on g.id = sg.source_group_id and g.archived_at is null where sg.schedule_id = s.id)`); n != 0 {
			t.Fatalf("%d schedules point at nothing", n)
		}
	}
	t.Logf("the deletion came first in %d of %d rounds", deleted, rounds)
}

func TestTheScheduleVersionOnlyGrows(t *testing.T) {
	t.Parallel()
	b := setup(t)
	h := b.host("web-1")
	g := b.group(h, "www")
	version := func() int64 {
		return must[*models.Host](t)(models.FindHost(b.ctx, b.db, h.ID)).ScheduleVersion
	}
	if version() != 0 {
		t.Fatalf("a new host is at version %d, a group moved it", version())
	}
	s := b.schedule(h, g)
	f := models.ScheduleFields{Cron: "0 3 * * *", GroupIDs: []string{g.ID.String()}}
	must[*models.Schedule](t)(models.UpdateSchedule(b.ctx, b.db, h.ID, s.ID, f))
	must[*models.Group](t)(models.UpdateGroup(b.ctx, b.db, h.ID, g.ID, fields("www2")))
	if version() != 2 {
		t.Errorf("version %d after a creation, a change and a group's change", version())
	}
	f.Cron = "never"
	_, err := models.UpdateSchedule(b.ctx, b.db, h.ID, s.ID, f)
	wantCode(t, err, models.EInvalid)
	_, err = models.DeleteSchedule(b.ctx, b.db, h.ID, models.NewID[models.ScheduleID]())
	wantCode(t, err, models.ENotFound)
	if version() != 2 {
		t.Errorf("what was refused moved the version to %d", version())
	}
	must[[]models.JobID](t)(models.DeleteSchedule(b.ctx, b.db, h.ID, s.ID))
	b.refused(check, "update hosts set schedule_version = 2 where id = ?", h.ID)
	b.refused(check, "update hosts set schedule_version = schedule_version - 1, name = 'x' where id = ?", h.ID)
	if version() != 3 {
		t.Errorf("version %d after a deletion", version())
	}
}

func TestNamesOfDeletedThingsAreFree(t *testing.T) {
	t.Parallel()
	b := setup(t)
	h := b.host("web-1")
	_, err := models.AddHost(b.ctx, b.db, models.HostFields{Name: "WEB-1", ResticHost: "other"})
	if e := wantError(t, err, models.EInvalid); e.Field("name") == "" {
		t.Errorf("names %v", e.Fields)
	}
	must[[]models.JobID](t)(models.DeleteHost(b.ctx, b.db, h.ID))
	_, err = models.AddHost(b.ctx, b.db, models.HostFields{Name: "web-1"})
	if e := wantError(t, err, models.EInvalid); e.Field("restic_host") == "" {
		t.Errorf("a deleted host's snapshots would be taken over: %v", e.Fields)
	}
	must[*models.Host](t)(models.AddHost(b.ctx, b.db, models.HostFields{Name: "web-1", ResticHost: "web-1b"}))
}

// gather runs f many times at once and counts what came of it.
func gather(n int, f func(i int) error) (fine int, errs []error) {
	begin := make(chan struct{})
	results := make([]error, n)
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() {
			<-begin
			results[i] = f(i)
		})
	}
	close(begin)
	wg.Wait()
	for _, err := range results {
		if err == nil {
			fine++
		}
	}
	return fine, append(errs, results...)
}

func codes(errs []error, code models.Code) int {
	n := 0
	for _, err := range errs {
		var e *models.Error
		if errors.As(err, &e) && e.Code == code {
			n++
		}
	}
	return n
}
