// Package failpoint names the moments at which a kill hurts most: every point
// between two durable steps, of agent and server alike. A program built with
// the tag failpoints dies there when it is told to, and makes a mistake that it
// is told to make; in any other build Hit and Planted are nothing.
package failpoint

// Env tells a program built with the tag where to end: "POINT [N [stop]]". At
// the Nth time it comes there, the first unless told, it dies by SIGKILL, or
// with stop it stops by SIGSTOP and goes on after SIGCONT. An absolute path
// names a file that says so, which may appear at any time; the process that
// gets there first removes it and leaves its arguments in a file *.hit.
const Env = "RESTICFLEET_FAILPOINT"

// The agent's points.
const (
	// Written: a command is in its run folder; the journal doesn't know.
	Written = "written"
	// Accepted: a job is in the journal; the server wasn't told.
	Accepted = "accepted"
	// Starting: a step is written down; its restic wasn't started.
	Starting = "starting"
	// Running: the journal knows that restic runs; the server wasn't told.
	Running = "running"
	// CancelKept: a cancel is in the journal; restic wasn't asked to end.
	CancelKept = "cancel-kept"
	// Interrupting: the reason of an interrupt is written down; restic wasn't
	// asked to end.
	Interrupting = "interrupting"
	// Ended: restic has ended; the journal doesn't know.
	Ended = "ended"
	// Concluded: the result is in the journal; the server wasn't told.
	Concluded = "concluded"
	// AckHeard: the server has the result; the journal doesn't know.
	AckHeard = "ack-heard"
	// AckKept: the journal knows that the server has the result.
	AckKept = "ack-kept"
)

// The points of supervise.
const (
	// Marked: the step counts as started; restic wasn't.
	Marked = "marked"
	// Launched: restic runs; its process isn't written down.
	Launched = "launched"
	// Exited: restic has ended; how isn't written down.
	Exited = "exited"
	// Recorded: how restic ended is written down.
	Recorded = "recorded"
)

// The server's points.
const (
	// Made: a job was asked for and is a row; nobody was answered or woken.
	Made = "made"
	// Asked: a cancel is a row; nobody was answered or woken.
	Asked = "asked"
	// Bound: credentials are stored; there is no init.
	Bound = "bound"
	// Claimed: a job is claimed; its command wasn't sent.
	Claimed = "claimed"
	// Offered: a job is marked as offered again; its command wasn't sent.
	Offered = "offered"
	// Settled: a hello is stored; neither init nor missed runs were looked for.
	Settled = "settled"
	// Welcomed: all of a hello is done; the agent has no answer.
	Welcomed = "welcomed"
	// Firing: a fire has come; there is no job.
	Firing = "firing"
	// CaughtUp: a missed run is a row; nobody was woken.
	CaughtUp = "caught-up"
	// Maintained: maintenance that was due is a row; nobody was woken.
	Maintained = "maintained"
	// Judged: silent hosts' jobs have ended; nobody was woken.
	Judged = "judged"
	// Stored, followed by a message's type, as in stored-job.finished: the
	// message is stored; it wasn't acknowledged.
	Stored = "stored-"
)

// PlantEnv names a mistake that a program built with the tag is to make, for
// the tests that show that each would be found.
const PlantEnv = "RESTICFLEET_PLANTED"

// The mistakes.
const (
	// AckUnstored: the server acknowledges a result that it didn't store.
	AckUnstored = "ack-unstored"
	// StartTwice: a step that was started and lost is started again.
	StartTwice = "start-twice"
	// ClearAll: the locks of the living are removed with those of the dead.
	ClearAll = "clear-all"
	// InventSnapshot: a snapshot is named that nobody has seen.
	InventSnapshot = "invent-snapshot"
	// SayTwice: a restarted agent forgets which log lines it has said.
	SayTwice = "say-twice"
	// KillFound: an agent kills the restic that it finds running.
	KillFound = "kill-found"
	// LeaveFolder: what a command that was never accepted wrote stays.
	LeaveFolder = "leave-folder"
)
