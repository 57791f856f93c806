package agent

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"resticfleet/models/cronspec"
)

// machine is where a Unix machine may have written down its zone.
type machine struct {
	getenv    func(string) (string, bool)
	timezone  string // Debian's text file
	localtime string // usually a link into the zone database
}

var thisMachine = machine{getenv: os.LookupEnv, timezone: "/etc/timezone", localtime: "/etc/localtime"}

// ZoneName gives the IANA name of the host's zone: the one told, which must
// exist, or else what the machine says. It is empty where the machine can't
// name its zone; schedules then follow UTC, and the server says so.
func ZoneName(told string) (string, error) {
	if told == "" {
		return thisMachine.zoneName(), nil
	}
	if _, err := cronspec.LoadZone(told); err != nil {
		return "", fmt.Errorf("--timezone: %w", err)
	}
	return told, nil
}

func (m machine) zoneName() string {
	if tz, set := m.getenv("TZ"); set {
		tz = strings.TrimPrefix(tz, ":")
		if tz == "" {
			return "UTC" // POSIX
		}
		// Rules like CET-1CEST have no IANA name: then we can't name it.
		return known(afterZoneinfo(tz))
	}
	if raw, err := os.ReadFile(m.timezone); err == nil {
		if name := known(strings.TrimSpace(string(raw))); name != "" {
			return name
		}
	}
	if path, err := filepath.EvalSymlinks(m.localtime); err == nil {
		return known(afterZoneinfo(path))
	}
	return ""
}

// afterZoneinfo cuts the zone database's own path off.
func afterZoneinfo(path string) string {
	const database = "/zoneinfo/"
	if at := strings.LastIndex(path, database); at >= 0 {
		path = path[at+len(database):]
	}
	return strings.TrimPrefix(strings.TrimPrefix(path, "posix/"), "right/")
}

func known(name string) string {
	if _, err := cronspec.LoadZone(name); err != nil {
		return ""
	}
	return name
}

// location is the zone that cron expressions follow.
func location(name string) *time.Location {
	if loc, err := cronspec.LoadZone(name); err == nil {
		return loc
	}
	return time.UTC
}
