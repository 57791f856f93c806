package restic

import (
	"fmt"
	"strings"

	"resticfleet/agent/protocol"
)

// rule turns what restic said into a code, a cause and a remedy. The first
// rule that fits wins. {said} in the cause is restic's own message, {url} the
// repository's address.
type rule struct {
	exit   int      // 0: any but 10, 11 and 12, which say enough alone
	says   []string // any of these, case-insensitive; none: whatever was said
	code   string
	cause  string
	remedy string
}

var rules = []rule{
	{exit: 10, code: protocol.ErrNoRepository,
		cause:  "There is no restic repository at {url}.",
		remedy: "Check the address, or initialise the repository in the host's danger zone."},
	{exit: 11, code: protocol.ErrLocked,
		cause:  "The repository is locked by another process: {said}",
		remedy: "Wait for it to end. If that process is dead, run Unlock in the host's danger zone."},
	{exit: 12, code: protocol.ErrWrongPassword,
		cause:  "The password does not open the repository at {url}.",
		remedy: "Enter the right password in the host's repository settings."},
	{says: []string{"all source directories/files do not exist", "all target directories/files do not exist", "nothing to backup"},
		code:   protocol.ErrMissingInclude,
		cause:  "None of the paths to back up exists any more.",
		remedy: "Mount or create them, or change the source group's paths."},
	{says: []string{"invalid exclude pattern", "malformed exclude pattern", "syntax error in pattern", "--exclude: invalid pattern"},
		code:   protocol.ErrInvalidCommand,
		cause:  "restic does not understand an exclude pattern: {said}",
		remedy: "Correct the pattern in the source group."},
	{says: []string{"no space left on device", "disk quota exceeded"},
		code:   protocol.ErrNoSpace,
		cause:  "A disk is full: {said}",
		remedy: "Free space where the message points to: the repository, the agent's state folder (cache) or the temporary folder."},
	{says: []string{"insufficient storage", "(507)"},
		code:   protocol.ErrRestic,
		cause:  "The backup server has no space left: {said}",
		remedy: "Free space there, or raise the quota."},
	{says: []string{"x509:", "tls: ", "certificate"},
		code:   protocol.ErrUnreachable,
		cause:  "The connection to the repository at {url} is not trusted: {said}",
		remedy: "Renew the server's certificate, or make its authority known on this host (SSL_CERT_FILE)."},
	{says: []string{"401 unauthorized", "(401)", "403 forbidden", "(403)", "access denied", "accessdenied", "invalidaccesskeyid",
		"signaturedoesnotmatch", "unauthorized", "invalid_grant", "authenticationfailed", "permission denied (publickey"},
		code:   protocol.ErrBackendForbidden,
		cause:  "The backend at {url} refused these credentials: {said}",
		remedy: "Check user, key and rights in the host's repository settings."},
	{says: []string{"connection refused", "no such host", "i/o timeout", "network is unreachable", "no route to host",
		"connection reset", "context deadline exceeded", "connection timed out", "could not resolve hostname", "bad gateway",
		"service unavailable", "unable to start the sftp session", "server misbehaving"},
		code:   protocol.ErrUnreachable,
		cause:  "The repository at {url} could not be reached: {said}",
		remedy: "Check the address, the network between this host and it, and that the server runs."},
	{says: []string{"unable to open cache", "unable to locate cache directory", "cache directory"},
		code:   protocol.ErrInternal,
		cause:  "restic could not use its cache: {said}",
		remedy: "Make the agent's state folder writable for the agent's account."},
	{says: []string{"permission denied", "operation not permitted", "read-only file system"},
		code:   protocol.ErrBackendForbidden,
		cause:  "The repository at {url} may not be read or written by the agent's account: {said}",
		remedy: "Correct the rights of the repository's folder."},
	{says: []string{"cannot allocate memory", "out of memory"},
		code:   protocol.ErrRestic,
		cause:  "restic ran out of memory: {said}",
		remedy: "Give the host more memory, or back up fewer files at once."},
	{exit: 130, code: protocol.ErrInterrupted,
		cause:  "restic was interrupted on the host, by nobody's request here.",
		remedy: "Look on the host who ended it (a shutdown, a person), then run the job again."},
}

// explain gives the code and the sentences for a step that didn't succeed. With
// the second credentials it says so: the first ones may be fine.
func explain(run protocol.Run, r StepResult) (code, text string) {
	code, text = explainStep(run, r)
	switch code {
	case protocol.ErrWrongPassword, protocol.ErrBackendForbidden, protocol.ErrNoRepository, protocol.ErrUnreachable:
		if !run.Repository.Maintenance {
			break
		}
		if code == protocol.ErrNoRepository {
			text = sentences(fmt.Sprintf("There is no restic repository at %s.", displayURL(run.Repository.URL)),
				"The one for every day may be fine: check the address of these credentials in the host's repository settings.")
		}
		text = protocol.SecondCredentials + text
	}
	return code, text
}

