package views

import (
	"context"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/a-h/templ"

	"resticfleet/views/ui"
)

// The samples are what the tests below look at: one of each page, with the
// data of a fleet that has something of everything.

var now = time.Date(2026, 11, 23, 13, 52, 0, 0, time.UTC)

func berlin(t *testing.T) *time.Location {
	t.Helper()
	zone, err := time.LoadLocation("Europe/Berlin")
	if err != nil {
		t.Fatal(err)
	}
	return zone
}

func sampleClock(t *testing.T) ui.Clock { return ui.Clock{Now: now, Zone: berlin(t)} }

func samplePage(title, nav string) Page {
	return Page{Title: title, Nav: nav, User: User{Name: "anna", Role: "admin"}, Path: "/", StreamURL: "/events"}
}

func sampleDays(missing int, bad map[int]ui.State) []ui.Day {
	days := make([]ui.Day, 30)
	for i := range days {
		days[i] = ui.Day{Date: now.AddDate(0, 0, i-29), State: ui.Good}
		if i >= 30-missing {
			days[i].State = ""
		}
		if s, ok := bad[i]; ok {
			days[i].State = s
		}
	}
	return days
}

func sampleFleet(t *testing.T) Fleet {
	return Fleet{
		Clock: sampleClock(t), Total: 14, NeedHand: 3, OfflineCount: 1, CanAddHost: true, NextCursor: "abc", MoreAttention: true,
		Attention: []Attention{
			{ID: "g1", State: ui.Failed, HostID: "h3", HostName: "web-03", GroupName: "www", Cause: "Wrong repository password. The repository was opened last on 12 Nov; nothing was changed since.", Since: now.Add(-3 * time.Hour), Act: ui.Link{Text: "See what to do", URL: "/jobs/j1"}, RunURL: "/hosts/h3/source-groups/g1/run"},
			{ID: "g2", State: ui.Late, HostID: "h4", HostName: "db-01", GroupName: "postgres", Cause: "Newest good snapshot is 2 days old, due every day at 02:00 (Europe/Berlin). Host was offline at both times.", Since: now.Add(-52 * time.Hour), Active: ui.Link{Text: "Backing up 63 %", URL: "/jobs/j2"}, CancelURL: "/jobs/j2/cancel"},
			{ID: "h5", State: ui.Never, HostID: "h5", HostName: "nas-01", Cause: "Enrolled yesterday, repository set up, no source group yet.", Act: ui.Link{Text: "Add source group", URL: "/hosts/h5/source-groups/new"}},
		},
		Hosts: []FleetHost{
			{ID: "h3", Name: "web-03", State: ui.Failed, About: "Debian 12 · websocket", NewestGood: now.Add(-27 * time.Hour), Days: sampleDays(0, map[int]ui.State{29: ui.Failed}), NextRun: now.Add(9*time.Hour + time.Minute), Groups: 1},
			{ID: "h4", Name: "db-01", State: ui.Late, About: "Ubuntu 24.04 · polling", NewestGood: now.Add(-52 * time.Hour), Days: sampleDays(2, nil), NextRun: now.Add(9*time.Hour + time.Minute), Groups: 2},
			{ID: "h5", Name: "nas-01", State: ui.Never, About: "TrueNAS · websocket", Days: sampleDays(30, nil)},
			{ID: "h1", Name: "web-01", State: ui.Running, StateText: "Backing up 63 %", About: "Debian 12 · websocket", NewestGood: now.Add(-14 * time.Hour), Days: sampleDays(0, nil), NextRun: now.Add(9*time.Hour + time.Minute), Groups: 2},
			{ID: "h2", Name: "web-02", State: ui.Good, About: "Debian 12 · websocket", NewestGood: now.Add(-14 * time.Hour), Days: sampleDays(0, map[int]ui.State{11: ui.Warning}), NextRun: now.Add(9*time.Hour + time.Minute), Groups: 2},
			{ID: "h6", Name: "a-host-with-a-very-long-name.internal.example.net", State: ui.Offline, About: "Fedora 42 · offline 6 min", NewestGood: now.Add(-38 * time.Minute), Days: sampleDays(0, map[int]ui.State{7: ui.Failed}), NextRun: now.Add(22*time.Minute + time.Second), Groups: 3},
		},
	}
}

