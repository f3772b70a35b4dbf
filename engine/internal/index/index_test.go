package index

import (
	"math/bits"
	"math/rand/v2"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"
	"unsafe"

	"github.com/stretchr/testify/require"

	"rskv/engine/internal/record"
	"rskv/ioring/iotest/seeds"
)

func newIndex(t testing.TB, bits uint8, overflowMax int) *Index {
	return openIndex(t, Options{Bits: bits, Overflow: overflowMax})
}

func openIndex(t testing.TB, opt Options) *Index {
	x, err := New(opt)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, x.Free()) })
	return x
}

// goodHash spreads 0, 1, 2, ... over 64 bits.
func goodHash(n uint64) uint64 {
	hi, lo := bits.Mul64(n^0xa0761d6478bd642f, 0xe7037ed1a0b428db)
	return hi ^ lo
}

// place is what the index tells hashes apart by.
func place(x *Index, hash uint64) uint64 { return hash & (1<<(x.anchor+tagBits) - 1) }

// set makes addr the newest of the hash's chain and returns what was before.
func set(t testing.TB, x *Index, hash uint64, addr record.Addr) record.Addr {
	for {
		slot, entry, err := x.FindOrCreate(hash)
		if err == ErrBusy {
			continue
		}
		require.NoError(t, err)
		if CAS(slot, entry, addr) {
			return Address(entry)
		}
	}
}

// Bits could leak from one field of an entry into another.
func TestEntry_Fields(t *testing.T) {
	const top = record.Addr(addrMask)
	e := uint64(tagMask)<<tagShift | uint64(top)
	require.Equal(t, top, Address(e))
	require.Equal(t, uint64(tagMask)<<tagShift|4, WithAddress(e, 4))
	require.EqualValues(t, 0, e&tentative)
	require.Equal(t, top, Address(e|moving))
	require.EqualValues(t, tagMask, (e|moving)>>tagShift, "a moving entry is found by its tag")
}

// A size that does not fit a hash, or cannot be reserved, must be refused.
func TestNew_BadSize(t *testing.T) {
	_, err := New(Options{Bits: MaxBits + 1})
	require.ErrorContains(t, err, "at most 2^36")
	_, err = New(Options{Bits: 4, Overflow: -1})
	require.ErrorContains(t, err, "overflow")
	_, err = New(Options{Bits: 4, Overflow: 1 << 32})
	require.ErrorContains(t, err, "overflow")
}

// The smallest table has no bucket bits at all.
func TestIndex_OneBucket(t *testing.T) {
	x := newIndex(t, 0, 16)
	for tag := range uint64(50) {
		require.Equal(t, Creating, set(t, x, tag, record.Addr(100+tag)))
	}
	for tag := range uint64(50) {
		_, e := find(t, x, tag|0xff<<56)
		require.Equal(t, record.Addr(100+tag), Address(e))
	}
	require.NoError(t, x.Check())
}

// A free word looks like tag 0, and bits above the tag do not count: both could
// make an absent chain look present or a present one absent.
func TestIndex_Find_TagZero(t *testing.T) {
	x := newIndex(t, 3, 4)
	slot, e := find(t, x, 5)
	require.Zero(t, e)
	require.Nil(t, slot)
	_, e = find(t, x, 5|1<<3)
	require.Zero(t, e)
	set(t, x, 5|1<<3, 40) // tag 1 takes the first place, free words follow
	set(t, x, 5, 50)      // tag 0
	_, e = find(t, x, 5)
	require.Equal(t, record.Addr(50), Address(e))
	_, e = find(t, x, 5|1<<(3+tagBits))
	require.Equal(t, record.Addr(50), Address(e), "a bit above the tag was looked at")
	require.NoError(t, x.Check())
}

// The same in the overflow buckets, where a free word stands before the entry.
func TestIndex_Find_TagZeroInOverflow(t *testing.T) {
	x := newIndex(t, 0, 4)
	for tag := range uint64(bucketEntries + 2) {
		set(t, x, (tag+1)%(bucketEntries+2), record.Addr(100+tag))
	}
	slot, e := find(t, x, 0)
	require.Equal(t, record.Addr(100+bucketEntries+1), Address(e))
	require.Same(t, &x.pool.bucket(1)[1], slot)
	atomic.StoreUint64(&x.pool.bucket(1)[0], 0)
	_, again := find(t, x, 0)
	require.Equal(t, e, again)
}

