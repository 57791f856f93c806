package views

import "resticfleet/views/ui"

// Failure is an error as a page: 404, 403, 500 and their like.
type Failure struct {
	Status  int
	Heading string
	// Cause and Remedy are sentences.
	Cause, Remedy string
	Link          ui.Link
	// Reference finds the error in the server's log, "" for none.
	Reference string
}

// Retired is the 410 of a route that is gone: a banner for HTMX, the same
// banner on a page for a browser.
type Retired struct {
	// What was there: “Back up this host”.
	What string
	// Replacement says what to use instead, and Link leads there.
	Replacement string
	Link        ui.Link
}
