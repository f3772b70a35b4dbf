package engine

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
	"github.com/stretchr/testify/require"

	"rskv/engine/internal/hlog"
	"rskv/engine/internal/index"
	"rskv/ioring"
	"rskv/ioring/iotest"
)

// growthKeys is what one writer of a growing store has done to its keys: their
// versions, which only rise, with the one before last as what must be there.
type growthKeys struct {
	base     uint64
	versions []uint64
}

func (g *growthKeys) key(i int) []byte {
	return binary.LittleEndian.AppendUint64(nil, g.base+uint64(i))
}

// grow puts new keys, now and then an old one, up to n, in batches.
func (g *growthKeys) grow(rng *rand.Rand, s *Session, n int) error {
	ops := make([]Op, 0, 32)
	var at []int
	for len(g.versions) < n {
		ops, at = ops[:0], at[:0]
		for range 1 + rng.IntN(32) {
			i := len(g.versions)
			if i > 0 && rng.IntN(3) == 0 {
				i = rng.IntN(i)
			} else {
				g.versions = append(g.versions, 0)
			}
			g.versions[i]++
			ops = append(ops, Op{Kind: OpPut, Key: g.key(i), Value: valueOf(g.base+uint64(i), g.versions[i], 16)})
			at = append(at, i)
		}
		s.Do(ops)
		for i := range ops {
			if ops[i].Err != nil {
				for _, i := range at[i:] {
					g.versions[i]-- // those may have been applied; not these
				}
				return ops[i].Err
			}
		}
		// A key that was just put must be found, whatever its row is doing.
		i := at[rng.IntN(len(at))]
		value, err := s.Get(g.key(i), nil)
		if err != nil {
			return fmt.Errorf("key %d, just put: %w", i, err)
		}
		if err := valueIs(value, g.base+uint64(i), g.versions[i], 16); err != nil {
			return err
		}
	}
	return nil
}

// check reads every key.
func (g *growthKeys) check(t *testing.T, s *Session) {
	t.Helper()
	for i, version := range g.versions {
		value, err := s.Get(g.key(i), nil)
		require.NoError(t, err, "key %d", i)
		require.NoError(t, valueIs(value, g.base+uint64(i), version, 16))
	}
}

// TestGrowth_Everything: while the index doubles a dozen times under writers,
// readers, commits, checkpoints and compaction, a key is missed or shows an older value; or
// what was stored is not there after a crash, or the table not as large as it was.
func TestGrowth_Everything(t *testing.T) {
	seed := newSeed(t)
	const writers = 3
	keys := 60_000
	if testing.Short() || raceEnabled {
		keys = 15_000
	}
	dev := newMem()
	s := openOn(t, dev, func(o *Options) { o.IndexBits = indexBitsMin; o.CommitInterval = time.Millisecond })
	head := s.log.Head()
	all := make([]*growthKeys, writers)
	var work, others sync.WaitGroup
	var over atomic.Bool
	for w := range all {
		all[w] = &growthKeys{base: uint64(w) << 32}
		work.Go(func() {
			n := s.NewSession()
			defer n.Close()
			if err := all[w].grow(rand.New(rand.NewPCG(seed, uint64(w))), n, keys/writers); err != nil {
				t.Error(err)
			}
		})
	}
	others.Go(func() {
		for once := false; !once || !over.Load(); once = true {
			if _, err := s.Checkpoint(context.Background(), CheckpointOptions{Kind: FullCheckpoint}); err != nil {
				t.Error(err)
			}
		}
	})
	others.Go(func() {
		for once := false; !once || !over.Load(); once = true {
			if _, err := s.Compact(context.Background(), CompactOptions{}); err != nil {
				t.Error(err)
			}
		}
	})
	others.Go(func() { // keys of others: there once, there for good
		n := s.NewSession()
		defer n.Close()
		rng := rand.New(rand.NewPCG(seed, 77))
		seen := map[string]uint64{}
		for !over.Load() {
			key := all[rng.IntN(writers)].key(rng.IntN(2000))
			_, err := n.Get(key, nil)
			if err != nil && (seen[string(key)] > 0 || !errors.Is(err, ErrNotFound)) {
				t.Errorf("key %x, seen before: %v", key, err)
				return
			}
			if err == nil {
				seen[string(key)]++
			}
		}
	})
	work.Wait()
	over.Store(true)
	others.Wait()
	require.Eventually(t, func() bool { return s.Stats().IndexDoublings >= 5 }, waitLong, time.Millisecond)
	count := 0
	for _, g := range all {
		count += len(g.versions)
	}
	if s.log.Head() == head {
		require.EqualValues(t, count, s.Stats().Keys, "all chains were in memory")
	}
	syncStore(t, s)
	image := dev.CrashImage(iotest.CrashOptions{})
	verify := func(s *Store) {
		n := s.NewSession()
		defer n.Close()
		for _, g := range all {
			g.check(t, n)
		}
		checkStore(t, s)
	}
	verify(s)
	bits := s.index.Bits()
	require.NoError(t, s.Close())
	for _, d := range []*iotest.Mem{dev.CrashImage(iotest.CrashOptions{}), image} {
		re := openOn(t, d, func(o *Options) { o.IndexBits = indexBitsMin })
		require.NotZero(t, re.Recovery().Snapshot)
		// The last commit may have been cut before the last growth was over.
		require.GreaterOrEqual(t, re.index.Bits()+1, bits, "it would have to grow again")
		require.EqualValues(t, indexBitsMin, re.index.Anchor(), "chains are what they were")
		verify(re)
		require.NoError(t, re.Close())
	}
}

