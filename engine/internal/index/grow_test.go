package index

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"

	"rskv/engine/internal/epoch"
	"rskv/engine/internal/record"
	"rskv/ioring/iotest/seeds"
)

// grown splits the rest of the rows.
func grown(t testing.TB, x *Index) {
	t.Helper()
	require.True(t, x.Growing())
	for x.Step() {
	}
	require.False(t, x.Growing())
}

// Entries could get lost, doubled or mixed up by a split, also those in overflow
// buckets, with tag 0, or of chains that are empty.
func TestGrow_EveryStep(t *testing.T) {
	for name, hash := range map[string]func(n uint64) uint64{
		"good":       goodHash,
		"in a row":   func(n uint64) uint64 { return n },
		"one bucket": func(n uint64) uint64 { return 3 | n<<4 },
		"four tags":  func(n uint64) uint64 { return 3 | n&3<<17 | n<<40 },
		"upper half": func(n uint64) uint64 { return n<<5 | 1<<4 },
		"lower half": func(n uint64) uint64 { return n << 5 },
	} {
		t.Run(name, func(t *testing.T) {
			x := openIndex(t, Options{Bits: 4, MaxBits: 12, Overflow: 1 << 12})
			newest := map[uint64]record.Addr{}
			for n := range uint64(6000) {
				h, addr := hash(n), record.Addr(1000+n)
				want, there := newest[place(x, h)]
				if !there {
					want = Creating
				}
				require.Equal(t, want, set(t, x, h, addr))
				newest[place(x, h)] = addr
				if n%512 == 0 {
					requireSame(t, x, newest) // often in the middle of a growth
				}
			}
			requireSame(t, x, newest)
			if name == "good" {
				require.EqualValues(t, 11, x.Bits(), "no more than 4 to 5 entries a bucket")
			}
			for x.begin() {
				grown(t, x)
				requireSame(t, x, newest)
			}
			require.Equal(t, LimitRoom, x.Stats().Limit)
		})
	}
}

// At each point of a split, those who look for an entry must find it, the newest
// one, and those who want to change or create one must not do so where it would
// be lost.
func TestGrow_RowInFlight(t *testing.T) {
	const half, row, sibling = 4, 1, 5
	hash := func(tag uint64) uint64 { return row | tag<<2 }
	lower, upper, absent := hash(6), hash(7), hash(9)
	require.Zero(t, lower&half)
	require.NotZero(t, upper&absent&half)
	x := openIndex(t, Options{Bits: 2, MaxBits: 3, Overflow: 8})
	set(t, x, lower, 100)
	set(t, x, upper, 200)
	require.True(t, x.begin())
	sees := func(hash uint64, want record.Addr) {
		t.Helper()
		_, e := x.Find(hash)
		require.Equal(t, want, Address(e))
		require.Zero(t, e&moving)
	}
	var old *uint64
	change := func(hash uint64, addr record.Addr) bool {
		slot, e := x.Find(hash)
		return CAS(slot, e, addr)
	}

	// Whole: as if there were no growth.
	old, _ = x.Find(upper)
	require.True(t, change(upper, 201))
	sees(upper, 201)
	// In flight, not yet frozen.
	x.grow.at.Store(2*sibling + 1)
	require.True(t, change(upper, 202))
	require.True(t, change(lower, 102))
	sees(upper, 202)
	sees(absent, 0)
	_, _, err := x.FindOrCreate(absent)
	require.ErrorIs(t, err, ErrBusy)
	set(t, x, hash(2), 300) // of the lower half: nobody keeps it from being created
	// Frozen.
	e, ok := freeze(old, half<<(tagShift-2))
	require.True(t, ok)
	require.Equal(t, record.Addr(202), Address(e))
	require.False(t, change(upper, 203), "a change that the copy may miss")
	sees(upper, 202)
	slot, found, err := x.FindOrCreate(upper)
	require.NoError(t, err)
	require.False(t, CAS(slot, found, 203))
	// Copied: changes are made there, and seen.
	x.row(sibling)[0] = e
	require.True(t, change(upper, 204))
	sees(upper, 204)
	// Cleared, and its place taken by another.
	atomic.StoreUint64(old, 0)
	sees(upper, 204)
	set(t, x, hash(4), 400)
	sees(upper, 204)
	sees(absent, 0)
	// Split.
	x.grow.at.Store(2*sibling + 2)
	sees(upper, 204)
	slot, _, err = x.FindOrCreate(absent)
	require.NoError(t, err)
	require.Contains(t, []*uint64{&x.row(sibling)[1]}, slot)
	require.True(t, change(absent, 900))
	for _, after := range []bool{false, true} {
		if after {
			grown(t, x) // it goes on behind the sibling
		}
		sees(upper, 204)
		sees(absent, 900)
		sees(lower, 102)
		require.NoError(t, x.Check())
	}
}