func sampleHost(t *testing.T) Host {
	return Host{
		Clock: sampleClock(t), ID: "h1", Name: "web-01", Online: true, Enrolled: true, Link: "websocket", OS: "Debian 12",
		ResticVersion: "0.19.1", AgentVersion: "0.1.0", Timezone: "Europe/Berlin", Labels: []string{"prod", "web"}, CanOperate: true, CanAdminister: true,
		ScheduleLag: &ScheduleLag{ChangedAt: now.Add(-4 * time.Second), Current: 12, Applied: 11},
		Repository:  &Repository{URL: "rest:https://backup.example.net/web-01", ID: "3f2c81aa99", EnvNames: []string{"RESTIC_REST_USERNAME"}, State: ui.Good},
		Groups: []Group{
			{ID: "g1", Name: "system", Tag: "system", Includes: []string{"/etc", "/root", "/var/spool/cron"}, ExcludeCount: 2, State: ui.Good, NewestGood: now.Add(-14 * time.Hour), SizeBytes: 212 << 20, Days: sampleDays(0, nil)},
			{ID: "g2", Name: "www", Tag: "www", Includes: []string{"/srv/www"}, ExcludeCount: 5, State: ui.Running, StateText: "63 % · 2 min left", Detail: "18,204 files · 3.1 GiB", Days: sampleDays(0, nil), ActiveJobID: "j2", Percent: 63},
			{ID: "g3", Name: "postgres", Tag: "postgres", Includes: []string{"/var/lib/postgresql/dumps"}, State: ui.Late, NewestGood: now.Add(-52 * time.Hour), SizeBytes: 12670153523, Days: sampleDays(2, nil)},
			{ID: "g4", Name: "mail", Tag: "mail", Includes: []string{"/var/mail"}, State: ui.Waiting, StateText: "Waiting", Detail: "behind www", Days: sampleDays(30, nil), ActiveJobID: "j3", Percent: -1},
		},
		Schedules: []Schedule{
			{ID: "s1", Words: "Every day at 02:00", Cron: "0 2 * * *", Enabled: true, Groups: []string{"system", "www", "postgres"}, NextRun: now.Add(11*time.Hour + 8*time.Minute)},
			{ID: "s2", Words: "Every hour, on the hour, 08:00 to 18:00, Monday to Friday", Cron: "0 8-18 * * 1-5", Enabled: true, Groups: []string{"www"}, NextRun: now.Add(8 * time.Minute)},
			{ID: "s3", Words: "On the 1st of each month at 04:30", Cron: "30 4 1 * *", Groups: []string{"system"}},
		},
		Jobs: sampleRows()[:3],
	}
}

func sampleRows() []JobRow {
	return []JobRow{
		{ID: "j2", State: "running", Kind: "backup", GroupName: "www", HostID: "h1", HostName: "web-01", Percent: 63, By: "schedule, catch-up", QueuedAt: now.Add(-2 * time.Minute), Took: 98 * time.Second, Outcome: "1.9 GiB read"},
		{ID: "j3", State: "queued", Kind: "backup", GroupName: "system", HostID: "h1", HostName: "web-01", Percent: -1, By: "anna", QueuedAt: now.Add(-time.Minute), Waits: "behind www"},
		{ID: "j4", State: "succeeded", Kind: "backup", GroupName: "postgres", HostID: "h7", HostName: "db-02", By: "schedule", QueuedAt: now.Add(-38 * time.Minute), Took: 182 * time.Second, Outcome: "+212 MiB"},
		{ID: "j5", State: "warning", Kind: "backup", GroupName: "home", HostID: "h8", HostName: "build-07", By: "schedule", QueuedAt: now.Add(-2 * time.Hour), Took: 700 * time.Second, Outcome: "3 files unreadable"},
		{ID: "j1", State: "failed", Kind: "backup", GroupName: "www", HostID: "h3", HostName: "web-03", By: "schedule", QueuedAt: now.Add(-12 * time.Hour), Took: 2 * time.Second, Outcome: "wrong password"},
		{ID: "j6", State: "expired", Kind: "backup", GroupName: "media", HostID: "h9", HostName: "nas-03", By: "schedule", QueuedAt: now.Add(-36 * time.Hour), Outcome: "host away for 24 h"},
		{ID: "j7", State: "succeeded", Kind: "init", HostID: "h5", HostName: "nas-01", By: "system", QueuedAt: now.Add(-22 * time.Hour), Took: time.Second, Outcome: "repository 3f2c81aa"},
	}
}

