// Package protocol is the wire contract between the server and its agents:
// types and constants only, standard library only, so that both sides and
// every transport (WebSocket and polling) speak from one page.
//
// Zero values: an absent field means "not said", never "reset to nothing",
// unless the field's comment says otherwise. Receivers ignore unknown fields
// and unknown message types, so that an old agent and a new server get along.
package protocol

import (
	"encoding/json"
	"time"
)

// Version is sent in hello and welcome. History:
//
//	1  2026-11  first version
//	2  2026-11  hello names the agent's process and its machine's boot, and
//	            tells what its jobs are; welcome tells which log lines are
//	            stored; command.run may ask what became of a job (settle)
//	            instead of running it
//	3  2026-11  forget, prune, check, and the look-ups snapshots and diff, whose
//	            answers travel as job.answer
const Version = 3

// MaxFrame is the largest frame or HTTP message body, in bytes, that either
// side accepts. Log batches are cut well below it.
const MaxFrame = 1 << 20

// Message types, upward (agent to server).
const (
	TypeHello       = "hello"
	TypeScheduleAck = "schedule.ack"
	TypeFire        = "schedule.fire"
	TypeAccepted    = "job.accepted"
	TypeStarted     = "job.started"
	TypeProgress    = "job.progress"
	TypeLog         = "job.log"
	TypeAnswer      = "job.answer"
	TypeFinished    = "job.finished"
	TypeHeartbeat   = "heartbeat"
)

// Message types, downward (server to agent).
const (
	TypeWelcome     = "welcome"
	TypeScheduleSet = "schedule.set"
	TypeRun         = "command.run"
	TypeCancel      = "command.cancel"
	TypeAck         = "ack"
	TypeError       = "error"
)

// Envelope is one message. ID is chosen by the sender and repeated when the
// same message is sent again; the receiver acknowledges by it.
type Envelope struct {
	ID      string          `json:"id"`
	Type    string          `json:"type"`
	Payload json.RawMessage `json:"payload,omitempty"`
}

// Link transports, as shown to people.
const (
	LinkWebSocket = "websocket"
	LinkPolling   = "polling"
)

// EnrollRequest is the body of POST /agent/v1/enroll.
type EnrollRequest struct {
	Token        string `json:"token"`
	Hostname     string `json:"hostname"`
	OS           string `json:"os"`
	Arch         string `json:"arch"`
	AgentVersion string `json:"agent_version"`
	// Timezone is an IANA name; empty when the machine can't name its zone.
	Timezone string `json:"timezone"`
	// PublicKey is the agent's X25519 public key, 32 bytes in standard base64.
	// An agent without one gets no secrets.
	PublicKey string `json:"public_key,omitempty"`
}

// EnrollResponse is its answer. AgentToken is shown this once.
type EnrollResponse struct {
	HostID     string `json:"host_id"`
	AgentToken string `json:"agent_token"`
}

// Job states an agent reports in hello.
const (
	JobAccepted = "accepted" // journalled, restic not started yet
	JobRunning  = "running"  // restic started
	JobFinished = "finished" // ended, result not yet acknowledged
)

// HelloJob is one journal entry: every job not finished, and every finished
// one whose result the server has not acknowledged. The rest is for a server
// whose database was put back in time and that has to make the job again: Tag
// is the source group's.
type HelloJob struct {
	JobID      string    `json:"job_id"`
	State      string    `json:"state"`
	Kind       string    `json:"kind,omitempty"`
	Tag        string    `json:"tag,omitempty"`
	AcceptedAt time.Time `json:"accepted_at,omitzero"`
	StartedAt  time.Time `json:"started_at,omitzero"`
}

