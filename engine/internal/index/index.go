// Package index is the hash index of the store: it finds the chain of records
// that a key belongs to. It is lock-free, lives outside the Go heap, grows while
// it is used, and knows nothing of keys or of the log.
//
// # Terminology
//
//	hash      64 bits of a key. The index reads the low ones only.
//	bits      the table has 2^bits buckets, and twice as many when it has grown.
//	bucket    64 bytes, one cache line: 7 entries and 1 overflow word. The
//	          bucket of a hash is named by its low `bits` bits.
//	overflow  a bucket from a pool, linked behind a full one. A bucket of the
//	          table and those behind it are one row.
//	anchor    the number of bits the index was filled with, from empty.
//	tag       15 bits of the hash, from position anchor on.
//	entry     one word: tag and address of the newest record of a chain.
//	chain     the records whose hashes agree in their low anchor+15 bits, linked
//	          from new to old in the log. Keys are compared in the records.
//	slot      the place of an entry, a *uint64.
//
//	table                                         pool
//	+----+----+----+----+----+----+----+----+     +----+--- ... ---+----+
//	| e0 | e1 | e2 | e3 | e4 | e5 | e6 | #n-+---->| e0 |           | #0 |
//	+----+----+----+----+----+----+----+----+     +----+--- ... ---+----+
//
//	hash  63 ............ anchor+14 ...... anchor anchor-1 .......... 0
//	                     [        tag         ]
//	                          [             bucket                    ]
//	                          bits-1, after growth: overlaps the tag
//
// An entry's bits stand in entry.go.
//
// # What holds
//
//   - A row has at most one entry without the tentative mark for each tag.
//     Tentative ones are seen only by those who create: see create.go.
//   - An entry changes only by compare-and-swap of the exact word read, and
//     addresses never repeat, so a swap that succeeds proves that nothing
//     happened to the chain in between. Who fills an index that nobody else uses
//     yet, or not these rows of it, may store plainly: see LoadRow and RaiseAlone.
//   - An entry whose address is below record.FirstAddr is an empty chain. It
//     stays when its creator fails, and serves whoever comes next.
//   - A row only gets longer. A bucket never leaves it, an entry only by growth,
//     or by Sweep when nothing can be found under it any more.
//
// # Chains and the size of the table
//
// What shares a chain depends on the anchor alone: growth moves entries to other
// rows and leaves the chains what they were. An index filled anew with a higher
// anchor only refines the chains: whatever shares one there did so before, and
// all records of a chain are reached through the links written under either. The
// reverse loses keys: two chains of the finer index become one entry in the
// coarser, which can point to one of them only. Hence a log is never replayed
// into an index with a lower anchor than it was written under (of 10 M keys
// 1,416 were lost that way in a simulation).
//
// # Growth
//
// The table is reserved in its largest size, as addresses, and grows in place:
// when it doubles from 2^bits, row b keeps its bucket, and those of its entries
// whose hash has bit `bits` set go to row b + 2^bits, the row's sibling. That bit
// is bit bits-anchor of the stored tag, so no record is read. Half of the entries
// never move, nothing is copied or freed, and no entry is put into both rows.
// After 13 doublings the tag has two bits left: a row then holds four chains at
// most, needs no overflow, and the table does not grow further; chains get longer
// instead, until the index is filled anew with a higher anchor.
//
// grow.go has the states and why nobody misses an entry that is on its way. In
// short: everybody learns of the growth before it begins; hashes of the lower
// half are not concerned; who looks for one of the upper half looks into the old
// row, then into its sibling.
//
// # Sections
//
// Find, FindOrCreate, CAS and everything done with a slot belong into one epoch
// section of the domain that Options.Drained speaks for: growth waits for the
// sections that began before it. Everything else may be called anywhere.
//
// Read index.go for finding, create.go for inserting, grow.go for growth, pool.go
// for overflow, rows.go for snapshots, sweep.go for removing.
package index

import (
	"errors"
	"fmt"
	"math/bits"
	"sync/atomic"
	"unsafe"

	"rskv/ioring"
)

const (
	bucketSize  = 64
	bucketShift = 6
	// bucketEntries is the number of entries of a bucket; the word behind them
	// is the overflow word: the number of the next bucket of the row in the
	// pool, counted from 1, or 0.
	bucketEntries = 7
	overflowWord  = 7

	// MaxBits is the size of the largest table: 4 TiB. Bucket and tag together
	// must fit a hash.
	MaxBits = 36

	// overflowShare is the share of the table that may be extended by overflow
	// buckets: a quarter is in use at 6 entries a bucket.
	overflowShare = 4
)

// growing marks a shape whose table is on its way to twice its size.
const growing = 1 << 63

