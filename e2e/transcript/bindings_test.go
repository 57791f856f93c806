package transcript

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"time"
)

var placeholder = regexp.MustCompile(`\$([A-Z]+)([0-9]*)`)

// anonymous placeholders stand for some value, another one each time.
var anonymous = []string{"$TIME", "$SEALED", "$ID"}

// words are the fields whose text a program switches on: there a transcript
// means the very text.
var words = []string{"type", "kind", "state", "outcome", "error_code", "code", "tag"}

// prose are the fields whose text is for people, or their sender's own affair.
var prose = []string{"id", "text", "error", "reason"}

// binding says what each placeholder stands for in this run: text, or a number
// for $VERSION.
type binding map[string]any

// fill replaces placeholders; fresh gives the value of one that is not bound
// yet, and that of every anonymous one.
func (b binding) fill(v any, fresh func(name string) any) any {
	value := func(name string) any {
		if bound, ok := b[name]; ok {
			return bound
		}
		made := fresh(name)
		if !slices.Contains(anonymous, name) {
			b[name] = made
		}
		return made
	}
	switch v := v.(type) {
	case object:
		out := make(object, len(v))
		for _, key := range slices.Sorted(maps.Keys(v)) {
			out[key] = b.fill(v[key], fresh)
		}
		return out
	case []any:
		out := make([]any, len(v))
		for i := range v {
			out[i] = b.fill(v[i], fresh)
		}
		return out
	case string:
		if placeholder.FindString(v) == v && v != "" {
			return value(v)
		}
		return placeholder.ReplaceAllStringFunc(v, func(name string) string { return fmt.Sprint(value(name)) })
	}
	return v
}

// made are the fields of a "do" line that doing it brings forth.
var made = []string{"job", "schedule", "group"}

// known is an action as it can be done now: without the ids that it is yet to
// bring forth.
func (b binding) known(action object, fresh func(name string) any) object {
	out := object{}
	for key, value := range action {
		name, _ := value.(string)
		if _, bound := b[name]; slices.Contains(made, key) && !bound {
			continue
		}
		out[key] = b.fill(value, fresh)
	}
	return out
}

// match says why actual is not what was recorded, nil if it is: all its fields,
// of the same JSON types, and placeholders that stand for one value each. What
// it learns of placeholders is kept only when all matches.
func (b binding) match(recorded, actual any) error {
	learnt := maps.Clone(b)
	if err := learnt.covers("", "", recorded, actual); err != nil {
		return err
	}
	maps.Copy(b, learnt)
	return nil
}

func (b binding) covers(path, key string, recorded, actual any) error {
	if s, ok := recorded.(string); ok {
		if err := b.coversText(key, s, actual); err != nil {
			return fmt.Errorf("%s: %w", path, err)
		}
		return nil
	}
	if reflect.TypeOf(recorded) != reflect.TypeOf(actual) {
		return fmt.Errorf("%s was %s, is %s", path, show(recorded), show(actual))
	}
	switch recorded := recorded.(type) {
	case object:
		for _, field := range slices.Sorted(maps.Keys(recorded)) {
			// restic's figures are restic's; these two the server reads.
			if key == "stats" && field != "total_files_processed" && field != "total_bytes_processed" {
				continue
			}
			value, ok := actual.(object)[field]
			if !ok {
				return fmt.Errorf("%s.%s is missing", path, field)
			}
			if err := b.covers(path+"."+field, field, recorded[field], value); err != nil {
				return err
			}
		}
	case []any:
		items := actual.([]any)
		if len(items) < len(recorded) && (key != "lines" && key != "current_files" || len(items) == 0) {
			return fmt.Errorf("%s had %d items, has %d", path, len(recorded), len(items))
		}
		for i := range min(len(recorded), len(items)) {
			if err := b.covers(fmt.Sprintf("%s[%d]", path, i), key, recorded[i], items[i]); err != nil {
				return err
			}
		}
	}
	return nil
}

func (b binding) coversText(key, recorded string, actual any) error {
	if placeholder.FindString(recorded) == recorded && recorded != "" {
		return b.coversPlaceholder(recorded, actual)
	}
	s, ok := actual.(string)
	if !ok {
		return fmt.Errorf("was text, is %s", show(actual))
	}
	if slices.Contains(prose, key) {
		return nil
	}
	names := placeholder.FindAllString(recorded, -1)
	if len(names) == 0 {
		if slices.Contains(words, key) && s != recorded {
			return fmt.Errorf("was %q, is %q", recorded, s)
		}
		return nil
	}
	for _, name := range names {
		if _, bound := b[name]; !bound {
			return nil
		}
	}
	if want := b.fill(recorded, nil); s != want {
		return fmt.Errorf("must be %q, is %q", want, s)
	}
	return nil
}

func (b binding) coversPlaceholder(name string, actual any) error {
	if strings.HasPrefix(name, "$VERSION") {
		if _, ok := actual.(float64); !ok {
			return fmt.Errorf("was a number, is %s", show(actual))
		}
	} else if s, ok := actual.(string); !ok || s == "" {
		return fmt.Errorf("was text (%s), is %s", name, show(actual))
	}
	if name == "$TIME" {
		if _, err := time.Parse(time.RFC3339Nano, actual.(string)); err != nil {
			return errors.New("is no time: " + show(actual))
		}
	}
	if slices.Contains(anonymous, name) {
		return nil
	}
	if bound, ok := b[name]; ok {
		if bound != actual {
			return fmt.Errorf("%s is %s, not %s", name, show(bound), show(actual))
		}
		return nil
	}
	kind := strings.TrimRight(name, "0123456789")
	for other, value := range b {
		if value == actual && strings.TrimRight(other, "0123456789") == kind {
			return fmt.Errorf("%s is %s already", show(actual), other)
		}
	}
	b[name] = actual
	return nil
}

func show(v any) string {
	raw, err := json.Marshal(v)
	if err != nil {
		return fmt.Sprint(v)
	}
	return string(raw)
}
