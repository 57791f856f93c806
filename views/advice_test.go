package views

import (
	"go/ast"
	"go/parser"
	"go/token"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"resticfleet/agent/protocol"
	"resticfleet/models"
)

// codes are the values of the string constants of a folder whose names begin
// with prefix.
func codes(t *testing.T, dir, prefix string) map[string]bool {
	t.Helper()
	out := map[string]bool{}
	for _, f := range sources(t, dir) {
		for _, d := range f.Decls {
			g, ok := d.(*ast.GenDecl)
			if !ok || g.Tok != token.CONST {
				continue
			}
			for _, s := range g.Specs {
				v := s.(*ast.ValueSpec)
				for i, name := range v.Names {
					if i >= len(v.Values) || !regexp.MustCompile(`^`+prefix+`[A-Z]`).MatchString(name.Name) {
						continue
					}
					if lit, ok := v.Values[i].(*ast.BasicLit); ok && lit.Kind == token.STRING {
						value, err := strconv.Unquote(lit.Value)
						if err != nil {
							t.Fatal(err)
						}
						out[value] = true
					}
				}
			}
		}
	}
	return out
}

// sources are a folder's files that are no tests.
func sources(t *testing.T, dir string) []*ast.File {
	t.Helper()
	names, err := filepath.Glob(filepath.Join(dir, "*.go"))
	if err != nil || len(names) == 0 {
		t.Fatalf("%s: %v", dir, err)
	}
	var out []*ast.File
	for _, name := range names {
		if strings.HasSuffix(name, "_test.go") {
			continue
		}
		f, err := parser.ParseFile(token.NewFileSet(), name, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, f)
	}
	return out
}

func TestEveryErrorCodeHasItsAdvice(t *testing.T) {
	t.Parallel()
	rows := map[string]bool{}
	for _, a := range advices {
		if rows[a.code] {
			t.Errorf("%s stands twice", a.code)
		}
		rows[a.code] = true
	}
	known := codes(t, "../agent/protocol", "Err")
	for code := range codes(t, "../models", "Code") {
		known[code] = true
	}
	if !known[protocol.ErrLocked] || !known[models.CodeStillBusy] {
		t.Fatalf("the sources were not read: %v", known)
	}
	for code := range known {
		if !rows[code] {
			t.Errorf("a job can end with %q, and nothing says what to do", code)
		}
	}
	for code := range rows {
		if !known[code] {
			t.Errorf("%q has an advice, and no job can end with it", code)
		}
	}
}

// Codes stand as constants in two places, so that the test above sees them all:
// nobody writes one into a statement or hands one over as it is.
func TestNoErrorCodeIsWrittenByHand(t *testing.T) {
	t.Parallel()
	inSQL := regexp.MustCompile(`error_code\s*=\s*'[^']`)
	for _, dir := range []string{"../models", "../jobs", "../agent", "../agent/restic"} {
		for _, f := range sources(t, dir) {
			ast.Inspect(f, func(n ast.Node) bool {
				switch n := n.(type) {
				case *ast.BasicLit:
					if n.Kind == token.STRING && inSQL.MatchString(n.Value) {
						t.Errorf("%s: a statement holds a code: %s", dir, n.Value)
					}
				case *ast.CallExpr:
					if i, ok := codeArgument[called(n)]; ok && i < len(n.Args) {
						if lit, ok := n.Args[i].(*ast.BasicLit); ok {
							t.Errorf("%s: %s is handed the code %s", dir, called(n), lit.Value)
						}
					}
				case *ast.KeyValueExpr:
					key, _ := n.Key.(*ast.Ident)
					lit, isLit := n.Value.(*ast.BasicLit)
					if key != nil && isLit && lit.Value != `""` && (key.Name == "ErrorCode" || key.Name == "code") && lit.Kind == token.STRING {
						t.Errorf("%s: %s is %s", dir, key.Name, lit.Value)
					}
				}
				return true
			})
		}
	}
}

// codeArgument is where functions take a code.
var codeArgument = map[string]int{"Fail": 1, "skip": 0, "FailUnsendable": 3, "GiveUp": 3}

func called(c *ast.CallExpr) string {
	switch f := c.Fun.(type) {
	case *ast.SelectorExpr:
		return f.Sel.Name
	case *ast.Ident:
		return f.Name
	}
	return ""
}