func sampleJobs(t *testing.T) Jobs {
	return Jobs{Clock: sampleClock(t), UnderWay: 2, GoodToday: 38, WarnedToday: 1, FailedToday: 1, Rows: sampleRows(), NextCursor: "abc", MaxUnderWay: 1000, HostNames: []string{"web-01", "web-03"}}
}

func sampleRunning(t *testing.T) Job {
	queued := now.Add(-99 * time.Second)
	return Job{
		Clock: sampleClock(t), ID: "j2", HostID: "h1", HostName: "web-01", Kind: "backup", GroupID: "g2", GroupName: "www", State: "running",
		Actor: Actor{Kind: "schedule", Name: "Every day at 02:00", URL: "/hosts/h1/schedules/s1"}, CatchUp: true,
		QueuedAt: queued, SentAt: queued.Add(3 * time.Millisecond), AcceptedAt: queued.Add(12 * time.Millisecond), StartedAt: queued.Add(33 * time.Millisecond),
		Progress: &Progress{Percent: 63.4, FilesDone: 11470, TotalFiles: 18204, BytesDone: 2040109465, TotalBytes: 3328599654, Unreadable: 1, Remaining: 2 * time.Minute,
			CurrentFiles: []string{"/srv/www/shop/media/catalog/2026/11/IMG_20261119_104511.webp"}},
		CanCancel: true, CanAdminister: true,
	}
}

func sampleFailed(t *testing.T) Job {
	queued := now.Add(-12 * time.Hour)
	code := 12
	return Job{
		Clock: sampleClock(t), ID: "j1", HostID: "h3", HostName: "web-03", Kind: "backup", GroupID: "g1", GroupName: "www", State: "failed",
		Actor: Actor{Kind: "schedule", Name: "Every day at 02:00"}, ErrorCode: "wrong_password", ExitCode: &code,
		Error:    "restic could open rest:https://backup.example.net/web-03 but no key there fits the password stored for this host.",
		QueuedAt: queued, SentAt: queued.Add(3 * time.Millisecond), AcceptedAt: queued.Add(12 * time.Millisecond), StartedAt: queued.Add(33 * time.Millisecond), FinishedAt: queued.Add(2 * time.Second),
		NewestGood: &Snapshot{ID: "9d1be07cffff", At: now.Add(-27 * time.Hour)}, CanRunAgain: true, CanOperate: true, CanAdminister: true,
	}
}

func sampleDone(t *testing.T) Job {
	j := sampleRunning(t)
	j.State, j.Progress, j.CanCancel, j.CanRunAgain = "succeeded", nil, false, true
	j.FinishedAt = now
	j.SnapshotID = "5af0d1c2e3"
	j.Stats = &Stats{FilesNew: 12, FilesChanged: 300, TotalFiles: 18204, TotalBytes: 3328599654, AddedBytes: 212 << 20}
	return j
}

func sampleLog(t *testing.T) Log {
	at := now.Add(-98 * time.Second)
	return Log{Clock: sampleClock(t), JobID: "j2", Follows: true, Lines: []LogLine{
		{1, at, "info", "repository 3f2c81aa opened (version 2, compression level auto)"},
		{2, at, "info", "using parent snapshot 9d1be07c"},
		{3, at.Add(time.Second), "info", "18,204 files, 3.1 GiB to look at"},
		{4, at.Add(75 * time.Second), "warning", "/srv/www/cache/lock: permission denied"},
		{5, at.Add(98 * time.Second), "info", "63 % · 11,470 files · 1.9 GiB"},
	}}
}

