package views

import (
	"strings"
	"testing"
	"time"

	"github.com/a-h/templ"

	"resticfleet/views/ui"
)

// What comes from hosts, users and restic is text, whatever it holds: in
// elements, in attributes, in URLs and in what the stream pushes, where
// <hx-partial> would be a command to the browser.
func TestHostileTextStaysText(t *testing.T) {
	t.Parallel()
	const evil = `"'><script>alert(1)</script><hx-partial hx-target="#job">`
	clock := sampleClock(t)
	job := sampleFailed(t)
	job.HostName, job.GroupName, job.Error, job.ErrorCode = evil, evil, evil, "missing_include"
	job.Actor, job.Unreadable = Actor{Kind: "user", Name: evil}, []string{evil}
	running := sampleRunning(t)
	running.Progress.CurrentFiles = []string{evil}
	log := Log{Clock: clock, JobID: "j", Lines: []LogLine{{1, now, "error", evil}}}
	host := sampleHost(t)
	host.Name, host.OS, host.Timezone, host.AgentVersion = evil, evil, evil, evil
	host.Repository.URL, host.Repository.Cause = evil, evil
	host.Groups[0].Name, host.Groups[0].Tag, host.Groups[0].Includes = evil, evil, []string{evil}
	host.Schedules[0].Words, host.Schedules[0].Cron, host.Schedules[0].Groups = evil, evil, []string{evil}
	fleet := sampleFleet(t)
	fleet.Query, fleet.Show = evil, evil
	fleet.Attention[0].Cause, fleet.Hosts[0].Name, fleet.Hosts[0].About = evil, evil, evil
	page := samplePage(evil, "")
	page.User.Name, page.Theme, page.Path, page.StreamURL = evil, evil, evil, evil
	for name, c := range map[string]templ.Component{
		"page":       HostPage(page, host),
		"fleet":      FleetLive(fleet),
		"job":        JobUpdate(job),
		"running":    JobLive(running),
		"log":        LogAppend(log),
		"group form": GroupFormBody(GroupForm{HostName: evil, Name: evil, Includes: []string{evil}, Excludes: []string{evil}, Retention: Retention{KeepWithin: evil}, MinBytes: evil, Errors: Errors{"name": evil, "includes[0]": evil, "": evil}}),
		"repository": RepositoryFormBody(RepositoryForm{HostName: evil, Scheme: "s3", URL: evil, Env: []EnvRow{{Name: "AWS_ACCESS_KEY_ID", Value: evil, Error: evil}}, Errors: Errors{"env": evil, "url": evil}}),
		"cron":       CronPreviewBody(CronPreview{Clock: clock, HostName: evil, Error: evil}),
		"confirm":    ConfirmDialog(Confirm{Heading: evil, Lost: evil, Act: evil, TypeName: evil, Typed: evil}),
		"danger":     DangerPage(page, Danger{HostName: evil, Acts: []Confirm{{Title: evil, Lost: evil, Stays: evil, Act: evil}}}),
		"host edit":  HostEditBody(HostEdit{HostName: evil, ResticHost: evil, Name: evil, Labels: []string{evil}}),
		"enrolment":  EnrolmentLive(Enrolment{Clock: clock, HostName: evil, Line: Line{Command: evil, RunCommand: evil, Server: evil, OnlyHere: true, Plain: true, ExpiresAt: now}}),
		"failure":    FailurePage(page, Failure{Heading: evil, Cause: evil, Reference: evil}),
		"toast":      Toast(ui.Banner{Title: evil, Text: evil}),
		"sessions":   SessionsPage(page, Sessions{Clock: clock, NextCursor: evil, Rows: []Session{{ID: "s", UserAgent: "<script>", Address: evil}}}),
		"users":      UsersPage(page, Users{Clock: clock, Query: evil, NextCursor: evil, Rows: []UserRow{{ID: "u", Name: evil, Role: evil}}}),
		"user":       UserPage(page, UserPageState{UserRow: UserRow{ID: "u", Name: evil, Role: evil}, Role: evil, Errors: Errors{"role": evil, "password": evil}}),
		"user form":  UserFormPage(page, UserForm{Name: evil, Role: evil, Errors: Errors{"name": evil, "": evil}}),
		"tokens":     TokensPage(page, Tokens{Clock: clock, Rows: []TokenRow{{ID: "t", Name: evil, Role: evil}}}),
		"token form": TokenFormPage(page, TokenForm{ID: evil, Name: evil, Role: evil, Errors: Errors{"name": evil}}),
		"token made": TokenMadePage(page, TokenMade{Name: evil, Role: evil, Text: evil, BaseURL: evil}),
		"audit": AuditPage(page, Audit{
			Clock: clock, Filter: AuditFilter{Actors: evil, Who: evil, Subject: evil, From: evil, Until: evil, Outcome: evil}, NextCursor: evil, Errors: Errors{"from": evil},
			Rows: []AuditRow{{ID: "a", ActorName: evil, Words: evil, Route: evil, About: []ui.Link{{Text: evil}}, Address: evil}},
		}),
		"jobs filter": JobsLive(Jobs{Clock: clock, Filter: JobsFilter{State: evil, Host: evil}, HostNames: []string{evil}, Groups: []Choice{{evil, evil}}, Errors: Errors{"host": evil}}),
	} {
		html := render(t, c)
		if strings.Contains(html, "<script>") || strings.Contains(html, `<hx-partial hx-target="#job">`) {
			t.Errorf("%s: hostile text is markup", name)
		}
		if strings.Contains(html, `"'>`) {
			t.Errorf("%s: hostile text ends an attribute", name)
		}
	}
	link := render(t, Toast(ui.Banner{Link: ui.Link{Text: "x", URL: "javascript:alert(1)"}}))
	if strings.Contains(link, "javascript:") {
		t.Error("a script is followed as a link")
	}
}