// A claim that the splitter meets must go; and its creator, who may have slept
// meanwhile, must not take another's claim of the same tag, in the same place, for
// its own.
func TestGrow_ClaimTakenAway(t *testing.T) {
	x := openIndex(t, Options{Bits: 2, MaxBits: 3, Overflow: 8})
	require.True(t, x.begin())
	const tag, sibling = 7, 5
	_, found, ok := x.rowFor(1 | tag<<2)
	require.True(t, ok)
	require.EqualValues(t, sibling, found)
	word := &x.row(1)[0]
	first := x.claim(tag, sibling)
	*word = first
	_, ok = freeze(word, 1<<tagShift)
	require.False(t, ok)
	require.Zero(t, *word)
	second := x.claim(tag, sibling)
	require.NotEqual(t, first, second)
	for _, claim := range []uint64{first, second} {
		require.EqualValues(t, tag, claim>>tagShift&tagMask)
		require.NotZero(t, claim&tentative)
		require.Zero(t, claim&moving)
	}
	grown(t, x)
	require.NoError(t, x.Check())
}

// A growing index must not stop for want of overflow buckets: in the worst case
// all entries of all rows move, and the siblings need as many as there were.
func TestGrow_EverythingMoves(t *testing.T) {
	const overflow = 40
	x := openIndex(t, Options{Bits: 3, MaxBits: 5, Overflow: overflow})
	newest := map[uint64]record.Addr{}
	full := false
	for n := uint64(0); !full; n++ {
		hash := n&7 | 1<<3 | n>>3<<5 // bit 3 is set: all of them go to siblings
		if x.Growing() {
			x.grow.splitter.Store(true) // nobody splits: as much as possible is created before
		}
		slot, _, err := x.FindOrCreate(hash)
		if full = err != nil; full {
			require.ErrorIs(t, err, ErrBusy)
			break
		}
		CAS(slot, atomic.LoadUint64(slot), record.Addr(100+n))
		newest[hash] = record.Addr(100 + n)
	}
	require.EqualValues(t, overflow, x.Stats().OverflowUsed)
	x.grow.splitter.Store(false)
	grown(t, x)
	requireSame(t, x, newest)
	require.EqualValues(t, 2*overflow, x.Stats().OverflowUsed)
	require.False(t, x.begin(), "the next one might run out of them")
	require.Equal(t, LimitOverflow, x.Stats().Limit)
	_, _, err := x.FindOrCreate(1 << 4)
	require.NoError(t, err, "rows with room go on")
}

// When the tag is used up the index must neither split by bits it does not have
// nor become full.
func TestGrow_TagUsedUp(t *testing.T) {
	x := openIndex(t, Options{Bits: 0, MaxBits: GrowthMax + 2})
	newest := map[uint64]record.Addr{}
	for n := range uint64(6 << GrowthMax) {
		h := goodHash(n)
		set(t, x, h, record.Addr(100+n))
		newest[place(x, h)] = record.Addr(100 + n)
	}
	for x.begin() {
		grown(t, x)
	}
	require.EqualValues(t, GrowthMax, x.Bits())
	require.Equal(t, LimitTag, x.Stats().Limit)
	require.EqualValues(t, 2, x.Stats().TagBits)
	for n := range uint64(1 << tagBits) { // every chain there can be
		set(t, x, n, record.Addr(1<<30+n))
		newest[n] = record.Addr(1<<30 + n)
	}
	requireSame(t, x, newest)
	require.Error(t, x.Reset(GrowthMax+2, 1), "more than the tag can tell apart")
	require.NoError(t, x.Reset(GrowthMax+2, 2))
	requireSame(t, x, nil)
}

