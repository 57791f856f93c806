package protocol

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"slices"
	"strings"
)

// Digest identifies a set's content, whatever the order it was listed in: the
// same version with another digest tells a restored database from ours.
func (s ScheduleSet) Digest() string {
	sorted := slices.Clone(s.Schedules)
	slices.SortFunc(sorted, func(a, b Schedule) int { return strings.Compare(a.ID, b.ID) })
	for i := range sorted {
		sorted[i].SourceGroups = slices.Sorted(slices.Values(sorted[i].SourceGroups))
	}
	raw, err := json.Marshal(sorted)
	if err != nil {
		panic("protocol: a schedule set always marshals: " + err.Error())
	}
	sum := sha256.Sum256(raw)
	return hex.EncodeToString(sum[:8])
}
