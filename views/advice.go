package views

import (
	"slices"
	"strings"

	"resticfleet/agent/protocol"
	"resticfleet/models"
	"resticfleet/views/ui"
)

// place is where an advice leads. The job's page knows the way, and whether
// its reader may go there.
type place string

const (
	toRepository place = "repository" // administrators
	toDangerZone place = "danger zone"
	// toSecond has the credentials for forget and prune; administrators.
	toSecond    place = "second credentials"
	toGroup     place = "group" // operators
	toHost      place = "host"  // everybody
	toGroupJobs place = "jobs"
	// toMaintenance shows the host's cadences to everybody.
	toMaintenance place = "maintenance"
	toEnrol       place = "enrolment" // administrators
)

// step is one thing to do. Code, in mono, or link stands between text and
// after; {host} and {job} stand for the host's name and the job's id.
type step struct {
	text, code, link string
	to               place
	after            string
}

// advice is what a page says of one error code. The job's own sentences, which
// know the details, stand below the headline.
type advice struct {
	code string
	// brief is the cause in the few words that a list has room for.
	brief, headline string
	steps           []step
	// act is the primary act, a link to a place; "" for none.
	act string
	to  place
	// untouched says that restic, though it started, changed nothing.
	untouched bool
}

// advices has a row for every code that an agent or this server can give a job.
var advices = []advice{
	// restic's exits
	{
		code: protocol.ErrNoRepository, brief: "no repository there", headline: "There is no repository at that place", untouched: true,
		steps: []step{
			{text: "Compare the place with what you meant: ", link: "see the repository", to: toRepository, after: "."},
			{text: "If a disk or share should be mounted there, mount it and run this again."},
			{text: "If the repository is really gone, ", link: "make a new one", to: toDangerZone, after: ". The old snapshots don’t come back with it."},
		},
		act: "Check repository", to: toRepository,
	},
	{
		code: protocol.ErrLocked, brief: "repository locked", headline: "Another restic holds the repository’s lock", untouched: true,
		steps: []step{
			{text: "Wait for the other restic to end, then run this again."},
			{text: "If its process is dead, ", link: "unlock the repository", to: toDangerZone, after: ". A lock that is still in use stays."},
			{text: "A lock of another machine is removed there: see who holds it with ", code: "restic list locks", after: " and run unlock on that host."},
		},
	},
	{
		code: protocol.ErrWrongPassword, brief: "wrong password", headline: "The repository refused the password", untouched: true,
		steps: []step{
			{text: "If the password was changed on purpose, ", link: "enter the new one", to: toRepository, after: "."},
			{text: "If not, someone may have removed a key from the repository: compare ", code: "restic key list", after: " with your records before you change anything."},
		},
		act: "Enter password", to: toRepository,
	},
	{
		code: protocol.ErrUnreadable, brief: "files unreadable", headline: "Some files could not be read",
		steps: []step{
			{text: "Give the agent’s account the right to read them, or ", link: "exclude them", to: toGroup, after: "."},
			{text: "Run this again only if they matter now: the snapshot holds everything else and counts as good."},
		},
		act: "Edit source group", to: toGroup,
	},
	{
		code: protocol.ErrInterrupted, brief: "interrupted", headline: "restic was interrupted",
		steps: []step{
			{text: "Look into {host}’s own log for what stopped it: a shutdown, a person, or no memory left."},
			{text: "Then run this again."},
		},
	},
	{
		code: protocol.ErrRestic, brief: "restic failed", headline: "restic failed",
		steps: []step{
			{text: "Read the log below: its last lines are restic’s own."},
			{text: "Mend what it names on {host} or at the repository, then run this again."},
		},
	},
	{
		code: protocol.ErrSnapshotMissing, brief: "no snapshot", headline: "restic ended well but left no snapshot",
		steps: []step{
			{text: "Read the log below, then run this again."},
			{text: "If it happens twice, examine the repository with ", code: "restic check", after: " before you rely on it."},
		},
	},
	{
		code: protocol.ErrUnreachable, brief: "repository unreachable", headline: "The repository could not be reached",
		steps: []step{
			{text: "See whether the place is right and its server runs: ", link: "see the repository", to: toRepository, after: "."},
			{text: "Try to reach it from {host} itself: the host talks to it, not this server."},
		},
		act: "Check repository", to: toRepository,
	},
	{
		code: protocol.ErrBackendForbidden, brief: "access refused", headline: "The repository’s place refused access",
		steps: []step{
			{text: "Check the user, key or token stored for it: ", link: "see the repository", to: toRepository, after: "."},
			{text: "See whether they still have the right to write there: a bucket’s policy, a folder’s owner, an expired key."},
		},
		act: "Check repository", to: toRepository,
	},
	{
		code: protocol.ErrAppendOnly, brief: "may not remove", headline: "These credentials may add to the repository, but not remove from it",
		steps: []step{
			{text: "If that is meant, for backups, ", link: "store credentials for forget and prune", to: toSecond, after: " that may remove, beside those for every day. Only forget and prune ever use them."},
			{text: "If they are stored already, they may not remove either: give their user that right at the repository’s server, or store others."},
			{text: "Then run this again: it goes on with what is left."},
		},
		act: "Check credentials", to: toSecond,
	},
	{
		code: protocol.ErrWrongRepository, brief: "opens another repository", headline: "The credentials for forget and prune open another repository", untouched: true,
		steps: []step{
			{text: "Compare their place with that for every day, and ", link: "store the right ones", to: toSecond, after: ": both must lead to one repository."},
			{text: "Then run this again."},
		},
		act: "Check credentials", to: toSecond,
	},
	{
		code: protocol.ErrNotYetKnown, brief: "repository not known", headline: "Which repository the host backs up to is not known yet", untouched: true,
		steps: []step{
			{text: "Initialise it with the credentials for every day: ", link: "open the danger zone", to: toDangerZone, after: ". One that is there stays as it is, and is known from then on."},
			{text: "Then run this again: forget and prune work in no other repository."},
		},
		act: "Initialise repository", to: toDangerZone,
	},

	// what the agent finds before and beside restic
	{
		code: protocol.ErrMissingInclude, brief: "path missing", headline: "Something to back up is not there",
		steps: []step{
			{text: "If it should be mounted, mount it on {host} and run this again."},
			{text: "If it is gone for good, ", link: "take it out of the source group", to: toGroup, after: "."},
		},
		act: "Edit source group", to: toGroup,
	},
	{
		code: protocol.ErrNoSpace, brief: "disk full", headline: "A disk is full",
		steps: []step{
			{text: "Free space where the message points to: on {host}, where the agent keeps its state and restic its cache, or at the repository."},
			{text: "Then run this again."},
		},
	},
	{
		code: protocol.ErrNoRestic, brief: "no restic there", headline: "There is no usable restic on the host",
		steps: []step{
			{text: "Install restic 0.17 or newer on {host}, or start the agent with ", code: "--restic PATH", after: "."},
			{text: "Then run this again."},
		},
	},
	{
		code: protocol.ErrNoSecrets, brief: "credentials unreadable", headline: "The repository’s credentials could not be used",
		steps: []step{
			{text: "Set them once more: ", link: "enter the password", to: toRepository, after: "."},
			{text: "If the agent’s own key was lost, enrol {host} anew: ", link: "make a new line", to: toEnrol, after: "."},
		},
		act: "Enter password", to: toRepository,
	},
	{
		code: protocol.ErrEndUnrecorded, brief: "end not recorded", headline: "The snapshot exists, but nobody saw how restic ended",
		steps: []step{
			{text: "See in the log below whether it names files that could not be read."},
			{text: "To be sure, run this again. Until then the snapshot counts as good."},
		},
	},
	{
		code: protocol.ErrBelowMinimum, brief: "below its minimum", headline: "The backup is smaller than its minimum",
		steps: []step{
			{text: "See whether a disk is missing or empty on {host}."},
			{text: "If less is right now, ", link: "lower the group’s minimum", to: toGroup, after: "."},
		},
		act: "Edit source group", to: toGroup,
	},
	{
		code: protocol.ErrFarBelowUsual, brief: "far smaller than usual", headline: "The backup is far smaller than the ones before",
		steps: []step{
			{text: "See whether a disk is missing or empty on {host}."},
			{text: "If this is right, ", link: "give the group a minimum", to: toGroup, after: ": then only that counts. Then run it again."},
		},
		act: "Edit source group", to: toGroup,
	},
	{
		code: protocol.ErrRefusedByPolicy, brief: "refused by the host", headline: "The agent’s own policy refused",
		steps: []step{
			{text: "The policy file belongs to {host}’s root; this server can’t change it. Ask there, or change what is asked for."},
		},
	},
	{
		code: protocol.ErrInvalidCommand, brief: "not accepted", headline: "What was asked for can’t be run",
		steps: []step{
			{text: "Correct what the message names in the ", link: "source group", to: toGroup, after: " or the repository’s settings, then run this again."},
		},
		act: "Edit source group", to: toGroup,
	},
	{
		code: protocol.ErrUnknownKind, brief: "agent too old", headline: "The agent doesn’t know this kind of job",
		steps: []step{{text: "Update the agent on {host}, then run this again."}},
	},
	{
		code: protocol.ErrInternal, brief: "agent failed", headline: "The agent could not do its part",
		steps: []step{
			{text: "Look into the agent’s own log on {host}: it says more."},
			{text: "See that its state folder exists, is its own and is writable, then run this again."},
		},
	},
	{
		code: protocol.ErrAlreadyExists, brief: "already there", headline: "The repository was there already", untouched: true,
		steps: []step{{text: "Nothing: backups go into it."}},
	},

	// what forget, prune and check find
	{
		code: protocol.ErrWouldRemoveAll, brief: "would keep nothing", headline: "A policy would have removed every snapshot",
		steps: []step{
			{text: "Nothing of that group was removed. Change the policy of the group that the message names: ", link: "see the host", to: toHost, after: "."},
			{text: "If its snapshots shall really go, remove them in the ", link: "danger zone", to: toDangerZone, after: ", which asks first."},
		},
	},
	{
		code: protocol.ErrNotRemoved, brief: "snapshots still there", headline: "Not everything that should go is gone",
		steps: []step{
			{text: "Read the log below, and see whether the credentials may remove: ", link: "see the repository", to: toRepository, after: "."},
			{text: "Then run this again: it goes on with what is left."},
		},
		act: "Check repository", to: toRepository,
	},
	{
		code: protocol.ErrDamaged, brief: "repository damaged", headline: "There is damage in the repository",
		steps: []step{
			{text: "Let no prune run until this is mended: ", link: "turn it off", to: toMaintenance, after: "."},
			{text: "Look for the cause first: the disk, the storage or the memory of a host that writes to it."},
			{text: "Then, on {host}, follow the lines of the log below with ", code: "restic repair", after: " and run the check again: it begins with what was damaged."},
		},
	},
	{
		code: protocol.ErrSnapshotUnknown, brief: "no such snapshot", headline: "The snapshot is not in the repository any more", untouched: true,
		steps: []step{{text: "Refresh the host’s list of snapshots: it was removed by something else, or the host has another repository now."}},
	},
	{
		code: protocol.ErrAnswerIncomplete, brief: "answer incomplete", headline: "Part of the answer did not arrive",
		steps: []step{{text: "Ask again. Nothing was changed, and what was known before stays."}},
	},

	// ends that this server tells
	{
		code: models.CodeNothingToDo, brief: "nothing to do", headline: "There was nothing to do",
		steps: []step{{text: "Nothing, if every snapshot shall stay. Otherwise give a source group a retention policy: ", link: "see the host’s groups", to: toHost, after: "."}},
	},
	{
		code: models.CodeNotOwner, brief: "another host does it", headline: "Another host does this for the shared repository",
		steps: []step{{text: "Nothing: one host prunes and checks for all. To let it be {host}, make it the owner: ", link: "open maintenance", to: toMaintenance, after: "."}},
	},
	{
		code: models.CodeBackingOff, brief: "waits after a failure", headline: "It failed just before and waits a while",
		steps: []step{{text: "See why it failed, mend that, and run it now: ", link: "open maintenance", to: toMaintenance, after: "."}},
	},
	{
		code: models.CodeBreakerOpen, brief: "stopped after failures", headline: "It failed too often to go on by itself",
		steps: []step{
			{text: "See why it failed and mend that: ", link: "open maintenance", to: toMaintenance, after: "."},
			{text: "Then run it now. When that works, it goes on by itself."},
		},
	},
	{
		code: protocol.ErrCancelled, brief: "cancelled", headline: "Stopped before it ended",
		steps: []step{{text: "Nothing, if that was meant. Otherwise run it again."}},
	},
	{
		code: models.CodeStillBusy, brief: "the one before still ran", headline: "The one before it had not ended",
		steps: []step{
			{text: "See how long they take: ", link: "the group’s jobs", to: toGroupJobs, after: "."},
			{text: "If it happens often, run it less often; a backup’s group may be split."},
		},
	},
	{
		code: models.CodeNoRepositoryBound, brief: "no repository set up", headline: "The host has no repository",
		steps: []step{
			{text: "Say where its snapshots go: ", link: "set up the repository", to: toRepository, after: ". Then run this again."},
		},
		act: "Set up repository", to: toRepository,
	},
	{
		code: models.CodeOtherRepository, brief: "other repository now", headline: "The host got another repository meanwhile",
		steps: []step{
			{text: "If {host} did it all the same, its agent tells, and this page says so; it then worked in the repository before."},
			{text: "If it is wanted in the one that the host has now, run it again."},
		},
	},
	{
		code: models.CodeExpired, brief: "host did not come", headline: "The host did not come in time",
		steps: []step{
			{text: "Bring {host} or its agent back: ", link: "see since when it is away", to: toHost, after: "."},
			{text: "What its schedules missed is made up for when it is back; anything else, run again."},
		},
	},
	{
		code: models.CodeHostSilent, brief: "host fell silent", headline: "The host fell silent during the job",
		steps: []step{
			{text: "Bring {host} or its agent back: ", link: "see since when it is away", to: toHost, after: "."},
			{text: "Its agent then tells what really happened, and this page says so. Until then nothing has to be done again."},
		},
	},
	{
		code: models.CodeJournalLost, brief: "agent forgot it", headline: "The agent no longer knows this job",
		steps: []step{
			{text: "Look whether its snapshot is in the repository: it carries the tag ", code: "job:{job}", after: "."},
			{text: "If there is none, run it again."},
		},
	},
}

