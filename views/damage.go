package views

import (
	"strings"
	"time"

	"resticfleet/views/ui"
)

// Damage is what of a repository was found damaged and never found good since.
type Damage struct {
	Parts []DamagedPart // what was seen longest ago first
	More  int           // that is not among Parts
}

// DamagedPart is one of the ways in which the data was read: by Subset as restic
// is told, "" for the structure alone.
type DamagedPart struct {
	Subset          string
	FoundAt, SeenAt time.Time
	JobURL          string
	Errors          int // 0 where nobody counted
}

// what is damaged, as the middle of a sentence.
func (p DamagedPart) what() string {
	switch {
	case p.Subset == "":
		return "the repository’s structure"
	case strings.Contains(p.Subset, "/"):
		return partWords(p.Subset) + " of the data"
	case strings.HasSuffix(p.Subset, "%"):
		return p.Subset + " of the data, chosen at random,"
	}
	return p.Subset + "iB of the data, chosen at random,"
}

func (p DamagedPart) errors() string {
	if p.Errors == 0 {
		return ""
	}
	return " (" + ui.Count(int64(p.Errors), "error", "errors") + ")"
}

// again reports whether a later job found it damaged, too.
func (p DamagedPart) again() bool { return p.SeenAt.After(p.FoundAt) }

// Since is when the first of it was found.
func (d Damage) Since() (first time.Time) {
	for _, p := range d.Parts {
		if first.IsZero() || p.FoundAt.Before(first) {
			first = p.FoundAt
		}
	}
	return first
}

// Sentence says all of it in one.
func (d Damage) Sentence() string {
	var parts []string
	for _, p := range d.Parts[:min(len(d.Parts), 3)] {
		parts = append(parts, strings.TrimSuffix(p.what(), ",")+p.errors())
	}
	if more := d.More + len(d.Parts) - len(parts); more > 0 {
		parts = append(parts, ui.Number(int64(more))+" more")
	}
	return "The repository is damaged, and no check has found it good since. Damage was found in " + enumerate(parts, "and") + "."
}

// next is what a check reads first, "" where it can't read just what is damaged.
func (d Damage) next() string {
	for _, p := range d.Parts {
		if strings.Contains(p.Subset, "/") {
			return p.what()
		}
	}
	return ""
}

// unplaced reports whether some of it is in data that was chosen at random:
// nobody can read just that again.
func (d Damage) unplaced() bool {
	for _, p := range d.Parts {
		if p.Subset != "" && !strings.Contains(p.Subset, "/") {
			return true
		}
	}
	return false
}
