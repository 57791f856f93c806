package restic

import (
	"fmt"
	"regexp"
	"strconv"
)

var versionPattern = regexp.MustCompile(`^restic (v?(\d+)\.(\d+)\.[^\s]+)`)

// ParseVersion reads the line that `restic version` prints. supported is false
// for versions before 0.17, whose exit codes say too little.
func ParseVersion(printed string) (version string, supported bool, err error) {
	m := versionPattern.FindStringSubmatch(printed)
	if m == nil {
		return "", false, fmt.Errorf("%q is not restic's version line", clip(printed[:min(len(printed), 80)], false))
	}
	major, errMajor := strconv.Atoi(m[2])
	minor, errMinor := strconv.Atoi(m[3])
	if errMajor != nil || errMinor != nil {
		return "", false, fmt.Errorf("version %q: number too large", m[1])
	}
	return m[1], major > 0 || minor >= 17, nil
}
