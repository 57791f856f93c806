package handlers

import (
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"resticfleet/models"
)

func (b *bundle) user(name string) {
	b.t.Helper()
	if _, err := models.AddUser(b.ctx, b.db, name, password, models.RoleAdmin); err != nil {
		b.t.Fatal(err)
	}
}

func cookieOf(t testing.TB, res *http.Response, name string) *http.Cookie {
	t.Helper()
	for _, c := range res.Cookies() {
		if c.Name == name {
			return c
		}
	}
	t.Fatalf("no cookie %s: %v", name, res.Header["Set-Cookie"])
	return nil
}

func TestTheSessionCookie(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.user("admin")
	for _, c := range []struct {
		name   string
		header []string
		secure bool
	}{
		{"session", nil, false},
		{"session", []string{"X-Forwarded-Proto", "https", "X-From", "192.0.2.9"}, false}, // anybody can say that
		{"__Host-session", []string{"X-Forwarded-Proto", "https", "X-From", trustedProxy}, true},
	} {
		res := b.login("ADMIN ", password, c.header...)
		body(t, res)
		cookie := cookieOf(t, res, c.name)
		if res.StatusCode != http.StatusSeeOther || res.Header.Get("Location") != "/" {
			t.Errorf("%d to %q", res.StatusCode, res.Header.Get("Location"))
		}
		if !cookie.HttpOnly || cookie.SameSite != http.SameSiteLaxMode || cookie.Path != "/" || cookie.Domain != "" || cookie.MaxAge <= 0 || cookie.Secure != c.secure {
			t.Errorf("with %v: %s", c.header, cookie)
		}
		if hsts := res.Header.Get("Strict-Transport-Security") != ""; hsts != c.secure {
			t.Errorf("with %v: HSTS %v", c.header, hsts)
		}
		if n := b.count("select count(*) from sessions where token_hash = ?", []byte(cookie.Value)); n != 0 {
			t.Error("the token stands in the database")
		}
	}
	res := b.do("GET", "/jobs", nil, "X-Forwarded-Proto", "https", "X-From", trustedProxy)
	body(t, res)
	if cookie := cookieOf(t, res, "__Host-"+nextCookie); !cookie.Secure || cookie.Path != "/" {
		t.Errorf("where to go on: %s", cookie)
	}
	res = b.login("admin", password, "X-Forwarded-Proto", "https", "X-From", trustedProxy, "Cookie", "__Host-next=%2Fjobs; next=%2Fsettings")
	body(t, res)
	if at := res.Header.Get("Location"); at != "/jobs" {
		t.Errorf("goes on at %q, which another site may have planted", at)
	}
}

func TestASessionThatSomebodyPlantedIsWorthNothing(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.user("admin")
	planted := b.session(models.RoleViewer)
	res := b.login("admin", password, "Cookie", "session="+planted)
	body(t, res)
	cookie := cookieOf(t, res, "session")
	if cookie.Value == planted {
		t.Error("the planted session was taken over")
	}
	for value, want := range map[string]int{planted: http.StatusSeeOther, cookie.Value: http.StatusOK} {
		res := b.do("GET", "/jobs", nil, "Cookie", "session="+value)
		if body(t, res); res.StatusCode != want {
			t.Errorf("%d, want %d", res.StatusCode, want)
		}
	}
	body(t, b.do("POST", "/logout", nil, "Cookie", "session="+cookie.Value))
	res = b.do("GET", "/jobs", nil, "Cookie", "session="+cookie.Value)
	if body(t, res); res.StatusCode != http.StatusSeeOther {
		t.Errorf("after logging out: %d", res.StatusCode)
	}
}

func TestAfterLoginOnlyOurOwnPages(t *testing.T) {
	t.Parallel()
	for raw, want := range map[string]string{
		"/jobs?state=failed": "/jobs?state=failed", "": "/", "jobs": "/", "//evil.example": "/", "https://evil.example": "/", `/\evil.example`: "/",
		"javascript:alert(1)": "/", "/\t/evil.example": "/", "///evil.example": "/", "/%2f/evil.example": "/%2f/evil.example",
	} {
		if got := localPath(raw); got != want {
			t.Errorf("localPath(%q) = %q, want %q", raw, got, want)
		}
	}
}

