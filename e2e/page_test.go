package e2e

import (
	"fmt"
	"net/url"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/playwright-community/playwright-go"
)

// page is one tab in a browser context of its own: nothing of another test's
// cookies, and a stream that isn't paused because another tab is in front.
// Errors of scripts and refusals by the Content-Security-Policy fail the test;
// when it fails, trace and screenshot are kept.
type page struct {
	playwright.Page
	t      *testing.T
	at     target
	expect playwright.PlaywrightAssertions
	plain  bool // without scripts

	mu     sync.Mutex
	errors []string
}

// patience is how long a locator or an assertion waits, in milliseconds. It is
// for a machine on which a dozen other tests run.
const patience = 30_000

type pageOptions struct {
	stranger bool // without a session
	noScript bool
	noTrace  bool // for many pages in one tab: a trace costs as much as the page
	width    int
	height   int
	scheme   *playwright.ColorScheme
}

// newPage is a page of the suite's server, logged in as the administrator.
func newPage(t *testing.T) *page {
	t.Helper()
	return suite.target.page(t, pageOptions{})
}

// page is a page of this server, as this user unless told otherwise.
func (at target) page(t *testing.T, o pageOptions) *page {
	t.Helper()
	if err := browser.start(); err != nil {
		t.Fatal(err)
	}
	options := playwright.BrowserNewContextOptions{
		BaseURL:           playwright.String(at.url),
		ColorScheme:       o.scheme,
		JavaScriptEnabled: playwright.Bool(!o.noScript),
		ReducedMotion:     playwright.ReducedMotionReduce,
		Viewport:          &playwright.Size{Width: 1280, Height: 900},
	}
	if o.width != 0 {
		options.Viewport = &playwright.Size{Width: o.width, Height: o.height}
	}
	if !o.stranger {
		options.StorageState = &playwright.OptionalStorageState{Cookies: []playwright.OptionalCookie{at.cookie(t)}}
	}
	context, err := browser.NewContext(options)
	if err != nil {
		t.Fatal(err)
	}
	context.SetDefaultTimeout(patience)
	p := &page{t: t, at: at, plain: o.noScript, expect: playwright.NewPlaywrightAssertions(patience)}
	t.Cleanup(func() { p.close(context, !o.noTrace) })
	if !o.noTrace {
		// Without its film: the snapshots show as much for a third of the price.
		if err := context.Tracing().Start(playwright.TracingStartOptions{Snapshots: playwright.Bool(true)}); err != nil {
			t.Fatal(err)
		}
	}
	if p.Page, err = context.NewPage(); err != nil {
		t.Fatal(err)
	}
	p.OnConsole(func(m playwright.ConsoleMessage) {
		// Chromium logs every answer of 4xx; those are the tests' to expect.
		if m.Type() == "error" && !strings.Contains(m.Text(), "the server responded with a status of 4") {
			p.note("console: " + m.Text())
		}
	})
	p.OnPageError(func(err error) { p.note("script: " + err.Error()) })
	return p
}

func (p *page) note(text string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.errors = append(p.errors, text)
}

// forget takes back what the browser itself had to say about a fault that the
// test made.
func (p *page) forget(texts ...string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.errors = slices.DeleteFunc(p.errors, func(e string) bool {
		return slices.ContainsFunc(texts, func(text string) bool { return strings.Contains(e, text) })
	})
}

// cookie is the session for a browser.
func (at target) cookie(t *testing.T) playwright.OptionalCookie {
	t.Helper()
	u, err := url.Parse(at.url)
	if err != nil {
		t.Fatal(err)
	}
	return playwright.OptionalCookie{
		Name: at.session.Name, Value: at.session.Value, Domain: playwright.String(u.Hostname()), Path: playwright.String("/"),
		HttpOnly: playwright.Bool(true), Secure: playwright.Bool(u.Scheme == "https"), SameSite: playwright.SameSiteAttributeLax,
	}
}

