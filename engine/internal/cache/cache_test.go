package cache

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"unsafe"

	"github.com/stretchr/testify/require"

	"rskv/engine/internal/record"
	"rskv/ioring/iotest/seeds"
)

var newSeed = seeds.New

func keyAt(at record.Addr) []byte { return fmt.Appendf(nil, "key %d", at) }

// imageAt is the record at an address: everything in it follows from that.
func imageAt(at record.Addr) []byte {
	rng := rand.New(rand.NewPCG(uint64(at), 7))
	key, value := keyAt(at), make([]byte, rng.IntN(300))
	for i := range value {
		value[i] = byte(rng.Uint32())
	}
	w0, w1 := record.Word0(at-1, len(key)), record.Word1(record.Value, len(value), 0)
	b := make([]byte, record.Size(w0, w1)+record.Unit) // an empty value ends behind the record
	record.Write(unsafe.Pointer(unsafe.SliceData(b)), w0, w1, key, value)
	return b[:record.Size(w0, w1)]
}

// look reads the copy of the record at an address as a session does.
func look(c *Cache, at record.Addr) (found, torn bool, err error) {
	x, ok := c.Find(at)
	if !ok {
		return false, false, nil
	}
	w0, w1 := record.Load0(x.Record), record.Load1(x.Record)
	if !x.Valid() {
		return false, true, nil
	}
	isKey := x.KeyIs(w0, keyAt(at))
	value := make([]byte, record.ValueLen(w1))
	record.CopyOut(unsafe.Pointer(unsafe.SliceData(value)), unsafe.Add(x.Record, record.ValueOffset(w0, w1)), len(value))
	if !x.Valid() {
		return false, true, nil
	}
	x.Hit()
	want := imageAt(at)
	h0, h1 := record.Words(want)
	switch {
	case w0 != h0 || w1 != h1:
		return true, false, fmt.Errorf("address %d: words %x %x, want %x %x", at, w0, w1, h0, h1)
	case !isKey:
		return true, false, fmt.Errorf("address %d: its key is another", at)
	case !bytes.Equal(value, record.ValueOf(want, h0, h1)):
		return true, false, fmt.Errorf("address %d: its value is another", at)
	}
	return true, false, nil
}

func newCache(t testing.TB, s Shape) *Cache {
	t.Helper()
	c := &Cache{}
	free, err := c.Resize(s)
	require.NoError(t, err)
	require.NoError(t, free())
	t.Cleanup(func() { require.NoError(t, c.Drop()()) })
	return c
}

// extend lets all of the ring be used.
func extend(c *Cache) {
	for c.Shape().Ring > c.usable {
		c.usable = c.Shape().Ring
	}
}

// TestCache_Model: a copy is another record than that at its address, or is found
// where none was offered; while many look and the ring goes round and round.
func TestCache_Model(t *testing.T) {
	seed := newSeed(t)
	for _, shape := range []Shape{
		{Ring: 64 << 10, Rows: 32, Seen: 0},
		{Ring: 40_000, Rows: 4, Seen: 512}, // its table is too small
		{Ring: 100_008, Rows: 1024, Seen: 4096},
	} {
		c := newCache(t, shape)
		extend(c)
		var done atomic.Bool
		var torn, hits atomic.Int64
		var wg sync.WaitGroup
		const addrs = 2000
		for id := range 3 {
			wg.Go(func() {
				rng := rand.New(rand.NewPCG(seed, uint64(id)))
				for !done.Load() {
					at := record.Addr(4 + min(rng.IntN(addrs), rng.IntN(addrs), rng.IntN(addrs)))
					found, broken, err := look(c, at)
					if err != nil {
						t.Error(err)
						done.Store(true)
						return
					}
					if broken {
						torn.Add(1)
					}
					if found {
						hits.Add(1)
					} else {
						c.Offer(at, imageAt(at))
					}
				}
			})
		}
		rng := rand.New(rand.NewPCG(seed, 99))
		rounds := 100_000
		if testing.Short() {
			rounds = 20_000
		}
		// On one processor those who look may not have run until now: they are waited for.
		for n := 0; n < rounds || n < 1000*rounds && hits.Load() == 0 && !done.Load(); n++ {
			at := record.Addr(4 + rng.IntN(addrs))
			c.Offer(at, imageAt(at))
			if n >= rounds {
				runtime.Gosched()
			}
		}
		done.Store(true)
		wg.Wait()
		n := c.Counts()
		t.Logf("%+v: %+v, %d hits, %d torn", shape, n, hits.Load(), torn.Load())
		require.Positive(t, hits.Load())
		require.Greater(t, n.Evicted, uint64(100))
		require.NoError(t, check(c))
		for at := record.Addr(addrs + 4); at < 3*addrs; at++ {
			_, found := c.Find(at)
			require.False(t, found, "it was never offered")
		}
	}
}

// check goes over the ring and compares it with the table.
func check(c *Cache) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	a := c.area.Load()
	led := map[uint64]bool{}
	copies := int64(0)
	for i := range a.shape.Rows * rowEntries {
		if e := *(*uint64)(unsafe.Add(a.rows, i*wordBytes)); e != 0 {
			if led[e&placeMask] {
				return fmt.Errorf("two entries lead to %d", e&placeMask)
			}
			led[e&placeMask] = true
			copies++
		}
	}
	if copies != c.counts.Copies {
		return fmt.Errorf("%d entries, %d copies counted", copies, c.counts.Copies)
	}
	found := int64(0)
	for at, left := c.tail, c.used; left > 0; {
		if at == a.shape.Ring {
			at = 0
		}
		p := a.word(uint64(at / wordBytes))
		size := a.shape.Ring - at
		if *p != 0 {
			image := unsafe.Add(unsafe.Pointer(p), headBytes)
			size = int64(headBytes + record.Size(record.Load0(image), record.Load1(image)))
			if led[uint64(at/wordBytes)] {
				found++
			}
		}
		at, left = at+size, left-size
		if left < 0 {
			return fmt.Errorf("copies end %d behind the head", -left)
		}
	}
	if found != copies {
		return fmt.Errorf("%d entries lead to copies, of %d", found, copies)
	}
	return nil
}

