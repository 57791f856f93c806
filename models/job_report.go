package models

import (
	"context"
	"fmt"
	"maps"
	"math"
	"regexp"
	"slices"
	"time"

	"github.com/uptrace/bun"
	"github.com/uptrace/bun/schema"
	"golang.org/x/text/language"
	"golang.org/x/text/message"

	"resticfleet/agent/protocol"
)

// unknownJob is what an agent's message about a job that isn't its host's
// ends with: it can never be stored, so it must not be repeated.
func unknownJob(id string) *Error { return NotFound("job of this host", id) }

// agentJob reads and locks a job for a report of its own host.
func agentJob(ctx context.Context, tx IDB, host HostID, id string) (*Job, error) {
	jobID, err := ParseID[JobID](id)
	if err != nil {
		return nil, unknownJob(id)
	}
	j := &Job{}
	err = tx.NewSelect().Model(j).Where("id = ? and host_id = ?", jobID, host).For("no key update").Scan(ctx)
	if isNoRows(err) {
		return nil, unknownJob(id)
	}
	if err != nil {
		return nil, fmt.Errorf("find job: %w", err)
	}
	return j, nil
}

// JobAccepted keeps that the agent has journalled a job: from now on it never
// expires and is never offered again. One that the agent was only asked about
// was accepted, if ever, at some time since it was sent.
func JobAccepted(ctx context.Context, tx IDB, host HostID, m protocol.Accepted) (*Job, error) {
	j, err := agentJob(ctx, tx, host, m.JobID)
	if err != nil {
		return nil, err
	}
	_, err = tx.ExecContext(ctx, `update jobs set accepted_at = coalesce(accepted_at, case when settle_after is null then now() else sent_at end),
		settle_after = null, claim_journal_id = coalesce(nullif(?, ''), claim_journal_id),
		claim_instance = (select agent_instance from hosts where hosts.id = host_id)
		where id = ? and state <> 'queued'`, clip(m.JournalID), j.ID)
	if err != nil {
		return nil, fmt.Errorf("job accepted: %w", err)
	}
	return j, nil
}

// agentTime is SQL for a time of the agent's clock on ours: corrected by the
// measured difference, not before the agent had the job, not after now. News
// that comes after a long outage must not make a snapshot look younger.
const agentTime = `greatest(coalesce(accepted_at, sent_at, queued_at), least(now(), coalesce(?::timestamptz
	- (select clock_skew_ms from hosts where hosts.id = jobs.host_id) * interval '1 millisecond', now())))`

// known is a time that was said, nil for none.
func known(t time.Time) *time.Time {
	if t.Year() < 2000 || t.Year() > 9999 {
		return nil
	}
	return &t
}

// JobStarted makes a job running, also one that was lost.
func JobStarted(ctx context.Context, tx IDB, host HostID, m protocol.Started) (*Job, error) {
	j, err := agentJob(ctx, tx, host, m.JobID)
	if err != nil {
		return nil, err
	}
	_, err = tx.ExecContext(ctx, `update jobs set state = 'running', settle_after = null, accepted_at = coalesce(accepted_at, now()),
		started_at = coalesce(started_at, `+agentTime+`), finished_at = null, error = '', error_code = ''
		where id = ? and state in ('sent', 'lost')`, known(m.At), j.ID)
	if err == nil && j.State == JobLost {
		// Its group needs no hand for a job that runs.
		_, err = tx.ExecContext(ctx, "update source_groups set last_state = '', last_error = '' where last_job_id = ? and last_state = 'lost'", j.ID)
	}
	if err != nil {
		return nil, fmt.Errorf("job started: %w", err)
	}
	return j, nil
}

// JobProgress keeps the newest progress of a job that has not ended; it reports
// false for one that is older than what is there.
func JobProgress(ctx context.Context, tx IDB, host HostID, m protocol.Progress) (*Job, bool, error) {
	j, err := agentJob(ctx, tx, host, m.JobID)
	if err != nil {
		return nil, false, err
	}
	if j.State.Ended() || m.Seq <= j.ProgressSeq || math.IsNaN(m.Percent) {
		return j, false, nil
	}
	p := Progress{
		Percent: min(max(m.Percent, 0), 100), FilesDone: max(m.FilesDone, 0), TotalFiles: max(m.TotalFiles, 0),
		BytesDone: max(m.BytesDone, 0), TotalBytes: max(m.TotalBytes, 0), SecondsRemaining: max(m.SecondsRemaining, 0),
		ErrorCount: max(m.ErrorCount, 0), CurrentFiles: []string{},
	}
	for _, f := range m.CurrentFiles[:min(len(m.CurrentFiles), 4)] {
		p.CurrentFiles = append(p.CurrentFiles, CleanText(f, 1000))
	}
	_, err = tx.ExecContext(ctx, "update jobs set progress = ?, progress_seq = ? where id = ?", jsonb{p}, m.Seq, j.ID)
	if err != nil {
		return nil, false, fmt.Errorf("job progress: %w", err)
	}
	return j, true, nil
}

