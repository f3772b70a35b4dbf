//go:build nometrics

package ioring

// Counting is whether what only metrics show is counted; see counting.go.
const Counting = false