// A tentative entry belongs to its creator; a Find that returned it would let
// somebody link a record that vanishes when the creator gives way.
func TestIndex_Find_IgnoresTentative(t *testing.T) {
	x := newIndex(t, 2, 4)
	for _, tag := range []uint64{0, 7, tagMask} {
		hash := 1 | tag<<2
		b := x.row(hash & 3)
		atomic.StoreUint64(&b[3], tag<<tagShift|uint64(Creating)|tentative)
		slot, e := find(t, x, hash)
		require.Nil(t, slot)
		require.Zero(t, e)
		for range x.Range {
			t.Fatal("Range shows a tentative entry")
		}
		require.ErrorContains(t, x.Check(), "tentative")
		atomic.StoreUint64(&b[3], 0)
	}
}

// A creator must not settle beside a tentative entry of its tag, wherever in
// the row that stands: it has to wait until the other is gone or finished.
func TestIndex_FindOrCreate_WaitsForTentative(t *testing.T) {
	const tag, bucketBits = 77, 2
	hash := uint64(1 | tag<<bucketBits)
	for _, finish := range []bool{false, true} {
		x := newIndex(t, bucketBits, 4)
		var last *uint64
		for i := range uint64(3 * bucketEntries) { // the row reaches into the pool
			slot, _, err := x.FindOrCreate(1 | (100+i)<<bucketBits)
			require.NoError(t, err)
			last = slot
		}
		// The other creator's claim is the last word of the row, behind a hole
		// in the first bucket where ours will go.
		atomic.StoreUint64(last, tag<<tagShift|uint64(Creating)|tentative)
		atomic.StoreUint64(&x.row(1)[2], 0)
		got := make(chan *uint64)
		go func() {
			slot, _, err := x.FindOrCreate(hash)
			if err != nil {
				t.Error(err)
			}
			got <- slot
		}()
		select {
		case <-got:
			t.Fatal("created beside another creator")
		case <-time.After(5 * time.Millisecond):
		}
		if finish {
			atomic.StoreUint64(last, tag<<tagShift|uint64(Creating))
			require.Same(t, last, <-got)
		} else {
			atomic.StoreUint64(last, 0)
			require.NotNil(t, <-got)
		}
		require.NoError(t, x.Check())
	}
}

// With a bad hash many keys share a bucket, or a bucket and a tag: chains could
// be mixed up or split in two.
func TestIndex_BadHash(t *testing.T) {
	for name, hash := range map[string]func(n uint64) uint64{
		"one bucket":          func(n uint64) uint64 { return 3 | n<<8 },
		"one tag":             func(n uint64) uint64 { return n&0xff | 1234<<8 | n<<40 },
		"one bucket, one tag": func(n uint64) uint64 { return 3 | 1234<<8 | n<<23 },
		"one bucket, four tags": func(n uint64) uint64 {
			return 3 | n&3<<21 | n<<23
		},
	} {
		t.Run(name, func(t *testing.T) {
			x := newIndex(t, 8, 1<<10)
			newest := map[uint64]record.Addr{}
			for n := range uint64(4000) {
				h, addr := hash(n), record.Addr(1000+n)
				want, there := newest[place(x, h)]
				if !there {
					want = Creating
				}
				require.Equal(t, want, set(t, x, h, addr))
				newest[place(x, h)] = addr
			}
			requireSame(t, x, newest)
		})
	}
}

// find is Find, and checks that FindAll says the same.
func find(t testing.TB, x *Index, hash uint64) (slot *uint64, entry uint64) {
	t.Helper()
	slot, entry = x.Find(hash)
	slots, entries := []*uint64{new(uint64)}, []uint64{1}
	x.FindAll([]uint64{hash}, slots, entries)
	require.Same(t, slot, slots[0], "hash %#x", hash)
	require.Equal(t, entry, entries[0], "hash %#x", hash)
	return slot, entry
}

// requireSame checks that x holds the chains of newest and nothing else.
func requireSame(t testing.TB, x *Index, newest map[uint64]record.Addr) {
	t.Helper()
	require.NoError(t, x.Check())
	for hash, want := range newest {
		_, e := find(t, x, hash)
		require.Equal(t, want, Address(e), "hash %#x", hash)
	}
	seen := 0
	for hash, e := range x.Range {
		require.Equal(t, newest[hash], Address(e), "hash %#x", hash)
		seen++
	}
	require.Equal(t, len(newest), seen)
}