// TestGrowth_Crash: the power fails at some device operation while the table
// doubles under a checkpoint and, every other time, a pass of compaction, and the store comes back with a key missing.
func TestGrowth_Crash(t *testing.T) {
	seed := newSeed(t)
	const before, after = 15_000, 22_500 // 2^12 buckets are enough for 17,500
	step := 3
	if testing.Short() || raceEnabled {
		step = 12
	}
	grew, used := 0, 0
	for cut, whole := int(seed%3), false; !whole; cut += step {
		dev := newMem()
		rng := rand.New(rand.NewPCG(seed, uint64(cut)))
		s := openOn(t, dev, func(o *Options) { o.IndexBits = 12 })
		n := s.NewSession()
		g := &growthKeys{}
		require.NoError(t, g.grow(rng, n, before))
		syncStore(t, s)
		synced := append([]uint64(nil), g.versions...)
		dev.FailAfter(cut)
		var failed error
		done := background(func() {
			_, failed = s.Checkpoint(context.Background(), CheckpointOptions{Kind: FullCheckpoint})
		})
		compacted := background(func() {
			rng := rand.New(rand.NewPCG(seed, uint64(cut)+1<<32))
			for range rng.IntN(2) * 3 {
				if _, err := s.Compact(context.Background(), CompactOptions{Until: rng.Int64N(s.log.Tail().Bytes())}); err != nil {
					return
				}
			}
		})
		var err error
		for to := before; to <= after && err == nil; to += 750 {
			if err = g.grow(rng, n, to); err == nil {
				if _, err = s.Sync(context.Background()); err == nil {
					synced = append(synced[:0], g.versions...)
				}
			}
		}
		waitFor(t, "the checkpoint", done)
		waitFor(t, "compaction", compacted)
		whole = err == nil && failed == nil
		if s.Stats().IndexDoublings > 0 || s.Stats().IndexGrowing {
			grew++
		}
		image := dev.CrashImage(iotest.CrashOptions{Seed: rng.Uint64(), Keep: rng.Float64(), Tear: rng.Float64(), Reorder: rng.IntN(2) == 0})
		n.Close()
		_ = s.Close() // the power is gone

		re := openOn(t, image, func(o *Options) { o.IndexBits = indexBitsMin + rng.IntN(10) })
		if re.Recovery().Snapshot != 0 {
			used++
		}
		n = re.NewSession()
		for i, version := range synced {
			value, err := n.Get(g.key(i), nil)
			require.NoError(t, err, "cut %d, key %d", cut, i)
			// What was written behind the last sync may be there too.
			for v := version; ; v++ {
				if err = valueIs(value, uint64(i), v, 16); err == nil {
					break
				}
				require.LessOrEqual(t, v, g.versions[i]+32, "cut %d, key %d is older than version %d, or no version", cut, i, version)
			}
		}
		n.Close()
		checkStore(t, re)
		require.NoError(t, re.Close())
	}
	t.Logf("%d growths met, %d snapshots used", grew, used)
	require.Positive(t, grew)
	require.Positive(t, used)
}

