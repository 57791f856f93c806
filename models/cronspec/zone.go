package cronspec

import (
	"errors"
	"fmt"
	"regexp"
	"strings"
	"sync"
	"time"

	// Hosts without a zone database (containers, small routers) read the same
	// wall clocks as the server does.
	_ "time/tzdata"
)

var zoneName = regexp.MustCompile(`^[A-Za-z][A-Za-z0-9_+-]*(/[A-Za-z][A-Za-z0-9_+-]*){0,2}$`)

// loaded keeps the zones LoadZone has read: immutable values, at most as many
// as the zone database has names.
var loaded sync.Map // name -> *time.Location

// LoadZone returns the zone of an IANA name, from the machine's zone database
// or the one built in. It refuses what names no place that two machines would
// agree on: "", "Local", paths, and the database's own variants ("right/…"
// counts leap seconds). The error gives the reason and the remedy.
func LoadZone(name string) (*time.Location, error) {
	if loc, ok := loaded.Load(name); ok {
		return loc.(*time.Location), nil
	}
	const remedy = "use a name of the IANA list, such as Europe/Berlin or UTC"
	switch {
	case name == "":
		return nil, errors.New("the time zone is empty; " + remedy)
	case strings.EqualFold(name, "local"), name == "localtime":
		return nil, fmt.Errorf("the time zone %q means something else on every machine; %s", name, remedy)
	case len(name) > 64 || !zoneName.MatchString(name),
		name == "Factory", name == "posixrules",
		strings.HasPrefix(name, "posix/"), strings.HasPrefix(name, "right/"):
		return nil, fmt.Errorf("%.80q is not the name of a time zone; %s", name, remedy)
	}
	loc, err := time.LoadLocation(name)
	if err != nil {
		return nil, fmt.Errorf("the time zone %q is unknown; %s", name, remedy)
	}
	loaded.Store(name, loc)
	return loc, nil
}
