// Package index is the hash index of the store: it finds the chain of records
// that a key belongs to. It is lock-free, lives outside the Go heap and knows
// nothing of keys or of the log.
//
// # Terminology
//
//	hash      64 bits of a key. The index reads the low ones only.
//	bits      the table has 2^bits buckets.
//	bucket    64 bytes, one cache line: 7 entries and 1 overflow word. The
//	          bucket of a hash is named by its low `bits` bits.
//	overflow  a bucket from a pool, linked behind a full one. A bucket of the
//	          table and those behind it are one row.
//	anchor    the number of bits the index was created with.
//	tag       15 bits of the hash, from position anchor on.
//	entry     one word: tag and address of the newest record of a chain.
//	chain     the records whose hashes agree in bucket and tag, linked from new
//	          to old in the log. Keys are compared in the records.
//	slot      the place of an entry, a *uint64.
//
//	table                                         pool
//	+----+----+----+----+----+----+----+----+     +----+--- ... ---+----+
//	| e0 | e1 | e2 | e3 | e4 | e5 | e6 | #n-+---->| e0 |           | #0 |
//	+----+----+----+----+----+----+----+----+     +----+--- ... ---+----+
//
//	hash  63 ............ anchor+14 ...... anchor anchor-1 .......... 0
//	                     [        tag         ] [       bucket       ]
//
// An entry's bits stand in entry.go.
//
// # What holds
//
//   - A row has at most one entry without the tentative mark for each tag.
//     Tentative ones are seen only by those who create: see create.go.
//   - An entry changes only by compare-and-swap of the exact word read, and
//     addresses never repeat, so a swap that succeeds proves that nothing
//     happened to the chain in between.
//   - An entry whose address is below record.FirstAddr is an empty chain. It
//     stays when its creator fails, and serves whoever comes next.
//   - A row only grows. A bucket never leaves it.
//
// # Chains and the size of the table
//
// In a new table bucket and tag are together the low bits+15 bits of the hash.
// A table with more bits only refines the chains: whatever shared a chain there
// did so in the smaller one, and all records of a chain are reached through the
// links written under either. The reverse loses keys: two chains of the larger
// table become one entry in the smaller, which can point to one of them only.
// Hence a log is never replayed into a table with fewer bits than it was
// written under (of 10 M keys 1,416 were lost that way in a simulation).
//
// # Growth
//
// The index does not grow on line yet; its layout is made for it. To double the
// table, row b is split into the rows b and b + 2^bits. The bit of the hash that
// decides is bit `bits`, which is bit bits-anchor of the stored tag, so no
// record has to be read, not even from memory. The anchor stays, so the chains
// stay what they were, and only the number of different tags a row can hold
// halves; after 15 doublings the tag is used up. A table loaded from a snapshot
// keeps its anchor; an index filled anew takes its own.
//
// Read index.go for finding, create.go for inserting, pool.go for overflow.
package index

import (
	"fmt"
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
)

// bucket is one cache line. Its words are accessed with sync/atomic only.
type bucket [bucketSize / 8]uint64

var _ [bucketSize]byte = [unsafe.Sizeof(bucket{})]byte{}

// Index is a hash index. All methods but Free may be called by any number of
// goroutines at a time; the caller's epoch section keeps the records alive that
// entries point to, the index itself needs none.
type Index struct {
	table  unsafe.Pointer // 2^bits buckets; immutable, like all of this but pool's content
	mask   uint64         // 2^bits - 1
	anchor uint8          // position of the tag in a hash
	bits   uint8
	memory *ioring.Memory
	pool   pool
}

// New returns an empty index of 2^bits buckets, bits 0..MaxBits, with room for
// up to overflowMax buckets besides. Memory is reserved at once and taken from
// the system as it is touched; Stats tells how much.
func New(bits uint8, overflowMax int) (*Index, error) {
	if bits > MaxBits {
		return nil, fmt.Errorf("index of 2^%d buckets: at most 2^%d", bits, MaxBits)
	}
	memory, err := ioring.AllocMemory(bucketSize << bits)
	if err != nil {
		return nil, fmt.Errorf("index of 2^%d buckets: %w", bits, err)
	}
	x := &Index{
		table:  memory.Pointer(),
		mask:   1<<bits - 1,
		anchor: bits,
		bits:   bits,
		memory: memory,
	}
	if err := x.pool.open(overflowMax); err != nil {
		return nil, fmt.Errorf("index overflow: %w", joinFree(err, memory))
	}
	return x, nil
}

// Free gives the memory back. Nobody may be using the index, or a slot of it.
func (x *Index) Free() error {
	x.table = nil
	return joinFree(x.pool.close(), x.memory)
}

// Bits is the logarithm of the number of buckets.
func (x *Index) Bits() uint8 { return x.bits }

// Find returns the entry of the hash's chain and its slot, or 0 if there is
// none. It never returns a tentative entry, and may return an empty chain.
//
// Straight-line and branching: a loop, a branch-free match and an AVX-512 match
// were tried and gained nothing once more than one lookup is in flight.
func (x *Index) Find(hash uint64) (slot *uint64, entry uint64) {
	b := x.home(hash)
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

// Prefetch asks the processor for the buckets of all hashes, so that a batch of
// Finds waits for memory once and not once each.
func (x *Index) Prefetch(hashes []uint64) {
	if len(hashes) > 0 {
		prefetchBuckets(x.table, x.mask, &hashes[0], len(hashes))
	}
}

// home is the bucket of the table that hash belongs to.
func (x *Index) home(hash uint64) *bucket {
	return (*bucket)(unsafe.Add(x.table, (hash&x.mask)<<bucketShift))
}

// tag is the tag of hash.
func (x *Index) tag(hash uint64) uint64 { return hash >> (x.anchor & 63) & tagMask }