// A refusal could be forgotten, or be for good.
func TestGrow_Room(t *testing.T) {
	var room int64
	asked, woken := 0, 0
	x := openIndex(t, Options{Bits: 6, MaxBits: 10, Overflow: 16,
		Room: func(n int64) bool { asked++; return n <= room },
		Wake: func() { woken++ },
	})
	n := uint64(0)
	fill := func() (err error) {
		for ; err == nil; n++ {
			_, _, err = x.FindOrCreate(goodHash(n))
		}
		return err
	}
	require.ErrorIs(t, fill(), ErrFull)
	require.Equal(t, LimitRoom, x.Stats().Limit)
	require.Equal(t, 1, woken, "an operator wants to know, once")
	require.Greater(t, asked, 1)
	require.Less(t, asked, 20)
	require.EqualValues(t, 16, x.Stats().OverflowMax)
	room = Footprint(7, 16)
	for fill() != ErrFull {
	}
	require.EqualValues(t, 7, x.Bits())
	st := x.Stats()
	require.LessOrEqual(t, bucketSize*(st.Buckets+st.OverflowUsed), room)
	require.Equal(t, 3, woken, "to split, and because it is full again")
}

// A snapshot could miss entries that move while it is copied, have them twice, or
// be of use to an index of its own size only.
func TestGrow_Snapshot(t *testing.T) {
	const bits = 6
	x := openIndex(t, Options{Bits: bits, MaxBits: 10, Overflow: 1 << 10})
	newest := map[uint64]record.Addr{}
	add := func(n uint64) {
		h := goodHash(n)
		set(t, x, h, record.Addr(100+n))
		newest[place(x, h)] = record.Addr(100 + n)
	}
	for n := range uint64(250) {
		add(n)
	}
	var rows []byte
	for row := range uint64(1 << bits) {
		if row == 10 || row == 40 { // the table grows, and grows again
			require.True(t, x.begin())
			require.True(t, x.Step())
			require.False(t, x.Growing())
		}
		if row == 20 || row == 50 { // a growth that stands still in the middle
			require.True(t, x.begin())
			half := uint64(1) << x.Bits()
			for sibling := half; sibling < half+half/2; sibling++ {
				x.splitRow(sibling-half, sibling)
				x.grow.at.Store(2*sibling + 2)
			}
		}
		if row == 30 {
			grown(t, x)
		}
		rows = x.AppendRow(rows, row, bits)
	}
	requireSame(t, x, newest)
	for _, size := range []uint8{bits, bits + 1, bits + 4} {
		y := openIndex(t, Options{Bits: size, Overflow: 1 << 10})
		require.NoError(t, y.Reset(size, bits))
		src := rows
		for row := range uint64(1 << bits) {
			var err error
			src, _, err = y.LoadRow(src, row, bits, record.AddrEnd)
			require.NoError(t, err)
		}
		require.Empty(t, src)
		requireSame(t, y, newest)
	}
	// Rows of a larger table, into one that may not be so large any more.
	grown(t, x)
	size := x.Bits()
	require.EqualValues(t, 10, size)
	y := openIndex(t, Options{Bits: bits + 1, Overflow: 1 << 10})
	require.NoError(t, y.Reset(bits+1, bits))
	for row := range uint64(1) << size {
		_, _, err := y.LoadRow(x.AppendRow(nil, row, size), row, size, record.AddrEnd)
		require.NoError(t, err)
	}
	requireSame(t, y, newest)
	// An entry that cannot stand in that row.
	row := binary.LittleEndian.AppendUint64([]byte{1, 0}, 1<<tagShift|100)
	_, _, err := y.LoadRow(row, 3, bits+1, record.AddrEnd)
	require.ErrorIs(t, err, ErrRows)
}