func sampleSchedule(t *testing.T, cronError string) ScheduleForm {
	clock := ui.Clock{Now: time.Date(2027, 3, 26, 13, 52, 0, 0, time.UTC), Zone: berlin(t)}
	preview := CronPreview{Clock: clock, HostName: "web-01"}
	f := ScheduleForm{HostID: "h1", HostName: "web-01", Action: "/hosts/h1/schedules", Cron: "30 2 * * *", Enabled: true,
		Groups: []GroupChoice{
			{ID: "g1", Name: "system", Includes: []string{"/etc", "/root"}, Checked: true},
			{ID: "g2", Name: "www", Includes: []string{"/srv/www"}, Checked: true},
			{ID: "g4", Name: "mail", Includes: []string{"/var/mail"}, Unscheduled: true},
		}}
	if cronError != "" {
		f.Cron, f.Errors = "0 0 30 2 *", Errors{"cron": cronError}
	} else {
		preview.Words = "Every day at 02:30"
		for i := range 5 {
			run := CronRun{At: time.Date(2027, 3, 27+i, 2, 30, 0, 0, berlin(t))}
			if i == 1 {
				run = CronRun{At: time.Date(2027, 3, 28, 3, 0, 0, 0, berlin(t)), Note: "clocks go forward: 02:30 does not exist that day"}
			}
			preview.Runs = append(preview.Runs, run)
		}
	}
	f.Preview = preview
	return f
}

func sampleSessions(t *testing.T) Sessions {
	return Sessions{Clock: sampleClock(t), NextCursor: "abc", Rows: []Session{
		{ID: "s1", UserAgent: "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0", Address: "192.0.2.7", CreatedAt: now.Add(-time.Hour), SeenAt: now, This: true},
		{ID: "s2", UserAgent: "curl/8.14.1", Address: "2001:db8::7", CreatedAt: now.Add(-40 * time.Hour), SeenAt: now.Add(-20 * time.Hour)},
	}}
}

func sampleAudit(t *testing.T) Audit {
	return Audit{Clock: sampleClock(t), Subjects: []string{"Users", "Jobs"}, NextCursor: "abc", Rows: []AuditRow{
		{ID: "a1", At: now, ActorKind: "user", ActorName: "anna", Words: "Delete a user", Route: "POST /settings/users/:uid/delete", About: []ui.Link{{Text: "otto"}}, Outcome: 303, Address: "192.0.2.7"},
		{ID: "a2", At: now, ActorKind: "token", ActorName: "ci", Words: "Run a source group now", Route: "POST /x", About: []ui.Link{{Text: "web-01", URL: "/hosts/h1"}, {Text: "www"}}, Outcome: 409, Address: "192.0.2.8"},
		{ID: "a3", At: now, ActorKind: "system", Words: "Log in", Route: "POST /login", Outcome: 401, Address: "192.0.2.9"},
		{ID: "a4", At: now, ActorKind: "agent", Words: "Enrol an agent", Route: "POST /agent/v1/enroll", Outcome: 500, Address: "192.0.2.9"},
	}}
}

func sampleEnrolment(t *testing.T) Enrolment {
	return Enrolment{
		Clock: sampleClock(t), HostID: "h9", HostName: "nas-02", CanAdminister: true,
		Line: Line{
			Command: "resticfleet-agent enroll --server https://fleet.example.net --token rfe_5Hk2kdkfjKJkdjfkdjfkJKJKDFJkdjfkjdkfjkJKDJF --state-dir /var/lib/resticfleet-agent",
			MadeAt:  now.Add(-41 * time.Second), ExpiresAt: now.Add(time.Hour - 41*time.Second),
			RunCommand: "resticfleet-agent run --state-dir /var/lib/resticfleet-agent", Server: "https://fleet.example.net",
		},
	}
}