// Two creators of one tag could both stay, in different buckets of the row, and
// the records linked to one of the entries would be lost. The row has overflow
// buckets, holes at random places, and often no free word at all.
func TestIndex_FindOrCreate_Concurrent(t *testing.T) {
	seed := seeds.New(t)
	rounds := 6000
	if testing.Short() {
		rounds = 1500
	}
	const creators, bucketBits = 4, 1
	rnd := rand.New(rand.NewPCG(seed, 0))
	var start, finish sync.WaitGroup
	for round := 0; round < rounds; {
		x, err := New(Options{Bits: bucketBits, Overflow: 64})
		require.NoError(t, err)
		// A table of its own every 30 rounds: rows grow by each of them.
		for end := round + 30; round < end; round++ {
			for range rnd.IntN(2 * bucketEntries) {
				_, _, err := x.FindOrCreate(1 | (tagMask/2+rnd.Uint64N(tagMask/2))<<bucketBits)
				require.NoError(t, err)
			}
			var words []*uint64 // of row 1
			for b := x.row(1); b != nil; b = x.next(b) {
				for i := range bucketEntries {
					words = append(words, &b[i])
				}
			}
			for range rnd.IntN(5) {
				atomic.StoreUint64(words[rnd.IntN(len(words))], 0)
			}
			hash := 1 | uint64(round%1000)<<bucketBits
			if slot, e := x.Find(hash); e != 0 {
				atomic.StoreUint64(slot, 0)
			}
			var slots [creators]*uint64
			var gate atomic.Bool
			start.Add(creators)
			finish.Add(creators)
			for c := range creators {
				go func() {
					defer finish.Done()
					start.Done()
					for !gate.Load() {
						runtime.Gosched()
					}
					slot, e, err := x.FindOrCreate(hash)
					if err != nil || e>>tagShift != x.tag(hash) {
						t.Errorf("entry %#x, %v", e, err)
					}
					slots[c] = slot
				}()
			}
			start.Wait()
			gate.Store(true)
			finish.Wait()
			for _, slot := range slots {
				require.Same(t, slots[0], slot)
			}
			require.NoError(t, x.Check())
		}
		require.NoError(t, x.Free())
	}
}

// Losers of a race to extend a row could leak their bucket or hand it out twice.
func TestPool_TakePut(t *testing.T) {
	seed := seeds.New(t)
	const buckets, workers = 64, 8
	var p pool
	require.NoError(t, p.open(buckets))
	defer func() { require.NoError(t, p.close()) }()
	var owner [buckets + 1]atomic.Int32
	var wg sync.WaitGroup
	for w := range workers {
		wg.Add(1)
		go func() {
			defer wg.Done()
			rnd := rand.New(rand.NewPCG(seed, uint64(w)))
			var mine []uint64
			for range 20_000 {
				if rnd.IntN(2) == 0 && len(mine) < buckets/workers {
					n, ok := p.take(p.max)
					if !ok {
						t.Error("empty although there are enough for all")
						return
					}
					if owner[n].Add(1) != 1 {
						t.Errorf("bucket %d was handed out twice", n)
						return
					}
					if *p.bucket(n) != (bucket{}) {
						t.Errorf("bucket %d is not empty", n)
						return
					}
					mine = append(mine, n)
				} else if len(mine) > 0 {
					n := mine[len(mine)-1]
					mine = mine[:len(mine)-1]
					owner[n].Add(-1)
					p.put(n)
				}
			}
			for _, n := range mine {
				owner[n].Add(-1)
				p.put(n)
			}
		}()
	}
	wg.Wait()
	require.EqualValues(t, p.fresh.Load(), p.idle.Load())
	for range buckets {
		_, ok := p.take(p.max)
		require.True(t, ok)
	}
	_, ok := p.take(p.max)
	require.False(t, ok)
}

// The loser of a race to extend a row could leak its bucket, or report a full
// pool although the row has just been extended with the last one.
func TestIndex_Extend_LostRace(t *testing.T) {
	x := newIndex(t, 1, 2)
	last := x.row(1)
	require.NoError(t, x.extend(last))
	require.NoError(t, x.extend(last))
	require.EqualValues(t, 1, x.Stats().OverflowUsed)
	require.NoError(t, x.Check())
	require.NoError(t, x.extend(x.row(0)))
	require.NoError(t, x.extend(last), "the pool is empty, but the row has been extended")
	require.ErrorIs(t, x.extend(x.pool.bucket(1)), ErrFull)
	require.NoError(t, x.Check())
}