// adviceFor is the row of a code. An agent that is newer than this server may
// give one that has no row; what then stands there follows from the state.
func adviceFor(code, kind, state string) advice {
	for _, a := range advices {
		if a.code == code && code != "" {
			return a
		}
	}
	switch state {
	case "expired", "lost", "skipped", "cancelled":
		return advice{headline: map[string]string{
			"expired": "The host did not come in time", "lost": "What became of it is not known",
			"skipped": "This run was not needed", "cancelled": "Stopped before it ended",
		}[state]}
	case "warning":
		return advice{brief: "a warning", headline: "It ended with a warning", steps: []step{{text: "Read the log below."}}}
	}
	return advice{brief: "failed", headline: JobTitle(kind, "") + " failed", steps: []step{
		{text: "Read the log below: its last lines say more."}, {text: "Update this server if the agent on {host} is newer than it."},
	}}
}

// JobBrief is why a job ended as it did, in the few words that a list has room
// for; "" where its state says it all.
func JobBrief(code, kind, state string) string {
	if code == "" {
		return ""
	}
	return adviceFor(code, kind, state).brief
}

func (j Job) advice() advice {
	a := adviceFor(j.ErrorCode, j.Kind, j.State)
	if j.second() && j.ErrorCode == protocol.ErrNoRepository {
		// The repository is where backups go: only this address leads elsewhere.
		a.steps = slices.DeleteFunc(slices.Clone(a.steps), func(s step) bool { return s.to == toDangerZone })
	}
	return a
}

