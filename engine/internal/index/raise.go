package index

import (
	"math/bits"

	"rskv/engine/internal/record"
)

// Raise makes addr the newest record of the hash's chain, unless that has one as
// new, and creates the chain's entry if there is none. It fails as FindOrCreate
// does.
func (x *Index) Raise(hash uint64, addr record.Addr) error {
	for {
		slot, entry, err := x.FindOrCreate(hash)
		if err != nil {
			return err
		}
		if Address(entry) >= addr || CAS(slot, entry, addr) {
			return nil
		}
	}
}

// RaiseAlone asks for the row of a hash raiseAhead before it looks at it, a block of
// them at a time: a processor has some twenty lines on their way.
const raiseAhead, raiseBlock = 16, 4

// RaiseAlone is Raise for each of the hashes, what a recovery does with all records, as
// long as nobody else uses the index for hashes whose rows they share: others may work
// at other rows. It returns how many are done with, and fails where that is not all of
// them.
//
// Rows are written without atomic operations, of which Raise takes two for an entry that
// is new. While the table grows, others are at all rows, so it goes as in Raise. A growth that
// begins meanwhile splits no row before the section has ended.
func (x *Index) RaiseAlone(hashes []uint64, addrs []record.Addr) (done int, err error) {
	addrs = addrs[:len(hashes)]
	x.Prefetch(hashes[:min(raiseAhead, len(hashes))])
	for i, hash := range hashes {
		if i%raiseBlock == 0 && i+raiseAhead < len(hashes) {
			x.Prefetch(hashes[i+raiseAhead : min(i+raiseAhead+raiseBlock, len(hashes))])
		}
		if shape := x.shape.Load(); shape&growing == 0 && x.raiseAlone(x.row(hash&shape), x.tag(hash), addrs[i]) {
			continue
		}
		if err := x.Raise(hash, addrs[i]); err != nil {
			return i, err
		}
	}
	return len(hashes), nil
}

// raiseAlone is Raise in a row that nobody else uses. It returns false if there is no
// place left in it, and for the tag that free words have. A bucket is looked at without
// branches: see FindAll.
func (x *Index) raiseAlone(b *bucket, tag uint64, addr record.Addr) bool {
	if tag == 0 {
		return false
	}
	var place *uint64
	for entry := tag<<tagShift | uint64(addr); ; b = x.pool.bucket(b[overflowWord]) {
		same := has(b, 0, tag) | has(b, 1, tag)<<1 | has(b, 2, tag)<<2 | has(b, 3, tag)<<3 |
			has(b, 4, tag)<<4 | has(b, 5, tag)<<5 | has(b, 6, tag)<<6
		if same != 0 {
			slot := &b[bits.TrailingZeros64(same)&7]
			*slot = max(*slot, entry)
			return true
		}
		if place == nil {
			free := bit(b[0] == 0) | bit(b[1] == 0)<<1 | bit(b[2] == 0)<<2 | bit(b[3] == 0)<<3 |
				bit(b[4] == 0)<<4 | bit(b[5] == 0)<<5 | bit(b[6] == 0)<<6
			if free != 0 {
				place = &b[bits.TrailingZeros(free)&7]
			}
		}
		if b[overflowWord] == 0 {
			if place == nil {
				return false
			}
			*place = entry
			return true
		}
	}
}

func bit(is bool) (one uint) {
	if is {
		one = 1
	}
	return one
}