// An entry could be missed that moves while its row, a long one, is being copied.
func TestGrow_SnapshotOfMovingRow(t *testing.T) {
	seed := seeds.New(t)
	const chains = 1000
	rounds := 200
	if testing.Short() {
		rounds = 50
	}
	for round := range rounds {
		rnd := rand.New(rand.NewPCG(seed, uint64(round)))
		x, err := New(Options{Bits: 1, MaxBits: 3, Overflow: chains})
		require.NoError(t, err)
		fillRow(t, x, 1, chains)
		var grow sync.WaitGroup
		started := make(chan bool)
		grow.Go(func() {
			close(started)
			for x.begin() {
				for x.Step() {
				}
			}
		})
		<-started
		for range rnd.IntN(4_000) {
			x.Bits() // some microseconds
		}
		row := x.AppendRow(nil, 1, 1)
		require.Equal(t, chains, len(row)/8, "entries in the snapshot")
		grow.Wait()
		require.NoError(t, x.Check())
		require.NoError(t, x.Free())
	}
}

// fillRow puts entries of the highest tags behind the others of a row, without the
// long way there that creating them would take. The table has not grown yet.
func fillRow(t testing.TB, x *Index, row uint64, entries int) {
	b := x.row(row)
	for next := x.next(b); next != nil; next = x.next(b) {
		b = next
	}
	for i := range entries {
		if i%bucketEntries == 0 {
			n, ok := x.pool.take(x.pool.max)
			require.True(t, ok)
			b[overflowWord] = n
			b = x.pool.bucket(n)
		}
		b[i%bucketEntries] = uint64(tagMask-i)<<tagShift | 100
	}
}

// creation is what creators of one chain have done to it.
type creation struct{ old, next record.Addr }

// Two creators of one tag could both stay, one in a row, one in its sibling,
// while the row is being split; or an entry be created, or changed, behind the
// splitter's back, and vanish when the table has grown. Each creator links one
// record; all of them must be on one chain in the end.
func TestGrow_Creators(t *testing.T) {
	seed := seeds.New(t)
	rounds := 3000
	if testing.Short() {
		rounds = 800
	}
	const creators = 4
	rnd := rand.New(rand.NewPCG(seed, 0))
	var x *Index
	d := epoch.New()
	var slots [creators]*epoch.Slot
	for c := range slots {
		slots[c] = d.Register()
	}
	tail := record.Addr(100)
	for round := range rounds {
		if x == nil || x.Bits() == 7 || round%16 == 0 {
			if x != nil {
				require.NoError(t, x.Free())
			}
			var err error
			x, err = New(Options{Bits: 1, MaxBits: 10, Overflow: 4096, Drained: d.Bump})
			require.NoError(t, err)
		}
		x.grow.trigger.Store(1 << 40) // it grows when this test says so
		half := uint64(1) << x.Bits()
		hash := rnd.Uint64N(half) | half | rnd.Uint64()<<(x.Bits()+1)
		row := x.row(hash & (half - 1))
		fill := rnd.IntN(2 * bucketEntries) // the row has overflow buckets and holes
		if round%16 == 0 {
			fillRow(t, x, hash&(half-1), 1000) // its split takes a while
			row[0] = 0
		}
		for range fill {
			slot, e, err := x.FindOrCreate(hash&(half-1) | rnd.Uint64()<<x.Bits())
			if err == nil && Address(e) == Creating && rnd.IntN(3) == 0 {
				atomic.StoreUint64(slot, 0)
			}
		}
		if slot, e := x.Find(hash); e != 0 {
			*slot = 0
		}
		var links [creators]creation
		var gate atomic.Int32
		var finish sync.WaitGroup
		// Growth is announced before the race, or in it.
		announced := rnd.IntN(2) == 0
		if announced {
			x.begin()
		}
		race := func(f func()) {
			finish.Go(func() {
				gate.Add(1)
				for gate.Load() < creators+1 {
					runtime.Gosched()
				}
				f()
			})
		}
		for c := range creators {
			addr := tail + record.Addr(c)
			race(func() {
				for done := false; !done; {
					slots[c].Enter()
					slot, e, err := x.FindOrCreate(hash)
					if err == nil && CAS(slot, e, addr) {
						links[c], done = creation{Address(e), addr}, true
					} else if err != nil && err != ErrBusy {
						t.Error(err)
						done = true
					}
					slots[c].Exit()
				}
			})
		}
		delay := rnd.IntN(40)
		race(func() {
			for range delay {
				runtime.Gosched()
			}
			if !announced {
				x.begin()
			}
			for x.Growing() {
				if !x.Step() {
					runtime.Gosched()
				}
			}
		})
		finish.Wait()
		tail += creators
		next := map[record.Addr]record.Addr{}
		for _, l := range links {
			require.NotContains(t, next, l.old, "two chains, or a lost change")
			next[l.old] = l.next
		}
		at := Creating
		for range creators {
			require.Contains(t, next, at)
			at = next[at]
		}
		_, e := x.Find(hash)
		require.Equal(t, at, Address(e))
		require.NoError(t, x.Check(), "round %d", round)
	}
	require.NoError(t, x.Free())
}