// samples are all pages by the name they have in a test's output.
func samples(t *testing.T) map[string]templ.Component {
	t.Helper()
	empty := sampleHost(t)
	empty.Groups, empty.Schedules, empty.Jobs, empty.Repository, empty.ScheduleLag = nil, nil, nil, nil, nil
	empty.Online, empty.LastSeen = false, now.Add(-6*time.Minute)
	waiting := sampleRunning(t)
	waiting.State, waiting.Progress, waiting.AcceptedAt, waiting.StartedAt = "sent", nil, time.Time{}, time.Time{}
	out := Page{Title: "Log in"}
	light, dark := samplePage("Fleet", NavFleet), samplePage("Fleet", NavFleet)
	light.Theme, dark.Theme = "light", "dark"
	safe := sampleFleet(t)
	safe.NeedHand, safe.Attention = 0, nil
	enrol := sampleEnrolment(t)
	enrolled := enrol
	enrolled.Enrolled, enrolled.Arrived, enrolled.Online, enrolled.Line = true, true, true, Line{}
	enrolled.Repository = &Repository{URL: "/srv/backup", State: ui.Good, ID: "3f2c81aa99"}
	enrolled.GroupForm = &GroupForm{HostID: "h9", HostName: "nas-02", Action: "/hosts/h9/source-groups", Setup: true}
	crumbs := hostCrumbs("h1", "web-01", "delete www")
	confirm := Confirm{Heading: "Delete “www”?", Lost: "Its schedule entries and its settings go.", Stays: "Its 41 snapshots stay in the repository.", Action: "/hosts/h1/source-groups/g2/delete", Act: "Delete “www”", Keep: "Keep “www”", KeepURL: "/hosts/h1", TypeName: "www", Crumbs: crumbs}
	removeFirst := RemoveFirst{Heading: "“www” is still in two schedules", Text: "Remove it from these first, then delete it. Its 41 snapshots stay in the repository either way.", Act: "Delete “www”", Keep: "Keep “www”", KeepURL: "/hosts/h1", Crumbs: crumbs,
		Rows: []RemoveRow{{ID: "s1", Words: "Every day at 02:00", Detail: "with system, postgres", Action: "/a"}, {ID: "s2", Words: "Every hour, 08:00 to 18:00", Warning: "its only group: the schedule goes too", Action: "/b"}}}
	return map[string]templ.Component{
		"login":           LoginPage(out, Login{}),
		"login-wrong":     LoginPage(out, Login{Username: "anna", Error: "Wrong user name or password."}),
		"setup":           SetupPage(out, Setup{Action: "/setup", Token: "t", Errors: map[string]string{"password_again": "The two passwords differ. Type the same one twice."}}),
		"fleet":           FleetPage(light, sampleFleet(t)),
		"fleet-dark":      FleetPage(dark, sampleFleet(t)),
		"fleet-safe":      FleetPage(light, safe),
		"fleet-empty":     FleetPage(light, Fleet{Clock: sampleClock(t), CanAddHost: true}),
		"host":            HostPage(samplePage("web-01", NavFleet), sampleHost(t)),
		"host-empty":      HostPage(samplePage("web-01", NavFleet), empty),
		"host-form":       HostFormPage(samplePage("Add host", NavFleet), HostForm{Name: "web-01", Errors: Errors{"name": "There is a host “web-01” already. Choose another name."}}),
		"enrol":           EnrolmentPage(samplePage("Add nas-02", NavFleet), enrol),
		"enrolled":        EnrolmentPage(samplePage("Add nas-02", NavFleet), enrolled),
		"repository-form": RepositoryFormPage(samplePage("Repository", NavFleet), RepositoryForm{HostID: "h1", HostName: "web-01", URL: "s3:https://s3.example.net/b", PasswordSet: true, Env: []EnvRow{{Name: "AWS_ACCESS_KEY_ID", Set: true}, {Name: "AWS_SESSION_TOKEN", Set: true, Error: "AWS_SESSION_TOKEN must have a value of at most 10000 bytes of text."}}, Errors: Errors{"env": "LD_PRELOAD is not a variable of this backend."}}),
		"group-form":      GroupFormPage(samplePage("www", NavFleet), GroupForm{ID: "g2", Was: "www", HostID: "h1", HostName: "web-01", Action: "/hosts/h1/source-groups/g2", Name: "www", Tag: "www", Includes: []string{"/srv/www", "srv"}, Retention: Retention{KeepDaily: "7"}, Errors: Errors{"includes[1]": "“srv” is not a whole path. Begin it with /."}}),
		"schedule-form":   ScheduleFormPage(samplePage("New schedule", NavFleet), sampleSchedule(t, "")),
		"schedule-error":  ScheduleFormPage(samplePage("New schedule", NavFleet), sampleSchedule(t, "This would never run: February has no 30th. For the last days of a month use 28.")),
		"confirm":         ConfirmPage(samplePage("Delete www", NavFleet), confirm),
		"danger":          DangerPage(samplePage("Danger zone", NavFleet), Danger{HostID: "h1", HostName: "web-01", Acts: []Confirm{{Title: "Delete web-01", Lost: "It goes.", Stays: "They stay.", Act: "Delete “web-01”", Action: "/hosts/h1/delete"}}}),
		"host-edit":       HostEditPage(samplePage("Name", NavFleet), HostEdit{HostID: "h1", HostName: "web-01", ResticHost: "web-01", Name: "web-01", Labels: []string{"prod", "web"}, Focus: "labels"}),
		"remove-first":    RemoveFirstPage(samplePage("Delete www", NavFleet), removeFirst),
		"jobs":            JobsPage(samplePage("Jobs", NavJobs), sampleJobs(t)),
		"job-running":     JobPage(samplePage("Backup of www", NavJobs), sampleRunning(t), sampleLog(t)),
		"job-waiting":     JobPage(samplePage("Backup of www", NavJobs), waiting, Log{Clock: sampleClock(t), JobID: "j2"}),
		"job-failed":      JobPage(samplePage("Backup of www", NavJobs), sampleFailed(t), sampleLog(t)),
		"job-done":        JobPage(samplePage("Backup of www", NavJobs), sampleDone(t), sampleLog(t)),
		"failure":         FailurePage(samplePage("Not found", ""), Failure{Status: 404, Heading: "There is no such job", Cause: "Its host may have been deleted, or the address is mistyped.", Remedy: "Jobs are listed newest first.", Link: ui.Link{Text: "See all jobs", URL: "/jobs"}}),
		"settings":        SettingsPage(samplePage("Settings", NavSettings), Settings{Person: true, Administers: true, Admins: 1, Viewers: 2}),
		"password":        PasswordPage(samplePage("Change password", NavSettings), PasswordForm{Errors: Errors{"current": "Is not your password.", "password_again": "Is not the same."}}),
		"sessions":        SessionsPage(samplePage("Sessions", NavSettings), sampleSessions(t)),
		"users":           UsersPage(samplePage("Users", NavSettings), Users{Clock: sampleClock(t), NextCursor: "abc", Rows: []UserRow{{ID: "u1", Name: "anna", Role: "admin", You: true, Sessions: 2, CreatedAt: now, SeenAt: now}, {ID: "u2", Name: "otto", Role: "viewer", CreatedAt: now}}}),
		"users-none":      UsersPage(samplePage("Users", NavSettings), Users{Clock: sampleClock(t), Query: "x"}),
		"user-form":       UserFormPage(samplePage("Add user", NavSettings), UserForm{Name: "otto", Role: "operator", Errors: Errors{"name": "Taken.", "role": "No role."}}),
		"user":            UserPage(samplePage("otto", NavSettings), UserPageState{UserRow: UserRow{ID: "u2", Name: "otto", Role: "viewer"}, Role: "viewer"}),
		"user-self":       UserPage(samplePage("anna", NavSettings), UserPageState{UserRow: UserRow{ID: "u1", Name: "anna", Role: "admin", You: true}, Role: "viewer", Errors: Errors{"role": "This is the last administrator."}}),
		"tokens":          TokensPage(samplePage("API tokens", NavSettings), Tokens{Clock: sampleClock(t), Rows: []TokenRow{{ID: "t1", Name: "monitoring", Role: "viewer", CreatedAt: now, LastUsedAt: now}}}),
		"tokens-revoked":  TokensPage(samplePage("API tokens", NavSettings), Tokens{Clock: sampleClock(t), Revoked: true, Rows: []TokenRow{{ID: "t1", Name: "monitoring", Role: "viewer", CreatedAt: now, RevokedAt: now}}}),
		"tokens-none":     TokensPage(samplePage("API tokens", NavSettings), Tokens{Clock: sampleClock(t)}),
		"token-form":      TokenFormPage(samplePage("Make a token", NavSettings), TokenForm{ID: "t1", Role: "viewer", Errors: Errors{"name": "Is missing."}}),
		"token-made":      TokenMadePage(samplePage("Token made", NavSettings), TokenMade{Name: "monitoring", Role: "viewer", Text: "rf_x", BaseURL: "https://fleet.example.net"}),
		"audit":           AuditPage(samplePage("Audit log", NavSettings), sampleAudit(t)),
		"audit-wrong":     AuditPage(samplePage("Audit log", NavSettings), Audit{Clock: sampleClock(t), Filter: AuditFilter{From: "x", Until: "y"}, Errors: Errors{"from": "Is not a day.", "until": "Is not a day."}}),
		"retired":         RetiredPage(samplePage("Gone", ""), Retired{What: "Backing up a whole host", Replacement: "Each source group has its own Run now.", Link: ui.Link{Text: "Open the host", URL: "/hosts/h1"}}),
	}
}