// Hello opens a session. The server settles every job by it.
type Hello struct {
	Protocol  int    `json:"protocol"`
	JournalID string `json:"journal_id"`
	// Instance is random, one for each process of an agent: a former one that
	// comes back tells a cloned machine from a restart.
	Instance string `json:"instance,omitempty"`
	// BootID names the start of the machine that the agent runs in: a job that
	// went to an agent of another start may be with another machine. Empty
	// where it is not known, which says nothing.
	BootID        string `json:"boot_id,omitempty"`
	AgentVersion  string `json:"agent_version"`
	ResticVersion string `json:"restic_version"`
	OS            string `json:"os"`
	Arch          string `json:"arch"`
	Timezone      string `json:"timezone"`
	// AppliedScheduleVersion is the version of the set the agent's cron runs;
	// 0 before the first. ScheduleDigest is ScheduleSet.Digest of that set.
	AppliedScheduleVersion int64      `json:"applied_schedule_version"`
	ScheduleDigest         string     `json:"schedule_digest,omitempty"`
	Jobs                   []HelloJob `json:"jobs"`
	// LinkReason says why the agent polls although it would rather have a
	// WebSocket; empty otherwise.
	LinkReason string `json:"link_reason,omitempty"`
	// SentAt is the agent's clock, for measuring the skew.
	SentAt time.Time `json:"sent_at"`
}

// Welcome answers hello. Durations are whole milliseconds on the wire.
type Welcome struct {
	Protocol         int       `json:"protocol"`
	Session          string    `json:"session"`
	ServerTime       time.Time `json:"server_time"`
	PingIntervalMS   int64     `json:"ping_interval_ms"`
	PollIntervalMS   int64     `json:"poll_interval_ms"`
	ScheduleJitterMS int64     `json:"schedule_jitter_ms"`
	// Jobs tells what the server has of the jobs that hello told of.
	Jobs []WelcomeJob `json:"jobs,omitempty"`
}

// WelcomeJob is one job that the server knows. LogSeq is its newest log line
// there, 0 for none: an agent that believes in more tells those again.
// AnswerSeq is the newest piece of its answer that is there with all before it,
// or at least as much where none is needed any more: an agent goes on behind it.
type WelcomeJob struct {
	JobID     string `json:"job_id"`
	LogSeq    int64  `json:"log_seq"`
	AnswerSeq int64  `json:"answer_seq,omitempty"`
}

// ScheduleSet is all schedules of a host as the agent sees them. It replaces
// the set before it; a set with an older version is ignored.
type ScheduleSet struct {
	Version   int64      `json:"version"`
	Schedules []Schedule `json:"schedules"`
}

// Schedule is one entry of a set. Disabled entries never fire.
type Schedule struct {
	ID           string   `json:"id"`
	Cron         string   `json:"cron"`
	Enabled      bool     `json:"enabled"`
	SourceGroups []string `json:"source_groups"`
}

// ScheduleAck says that the agent's cron now runs this version.
type ScheduleAck struct {
	Version int64  `json:"version"`
	Digest  string `json:"digest,omitempty"`
}

// Fire says that a schedule is due. ScheduledAt is the nominal time.
type Fire struct {
	ScheduleID  string    `json:"schedule_id"`
	ScheduledAt time.Time `json:"scheduled_at"`
}

// Job kinds. From snapshots on they are look-ups: they change nothing and answer
// with Answer messages.
const (
	KindInit      = "init"
	KindBackup    = "backup"
	KindUnlock    = "unlock"
	KindForget    = "forget"
	KindPrune     = "prune"
	KindCheck     = "check"
	KindSnapshots = "snapshots"
	KindDiff      = "diff"
)

// Retention is restic's policy; the zero value keeps everything.
type Retention struct {
	KeepLast    int      `json:"keep_last,omitempty"`
	KeepHourly  int      `json:"keep_hourly,omitempty"`
	KeepDaily   int      `json:"keep_daily,omitempty"`
	KeepWeekly  int      `json:"keep_weekly,omitempty"`
	KeepMonthly int      `json:"keep_monthly,omitempty"`
	KeepYearly  int      `json:"keep_yearly,omitempty"`
	KeepWithin  string   `json:"keep_within,omitempty"`
	KeepTags    []string `json:"keep_tags,omitempty"`
}

