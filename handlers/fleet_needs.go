package handlers

import (
	"fmt"
	"strings"
	"time"

	"resticfleet/models"
	"resticfleet/views"
	"resticfleet/views/ui"
)

// presentNeed says what needs a hand, why, and the one thing to do about it,
// as far as the reader may do it.
func presentNeed(n *models.Need, role models.Role, now time.Time) views.Attention {
	switch n.Reason {
	case models.NeedBackup:
		return presentGroupNeed(n, role, now)
	case models.NeedMaintenance:
		return presentMaintenanceNeed(n, now)
	}
	id := n.HostID.String()
	url := "/hosts/" + id
	row := views.Attention{ID: id, State: ui.Never, HostID: id, HostName: n.HostName}
	may, act := models.RoleAdmin, ui.Link{}
	switch n.Reason {
	case models.NeedEnrolment:
		row.Cause, act = "Its agent has not enrolled yet.", ui.Link{Text: "Show how", URL: url + "/enrol"}
	case models.NeedRepository:
		row.Cause, act = "Enrolled, but it has no repository yet: nowhere to put snapshots.", ui.Link{Text: "Set repository", URL: url + "/repository"}
	case models.NeedGroup:
		row.Cause, act = "Enrolled, repository set, but no source group says what to back up.", ui.Link{Text: "Add source group", URL: url + "/source-groups/new"}
		may = models.RoleOperator
	case models.NeedOneMachine:
		row.ID, row.State = "cloned-"+id, ui.Failed
		row.Cause, act = "Two machines take turns with this host’s identity: one of them is a copy.", ui.Link{Text: "See what to do", URL: url}
		may = models.RoleViewer
	}
	if role.Allows(may) {
		row.Act = act
	}
	return row
}

// presentMaintenanceNeed leads to what says what to do about it: the last job
// where it fails again and again, else the host's maintenance.
func presentMaintenanceNeed(n *models.Need, now time.Time) views.Attention {
	row := views.Attention{
		ID: string(n.Kind) + "-" + n.HostID.String(), State: ui.State(n.Health), HostID: n.HostID.String(), HostName: n.HostName,
		Act: ui.Link{Text: "See what to do", URL: maintenancePlace(n.HostID)},
	}
	title := views.JobTitle(string(n.Kind), "")
	switch {
	case n.Damaged > 0:
		damage := presentDamage(n.Damage, n.Damaged)
		row.Since, row.Cause = damage.Since(), damage.Sentence()
	case n.Health == models.HealthLate:
		row.Since, row.Cause = timeOf(n.GoodAt), title+" has never succeeded"
		if n.GoodAt != nil {
			row.Cause = title + " has not succeeded for " + ui.Age(now.Sub(*n.GoodAt))
		}
		row.Cause += fmt.Sprintf(", though it is due by “%s” (%s) and the host was there. %s", words(n.DueCron), n.Timezone, n.LastError)
	default:
		row.Since, row.Cause = timeOf(n.LastEndedAt), fmt.Sprintf("%s failed %d times in a row and doesn’t run by itself any more. %s", title, n.Failures, n.LastError)
		if n.LastJobID != nil {
			row.Act.URL = "/jobs/" + n.LastJobID.String()
		}
	}
	return row
}

func presentDamage(damage []models.Damage, all int) *views.Damage {
	v := &views.Damage{More: all - len(damage)}
	for _, d := range damage {
		v.Parts = append(v.Parts, views.DamagedPart{Subset: d.Subset, FoundAt: d.FoundAt, SeenAt: d.SeenAt, JobURL: "/jobs/" + d.JobID.String(), Errors: d.Errors})
	}
	return v
}

// presentGroupNeed leads to where it is mended: to the job that says what went
// wrong, to the host that isn't there, or to a run now.
func presentGroupNeed(n *models.Need, role models.Role, now time.Time) views.Attention {
	url := "/hosts/" + n.HostID.String()
	row := views.Attention{
		ID: n.GroupID.String(), State: ui.State(n.Health), HostID: n.HostID.String(), HostName: n.HostName, GroupName: n.GroupName,
		Cause: needCause(n, now), Since: timeOf(n.GoodAt),
	}
	switch {
	case n.LastJobID != nil && n.LastState != models.JobSucceeded && n.LastError != "":
		row.Act = ui.Link{Text: "See what to do", URL: "/jobs/" + n.LastJobID.String()}
		if n.Health == models.HealthFailed {
			row.Since = timeOf(n.LastEndedAt)
		}
	case !n.Online:
		row.Act = ui.Link{Text: "See the host", URL: url}
	}
	operates := role.Allows(models.RoleOperator)
	switch {
	case n.ActiveID != nil:
		row.Active = ui.Link{Text: "Waiting", URL: "/jobs/" + n.ActiveID.String()}
		if n.ActiveState == models.JobRunning {
			row.Active.Text = backingUp(n.ActiveProgress)
		}
		if operates && !n.ActiveCancelling {
			row.CancelURL = row.Active.URL + "/cancel"
		}
	case operates:
		row.RunURL = url + "/source-groups/" + n.GroupID.String() + "/run"
	}
	return row
}

func needCause(n *models.Need, now time.Time) string {
	var said []string
	switch {
	case n.Health == models.HealthFailed:
		return n.LastError
	case n.LastState == models.JobWarning:
		said = append(said, n.LastError)
	case n.Health == models.HealthNever:
		said = append(said, "It has no good snapshot.")
	}
	if n.DueAt != nil && n.DueAt.Before(now) {
		due := "Due " + ui.Age(now.Sub(*n.DueAt)) + " ago"
		if n.DueCron != "" {
			due += ", by the schedule “" + words(n.DueCron) + "” (" + n.Timezone + ")"
		}
		if n.Health == models.HealthLate {
			due += "; no good snapshot since"
		}
		said = append(said, due+".")
	}
	if !n.Online {
		said = append(said, "The host is offline.")
	}
	return strings.Join(said, " ")
}
