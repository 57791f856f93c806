package protocol

import (
	"math"
	"regexp"
	"strconv"
)

// SubsetForms says what Run.ReadDataSubset may be, for whoever entered something
// else.
const SubsetForms = `n/t with n from 1 to t and t at most 256 ("1/12"), a percentage ("10%"), a size with its unit K, M, G or T ("500M"), or nothing to read no data`

var (
	subsetPart    = regexp.MustCompile(`^([0-9]{1,3})/([0-9]{1,3})$`)
	subsetPercent = regexp.MustCompile(`^([0-9]{1,3}(?:\.[0-9]{0,9})?|\.[0-9]{1,9})%$`)
	subsetSize    = regexp.MustCompile(`^([1-9][0-9]{0,14})([KMGT])$`)
)

// ValidSubset knows what restic's --read-data-subset takes: anything else fails
// every check, as nothing that restic could have read.
func ValidSubset(s string) bool {
	if s == "" {
		return true
	}
	if _, _, ok := SubsetPart(s); ok {
		return true
	}
	if m := subsetPercent.FindStringSubmatch(s); m != nil {
		percent, err := strconv.ParseFloat(m[1], 64)
		return err == nil && percent > 0 && percent <= 100
	}
	if m := subsetSize.FindStringSubmatch(s); m != nil {
		n, err := strconv.ParseInt(m[1], 10, 64)
		shift := map[string]int{"K": 10, "M": 20, "G": 30, "T": 40}[m[2]]
		return err == nil && n <= math.MaxInt64>>shift
	}
	return false
}

// SubsetPart reads n/t, the n-th of t parts; anything else is not one. restic
// tells parts apart by the first byte of a pack's name: there are 256 at most.
func SubsetPart(s string) (n, t int, ok bool) {
	m := subsetPart.FindStringSubmatch(s)
	if m == nil {
		return 0, 0, false
	}
	n, _ = strconv.Atoi(m[1]) // three digits at most
	t, _ = strconv.Atoi(m[2])
	return n, t, n >= 1 && n <= t && t <= 256
}
