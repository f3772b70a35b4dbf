//go:build unix

package ioring_test

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"rskv/ioring"
	"rskv/ioring/iotest"
)

const (
	benchSegment = 64 << 20
	// benchSegments is how much random reads are spread over: 512 MiB. The
	// environment variable IOBENCH_DIR names a directory to keep it in, so that
	// another program may read the same file.
	benchSegments = 8
)

var modes = []ioring.Mode{ioring.URing, ioring.PReadWrite}

// benchDevice opens a device whose segments have been written once.
func benchDevice(b *testing.B, mode ioring.Mode) ioring.Device {
	dir := os.Getenv("IOBENCH_DIR")
	if dir == "" {
		dir = filepath.Join(b.TempDir(), "bench")
	}
	d := open(b, ioring.Options{Dir: dir, Mode: mode, SegmentSize: benchSegment, BufferBytes: 16 << 20})
	if _, end := d.Extent(); end < benchSegments*benchSegment {
		page := filled(1<<20, 'x')
		for off := int64(0); off < benchSegments*benchSegment; off += int64(len(page)) {
			require.NoError(b, do(b, d, ioring.Write, off, page))
		}
		require.NoError(b, do(b, d, ioring.Sync, 0, nil))
	}
	return d
}

// Random reads of 4 KiB, with callers that each wait for their own read: what a
// store sees from that many clients with cold keys.
func BenchmarkDisk_RandomRead(b *testing.B) {
	for _, mode := range modes {
		for _, depth := range []int{1, 64, 128} {
			b.Run(fmt.Sprintf("%s/callers=%d", mode, depth), func(b *testing.B) {
				d := benchDevice(b, mode)
				var left atomic.Int64
				left.Store(int64(b.N))
				b.ReportAllocs()
				b.ResetTimer()
				done := make(chan bool)
				for w := range depth {
					go func() { done <- readOnes(d, uint64(w), &left) }()
				}
				for range depth {
					require.True(b, <-done)
				}
				b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "reads/s")
			})
		}
	}
}

func readOnes(d ioring.Device, seed uint64, left *atomic.Int64) bool {
	rng := rand.New(rand.NewPCG(seed, 3))
	finished := make(chan bool, 1)
	op := &ioring.Op{Kind: ioring.Read, Buf: d.Buffers().Get(4096), Done: func(op *ioring.Op) { finished <- op.Err == nil }}
	defer d.Buffers().Put(op.Buf)
	one := []*ioring.Op{op}
	for left.Add(-1) >= 0 {
		op.Off = rng.Int64N(benchSegments*benchSegment/4096) * 4096
		d.Submit(one)
		if !<-finished {
			return false
		}
	}
	return true
}

// Random reads of 4 KiB, submitted again from Done: what the device itself can
// do, without goroutines being woken.
func BenchmarkDisk_RandomRead_Chained(b *testing.B) {
	for _, mode := range modes {
		for _, depth := range []int{64, 128} {
			b.Run(fmt.Sprintf("%s/depth=%d", mode, depth), func(b *testing.B) {
				d := benchDevice(b, mode)
				var left atomic.Int64
				left.Store(int64(b.N))
				b.ResetTimer()
				chainReads(b, d, depth, &left)
				b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "reads/s")
			})
		}
	}
}

func chainReads(b *testing.B, d ioring.Device, depth int, left *atomic.Int64) {
	ended := make(chan error, depth)
	ops := make([]*ioring.Op, depth)
	for i := range ops {
		rng := rand.New(rand.NewPCG(uint64(i), 3))
		one := ops[i : i+1]
		ops[i] = &ioring.Op{Kind: ioring.Read, Buf: d.Buffers().Get(4096), Done: func(op *ioring.Op) {
			if op.Err != nil || left.Add(-1) < 0 {
				ended <- op.Err
				return
			}
			op.Off = rng.Int64N(benchSegments*benchSegment/4096) * 4096
			d.Submit(one)
		}}
	}
	d.Submit(ops)
	for range ops {
		require.NoError(b, <-ended)
	}
	for _, op := range ops {
		d.Buffers().Put(op.Buf)
	}
}

// Sequential writes of 1 MiB, eight in flight, over segments written before.
func BenchmarkDisk_SequentialWrite(b *testing.B) {
	for _, mode := range modes {
		b.Run(string(mode), func(b *testing.B) {
			d := benchDevice(b, mode)
			const size, depth = 1 << 20, 8
			memory, err := ioring.AllocMemory(depth * size)
			require.NoError(b, err)
			defer memory.Free()
			var next atomic.Int64
			ended := make(chan error, depth)
			b.SetBytes(size)
			b.ResetTimer()
			for i := range depth {
				op := &ioring.Op{Kind: ioring.Write, Buf: memory.Bytes()[i*size : (i+1)*size]}
				one := []*ioring.Op{op}
				submit := func() {
					n := next.Add(1) - 1
					if n >= int64(b.N) {
						ended <- nil
						return
					}
					op.Off = n * size % (benchSegments * benchSegment)
					d.Submit(one)
				}
				op.Done = func(op *ioring.Op) {
					if op.Err != nil {
						ended <- op.Err
						return
					}
					submit()
				}
				submit()
			}
			for range depth {
				require.NoError(b, <-ended)
			}
		})
	}
}

// A commit: 4 KiB written, then synced, one after the other.
func BenchmarkDisk_Commit(b *testing.B) {
	for _, mode := range modes {
		b.Run(string(mode), func(b *testing.B) {
			d := benchDevice(b, mode)
			page := iotest.Aligned(4096)
			for i := range b.N {
				require.NoError(b, do(b, d, ioring.Write, int64(i)*4096%benchSegment, page))
				require.NoError(b, do(b, d, ioring.Sync, 0, nil))
			}
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "commits/s")
		})
	}
}

// Commits of one 4 KiB block, each written and synced before the next, into
// segments that nobody has written before, into prepared ones, and into prepared
// ones while the next segment is being prepared. Segments are 16 MiB: 4,096 commits.
func BenchmarkDisk_CommitFresh(b *testing.B) {
	const segment = 16 << 20
	for _, mode := range modes {
		for _, kind := range []string{"fresh", "prepared", "preparing"} {
			b.Run(fmt.Sprintf("%s/%s", mode, kind), func(b *testing.B) {
				d := open(b, ioring.Options{Mode: mode, SegmentSize: segment})
				page := filled(4096, 'x')
				took := make([]time.Duration, 0, b.N)
				prepared := uint64(0)
				for i := range int64(b.N) {
					off := i * int64(len(page))
					if off%segment == 0 && (kind == "prepared" || kind == "preparing" && i == 0) {
						b.StopTimer()
						d.Prepare(off + 1)
						prepared += segment
						for d.Counters().PrepareBytes < prepared {
							time.Sleep(time.Millisecond)
						}
						time.Sleep(10 * time.Millisecond) // its last sync
						b.StartTimer()
					}
					if off%segment == 0 && kind == "preparing" {
						d.Prepare(off + segment + 1)
					}
					start := time.Now()
					require.NoError(b, do(b, d, ioring.Write, off, page))
					require.NoError(b, do(b, d, ioring.Sync, 0, nil))
					took = append(took, time.Since(start))
				}
				b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "commits/s")
				slices.Sort(took)
				b.ReportMetric(float64(took[len(took)*99/100].Microseconds()), "p99-us")
				b.ReportMetric(float64(took[len(took)-1].Microseconds()), "max-us")
			})
		}
	}
}
