package models

// Health is the state of a group as people are shown it, apart from what is
// under way.
type Health string

// The states, worst first as a host takes them over from its groups.
const (
	HealthFailed  Health = "failed"
	HealthLate    Health = "late"
	HealthNever   Health = "never"
	HealthWarning Health = "warning"
	HealthGood    Health = "good"
)

// groupHealth is SQL for the health of a source group g. It is the only place
// that tells it, and it reads nothing but columns of the group.
const groupHealth = `(case
	when g.last_state in ('failed', 'lost') then 'failed'
	when g.good_at is null then 'never'
	when g.late_at <= now() then 'late'
	when g.last_state = 'warning' then 'warning'
	else 'good' end)`

// groupRank is SQL for where groupHealth stands, 1 for the worst.
const groupRank = `array_position(array['failed', 'late', 'never', 'warning', 'good'], ` + groupHealth + `)`

// groupUnsafe is SQL for whether a group g needs a hand: failed, late or never
// backed up. A warning is to be seen; freshness tells whether it endangers.
const groupUnsafe = "(g.archived_at is null and " + groupRank + " <= 3)"

var healthByRank = [...]Health{"", HealthFailed, HealthLate, HealthNever, HealthWarning, HealthGood}