func TestPageAndUpdateCannotDrift(t *testing.T) {
	t.Parallel()
	job, log := sampleRunning(t), sampleLog(t)
	live, update := render(t, JobLive(job)), render(t, JobUpdate(job))
	if !strings.Contains(render(t, JobPage(samplePage("", ""), job, log)), live) {
		t.Error("the page does not hold the live component as it is")
	}
	if !strings.HasPrefix(update, `<hx-partial hx-target="#job" hx-swap="outerMorph">`) || !strings.Contains(update, live) {
		t.Error("the update is not the live component for #job")
	}
	if got := render(t, LogAppend(log)); !strings.HasPrefix(got, `<hx-partial hx-target="#log" hx-swap="beforeend">`) || strings.Count(got, "<li ") != len(log.Lines) {
		t.Errorf("appended lines read %.200s", got)
	}
}

func TestAJobTellsItsStateInWords(t *testing.T) {
	t.Parallel()
	for state, want := range map[string]string{
		"queued": "Waiting", "sent": "Waiting", "running": "Running", "succeeded": "Good", "warning": "Warning",
		"failed": "Failed", "cancelled": "Cancelled", "skipped": "Skipped", "expired": "Expired", "lost": "Lost",
	} {
		job := Job{Clock: sampleClock(t), ID: "j", HostID: "h", HostName: "web-01", Kind: "backup", State: state, QueuedAt: now}
		if html := render(t, JobLive(job)); !strings.Contains(html, "<span>"+want+"</span>") {
			t.Errorf("%s does not read %q", state, want)
		}
	}
}

func TestAFailedJobSaysCauseAndWhatToDo(t *testing.T) {
	t.Parallel()
	html := render(t, JobLive(sampleFailed(t)))
	for _, part := range []string{
		"The repository refused the password", "no key there fits the password", "What to do", "/hosts/h3/repository",
		"Run again", "Nothing was written.", "9d1be07c", "Accepted +9 ms",
	} {
		if !strings.Contains(html, part) {
			t.Errorf("the page has no %q", part)
		}
	}
	job := sampleFailed(t)
	job.CanAdminister = false
	if html := render(t, JobLive(job)); strings.Contains(html, `href="/hosts/h3/repository"`) {
		t.Error("someone who may not change the repository is sent there")
	}
}

func TestTheHeadingIsTheAnswer(t *testing.T) {
	t.Parallel()
	for want, f := range map[string]Fleet{
		"No hosts yet":                  {},
		"Your one host is safe":         {Total: 1},
		"All 14 hosts are safe":         {Total: 14},
		"1 of 1 host needs a hand":      {Total: 1, NeedHand: 1},
		"1 of 14 hosts needs a hand":    {Total: 14, NeedHand: 1},
		"3 of 14 hosts need a hand":     {Total: 14, NeedHand: 3},
		"12 of 1,200 hosts need a hand": {Total: 1200, NeedHand: 12},
	} {
		if got := f.heading(); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}

func TestAViewerSeesNoButtonsThatChangeThings(t *testing.T) {
	t.Parallel()
	h := sampleHost(t)
	h.CanOperate, h.CanAdminister = false, false
	html := render(t, HostLive(h))
	for _, part := range []string{"<button", "<form", "/delete", "/new", "Change"} {
		if strings.Contains(html, part) {
			t.Errorf("a viewer's page has %q", part)
		}
	}
}

func TestAScheduleLagSaysWhoIsWaitedFor(t *testing.T) {
	t.Parallel()
	lag := ScheduleLag{ChangedAt: now.Add(-time.Minute), Current: 12, Applied: 11}
	if got := lag.sentence(true); got != "The agent applies version 12; 11 is in force until it confirms." {
		t.Error(got)
	}
	if got := lag.sentence(false); !strings.Contains(got, "away") {
		t.Error(got)
	}
}