// A creator could publish an entry in a row that the splitter has gone over since it
// claimed the place, where nobody looks for it again. Creators follow the splitter:
// the row that they want is one of the next to be split.
func TestGrow_CreatorsAtTheFront(t *testing.T) {
	const bits = 16
	rounds := 60
	if testing.Short() {
		rounds = 20
	}
	seed := seeds.New(t)
	for round := range rounds {
		x := openIndex(t, Options{Bits: bits, MaxBits: bits + 1, Overflow: 1 << 15})
		x.grow.trigger.Store(1 << 40)
		require.True(t, x.begin())
		var work sync.WaitGroup
		var created []uint64
		var there atomic.Bool
		rnd := rand.New(rand.NewPCG(seed, uint64(round)))
		work.Go(func() {
			for there.Store(true); x.Growing(); {
				front := x.grow.at.Load()/2 + rnd.Uint64N(4)
				hash := front&(2<<bits-1) | 1<<bits | rnd.Uint64()<<(bits+1)
				switch slot, e, err := x.FindOrCreate(hash); {
				case err != nil:
				case Address(e) != Creating || CAS(slot, e, record.FirstAddr):
					created = append(created, hash)
				}
			}
		})
		work.Go(func() {
			for !there.Load() {
				runtime.Gosched()
			}
			for x.Step() {
			}
		})
		work.Wait()
		for _, hash := range created {
			_, e := x.Find(hash)
			require.NotZero(t, e, "round %d: what was created is not found", round)
		}
		require.NoError(t, x.Check())
	}
}

// From a few buckets to thousands, with everything going on at once: a reader
// could miss what was acknowledged before it began, or see an older address; an
// update could get lost; a snapshot could miss a chain or have it twice.
func TestGrow_Model(t *testing.T) {
	seed := seeds.New(t)
	const workers = 4
	for _, background := range []bool{true, false} {
		t.Run(fmt.Sprintf("background %t", background), func(t *testing.T) {
			m := newGrowModel(t, seed)
			var wg sync.WaitGroup
			for w := range workers {
				wg.Go(func() { m.work(t, rand.New(rand.NewPCG(seed, uint64(w)))) })
			}
			var others sync.WaitGroup
			if background {
				others.Go(m.split)
			}
			others.Go(func() { m.snapshots(t) })
			others.Go(m.sweep)
			wg.Wait()
			m.over.Store(true)
			others.Wait()
			for m.x.Growing() {
				m.x.Step()
			}
			require.GreaterOrEqual(t, m.x.Stats().Doublings, uint64(6))
			m.check(t)
		})
	}
}

// growModel is an index with what everyone knows about it.
type growModel struct {
	x     *Index
	epoch *epoch.Domain
	keys  []uint64 // one hash of each chain
	known []atomic.Uint64
	tail  atomic.Uint64
	over  atomic.Bool
	links struct {
		sync.Mutex
		all []growLink
	}
}

type growLink struct {
	key       int
	old, next record.Addr
}

func newGrowModel(t *testing.T, seed uint64) *growModel {
	m := &growModel{epoch: epoch.New()}
	m.x = openIndex(t, Options{Bits: 3, MaxBits: 13, Drained: m.epoch.Bump})
	rnd := rand.New(rand.NewPCG(seed, 99))
	keys := 20_000
	if testing.Short() {
		keys = 5_000
	}
	seen := map[uint64]bool{}
	for len(m.keys) < keys {
		if h := rnd.Uint64(); !seen[place(m.x, h)] {
			seen[place(m.x, h)] = true
			m.keys = append(m.keys, h)
		}
	}
	m.known = make([]atomic.Uint64, keys)
	m.tail.Store(uint64(record.FirstAddr))
	return m
}

