package models

import (
	"context"
	"fmt"
	"time"

	"github.com/uptrace/bun"

	"resticfleet/agent/protocol"
)

// JobKind is what a job does, in restic's words.
type JobKind string

// The kinds that run today.
const (
	KindInit      JobKind = protocol.KindInit
	KindBackup    JobKind = protocol.KindBackup
	KindUnlock    JobKind = protocol.KindUnlock
	KindForget    JobKind = protocol.KindForget
	KindPrune     JobKind = protocol.KindPrune
	KindCheck     JobKind = protocol.KindCheck
	KindSnapshots JobKind = protocol.KindSnapshots
	KindDiff      JobKind = protocol.KindDiff
)

// known reports whether the database has a place for this kind.
func (k JobKind) known() bool {
	switch k {
	case KindInit, KindBackup, KindUnlock, KindForget, KindPrune, KindCheck, "restore", "drill", KindSnapshots, "ls", KindDiff, "find":
		return true
	}
	return false
}

// overtakes says that it goes before the backups that wait, each of them once.
// An init doesn't: those of its host can't do without it.
func (k JobKind) overtakes() bool { return k.exclusive() && k != KindInit }

// exclusive work never overlaps a backup to the same repository.
func (k JobKind) exclusive() bool {
	switch k {
	case KindInit, KindPrune, KindCheck, KindForget:
		return true
	}
	return false
}

// removes tells the kinds that take something out of the repository, for which
// it may have second credentials.
func (k JobKind) removes() bool { return k == KindForget || k == KindPrune }

// owned work concerns a whole repository and is done by its owner alone, for all
// hosts that share it.
func (k JobKind) owned() bool { return k == KindPrune || k == KindCheck }

// gated work goes through its repository's gate; the rest runs beside it.
func (k JobKind) gated() bool { return k == KindBackup || k.exclusive() }

// JobState is where a job is in its life. The database refuses any step that
// its trigger doesn't list.
type JobState string

// The states.
const (
	JobQueued    JobState = "queued"
	JobSent      JobState = "sent"
	JobRunning   JobState = "running"
	JobSucceeded JobState = "succeeded"
	JobWarning   JobState = "warning"
	JobFailed    JobState = "failed"
	JobCancelled JobState = "cancelled"
	JobSkipped   JobState = "skipped"
	JobExpired   JobState = "expired"
	JobLost      JobState = "lost"
)

// Ended reports whether nothing more is expected. A late true result may still
// replace lost and expired.
func (s JobState) Ended() bool {
	switch s {
	case JobQueued, JobSent, JobRunning:
		return false
	}
	return true
}

// JobSpec is what runs, fixed when the job is made.
type JobSpec struct {
	Includes  []string  `json:"includes,omitempty"`
	Excludes  []string  `json:"excludes,omitempty"`
	Tag       string    `json:"tag,omitempty"`
	Retention Retention `json:"retention,omitzero"`
	MinFiles  int64     `json:"min_files,omitempty"`
	MinBytes  int64     `json:"min_bytes,omitempty"`

	// Of forget: the groups with a policy as they were when the job was made, or
	// the full ids of what a person wants removed. diff compares two ids.
	Forget      []protocol.ForgetGroup `json:"forget,omitempty"`
	SnapshotIDs []string               `json:"snapshot_ids,omitempty"`
	// Preview makes of snapshots a question about a policy.
	Preview *protocol.ForgetGroup `json:"preview,omitempty"`
	// Of check.
	ReadDataSubset string `json:"read_data_subset,omitempty"`
	// Reread: that part was found damaged and is read out of turn.
	Reread bool `json:"reread,omitempty"`
}

// Progress is the newest the agent said of a running job.
type Progress struct {
	Percent          float64  `json:"percent"`
	FilesDone        int64    `json:"files_done"`
	TotalFiles       int64    `json:"total_files"`
	BytesDone        int64    `json:"bytes_done"`
	TotalBytes       int64    `json:"total_bytes"`
	SecondsRemaining int64    `json:"seconds_remaining"`
	ErrorCount       int64    `json:"error_count,omitempty"`
	CurrentFiles     []string `json:"current_files"`
}

