package ioring

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// TestTimes: a time in a bucket that ends before it, or begins behind it.
func TestTimes(t *testing.T) {
	for ns, want := range map[int64]int{
		-1: 0, 0: 0, 1023: 0, 1024: 1, 2047: 1, 2048: 2, 1e6: 10, 1 << 33: 24, 1<<34 - 1: 24, 1 << 34: 25, 1 << 60: 25,
	} {
		var all times
		all.observe(ns)
		got := all.load()
		require.EqualValues(t, 1, got.Counts[want], "%d: %v", ns, got.Counts)
		require.Equal(t, time.Duration(ns), got.Sum)
	}
}