// second says that the repository didn't open with the credentials for forget
// and prune: what is to be mended are those.
func (j Job) second() bool { return strings.HasPrefix(j.Error, protocol.SecondCredentials) }

// way is the URL of a place, "" where there is none for this job or its reader
// may not go there.
func (j Job) way(to place) string {
	host := "/hosts/" + j.HostID
	switch {
	case j.HostGone && to != toGroupJobs:
	case (to == toSecond || to == toRepository && j.second()) && j.CanAdminister:
		return host + "/repository/maintenance"
	case to == toRepository && j.CanAdminister:
		return host + "/repository"
	case to == toDangerZone && j.CanAdminister:
		return host + "/danger"
	case to == toEnrol && j.CanAdminister:
		return EnrolURL(j.HostID)
	case to == toGroup && j.CanOperate && j.GroupID != "" && !j.GroupGone:
		return host + "/source-groups/" + j.GroupID
	case to == toHost:
		return host
	case to == toMaintenance:
		return host + "/maintenance"
	case to == toGroupJobs && j.GroupID != "":
		return host + "/jobs?group=" + j.GroupID
	}
	return ""
}

// fill puts the job's own names into a step's text.
func (j Job) fill(s string) string {
	return strings.NewReplacer("{host}", j.HostName, "{job}", j.ID).Replace(s)
}