// A taker that read the top of the stack, and slept while that bucket was taken
// and came back over another, could install a link that is no longer true.
func TestPool_TopNeverRepeats(t *testing.T) {
	var p pool
	require.NoError(t, p.open(2))
	defer func() { require.NoError(t, p.close()) }()
	a, _ := p.take(p.max)
	b, _ := p.take(p.max)
	p.put(a)
	p.put(b)
	before := p.returned.Load()
	first, _ := p.take(p.max)
	second, _ := p.take(p.max)
	require.Equal(t, []uint64{b, a}, []uint64{first, second})
	p.put(b)
	require.Equal(t, before&0xffffffff, p.returned.Load()&0xffffffff)
	require.NotEqual(t, before, p.returned.Load())
}

// When no overflow bucket is left, nothing already there may suffer, and rows
// that still have room go on.
func TestIndex_Full(t *testing.T) {
	const bucketBits, overflow = 2, 3
	x := newIndex(t, bucketBits, overflow)
	newest := map[uint64]record.Addr{}
	full := uint64(bucketEntries * (1 + overflow))
	for i := range full {
		hash := 1 | i<<bucketBits
		set(t, x, hash, record.Addr(100+i))
		newest[hash] = record.Addr(100 + i)
	}
	for range 3 {
		_, _, err := x.FindOrCreate(1 | full<<bucketBits)
		require.ErrorIs(t, err, ErrFull)
	}
	for i := range full {
		set(t, x, 1|i<<bucketBits, record.Addr(500+i))
		newest[1|i<<bucketBits] = record.Addr(500 + i)
	}
	for i := range uint64(bucketEntries) {
		set(t, x, 2|i<<bucketBits, record.Addr(900+i))
		newest[2|i<<bucketBits] = record.Addr(900 + i)
	}
	requireSame(t, x, newest)
	require.Equal(t, Stats{
		Bits: bucketBits, Anchor: bucketBits, TagBits: tagBits, Limit: LimitRoom, Buckets: 1 << bucketBits, OverflowUsed: overflow, OverflowMax: overflow,
		Bytes: bucketSize * (1<<bucketBits + 2*overflow),
	}, x.Stats())
	none := newIndex(t, 0, 0)
	for i := range uint64(bucketEntries) {
		set(t, none, i, 9)
	}
	_, _, err := none.FindOrCreate(bucketEntries)
	require.ErrorIs(t, err, ErrFull)
}

// Many goroutines racing for the last buckets could fail although somebody has
// extended their row, or get a bucket too many.
func TestIndex_Full_Concurrent(t *testing.T) {
	const bucketBits, overflow, workers = 1, 20, 8
	x := newIndex(t, bucketBits, overflow)
	var wg sync.WaitGroup
	var created atomic.Int64
	for w := range workers {
		wg.Add(1)
		go func() {
			defer wg.Done()
			for i := range uint64(bucketEntries * (overflow + 2)) {
				err := ErrBusy // while somebody finds out that the table cannot grow
				for err == ErrBusy {
					_, _, err = x.FindOrCreate(i&1 | (i*workers+uint64(w))>>1<<bucketBits)
				}
				if err == nil {
					created.Add(1)
				} else if err != ErrFull {
					t.Error(err)
				}
			}
		}()
	}
	wg.Wait()
	require.NoError(t, x.Check())
	require.EqualValues(t, overflow, x.Stats().OverflowUsed)
	require.Positive(t, created.Load())
	entries := 0
	for b := range x.rows() {
		for row := x.row(b); row != nil; row = x.next(row) {
			for i := range bucketEntries {
				if row[i] != 0 {
					entries++
				}
			}
		}
	}
	require.Equal(t, bucketEntries*(2+overflow), entries, "room left although creators were refused")
}

