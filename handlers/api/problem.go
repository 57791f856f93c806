package api

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"maps"
	"math"
	"net/http"
	"regexp"
	"strconv"
	"strings"
	"sync"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/validation"
	"github.com/labstack/echo/v4"

	"resticfleet/models"
)

// problem is RFC 9457's problem details. It never holds a value that was sent:
// it could be a password.
type problem struct {
	_ struct{} `additionalProperties:"true"`

	Type   string         `json:"type" example:"about:blank"`
	Title  string         `json:"title"`
	Status int            `json:"status"`
	Detail string         `json:"detail" doc:"What is wrong, and what to do."`
	Errors []fieldProblem `json:"errors,omitempty" doc:"Each field that is wrong."`

	// extra stands beside the members above, such as the schedules that are in
	// the way of a deletion.
	extra map[string]any
	// retryAfter is in seconds, 0 for soon.
	retryAfter int
}

type fieldProblem struct {
	Field    string `json:"field"`
	Message  string `json:"message"`
	Location string `json:"location" doc:"Where the field is: in the body, the query or the path."`
}

const problemType = "application/problem+json"

// MarshalJSON puts the extra members beside the standard ones.
func (p *problem) MarshalJSON() ([]byte, error) {
	type plain problem
	if len(p.extra) == 0 {
		return json.Marshal((*plain)(p))
	}
	members := maps.Clone(p.extra)
	members["type"], members["title"], members["status"], members["detail"] = p.Type, p.Title, p.Status, p.Detail
	if len(p.Errors) > 0 {
		members["errors"] = p.Errors
	}
	return json.Marshal(members)
}

func (p *problem) Error() string { return p.Detail }

// GetStatus, GetHeaders and ContentType are what huma asks of an error.
func (p *problem) GetStatus() int { return p.Status }

// GetHeaders returns what the status demands.
func (p *problem) GetHeaders() http.Header {
	switch p.Status {
	case http.StatusUnauthorized:
		return http.Header{"Www-Authenticate": {`Bearer realm="resticfleet"`}}
	case http.StatusServiceUnavailable:
		return http.Header{"Retry-After": {strconv.Itoa(cmp.Or(p.retryAfter, 5))}}
	}
	return nil
}

// ContentType replaces the one of ordinary answers.
func (p *problem) ContentType(string) string { return problemType }

// Problem turns any error into what a program is told of it: the status, and a
// body to be sent as application/problem+json. What only we can do something
// about is a 500 that tells nothing; logging it is the caller's.
func Problem(err error) (status int, body any) {
	p := newProblem(err, "body")
	return p.Status, p
}

// WriteProblem answers with Problem(err) and the headers that go with it.
func WriteProblem(w http.ResponseWriter, err error) error {
	p := newProblem(err, "body")
	maps.Copy(w.Header(), p.GetHeaders())
	w.Header().Set("Content-Type", problemType)
	w.WriteHeader(p.Status)
	return huma.DefaultJSONFormat.Marshal(w, p)
}

var statusOf = map[models.Code]int{
	models.EInvalid:      http.StatusUnprocessableEntity,
	models.ENotFound:     http.StatusNotFound,
	models.EConflict:     http.StatusConflict,
	models.EUnauthorized: http.StatusUnauthorized,
	models.EForbidden:    http.StatusForbidden,
	models.EUnavailable:  http.StatusServiceUnavailable,
	models.EGone:         http.StatusGone,
}

// newProblem says of a field error that the field is in the body or the query.
func newProblem(err error, in string) *problem {
	var known *models.Error
	var routing *echo.HTTPError
	var done *problem
	switch {
	case errors.As(err, &done):
		return done
	case errors.As(err, &known) && statusOf[known.Code] != 0:
		p := withStatus(statusOf[known.Code], known.Error())
		p.extra, p.retryAfter = known.Detail, int(math.Ceil(known.RetryAfter.Seconds()))
		for _, f := range known.Fields {
			p.Errors = append(p.Errors, fieldProblem{f.Field, f.Message, in + "." + f.Field})
		}
		return p
	case errors.As(err, &routing):
		return withStatus(routing.Code, explainStatus(routing.Code))
	case models.Unavailable(err), errors.Is(err, context.Canceled):
		return withStatus(http.StatusServiceUnavailable, explainStatus(http.StatusServiceUnavailable))
	}
	return withStatus(http.StatusInternalServerError, explainStatus(http.StatusInternalServerError))
}

func withStatus(status int, detail string) *problem {
	return &problem{Type: "about:blank", Title: http.StatusText(status), Status: status, Detail: detail}
}