func explainStep(run protocol.Run, r StepResult) (code, text string) {
	url := displayURL(run.Repository.URL)
	command := "restic"
	if len(r.Args) > 0 {
		command = "restic " + r.Args[0]
	}
	switch {
	case r.StartError != "":
		return protocol.ErrNoRestic, sentences("restic could not be started: "+stop(r.StartError),
			"Install restic 0.17 or newer on this host, or name it with --restic.")
	case r.Interrupt == InterruptUnreachable:
		return protocol.ErrUnreachable, sentences(fmt.Sprintf("The repository at %s could not be reached: %s", url, stop(r.Detail)),
			"Check the address, the network between this host and it, and that the server runs.")
	case r.Interrupt == InterruptTimeout:
		return protocol.ErrInterrupted, sentences(command+" did not come to an end in time and was stopped.",
			"Check that the repository answers, then run the job again.")
	case r.Lost:
		return protocol.ErrInterrupted, sentences("restic was ended from outside (a restart of the host, or a killed process), and nobody saw how.",
			"Run the job again; see the host's system log if it happens again.")
	case r.killed():
		return protocol.ErrInterrupted, sentences(fmt.Sprintf("restic was killed by signal %d.", r.Signal),
			"Look in the host's system log for the reason (often too little memory), then run the job again.")
	}
	said := r.Output.said()
	switch {
	case (r.is("forget") || r.is("prune")) && r.Output.refusesRemoval():
		if run.Repository.Maintenance {
			return protocol.ErrAppendOnly, sentences(fmt.Sprintf("The credentials for forget and prune may not remove anything from the repository at %s.", url),
				"Give them the right to delete on the backup server, or store others in the host's repository settings.")
		}
		return protocol.ErrAppendOnly, sentences(fmt.Sprintf("The host's credentials may add to the repository at %s and not remove from it (an append-only server or an object lock).", url),
			"Store credentials for forget and prune in the host's repository settings.")
	case r.is("prune") && (strings.Contains(said, "packs from index missing in repo") || strings.Contains(said, "index is not complete") ||
		strings.Contains(said, "pack size does not match")):
		return protocol.ErrDamaged, sentences("prune found damage in the repository and removed nothing: "+stop(firstLines(said)),
			"Run a check, read its log, and follow restic's guide to repairing a repository (restic repair).")
	case r.is("check") && strings.Contains(said, "repository contains errors"):
		return protocol.ErrDamaged, sentences("check found damage in the repository: "+stop(firstLines(said)),
			"Read the job's log, don't prune, and follow restic's guide to repairing a repository (restic repair).")
	}
	for _, rule := range rules {
		if rule.fits(r.ExitCode, strings.ToLower(said)) {
			cause := strings.NewReplacer("{url}", url, "{said}", stop(firstLines(said))).Replace(rule.cause)
			return rule.code, sentences(cause, rule.remedy)
		}
	}
	if said == "" {
		said = "it said nothing"
	}
	return protocol.ErrRestic, sentences(fmt.Sprintf("%s ended with exit code %d: %s", command, r.ExitCode, stop(firstLines(said))),
		"Read the job's log for what came before.")
}

// refusesRemoval: the backend let restic read and add, and not delete.
func (o *Output) refusesRemoval() bool {
	for line := range strings.Lines(strings.ToLower(o.exitMessage + "\n" + o.stderrTail)) {
		if !strings.Contains(line, "remove(<") && !strings.Contains(line, "unable to remove") {
			continue
		}
		for _, refusal := range []string{"403 forbidden", "(403)", "access denied", "accessdenied", "append-only", "object lock"} {
			if strings.Contains(line, refusal) {
				return true
			}
		}
	}
	return false
}

func (r rule) fits(exit int, said string) bool {
	if r.exit != 0 {
		return r.exit == exit
	}
	for _, s := range r.says {
		if strings.Contains(said, s) {
			return true
		}
	}
	return false
}

// firstLines keeps the message and leaves out the stack trace restic may put
// behind it.
func firstLines(said string) string {
	var kept []string
	for line := range strings.Lines(said) {
		line = strings.TrimSpace(line)
		if line == "" {
			continue
		}
		if strings.HasPrefix(line, "github.com/") || strings.HasPrefix(line, "main.") || strings.HasPrefix(line, "runtime.") || len(kept) == 4 {
			break
		}
		kept = append(kept, line)
	}
	return clip(strings.Join(kept, " "), false)
}

// stop ends a sentence that came from elsewhere.
func stop(s string) string {
	s = strings.TrimSpace(s)
	if s == "" || strings.HasSuffix(s, ".") {
		return s
	}
	return s + "."
}

// displayURL leaves out a password that an address may hold despite the
// server's refusal of such addresses.
func displayURL(raw string) string {
	at := strings.LastIndexByte(raw, '@')
	slashes := strings.Index(raw, "//")
	if at < 0 || slashes < 0 || at < slashes {
		return raw
	}
	user, _, found := strings.Cut(raw[slashes+2:at], ":")
	if !found {
		return raw
	}
	return raw[:slashes+2] + user + ":" + Mask + raw[at:]
}
