package index

import (
	"math"
	"sync/atomic"
)

// Growth from n to n+1 bits. The shape word says how far it is:
//
//	stable n     | every entry is in the row of its hash's low n bits
//	announced    | the same; everybody who enters a section learns of the growth,
//	             | some who entered before do not know of it
//	splitting    | everybody knows. Rows are split in order: see below
//	stable n+1   | every entry is in the row of its hash's low n+1 bits
//
//	from       | event                                         | to
//	-----------+-----------------------------------------------+------------
//	stable n   | begin: too many overflow buckets, and room     | announced
//	announced  | every section that began before has ended      | splitting
//	splitting  | the last row is split                          | stable n+1
//
// While it is splitting, a row is whole, in flight or split. Row b + 2^n, which
// does not exist before, is the sibling of b. grow.at counts the rows that exist,
// hence says which is in flight:
//
//	0         b          2^n     b + 2^n        2^(n+1)
//	+---------+----------+---------+ - - - - - - - +
//	|  split  |  whole   |         |
//	+---------+----------+---------+ - - - - - - - +
//	                               ^ at
//
// Who may touch what:
//
//   - Hashes of the lower half, whose bit n is 0: their entries stay where they
//     are. Whoever looks for them, changes or creates them notices nothing.
//
//   - An entry of the upper half in a whole row is found, changed and created
//     there. One in a split row is in the sibling, and only there.
//
//   - The row in flight belongs to the splitter in so far as only it creates
//     entries of the upper half. It moves each in three steps:
//
//     freeze   the word in the old row gets the moving mark, so that no swap succeeds
//     copy     the word without the mark goes to the sibling
//     clear    the old word becomes 0: free, for entries of the lower half
//
//   - Whoever looks for a hash of the upper half looks into the old row first,
//     then, if he finds nothing or a frozen entry, into the sibling. If that has
//     the entry, it is the valid one: changes are made there from the copy on. If
//     it has not, then at the moment he looked the frozen one was valid, or, if
//     he found none, there was none when he looked into the old row: an entry
//     that had moved before that would be in the sibling. Looking the other way
//     round would miss an entry that moves in between. Nobody waits.
//
//   - A creator of the upper half whose row is in flight waits for some 50 ns, or
//     gives up with ErrBusy.
//
// Why the section drain: one who knows the shape of stable n only would not look
// into the sibling, and would create an entry behind the splitter's back. No
// drain is needed at the end: the rules of splitting, applied to rows that are
// all split, are those of stable n+1. And since growth n+1 to n+2 drains before
// it splits, nobody lives by rules that are two shapes old; grow.at only rises,
// so it never misleads those who are one behind.
//
// Rows are split 256 at a time, by whoever holds the splitter: a background task,
// and creators who need an overflow bucket, so that growth keeps up with those
// who make it necessary even if the task does not get a processor. The task has
// the system give the memory of the new rows ahead of that, see Prepare; creators
// split rows in it only, unless the overflow buckets have become scarce.
type grow struct {
	_ [64]byte // away from the words that every Find reads

	// splitter is held by whoever begins a growth or splits rows. Nobody waits
	// for it. Atomic.
	splitter atomic.Bool
	// open says that everybody knows of the growth. Atomic; set when the sections
	// have drained, cleared by the splitter at the end.
	open atomic.Bool
	// at is 2 x the rows that exist; +1 while the next one is being filled.
	// Atomic; written by the splitter, read by creators, only rises.
	at atomic.Uint64
	_  [64]byte
	// split is at/2 as of the last chunk: for readers, who need not know better,
	// and whose cache line should not change every 50 ns. Atomic.
	split atomic.Uint64
	_     [64]byte

	// touched is the number of rows whose memory is there. Atomic; written by
	// Prepare. poolTouched is the same in overflow buckets, owned by Prepare.
	touched     atomic.Uint64
	poolTouched uint64

	// limit is how many overflow buckets creators may use, trigger at how many
	// the table begins to grow. Atomic; written by the splitter.
	limit, trigger atomic.Uint64
	claims         atomic.Uint64 // numbers of claims, see FindOrCreate. Atomic
	doublings      atomic.Uint64 // since the index was made. Atomic
	stopped        atomic.Uint32 // a Limit. Atomic; written by the splitter
}

const (
	// chunkRows is how many rows are split at a time: some 10 us.
	chunkRows = 256
	// overflowMost is half of the overflow buckets that 32 bits can number.
	overflowMost = 1<<31 - 1
	// GrowthMax is how often the table may double after it was filled from empty:
	// with two bits of the tag left, a row has four entries at most, so that an
	// index whose tag is used up cannot become full.
	GrowthMax = tagBits - 2
	// triggerShare: the table grows when one row in 16 has needed an overflow
	// bucket since it was made, which is at 4.3 entries a bucket. Counted are
	// buckets taken, so that nobody has to count entries.
	triggerShare = 16
	// populateRows is how much memory is asked for at a time, in buckets: a huge
	// page.
	populateRows = 2 << 20 / bucketSize
	// retryShare: when a growth was refused, one is asked for again after one
	// row in 64 has needed another overflow bucket.
	retryShare = 64
)