// TestGrowth_Reopen: the size, or worse the anchor, of an index that has grown is
// forgotten, or an option stands in the way of what the log needs.
func TestGrowth_Reopen(t *testing.T) {
	dev := newMem()
	g := &growthKeys{}
	rng := rand.New(rand.NewPCG(1, 2))
	smallest := func(o *Options) { o.IndexBits = indexBitsMin }
	s := openOn(t, dev, smallest)
	n := s.NewSession()
	require.NoError(t, g.grow(rng, n, 20_000))
	n.Close()
	for s.Stats().IndexGrowing {
		time.Sleep(time.Millisecond)
	}
	bits := s.index.Bits()
	require.EqualValues(t, 13, bits)
	require.EqualValues(t, indexBitsMin, s.index.Anchor())
	syncStore(t, s)
	crash := dev.CrashImage(iotest.CrashOptions{})
	snapshot := checkpoint(t, s, FullCheckpoint)
	crashWithSnapshot := dev.CrashImage(iotest.CrashOptions{})
	require.NoError(t, s.Close())
	closed := dev.CrashImage(iotest.CrashOptions{})

	open := func(d *iotest.Mem, used uint64, wantBits, wantAnchor int, change func(*Options)) *Store {
		t.Helper()
		s := openOn(t, d, change)
		require.EqualValues(t, wantBits, s.index.Bits(), "bits")
		require.EqualValues(t, wantAnchor, s.index.Anchor(), "anchor")
		require.Equal(t, used, s.Recovery().Snapshot)
		n := s.NewSession()
		g.check(t, n)
		n.Close()
		checkStore(t, s)
		return s
	}
	again := func(d ioring.Device) *iotest.Mem { return d.(*iotest.Mem).CrashImage(iotest.CrashOptions{}) }
	// From the log alone, the last commit record or the manifest tells the size,
	// and all of the tag is there again.
	require.NoError(t, open(again(crash), 0, 13, 13, smallest).Close())
	// With a snapshot the chains are what they were.
	require.NoError(t, open(again(crashWithSnapshot), snapshot.Version, 13, indexBitsMin, smallest).Close())
	require.NoError(t, open(again(closed), snapshot.Version, 13, indexBitsMin, smallest).Close())
	require.NoError(t, open(again(closed), snapshot.Version, 15, indexBitsMin, func(o *Options) { o.IndexBits = 15 }).Close())
	if raceEnabled {
		return // large stores, and nothing goes on at once
	}
	// A size for which the tag of the old index does not suffice.
	far := indexBitsMin + index.GrowthMax + 1
	s = open(again(closed), 0, far, far, func(o *Options) { o.Memory = 128 << 20; o.IndexBits = far })
	n = s.NewSession()
	require.NoError(t, g.grow(rng, n, 20_100))
	n.Close()
	require.NoError(t, s.Close())
	refined := again(s.opt.Device)
	// The log has been written under the higher anchor: never again a lower one,
	// and the snapshot is of no use.
	_, err := tryOpenOn(again(refined), smallest)
	require.ErrorIs(t, err, ErrMemoryTooSmall)
	require.NoError(t, open(again(refined), 0, far, far, func(o *Options) { o.Memory = 128 << 20; o.IndexBits = indexBitsMin }).Close())
	// A size that is recorded, but does not fit the memory any more, is no anchor.
	s = openOn(t, newMem(), smallest)
	s.noteIndexBits(30)
	require.NoError(t, s.refillIndex())
	require.EqualValues(t, indexBitsWithin(MemoryMin*indexPart/indexWhole), s.index.Bits())
	require.Equal(t, s.index.Bits(), s.index.Anchor())
	require.NoError(t, s.resetIndex(20, 9))
	require.EqualValues(t, indexBitsWithin(MemoryMin*indexPart/indexWhole), s.index.Bits())
	require.EqualValues(t, 9, s.index.Anchor())
	require.NoError(t, s.Close())
}

// TestGrowth_Memory: an index that may not grow takes memory all the same, refuses
// more than new keys, or does not grow when it may.
func TestGrowth_Memory(t *testing.T) {
	s := openOn(t, newMem(), func(o *Options) { o.IndexBits = indexBitsMin })
	n := s.NewSession()
	// The memory of a log as small as can be, and of an index that doubles once.
	whole := s.memory.budget.Swap(int64(hlog.PagesMin*s.opt.PageSize) + s.budget.buffers + indexBytes(indexBitsMin+1))
	g := &growthKeys{}
	rng := rand.New(rand.NewPCG(1, 2))
	require.ErrorIs(t, g.grow(rng, n, 100_000), ErrIndexFull)
	st := s.Stats()
	require.Equal(t, "memory", st.IndexLimit)
	require.EqualValues(t, 128, st.IndexBuckets)
	require.LessOrEqual(t, 64*int64(st.IndexBuckets+st.IndexOverflow), st.MemoryIndexMax)
	require.Greater(t, st.Keys, int64(7*1024), "all buckets are full")
	require.NoError(t, n.Put(g.key(5), []byte("changed")))
	found, err := n.Delete(g.key(6))
	require.NoError(t, err)
	require.True(t, found)
	s.memory.budget.Store(whole)
	more := &growthKeys{base: 1 << 40}
	require.NoError(t, more.grow(rng, n, 30_000))
	more.check(t, n)
	require.Equal(t, "none", s.Stats().IndexLimit)
	n.Close()
	checkStore(t, s)
	require.NoError(t, s.Close())
}