// The bounds of a stored log. An agent keeps the first and last MiB, so one
// that sends more is not ours; what it sent until then stays.
const (
	maxLogLine  = 16 << 10
	maxLogLines = 200_000
	// maxUnreadable is how many unreadable files a job names.
	maxUnreadable = 100
)

// JobLog keeps log lines, each once.
func JobLog(ctx context.Context, tx IDB, host HostID, m protocol.Log) (*Job, error) {
	j, err := agentJob(ctx, tx, host, m.JobID)
	if err != nil {
		return nil, err
	}
	rows := make([]LogLine, 0, len(m.Lines))
	for _, l := range m.Lines {
		if l.Seq < 1 || l.Seq > maxLogLines {
			return nil, Invalid("lines.seq", "is out of bounds: a log has at most %d lines", maxLogLines)
		}
		level := l.Level
		if level != protocol.LevelWarning && level != protocol.LevelError {
			level = protocol.LevelInfo
		}
		rows = append(rows, LogLine{JobID: j.ID, Seq: l.Seq, At: l.At.UTC(), Level: level, Text: CleanText(l.Text, maxLogLine)})
	}
	if len(rows) == 0 {
		return j, nil
	}
	if _, err := tx.NewInsert().Model(&rows).On("conflict do nothing").Exec(ctx); err != nil {
		return nil, fmt.Errorf("job log: %w", err)
	}
	return j, nil
}

// JobEnd is what a job's result has changed: the job, nil where nothing, since it
// was told before, and who owns the repository that it has seen.
type JobEnd struct {
	Job    *Job
	Owners OwnerChange
}

// JobFinished keeps how a job ended, once: a repeated result changes nothing.
// It replaces lost and expired, marked late.
func JobFinished(ctx context.Context, tx IDB, host *Host, m protocol.Finished) (done JobEnd, err error) {
	j, err := agentJob(ctx, tx, host.ID, m.JobID)
	if err != nil {
		return done, err
	}
	open := !j.State.Ended() || j.State == JobLost || j.State == JobExpired
	if !open {
		return done, nil
	}
	if err := completeAnswer(ctx, tx, j, &m); err != nil {
		return done, err
	}
	usual, err := usualSize(ctx, tx, j)
	if err != nil {
		return done, err
	}
	end := judge(j, m, usual)
	stats, _ := cleanJSON(m.Stats).(map[string]any)
	if stats == nil {
		stats = map[string]any{}
	}
	if !snapshotID.MatchString(m.SnapshotID) {
		m.SnapshotID = ""
	}
	if m.ExitCode != nil && int(int32(*m.ExitCode)) != *m.ExitCode {
		m.ExitCode = nil // no system has such a one
	}
	unreadable := []string{}
	for _, name := range m.Unreadable[:min(len(m.Unreadable), maxUnreadable)] {
		unreadable = append(unreadable, CleanText(name, maxPathLength))
	}
	late := j.State == JobLost || j.State == JobExpired
	err = tx.NewRaw(`update jobs set state = ?, late = late or ?, snapshot_id = ?, exit_code = ?, error = ?, error_code = ?, stats = ?, unreadable = ?,
			settle_after = null, accepted_at = coalesce(accepted_at, now()),
			started_at = coalesce(started_at, case when ? then `+agentTime+` end),
			finished_at = greatest(coalesce(started_at, queued_at), `+agentTime+`)
		where id = ? returning *`,
		end.state, late, m.SnapshotID, m.ExitCode, end.error, end.code, jsonb{stats}, jsonb{unreadable}, m.ExitCode != nil || !m.StartedAt.IsZero(), known(m.StartedAt), known(m.At), j.ID).Scan(ctx, j)
	if err != nil {
		return done, fmt.Errorf("job finished: %w", err)
	}
	if done.Owners, err = learnRepository(ctx, tx, j, m.RepositoryID); err != nil {
		return done, err
	}
	if j.Kind == KindBackup {
		err = keepOutcome(ctx, tx, host, j, end.good)
	} else {
		err = keepMaintenance(ctx, tx, j)
	}
	if err != nil {
		return done, err
	}
	if err := keepAnswer(ctx, tx, host, j); err != nil {
		return done, err
	}
	done.Job = j
	return done, refreshAfter(ctx, tx, host, j)
}

