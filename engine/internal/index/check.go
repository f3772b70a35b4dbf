package index

import (
	"encoding/binary"
	"fmt"
	"sync/atomic"
)

// Stats describes an index.
type Stats struct {
	Bits, Anchor uint8
	// TagBits is how many bits of the tag tell entries of a row apart: each
	// doubling uses one up.
	TagBits      uint8
	Growing      bool
	Doublings    uint64 // since the index was made
	Limit        Limit  // why it does not grow, as of the last time it should have
	Buckets      int64  // of the table; while it grows, those there are
	OverflowUsed int64  // buckets linked behind others
	OverflowMax  int64  // that creators may use
	// Bytes is the memory the index can have taken from the system by now. The
	// table counts whole, since a random load touches all of it.
	Bytes int64
}

// poolStep is how much memory the pool takes from the system at a time: one
// huge page.
const poolStep = 2 << 20

// Stats returns the present figures. It reads a few counters only.
func (x *Index) Stats() Stats {
	fresh, bits := int64(x.pool.fresh.Load()), x.Bits()
	return Stats{
		Bits: bits, Anchor: x.anchor, TagBits: tagBits - (bits - x.anchor),
		Growing:      x.Growing(),
		Doublings:    x.grow.doublings.Load(),
		Limit:        Limit(x.grow.stopped.Load()),
		Buckets:      int64(x.rows()),
		OverflowUsed: max(fresh-x.pool.idle.Load(), 0),
		OverflowMax:  int64(x.grow.limit.Load()),
		Bytes:        x.Bytes(),
	}
}

// Bytes is the memory the index can have taken from the system by now.
func (x *Index) Bytes() int64 {
	fresh := int64(x.pool.fresh.Load())
	touched := min((fresh*bucketSize+poolStep-1)/poolStep*poolStep, int64(x.pool.max)*bucketSize)
	return int64(x.rows())*bucketSize + touched
}

// Range calls yield with every entry that has a chain, until it returns false.
// hash has the bits of the hash that the index knows, anchor+15 of them, and
// zeros above: FindOrCreate(hash) in an index of the same anchor makes the same
// entry. Entries that change meanwhile may be seen as they were or as they are,
// and new ones may be missed.
func (x *Index) Range(yield func(hash, entry uint64) bool) {
	var row []byte
	bits := x.Bits()
	for b := range uint64(1) << bits {
		row = x.AppendRow(row[:0], b, bits)
		for at := 2; at < len(row); at += 8 {
			e := binary.LittleEndian.Uint64(row[at:])
			if !yield(x.hashOf(b, e), e) {
				return
			}
		}
	}
}

// hashOf is what the index knows of the hash of an entry in a row.
func (x *Index) hashOf(row, e uint64) uint64 {
	return row&(1<<x.anchor-1) | e>>tagShift&tagMask<<x.anchor
}

// Check walks the whole index while nobody changes it, and reports the first
// entry that breaks a rule: a tag twice in a row, a mark left behind, an entry
// without an address or in the wrong row; or a link that leads nowhere, or
// overflow buckets that are in use but in no row. A growth may be under way.
func (x *Index) Check() error {
	linked, rows := uint64(0), x.rows()
	for row := range rows {
		n, err := x.checkRow(row, rows)
		if err != nil {
			return fmt.Errorf("index: bucket %#x of %#x: %w", row, rows, err)
		}
		linked += n
	}
	if used := x.pool.fresh.Load() - uint64(x.pool.idle.Load()); linked != used {
		return fmt.Errorf("index: %d overflow buckets are linked, %d in use", linked, used)
	}
	return nil
}

// checkRow checks one row and counts its overflow buckets.
func (x *Index) checkRow(row, rows uint64) (overflow uint64, err error) {
	seen := map[uint64]bool{}
	for b := x.row(row); ; {
		for i := range bucketEntries {
			e := atomic.LoadUint64(&b[i])
			if e == 0 {
				continue
			}
			tag := e >> tagShift & tagMask
			switch {
			case e&tentative != 0:
				return 0, fmt.Errorf("entry %#016x is tentative", e)
			case e&moving != 0:
				return 0, fmt.Errorf("entry %#016x is moving", e)
			case Address(e) == 0:
				return 0, fmt.Errorf("entry %#016x has no address", e)
			case seen[tag]:
				return 0, fmt.Errorf("entry %#016x: tag %#x is there twice", e, tag)
			case x.rowOf(x.hashOf(row, e), rows) != row:
				return 0, fmt.Errorf("entry %#016x belongs to row %#x", e, x.rowOf(x.hashOf(row, e), rows))
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

// rowOf is the row of a hash while so many rows exist.
func (x *Index) rowOf(hash, rows uint64) uint64 {
	mask := x.shape.Load() &^ growing
	if row := hash & (mask<<1 | 1); row < rows {
		return row
	}
	return hash & mask
}
