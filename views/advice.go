package views

// step is one thing to do. Code stands in mono after Text, then Link, then After.
type step struct {
	text, code, linkText, linkURL, after string
}

// advice turns an error code into the headline of a failed job and what to do
// about it. The job's own error sentences stand between the two.
type advice struct {
	headline string
	steps    []step
	// actText and actURL are the block's primary act, "" for none.
	actText, actURL string
}

func (j Job) advice() advice {
	host := "/hosts/" + j.HostID
	repository := host + "/repository"
	group := host + "/source-groups/" + j.GroupID
	switch j.ErrorCode {
	case "wrong_password":
		return advice{"The repository refused the password", []step{
			{text: "If the password was changed on purpose, ", linkText: "enter the new one", linkURL: repository, after: "."},
			{text: "If not, someone may have removed a key from the repository: compare ", code: "restic key list", after: " with your records before you change anything."},
		}, "Enter password", repository}
	case "no_repository":
		return advice{"There is no repository at that place", []step{
			{text: "Compare the place with what you meant: ", linkText: "see the repository", linkURL: repository, after: "."},
			{text: "If a disk or share should be mounted there, mount it and run again."},
		}, "Check repository", repository}
	case "locked":
		return advice{"Another restic holds the repository’s lock", []step{
			{text: "Wait for the other restic to end, then run again."},
			{text: "If its machine is gone, see who holds the lock with ", code: "restic list locks", after: " before you remove it."},
		}, "", ""}
	case "repository_unreachable":
		return advice{"The repository did not answer", []step{
			{text: "See whether the place is right and its server runs: ", linkText: "see the repository", linkURL: repository, after: "."},
			{text: "Try to reach it from " + j.HostName + " itself: the host talks to it, not this server."},
		}, "Check repository", repository}
	case "missing_include":
		return advice{"Something to back up is not there", []step{
			{text: "If it should be mounted, mount it and run again."},
			{text: "If it is gone for good, ", linkText: "take it out of the source group", linkURL: group, after: "."},
		}, "Edit source group", group}
	case "no_space":
		return advice{"The host’s own disk is full", []step{
			{text: "Free space where the agent keeps its state and restic its cache, then run again."},
		}, "", ""}
	case "no_restic":
		return advice{"There is no usable restic on the host", []step{
			{text: "Install restic 0.17 or newer on " + j.HostName + ", or start the agent with ", code: "--restic PATH", after: "."},
		}, "", ""}
	case "no_secrets":
		return advice{"The agent could not open the repository’s credentials", []step{
			{text: "Set the repository again: ", linkText: "enter its password", linkURL: repository, after: "."},
			{text: "If the agent’s key was lost, enrol the host anew."},
		}, "Enter password", repository}
	case "interrupted":
		return advice{"restic was interrupted", []step{
			{text: "Look into the host’s own log for what stopped it: a reboot, or no memory left."},
			{text: "Run again: what was already written is not sent twice."},
		}, "", ""}
	case "refused_by_policy", "backend_forbidden":
		return advice{"The agent’s own policy refused", []step{
			{text: "The policy file belongs to " + j.HostName + "’s root; this server can’t change it. Ask there, or change what is asked for."},
		}, "", ""}
	case "below_minimum":
		return advice{"The backup is smaller than its minimum", []step{
			{text: "See whether a disk is missing or empty on " + j.HostName + "."},
			{text: "If less is right now, ", linkText: "lower the group’s minimum", linkURL: group, after: "."},
		}, "Edit source group", group}
	case "far_below_usual":
		return advice{"The backup is far smaller than the ones before", []step{
			{text: "See whether a disk is missing or empty on " + j.HostName + "."},
			{text: "If this is right, ", linkText: "give the group a minimum", linkURL: group, after: ": then only that counts. Then run it again."},
		}, "Edit source group", group}
	case "snapshot_missing":
		return advice{"restic ended well but left no snapshot", []step{
			{text: "Read the log below, then run again."},
		}, "", ""}
	case "end_unrecorded":
		return advice{"The snapshot exists, but nobody saw how restic ended", []step{
			{text: "It counts as good. Whether every file could be read is not known: see the log below."},
			{text: "To be sure, run the backup again: what was already written is not sent twice."},
		}, "", ""}
	case "journal_lost":
		return advice{headline: "The agent no longer knows this job", steps: []step{
			{text: "Look whether its snapshot is in the repository: it carries the tag ", code: "job:" + j.ID, after: "."},
			{text: "If there is none, run it again."},
		}}
	case "unreadable_files":
		return advice{"Some files could not be read", []step{
			{text: "The snapshot holds everything else and counts as good."},
			{text: "Give the agent’s user the right to read them, or ", linkText: "exclude them", linkURL: group, after: "."},
		}, "Edit source group", group}
	}
	switch j.State {
	case "expired":
		return advice{headline: "The host did not come in time"}
	case "lost":
		return advice{headline: "The host fell silent during the job", steps: []step{
			{text: "When the host is back, its agent tells what really happened and this page says so."},
		}}
	case "skipped":
		return advice{headline: "This run was not needed"}
	case "cancelled":
		return advice{headline: "Stopped before it ended"}
	case "warning":
		return advice{headline: "Written, with a warning"}
	}
	return advice{headline: JobTitle(j.Kind, "") + " failed", steps: []step{
		{text: "Read the log below: the last lines are restic’s own."},
	}}
}

// wrote says what is in the repository because of this job.
func (j Job) wrote() string {
	if j.Kind != "backup" || !j.ended() {
		return ""
	}
	if j.SnapshotID != "" {
		return "Written as snapshot " + shortID(j.SnapshotID) + "."
	}
	return "No snapshot was written."
}
