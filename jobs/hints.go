// Package jobs is what makes jobs happen: it turns clicks and fires into rows,
// rows into commands, and what agents say back into truth. It keeps no state
// of its own: any server may do any step of any job.
package jobs

import "resticfleet/models"

// Topic names what somebody may want to look at again. A hint carries nothing
// else: whoever hears it reads the database.
type Topic string

// The topics of whole lists.
const (
	FleetTopic Topic = "fleet"
	JobsTopic  Topic = "jobs"
)

// HostTopic is what the page of a host shows.
func HostTopic(id models.HostID) Topic { return Topic("host:" + id.String()) }

// JobTopic is what the page of a job shows.
func JobTopic(id models.JobID) Topic { return Topic("job:" + id.String()) }

// DispatchPrefix begins the topics of what hosts' links may have to send.
const DispatchPrefix = "dispatch:"

// DispatchTopic is what a host's link may have to send.
func DispatchTopic(id models.HostID) Topic { return Topic(DispatchPrefix + id.String()) }

// Hints tells everybody who listens, after the commit and without waiting.
type Hints interface {
	Publish(topics ...Topic)
}