// Limit says why the table does not grow although it should.
type Limit uint8

const (
	NotLimited Limit = iota
	// LimitRoom: Options.Room said no, or the table is as large as what was
	// reserved.
	LimitRoom
	// LimitTag: it has grown 2^13-fold since it was filled from empty; chains
	// get longer instead. An index filled anew with more bits has a tag again.
	LimitTag
	// LimitOverflow: more than half of the overflow buckets are in use in a
	// table that small, which only a bad hash can bring about.
	LimitOverflow
)

func (l Limit) String() string {
	switch l {
	case LimitRoom:
		return "memory"
	case LimitTag:
		return "tag"
	case LimitOverflow:
		return "overflow"
	}
	return "none"
}

// Footprint is what an index of 2^bits buckets takes at most, in bytes, if it may
// have so many overflow buckets at least.
func Footprint(bits uint8, overflow int) int64 {
	pool := bucketSize * int64(overflowLimit(bits, overflow))
	return bucketSize<<bits + (pool+poolStep-1)/poolStep*poolStep
}

func overflowLimit(bits uint8, overflow int) uint64 {
	return min(max(uint64(max(overflow, 0)), 1<<bits/overflowShare), overflowMost)
}

// overflowReserve is the number of overflow buckets to reserve. A split never
// runs out of them: the sibling of a row needs at most as many as the row has,
// and creators leave half of the reserve.
func (x *Index) overflowReserve() int {
	if n := x.opt.Overflow; n < 0 || n > overflowMost {
		return 2 * n // the pool says what is wrong with it
	}
	return 2 * int(overflowLimit(x.opt.MaxBits, x.opt.Overflow))
}

// shapeAs sets the words of an empty index. Nobody else uses it.
func (x *Index) shapeAs(bits, anchor uint8) {
	g := &x.grow
	x.anchor = anchor
	g.open.Store(false)
	g.at.Store(2 << bits)
	g.split.Store(1 << bits)
	g.touched.Store((1<<bits + populateRows - 1) &^ (populateRows - 1))
	g.poolTouched = 0
	g.stopped.Store(uint32(NotLimited))
	x.shape.Store(1<<bits - 1)
	x.newLimits()
}

// newLimits sets what goes with the size of the table.
func (x *Index) newLimits() {
	x.grow.limit.Store(overflowLimit(x.Bits(), x.opt.Overflow))
	x.grow.trigger.Store(x.pool.fresh.Load() + max(uint64(1)<<x.Bits()/triggerShare, 1))
}

// Growing reports whether the table is on its way to twice its size.
func (x *Index) Growing() bool { return x.shape.Load()&growing != 0 }

// rows is the number of rows that exist, the one in flight included.
func (x *Index) rows() uint64 { return (x.grow.at.Load() + 1) / 2 }

// begin announces a growth, unless something is against it, and reports whether
// one is under way.
func (x *Index) begin() bool {
	g := &x.grow
	if !g.splitter.CompareAndSwap(false, true) {
		return true // somebody else is at it; if not at this, the caller comes again
	}
	shape := x.shape.Load()
	if shape&growing != 0 {
		g.splitter.Store(false)
		return true
	}
	why := x.against()
	news := g.stopped.Swap(uint32(why)) != uint32(why)
	if why != NotLimited {
		again := uint64(math.MaxUint64) // for good, but for those who find the pool empty
		if why == LimitRoom {
			again = x.pool.fresh.Load() + max(uint64(1)<<x.Bits()/retryShare, 1)
		}
		g.trigger.Store(again)
		g.splitter.Store(false)
		if news {
			x.wake()
		}
		return false
	}
	g.trigger.Store(math.MaxUint64)
	// Creators may use the overflow buckets of the larger table already, so that
	// they do not wait for a splitter that has lost its processor.
	g.limit.Store(overflowLimit(x.Bits()+1, x.opt.Overflow))
	// Publish: from here on everybody who enters a section looks into siblings.
	x.shape.Store(shape | growing)
	g.splitter.Store(false)
	x.opt.Drained(func() {
		g.open.Store(true)
		x.wake()
	})
	return true
}

func (x *Index) wake() {
	if x.opt.Wake != nil {
		x.opt.Wake()
	}
}

// against says what is against a growth.
func (x *Index) against() Limit {
	bits := x.Bits()
	switch {
	case bits-x.anchor >= GrowthMax:
		return LimitTag
	case bits >= x.opt.MaxBits,
		x.opt.Room != nil && !x.opt.Room(Footprint(bits+1, x.opt.Overflow)):
		return LimitRoom
	case x.pool.fresh.Load() > x.pool.max/2:
		return LimitOverflow
	}
	return NotLimited
}