// Options of New.
type Options struct {
	// Bits is log2 of the buckets to begin with, MaxBits of those that the table
	// may grow to; both 0 to the package's MaxBits. Less than Bits means Bits.
	Bits, MaxBits uint8
	// Overflow is how many overflow buckets there may be at least; else they are
	// a quarter of the table.
	Overflow int

	// Room is asked before the index grows to a footprint of so many bytes; nil
	// says yes. Wake tells that Step has something to do, or that Stats.Limit has
	// changed. Drained runs an action
	// once all epoch sections that are open now have ended; nil runs it at once,
	// for an index used by one goroutine. All three are called inside sections
	// and must not wait.
	Room    func(footprint int64) bool
	Drained func(action func())
	Wake    func()
}

// bucket is one cache line. Its words are accessed with sync/atomic only, but by those
// who are alone at its row.
type bucket [bucketSize / 8]uint64

var _ [bucketSize]byte = [unsafe.Sizeof(bucket{})]byte{}

// Index is a hash index. All methods but Free, Reset and LoadRow may be called
// by any number of goroutines at a time; the package comment says which need an
// epoch section.
type Index struct {
	table  unsafe.Pointer // room for 2^maxBits buckets; immutable
	anchor uint8          // position of the tag in a hash; changed by Reset only
	// shape is the number of buckets of the table less one, and the growing mark
	// while there are more to come. Atomic; written by whoever holds the
	// splitter, see grow.go; read by every Find.
	shape atomic.Uint64
	opt   Options // immutable
	mem   *ioring.Memory
	pool  pool
	grow  grow
}

// New returns an empty index. Memory is reserved at once and taken from the
// system as it is touched; Stats tells how much.
func New(opt Options) (*Index, error) {
	opt.MaxBits = max(opt.MaxBits, opt.Bits)
	if opt.MaxBits > MaxBits {
		return nil, fmt.Errorf("index of 2^%d buckets: at most 2^%d", opt.MaxBits, MaxBits)
	}
	if opt.Drained == nil {
		opt.Drained = func(action func()) { action() }
	}
	mem, err := ioring.AllocMemory(bucketSize << opt.MaxBits)
	if err != nil {
		return nil, fmt.Errorf("index of 2^%d buckets: %w", opt.MaxBits, err)
	}
	x := &Index{table: mem.Pointer(), opt: opt, mem: mem}
	if err := x.pool.open(x.overflowReserve()); err != nil {
		return nil, fmt.Errorf("index overflow: %w", joinFree(err, mem))
	}
	x.shapeAs(opt.Bits, opt.Bits)
	return x, nil
}

// Free gives the memory back. Nobody may be using the index, or a slot of it.
func (x *Index) Free() error {
	x.table = nil
	return errors.Join(x.pool.close(), x.mem.Free())
}

// Reset empties the index and gives it another size, at most Options.MaxBits, and
// anchor, at most bits. Nobody else uses it.
func (x *Index) Reset(size, anchor uint8) error {
	if size > x.opt.MaxBits || anchor > size || size-anchor > GrowthMax {
		return fmt.Errorf("index of 2^%d buckets anchored at %d: at most 2^%d, and 2^%d times as many as at the anchor",
			size, anchor, x.opt.MaxBits, GrowthMax)
	}
	if err := x.mem.Release(0, int64(x.rows())<<bucketShift); err != nil {
		return fmt.Errorf("empty index: %w", err)
	}
	if err := x.pool.reset(); err != nil {
		return fmt.Errorf("empty index overflow: %w", err)
	}
	x.shapeAs(size, anchor)
	return nil
}

// Bits is the logarithm of the number of buckets; while the table grows, of those
// it had before.
func (x *Index) Bits() uint8 { return uint8(bits.Len64(x.shape.Load() &^ growing)) }

// Anchor is the number of bits the index was filled with, from empty. It decides
// which hashes share a chain.
func (x *Index) Anchor() uint8 { return x.anchor }

