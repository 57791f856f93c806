//go:build !linux

package stage

// UnderInit is for systems with /proc; elsewhere nobody looks for leftovers.
func UnderInit() (code int, ran bool) { return 0, false }

// GivenTempDir is none: there is no init that made one.
func GivenTempDir() string { return "" }

// Processes lists nothing without /proc.
func Processes() []Process { return nil }

// Descendants lists nothing without /proc.
func Descendants(int) []Process { return nil }
