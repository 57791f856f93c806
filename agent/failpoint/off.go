//go:build !failpoints

package failpoint

// Built tells whether this build has the tag.
const Built = false

// Hit does nothing in this build.
func Hit(string) {}

// Planted is false in this build.
func Planted(string) bool { return false }

// Inherited is nothing in this build.
func Inherited() []string { return nil }