// explainStatus is for what happens before or beside our own handlers.
func explainStatus(status int) string {
	switch status {
	case http.StatusNotFound:
		return "There is nothing at this address. " + specPath + " lists what there is."
	case http.StatusMethodNotAllowed:
		return "This address does not take this method. " + specPath + " lists what it takes."
	case http.StatusRequestTimeout:
		return "The body did not come in time. Try again."
	case http.StatusRequestEntityTooLarge:
		return "The body is larger than 1 MiB. Send less."
	case http.StatusUnsupportedMediaType:
		return "The body's Content-Type can't be read here. Send application/json."
	case http.StatusServiceUnavailable:
		return "The database does not answer just now. Try again in a few seconds."
	}
	if status >= http.StatusInternalServerError {
		return "Something went wrong inside the server. Its log says what; try again later."
	}
	return http.StatusText(status) + "."
}

// configureHuma sets what huma keeps in package variables, once: its errors
// take our form, field names are what they are in every letter, and lists are
// never null.
var configureHuma = sync.OnceFunc(func() {
	huma.NewError = fromHuma
	huma.ValidateStrictCasing = true
	huma.DefaultArrayNullable = false
})

// maxFieldProblems bounds an answer to a body full of mistakes.
const maxFieldProblems = 50

// fromHuma builds the answer to a request that huma refused: its parameters or
// body don't fit the schema.
func fromHuma(status int, _ string, errs ...error) huma.StatusError {
	if status == http.StatusInternalServerError {
		// All that can fail in huma itself is reading the body: it was cut off
		// by the client, or by a limit on the way here.
		var limit *echo.HTTPError
		if errors.As(errors.Join(errs...), &limit) {
			return withStatus(limit.Code, explainStatus(limit.Code))
		}
		return withStatus(http.StatusBadRequest, "The body ended early. Send it again.")
	}
	p := withStatus(status, explainStatus(status))
	if status != http.StatusBadRequest && status != http.StatusUnprocessableEntity {
		return p
	}
	for _, err := range errs[:min(len(errs), maxFieldProblems)] {
		var d *huma.ErrorDetail
		if !errors.As(err, &d) {
			continue
		}
		if d.Message == notJSON.Error() {
			p.Detail = d.Message
			return p
		}
		p.Errors = append(p.Errors, translate(d))
	}
	if len(p.Errors) == 0 {
		p.Detail = "The request has no body. Send one JSON object."
		return p
	}
	// It is JSON and a field of it is wrong, whatever huma calls that.
	p.Status = http.StatusUnprocessableEntity
	p.Title = http.StatusText(p.Status)
	details := make([]string, len(p.Errors))
	for i, e := range p.Errors {
		details[i] = e.Field + ": " + e.Message
	}
	p.Detail = strings.Join(details, "; ")
	return p
}

var (
	fieldPrefix = regexp.MustCompile(`^([a-z_]+(?:\.[a-z_]+|\[[0-9]+\])*): `)

	// remedies put huma's findings into the words of ours.
	remedies = map[string]string{
		validation.MsgUnexpectedProperty: "is not a field that can be sent here: leave it out",
		validation.MsgExpectedString:     "must be text",
		validation.MsgExpectedBoolean:    "must be true or false",
		validation.MsgExpectedInteger:    "must be a whole number",
		validation.MsgExpectedNumber:     "must be a number",
		validation.MsgExpectedArray:      "must be a list",
		validation.MsgExpectedObject:     "must be an object",
		"invalid integer":                "must be a whole number",
	}
	otherWords = strings.NewReplacer("expected value to be", "must be", "expected number", "must be a number")
)

// translate names the field and the remedy, and drops the value.
func translate(d *huma.ErrorDetail) fieldProblem {
	location, message := models.CleanText(d.Location, 200), d.Message
	before, after, _ := strings.Cut(validation.MsgExpectedRequiredProperty, "%s")
	if rest, ok := strings.CutPrefix(message, before); ok && strings.HasSuffix(rest, after) {
		location += "." + strings.TrimSuffix(rest, after)
		message = "is missing: give it a value"
	} else if m := fieldPrefix.FindStringSubmatch(message); m != nil {
		message = message[len(m[0]):]
		if m[1] != "body" {
			location += "." + m[1]
		}
	} else if remedy := remedies[message]; remedy != "" {
		message = remedy
	} else {
		message = otherWords.Replace(message)
	}
	field := location
	if _, inside, ok := strings.Cut(location, "."); ok {
		field = inside
	}
	return fieldProblem{Field: field, Message: message, Location: location}
}
