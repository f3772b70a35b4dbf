package engine

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"rskv/engine/internal/cache"
	"rskv/engine/internal/hlog"
	"rskv/engine/internal/record"
)

// drawCache draws the shape of a read cache of at most so many bytes, nil for none.
func drawCache(rng *rand.Rand, most int64) *cache.Shape {
	if rng.IntN(4) == 0 {
		return nil
	}
	shape := cache.Shape{Ring: (8<<10 + rng.Int64N(most)) &^ 7, Rows: 1 + rng.IntN(int(most>>10))}
	if rng.IntN(2) == 0 {
		shape.Seen = 1 << rng.IntN(12)
	}
	return &shape
}

// openCached opens a store whose read cache takes everything that is read from disk.
func openCached(t *testing.T, change func(*Options)) (*Store, *Session, *testClock) {
	clock := newTestClock()
	s := openOn(t, newMem(), func(o *Options) {
		o.Clock, o.cacheShape = clock, &cache.Shape{Ring: 1 << 20, Rows: 2048}
		if change != nil {
			change(o)
		}
	})
	require.Eventually(t, func() bool { return s.Stats().CacheOn && !s.cache.cache.Wants() }, waitLong, time.Millisecond)
	return s, s.NewSession(), clock
}

// TestReadCache_NeverStale: the cache answers what was true once: a key was updated,
// deleted, given another expiry, has expired, was moved by compaction, or its chain
// has become another, after its record was taken into the cache.
func TestReadCache_NeverStale(t *testing.T) {
	s, n, clock := openCached(t, func(o *Options) { o.IndexBits = indexBitsMin })
	const each = 40
	start := clock.Wall()
	kinds := []string{"stays", "put", "deleted", "added", "cas", "expired", "expire", "persist", "gone before", "blind"}
	key := func(kind string, i int) []byte { return fmt.Appendf(nil, "%s %d", kind, i) }
	value := func(kind string, i int) []byte {
		if kind == "added" {
			return []byte{byte(i), 0, 0, 0, 0, 0, 0, 0}
		}
		return fmt.Appendf(nil, "%s %d is the value", kind, i)
	}
	for _, kind := range kinds {
		for i := range each {
			op := Op{Kind: OpPut, Key: key(kind, i), Value: value(kind, i)}
			switch kind {
			case "expired", "expire", "persist":
				op.TTL = 10_000
			}
			require.NoError(t, n.one(&op))
			if kind == "gone before" {
				_, err := n.Delete(op.Key)
				require.NoError(t, err)
			}
		}
	}
	evict(t, s, n)
	read := func(kind string, i int) (string, bool) {
		v, err := n.Get(key(kind, i), nil)
		if err == ErrNotFound {
			return "", false
		}
		require.NoError(t, err)
		return string(v), true
	}
	for range 3 {
		for _, kind := range kinds {
			for i := range each {
				v, found := read(kind, i)
				require.Equal(t, kind != "gone before", found, "%s %d", kind, i)
				if found {
					require.Equal(t, string(value(kind, i)), v)
				}
				there, err := n.Exists(key(kind, i))
				require.NoError(t, err)
				require.Equal(t, found, there)
			}
		}
	}
	st := s.Stats()
	require.Greater(t, st.CacheHits, uint64(len(kinds)*each*2), "%+v", st)
	expire := clock.Wall() + 50_000
	for i := range each {
		require.NoError(t, n.Put(key("put", i), []byte("new")))
		_, err := n.Delete(key("deleted", i))
		require.NoError(t, err)
		_, err = n.Add(key("added", i), 1)
		require.NoError(t, err)
		ok, err := n.CompareAndSwap(key("cas", i), value("cas", i), []byte("new"))
		require.NoError(t, err)
		require.True(t, ok)
		_, err = n.Expire(key("expire", i), 50_000)
		require.NoError(t, err)
		_, err = n.Expire(key("persist", i), 0)
		require.NoError(t, err)
		require.NoError(t, n.one(&Op{Kind: OpDelete, Key: key("blind", i), Blind: true}))
	}
	check := func() {
		t.Helper()
		for i := range each {
			v, _ := read("stays", i)
			require.Equal(t, string(value("stays", i)), v)
			v, _ = read("put", i)
			require.Equal(t, "new", v)
			v, _ = read("cas", i)
			require.Equal(t, "new", v)
			v, _ = read("added", i)
			require.Equal(t, byte(i+1), v[0])
			_, found := read("deleted", i)
			require.False(t, found)
			_, found = read("blind", i)
			require.False(t, found)
			_, found = read("gone before", i)
			require.False(t, found)
			_, found = read("expired", i)
			require.Equal(t, clock.Wall() < start+10_000, found)
			_, found = read("expire", i)
			require.Equal(t, clock.Wall() < expire, found)
			v, _ = read("persist", i)
			require.Equal(t, string(value("persist", i)), v)
		}
	}
	check()
	clock.move(10_000)
	check()
	evict(t, s, n)
	for range 3 {
		check()
	}
	_, err := s.Compact(context.Background(), CompactOptions{})
	require.NoError(t, err)
	check()
	evict(t, s, n)
	for range 3 {
		check()
	}
	clock.move(50_000)
	check()
	checkStore(t, s)
	n.Close()
	require.NoError(t, s.Close())
}

