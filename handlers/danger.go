package handlers

import (
	"net/http"
	"slices"
	"strings"

	"github.com/labstack/echo/v4"

	"resticfleet/models"
	"resticfleet/views"
	"resticfleet/views/ui"
)

// dangerZone lists what can't be taken back, each with what is lost by it and
// what stays.
func (h *Handlers) dangerZone(c echo.Context) error {
	host, repo, err := h.hostAndRepository(c)
	if err != nil {
		return err
	}
	v := views.Danger{HostID: host.ID.String(), HostName: host.Name}
	if repo != nil {
		v.Acts = []views.Confirm{initQuestion(host, repo), unlockQuestion(host, repo), forgetQuestion(host, repo)}
	}
	counts, err := models.CountSnapshots(c.Request().Context(), h.DB, host.ID)
	if err != nil {
		return err
	}
	for _, n := range counts {
		if n.Count > n.Held {
			v.Acts = append(v.Acts, removeSnapshotsQuestion(host, n))
		}
	}
	v.Acts = append(v.Acts, deleteHostQuestion(host))
	return render(c, http.StatusOK, views.DangerPage(h.page(c, "Danger zone of "+host.Name, views.NavFleet), v))
}

// hostAndRepository is nil for the repository of a host that has none.
func (h *Handlers) hostAndRepository(c echo.Context) (*models.Host, *models.HostRepository, error) {
	host, err := h.hostOf(c)
	if err != nil {
		return nil, nil, err
	}
	repo, err := models.FindRepository(c.Request().Context(), h.DB, host.ID)
	if models.CodeOf(err) == models.ENotFound {
		return host, nil, nil
	}
	return host, repo, err
}

// danger is a question about a host, and where its answer goes.
func danger(host *models.Host, path, crumb string, q views.Confirm) views.Confirm {
	url := "/hosts/" + host.ID.String()
	q.Action, q.KeepURL = url+path, url+"/danger"
	q.Crumbs = views.HostCrumbs(host.ID.String(), host.Name, ui.Crumb{Text: "danger zone", URL: q.KeepURL}, ui.Crumb{Text: crumb})
	return q
}

func initQuestion(host *models.Host, repo *models.HostRepository) views.Confirm {
	return danger(host, "/repository/init", "set up again", views.Confirm{
		Title: "Set the repository up again", Heading: "Set the repository up again?",
		Lost:  "If no repository is at " + repo.URL + " any more, a new and empty one is made there: the snapshots of the old one are not in it.",
		Stays: "A repository that is there is only opened, and nothing in it changes.",
		Act:   "Set up again", Keep: "Leave it",
	})
}

func unlockQuestion(host *models.Host, repo *models.HostRepository) views.Confirm {
	return danger(host, "/repository/unlock", "unlock", views.Confirm{
		Title: "Unlock the repository", Heading: "Unlock the repository?",
		Lost:  "The locks that a dead restic left in " + repo.URL + " go, so that check, forget and prune can work again.",
		Stays: "A lock whose restic lives is never taken away, and no snapshot is touched.",
		Act:   "Unlock", Keep: "Leave it locked",
	})
}

func forgetQuestion(host *models.Host, repo *models.HostRepository) views.Confirm {
	return danger(host, "/repository/forget", "forget the repository", views.Confirm{
		Title: "Forget the repository", Heading: "Forget the repository of “" + host.Name + "”?",
		Lost: "The password and the credentials stored for " + repo.URL + " are erased. Without a copy of the password nobody can read its snapshots any more. " +
			"Nothing of " + host.Name + " is backed up until it has a repository again.",
		Stays: "The repository stays where it is, with every snapshot; so do source groups and schedules.",
		Act:   "Forget the repository", Keep: "Keep the repository", TypeName: host.Name,
	})
}

func deleteHostQuestion(host *models.Host) views.Confirm {
	return danger(host, "/delete", "delete", views.Confirm{
		Title: "Delete " + host.Name, Heading: "Delete “" + host.Name + "”?",
		Lost:  "Its source groups, schedules, repository password and credentials go, its agent is cut off, and waiting jobs are cancelled. A backup that runs may end.",
		Stays: "The snapshots stay in the repository, and the history of its jobs stays here.",
		Act:   "Delete “" + host.Name + "”", Keep: "Keep “" + host.Name + "”", TypeName: host.Name,
	})
}

// askAboutRepository asks one of the questions about a host's repository.
func (h *Handlers) askAboutRepository(question func(*models.Host, *models.HostRepository) views.Confirm) echo.HandlerFunc {
	return func(c echo.Context) error {
		host, repo, err := h.hostAndRepository(c)
		if err != nil {
			return err
		}
		if repo == nil {
			return models.Conflict("This host has no repository yet. Set one up first.")
		}
		return h.confirm(c, http.StatusOK, question(host, repo))
	}
}

// runOnRepository makes a job of that kind and leads to it; the host's own page
// shows what comes of it and stays.
func (h *Handlers) runOnRepository(kind models.JobKind) echo.HandlerFunc {
	return func(c echo.Context) error {
		host, err := h.hostOf(c)
		if err != nil {
			return err
		}
		job, err := h.Jobs.RunOnHost(c.Request().Context(), host.ID, kind, who(c).Actor())
		if err != nil {
			return err
		}
		if url := "/hosts/" + host.ID.String(); onPage(c, url) {
			return acted(c, url)
		}
		if inSetup(c) {
			return acted(c, hostAgain(c, host.ID))
		}
		return done(c, "/jobs/"+job.ID.String())
	}
}

