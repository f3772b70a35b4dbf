package index

import (
	"fmt"
	"sync/atomic"

	"rskv/engine/internal/record"
)

// Stats describes the size of an index.
type Stats struct {
	Buckets      int64 // of the table
	OverflowUsed int64 // buckets linked behind others
	OverflowMax  int64
	// Bytes is the memory the index can have taken from the system by now. The
	// table counts whole, since a random load touches all of it.
	Bytes int64
}

// poolStep is how much memory the pool takes from the system at a time: one
// huge page.
const poolStep = 2 << 20

// Stats returns the present figures. It reads a few counters only.
func (x *Index) Stats() Stats {
	fresh := int64(x.pool.fresh.Load())
	touched := min((fresh*bucketSize+poolStep-1)/poolStep*poolStep, int64(x.pool.max)*bucketSize)
	return Stats{
		Buckets:      int64(x.mask) + 1,
		OverflowUsed: max(fresh-x.pool.idle.Load(), 0),
		OverflowMax:  int64(x.pool.max),
		Bytes:        int64(x.mask+1)*bucketSize + touched,
	}
}

// Range calls yield with every entry that has a chain, until it returns false.
// hash has the bits of the hash that the index knows, bits+15 of them or fewer,
// and zeros above: FindOrCreate(hash) in an index made with the same bits makes
// the same entry. Entries that change meanwhile may be seen as they were or as
// they are, and new ones may be missed.
func (x *Index) Range(yield func(hash, entry uint64) bool) {
	for home := range x.mask + 1 {
		for b := x.home(home); b != nil; b = x.next(b) {
			for i := range bucketEntries {
				e := atomic.LoadUint64(&b[i])
				if Address(e) < record.FirstAddr {
					continue // free, or a chain without records; tentative ones are such
				}
				if !yield(home|e>>tagShift<<x.anchor, e) {
					return
				}
			}
		}
	}
}

// Check walks the whole index while nobody changes it, and reports the first
// entry that breaks a rule: a tag twice in a row, a tentative mark left behind,
// an entry without an address; or a link that leads nowhere, or overflow
// buckets that are in use but in no row.
func (x *Index) Check() error {
	linked := uint64(0)
	for home := range x.mask + 1 {
		n, err := x.checkRow(home)
		if err != nil {
			return fmt.Errorf("index: bucket %#x: %w", home, err)
		}
		linked += n
	}
	if used := x.pool.fresh.Load() - uint64(x.pool.idle.Load()); linked != used {
		return fmt.Errorf("index: %d overflow buckets are linked, %d in use", linked, used)
	}
	return nil
}

// checkRow checks one row and counts its overflow buckets.
func (x *Index) checkRow(home uint64) (overflow uint64, err error) {
	seen := map[uint64]bool{}
	b := x.home(home)
	for {
		for i := range bucketEntries {
			e := atomic.LoadUint64(&b[i])
			if e == 0 {
				continue
			}
			tag := e >> tagShift & tagMask
			switch {
			case e&tentative != 0:
				return 0, fmt.Errorf("entry %#016x is tentative", e)
			case Address(e) == 0:
				return 0, fmt.Errorf("entry %#016x has no address", e)
			case seen[tag]:
				return 0, fmt.Errorf("entry %#016x: tag %#x is there twice", e, tag)
			}
			seen[tag] = true
		}
		next := atomic.LoadUint64(&b[overflowWord])
		if next == 0 {
			return overflow, nil
		}
		if overflow++; next > x.pool.fresh.Load() || overflow > x.pool.max {
			return 0, fmt.Errorf("overflow word %#x leads nowhere", next)
		}
		b = x.pool.bucket(next)
	}
}

// next is the bucket behind b in its row, or nil.
func (x *Index) next(b *bucket) *bucket {
	n := atomic.LoadUint64(&b[overflowWord])
	if n == 0 {
		return nil
	}
	return x.pool.bucket(n)
}