// Find returns the entry of the hash's chain and its slot, or 0 if there is
// none. It never returns a tentative entry, and may return an empty chain.
//
// Straight-line and branching: a loop, a branch-free match and an AVX-512 match
// were tried and gained nothing once more than one lookup is in flight.
func (x *Index) Find(hash uint64) (slot *uint64, entry uint64) {
	shape := x.shape.Load()
	if shape&growing != 0 {
		return x.findGrowing(hash, shape&^growing)
	}
	b := x.row(hash & shape)
	tag := x.tag(hash)
	// The tentative bit lies just above the tag, so a tentative entry differs.
	// A free word agrees with tag 0 and must not be taken for an entry.
	if e := atomic.LoadUint64(&b[0]); e>>tagShift == tag && e != 0 {
		return &b[0], e
	}
	if e := atomic.LoadUint64(&b[1]); e>>tagShift == tag && e != 0 {
		return &b[1], e
	}
	if e := atomic.LoadUint64(&b[2]); e>>tagShift == tag && e != 0 {
		return &b[2], e
	}
	if e := atomic.LoadUint64(&b[3]); e>>tagShift == tag && e != 0 {
		return &b[3], e
	}
	if e := atomic.LoadUint64(&b[4]); e>>tagShift == tag && e != 0 {
		return &b[4], e
	}
	if e := atomic.LoadUint64(&b[5]); e>>tagShift == tag && e != 0 {
		return &b[5], e
	}
	if e := atomic.LoadUint64(&b[6]); e>>tagShift == tag && e != 0 {
		return &b[6], e
	}
	if next := atomic.LoadUint64(&b[overflowWord]); next != 0 {
		return x.findOverflow(next, tag)
	}
	return nil, 0
}

// findOverflow goes on in the pool: with 4 entries a bucket on average, one row
// in twenty has such.
//
//go:noinline
func (x *Index) findOverflow(next, tag uint64) (*uint64, uint64) {
	for next != 0 {
		b := x.pool.bucket(next)
		for i := range bucketEntries {
			if e := atomic.LoadUint64(&b[i]); e>>tagShift == tag && e != 0 {
				return &b[i], e
			}
		}
		next = atomic.LoadUint64(&b[overflowWord])
	}
	return nil, 0
}

// findRow looks for a tag in one row.
func (x *Index) findRow(b *bucket, tag uint64) (*uint64, uint64) {
	for i := range bucketEntries {
		if e := atomic.LoadUint64(&b[i]); e>>tagShift == tag && e != 0 {
			return &b[i], e
		}
	}
	return x.findOverflow(atomic.LoadUint64(&b[overflowWord]), tag)
}

// FindAll is Find for several hashes whose buckets have been asked for.
//
// The match is free of branches: where in its bucket an entry stands is anybody's
// guess, the processor's too, and with the line there already a wrong guess costs
// more than seven comparisons. It brings 6 of 48 ns; single lookups, which wait
// for memory anyway, gain nothing.
func (x *Index) FindAll(hashes []uint64, slots []*uint64, entries []uint64) {
	slots, entries = slots[:len(hashes)], entries[:len(hashes)]
	shape := x.shape.Load()
	for i, h := range hashes {
		if shape&growing != 0 {
			slots[i], entries[i] = x.findGrowing(h, shape&^growing)
			continue
		}
		b, tag := x.row(h&shape), x.tag(h)
		m := has(b, 0, tag) | has(b, 1, tag)<<1 | has(b, 2, tag)<<2 | has(b, 3, tag)<<3 |
			has(b, 4, tag)<<4 | has(b, 5, tag)<<5 | has(b, 6, tag)<<6
		if m == 0 {
			slots[i], entries[i] = x.findOverflow(atomic.LoadUint64(&b[overflowWord]), tag)
			continue
		}
		slot := &b[bits.TrailingZeros64(m)&7]
		e := atomic.LoadUint64(slot)
		if e == 0 || e>>tagShift != tag {
			// A free word in the way of tag 0, or somebody has just changed it.
			slot, e = x.Find(h)
		}
		slots[i], entries[i] = slot, e
	}
}

// has is 1 if word i of the bucket has the tag, else 0.
func has(b *bucket, i int, tag uint64) (one uint64) {
	if atomic.LoadUint64(&b[i])>>tagShift == tag {
		one = 1
	}
	return one
}

// Prefetch asks the processor for the buckets of all hashes, so that a batch of
// Finds waits for memory once and not once each.
func (x *Index) Prefetch(hashes []uint64) {
	if len(hashes) == 0 {
		return
	}
	shape := x.shape.Load()
	mask := shape &^ growing
	prefetchBuckets(x.table, mask, &hashes[0], len(hashes))
	if shape&growing != 0 {
		prefetchBuckets(x.table, mask<<1|1, &hashes[0], len(hashes))
	}
}

// row is the bucket of the table with that number.
func (x *Index) row(n uint64) *bucket {
	return (*bucket)(unsafe.Add(x.table, n<<bucketShift))
}

// next is the bucket behind b in its row, or nil.
func (x *Index) next(b *bucket) *bucket {
	n := atomic.LoadUint64(&b[overflowWord])
	if n == 0 {
		return nil
	}
	return x.pool.bucket(n)
}

// tag is the tag of hash.
func (x *Index) tag(hash uint64) uint64 { return hash >> (x.anchor & 63) & tagMask }