// snapshotID is restic's, whole or as short as restic shows it.
var snapshotID = regexp.MustCompile(`^[0-9a-f]{8,64}$`)

type ending struct {
	state       JobState
	code, error string
	good        bool // moves the group's freshness
}

// judge turns what the agent saw into a final state. Succeeded means exit 0
// and a snapshot id, whatever the agent calls it.
func judge(j *Job, m protocol.Finished, usual size) ending {
	e := ending{state: JobFailed, code: clip(m.ErrorCode), error: CleanText(m.Error, 4000)}
	switch outcomeOf(j, m) {
	case protocol.OutcomeSucceeded:
		e.state = JobSucceeded
	case protocol.OutcomeWarning:
		e.state = JobWarning
	case protocol.OutcomeCancelled:
		e.state = JobCancelled
	}
	if j.Kind != KindBackup || (e.state != JobSucceeded && e.state != JobWarning) {
		return e
	}
	if !snapshotID.MatchString(m.SnapshotID) {
		return ending{state: JobFailed, code: protocol.ErrSnapshotMissing,
			error: "restic ended well but named no snapshot. Look at the log, then run the backup again."}
	}
	e.good = e.state == JobSucceeded || slices.Contains(goodWarnings, e.code)
	switch holds := sizeIn(m.Stats); {
	case holds.files < j.Spec.MinFiles || holds.bytes < j.Spec.MinBytes:
		e = ending{state: JobWarning, code: protocol.ErrBelowMinimum,
			error: tooLittle("files", holds.files, j.Spec.MinFiles) + tooLittle("bytes", holds.bytes, j.Spec.MinBytes) + "Check that its folders are mounted and full, then run it again."}
	case j.Spec.MinFiles == 0 && j.Spec.MinBytes == 0 && m.Stats["total_files_processed"] != nil && holds.farBelow(usual):
		e = ending{state: JobWarning, code: protocol.ErrFarBelowUsual, error: fmt.Sprintf(
			"The snapshot holds %s; the newest good one held %s. Check that its folders are mounted and full, then run it again. "+
				"If it is right like this, give the group a minimum of files or bytes: then only that counts.",
			holds, usual)}
	}
	return e
}

func tooLittle(what string, n, least int64) string {
	if n >= least {
		return ""
	}
	return english.Sprintf("The snapshot holds fewer %s than the group asks for: %d, and at least %d are wanted. ", what, n, least)
}

// size is what a snapshot holds.
type size struct{ files, bytes int64 }

func (s size) String() string { return english.Sprintf("%d files and %d bytes", s.files, s.bytes) }

// english separates thousands.
var english = message.NewPrinter(language.English)

func sizeIn(stats map[string]any) size {
	return size{number(stats, "total_files_processed"), number(stats, "total_bytes_processed")}
}

// Under a tenth is far below. Bytes alone say so only where there were many: a
// small file that grows and shrinks is nothing to warn of.
const (
	farBelow  = 10
	manyBytes = 1 << 20
)

func (s size) farBelow(usual size) bool {
	return s.files < ceilDiv(usual.files, farBelow) || (usual.bytes >= manyBytes && s.bytes < usual.bytes/farBelow)
}

func ceilDiv(n, by int64) int64 { return (n + by - 1) / by }

// usualSize is what the group's newest good snapshot of the same includes and
// excludes held, zero for none.
func usualSize(ctx context.Context, tx IDB, j *Job) (size, error) {
	var usual size
	if j.Kind != KindBackup {
		return usual, nil
	}
	err := tx.NewRaw("select usual_files, usual_bytes from source_groups where id = ? and ?", j.SourceGroupID, j.ofGroup()).Scan(ctx, &usual.files, &usual.bytes)
	if err != nil && !isNoRows(err) {
		return usual, fmt.Errorf("usual size: %w", err)
	}
	return usual, nil
}

// outcomeOf is the agent's word, or else what restic's exit code says.
func outcomeOf(j *Job, m protocol.Finished) string {
	if m.Outcome != "" || m.ExitCode == nil {
		return m.Outcome
	}
	switch code := *m.ExitCode; {
	case code == 0:
		return protocol.OutcomeSucceeded
	case code == 3 && j.Kind == KindBackup:
		return protocol.OutcomeWarning
	case code == 130:
		return protocol.OutcomeCancelled
	}
	return protocol.OutcomeFailed
}