// However a session's end is met, the login leads to the page that one was on.
func TestASessionThatEndedLeadsBack(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.user("admin")
	const site = "http://example.com"
	partial := []string{"HX-Request", "true", "HX-Request-Type", "partial", "HX-Current-URL"}
	for _, c := range []struct {
		method, path string
		header       []string
		want         string
	}{
		{"GET", "/jobs?state=failed", nil, "/jobs?state=failed"},
		{"GET", "/", append(partial, site+"/?show=hand"), "/?show=hand"},
		{"POST", "/jobs/x/cancel", append(partial, site+"/jobs/x"), "/jobs/x"},
		{"POST", "/hosts/x/source-groups", append(partial, site+"/hosts/x/source-groups/new"), "/hosts/x/source-groups/new"},
		{"POST", "/hosts/x/source-groups", []string{"Referer", site + "/hosts/x/source-groups/new"}, "/hosts/x/source-groups/new"},
		{"GET", "/events", append(partial, site+"/jobs"), "/jobs"},
		{"GET", "/events", nil, "/"},
		{"POST", "/hosts/x/source-groups", nil, "/"},
		{"POST", "/hosts/x/source-groups", []string{"Referer", site + "/hosts/x/source-groups"}, "/"}, // a form that came back: no page
		{"POST", "/hosts/x/source-groups", []string{"Referer", "http://evil.example/jobs"}, "/"},
		{"POST", "/hosts/x/source-groups", append(partial, "http://evil.example/jobs"), "/"},
		{"POST", "/hosts/x/source-groups", append(partial, site+"//evil.example/jobs"), "/"},
		{"POST", "/hosts/x/source-groups", append(partial, "/jobs"), "/"},
	} {
		res := b.do(c.method, c.path, nil, append([]string{"Cookie", "session=ended"}, c.header...)...)
		body(t, res)
		if to := res.Header.Get("Location") + res.Header.Get("HX-Redirect"); to != "/login" {
			t.Errorf("%s %s %v: %d to %q", c.method, c.path, c.header, res.StatusCode, to)
		}
		var cookies []string
		for _, cookie := range res.Cookies() {
			cookies = append(cookies, cookie.Name+"="+cookie.Value)
		}
		res = b.login("admin", password, "Cookie", strings.Join(cookies, "; "))
		if body(t, res); res.Header.Get("Location") != c.want {
			t.Errorf("%s %s %v: the login leads to %q, want %q", c.method, c.path, c.header, res.Header.Get("Location"), c.want)
		}
	}
}

func TestWrongPasswordsRunOut(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.user("admin")
	// However the name is written, and from wherever it is tried.
	for i := range triesPerName {
		name := []string{"admin", "ADMIN", " admin ", "aDmin"}[i%4]
		res := b.login(name, "wrong", "X-From", fmt.Sprintf("192.0.2.%d", i))
		if got := body(t, res); res.StatusCode != http.StatusUnauthorized || !strings.Contains(got, "go together") {
			t.Fatalf("try %d: %d", i, res.StatusCode)
		}
	}
	res := b.login("Admin", password, "X-From", "192.0.2.99")
	if body(t, res); res.StatusCode != http.StatusTooManyRequests || res.Header.Get("Retry-After") == "" || len(res.Cookies()) != 0 {
		t.Errorf("the right one now: %d", res.StatusCode)
	}
	// Somebody else at the same place isn't held up.
	b.user("ops")
	res = b.login("ops", password, "X-From", "192.0.2.1")
	if body(t, res); res.StatusCode != http.StatusSeeOther {
		t.Errorf("another user: %d", res.StatusCode)
	}
}

func TestThrottle(t *testing.T) {
	t.Parallel()
	clock := time.Date(2026, 11, 20, 2, 0, 0, 0, time.UTC)
	fresh := func() *throttle {
		th := newThrottle()
		th.now = func() time.Time { return clock }
		return th
	}
	// So many at once are so many tries.
	th := fresh()
	var wg sync.WaitGroup
	var mu sync.Mutex
	passed := 0
	for range 200 {
		wg.Go(func() {
			if th.begin("192.0.2.1", "admin") == 0 {
				mu.Lock()
				passed++
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	if passed != triesPerName {
		t.Errorf("%d tries at once went through", passed)
	}
	// One address, many names.
	th = fresh()
	for i := range triesPerAddress {
		if wait := th.begin("192.0.2.1", fmt.Sprint(i)); wait != 0 {
			t.Fatalf("try %d waits %s", i, wait)
		}
	}
	clock = clock.Add(time.Minute)
	if wait := th.begin("192.0.2.1", "another"); wait != throttleWindow-time.Minute {
		t.Errorf("waits %s", wait)
	}
	clock = clock.Add(throttleWindow)
	if wait := th.begin("192.0.2.1", "another"); wait != 0 {
		t.Errorf("after the window it waits %s", wait)
	}
	// A login that works counts for nothing.
	th = fresh()
	for range 3 * triesPerAddress {
		if wait := th.begin("192.0.2.1", "admin"); wait != 0 {
			t.Fatalf("waits %s", wait)
		}
		th.forgive("192.0.2.1", "Admin")
	}
	// Nobody can fill our memory.
	th = fresh()
	for i := range throttleSize + 10 {
		th.begin(fmt.Sprint(i), strings.Repeat("x", 10_000)+fmt.Sprint(i))
	}
	size := 0
	for key := range th.failed {
		size += len(key)
	}
	if len(th.failed) > throttleSize+2 || size > throttleSize*500 {
		t.Errorf("%d keys of %d bytes", len(th.failed), size)
	}
}
