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

func hasNUL(s string) bool { return strings.IndexByte(s, 0) >= 0 }