// TestCache_KeepsWhatIsHit: what is read often is pushed out by what is read once or
// twice.
func TestCache_KeepsWhatIsHit(t *testing.T) {
	seed := newSeed(t)
	rng := rand.New(rand.NewPCG(seed, 0))
	c := newCache(t, ShapeFor(1<<20, 180))
	extend(c)
	const hot = 1000 // of some 5,000 that there is room for
	hits, reads := 0, 0
	for i := range 200_000 {
		at := record.Addr(4 + rng.IntN(hot))
		if i%2 == 0 {
			at = record.Addr(10_000 + rng.IntN(100_000))
		}
		found, _, err := look(c, at)
		require.NoError(t, err)
		if !found {
			c.Offer(at, imageAt(at))
		}
		if i > 100_000 && i%2 != 0 {
			reads++
			if found {
				hits++
			}
		}
	}
	t.Logf("%d of %d reads of what is hot hit", hits, reads)
	require.Greater(t, hits, reads*95/100)
	require.NoError(t, check(c))
}

// TestCache_Zipf: the hit ratio on zipf 0.99 is far from what the memory allows.
func TestCache_Zipf(t *testing.T) {
	const records = 100_000
	rng := rand.New(rand.NewPCG(newSeed(t), 0))
	z := rand.NewZipf(rng, 1.001, 1, records-1)
	var bytes int64
	for at := range records {
		bytes += int64(len(imageAt(record.Addr(4 + at))))
		if at == 2000 {
			bytes = bytes * records / int64(at)
			break
		}
	}
	c := newCache(t, ShapeFor(bytes/20, bytes/records))
	extend(c)
	hits, reads := 0, 0
	for i := range 600_000 {
		at := record.Addr(4 + z.Uint64())
		found, _, err := look(c, at)
		require.NoError(t, err)
		if !found {
			c.Offer(at, imageAt(at))
		}
		if i > 200_000 {
			reads++
			if found {
				hits++
			}
		}
	}
	t.Logf("a twentieth of the records in memory, %.1f%% of the reads hit; %+v", 100*float64(hits)/float64(reads), c.Counts())
	require.Greater(t, hits, reads*65/100)
}

// TestCache_Steps: memory is used that nobody has claimed yet, or is never used.
func TestCache_Steps(t *testing.T) {
	c := newCache(t, Shape{Ring: 4 << 20, Rows: 4096})
	require.True(t, c.Wants())
	at := record.Addr(4)
	offer := func() {
		for range 20_000 {
			c.Offer(at, imageAt(at))
			at++
		}
	}
	offer()
	require.Zero(t, c.Counts().Inserted)
	for want := int64(1); want <= 4; want++ {
		bytes, ok := c.Extend()
		require.True(t, ok)
		require.Equal(t, want<<20+4096*rowBytes, bytes)
		_, ok = c.Extend()
		require.False(t, ok, "it has not been used yet")
		before := c.Counts().Inserted
		offer()
		require.Greater(t, c.Counts().Inserted, before+1000)
		require.LessOrEqual(t, c.head, want<<20)
		require.Equal(t, want < 4, c.Wants())
	}
	require.NoError(t, check(c))
	free := c.Drop()
	c.Offer(at, imageAt(at))
	_, ok := c.Find(at)
	require.False(t, ok)
	require.NoError(t, free())
	_, ok = c.Extend()
	require.False(t, ok)
}

// TestShapeFor: the parts take more than there is, or the table is too small for the
// ring.
func TestShapeFor(t *testing.T) {
	rng := rand.New(rand.NewPCG(newSeed(t), 0))
	for range 10_000 {
		memory := int64(1)<<20 + rng.Int64N(1<<(21+rng.IntN(20)))
		mean := int64(32) + rng.Int64N(1<<rng.IntN(16))
		s := ShapeFor(memory, mean)
		require.LessOrEqual(t, s.Bytes(), memory)
		require.Zero(t, s.Ring%wordBytes)
		copies := s.Ring / (mean + headBytes)
		require.Greater(t, s.Ring, min(memory/3, RingMax/2), "%d bytes for records of %d: %+v", memory, mean, s)
		require.GreaterOrEqual(t, int64(s.Rows*rowEntries), copies*2/3, "%d bytes for records of %d: %+v", memory, mean, s)
	}
}

// TestCopy_KeyIs: keys are taken for equal that are not, or the other way round.
func TestCopy_KeyIs(t *testing.T) {
	c := newCache(t, Shape{Ring: 1 << 20, Rows: 64})
	extend(c)
	for n := 1; n < 40; n++ {
		key := make([]byte, n)
		for i := range key {
			key[i] = byte(i + 200)
		}
		w0, w1 := record.Word0(0, n), record.Word1(record.Value, 3, 0)
		b := make([]byte, record.Size(w0, w1))
		record.Write(unsafe.Pointer(unsafe.SliceData(b)), w0, w1, key, []byte("xyz"))
		at := record.Addr(100 + n)
		c.Offer(at, b)
		x, ok := c.Find(at)
		require.True(t, ok)
		require.True(t, x.KeyIs(w0, key))
		require.False(t, x.KeyIs(w0, key[:n-1]))
		require.False(t, x.KeyIs(w0, append(key[:n:n], 0)))
		for i := range key {
			key[i]++
			require.False(t, x.KeyIs(w0, key))
			key[i]--
		}
	}
}