// Prepare has the system give some of the memory that the growth under way will
// need next, a huge page at most: its first touch would make a creator wait, 0.2 ms
// and now and then 4 ms. One goroutine at a time calls it, before each Step.
func (x *Index) Prepare() {
	g := &x.grow
	if !g.open.Load() {
		return
	}
	rows := 2 * (x.shape.Load()&^growing + 1)
	if touched := g.touched.Load(); touched < min(rows, g.at.Load()/2+2*populateRows) {
		x.mem.Populate(int64(touched)<<bucketShift, populateRows*bucketSize)
		g.touched.Store(touched + populateRows)
		return
	}
	// Overflow buckets, as many as creators will take until the next growth.
	if g.poolTouched < min(x.pool.fresh.Load()+rows/triggerShare, x.pool.max&^(populateRows-1)) {
		x.pool.memory.Populate(int64(g.poolTouched)<<bucketShift, populateRows*bucketSize)
		g.poolTouched += populateRows
	}
}

// help is Step for creators.
func (x *Index) help() {
	g := &x.grow
	scarce := x.pool.fresh.Load() >= overflowLimit(x.Bits(), x.opt.Overflow)
	if scarce || g.at.Load()/2+chunkRows <= g.touched.Load() {
		x.Step()
	}
}

// Step splits some rows, which takes some 10 us, if the table is growing and
// everybody knows, and reports whether it did: if not, there is nothing to do, or
// another one is at it. It may be called inside a section or outside.
func (x *Index) Step() bool {
	g := &x.grow
	if !g.open.Load() || !g.splitter.CompareAndSwap(false, true) {
		return false
	}
	defer g.splitter.Store(false)
	if !g.open.Load() {
		return false
	}
	half := x.shape.Load()&^growing + 1
	first := g.at.Load() / 2
	end := min(first+chunkRows, 2*half)
	for sibling := first; sibling < end; sibling++ {
		g.at.Store(2*sibling + 1)
		x.splitRow(sibling-half, sibling)
		g.at.Store(2*sibling + 2)
	}
	g.split.Store(end)
	if end == 2*half {
		g.open.Store(false)
		// Publish: the row of a hash is named by one more bit.
		x.shape.Store(2*half - 1)
		g.doublings.Add(1)
		x.newLimits()
	}
	return true
}

// splitRow moves the entries of the upper half from row b to its empty sibling.
// The caller holds the splitter and has marked the row in flight.
func (x *Index) splitRow(b, sibling uint64) {
	upper := uint64(1) << (tagShift + x.Bits() - x.anchor)
	to, free := x.row(sibling), 0
	for from := x.row(b); from != nil; from = x.next(from) {
		for i := range bucketEntries {
			e, ok := freeze(&from[i], upper)
			if !ok {
				continue
			}
			if free == bucketEntries {
				to, free = x.lengthen(to), 0
			}
			atomic.StoreUint64(&to[free], e)
			free++
			atomic.StoreUint64(&from[i], 0)
		}
	}
}

// freeze puts the moving mark on an entry of the upper half, and takes a
// tentative one away. ok is false if there is nothing to move.
func freeze(word *uint64, upper uint64) (entry uint64, ok bool) {
	for {
		e := atomic.LoadUint64(word)
		switch {
		case e&upper == 0:
			return 0, false // free, or of the lower half
		case e&tentative != 0:
			if atomic.CompareAndSwapUint64(word, e, 0) {
				return 0, false
			}
		case atomic.CompareAndSwapUint64(word, e, e|moving):
			return e, true
		}
	}
}

// lengthen links an overflow bucket behind the last one of a sibling that nobody
// else changes.
func (x *Index) lengthen(last *bucket) *bucket {
	n, ok := x.pool.take(x.pool.max)
	if !ok {
		panic("index: no overflow bucket left for a split")
	}
	atomic.StoreUint64(&last[overflowWord], n)
	return x.pool.bucket(n)
}

// findGrowing is Find while the table grows; mask is that of the old size.
func (x *Index) findGrowing(hash, mask uint64) (*uint64, uint64) {
	tag, old := x.tag(hash), hash&mask
	if hash&(mask+1) == 0 {
		return x.findRow(x.row(old), tag)
	}
	sibling := old + mask + 1
	if sibling < x.grow.split.Load() {
		return x.findRow(x.row(sibling), tag)
	}
	slot, entry := x.findRow(x.row(old), tag)
	if entry != 0 && entry&moving == 0 {
		return slot, entry
	}
	if slot, entry := x.findRow(x.row(sibling), tag); entry != 0 {
		return slot, entry
	}
	// A swap in slot cannot succeed with this word: the one there is marked.
	return slot, entry &^ moving
}

// rowFor says in which row an entry for the hash is to be created. sibling is not
// 0 if the row is still whole and the entry would have to move when it is split:
// the creator then looks at begun before it publishes. ok is false while the row
// is in flight.
func (x *Index) rowFor(hash uint64) (row, sibling uint64, ok bool) {
	shape := x.shape.Load()
	mask := shape &^ growing
	row = hash & mask
	if shape&growing == 0 || hash&(mask+1) == 0 {
		return row, 0, true
	}
	sibling = row + mask + 1
	switch at := x.grow.at.Load(); {
	case at/2 > sibling:
		return sibling, 0, true
	case at == 2*sibling+1:
		return 0, 0, false
	}
	return row, sibling, true
}

// begun reports whether the row of the sibling is in flight or has been split.
func (x *Index) begun(sibling uint64) bool { return x.grow.at.Load() > 2*sibling }