// Updates could get lost or show up on another chain: 8 goroutines raise the
// addresses of a few thousand chains by compare-and-swap, each taking its
// addresses from one counter, and log what they replaced. Every address must
// have been replaced exactly once, by one of the same chain, or be the newest.
func TestIndex_Model(t *testing.T) {
	seed := seeds.New(t)
	const workers, bucketBits = 8, 6
	steps := 60_000
	if testing.Short() {
		steps = 10_000
	}
	x := newIndex(t, bucketBits, 4096)
	// Few tags and buckets on purpose, some of them equal in all but one bit.
	hashOf := func(rnd *rand.Rand) uint64 {
		return goodHash(rnd.Uint64N(3000)) &^ (3 << (bucketBits + 6))
	}
	type link struct {
		place     uint64
		old, next record.Addr
	}
	var tail atomic.Uint64
	tail.Store(uint64(record.FirstAddr))
	links := make([][]link, workers)
	var wg sync.WaitGroup
	for w := range workers {
		wg.Add(1)
		go func() {
			defer wg.Done()
			rnd := rand.New(rand.NewPCG(seed, uint64(w)))
			batch := make([]uint64, 32)
			for range steps / len(batch) {
				for i := range batch {
					batch[i] = hashOf(rnd)
				}
				x.Prefetch(batch)
				for _, hash := range batch {
					if rnd.IntN(3) == 0 {
						if slot, e := x.Find(hash); e != 0 && Address(atomic.LoadUint64(slot)) < Address(e) {
							t.Error("a chain went back")
						}
						continue
					}
					slot, e, err := x.FindOrCreate(hash)
					if err != nil {
						t.Error(err)
						return
					}
					// As in the store: the new record's address is higher than
					// the one it links to, because it is taken afterwards.
					addr := record.Addr(tail.Add(1))
					if CAS(slot, e, addr) {
						links[w] = append(links[w], link{place(x, hash), Address(e), addr})
					}
				}
			}
		}()
	}
	wg.Wait()
	type key struct {
		place uint64
		addr  record.Addr
	}
	next := map[key]record.Addr{}
	places := map[uint64]bool{}
	for _, of := range links {
		for _, l := range of {
			k := key{l.place, l.old}
			if _, again := next[k]; again {
				t.Fatalf("address %v of chain %#x was replaced twice", k.addr, k.place)
			}
			next[k] = l.next
			places[l.place] = true
		}
	}
	newest, used := map[uint64]record.Addr{}, 0
	for p := range places {
		a := Creating
		for n, ok := next[key{p, a}]; ok; n, ok = next[key{p, a}] {
			require.Greater(t, n, a)
			a = n
			used++
		}
		newest[p] = a
	}
	require.Equal(t, len(next), used, "a link that hangs in the air")
	require.NotZero(t, x.Stats().OverflowUsed)
	requireSame(t, x, newest)
}

// An index rebuilt from what Range tells must be the same one.
func TestIndex_Range_Rebuild(t *testing.T) {
	x, y := newIndex(t, 7, 1024), newIndex(t, 7, 1024)
	newest := map[uint64]record.Addr{}
	for n := range uint64(2000) {
		h := goodHash(n)
		set(t, x, h, record.Addr(100+n))
		newest[place(x, h)] = record.Addr(100 + n)
	}
	for hash, e := range x.Range {
		require.Equal(t, Creating, set(t, y, hash, Address(e)))
	}
	requireSame(t, y, newest)
	n := 0
	for range x.Range {
		if n++; n == 10 {
			break
		}
	}
	require.Equal(t, 10, n)
}

// A check that sees nothing wrong anywhere would be worthless.
func TestIndex_Check_Finds(t *testing.T) {
	x := newIndex(t, 2, 8)
	set(t, x, 1|5<<2, 100)
	b := x.row(1)
	for name, word := range map[string]uint64{
		"twice":      5<<tagShift | 9,
		"tentative":  6<<tagShift | 1 | tentative,
		"no address": 6 << tagShift,
	} {
		b[6] = word
		require.ErrorContains(t, x.Check(), name)
	}
	b[6] = 0
	b[overflowWord] = 3
	require.ErrorContains(t, x.Check(), "leads nowhere")
	b[overflowWord] = 0
	_, ok := x.pool.take(x.pool.max)
	require.True(t, ok)
	require.ErrorContains(t, x.Check(), "1 in use")
}

// A prefetch is a hint: wild addresses must not fault.
func TestPrefetch_WildAddresses(t *testing.T) {
	x := newIndex(t, 2, 0)
	x.Prefetch(nil)
	x.Prefetch([]uint64{0, 1 << 63, ^uint64(0)})
	PrefetchLine(nil)
	PrefetchLine(unsafe.Pointer(x))
	PrefetchLines(nil)
	PrefetchLines([]uintptr{0, 1, ^uintptr(0), uintptr(unsafe.Pointer(x))})
}
