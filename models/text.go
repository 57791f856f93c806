package models

import (
	"strings"
	"unicode/utf8"
)

// CleanText makes text from outside storable: valid UTF-8 without NUL, at most
// limit bytes, cut at a character.
func CleanText(s string, limit int) string {
	s = strings.ToValidUTF8(s, "\uFFFD")
	s = strings.ReplaceAll(s, "\x00", "\uFFFD")
	if len(s) <= limit {
		return s
	}
	s = s[:limit]
	for len(s) > 0 && !utf8.ValidString(s) {
		s = s[:len(s)-1]
	}
	return s
}

// cleanJSON is CleanText for every text and name in a decoded JSON value.
func cleanJSON(v any) any {
	switch v := v.(type) {
	case string:
		return CleanText(v, len(v)*3) // a replacement is at most three times as long
	case []any:
		out := make([]any, len(v))
		for i, one := range v {
			out[i] = cleanJSON(one)
		}
		return out
	case map[string]any:
		out := make(map[string]any, len(v))
		for name, one := range v {
			out[CleanText(name, len(name)*3)] = cleanJSON(one)
		}
		return out
	}
	return v
}

func hasNUL(s string) bool { return strings.IndexByte(s, 0) >= 0 }
