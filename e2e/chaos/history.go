// Package chaos kills everything that can be killed, at the moments that hurt
// most, and reads afterwards from a history of what happened whether any law of
// the product was broken.
//
// Real PostgreSQL, real restic, real sockets, real processes: the programs are
// built with the tag failpoints (see agent/failpoint) and work in a fleet of two
// servers on one database behind a balancer, rest-server behind a gate that can
// hold a backup where a scenario wants it, and a few hosts. TestFaults is the
// table fault × state of a job, TestAgentFailpoints and TestServerFailpoints die
// at every point between two durable steps, TestSilence keeps hosts away for too
// long, TestRandomKills draws its plan from a seed, and TestPlanted shows that
// Check finds the mistakes it is there for.
//
//	make chaos CHAOS_KILLS=200 CHAOS_SEED=1
package chaos

import "time"

// History is what happened in one fleet, from all who saw a part of it, taken
// down when everything was quiet again.
type History struct {
	Steps     []Step         // every change of a job's state, in the database's order
	Jobs      []Job          // as they stand in the end
	Runs      []Run          // what operators asked for, and what they were answered
	Starts    []Start        // every restic that the hosts started
	Forgets   []Forget       // every snapshot that a host's restic asked to be removed
	Keeps     map[string]int // the newest snapshots that a group keeps, by group; none: all
	Unlocks   []Unlock       // every lock that another process than its owner removed
	Kills     []Kill         // what was killed
	Snapshots []Snapshot     // of all repositories
	Lines     []Line         // of all jobs' logs, by job and number
	// Silent: hosts were kept away for longer than the server's patience.
	Silent bool
	// Damage is what restic check said of the repositories.
	Damage []string
	// Left are processes, files and sockets that should be gone.
	Left []string
}

// Step is one change of a job's state. From is empty where the job was made.
type Step struct {
	Job, Group string
	Kind       string
	From, To   string
	Late       bool
}

// Job is a job's row at the end.
type Job struct {
	ID, Host, Kind, State string
	Group                 string
	Repository            int
	ScheduledID           string
	ScheduledAt           time.Time
	SnapshotID            string
	ExitCode              *int
	ErrorCode, Error      string
	CancelAsked           bool
}

// Run is one "Run now". Status is 0 where no answer came: then the job may
// have been made or not.
type Run struct {
	Status int
	Job    string
}

// Start is one start of restic. Job is empty where the arguments name none.
type Start struct {
	Host    string
	PID     int
	Command string
	Job     string
}

// Forget is a snapshot that a host's restic asked the repository to remove. It
// may be there still, where restic was killed just then.
type Forget struct {
	Repository, ID, Host string
}

// Unlock is the removal of another process's lock. OwnerLived tells whether
// the process that made it was there at that moment.
type Unlock struct {
	Repository, Lock string
	Owner, By        int
	OwnerLived       bool
}

// The victims of kills.
const (
	VictimServer     = "server"
	VictimAgent      = "agent"
	VictimSupervisor = "supervisor"
	VictimRestic     = "restic"
	VictimPostgres   = "postgres"
)

// Kill is one SIGKILL. Job is known for supervisor and restic; Point names the
// failpoint, where it was one.
type Kill struct {
	At     time.Time
	Victim string
	Name   string
	Job    string
	Point  string
}

// Snapshot is one as restic lists it. Job is from its tag.
type Snapshot struct {
	Repository, ID, Job string
}

// Line is one line of a job's log.
type Line struct {
	Job  string
	Seq  int64
	Text string
}
