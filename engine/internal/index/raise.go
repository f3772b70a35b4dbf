package index

import (
	"math/bits"
	"sync/atomic"

	"rskv/engine/internal/record"
)

// Raise makes addr the newest record of the hash's chain, unless that has one as
// new, and creates the chain's entry if there is none: what a recovery does with
// every record. It fails as FindOrCreate does.
//
// Most rows are one bucket, whose line is there when it has been asked for: then all
// of it, creation too (see FindOrCreate), is done in that line, in the same phases
// but without the address Creating in between. It takes a third of the time.
func (x *Index) Raise(hash uint64, addr record.Addr) error {
	if shape := x.shape.Load(); shape&growing == 0 && x.raiseIn(x.row(hash&shape), x.tag(hash), addr) {
		return nil
	}
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

// raiseIn is Raise for a row that is this bucket alone. It returns false where that
// is not so, or somebody else is at it.
func (x *Index) raiseIn(b *bucket, tag uint64, addr record.Addr) bool {
	if tag == 0 || atomic.LoadUint64(&b[overflowWord]) != 0 {
		return false // a free word has tag 0
	}
	var same, free uint
	for i := range uint(bucketEntries) {
		e := atomic.LoadUint64(&b[i])
		same |= bit(e>>tagShift == tag) << i
		free |= bit(e == 0) << i
	}
	if same != 0 {
		slot := &b[bits.TrailingZeros(same)&7]
		e := atomic.LoadUint64(slot)
		return e>>tagShift == tag && e&moving == 0 && (Address(e) >= addr || CAS(slot, e, addr))
	}
	if free == 0 {
		return false
	}
	slot := &b[bits.TrailingZeros(free)&7]
	entry := tag<<tagShift | uint64(addr)
	if !atomic.CompareAndSwapUint64(slot, 0, tentative|entry) {
		return false
	}
	if !x.aloneIn(b, tag) {
		atomic.CompareAndSwapUint64(slot, tentative|entry, 0)
		return false
	}
	return atomic.CompareAndSwapUint64(slot, tentative|entry, entry)
}

// aloneIn reports whether one entry of the row has the tag, tentative ones included,
// and the row still is this bucket alone.
func (x *Index) aloneIn(b *bucket, tag uint64) bool {
	n := uint(0)
	for i := range bucketEntries {
		n += bit(atomic.LoadUint64(&b[i])>>tagShift&tagMask == tag)
	}
	return n == 1 && atomic.LoadUint64(&b[overflowWord]) == 0
}

func bit(is bool) (one uint) {
	if is {
		one = 1
	}
	return one
}
