package api

import (
	"encoding/json"
	"errors"
	"reflect"
	"strconv"
	"unicode/utf8"

	"github.com/danielgtaylor/huma/v2"
)

// jsonFormat reads bodies more strictly than encoding/json does alone: what Go
// would silently replace is refused, because the path or password that was
// stored would not be the one that was sent.
var jsonFormat = huma.Format{Marshal: huma.DefaultJSONFormat.Marshal, Unmarshal: unmarshal}

// bodyError is a body that can't be read. One that belongs to a field begins
// with the field and a colon.
type bodyError string

func (e bodyError) Error() string { return string(e) }

// notJSON is the only one that is a 400; see fromHuma.
const notJSON bodyError = "The body is not JSON. Send one JSON object."
const notText bodyError = "body: holds bytes or escapes that are not Unicode text: send UTF-8"

// unmarshal decodes a body; all its errors are bodyErrors.
func unmarshal(data []byte, v any) error {
	if !utf8.Valid(data) {
		return notText
	}
	err := json.Unmarshal(data, v)
	var wrong *json.UnmarshalTypeError
	switch {
	case errors.As(err, &wrong) && wrong.Field != "":
		// The schema has been checked before: only a number can still be wrong.
		return bodyError(wrong.Field + ": must be a whole number that fits 64 bits, without a fraction or exponent")
	case errors.As(err, &wrong):
		return bodyError("body: holds a number that is too large")
	case err != nil:
		return notJSON
	case loneSurrogate(data):
		return notText
	}
	return nil
}

// loneSurrogate finds half a character (\ud83d without its second half) in
// valid JSON. encoding/json would put a replacement character in its place.
func loneSurrogate(data []byte) bool {
	unit := func(at int) (uint64, bool) {
		if at+6 > len(data) || data[at] != '\\' || data[at+1] != 'u' {
			return 0, false
		}
		u, err := strconv.ParseUint(string(data[at+2:at+6]), 16, 16)
		return u, err == nil
	}
	for i := 0; i < len(data); i++ {
		if data[i] != '\\' {
			continue
		}
		u, ok := unit(i)
		switch {
		case !ok:
			i++ // a short escape; the backslash of \\ must not begin another
		case u < 0xd800 || u > 0xdfff:
			i += 5
		default:
			low, ok := unit(i + 6)
			if u > 0xdbff || !ok || low < 0xdc00 || low > 0xdfff {
				return true
			}
			i += 11
		}
	}
	return false
}

// acceptReadOnly lets a request carry all fields of the answer T, so that what
// was read can be changed and sent back. Those that s doesn't have itself are
// documented as read-only, not validated, and ignored.
func acceptReadOnly[T any](r huma.Registry, s *huma.Schema) *huma.Schema {
	for name, property := range r.Schema(reflect.TypeFor[T](), false, "").Properties {
		if _, ok := s.Properties[name]; !ok {
			readOnly := *property
			readOnly.ReadOnly = true
			s.Properties[name] = &readOnly
		}
	}
	return s
}