func number(stats map[string]any, name string) int64 {
	f, _ := stats[name].(float64)
	return int64(min(max(f, 0), 1<<62))
}

// keepOutcome keeps what pages show of a group, so that none of them scans
// jobs: newest snapshots, freshness, lateness, last state, the day's strip. Only
// the end of a backup that ran comes here, and a lost one's; cancelled, skipped
// and expired ones are no news of the group.
func keepOutcome(ctx context.Context, tx IDB, host *Host, j *Job, good bool) error {
	if j.State != JobCancelled {
		if err := keepLast(ctx, tx, j); err != nil {
			return err
		}
	}
	if good {
		if err := keepGood(ctx, tx, j); err != nil {
			return err
		}
	}
	column := map[JobState]string{JobSucceeded: "good", JobWarning: "warning", JobFailed: "failed"}[j.State]
	if column == "" {
		return nil
	}
	day := j.FinishedAt.In(host.Location()).Format(time.DateOnly)
	_, err := tx.ExecContext(ctx, "insert into source_group_days as d (source_group_id, day, ?) values (?, ?, 1) on conflict (source_group_id, day) do update set ? = d.? + 1",
		bun.Ident(column), j.SourceGroupID, day, bun.Ident(column), bun.Ident(column))
	if err != nil {
		return fmt.Errorf("keep outcome: %w", err)
	}
	return nil
}

// keepLast makes a job the group's last one. A late result of an older job is
// no news of the group.
func keepLast(ctx context.Context, tx IDB, j *Job) error {
	_, err := tx.ExecContext(ctx, `update source_groups set last_job_id = ?, last_state = ?, last_error = ?,
			newest_snapshot_id = coalesce(nullif(?, ''), newest_snapshot_id) where id = ? and (last_job_id is null or last_job_id <= ?)`,
		j.ID, j.State, j.Error, j.SnapshotID, j.SourceGroupID, j.ID)
	if err != nil {
		return fmt.Errorf("keep outcome: %w", err)
	}
	return nil
}

// keepGood moves the group's freshness and lateness. A snapshot is as old as
// its run's start; it answers its own due time whatever the clocks say.
func keepGood(ctx context.Context, tx IDB, j *Job) error {
	at := j.QueuedAt
	if j.StartedAt != nil {
		at = *j.StartedAt
	}
	holds, same := sizeIn(j.Stats), j.ofGroup()
	_, err := tx.ExecContext(ctx, `update source_groups set good_snapshot_id = ?, good_at = ?, good_bytes = ?,
			usual_files = case when ? then ?::bigint else 0 end, usual_bytes = case when ? then ?::bigint else 0 end
		where id = ? and (good_at is null or good_at < ?)`,
		j.SnapshotID, at, holds.bytes, same, holds.files, same, holds.bytes, j.SourceGroupID, at)
	if err == nil {
		_, err = tx.ExecContext(ctx, "update source_groups set covered_at = greatest(covered_at, ?::timestamptz, ?::timestamptz) where id = ?", at, j.ScheduledAt, j.SourceGroupID)
	}
	if err != nil {
		return fmt.Errorf("keep outcome: %w", err)
	}
	return keepLateness(ctx, tx, j.HostID)
}

// ofGroup is SQL that tells whether the group still asks for what the job
// backed up.
func (j *Job) ofGroup() schema.QueryAppender { return asksFor(j.Spec.Includes, j.Spec.Excludes) }

// asksFor is SQL that tells whether a group's row has these sources.
func asksFor(includes, excludes []string) schema.QueryAppender {
	if excludes == nil {
		excludes = []string{}
	}
	return bun.SafeQuery("(includes = ? and excludes = ?)", jsonb{includes}, jsonb{excludes})
}

// Settlement is what became of a host's jobs when its agent said hello.
type Settlement struct {
	Changed []*Job
	// Remade are those of them that this database did not know.
	Remade []*Job
	// Refused are the jobs that have no place here, with the reason. What the
	// agent says of them is rejected by id.
	Refused map[string]error
	// ToSettle are the jobs that the agent no longer knows, and that it is asked
	// about.
	ToSettle []*Job
	// Held are the jobs that are left for a while to another agent, to which
	// they were sent.
	Held []*Job
	// Cancels are the jobs that the agent should end.
	Cancels []JobID
	// Stored is what is here of each job that the agent told of.
	Stored []protocol.WelcomeJob
}

