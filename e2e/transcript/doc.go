// Package transcript holds golden conversations between agents and servers,
// and plays them against today's code: so that an agent which nobody updates
// gets along with a new server, and a server that waits for its update with new
// agents.
//
// # The files
//
// testdata/vN holds what agents and servers of protocol version N said to each
// other when N was the newest: one scenario a file, one JSON value a line.
//
//	{"dir":"up","message":{…}}    agent to server: an envelope, or the body of an enrolment
//	{"dir":"down","message":{…}}  server to agent
//	{"dir":"do","message":{…}}    what a person did meanwhile, or the host (hold, release)
//	{"dir":"state","message":{…}} the jobs in the database at the end
//
// A hello begins a link; the one before was cut. An upward message without an
// acknowledgement behind it was never acknowledged on that link. What differs
// from run to run is a placeholder: $JOB1, $HOST1, $SNAPSHOT1 and the like stand
// for the same value wherever they are repeated, $TIME, $SEALED and $ID for some
// value. Numbers and log texts are as they were.
//
// Files are never edited, and never recorded again for a version that exists:
// they are the only witness of what old programs say. A change of code that
// breaks one breaks programs people run. A new protocol version adds a folder,
// recorded by
//
//	go test ./e2e/transcript -run TestRecord -record
//
// and the old folders go on being played. (The recorder refuses to write into a
// folder that holds the scenario already; a new scenario of today's version is
// a new file.)
//
// # What is guaranteed
//
// New server, old agent: every downward message that was recorded comes, with
// its type, at least its fields, of the same JSON types; welcome is first, a
// cancel comes behind its command, a schedule set never behind a newer one; what
// is sealed opens by the old recipe; and the jobs end in the recorded state. New
// types and fields are allowed: old agents ignore them.
//
// New agent, old server: the recorded upward messages come, each job's in order,
// with at least their fields of the same JSON types; the digest of a set is the
// old one; and with the old acknowledgements the agent is done with its jobs.
// How a log is cut into batches and how often progress is told is left open.
//
// What the old side did with bytes (sealing, digests) stands in frozen_test.go
// by itself, so that a change of agent/protocol can't change both sides at once.
package transcript
