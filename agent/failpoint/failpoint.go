// Package failpoint names the moments at which a kill hurts most. A program
// built with the tag failpoints dies there when it is told to; in any other
// build Hit is nothing.
package failpoint

// Env tells a program built with the tag at which point to die by SIGKILL. The
// process that reaches the point first dies; those it starts don't inherit it.
const Env = "RESTICFLEET_FAILPOINT"

// The points.
const (
	// Accepted: a job is in the journal; the server wasn't told.
	Accepted = "accepted"
	// Starting: a step is written down; its restic wasn't started.
	Starting = "starting"
	// Ended: restic has ended; the journal doesn't know.
	Ended = "ended"
	// Concluded: the result is in the journal; the server wasn't told.
	Concluded = "concluded"
)