// Empty says that no rule keeps anything for its sake, which keeps everything.
func (r Retention) Empty() bool {
	return !r.Counts() && r.KeepWithin == "" && len(r.KeepTags) == 0
}

// Counts says that a rule keeps a number of snapshots, and with that the newest.
func (r Retention) Counts() bool {
	return r.KeepLast > 0 || r.KeepHourly > 0 || r.KeepDaily > 0 || r.KeepWeekly > 0 || r.KeepMonthly > 0 || r.KeepYearly > 0
}

// Repository is where a command works. Sealed is base64 of the HPKE
// encapsulation followed by the ciphertext of a Secrets document, made for the
// agent's key with SealInfo and the job id as associated data; it is empty for
// an agent without a key.
type Repository struct {
	URL    string `json:"url"`
	Sealed string `json:"sealed,omitempty"`
	// ID is the repository's own id (restic's config), where it is known.
	ID string `json:"id,omitempty"`
	// Maintenance says that these are the repository's second credentials, kept
	// for forget and prune; what goes wrong with them is said of them.
	Maintenance bool `json:"maintenance,omitempty"`
}

// SealInfo is the HPKE info string of Repository.Sealed: DHKEM(X25519,
// HKDF-SHA256), HKDF-SHA256, ChaCha20Poly1305.
const SealInfo = "resticfleet command.run v1"

// Secrets is what Repository.Sealed holds, as JSON.
type Secrets struct {
	Password string            `json:"password"`
	Env      map[string]string `json:"env,omitempty"`
}

// Run tells the agent to run one job. It is structured: no argument string
// crosses the wire.
type Run struct {
	JobID      string     `json:"job_id"`
	Kind       string     `json:"kind"`
	Attempt    int        `json:"attempt"`
	ResticHost string     `json:"restic_host"`
	Repository Repository `json:"repository"`

	// Settle says that the job must not be run: it may have been, where this
	// agent doesn't know of it. The agent tells from the repository what became
	// of it. Only for agents of protocol version 2 and newer; a job that the
	// agent does know is answered as any duplicate.
	Settle bool `json:"settle,omitempty"`

	// For backups.
	Includes []string `json:"includes,omitempty"`
	Excludes []string `json:"excludes,omitempty"`
	Tag      string   `json:"tag,omitempty"`
	// Parent is the group's newest snapshot, for a quick incremental run; the
	// agent does without where it no longer exists.
	Parent string `json:"parent,omitempty"`

	Retention *Retention `json:"retention,omitempty"`

	// Forget is what a forget does, policy by policy; none of them is empty.
	Forget []ForgetGroup `json:"forget,omitempty"`
	// SnapshotIDs are the full ids that a forget removes instead, whatever any
	// policy says; for diff the two to compare, the older first.
	SnapshotIDs []string `json:"snapshot_ids,omitempty"`
	// Held are full ids that no forget removes; beside SnapshotIDs only those
	// that are among them.
	Held []string `json:"held,omitempty"`
	// Preview lets snapshots answer with what a forget by this policy would do
	// (PlanItem) instead of with the list (Snapshot).
	Preview *ForgetGroup `json:"preview,omitempty"`

	// ReadDataSubset is check's --read-data-subset.
	ReadDataSubset string `json:"read_data_subset,omitempty"`
}

// ForgetGroup is a policy and whose snapshots it is for: those of the command's
// restic host that have any of the tags, never none of them.
type ForgetGroup struct {
	// GroupID and Name are the source group's, for stats and log lines.
	GroupID   string    `json:"group_id,omitempty"`
	Name      string    `json:"name,omitempty"`
	Tags      []string  `json:"tags"`
	Retention Retention `json:"retention"`
}

// Answer is a piece of what a look-up found. Seq starts at 1 and has no gaps
// within a job; all pieces come before job.finished, whose LastAnswerSeq tells
// how many there are. Each of the items is a Snapshot, a PlanItem or a Change,
// by the job's kind.
type Answer struct {
	JobID string            `json:"job_id"`
	Seq   int64             `json:"seq"`
	Items []json.RawMessage `json:"items"`
}

