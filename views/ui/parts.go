package ui

import "github.com/a-h/templ"

// Crumb is one step of a breadcrumb; the last has no URL.
type Crumb struct{ Text, URL string }

// Link is a named way somewhere.
type Link struct{ Text, URL string }

// Banner is a message across a page. State gives icon and colour; Title is
// optional.
type Banner struct {
	State State
	Title string
	Text  string
	Link  Link
}

// Field is a labelled input with its hint and what was wrong with it.
type Field struct {
	// Name is the form name and, with "f-" before it, the element's id.
	Name, Label, Value string
	Hint, Error        string
	// Type is the input's type; empty is text.
	Type string
	// Autocomplete is the attribute; empty is off.
	Autocomplete string
	Placeholder  string
	Required     bool
	Autofocus    bool
	// Mono is for what one would type in a terminal.
	Mono bool
	// Rows makes it a textarea.
	Rows int
	// Numeric offers digits on a telephone. The field stays one of text: what
	// isn't a number is told beside it and not swallowed by the browser.
	Numeric bool
}

// ID is the id of the field's control.
func (f Field) ID() string { return "f-" + f.Name }

func (f Field) inputType() string {
	if f.Type == "" {
		return "text"
	}
	return f.Type
}

func (f Field) autocomplete() string {
	if f.Autocomplete == "" {
		return "off"
	}
	return f.Autocomplete
}

// describedBy names the elements that explain the control, "" for none.
func (f Field) describedBy() string {
	switch {
	case f.Hint != "" && f.Error != "":
		return f.ID() + "-error " + f.ID() + "-hint"
	case f.Error != "":
		return f.ID() + "-error"
	case f.Hint != "":
		return f.ID() + "-hint"
	}
	return ""
}

// describe are the attributes that tie the control to its hint and error.
func (f Field) describe() templ.Attributes {
	attrs := templ.Attributes{}
	if by := f.describedBy(); by != "" {
		attrs["aria-describedby"] = by
	}
	if f.Error != "" {
		attrs["aria-invalid"] = "true"
	}
	if f.Numeric {
		attrs["inputmode"] = "numeric"
	}
	return attrs
}