func render(t *testing.T, c templ.Component) string {
	t.Helper()
	var b strings.Builder
	if err := c.Render(context.Background(), &b); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

var (
	inlineCode = regexp.MustCompile(`(?i)<style|<script[^>]*>[^<]|\son[a-z]+=|\sstyle=|javascript:|hx-on|hx-vals="js:`)
	idAttr     = regexp.MustCompile(`\sid="([^"]+)"`)
	labelFor   = regexp.MustCompile(`\sfor="([^"]+)"`)
)

func TestEveryPageKeepsTheRules(t *testing.T) {
	t.Parallel()
	for name, component := range samples(t) {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			html := render(t, component)
			if n := strings.Count(html, "<h1"); n != 1 {
				t.Errorf("%d first headings, want one", n)
			}
			if n := strings.Count(html, "<main"); n != 1 {
				t.Errorf("%d main landmarks, want one", n)
			}
			if m := inlineCode.FindString(html); m != "" {
				t.Errorf("holds %q, which the policy refuses", m)
			}
			ids := map[string]bool{}
			for _, m := range idAttr.FindAllStringSubmatch(html, -1) {
				if ids[m[1]] {
					t.Errorf("id %q stands twice", m[1])
				}
				ids[m[1]] = true
			}
			for _, m := range labelFor.FindAllStringSubmatch(html, -1) {
				if !ids[m[1]] {
					t.Errorf("a label is for %q, which is not there", m[1])
				}
			}
		})
	}
}

func TestAHostsWrongClockIsSaid(t *testing.T) {
	t.Parallel()
	for ahead, want := range map[time.Duration]string{
		42 * time.Second:  "clock is 42 s ahead",
		-90 * time.Second: "clock is 1 min 30 s behind",
		4 * time.Second:   "",
		-4 * time.Second:  "",
	} {
		h := sampleHost(t)
		h.ClockAhead = ahead
		html := render(t, HostLive(h))
		if want == "" && strings.Contains(html, "Its clock is wrong") || !strings.Contains(html, want) {
			t.Errorf("%v: the page doesn't say %q", ahead, want)
		}
	}
}