// Job is the durable record of one run.
type Job struct {
	bun.BaseModel `bun:"table:jobs,alias:j"`

	ID              JobID `bun:",pk"`
	HostID          HostID
	Kind            JobKind
	State           JobState
	ActorKind       ActorKind
	ActorID         *ActorID
	ActorName       string
	ScheduledID     *ScheduleID
	ScheduledAt     *time.Time
	CatchUp         bool
	Late            bool
	SourceGroupID   *GroupID
	SourceGroupName string
	Spec            JobSpec `bun:"type:jsonb"`

	RepositoryID  *int32
	RepositoryURL string `bun:"repository_url"`
	Attempt       int
	// ClaimGeneration is of the newest link over which it was offered, or whose
	// hello named it, or that its host had when it ended for its silence.
	ClaimGeneration int64
	ClaimJournalID  string
	ClaimInstance   string
	// SettleAfter is set while a job waits for what its repository knows of it;
	// such a one is never sent to be run.
	SettleAfter *time.Time
	// OfferAfter is until when one that was not accepted is left to the agent
	// that it was sent to; see Settle.
	OfferAfter *time.Time
	OfferedAt  *time.Time `bun:",scanonly"`
	// Doubtful: it was offered before, and whoever has it had no chance to say so
	// since; see Reoffer.
	Doubtful bool `bun:",scanonly"`
	// Overtaken: exclusive work has gone before this waiting backup.
	Overtaken bool
	Gate      *string `bun:",scanonly"`

	SnapshotID  string
	ExitCode    *int
	Error       string
	ErrorCode   string
	Stats       map[string]any `bun:"type:jsonb,nullzero,default:'{}'"`
	Unreadable  []string       `bun:"type:jsonb,nullzero,default:'[]'"`
	Progress    *Progress      `bun:"type:jsonb"`
	ProgressSeq int64

	QueuedAt          time.Time `bun:",nullzero"`
	SentAt            *time.Time
	AcceptedAt        *time.Time
	StartedAt         *time.Time
	FinishedAt        *time.Time
	CancelRequestedAt *time.Time

	HostName string `bun:",scanonly"`
	// Unseen by the API: the schedule's expression, for the page's words, and
	// whether the host and the schedule were deleted since.
	ScheduledCron string `bun:",scanonly"`
	HostGone      bool   `bun:",scanonly"`
	ScheduleGone  bool   `bun:",scanonly"`
}

// ActorKind is who asked for a job.
type ActorKind string

// The kinds of actors. An API token acts as a user.
const (
	ActorUser     ActorKind = "user"
	ActorSchedule ActorKind = "schedule"
	ActorSystem   ActorKind = "system"
)

// ActorID is a user's, token's or schedule's id.
type ActorID = ID[actorKind]

type actorKind struct{}

// Actor is who asked.
type Actor struct {
	Kind ActorKind
	ID   *ActorID
	Name string
}

// System is Resticfleet itself.
var System = Actor{Kind: ActorSystem}

// Actor is the identity as it stands on a job.
func (who *Identity) Actor() Actor {
	id := ActorID(who.UserID)
	if who.UserID.IsZero() {
		id = ActorID(who.TokenID)
	}
	return Actor{Kind: ActorUser, ID: &id, Name: who.Name}
}

// withNames adds what pages say of a job's host and schedule.
func withNames(q *bun.SelectQuery) *bun.SelectQuery {
	return q.ColumnExpr("h.name as host_name, h.archived_at is not null as host_gone").
		ColumnExpr("coalesce(s.cron, '') as scheduled_cron, s.id is null or s.archived_at is not null as schedule_gone").
		Join("join hosts h on h.id = j.host_id").
		Join("left join schedules s on s.id = j.scheduled_id")
}

// FindJob reads one job; look-ups are jobs too.
func FindJob(ctx context.Context, db IDB, id JobID) (*Job, error) {
	j := &Job{}
	err := withNames(db.NewSelect().Model(j).ColumnExpr("j.*")).Where("j.id = ?", id).Scan(ctx)
	if isNoRows(err) {
		return nil, NotFound("job", id.String())
	}
	if err != nil {
		return nil, fmt.Errorf("find job: %w", err)
	}
	return j, nil
}

// OpenJobs returns a host's jobs that have not ended, oldest first.
func OpenJobs(ctx context.Context, db IDB, host HostID) ([]*Job, error) {
	var jobs []*Job
	err := db.NewSelect().Model(&jobs).Where("host_id = ? and state in ('queued', 'sent', 'running')", host).OrderExpr("id").Limit(500).Scan(ctx)
	if err != nil {
		return nil, fmt.Errorf("open jobs: %w", err)
	}
	return jobs, nil
}

// LogLine is one line of a job's log.
type LogLine struct {
	bun.BaseModel `bun:"table:job_log_lines"`

	JobID JobID     `bun:",pk" json:"-"`
	Seq   int64     `bun:",pk" json:"seq"`
	At    time.Time `json:"at"`
	Level string    `json:"level"`
	Text  string    `json:"text"`
}

// ListLog returns up to limit lines after a seq, in order.
func ListLog(ctx context.Context, db IDB, job JobID, after int64, limit int) ([]LogLine, error) {
	lines := []LogLine{}
	err := db.NewSelect().Model(&lines).Where("job_id = ? and seq > ?", job, after).OrderExpr("seq").Limit(int64(limit)).Scan(ctx)
	if err != nil {
		return nil, fmt.Errorf("list log: %w", err)
	}
	return lines, nil
}

// TailLog returns the last lines, in order.
func TailLog(ctx context.Context, db IDB, job JobID, limit int) ([]LogLine, error) {
	lines := []LogLine{}
	err := db.NewRaw("select * from (select * from job_log_lines where job_id = ? order by seq desc limit ?) l order by seq", job, limit).Scan(ctx, &lines)
	if err != nil {
		return nil, fmt.Errorf("tail log: %w", err)
	}
	return lines, nil
}