// JobTagPrefix begins the tag that every snapshot carries, followed by the job
// id: after any doubt the repository itself is asked by it.
const JobTagPrefix = "job:"

// Snapshot is one of restic's. Bytes that aren't UTF-8 are U+FFFD, as in
// restic's own JSON.
type Snapshot struct {
	ID       string    `json:"id"` // 64 hex digits
	Time     time.Time `json:"time"`
	Hostname string    `json:"hostname"`
	Username string    `json:"username,omitempty"`
	Paths    []string  `json:"paths"`
	Tags     []string  `json:"tags,omitempty"`
	// SizeBytes and FileCount are total_bytes_processed and
	// total_files_processed of its summary; nil before restic 0.17.
	SizeBytes *int64 `json:"size_bytes,omitempty"`
	FileCount *int64 `json:"file_count,omitempty"`
}

// PlanItem is what a policy means for one snapshot. Reasons are restic's
// ("last snapshot", "daily snapshot"), none for one that goes.
type PlanItem struct {
	Snapshot Snapshot `json:"snapshot"`
	Keep     bool     `json:"keep"`
	Reasons  []string `json:"reasons,omitempty"`
}

// Change is one line of restic's diff: Modifier is + - M T U or several.
type Change struct {
	Path     string `json:"path"`
	Modifier string `json:"modifier"`
}

// Cancel asks for a job's end. The agent's job.finished decides what it was.
type Cancel struct {
	JobID string `json:"job_id"`
}

// Accepted follows the journal's fsync.
type Accepted struct {
	JobID     string `json:"job_id"`
	JournalID string `json:"journal_id,omitempty"`
}

// Started says that restic was started, at At of the agent's clock.
type Started struct {
	JobID string    `json:"job_id"`
	At    time.Time `json:"at"`
}

// Progress is the newest state of a running job; Seq grows within the job, an
// older one is ignored.
type Progress struct {
	JobID            string   `json:"job_id"`
	Seq              int64    `json:"seq"`
	Percent          float64  `json:"percent"` // 0 to 100
	FilesDone        int64    `json:"files_done"`
	TotalFiles       int64    `json:"total_files"`
	BytesDone        int64    `json:"bytes_done"`
	TotalBytes       int64    `json:"total_bytes"`
	SecondsRemaining int64    `json:"seconds_remaining"`
	ErrorCount       int64    `json:"error_count,omitempty"`
	CurrentFiles     []string `json:"current_files,omitempty"`
}

// Log levels.
const (
	LevelInfo    = "info"
	LevelWarning = "warning"
	LevelError   = "error"
)

// LogLine is one line; Seq starts at 1 and has no gaps within a job.
type LogLine struct {
	Seq   int64     `json:"seq"`
	At    time.Time `json:"at"`
	Level string    `json:"level"`
	Text  string    `json:"text"`
}

// Log is a batch of lines in order.
type Log struct {
	JobID string    `json:"job_id"`
	Lines []LogLine `json:"lines"`
}

// Outcomes of a job, as the agent saw them.
const (
	OutcomeSucceeded = "succeeded"
	OutcomeWarning   = "warning"
	OutcomeFailed    = "failed"
	OutcomeCancelled = "cancelled"
)