// work creates, changes and looks up; the keys in use become more and more.
func (m *growModel) work(t *testing.T, rnd *rand.Rand) {
	slot := m.epoch.Register()
	defer slot.Release()
	var links []growLink
	batch := make([]uint64, 16)
	for used := 16; used <= len(m.keys); used += 1 + used/200 {
		slot.Enter()
		var ks [16]int
		for i := range batch {
			ks[i] = rnd.IntN(used)
			if rnd.IntN(4) == 0 {
				ks[i] = used - 1 - rnd.IntN(16) // several creators of the same
			}
			batch[i] = m.keys[ks[i]]
		}
		m.x.Prefetch(batch)
		for i, k := range ks {
			known := record.Addr(m.known[k].Load())
			if rnd.IntN(2) == 0 {
				if _, e := m.x.Find(batch[i]); Address(e) < known {
					t.Errorf("key %d is at %v, known was %v", k, Address(e), known)
				}
				continue
			}
			at, e, err := m.x.FindOrCreate(batch[i])
			if err != nil {
				if !errors.Is(err, ErrBusy) {
					t.Error(err)
				}
				break
			}
			if Address(e) < known {
				t.Errorf("key %d is at %v, known was %v", k, Address(e), known)
			}
			addr := record.Addr(m.tail.Add(1))
			if CAS(at, e, addr) {
				links = append(links, growLink{k, Address(e), addr})
				raise(&m.known[k], addr)
			}
		}
		slot.Exit()
	}
	m.links.Lock()
	defer m.links.Unlock()
	m.links.all = append(m.links.all, links...)
}

func raise(m *atomic.Uint64, a record.Addr) {
	for old := m.Load(); old < uint64(a) && !m.CompareAndSwap(old, uint64(a)); old = m.Load() {
	}
}

func (m *growModel) split() {
	for !m.over.Load() {
		if !m.x.Step() {
			runtime.Gosched()
		}
	}
}

// sweep removes empty chains, which somebody may just have created.
func (m *growModel) sweep() {
	for row := uint64(0); !m.over.Load(); runtime.Gosched() {
		row, _ = m.x.Sweep(row, 16, record.FirstAddr)
	}
}

// snapshots copies the index again and again, with pauses that let it grow.
func (m *growModel) snapshots(t *testing.T) {
	before := make([]uint64, len(m.keys))
	for !m.over.Load() {
		for k := range before {
			before[k] = m.known[k].Load()
		}
		bits := m.x.Bits()
		got := map[uint64]record.Addr{}
		var row []byte
		for b := range uint64(1) << bits {
			row = m.x.AppendRow(row[:0], b, bits)
			for at := 2; at < len(row); at += 8 {
				e := binary.LittleEndian.Uint64(row[at:])
				if _, twice := got[m.x.hashOf(b, e)]; twice || e&(moving|tentative) != 0 {
					t.Errorf("entry %#x of row %d is there twice, or marked", e, b)
				}
				got[m.x.hashOf(b, e)] = Address(e)
			}
			if b%8 == 0 {
				runtime.Gosched()
			}
		}
		for k, known := range before {
			if a := got[place(m.x, m.keys[k])]; uint64(a) < known {
				t.Errorf("key %d is at %v in the snapshot, known was %d", k, a, known)
				return
			}
		}
	}
}

// check follows every chain from its creation to its newest record.
func (m *growModel) check(t *testing.T) {
	slices.SortFunc(m.links.all, func(a, b growLink) int { return int(a.next) - int(b.next) })
	newest := map[uint64]record.Addr{}
	for _, l := range m.links.all {
		was, there := newest[place(m.x, m.keys[l.key])]
		if !there {
			was = Creating
		}
		require.Equal(t, was, l.old, "key %d: a change got lost before %v", l.key, l.next)
		newest[place(m.x, m.keys[l.key])] = l.next
	}
	// Chains whose creator lost the race for them for good have no record.
	requireSame(t, m.x, newest)
}
