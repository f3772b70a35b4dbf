package daemon

import (
	"math/rand/v2"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// TestLatency_Steps: a time that is counted in a bucket it does not belong to,
// or beyond the last.
func TestLatency_Steps(t *testing.T) {
	require.Zero(t, step(0))
	require.Zero(t, step(1<<latencyFirst-1))
	require.Equal(t, latencySteps-1, step(1<<latencyLast))
	require.Equal(t, latencySteps-1, step(1<<62))
	for i := 1; i < latencySteps-1; i++ {
		begin, end := stepEnd(i-1), stepEnd(i)
		require.Less(t, begin, end)
		require.Equal(t, i, step(begin), "bucket %d begins at %d", i, begin)
		require.Equal(t, i, step(end-1), "bucket %d ends at %d", i, end)
	}
	require.EqualValues(t, 1<<latencyFirst, stepEnd(0))
	require.EqualValues(t, int64(1)<<latencyLast, stepEnd(latencySteps-2))
}

// TestLatency_Quantile: a percentile that is off by more than a bucket.
func TestLatency_Quantile(t *testing.T) {
	var all traffic
	counts, _ := all.times(readPrompt)
	require.Zero(t, quantile(&counts, 0.5))
	const most = 10 * int64(time.Millisecond)
	source := rand.New(rand.NewPCG(1, 2))
	for range 100_000 {
		all.lane().latency[readPrompt].observe(source.Int64N(most), 1)
	}
	counts, _ = all.times(readPrompt)
	for _, q := range []float64{0.5, 0.9, 0.99, 0.999} {
		got := float64(quantile(&counts, q))
		require.InEpsilon(t, q*float64(most), got, 0.26, "quantile %v", q)
		require.GreaterOrEqual(t, got*1.001, q*float64(most)*0.99)
	}
	require.GreaterOrEqual(t, quantile(&counts, 1), most*9/10)
}

// TestLatency_Kinds: requests that are timed as something else, twice, or not
// at all.
func TestLatency_Kinds(t *testing.T) {
	d := start(t, nil)
	w := d.dial()
	w.want(true, "put", "a", "1")
	w.want(true, "exists", "a")
	w.want([]byte("1"), "get", "a")
	w.want([]any{[]byte("1"), nil}, "mget", []any{"a", "b"})
	w.want(int64(2), "mput", []any{[]any{"a", "1"}, []any{"b", "2"}})
	w.refuse("NotInteger", "add", "a", 1)
	w.want(true, "put", "c", "3", opt{"sync": true})
	require.Empty(t, w.ask("sync").code)
	want := [timedKinds]uint64{readPrompt: 3, writePrompt: 2, writeCommit: 1, syncCommit: 1}
	require.Eventually(t, func() bool { // the last burst is noted after its answers are sent
		stats := w.ask("stats").result.(map[string]any)
		for kind, n := range want {
			name := "latency_" + timedLabels[kind][0] + "_" + timedLabels[kind][1]
			if stats[name+"_count"] != int64(n) || n > 0 && stats[name+"_p99_ns"].(int64) <= 0 {
				return false
			}
		}
		return true
	}, patience, time.Millisecond)
}
