package engine

import (
	"math/rand/v2"
	"runtime"
	"runtime/metrics"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// TestSetMemory: a record is lost or changed when the log shrinks or grows under
// load, or the log does not come to its new size.
func TestSetMemory(t *testing.T) {
	seed := newSeed(t)
	s := openOn(t, newMem(), func(o *Options) { o.Memory = 64 << 20 })
	stop := make(chan struct{})
	var workers [3]<-chan struct{}
	for w := range workers {
		workers[w] = background(func() {
			n := s.NewSession()
			defer n.Close()
			rng := rand.New(rand.NewPCG(seed, uint64(w)))
			versions := map[int]uint64{}
			for i := uint64(1); ; i++ {
				select {
				case <-stop:
					return
				default:
				}
				k := rng.IntN(4000)*len(workers) + w
				if i%2 == 0 {
					versions[k] = i
					if err := n.Put(key64(k), valueOf(uint64(k), i, 2000)); err != nil {
						t.Error(err)
						return
					}
					continue
				}
				value, err := n.Get(key64(k), nil)
				if version := versions[k]; version == 0 && err == ErrNotFound {
					continue
				} else if err == nil {
					err = valueIs(value, uint64(k), version, 2000)
				}
				if err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	for _, mib := range []int64{32, 96, 40, 48, 200, 32} {
		time.Sleep(150 * time.Millisecond)
		require.NoError(t, s.SetMemory(mib<<20))
		require.EqualValues(t, mib<<20, s.Memory())
		require.EqualValues(t, mib<<20, s.Options().Memory)
		require.Eventually(t, func() bool {
			st := s.Stats()
			return st.LogTail-st.LogHead <= st.MemoryLog && st.MemoryLog+st.MemoryIndex+st.MemoryBuffers <= st.Memory
		}, waitLong, 5*time.Millisecond, "%d MiB: %+v", mib, s.Stats())
	}
	close(stop)
	for _, w := range workers {
		waitFor(t, "a worker", w)
	}
	checkStore(t, s)
	require.ErrorIs(t, s.SetMemory(MemoryMin-1), ErrMemoryTooSmall)
	require.NoError(t, s.Close())
}

// TestSetMemory_ForTheIndex: an index that grows takes memory beyond the budget,
// or a small one keeps the log from using what it does not need.
func TestSetMemory_ForTheIndex(t *testing.T) {
	s := openOn(t, newMem(), func(o *Options) { o.Memory = 48 << 20 })
	before := s.Stats()
	require.Greater(t, before.MemoryLog, before.Memory*3/4)
	n := s.NewSession()
	for i := 0; s.Stats().MemoryIndex < 8<<20; i++ {
		require.NoError(t, n.Put(key64(i), nil))
		require.Less(t, i, 2<<20)
	}
	n.Close()
	require.Eventually(t, func() bool {
		st := s.Stats()
		return st.MemoryLog < before.MemoryLog && st.MemoryLog+st.MemoryIndex+st.MemoryBuffers <= st.Memory
	}, waitLong, 5*time.Millisecond, "%+v", s.Stats())
	require.ErrorIs(t, s.SetMemory(s.Stats().MemoryIndex), ErrMemoryTooSmall)
	require.NoError(t, s.Close())
}

// TestOpen_LittleToCollect: what a store keeps on the Go heap makes every collection
// of the process longer.
func TestOpen_LittleToCollect(t *testing.T) {
	sample := []metrics.Sample{{Name: "/gc/scan/heap:bytes"}}
	scanned := func() int64 {
		runtime.GC()
		metrics.Read(sample)
		return int64(sample[0].Value.Uint64())
	}
	before := scanned()
	s := openOn(t, newMem(), nil)
	require.Less(t, scanned()-before, int64(512<<10), "bytes that a collection looks at")
	require.NoError(t, s.Close())
}
