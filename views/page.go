// Package views renders what people see: one templ component per concept, with
// its view model beside it. A component is the page's, the HTMX reply's and the
// live update's at once, found by its stable id, so that they can't drift.
//
// View models are plain values that handlers fill. Their URLs are not theirs
// to choose except where a field says so: the routes are the ones of the HTTP
// contract, written in the components.
package views

import (
	"github.com/a-h/templ"

	"resticfleet/views/ui"
)

// The entries of the navigation.
const (
	NavFleet    = "fleet"
	NavJobs     = "jobs"
	NavSettings = "settings"
)

// User is who looks at the page. The zero value is nobody: login and setup.
type User struct {
	Name string
	// Role is viewer, operator or admin.
	Role string
}

// Page is what surrounds every page's own content.
type Page struct {
	// Title is the document's, without the product's name.
	Title string
	// Nav is the entry to mark, "" for none.
	Nav  string
	User User
	// Theme is light, dark, or "" for what the system prefers: the value of
	// the cookie "theme" and nothing else.
	Theme string
	// Path is this page's path and query: where a form of the header comes back to.
	Path string
	// StreamURL is the page's one event stream, "" for none. The stream
	// should send the named event "ping" every 15 s: a page that has seen one and
	// then hears nothing for 45 s says that its updates are lost.
	StreamURL string
	// Asset turns the name of a static file into its URL.
	Asset func(name string) string
	// Flash is what the previous page's form has to say.
	Flash *ui.Banner
}

func (p Page) title() string {
	if p.Title == "" {
		return "Resticfleet"
	}
	return p.Title + " · Resticfleet"
}

// htmxConfig keeps what a morph would take away (open dialogs and menus) and
// what the policy would refuse (a style element of htmx's own).
const htmxConfig = `{"morphIgnore":["data-htmx-powered","open"],"includeIndicatorCSS":false,"history":false}`

func (p Page) asset(name string) string {
	if p.Asset == nil {
		return "/static/" + name
	}
	return p.Asset(name)
}

// themeAttr is set only for a choice: without it the system decides.
func themeAttr(theme string) templ.Attributes {
	if theme != "light" && theme != "dark" {
		return nil
	}
	return templ.Attributes{"data-theme": theme}
}

func colorScheme(theme string) string {
	if theme == "light" || theme == "dark" {
		return theme
	}
	return "light dark"
}
