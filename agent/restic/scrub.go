package restic

import (
	"encoding/base64"
	"encoding/json"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"resticfleet/agent/protocol"
)

// Mask stands where a secret stood.
const Mask = "***"

// minScrub is the shortest secret that is looked for. A shorter one is found
// in every other word by chance: masking it would only spell it out.
const minScrub = 4

// Scrubber removes known secrets from text that leaves the agent. The zero
// value and nil change nothing.
type Scrubber struct{ replacer *strings.Replacer }

// NewScrubber knows the password and those variables whose name says that they
// are secret, in the spellings in which a program may print them.
func NewScrubber(secrets protocol.Secrets) *Scrubber {
	known := []string{secrets.Password}
	for name, value := range secrets.Env {
		if secretName(name) {
			known = append(known, value)
		}
	}
	var spellings []string
	for _, secret := range known {
		spellings = append(spellings, spell(secret)...)
	}
	spellings = slices.DeleteFunc(spellings, func(s string) bool { return len(s) < minScrub })
	if len(spellings) == 0 {
		return &Scrubber{}
	}
	// Longest first: a spelling that contains another must win.
	slices.SortFunc(spellings, func(a, b string) int {
		if d := len(b) - len(a); d != 0 {
			return d
		}
		return strings.Compare(a, b)
	})
	var pairs []string
	for _, s := range slices.Compact(spellings) {
		pairs = append(pairs, s, Mask)
	}
	return &Scrubber{replacer: strings.NewReplacer(pairs...)}
}

// Text returns s with every known secret masked.
func (s *Scrubber) Text(text string) string {
	if s == nil || s.replacer == nil {
		return text
	}
	return s.replacer.Replace(text)
}

// Finished masks every text of a result.
func (s *Scrubber) Finished(f protocol.Finished) protocol.Finished {
	f.Error = s.Text(f.Error)
	f.Unreadable = slices.Clone(f.Unreadable)
	for i := range f.Unreadable {
		f.Unreadable[i] = s.Text(f.Unreadable[i])
	}
	return f
}

// Item masks the texts of one item of a look-up's answer. Ids and times stay as
// they are: they are no secret, and the list hangs on them.
func (s *Scrubber) Item(item any) any {
	switch item := item.(type) {
	case protocol.Snapshot:
		item.Paths, item.Tags, item.Username = s.all(item.Paths), s.all(item.Tags), s.Text(item.Username)
		return item
	case protocol.PlanItem:
		item.Snapshot, _ = s.Item(item.Snapshot).(protocol.Snapshot)
		return item
	case protocol.Change:
		item.Path = s.Text(item.Path)
		return item
	}
	return item
}

func (s *Scrubber) all(texts []string) []string {
	texts = slices.Clone(texts)
	for i := range texts {
		texts[i] = s.Text(texts[i])
	}
	return texts
}

func secretName(name string) bool {
	for _, word := range []string{"KEY", "SECRET", "PASSWORD", "TOKEN", "SAS"} {
		if strings.Contains(name, word) {
			return true
		}
	}
	return false
}

func spell(secret string) []string {
	trimmed := strings.TrimSpace(secret)
	if trimmed == "" {
		return nil
	}
	quoted, err := json.Marshal(trimmed)
	if err != nil {
		return []string{trimmed}
	}
	goQuoted := strconv.Quote(trimmed)
	all := []string{
		trimmed,
		url.QueryEscape(trimmed), url.PathEscape(trimmed), url.UserPassword("", trimmed).String()[1:],
		string(quoted[1 : len(quoted)-1]), goQuoted[1 : len(goQuoted)-1],
		base64.StdEncoding.EncodeToString([]byte(trimmed)), base64.RawURLEncoding.EncodeToString([]byte(trimmed)),
	}
	return append(all, strings.FieldsFunc(trimmed, func(r rune) bool { return r == '\n' || r == '\r' })...)
}