// Each row, as its page shows it: a cause, something to do, and no way that
// leads nowhere.
func TestEveryAdviceIsWhole(t *testing.T) {
	t.Parallel()
	places := map[place]string{
		toRepository: "/hosts/h3/repository", toSecond: "/hosts/h3/repository/maintenance", toDangerZone: "/hosts/h3/danger", toGroup: "/hosts/h3/source-groups/g1",
		toHost: "/hosts/h3", toGroupJobs: "/hosts/h3/jobs?group=g1", toMaintenance: "/hosts/h3/maintenance", toEnrol: "/hosts/h3/enrol",
	}
	for _, a := range advices {
		t.Run(a.code, func(t *testing.T) {
			t.Parallel()
			if a.brief == "" || len(a.brief) > 28 || strings.Contains(a.brief, "_") {
				t.Errorf("in brief: %q", a.brief)
			}
			if a.headline == "" || strings.HasSuffix(a.headline, ".") || len(a.steps) == 0 {
				t.Errorf("headline %q, %d steps", a.headline, len(a.steps))
			}
			if (a.act == "") != (a.to == "") {
				t.Errorf("act %q leads to %q", a.act, a.to)
			}
			job := sampleFailed(t)
			job.ErrorCode = a.code
			html := render(t, JobLive(job))
			for _, part := range []string{a.headline, "What to do", job.Error, "Run again"} {
				if !strings.Contains(html, part) {
					t.Errorf("the page has no %q", part)
				}
			}
			if strings.Contains(html, "{host}") || strings.Contains(html, "{job}") {
				t.Error("a name was not filled in")
			}
			viewer := job
			viewer.CanRunAgain, viewer.CanOperate, viewer.CanAdminister = false, false, false
			seen := render(t, JobLive(viewer))
			for _, s := range append(a.steps, step{link: a.act, to: a.to}) {
				whole := s.text + s.link + s.code + s.after
				if s.text != "" && (!strings.Contains(html, job.fill(s.text)) || !strings.HasSuffix(whole, ".")) {
					t.Errorf("%q is not a sentence of the page", whole)
				}
				if s.link == "" {
					continue
				}
				href := `href="` + strings.ReplaceAll(places[s.to], "&", "&amp;") + `"`
				if places[s.to] == "" || !strings.Contains(html, href) {
					t.Errorf("%q leads to no place: %q", s.link, s.to)
				}
				everybody := s.to == toHost || s.to == toGroupJobs || s.to == toMaintenance
				if strings.Contains(seen, href+` class="underline`) && !everybody {
					t.Errorf("a viewer is sent to %s", places[s.to])
				}
			}
			if strings.Contains(seen, "<form") || strings.Contains(seen, "btn-primary") {
				t.Error("a viewer is offered an act")
			}
		})
	}
}

func TestACodeThatNobodyKnowsHasWordsToo(t *testing.T) {
	t.Parallel()
	for state, want := range map[string]string{
		"failed": "Backup failed", "warning": "ended with a warning", "lost": "not known", "expired": "did not come", "skipped": "not needed", "cancelled": "Stopped",
	} {
		job := sampleFailed(t)
		job.State, job.ErrorCode = state, "of_a_newer_agent"
		html := render(t, JobLive(job))
		if !strings.Contains(html, want) || strings.Contains(html, "of_a_newer_agent") || !strings.Contains(html, job.Error) {
			t.Errorf("%s doesn't say %q, or says the code", state, want)
		}
		if brief := JobBrief(job.ErrorCode, job.Kind, state); strings.Contains(brief, "_") {
			t.Errorf("%s in brief: %q", state, brief)
		}
	}
}

// Where the credentials for forget and prune don't open the repository, the page
// leads to those: the everyday ones are fine, and so is the repository.
func TestTheAdviceIsForTheCredentialsThatFailed(t *testing.T) {
	t.Parallel()
	const everyday, second = `href="/hosts/h3/repository"`, `href="/hosts/h3/repository/maintenance"`
	for _, code := range []string{protocol.ErrWrongPassword, protocol.ErrBackendForbidden, protocol.ErrUnreachable, protocol.ErrNoRepository} {
		for _, kind := range []string{"forget", "prune", "check"} {
			job := sampleFailed(t)
			job.Kind, job.GroupID, job.GroupName, job.ErrorCode = kind, "", "", code
			one := render(t, JobLive(job))
			job.Error = protocol.SecondCredentials + job.Error
			two := render(t, JobLive(job))
			act := adviceFor(code, kind, "failed").act
			for html, leads := range map[string][2]string{one: {everyday, second}, two: {second, everyday}} {
				if !strings.Contains(html, leads[0]+` class="btn`) || !strings.Contains(html, act) || strings.Contains(html, leads[1]+` class="btn`) || strings.Contains(html, leads[1]+` class="underline`) {
					t.Errorf("%s of %s: “%s” doesn't lead to %s:\n%s", code, kind, act, leads[0], html)
				}
			}
			if code == protocol.ErrNoRepository && (!strings.Contains(one, "make a new one") || strings.Contains(two, "make a new one")) {
				t.Errorf("%s: the repository is to be made anew although only an address is wrong, or not where it is gone", kind)
			}
		}
	}
}