// named reports whether the name that the question wants was typed, and asks
// again where not.
func (h *Handlers) named(c echo.Context, q views.Confirm) (bool, error) {
	if strings.TrimSpace(c.FormValue("name")) == q.TypeName {
		return true, nil
	}
	q.Typed, q.Error = c.FormValue("name"), "That is not its name. Type “"+q.TypeName+"” to go on."
	return false, h.confirm(c, http.StatusUnprocessableEntity, q)
}

func (h *Handlers) forgetRepository(c echo.Context) error {
	host, repo, err := h.hostAndRepository(c)
	if err != nil {
		return err
	}
	if repo == nil {
		return done(c, "/hosts/"+host.ID.String())
	}
	if ok, err := h.named(c, forgetQuestion(host, repo)); !ok {
		return err
	}
	if err := models.UnbindRepository(c.Request().Context(), h.DB, host.ID); err != nil {
		return err
	}
	h.Jobs.HostChanged(host.ID)
	return done(c, "/hosts/"+host.ID.String())
}

func (h *Handlers) confirmDeleteHost(c echo.Context) error {
	host, err := h.hostOf(c)
	if err != nil {
		return err
	}
	return h.confirm(c, http.StatusOK, deleteHostQuestion(host))
}

func (h *Handlers) deleteHost(c echo.Context) error {
	host, err := h.hostOf(c)
	if err != nil {
		return err
	}
	if ok, err := h.named(c, deleteHostQuestion(host)); !ok {
		return err
	}
	cancelled, err := models.DeleteHost(c.Request().Context(), h.DB, host.ID)
	if err != nil {
		return err
	}
	h.Jobs.JobsCancelled(cancelled)
	h.Jobs.HostChanged(host.ID)
	return done(c, "/")
}

// removeSnapshotsQuestion says so where one removal can't take them all.
func removeSnapshotsQuestion(host *models.Host, n models.GroupSnapshots) views.Confirm {
	clock := pageClock(host.Location())
	all := n.Count - n.Held
	goes := min(all, models.RemovedAtOnce)
	what := ui.Count(int64(goes), "snapshot", "snapshots")
	q := views.Confirm{
		Title: "Remove all snapshots of " + n.Name, Heading: "Remove all snapshots of “" + n.Name + "”?",
		Lost: what + " of “" + n.Name + "” " + map[bool]string{true: "is", false: "are"}[goes == 1] + " removed from the repository, whatever the group keeps by its policy. The newest is of " +
			clock.Exact(n.Newest) + ", the oldest of " + clock.Exact(n.Oldest) + ". Nobody can restore from them any more.",
		Stays: "The source group, its schedules and the snapshots of all other groups stay. Space is freed only by the next prune.",
		Act:   "Remove " + what, Keep: "Keep them", TypeName: n.Name,
	}
	if goes < all {
		q.Title, q.Heading = "Remove the oldest snapshots of "+n.Name, "Remove the oldest "+what+" of “"+n.Name+"”?"
		q.Lost = "One removal takes at most " + what + ", and “" + n.Name + "” has " + ui.Number(int64(all)) + ": the oldest are removed from the repository, from that of " +
			clock.Exact(n.Oldest) + " on, whatever the group keeps by its policy. Nobody can restore from them any more. To remove the rest, do this again when it has ended."
	}
	if n.Held > 0 {
		q.Stays = ui.Count(int64(n.Held), "held one stays.", "held ones stay.") + " " + q.Stays
	}
	return danger(host, "/source-groups/"+n.GroupID.String()+"/remove-snapshots", "remove snapshots", q)
}

// removeSnapshots asks on a GET, and makes the job where the group's name was
// typed.
func (h *Handlers) removeSnapshots(c echo.Context) error {
	host, err := h.hostOf(c)
	if err != nil {
		return err
	}
	id, err := models.ParseID[models.GroupID](c.Param("gid"))
	if err != nil {
		return err
	}
	group, err := models.FindAnyGroup(c.Request().Context(), h.DB, host.ID, id)
	if err != nil {
		return err
	}
	counts, err := models.CountSnapshots(c.Request().Context(), h.DB, host.ID)
	if err != nil {
		return err
	}
	i := slices.IndexFunc(counts, func(n models.GroupSnapshots) bool { return n.GroupID == id && n.Count > n.Held })
	if i < 0 {
		return models.Conflict("No snapshot of “%s” is known that could be removed: there is none, or all are held.", group.Name)
	}
	q := removeSnapshotsQuestion(host, counts[i])
	if safe(c.Request().Method) {
		return h.confirm(c, http.StatusOK, q)
	}
	if ok, err := h.named(c, q); !ok {
		return err
	}
	job, err := h.Jobs.RemoveSnapshots(c.Request().Context(), host.ID, id, who(c).Actor())
	if err != nil {
		return err
	}
	return done(c, "/jobs/"+job.ID.String())
}