// wrote says what is in the repository because of this job, and what is not.
func (j Job) wrote() string {
	untouched := j.StartedAt.IsZero() || j.advice().untouched
	switch {
	case !j.ended():
		return ""
	case j.State == "skipped", j.State == "expired", j.State == "cancelled" && j.SentAt.IsZero():
		return "Nothing was run, so nothing was written."
	case j.State == "lost":
		return "Whether anything was written is not known."
	case j.Kind == "backup":
		return j.wroteSnapshot(untouched)
	case j.Kind == "init":
		return j.wroteRepository(untouched)
	case j.Kind == "forget" || j.Kind == "prune" || j.Kind == "check":
		return j.maintained(untouched)
	case j.Kind == "unlock" && j.State == "succeeded":
		return ui.Count(j.LocksRemoved, "lock was", "locks were") + " removed, " + ui.Count(j.LocksLeft, "is", "are") + " left."
	}
	return ""
}

func (j Job) wroteSnapshot(untouched bool) string {
	switch {
	case j.SnapshotID != "" && len(j.Unreadable) > 0:
		return "Written as snapshot " + shortID(j.SnapshotID) + ", which holds everything but what could not be read."
	case j.SnapshotID != "" && j.ErrorCode == protocol.ErrBelowMinimum:
		return "Written as snapshot " + shortID(j.SnapshotID) + ", which doesn’t count as good."
	case j.SnapshotID != "":
		return "Written as snapshot " + shortID(j.SnapshotID) + "."
	case untouched:
		return "Nothing was written."
	}
	return "No snapshot was written. What restic had sent by then stays in the repository until a prune."
}

func (j Job) wroteRepository(untouched bool) string {
	switch {
	case j.ErrorCode == protocol.ErrAlreadyExists:
		return "Nothing was changed."
	case j.State == "succeeded":
		return "A new, empty repository was made."
	case untouched:
		return "No repository was made."
	}
	return "Whether a repository was begun there is not known: initialising again looks first, and never overwrites one."
}

// good: the job's snapshot counts for its group's freshness.
func (j Job) good() bool {
	return j.State == "succeeded" || (j.State == "warning" && (j.ErrorCode == protocol.ErrUnreadable || j.ErrorCode == protocol.ErrEndUnrecorded))
}
