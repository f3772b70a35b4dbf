//go:build !nometrics

package ioring

// Counting is whether what only metrics show is counted, here and by who uses
// this package. Builds with the tag nometrics are for measuring what that costs.
const Counting = true