// TestReadCache_Race: a reader gets a value that was never written under the key, an
// older one than he has seen, or two in one; while others write, the log is compacted,
// the cache goes round, is switched off and on.
func TestReadCache_Race(t *testing.T) {
	seed := newSeed(t)
	s := openOn(t, newMem(), func(o *Options) {
		o.cacheShape, o.logPagesMax = &cache.Shape{Ring: 96 << 10, Rows: 128}, hlog.PagesMin
		o.LiveRatio, o.CommitInterval = 0.7, 5*time.Millisecond
	})
	const keys, readers = 1500, 3
	var versions [keys]atomic.Uint64
	var done atomic.Bool
	var wg sync.WaitGroup
	for id := range readers {
		wg.Go(func() {
			n := s.NewSession()
			defer n.Close()
			rng := rand.New(rand.NewPCG(seed, uint64(id)))
			ops := make([]Op, 8)
			least := make([]uint64, len(ops))
			names := make([]int, len(ops))
			for !done.Load() {
				for i := range ops {
					names[i] = min(rng.IntN(keys), rng.IntN(keys))
					least[i] = versions[names[i]].Load()
					ops[i] = Op{Kind: OpGet, Key: key64(names[i])}
				}
				n.Do(ops)
				for i := range ops {
					op := &ops[i]
					if op.Err != nil || !op.Found && least[i] > 0 {
						t.Errorf("key %d: found %t, %v", names[i], op.Found, op.Err)
						done.Store(true)
						return
					}
					if !op.Found {
						continue
					}
					version := uint64(op.Value[0]) | uint64(op.Value[1])<<8 | uint64(op.Value[2])<<16
					if want := versionedValue(names[i], version); string(want) != string(op.Value) || version < least[i] {
						t.Errorf("key %d: version %d of at least %d, %d bytes of %d", names[i], version, least[i], len(op.Value), len(want))
						done.Store(true)
						return
					}
				}
			}
		})
	}
	wg.Go(func() {
		for !done.Load() {
			time.Sleep(20 * time.Millisecond)
			if s.StopTask(TaskCache) != nil || s.StartTask(TaskCache) != nil {
				t.Error("the task cannot be stopped")
			}
			if _, err := s.Compact(context.Background(), CompactOptions{}); err != nil {
				t.Error(err)
			}
		}
	})
	n := s.NewSession()
	rng := rand.New(rand.NewPCG(seed, 77))
	rounds := 60_000
	if testing.Short() || raceEnabled {
		rounds = 12_000
	}
	met := func() bool { st := s.Stats(); return st.CacheHits > 0 && st.CacheEvicted > 0 }
	for i := 0; (i < rounds || !met() && i < 100*rounds) && !done.Load(); i++ {
		key := rng.IntN(keys)
		version := versions[key].Load() + 1
		require.NoError(t, n.Put(key64(key), versionedValue(key, version)))
		versions[key].Store(version)
		if rng.IntN(3) == 0 { // what pushes the others out
			require.NoError(t, n.Put(key64(keys+rng.IntN(1<<20)), make([]byte, 6000)))
		}
	}
	done.Store(true)
	wg.Wait()
	st := s.Stats()
	t.Logf("%d hits, %d misses, %d in, %d out, %d passes", st.CacheHits, st.CacheMisses, st.CacheInserted, st.CacheEvicted, st.Compactions)
	require.Positive(t, st.CacheHits)
	require.Positive(t, st.CacheEvicted)
	n.Close()
	require.NoError(t, s.Close())
}

// versionedValue is the value of a version of a key.
func versionedValue(key int, version uint64) []byte {
	v := valueOf(uint64(key), version, 40+int(version*37+uint64(key))%400)
	v[0], v[1], v[2] = byte(version), byte(version>>8), byte(version>>16)
	return v
}

// zipfReads reads keys 0 to keys-1, some much more often than others.
func zipfReads(n *Session, rng *rand.Rand, keys, reads int) error {
	z := rand.NewZipf(rng, 1.1, 1, uint64(keys-1))
	ops := make([]Op, 32)
	for i := 0; i < reads; i += len(ops) {
		for j := range ops {
			ops[j] = Op{Kind: OpGet, Key: key64(int(z.Uint64() * 7919 % uint64(keys)))}
		}
		n.Do(ops)
		for j := range ops {
			if ops[j].Err != nil || !ops[j].Found {
				return fmt.Errorf("found %t: %w", ops[j].Found, ops[j].Err)
			}
		}
	}
	return nil
}