// TestDivide: the parts are more than the whole, or a log does not fit.
func TestDivide(t *testing.T) {
	for _, memory := range []int64{MemoryMin, 48 << 20, 100 << 20, 1 << 30, 5 << 30, 1 << 40} {
		for _, page := range []int{pageSizeMin, pageSizeDefault, pageSizeMax} {
			first := indexBitsFor(memory)
			b, err := divide(memory, page, first)
			require.NoError(t, err)
			require.GreaterOrEqual(t, memory-b.index-b.buffers, int64(hlog.PagesMin*page))
			require.GreaterOrEqual(t, b.index, indexBytes(first))
			require.LessOrEqual(t, b.index, memory*indexPart/indexWhole)
			require.LessOrEqual(t, indexBytes(first), memory/indexFirst*5/4+2<<20, "overflow buckets come by the huge page")
		}
	}
	_, err := divide(MemoryMin, pageSizeMin, 19)
	require.ErrorIs(t, err, ErrMemoryTooSmall)
}

// BenchmarkGrowth puts b.N keys of 8 bytes with values of 8 bytes from two
// sessions, in batches of 32, into an index that begins with a million's worth of
// buckets and grows, and, to tell stalls of the machine, into one that is large
// enough from the start. It reports the longest batch:
//
//	go test -run xxx -bench Growth -benchtime 64000000x ./engine/
func BenchmarkGrowth(b *testing.B) {
	for _, c := range []struct {
		name string
		keys int
	}{{"growing", 1_000_000}, {"fixed", 0}} {
		b.Run(c.name, func(b *testing.B) {
			first := c.keys
			if first == 0 {
				first = b.N
			}
			bits := indexBitsMin
			for bits < indexBitsMax && 4<<bits < first {
				bits++
			}
			benchGrowth(b, bits)
		})
	}
}

func benchGrowth(b *testing.B, bits int) {
	const sessions, batch = 2, 32
	memory := max(64<<20, int64(b.N)*32*3/2+int64(b.N)*32) // log, index
	s, err := Open(Options{Dir: filepath.Join(b.TempDir(), "s"), Memory: memory, IndexBits: bits, CommitInterval: -1})
	require.NoError(b, err)
	b.ReportAllocs()
	b.ResetTimer()
	var work sync.WaitGroup
	took := [sessions]*hdrhistogram.Histogram{}
	for w := range sessions {
		took[w] = hdrhistogram.New(1, int64(time.Minute), 3)
		work.Go(func() {
			n := s.NewSession()
			defer n.Close()
			var keys [batch][8]byte
			ops := make([]Op, batch)
			for i := w * batch; i < b.N; i += sessions * batch {
				for j := range ops {
					binary.LittleEndian.PutUint64(keys[j][:], uint64(i+j))
					ops[j] = Op{Kind: OpPut, Key: keys[j][:], Value: keys[j][:]}
				}
				begin := time.Now()
				n.Do(ops)
				_ = took[w].RecordValue(int64(time.Since(begin)))
				for j := range ops {
					if ops[j].Err != nil {
						b.Error(ops[j].Err)
						return
					}
				}
			}
		})
	}
	work.Wait()
	b.StopTimer()
	for _, h := range took[1:] {
		took[0].Merge(h)
	}
	st := s.Stats()
	b.ReportMetric(float64(took[0].Max())/1e6, "ms-longest")
	b.ReportMetric(float64(took[0].ValueAtQuantile(99.99))/1e3, "us-p99.99")
	b.ReportMetric(float64(st.IndexDoublings), "doublings")
	b.ReportMetric(64*float64(st.IndexBuckets+st.IndexOverflow)/float64(st.Keys), "index-B/key")
	require.NoError(b, s.Close())
}