// Error codes of a failed, warning or cancelled job: what a program switches
// on. Error holds the sentences for people.
const (
	ErrNoRepository     = "no_repository"          // restic's exit 10
	ErrLocked           = "locked"                 // restic's exit 11
	ErrWrongPassword    = "wrong_password"         // restic's exit 12
	ErrUnreachable      = "repository_unreachable" // no answer from the backend in time
	ErrMissingInclude   = "missing_include"        // an include does not exist
	ErrUnreadable       = "unreadable_files"       // restic's exit 3 of a backup
	ErrNoSpace          = "no_space"               // the agent's own disk
	ErrNoRestic         = "no_restic"              // no usable restic program
	ErrNoSecrets        = "no_secrets"             // credentials missing or not readable with our key
	ErrInterrupted      = "interrupted"            // restic was killed or its end is unknown
	ErrEndUnrecorded    = "end_unrecorded"         // the snapshot exists, how restic ended is unknown
	ErrCancelled        = "cancelled"
	ErrAlreadyExists    = "already_exists" // init of a repository that exists and opens
	ErrRefusedByPolicy  = "refused_by_policy"
	ErrUnknownKind      = "unknown_kind"
	ErrRestic           = "restic_failed" // anything else restic said
	ErrInvalidCommand   = "invalid_command"
	ErrInternal         = "agent_error"
	ErrSnapshotMissing  = "snapshot_missing" // exit 0 without a snapshot id
	ErrBelowMinimum     = "below_minimum"    // fewer files or bytes than the group asks for
	ErrFarBelowUsual    = "far_below_usual"  // far fewer files or bytes than the newest good snapshot
	ErrBackendForbidden = "backend_forbidden"
	ErrAppendOnly       = "append_only"          // the credentials may add and not remove
	ErrWrongRepository  = "wrong_repository"     // the second credentials open another repository
	ErrNotYetKnown      = "repository_not_known" // the second credentials may open any: the everyday one's id isn't known
	ErrWouldRemoveAll   = "would_remove_all"     // a policy that keeps none of a group's snapshots
	ErrNotRemoved       = "not_removed"          // restic said it was, the next listing says it was not
	ErrDamaged          = "damaged"              // check found errors
	ErrSnapshotUnknown  = "snapshot_unknown"     // this host has no such snapshot in the repository
	ErrAnswerIncomplete = "answer_incomplete"    // pieces of a look-up's answer are missing
)

// SecondCredentials begins Finished.Error where a repository didn't open with
// Repository.Maintenance: what is to be mended are those, not the everyday ones.
const SecondCredentials = "With the credentials for forget and prune: "

// Finished is a job's end. It is repeated until it is acknowledged.
type Finished struct {
	JobID      string    `json:"job_id"`
	Outcome    string    `json:"outcome"`
	At         time.Time `json:"at"`
	StartedAt  time.Time `json:"started_at,omitzero"`
	ExitCode   *int      `json:"exit_code,omitempty"`
	SnapshotID string    `json:"snapshot_id,omitempty"` // full id, 64 hex digits
	// RepositoryID is restic's own id of the repository, where the job learnt it.
	RepositoryID string `json:"repository_id,omitempty"`
	ErrorCode    string `json:"error_code,omitempty"`
	// Error is the cause, then the remedy; known secrets are scrubbed.
	Error string `json:"error,omitempty"`
	// Stats are restic's summary figures under restic's names.
	Stats map[string]any `json:"stats,omitempty"`
	// Unreadable names up to 100 files that could not be read.
	Unreadable []string `json:"unreadable,omitempty"`
	// LastLogSeq is the seq of the job's last log line, 0 for none.
	LastLogSeq int64 `json:"last_log_seq"`
	// LastAnswerSeq is the seq of a look-up's last Answer, 0 for none.
	LastAnswerSeq int64 `json:"last_answer_seq,omitempty"`
}

// Heartbeat keeps the link's last contact fresh and repeats what hello said
// of the schedule set.
type Heartbeat struct {
	AppliedScheduleVersion int64     `json:"applied_schedule_version"`
	ScheduleDigest         string    `json:"schedule_digest,omitempty"`
	SentAt                 time.Time `json:"sent_at"`
}

// Ack lists what the server has committed and what it can never store.
type Ack struct {
	Acknowledged []string    `json:"acknowledged"`
	Rejected     []Rejection `json:"rejected,omitempty"`
}

// Rejection names a message that will never be taken, and why, so that it
// blocks nothing behind it.
type Rejection struct {
	ID     string `json:"id"`
	Reason string `json:"reason"`
}

// Error says why the server is about to close the link or ignored something.
type Error struct {
	Code   string `json:"code"`
	Reason string `json:"reason"`
}