// TestReadCache_OnAndOff: the cache does not come on where it helps, comes on where it
// does not, stays on, or takes memory beside the budget.
func TestReadCache_OnAndOff(t *testing.T) {
	const keys = 100_000
	s := openOn(t, newMem(), nil)
	n := s.NewSession()
	for i := range keys {
		require.NoError(t, n.Put(key64(i), make([]byte, 1000)))
	}
	syncStore(t, s)
	rng := rand.New(rand.NewPCG(newSeed(t), 0))
	log := s.Stats().MemoryLog

	// Each key once: it cannot help.
	for i := range keys {
		_, err := n.Get(key64(i), nil)
		require.NoError(t, err)
	}
	st := s.Stats()
	require.False(t, st.CacheOn)
	require.Less(t, st.MemoryCache, int64(1<<20))

	// Some are read again and again.
	require.Eventually(t, func() bool {
		require.NoError(t, zipfReads(n, rng, keys, 10_000))
		return s.Stats().CacheOn
	}, waitLong, time.Millisecond, "%v", s.Tasks())
	require.NoError(t, zipfReads(n, rng, keys, 100_000))
	require.Eventually(t, func() bool { // its task makes it larger step by step
		before := s.Stats()
		require.NoError(t, zipfReads(n, rng, keys, 100_000))
		st := s.Stats()
		hits, misses := st.CacheHits-before.CacheHits, st.CacheMisses-before.CacheMisses
		t.Logf("on: %d hits, %d misses; %d MiB of cache, %d MiB of log", hits, misses, st.MemoryCache>>20, st.MemoryLog>>20)
		return hits > 2*misses && st.MemoryCache > 4<<20
	}, waitLong, time.Millisecond)
	require.Eventually(t, func() bool { // statistics are no snapshot: it may be growing between the two
		st := s.Stats()
		return st.MemoryLog+st.MemoryCache <= log+int64(s.opt.PageSize) &&
			st.MemoryIndex+st.MemoryLog+st.MemoryBuffers+st.MemoryCache+st.MemoryTimers <= st.Memory
	}, waitLong, time.Millisecond)

	// Less memory is less of it; then it comes back.
	require.NoError(t, s.SetMemory(64<<20))
	require.Eventually(t, func() bool { return !s.Stats().CacheOn }, waitLong, time.Millisecond)
	require.Eventually(t, func() bool {
		require.NoError(t, zipfReads(n, rng, keys, 10_000))
		return s.Stats().CacheOn
	}, waitLong, time.Millisecond)

	// Everything is read as often: it is of no use.
	require.Eventually(t, func() bool {
		ops := make([]Op, 32)
		for range 1000 {
			for j := range ops {
				ops[j] = Op{Kind: OpGet, Key: key64(rng.IntN(keys))}
			}
			n.Do(ops)
		}
		st := s.Stats()
		return !st.CacheOn || st.CacheHits*cacheWorth > st.CacheMisses
	}, waitLong, time.Millisecond)

	// Nobody wants it.
	require.NoError(t, s.StopTask(TaskCache))
	require.Eventually(t, func() bool { return s.Stats().MemoryCache == 0 }, waitLong, time.Millisecond)
	require.NoError(t, zipfReads(n, rng, keys, 50_000))
	require.False(t, s.Stats().CacheOn)
	n.Close()
	require.NoError(t, s.Close())
}

// TestReadCache_Allocs: a read that the cache answers allocates.
func TestReadCache_Allocs(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector allocates")
	}
	s, n, _ := openCached(t, nil)
	for i := range 64 {
		require.NoError(t, n.Put(key64(i), make([]byte, 100)))
	}
	evict(t, s, n)
	ops := make([]Op, 32)
	buf := make([]byte, 128)
	read := func() {
		for i := range ops {
			ops[i] = Op{Kind: OpGet, Key: ops[i].Key, Value: buf}
		}
		n.Do(ops)
	}
	for i := range ops {
		ops[i].Key = key64(i)
	}
	for range 3 {
		read()
	}
	before := s.Stats()
	require.Zero(t, testing.AllocsPerRun(100, read))
	after := s.Stats()
	require.Equal(t, before.ColdReads, after.ColdReads)
	require.Greater(t, after.CacheHits, before.CacheHits)
	n.Close()
	require.NoError(t, s.Close())
}

// TestReadCache_Chain: records of other keys on the way to that of a key are read from
// disk every time.
func TestReadCache_Chain(t *testing.T) {
	s, n, _ := openCached(t, func(o *Options) { o.IndexBits = indexBitsMin })
	// Keys whose hashes agree in all bits that a chain is found by.
	const chain = 1<<(indexBitsMin+15) - 1
	var keys [][]byte
	for i := 0; len(keys) < 5; i++ {
		if record.Hash(s.seed, key64(i))&chain == record.Hash(s.seed, key64(0))&chain {
			keys = append(keys, key64(i))
		}
	}
	there, absent := keys[:4], keys[4:]
	for _, key := range there {
		require.NoError(t, n.Put(key, key))
	}
	evict(t, s, n)
	look := func() {
		for _, key := range there {
			v, err := n.Get(key, nil)
			require.NoError(t, err)
			require.Equal(t, key, v)
		}
		for _, key := range absent {
			_, err := n.Get(key, nil)
			require.ErrorIs(t, err, ErrNotFound)
		}
	}
	look()
	before := s.Stats().ColdReads
	require.GreaterOrEqual(t, before, uint64(len(there)))
	look()
	require.Equal(t, before, s.Stats().ColdReads)
	n.Close()
	require.NoError(t, s.Close())
}
