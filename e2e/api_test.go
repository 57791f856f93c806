package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"
)

// client speaks the JSON API as a person's program would.
type client struct {
	t  testing.TB
	at target
}

// api is a client of this server, as this user.
func (at target) api(t testing.TB) *client { return &client{t, at} }

// noRedirects: a redirect is an answer to look at.
var noRedirects = &http.Client{
	CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	Timeout:       time.Minute,
}

// login is what the login form sends; the cookie is the session.
func login(ctx context.Context, base, user, password string) (*http.Cookie, error) {
	form := url.Values{"username": {user}, "password": {password}}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, base+"/login", strings.NewReader(form.Encode()))
	if err != nil {
		return nil, err
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	res, err := noRedirects.Do(req)
	if err != nil {
		return nil, err
	}
	defer res.Body.Close()
	for _, c := range res.Cookies() {
		if strings.HasSuffix(c.Name, "session") && c.Value != "" {
			return c, nil
		}
	}
	return nil, fmt.Errorf("login of %s at %s: %s and no session", user, base, res.Status)
}

// answer is what came back.
type answer struct {
	status int
	header http.Header
	body   []byte
}

// send sends one request with the session, whatever the answer. A body that is
// no string is sent as JSON.
func (c *client) send(method, path string, body any, header ...string) answer {
	c.t.Helper()
	a, err := c.try(method, path, body, header...)
	if err != nil {
		c.t.Fatalf("%s %s: %v", method, path, err)
	}
	return a
}

// try is send for when the server may not be there.
func (c *client) try(method, path string, body any, header ...string) (answer, error) {
	var reader io.Reader
	kind := "application/json"
	switch b := body.(type) {
	case nil:
	case url.Values:
		reader, kind = strings.NewReader(b.Encode()), "application/x-www-form-urlencoded"
	case string:
		reader = strings.NewReader(b)
	default:
		raw, err := json.Marshal(b)
		if err != nil {
			return answer{}, err
		}
		reader = bytes.NewReader(raw)
	}
	// Not the test's context: a cleanup may ask too.
	req, err := http.NewRequestWithContext(context.WithoutCancel(c.t.Context()), method, c.at.url+path, reader)
	if err != nil {
		return answer{}, err
	}
	req.Header.Set("Content-Type", kind)
	if c.at.session != nil {
		req.AddCookie(c.at.session)
	}
	for i := 0; i+1 < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	res, err := noRedirects.Do(req)
	if err != nil {
		return answer{}, err
	}
	defer res.Body.Close()
	raw, err := io.ReadAll(res.Body)
	return answer{res.StatusCode, res.Header, raw}, err
}

// call sends a request that must be answered with status, and reads the answer
// into out unless that is nil.
func (c *client) call(method, path string, body any, status int, out any) {
	c.t.Helper()
	a := c.send(method, path, body)
	if a.status != status {
		c.t.Fatalf("%s %s: status %d, want %d: %s", method, path, a.status, status, a.body)
	}
	if out != nil {
		if err := json.Unmarshal(a.body, out); err != nil {
			c.t.Fatalf("%s %s: %v: %s", method, path, err, a.body)
		}
	}
}

// job is the API's job, as far as tests look at it.
type job struct {
	ID              string          `json:"id"`
	HostID          string          `json:"host_id"`
	Kind            string          `json:"kind"`
	State           string          `json:"state"`
	ActorKind       string          `json:"actor_kind"`
	ScheduledID     *string         `json:"scheduled_id"`
	ScheduledAt     *time.Time      `json:"scheduled_at"`
	CatchUp         bool            `json:"catch_up"`
	Late            bool            `json:"late"`
	SourceGroupID   *string         `json:"source_group_id"`
	SourceGroupName *string         `json:"source_group_name"`
	SnapshotID      *string         `json:"snapshot_id"`
	ExitCode        *int            `json:"exit_code"`
	Error           string          `json:"error"`
	ErrorCode       *string         `json:"error_code"`
	Progress        json.RawMessage `json:"progress"`
	QueuedAt        *time.Time      `json:"queued_at"`
	SentAt          *time.Time      `json:"sent_at"`
	AcceptedAt      *time.Time      `json:"accepted_at"`
	StartedAt       *time.Time      `json:"started_at"`
	FinishedAt      *time.Time      `json:"finished_at"`
}

func (j job) ended() bool {
	switch j.State {
	case "queued", "sent", "running":
		return false
	}
	return true
}

func (j job) snapshot() string {
	if j.SnapshotID == nil {
		return ""
	}
	return *j.SnapshotID
}

func (c *client) job(id string) job {
	c.t.Helper()
	var j job
	c.call("GET", "/api/jobs/"+id, nil, http.StatusOK, &j)
	return j
}

// jobs lists by a query such as host_id=…&kind=init, newest first.
func (c *client) jobs(query string) []job {
	c.t.Helper()
	var list struct{ Items []job }
	c.call("GET", "/api/jobs?"+query, nil, http.StatusOK, &list)
	return list.Items
}

// end waits for a job's end.
func (c *client) end(id string) job {
	c.t.Helper()
	var j job
	eventually(c.t, "the end of job "+id, func() bool { j = c.job(id); return j.ended() })
	return j
}

// state waits for a job's state; it is an error if the job ends in another.
func (c *client) state(id, want string) job {
	c.t.Helper()
	var j job
	eventually(c.t, "job "+id+" is "+want, func() bool { j = c.job(id); return j.State == want || j.ended() })
	if j.State != want {
		c.t.Fatalf("job %s is %s, want %s: %s", id, j.State, want, j.Error)
	}
	return j
}

// log is a job's log as text.
func (c *client) log(id string) string {
	c.t.Helper()
	a := c.send("GET", "/api/jobs/"+id+"/log", nil, "Accept", "text/plain")
	if a.status != http.StatusOK {
		c.t.Fatalf("log of %s: status %d: %s", id, a.status, a.body)
	}
	return string(a.body)
}
