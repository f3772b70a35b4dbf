//go:build invariant || race

package invariant

// Enabled reports whether costly checks run: in builds with the tag invariant
// or with the race detector.
const Enabled = true
