package engine

import (
	"context"
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/require"
)

// BenchmarkCompact is a pass over a log on disk of which half is live, on a machine
// that does nothing else. MB/s are of log.
func BenchmarkCompact(b *testing.B) {
	for _, size := range []int{100, 1000} {
		b.Run(fmt.Sprintf("values=%d", size), func(b *testing.B) {
			const data = 128 << 20 // live
			keys := data / (size + 24)
			s, err := Open(Options{Dir: b.TempDir(), Memory: 96 << 20, LiveRatio: -1, CheckpointDistance: -1, SegmentSize: 16 << 20, CommitInterval: -1})
			require.NoError(b, err)
			n := s.NewSession()
			rng := rand.New(rand.NewPCG(1, 2))
			ops := make([]Op, 64)
			put := func(draw func(i int) int, count int) {
				for i := 0; i < count; i += len(ops) {
					for j := range ops {
						k := draw(i + j)
						ops[j] = Op{Kind: OpPut, Key: key64(k), Value: valueOf(uint64(k), 1, size)}
					}
					n.Do(ops)
				}
			}
			put(func(i int) int { return i % keys }, keys)
			syncStore(b, s)
			scanned, copied, took := int64(0), int64(0), 0.0
			for b.Loop() {
				b.StopTimer()
				for s.EstimateGC().Total < 2*data {
					put(func(int) int { return rng.IntN(keys) }, keys/8)
					syncStore(b, s)
				}
				b.StartTimer()
				res, err := s.Compact(context.Background(), CompactOptions{})
				require.NoError(b, err)
				scanned, copied, took = scanned+res.Scanned, copied+res.Copied, took+res.Took.Seconds()
			}
			b.ReportMetric(float64(scanned)/took/1e6, "MB/s")
			b.ReportMetric(float64(copied)/float64(scanned), "copied/scanned")
			n.Close()
			require.NoError(b, s.Close())
		})
	}
}
