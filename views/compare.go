package views

import (
	"strings"

	"resticfleet/views/ui"
)

// Comparison answers "what changed between these two?". ComparisonLive is its
// partial and live update, fetched again at the stream's event "host".
type Comparison struct {
	Clock            ui.Clock
	HostID, HostName string
	Away             bool
	// Problem is why there is nothing to compare, "" for two that can be.
	Problem      string
	Older, Newer SnapshotRow
	// JobID is the look-up's that is the newest, JobState and JobError what came
	// of it.
	JobID, JobState, JobError string
	// Diff is nil until it is known.
	Diff *Diff
}

// Diff is what differs. More is how many changes there are besides Changes.
type Diff struct {
	NewFiles, NewDirs, NewBytes    int64
	GoneFiles, GoneDirs, GoneBytes int64
	ChangedFiles                   int64
	Changes                        []DiffChange
	More                           int64
}

// DiffChange is one path and restic's letters for what happened to it.
type DiffChange struct{ Path, Modifier string }

// URL is this page.
func (c Comparison) URL() string {
	return listURL("/hosts/"+c.HostID+"/snapshots/compare", "a", c.Older.ID, "b", c.Newer.ID)
}

// againURL asks the agent once more.
func (c Comparison) againURL() string { return c.URL() + "&again=1" }

func (c Comparison) listURL() string { return "/hosts/" + c.HostID + "/snapshots" }

func (c Comparison) heading() string {
	switch {
	case c.Diff != nil && !c.Diff.any():
		return "The two snapshots hold the same"
	case c.Diff != nil:
		return c.Diff.sentence()
	}
	return "Compare two snapshots of " + c.HostName
}

func (c Comparison) looking() bool {
	return c.JobState == "running" || c.JobState != "" && JobState(c.JobState) == ui.Waiting
}

// lookText says how far the agent's look is.
func (c Comparison) lookText() string {
	switch {
	case c.JobState == "running":
		return c.HostName + " compares them now. What it finds appears here."
	case c.Away:
		return c.HostName + " is away. It compares them when it is back."
	}
	return "Asking " + c.HostName + " to compare them. What it finds appears here."
}

func (d Diff) any() bool {
	return d.NewFiles+d.NewDirs+d.GoneFiles+d.GoneDirs+d.ChangedFiles+int64(len(d.Changes))+d.More > 0
}

// sentence is the heading: how many of what.
func (d Diff) sentence() string {
	var parts []string
	add := func(files, dirs int64, word string) {
		var things []string
		if files > 0 {
			things = append(things, ui.Count(files, "file", "files"))
		}
		if dirs > 0 {
			things = append(things, ui.Count(dirs, "folder", "folders"))
		}
		if len(things) > 0 {
			parts = append(parts, strings.Join(things, " and ")+" "+word)
		}
	}
	add(d.NewFiles, d.NewDirs, "new")
	add(d.GoneFiles, d.GoneDirs, "gone")
	add(d.ChangedFiles, 0, "changed")
	if len(parts) == 0 {
		return "Only other things than files and folders changed"
	}
	return capital(strings.Join(parts, ", "))
}

// data says what the difference is worth in the repository.
func (d Diff) data() string {
	return "The newer one has " + ui.Bytes(d.NewBytes) + " of data that the older one hasn’t, the older one " + ui.Bytes(d.GoneBytes) + " that the newer one hasn’t."
}

func (d Diff) more() string {
	if d.More == 0 {
		return ""
	}
	return "and " + ui.Count(d.More, "more change", "more changes") + " that are not listed here"
}

// word is what happened to the path.
func (c DiffChange) word() string {
	var words []string
	for _, letter := range c.Modifier {
		switch letter {
		case '+':
			words = append(words, "New")
		case '-':
			words = append(words, "Gone")
		case 'M':
			words = append(words, "Changed")
		case 'T':
			words = append(words, "Another type")
		case 'U':
			words = append(words, "Metadata changed")
		case '?':
			words = append(words, "Damaged")
		}
	}
	if len(words) == 0 {
		return "Changed"
	}
	return capital(strings.ToLower(strings.Join(words, ", ")))
}
