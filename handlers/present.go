package handlers

import (
	"strconv"
	"time"

	"resticfleet/agent/protocol"
	"resticfleet/models"
	"resticfleet/models/cronspec"
	"resticfleet/views"
	"resticfleet/views/ui"
)

// pageClock shows times in a zone; nil is the server's, where it has a name.
func pageClock(zone *time.Location) ui.Clock {
	if zone == nil {
		zone = time.UTC
		if time.Local.String() != "Local" {
			zone = time.Local
		}
	}
	return ui.Clock{Now: time.Now(), Zone: zone}
}

func timeOf(t *time.Time) time.Time {
	if t == nil {
		return time.Time{}
	}
	return *t
}

// strip is what became of backups on each of the last days of a host.
func strip(h *models.Host, outcomes []models.FleetDay, now time.Time) []ui.Day {
	local := now.In(h.Location())
	today := time.Date(local.Year(), local.Month(), local.Day(), 0, 0, 0, 0, time.UTC)
	first := dayNumber(today) - models.FleetStripDays + 1
	days := make([]ui.Day, models.FleetStripDays)
	for i := range days {
		days[i].Date = today.AddDate(0, 0, i-models.FleetStripDays+1)
	}
	for _, d := range outcomes {
		if i := d.Day - first; i >= 0 && i < models.FleetStripDays {
			days[i].State, days[i].Text = dayOutcome(d.Good, d.Warning, d.Failed)
		}
	}
	return days
}

// dayNumber counts days from 1 January 1970.
func dayNumber(midnight time.Time) int64 { return midnight.Unix() / 86400 }

// dayOutcome is a day's worst outcome and all of them in words.
func dayOutcome(good, warning, failed int) (ui.State, string) {
	var state ui.State
	text := ""
	add := func(n int, s ui.State, word string) {
		if n == 0 {
			return
		}
		if text != "" {
			text += ", "
		}
		state = s
		text += strconv.Itoa(n) + " " + word
	}
	add(good, ui.Good, "good")
	add(warning, ui.Warning, "with a warning")
	add(failed, ui.Failed, "failed")
	return state, text
}

func presentHost(h *models.HostState, days []models.DayOutcome, recent []*models.Job, repo *views.Repository, id *models.Identity) views.Host {
	clock := pageClock(h.Location())
	v := views.Host{
		Clock: clock, ID: h.ID.String(), Name: h.Name, Online: h.Online(clock.Now), LastSeen: timeOf(h.LastSeenAt),
		OS: h.OS, ResticVersion: h.ResticVersion, AgentVersion: h.AgentVersion, Timezone: h.Timezone, ScheduleVersion: h.ScheduleVersion,
		ZoneAssumed: h.EnrolledAt != nil && !h.TimezoneKnown, Labels: h.Labels, Enrolled: h.EnrolledAt != nil, Repository: repo,
		CanOperate: id.Role.Allows(models.RoleOperator), CanAdminister: id.Role.Allows(models.RoleAdmin),
	}
	if h.Link != nil {
		v.Link = *h.Link
		if v.Online {
			v.LinkSince = timeOf(h.LinkSince)
		}
		if v.Link == protocol.LinkPolling && h.LinkReason != "" {
			v.LinkReason = sentence(h.LinkReason)
		}
	}
	if h.Cloned(clock.Now) {
		v.ClonedAt = *h.ClonedAt
	}
	v.ClockAhead = time.Duration(h.ClockSkewMS) * time.Millisecond
	if h.LastSeenAt != nil && h.AppliedScheduleVersion != h.ScheduleVersion {
		v.ScheduleLag = &views.ScheduleLag{Current: h.ScheduleVersion, Applied: h.AppliedScheduleVersion, ChangedAt: h.SchedulesChangedAt}
	}
	outcomes := map[models.GroupID][]models.FleetDay{}
	for _, d := range days {
		outcomes[d.SourceGroupID] = append(outcomes[d.SourceGroupID], models.FleetDay{Day: dayNumber(d.Day), Good: d.Good, Warning: d.Warning, Failed: d.Failed})
	}
	names := map[models.GroupID]string{}
	for _, g := range h.Groups {
		names[g.ID] = g.Name
		v.Groups = append(v.Groups, presentGroup(h, g, strip(h.Host, outcomes[g.ID], clock.Now), clock.Now))
	}
	for _, s := range h.Schedules {
		row := views.Schedule{ID: s.ID.String(), Cron: s.Cron, Enabled: s.Enabled, Words: words(s.Cron)}
		for _, g := range s.GroupIDs {
			row.Groups = append(row.Groups, names[g])
		}
		if spec, err := cronspec.Parse(s.Cron); err == nil && s.Enabled {
			for _, run := range spec.Runs(clock.Now, h.Location(), 1) {
				row.NextRun, row.Note = run.At, run.Note
			}
		}
		v.Schedules = append(v.Schedules, row)
	}
	for _, j := range recent {
		v.Jobs = append(v.Jobs, presentJobRow(j, h.Waits[j.ID]))
	}
	return v
}

func words(cron string) string {
	spec, err := cronspec.Parse(cron)
	if err != nil {
		return cron
	}
	return spec.Describe()
}

func presentGroup(h *models.HostState, g *models.Group, days []ui.Day, now time.Time) views.Group {
	v := views.Group{
		ID: g.ID.String(), Name: g.Name, Tag: g.Tag, Includes: g.Includes, ExcludeCount: len(g.Excludes),
		State: ui.State(g.Health), NewestGood: timeOf(g.GoodAt), SizeBytes: g.GoodBytes, Days: days, Percent: -1,
	}
	j := h.Active(g.ID)
	if j == nil {
		if (v.State == ui.Failed || v.State == ui.Warning) && g.LastJobID != nil {
			v.WhyJobID = g.LastJobID.String()
		}
		return v
	}
	v.ActiveJobID, v.CancelRequested, v.State = j.ID.String(), j.CancelRequestedAt != nil, ui.Waiting
	if j.State != models.JobRunning {
		v.Detail = waitsFor(h, j, now)
		return v
	}
	v.State, v.Detail = ui.Running, "counting the files"
	if p := j.Progress; p != nil {
		v.Percent, v.StateText = p.Percent, ui.Percent(p.Percent)
		if p.SecondsRemaining > 0 {
			v.StateText += " · " + ui.Duration(time.Duration(p.SecondsRemaining)*time.Second) + " left"
		}
		v.Detail = ui.Count(p.TotalFiles, "file", "files") + " · " + ui.Bytes(p.TotalBytes)
	}
	return v
}

// waitsFor says in a few words what a backup that hasn't begun waits for; ""
// where it is only on its way.
func waitsFor(h *models.HostState, j *models.Job, now time.Time) string {
	wait := h.Waits[j.ID]
	switch {
	case h.EnrolledAt == nil:
		return "until its agent calls"
	case !h.Online(now):
		return "until the host is back"
	case wait.Behind != nil && wait.Behind.Kind == models.KindInit:
		return "until the repository is set up"
	}
	return waitInBrief(j, wait)
}