// maxRemade bounds how many rows one hello can make.
const maxRemade = 500

// Settle compares what an agent's hello says of its jobs with what stands
// here. Accepted and running ones are brought up to date; one that stands
// nowhere is made again; those that the agent should know and doesn't are
// settled by unreported.
func Settle(ctx context.Context, tx IDB, host *Host, reported []protocol.HelloJob, p Patience) (*Settlement, error) {
	s := &Settlement{Refused: map[string]error{}}
	known := map[JobID]bool{}
	for _, r := range reported {
		j, err := agentJob(ctx, tx, host.ID, r.JobID)
		if CodeOf(err) == ENotFound && len(s.Remade) < maxRemade {
			if j, err = remakeJob(ctx, tx, host, r); err == nil {
				s.Remade = append(s.Remade, j)
			}
		}
		if CodeOf(err) == ENotFound {
			s.Refused[clip(r.JobID)] = err
			continue
		}
		if err != nil {
			return nil, err
		}
		known[j.ID] = true
		if err := s.reported(ctx, tx, host, j, r); err != nil {
			return nil, err
		}
	}
	if err := s.readStored(ctx, tx, known); err != nil {
		return nil, err
	}
	return s, s.unreported(ctx, tx, host, known, p)
}

// reported settles a job that the agent knows.
func (s *Settlement) reported(ctx context.Context, tx IDB, host *Host, j *Job, r protocol.HelloJob) (err error) {
	if err := taken(ctx, tx, host, j.ID); err != nil {
		return err
	}
	if r.State == protocol.JobFinished {
		return nil // the result follows
	}
	if j.State == JobQueued {
		// This database was put back to before it was sent.
		_, err := tx.ExecContext(ctx, `update jobs set state = 'sent', sent_at = now(), attempt = attempt + 1, claim_generation = ?
			where id = ?`, host.LinkGeneration, j.ID)
		if err != nil {
			return fmt.Errorf("settle: %w", err)
		}
	}
	if j.State == JobCancelled || (j.CancelRequestedAt != nil && !j.State.Ended()) {
		s.Cancels = append(s.Cancels, j.ID)
	}
	if r.State == protocol.JobRunning {
		_, err = JobStarted(ctx, tx, host.ID, protocol.Started{JobID: r.JobID, At: r.StartedAt})
	} else {
		_, err = JobAccepted(ctx, tx, host.ID, protocol.Accepted{JobID: r.JobID, JournalID: host.JournalID})
	}
	s.Changed = append(s.Changed, j)
	return err
}

// readStored tells the agent which lines and pieces of answers this database
// has: it may remember more acknowledgements than a restored one gave, and goes
// on where a link broke.
func (s *Settlement) readStored(ctx context.Context, tx IDB, jobs map[JobID]bool) error {
	if len(jobs) == 0 {
		return nil
	}
	var rows []struct {
		ID             JobID
		Lines, Answers int64
	}
	// Once a job has ended, no piece is needed any more; see JobAnswer.
	err := tx.NewRaw(`select id, coalesce((select max(seq) from job_log_lines l where l.job_id = j.id), 0) as lines,
			case when j.finished_at is not null and j.state not in ('lost', 'expired') then ?
				else (select count(*) from (select seq, row_number() over (order by seq) as n from job_answers a where a.job_id = j.id) a where seq = n) end as answers
		from jobs j where id in (?) order by id`, maxAnswers, bun.List(slices.Collect(maps.Keys(jobs)))).Scan(ctx, &rows)
	if err != nil {
		return fmt.Errorf("settle: %w", err)
	}
	for _, r := range rows {
		s.Stored = append(s.Stored, protocol.WelcomeJob{JobID: r.ID.String(), LogSeq: r.Lines, AnswerSeq: r.Answers})
	}
	return nil
}

// FailUnsendable ends a claimed job that can't be put into words for its
// agent.
func FailUnsendable(ctx context.Context, db *DB, id JobID, code, why string) error {
	return Tx(ctx, db, func(tx IDB) error {
		j := &Job{}
		err := tx.NewRaw("update jobs set state = 'failed', finished_at = now(), error_code = ?, error = ? where id = ? and state = 'sent' returning *", code, why, id).Scan(ctx, j)
		if isNoRows(err) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("fail job: %w", err)
		}
		if j.Kind != KindBackup {
			return keepMaintenance(ctx, tx, j)
		}
		host, err := FindAnyHost(ctx, tx, j.HostID)
		if err != nil {
			return err
		}
		return keepOutcome(ctx, tx, host, j, false)
	})
}