// close ends the context, and keeps what explains a failure.
func (p *page) close(context playwright.BrowserContext, traced bool) {
	p.mu.Lock()
	for _, e := range p.errors {
		p.t.Error(e)
	}
	p.mu.Unlock()
	var trace []string
	if p.t.Failed() {
		dir := resultDir(p.t)
		name := fmt.Sprintf("page-%p", p)
		trace = []string{filepath.Join(dir, name+"-trace.zip")}
		if p.Page != nil {
			if _, err := p.Screenshot(playwright.PageScreenshotOptions{Path: playwright.String(filepath.Join(dir, name+".png")), FullPage: playwright.Bool(true)}); err != nil {
				p.t.Log(err)
			}
		}
	}
	if traced {
		if err := context.Tracing().Stop(trace...); err != nil {
			p.t.Log(err)
		}
	}
	if err := context.Close(); err != nil {
		p.t.Error(err)
	}
}

// must ends the test at the first error of the browser.
func (p *page) must(err error) {
	p.t.Helper()
	if err != nil {
		p.t.Fatalf("at %s: %v", p.URL(), err)
	}
}

// open goes to a path of the server.
func (p *page) open(path string) playwright.Response {
	p.t.Helper()
	// Not networkidle: the event stream never is. Scripts have run by load.
	res, err := p.Goto(path)
	p.must(err)
	return res
}

func (p *page) button(name string) playwright.Locator {
	return p.GetByRole(*playwright.AriaRoleButton, playwright.PageGetByRoleOptions{Name: name, Exact: playwright.Bool(true)})
}

func (p *page) link(name string) playwright.Locator {
	return p.GetByRole(*playwright.AriaRoleLink, playwright.PageGetByRoleOptions{Name: name, Exact: playwright.Bool(true)})
}

func (p *page) heading(name string) playwright.Locator {
	return p.GetByRole(*playwright.AriaRoleHeading, playwright.PageGetByRoleOptions{Name: name, Exact: playwright.Bool(true)})
}

func (p *page) field(label string) playwright.Locator {
	return p.GetByLabel(label, playwright.PageGetByLabelOptions{Exact: playwright.Bool(true)})
}

func (p *page) click(l playwright.Locator) {
	p.t.Helper()
	p.must(l.Click())
}

func (p *page) fill(label, text string) {
	p.t.Helper()
	p.must(p.field(label).Fill(text))
}

// choose picks an option by its value.
func (p *page) choose(label, value string) {
	p.t.Helper()
	_, err := p.field(label).SelectOption(playwright.SelectOptionValues{Values: &[]string{value}})
	p.must(err)
}

// sees waits until the element is in sight.
func (p *page) sees(l playwright.Locator) {
	p.t.Helper()
	p.must(p.expect.Locator(l).ToBeVisible())
}

// hidden waits until the element is not in sight.
func (p *page) hidden(l playwright.Locator) {
	p.t.Helper()
	p.must(p.expect.Locator(l).ToBeHidden())
}

// says waits until the element contains the text.
func (p *page) says(l playwright.Locator, text any) {
	p.t.Helper()
	p.must(p.expect.Locator(l).ToContainText(text))
}

// path waits until the browser is at the path, whatever it has for a query, and
// until the page does more than a plain one.
func (p *page) path(want string) {
	p.t.Helper()
	eventually(p.t, "the browser is at "+want, func() bool {
		u, err := url.Parse(p.URL())
		return err == nil && u.Path == want
	})
	if !p.plain {
		p.must(p.expect.Locator(p.Locator("html[data-scripted]")).ToBeAttached())
	}
}

// text is what an element says now.
func (p *page) text(l playwright.Locator) string {
	p.t.Helper()
	s, err := l.TextContent()
	p.must(err)
	return strings.TrimSpace(s)
}

// script evaluates an expression in the page.
func (p *page) script(js string, arg ...any) any {
	p.t.Helper()
	v, err := p.Evaluate(js, arg...)
	p.must(err)
	return v
}

// pathPart is one part of the path the browser is at; 1 is the first.
func (p *page) pathPart(n int) string {
	p.t.Helper()
	u, err := url.Parse(p.URL())
	p.must(err)
	parts := strings.Split(u.Path, "/")
	if n >= len(parts) {
		p.t.Fatalf("%s has no part %d", p.URL(), n)
	}
	return parts[n]
}

// mark leaves a mark that a reload would wipe out.
func (p *page) mark() {
	p.t.Helper()
	p.script("window.marked = true")
}

// unreloaded fails the test if the page was loaded anew since mark.
func (p *page) unreloaded() {
	p.t.Helper()
	if p.script("window.marked") != true {
		p.t.Errorf("%s was loaded anew", p.URL())
	}
}
