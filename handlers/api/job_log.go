package api

import (
	"context"
	"encoding/json"
	"io"
	"mime"
	"net/http"
	"reflect"
	"strconv"
	"strings"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humaecho"

	"resticfleet/models"
)

type logLine struct {
	Seq   int64  `json:"seq"`
	At    string `json:"at" format:"date-time"`
	Level string `json:"level" enum:"info,warning,error"`
	Text  string `json:"text"`
}

type logLines struct {
	Items []logLine `json:"items"`
}

// LogRequest asks for the lines of a job's log.
type LogRequest struct {
	JobPath
	After int64 `query:"after" minimum:"0" doc:"Only lines whose seq is greater."`

	asJSON bool
}

// Resolve implements huma.Resolver.
func (l *LogRequest) Resolve(c huma.Context) []error {
	l.asJSON = wantsJSON(humaecho.Unwrap(c).Request().Header.Get("Accept"))
	return nil
}

type logAnswer struct {
	Vary string `header:"Vary"`
	Body func(huma.Context)
}

// logChunk is how many lines are read at once: a log may be long, so it goes
// out as it is read.
const logChunk = 1000

func (s *server) getJobLog(ctx context.Context, in *LogRequest) (*logAnswer, error) {
	id, err := in.jobID()
	if err != nil {
		return nil, err
	}
	if _, err := models.FindJob(ctx, s.DB, id); err != nil {
		return nil, err
	}
	lines, err := models.ListLog(ctx, s.DB, id, in.After, logChunk)
	if err != nil {
		return nil, err
	}
	return &logAnswer{"Accept", func(c huma.Context) {
		var w logWriter = textLog{c.BodyWriter()}
		c.SetHeader("Content-Type", "text/plain; charset=utf-8")
		if in.asJSON {
			w = &jsonLog{w: c.BodyWriter()}
			c.SetHeader("Content-Type", "application/json")
		}
		c.SetStatus(http.StatusOK)
		for {
			if w.write(lines) != nil {
				return // whoever read it has gone
			}
			if len(lines) < logChunk {
				_ = w.end()
				return
			}
			if lines, err = models.ListLog(ctx, s.DB, id, lines[len(lines)-1].Seq, logChunk); err != nil {
				if ctx.Err() == nil {
					s.Log.ErrorContext(ctx, "log can't be read to its end", "job.id", id, "err", err)
				}
				// The status has gone out: only a broken answer can still say
				// that lines are missing.
				panic(http.ErrAbortHandler)
			}
		}
	}}, nil
}

type logWriter interface {
	write([]models.LogLine) error
	end() error
}

type textLog struct{ w io.Writer }

// oneLine keeps a line one line, whatever a file is called.
var oneLine = strings.NewReplacer("\n", `\n`, "\r", `\r`)

func (t textLog) write(lines []models.LogLine) error {
	var b strings.Builder
	for _, l := range lines {
		_, _ = oneLine.WriteString(&b, l.Text)
		b.WriteByte('\n')
	}
	_, err := io.WriteString(t.w, b.String())
	return err
}

func (textLog) end() error { return nil }

type jsonLog struct {
	w     io.Writer
	begun bool
}

func (j *jsonLog) write(lines []models.LogLine) error {
	var b strings.Builder
	for _, l := range lines {
		raw, err := json.Marshal(logLine{l.Seq, timestamp(l.At), l.Level, l.Text})
		if err != nil {
			return err
		}
		b.WriteString(j.separator())
		b.Write(raw)
	}
	_, err := io.WriteString(j.w, b.String())
	return err
}

func (j *jsonLog) separator() string {
	if j.begun {
		return ","
	}
	j.begun = true
	return `{"items":[`
}

func (j *jsonLog) end() error {
	closing := "]}\n"
	if !j.begun {
		closing = `{"items":[` + closing
	}
	_, err := io.WriteString(j.w, closing)
	return err
}

// wantsJSON reads an Accept header by RFC 9110: the greatest weight wins, the
// first of equals, and what names neither form gets text.
func wantsJSON(accept string) bool {
	best, asJSON := 0.0, false
	for part := range strings.SplitSeq(accept, ",") {
		kind, params, err := mime.ParseMediaType(part)
		if err != nil {
			continue
		}
		var isJSON bool
		switch kind {
		case "application/json", "application/*":
			isJSON = true
		case "text/plain", "text/*", "*/*":
		default:
			continue
		}
		weight := 1.0
		if q, err := strconv.ParseFloat(params["q"], 64); err == nil {
			weight = q
		}
		if weight > best {
			best, asJSON = weight, isJSON
		}
	}
	return asJSON
}

// documentLog describes both forms, which huma can't see in a function.
func documentLog(register registrar) registrar {
	return func(s *server, h huma.API, op huma.Operation) {
		lines := h.OpenAPI().Components.Schemas.Schema(reflect.TypeFor[logLines](), true, "")
		op.Responses = map[string]*huma.Response{"200": {Content: map[string]*huma.MediaType{
			"text/plain":       {Schema: &huma.Schema{Type: "string", Description: "One line each."}},
			"application/json": {Schema: lines},
		}}}
		register(s, h, op)
	}
}
