package views

import (
	"strings"
	"time"

	"resticfleet/views/ui"
)

// Settings is the page of /settings.
type Settings struct {
	// Person is false for a program that looks at it with a token.
	Person bool
	// Administers shows what is everybody's; the numbers are users by role.
	Administers                bool
	Viewers, Operators, Admins int
	// Newest are the users that were added last.
	Newest []ui.Link
}

// PasswordForm changes the own password: POST /settings/password with current,
// password and password_again. Nothing typed into it is shown again.
type PasswordForm struct{ Errors Errors }

// Sessions is the list of /settings/sessions.
type Sessions struct {
	Clock      ui.Clock
	Rows       []Session
	NextCursor string
}

// Session is one browser in which the user is logged in.
type Session struct {
	ID                 string
	UserAgent, Address string
	CreatedAt, SeenAt  time.Time
	// This is the one that looks.
	This bool
}

// SettingsCrumbs lead back up to the settings.
func SettingsCrumbs(rest ...ui.Crumb) []ui.Crumb {
	return append([]ui.Crumb{{Text: "Settings", URL: "/settings"}}, rest...)
}

// users counts them in words.
func (s Settings) users() string {
	var parts []string
	add := func(n int, one, many string) {
		if n > 0 {
			parts = append(parts, ui.Count(int64(n), one, many))
		}
	}
	add(s.Admins, "administrator", "administrators")
	add(s.Operators, "operator", "operators")
	add(s.Viewers, "viewer", "viewers")
	return strings.Join(parts, ", ")
}

// roleWord is a role as a noun in a sentence.
func roleWord(role string) string {
	if role == "admin" {
		return "administrator"
	}
	return role
}

// roleSentence says what a role may do.
func roleSentence(role string) string {
	switch role {
	case "viewer":
		return "Sees hosts, jobs and logs, and changes nothing."
	case "operator":
		return "Also runs and cancels jobs, and changes source groups and schedules."
	case "admin":
		return "Also adds and deletes hosts, sets their repositories, and manages users, API tokens and the audit log."
	}
	return ""
}

// ownRoleSentence says it to who has the role.
func ownRoleSentence(role string) string {
	switch role {
	case "viewer":
		return "You see hosts, jobs and logs, and change nothing."
	case "operator":
		return "You see everything, run and cancel jobs, and change source groups and schedules."
	case "admin":
		return "You see and change everything."
	}
	return ""
}

// roles in the order in which each includes the one before.
var roles = []string{"viewer", "operator", "admin"}

func (s Sessions) others() bool { return len(s.Rows) > 1 || s.NextCursor != "" }

func (s Sessions) olderURL() string { return olderURL(s.NextCursor, "/settings/sessions") }

// browser is what a User-Agent header says, in plain words: Firefox on Windows.
// Most browsers claim to be others too, so the order matters.
func browser(agent string) string {
	name := firstOf(agent,
		"Edg", "Edge", "OPR/", "Opera", "SamsungBrowser", "Samsung Internet", "Vivaldi", "Vivaldi", "FxiOS", "Firefox", "Firefox/", "Firefox",
		"CriOS", "Chrome", "Chrome/", "Chrome", "Chromium", "Chromium", "Safari/", "Safari")
	system := firstOf(agent,
		"iPhone", "iPhone", "iPad", "iPad", "Android", "Android", "Windows", "Windows", "CrOS", "ChromeOS",
		"Macintosh", "macOS", "Mac OS", "macOS", "FreeBSD", "FreeBSD", "Linux", "Linux")
	switch {
	case name != "" && system != "":
		return name + " on " + system
	case name != "":
		return name
	case system != "":
		return "A browser on " + system
	}
	// A program: curl/8.14.1.
	program, _, _ := strings.Cut(agent, "/")
	if program = strings.TrimSpace(program); program == "" || program == "Mozilla" || len(program) > 40 {
		return "Unknown browser"
	}
	return program
}

// firstOf takes pairs of a mark and its word, and is the word of the first mark
// in the text.
func firstOf(text string, pairs ...string) string {
	for i := 0; i+1 < len(pairs); i += 2 {
		if strings.Contains(text, pairs[i]) {
			return pairs[i+1]
		}
	}
	return ""
}
